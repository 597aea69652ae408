//! Where the sums of a product go.

use std::ops::Range;

use half::f16;

use crate::Epilogue;
use crate::simd::{COLUMNS, Lanes, Simd, Task, Tile, WIDTH};

/// Finishes sums and stores them.
pub(crate) struct Sink<'a, 'b, 'c> {
    pub(crate) simd: Simd,
    pub(crate) epilogue: &'a Epilogue<'b>,
    pub(crate) out: &'a mut Tile<'c, f16>,
    /// `out` holds the transposed result.
    pub(crate) turned: bool,
}

impl Sink<'_, '_, '_> {
    /// Stores the sums of `rows`, one row after the other, and `columns`, both of the product.
    pub(crate) fn store(&mut self, sums: &[[f32; COLUMNS]], rows: Range<usize>, columns: Range<usize>) {
        if !self.turned {
            self.epilogue.store(self.simd, sums, (rows, columns), self.out);
            return;
        }
        let mut turned = [[0.0; COLUMNS]; COLUMNS];
        for (start, sums) in rows.clone().step_by(COLUMNS).zip(sums.chunks(COLUMNS)) {
            let range = start..(start + COLUMNS).min(rows.end);
            self.simd.run(Turn { source: &sums[..range.len()], target: &mut turned });
            self.epilogue.store(self.simd, &turned[..columns.len()], (columns.clone(), range), self.out);
        }
    }
}

/// The transpose of up to 32 rows; what lies behind them is not specified.
struct Turn<'a> {
    source: &'a [[f32; COLUMNS]],
    target: &'a mut [[f32; COLUMNS]; COLUMNS],
}

impl Task for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let zeros = [0.0; WIDTH];
        for first in (0..self.source.len()).step_by(WIDTH) {
            for half in 0..COLUMNS / WIDTH {
                let mut rows = [L::load(&zeros); WIDTH];
                for (row, source) in rows.iter_mut().zip(&self.source[first..]) {
                    *row = L::load(&source.as_chunks().0[half]);
                }
                let turned = L::transpose(rows);
                for (row, target) in turned.into_iter().zip(&mut self.target[half * WIDTH..]) {
                    L::store(row, &mut target.as_chunks_mut().0[first / WIDTH]);
                }
            }
        }
    }
}
