//! What `TDPBF16PS` and `TDPFP16PS` compute, as Intel's manual says: per element of sums a chain of fused multiply-adds
//! from zero over the first numbers of the pairs and one over the second ones, then the sum of both is added. Every step
//! rounds to nearest, ties to even, and flushes subnormal results to zero. Subnormal `bf16` are read as zeros, subnormal
//! `f16` are not.

use super::code::Numbers;
use super::{TILE_ROWS, Tile};
use crate::order::BLOCK;
use crate::simd::{Lanes, Real, Task, WIDTH};

/// A product of tiles: those of sums, of the left and of the right operand.
pub(super) struct Product<'a> {
    pub(super) numbers: Numbers,
    pub(super) operands: [usize; 3],
    pub(super) tiles: &'a mut [Tile; 8],
}

impl Task for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Product { numbers, operands, tiles } = self;
        let [left, right] = [operands[1], operands[2]].map(|tile| wide::<L>(numbers, &tiles[tile]));
        // One row for the first and one for the second numbers of a row of pairs.
        let mut columns = [[0.0; WIDTH]; BLOCK];
        for (columns, pairs) in columns.as_chunks_mut::<2>().0.iter_mut().zip(&right) {
            for (column, pair) in pairs.as_chunks::<2>().0.iter().enumerate() {
                (columns[0][column], columns[1][column]) = (pair[0], pair[1]);
            }
        }
        for (sums, row) in tiles[operands[0]].iter_mut().zip(&left) {
            let mut chains = [L::Vector::splat(0.0); 2];
            for (index, (term, columns)) in row.iter().zip(&columns).enumerate() {
                let chain = &mut chains[index % 2];
                *chain = flushed(L::Vector::splat(*term).mul_add(L::load(columns), *chain));
            }
            let sums: &mut [f32; WIDTH] = bytemuck::cast_mut(sums);
            let before = flushed(L::load(sums));
            L::store(flushed(before + flushed(chains[0] + chains[1])), sums);
        }
    }
}

/// The numbers of a tile, in the order of their addresses.
#[inline(always)]
fn wide<L: Lanes>(numbers: Numbers, tile: &Tile) -> [[f32; BLOCK]; TILE_ROWS] {
    let (mut wide, rows) =
        ([[0.0; BLOCK]; TILE_ROWS], bytemuck::cast_ref::<_, [[u16; BLOCK]; TILE_ROWS]>(tile));
    for (row, wide) in rows.iter().zip(&mut wide) {
        for (bits, wide) in row.as_chunks::<WIDTH>().0.iter().zip(wide.as_chunks_mut::<WIDTH>().0) {
            let values = match numbers {
                Numbers::F16 => L::read(bytemuck::cast_ref(bits)),
                Numbers::Bf16 => flushed(L::load(&bits.map(|bits| f32::from_bits(u32::from(bits) << 16)))),
            };
            L::store(values, wide);
        }
    }
    wide
}

#[inline(always)]
fn flushed<R: Real>(value: R) -> R {
    R::select(value.abs().lt(R::splat(f32::MIN_POSITIVE)), R::splat(0.0).copysign(value), value)
}
