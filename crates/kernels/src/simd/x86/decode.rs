//! Compressed panels on AVX-512: decoding, and one row times panels that are decoded on the way.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256,
    _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_broadcast_i64x4, _mm512_castpd_ps, _mm512_castph_si512, _mm512_castsi512_ph,
    _mm512_cmpgt_epi16_mask, _mm512_cvtepi8_epi16, _mm512_cvtepi16_ph, _mm512_cvtepi32_epi16,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_cvtps_ph, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_si512, _mm512_maskz_expand_epi16,
    _mm512_maskz_expand_epi32, _mm512_maskz_loadu_epi16, _mm512_mul_ph, _mm512_mul_ps,
    _mm512_permutexvar_epi16, _mm512_permutexvar_ps, _mm512_set1_epi16, _mm512_set1_pd, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_shuffle_epi8, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_si512,
    _mm512_sub_ps,
};

use half::f16;

use super::NEAREST;
use super::narrow::{BACK, LARGEST, MORE};
use crate::order::BLOCK;
use crate::simd::micro::few::close_512;
use crate::simd::stored::{ROW, Stored};
use crate::simd::{COLUMNS, PAIRS, Simd};

/// How far ahead of what is decoded memory is fetched, in bytes.
const AHEAD: usize = 2048;

/// Decodes the rows of a block, one after the other; used only inside [`dispatch`].
trait Rows<'a> {
    fn new(stored: Stored<'a>, block: usize) -> Self;
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]);

    /// Whether [`Rows::values`] is faster than [`Rows::decode`] and conversions of what it has written.
    const DIRECT: bool = false;
    /// The values of a row, where they are decoded to registers.
    fn values(&mut self, _row: usize) -> [__m512; 4] {
        unreachable!("invariant: only what is `DIRECT`")
    }
}

/// What is done with rows.
trait Job<'a> {
    fn run<R: Rows<'a>>(self);
}

/// Whether the functions of this file take `stored`: where scales are for whole blocks.
pub(in super::super) fn decodes(simd: Simd, stored: Stored<'_>) -> bool {
    let whole = !matches!(stored, Stored::Bytes { scales, .. } if !scales.each.is_multiple_of(PAIRS));
    whole && simd.has_avx512()
}

/// Writes what `stored` stands for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn decode_512(stored: Stored<'_>, target: &mut [u32]) {
    dispatch(stored, Fill { stored, target });
}

/// See [`crate::simd::vector_of_stored`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn vector_512(a: &[f32], panels: &[Stored<'_>], sums: &mut [[f32; COLUMNS]]) {
    dispatch(panels[0], Multiply { a, panels, sums });
}

/// Runs `job` with the fastest decoder of what `kind` holds.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dispatch<'a>(kind: Stored<'a>, job: impl Job<'a>) {
    let fp16 = is_x86_feature_detected!("avx512fp16");
    let vbmi2 = is_x86_feature_detected!("avx512vbmi2") && is_x86_feature_detected!("popcnt");
    match kind {
        // SAFETY: the processor has the instructions.
        Stored::Bytes { .. } if fp16 => unsafe { run_fp16(job) },
        // SAFETY: as above.
        Stored::Sparse { .. } if vbmi2 => unsafe { run_vbmi2(job) },
        Stored::Bytes { .. } => job.run::<Bytes<'a>>(),
        Stored::Sparse { .. } => job.run::<Sparse<'a>>(),
        Stored::Indices { .. } => job.run::<Indices<'a>>(),
    }
}

#[target_feature(enable = "avx512fp16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_fp16<'a>(job: impl Job<'a>) {
    job.run::<BytesFp16<'a>>();
}

#[target_feature(enable = "avx512vbmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_vbmi2<'a>(job: impl Job<'a>) {
    job.run::<SparseVbmi2<'a>>();
}

struct Fill<'a, 'b> {
    stored: Stored<'a>,
    target: &'b mut [u32],
}

impl<'a> Job<'a> for Fill<'a, '_> {
    #[inline(always)]
    fn run<R: Rows<'a>>(self) {
        let target: &mut [[f16; ROW]] = bytemuck::cast_slice_mut(self.target.as_chunks_mut::<COLUMNS>().0);
        for (block, target) in target.as_chunks_mut::<PAIRS>().0.iter_mut().enumerate() {
            let mut rows = R::new(self.stored, block);
            target.iter_mut().enumerate().for_each(|(row, target)| rows.decode(row, target));
        }
    }
}

struct Multiply<'a, 'b> {
    a: &'b [f32],
    panels: &'b [Stored<'a>],
    sums: &'b mut [[f32; COLUMNS]],
}

/// Panels side by side: what is read ahead for more than two is more than the line buffers hold.
const SIDE: usize = 2;

/// Blocks as pairs. They are decoded to the first-level cache, as to convert the upper half of a register to `f32`
/// takes an instruction more than to convert from memory.
#[repr(align(64))]
struct Decoded<const S: usize>([[[f16; ROW]; PAIRS]; S]);

impl<'a> Job<'a> for Multiply<'a, '_> {
    #[inline(always)]
    fn run<R: Rows<'a>>(self) {
        let (sides, last) = self.panels.as_chunks::<SIDE>();
        let (sums, last_sums) = self.sums.as_chunks_mut();
        for (panels, sums) in sides.iter().zip(sums) {
            multiply_side::<R, SIDE>(self.a, panels, sums);
        }
        for (panel, sums) in last.iter().zip(last_sums) {
            multiply_side::<R, 1>(self.a, std::array::from_ref(panel), std::array::from_mut(sums));
        }
    }
}

#[inline(always)]
fn multiply_side<'a, R: Rows<'a>, const S: usize>(
    a: &[f32],
    panels: &[Stored<'a>; S],
    sums: &mut [[f32; COLUMNS]; S],
) {
    let mut decoded = Decoded([[[f16::ZERO; ROW]; PAIRS]; S]);
    for (block, a) in a.as_chunks().0.iter().enumerate() {
        if R::DIRECT {
            // SAFETY: used only inside `dispatch`.
            unsafe { multiply_direct::<R, S>(a, panels, block, sums) };
            continue;
        }
        for (decoded, &panel) in decoded.0.iter_mut().zip(panels) {
            let mut rows = R::new(panel, block);
            decoded.iter_mut().enumerate().for_each(|(row, target)| rows.decode(row, target));
        }
        // SAFETY: used only inside `dispatch`.
        unsafe { multiply(a, &decoded, sums) };
    }
}

/// Adds the products of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn multiply<const S: usize>(a: &[f32; BLOCK], decoded: &Decoded<S>, sums: &mut [[f32; COLUMNS]; S]) {
    let mut chains = [[_mm512_setzero_ps(); 4]; S];
    for (pair, factors) in a.as_chunks::<2>().0.iter().enumerate() {
        let factors = _mm512_castpd_ps(_mm512_set1_pd(bytemuck::cast(*factors)));
        for (chains, rows) in chains.iter_mut().zip(&decoded.0) {
            for (chain, values) in chains.iter_mut().zip(rows[pair].as_chunks::<16>().0) {
                // SAFETY: 16 values are 32 bytes.
                let values = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.as_ptr().cast()) });
                *chain = _mm512_fmadd_ps(factors, values, *chain);
            }
        }
    }
    for (chains, sums) in chains.into_iter().zip(sums) {
        // SAFETY: these are 32 sums.
        unsafe { close_512(chains, sums.as_mut_ptr()) };
    }
}

/// Adds the products of a block, whose rows are decoded to registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn multiply_direct<'a, R: Rows<'a>, const S: usize>(
    a: &[f32; BLOCK],
    panels: &[Stored<'a>; S],
    block: usize,
    sums: &mut [[f32; COLUMNS]; S],
) {
    let mut rows = panels.each_ref().map(|&panel| R::new(panel, block));
    let mut chains = [[_mm512_setzero_ps(); 4]; S];
    for (pair, factors) in a.as_chunks::<2>().0.iter().enumerate() {
        let factors = _mm512_castpd_ps(_mm512_set1_pd(bytemuck::cast(*factors)));
        for (chains, rows) in chains.iter_mut().zip(&mut rows) {
            for (chain, values) in chains.iter_mut().zip(rows.values(pair)) {
                *chain = _mm512_fmadd_ps(factors, values, *chain);
            }
        }
    }
    for (chains, sums) in chains.into_iter().zip(sums) {
        // SAFETY: these are 32 sums.
        unsafe { close_512(chains, sums.as_mut_ptr()) };
    }
}

#[inline(always)]
fn fetch<T: ?Sized>(what: &T) {
    // SAFETY: a fetch may be of any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast::<i8>().wrapping_add(AHEAD)) }
}

/// Rows of whole blocks.
type Block<T> = [[T; ROW]; PAIRS];

#[inline(always)]
fn bytes_of<'a>(stored: Stored<'a>, block: usize) -> (&'a Block<i8>, &'a [f16; ROW]) {
    let Stored::Bytes { numbers, scales } = stored else { unreachable!("invariant: bytes") };
    (&numbers.as_chunks().0.as_chunks().0[block], scales.of(block * PAIRS))
}

/// On processors with AVX512-FP16: numbers below 2048 are exact in `f16`, so its product rounds once.
struct BytesFp16<'a> {
    numbers: &'a Block<i8>,
    scales: &'a [f16; ROW],
}

impl<'a> Rows<'a> for BytesFp16<'a> {
    #[inline(always)]
    fn new(stored: Stored<'a>, block: usize) -> BytesFp16<'a> {
        let (numbers, scales) = bytes_of(stored, block);
        BytesFp16 { numbers, scales }
    }

    #[inline(always)]
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]) {
        let numbers = &self.numbers[row];
        fetch(numbers);
        for at in [0, 32] {
            // SAFETY: used only inside `run_fp16`; a row has twice 32 numbers, scales and values.
            unsafe {
                let scales = _mm512_castsi512_ph(_mm512_loadu_si512(self.scales.as_ptr().add(at).cast()));
                let numbers = _mm512_cvtepi8_epi16(_mm256_loadu_si256(numbers.as_ptr().add(at).cast()));
                let values = _mm512_castph_si512(_mm512_mul_ph(_mm512_cvtepi16_ph(numbers), scales));
                _mm512_storeu_si512(target.as_mut_ptr().add(at).cast(), values);
            }
        }
    }
}

/// Numbers come times 2^24, which the scales take back.
struct Bytes<'a> {
    numbers: &'a Block<i8>,
    scales: [__m512; 4],
    /// The scales times 2^13 + 1.
    more: [__m512; 4],
    /// A weight may be infinite.
    large: bool,
}

impl Bytes<'_> {
    /// The numbers of a part of a row. At the top of a lane they need no sign extension.
    #[inline(always)]
    fn numbers(&self, row: usize, part: usize) -> __m512 {
        // SAFETY: used only inside `dispatch`; a row has 4 times 16 numbers.
        unsafe {
            let number = _mm_loadu_si128(self.numbers[row].as_ptr().add(16 * part).cast());
            let top = _mm512_loadu_si512(TOP.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(number), top))
        }
    }
}

/// The lookup that has byte `i` at the top of lane `i`, and zeros below.
static TOP: [[u8; 4]; 16] = {
    let mut top = [[0x80; 4]; 16];
    let mut lane = 0;
    while lane < 16 {
        top[lane][3] = lane as u8;
        lane += 1;
    }
    top
};

impl<'a> Rows<'a> for Bytes<'a> {
    #[inline(always)]
    fn new(stored: Stored<'a>, block: usize) -> Bytes<'a> {
        let (numbers, from) = bytes_of(stored, block);
        // SAFETY: used only inside `dispatch`; a row has 4 times 16 scales.
        unsafe {
            let (mut scales, mut more) = ([_mm512_setzero_ps(); 4], [_mm512_setzero_ps(); 4]);
            for part in 0..4 {
                let scale = _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().add(16 * part).cast()));
                scales[part] = _mm512_mul_ps(scale, _mm512_set1_ps(BACK));
                more[part] = _mm512_mul_ps(scales[part], _mm512_set1_ps(MORE));
            }
            let mut large = 0;
            for half in 0..2 {
                let scales = _mm512_loadu_si512(from.as_ptr().add(32 * half).cast());
                let size = _mm512_and_si512(scales, _mm512_set1_epi16(0x7fff));
                large |= _mm512_cmpgt_epi16_mask(size, _mm512_set1_epi16(LARGEST as i16));
            }
            Bytes { numbers, scales, more, large: large != 0 }
        }
    }

    #[inline(always)]
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]) {
        fetch(&self.numbers[row]);
        for (part, scales) in self.scales.iter().enumerate() {
            let numbers = self.numbers(row, part);
            // SAFETY: used only inside `dispatch`; a row has 4 times 16 values.
            unsafe {
                let values = _mm512_cvtps_ph::<NEAREST>(_mm512_mul_ps(numbers, *scales));
                _mm256_storeu_si256(target.as_mut_ptr().add(16 * part).cast(), values);
            }
        }
    }

    const DIRECT: bool = true;

    #[inline(always)]
    fn values(&mut self, row: usize) -> [__m512; 4] {
        fetch(&self.numbers[row]);
        let mut values = self.scales;
        for (part, value) in values.iter_mut().enumerate() {
            let number = self.numbers(row, part);
            // SAFETY: used only inside `dispatch`.
            *value = unsafe {
                if self.large {
                    _mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(_mm512_mul_ps(number, *value)))
                } else {
                    // As in `narrow`.
                    let above = _mm512_mul_ps(number, self.more[part]);
                    _mm512_sub_ps(above, _mm512_fnmadd_ps(number, *value, above))
                }
            };
        }
        values
    }
}

struct Indices<'a> {
    indices: &'a [[u8; COLUMNS]; PAIRS],
    /// Twice: a lookup takes five bits.
    table: __m512i,
    singles: __m512,
}

impl<'a> Rows<'a> for Indices<'a> {
    #[inline(always)]
    fn new(stored: Stored<'a>, block: usize) -> Indices<'a> {
        let Stored::Indices { indices, table } = stored else { unreachable!("invariant: indices") };
        // SAFETY: used only inside `dispatch`; a table is 32 bytes.
        unsafe {
            let halves = _mm256_loadu_si256(table.as_ptr().cast());
            let (table, singles) = (_mm512_broadcast_i64x4(halves), _mm512_cvtph_ps(halves));
            Indices { indices: &indices.as_chunks().0.as_chunks().0[block], table, singles }
        }
    }

    #[inline(always)]
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]) {
        let (indices, at) = (&self.indices[row], target.as_mut_ptr());
        fetch(indices);
        // SAFETY: used only inside `dispatch`; a row has 32 bytes, and twice 32 values.
        unsafe {
            let low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(indices.as_ptr().cast()));
            let high = _mm512_srli_epi16::<4>(low);
            _mm512_storeu_si512(at.cast(), _mm512_permutexvar_epi16(low, self.table));
            _mm512_storeu_si512(at.add(32).cast(), _mm512_permutexvar_epi16(high, self.table));
        }
    }

    const DIRECT: bool = true;

    #[inline(always)]
    fn values(&mut self, row: usize) -> [__m512; 4] {
        let indices = &self.indices[row];
        fetch(indices);
        let mut values = [self.singles; 4];
        for part in 0..2 {
            // SAFETY: used only inside `dispatch`; a row has twice 16 bytes. A lookup takes the lowest four bits.
            unsafe {
                let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(indices.as_ptr().add(16 * part).cast()));
                values[part] = _mm512_permutexvar_ps(low, self.singles);
                values[part + 2] = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(low), self.singles);
            }
        }
        values
    }
}

struct Sparse<'a> {
    masks: &'a [u64; PAIRS],
    values: &'a [f16],
}

impl<'a> Sparse<'a> {
    #[inline(always)]
    fn take(&mut self, count: u32) -> &'a [f16] {
        let (own, rest) = self.values.split_at(count as usize);
        self.values = rest;
        own
    }
}

impl<'a> Rows<'a> for Sparse<'a> {
    #[inline(always)]
    fn new(stored: Stored<'a>, block: usize) -> Sparse<'a> {
        let Stored::Sparse { masks, starts, values } = stored else { unreachable!("invariant: sparse") };
        Sparse { masks: &masks.as_chunks().0[block], values: &values[starts[block]..] }
    }

    #[inline(always)]
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]) {
        let mask = self.masks[row];
        fetch(self.values);
        for (part, target) in target.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mask = (mask >> (16 * part)) as u16;
            let own = self.take(mask.count_ones());
            // SAFETY: used only inside `dispatch`; as many values are read as there are, and 16 are written.
            unsafe {
                let own = _mm256_maskz_loadu_epi16(((1_u32 << own.len()) - 1) as u16, own.as_ptr().cast());
                let spread = _mm512_maskz_expand_epi32(mask, _mm512_cvtepu16_epi32(own));
                _mm256_storeu_si256(target.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(spread));
            }
        }
    }
}

/// On processors with VBMI2.
struct SparseVbmi2<'a>(Sparse<'a>);

impl<'a> Rows<'a> for SparseVbmi2<'a> {
    #[inline(always)]
    fn new(stored: Stored<'a>, block: usize) -> SparseVbmi2<'a> {
        SparseVbmi2(Sparse::new(stored, block))
    }

    #[inline(always)]
    fn decode(&mut self, row: usize, target: &mut [f16; ROW]) {
        let mask = self.0.masks[row];
        fetch(self.0.values);
        for (half, target) in target.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let mask = (mask >> (32 * half)) as u32;
            let own = self.0.take(mask.count_ones());
            // SAFETY: used only inside `run_vbmi2`; as many values are read as bits are set, and 32 are written.
            unsafe {
                let own = _mm512_maskz_loadu_epi16(((1_u64 << own.len()) - 1) as u32, own.as_ptr().cast());
                let spread = _mm512_maskz_expand_epi16(mask, own);
                _mm512_storeu_si512(target.as_mut_ptr().cast(), spread);
            }
        }
    }
}

#[cfg(test)]
mod tests;
