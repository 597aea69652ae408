//! Squares of 16-bit values turned about their diagonal, and lines asked for ahead of their use.

/// Rows and columns of a square.
pub(crate) const SIDE: usize = 8;

/// `target[row * pitch + column] = source[column * stride + row]` for rows and columns below [`SIDE`].
#[inline]
pub(crate) fn turn(source: &[u16], stride: usize, target: &mut [u16], pitch: usize) {
    let line = |at: usize| source[at * stride..].first_chunk().expect("invariant: a whole square");
    let square: [&[u16; SIDE]; SIDE] = std::array::from_fn(line);
    for (row, values) in turned(square).iter().enumerate() {
        target[row * pitch..][..SIDE].copy_from_slice(values);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned(square: [&[u16; SIDE]; SIDE]) -> [[u16; SIDE]; SIDE] {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16,
    };
    // SAFETY: 8 values are readable.
    let mut rows = square.map(|row| unsafe { _mm_loadu_si128(row.as_ptr().cast()) });
    // Every round moves one bit of a value's row into its column: three rounds exchange the two.
    for _ in 0..3 {
        let halves: [__m128i; SIDE] = rows;
        for at in 0..SIDE / 2 {
            let (low, high) = (halves[at], halves[at + SIDE / 2]);
            // SAFETY: every such processor has SSE2.
            [rows[2 * at], rows[2 * at + 1]] =
                unsafe { [_mm_unpacklo_epi16(low, high), _mm_unpackhi_epi16(low, high)] };
        }
    }
    rows.map(|row| {
        let mut values = [0; SIDE];
        // SAFETY: 8 values are writable.
        unsafe { _mm_storeu_si128(values.as_mut_ptr().cast(), row) };
        values
    })
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn turned(square: [&[u16; SIDE]; SIDE]) -> [[u16; SIDE]; SIDE] {
    std::array::from_fn(|row| std::array::from_fn(|column| square[column][row]))
}

/// Asks for the first lines of `data`, which will be read soon.
#[inline(always)]
pub(crate) fn expect_soon<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for at in data[..data.len().min(2048 / size_of::<T>().max(1))].iter().step_by(64 / size_of::<T>().max(1))
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which any address allows.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
