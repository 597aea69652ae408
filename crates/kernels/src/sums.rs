//! Products of matrices that are not rounded, in the order of [`crate::order::Dot`]: for who rounds otherwise than to the nearest
//! half, ties to even.

use crate::Kernels;
use crate::gemm::row_groups;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Filled, Panel, ROWS, chunks, micro};

/// The columns of a right operand, packed.
#[derive(Clone, Debug)]
pub struct Columns {
    /// `[panel][term][32]`.
    panels: Vec<f32>,
    /// Rounded up to whole blocks.
    terms: usize,
    columns: usize,
}

impl Columns {
    /// So many columns of so many terms, which `fill` writes: it is given a column's number and zeros.
    pub fn new(
        kernels: &Kernels,
        [columns, terms]: [usize; 2],
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Columns {
        let terms = terms.next_multiple_of(BLOCK);
        let mut panels = vec![0.0; columns.div_ceil(COLUMNS) * terms * COLUMNS];
        chunks(&kernels.pool, &mut panels, terms * COLUMNS, |start, panels| {
            let mut column = vec![0.0; terms];
            for (at, panel) in panels.chunks_mut((terms * COLUMNS).max(1)).enumerate() {
                let first = (start / (terms * COLUMNS).max(1) + at) * COLUMNS;
                for place in 0..COLUMNS.min(columns - first) {
                    column.fill(0.0);
                    fill(first + place, &mut column);
                    let places = panel[place..].iter_mut().step_by(COLUMNS);
                    places.zip(&column).for_each(|(to, value)| *to = *value);
                }
            }
        });
        Columns { panels, terms, columns }
    }
}

/// `out[r][c]`, the sum of the products of row `r`, which `fill` writes as [`Columns::new`] does, and column `c`. Each row of sums then
/// goes to `finish`.
///
/// # Panics
/// When `out` is not whole rows.
pub fn sums(
    kernels: &Kernels,
    columns: &Columns,
    fill: impl Fn(usize, &mut [f32]) + Sync,
    finish: impl Fn(usize, &mut [f32]) + Sync,
    out: &mut [f32],
) {
    let Columns { panels, terms, columns } = columns;
    let (terms, columns) = (*terms, *columns);
    assert!(columns > 0 && out.len().is_multiple_of(columns), "sums: rows of {columns}");
    chunks(&kernels.pool, out, ROWS * columns, |start, out| {
        let (mut row, mut packed) = (vec![0.0; terms], vec![0.0; ROWS * terms]);
        let first = start / columns;
        for group in row_groups(out.len() / columns).inside(&(0..out.len() / columns)) {
            let size = group.len();
            for (at, r) in group.clone().enumerate() {
                row.fill(0.0);
                fill(first + r, &mut row);
                for (block, values) in row.chunks_exact(BLOCK).enumerate() {
                    packed[(block * size + at) * BLOCK..][..BLOCK].copy_from_slice(values);
                }
            }
            for at in 0..columns.div_ceil(COLUMNS) {
                let panel = &panels[at * terms * COLUMNS..][..terms * COLUMNS];
                let mut sums = [[0.0; COLUMNS]; ROWS];
                let from = (0, Filled::WHOLE);
                micro(
                    kernels.simd,
                    (&packed[..size * terms], size),
                    from,
                    (Panel::F32(panel), COLUMNS),
                    &mut sums[..size],
                );
                let (column, width) = (at * COLUMNS, COLUMNS.min(columns - at * COLUMNS));
                for (sums, r) in sums.iter().zip(group.clone()) {
                    out[r * columns + column..][..width].copy_from_slice(&sums[..width]);
                }
            }
            group.for_each(|r| finish(first + r, &mut out[r * columns..][..columns]));
        }
    });
}
