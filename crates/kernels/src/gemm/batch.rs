//! Products of stacks of matrices that are not packed beforehand.

use half::f16;

use super::{
    Left, MatrixRows, PackColumns, PackRows, Packed, Part, Plan, Right, Sink, Strided, multiply_panel,
    row_groups, sums_len, tiled,
};
use crate::broadcast::Walk;
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Cuts, Grid, Tile, tiles};
use crate::{Epilogue, Kernels, Scratch};

/// The shapes of a batched product `[batch..., M, K] x [batch..., K, N]`.
#[derive(Clone, Copy, Debug)]
pub struct BatchShape<'a> {
    /// The batch axes of the output.
    pub batch: &'a [usize],
    /// The batch axes of the left operand, broadcast to `batch` as NumPy does.
    pub a_batch: &'a [usize],
    /// The batch axes of the right operand, broadcast to `batch` as NumPy does.
    pub b_batch: &'a [usize],
    /// M.
    pub rows: usize,
    /// K.
    pub terms: usize,
    /// N.
    pub columns: usize,
    /// The left operand is stored `[K, M]`.
    pub transpose_a: bool,
    /// The right operand is stored `[N, K]`.
    pub transpose_b: bool,
}

impl BatchShape<'_> {
    fn plan(&self, kernels: &Kernels) -> Plan {
        let (threads, batches) = (kernels.pool.threads(), self.batch.iter().product());
        let shape = [self.rows, self.terms, self.columns];
        if let Some(factors) = tiled::factors(kernels, self.rows) {
            return tiled::bmm_plan(kernels, factors, batches, shape);
        }
        Plan::new(threads, batches, shape, true)
    }
}

/// Scratch values that [`bmm`] needs.
#[must_use]
pub fn bmm_scratch(kernels: &Kernels, shape: &BatchShape<'_>) -> usize {
    shape.plan(kernels).scratch(kernels.pool.threads())
}

/// `out[.., m, n] = epilogue(sum over k of a[.., m, k] b[.., k, n])`; a bias per row or column is the same for
/// every matrix of the batch.
///
/// # Panics
/// When a slice's length differs from its shape's, or the batch axes or the bias do not fit.
pub fn bmm(
    kernels: &Kernels,
    a: &[f16],
    b: &[f16],
    shape: &BatchShape<'_>,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let &BatchShape { rows, terms, columns, .. } = shape;
    let (a_size, b_size) = (rows * terms, terms * columns);
    assert_eq!(a.len(), shape.a_batch.iter().product::<usize>() * a_size, "bmm: left operand's length");
    assert_eq!(b.len(), shape.b_batch.iter().product::<usize>() * b_size, "bmm: right operand's length");
    assert_eq!(out.len(), shape.batch.iter().product::<usize>() * rows * columns, "bmm: output's length");
    epilogue.check(rows, columns, shape.batch.iter().product());
    if out.is_empty() {
        return;
    }
    let walk = Walk::broadcast(shape.batch, [shape.a_batch, shape.b_batch]);
    let plan = shape.plan(kernels);
    let scratch = scratch.take(plan.scratch(kernels.pool.threads()));
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let mut at = [0; 2];
        walk.run(tile.batch(), 1, |_, _, offsets| at = offsets);
        let (row, column) = if shape.transpose_a { (1, rows) } else { (terms, 1) };
        let left = MatrixRows { source: Strided { data: a, offset: at[0] * a_size, row, column }, terms };
        let (row, column) = if shape.transpose_b { (1, terms) } else { (columns, 1) };
        let right = Strided { data: b, offset: at[1] * b_size, row, column };
        multiply_tile(kernels, &plan, (left, right), epilogue, scratch, tile);
    });
}

/// The part of a product that `tile` holds.
fn multiply_tile(
    kernels: &Kernels,
    plan: &Plan,
    (left, right): (MatrixRows<'_>, Strided<'_>),
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    tile: &mut Tile<'_, f16>,
) {
    let (simd, terms) = (kernels.simd, left.terms);
    if let Some(factors) = tiled::factors(kernels, plan.rows) {
        return tiled::bmm(kernels, factors, (left, right), (plan.rows, terms), epilogue, scratch, tile);
    }
    let (rows, groups, columns) = (tile.rows(), row_groups(plan.rows), tile.columns());
    let (panels, slabs) =
        (columns.len().div_ceil(COLUMNS), Cuts::new(plan.terms, plan.slab, plan.terms.div_ceil(plan.slab)));
    let kept = if slabs.parts > 1 { panels } else { 1 };
    let (sums, scratch) = scratch.split_at_mut(kept * sums_len(rows.len()));
    let (panel, packed) = scratch.split_at_mut(plan.slab * COLUMNS);
    let mut sink = Sink { simd, epilogue, out: tile, turned: false };
    for slab in 0..slabs.parts {
        let range = slabs.range(slab);
        let terms = range.len().min(terms - range.start);
        let (panel, packed) = (&mut panel[..range.len() * COLUMNS], &mut packed[..rows.len() * range.len()]);
        let source =
            MatrixRows { source: Strided { offset: left.source.at(0, range.start), ..left.source }, terms };
        simd.run(PackRows { source, rows: rows.clone(), groups, packed });
        let source = Strided { offset: right.at(range.start, 0), ..right };
        let part = Part { before: range.start / BLOCK, last: slab + 1 == slabs.parts };
        for (index, start) in columns.clone().step_by(COLUMNS).enumerate() {
            let columns = start..(start + COLUMNS).min(columns.end);
            simd.run(PackColumns { source, columns: columns.clone(), terms, panel });
            let sums = &mut sums[index % kept * sums_len(rows.len())..][..sums_len(rows.len())];
            let packed = Packed { values: packed, groups, filled: left.filled(), part };
            multiply_panel(packed, (Right::Panel(panel), &mut []), (rows.clone(), columns), sums, &mut sink);
        }
    }
}

/// The shapes of [`row_product`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    /// N.
    pub images: usize,
    /// C.
    pub channels: usize,
    /// H.
    pub height: usize,
    /// W.
    pub terms: usize,
    /// U.
    pub columns: usize,
}

impl RowShape {
    /// The images of the result are matrices `[C, H U]`, of which a tile holds what comes of one row of an image.
    fn plan(&self, kernels: &Kernels) -> Plan {
        let RowShape { images, channels: rows, height, terms, columns } = *self;
        let batch = [images, height];
        let alone = BatchShape {
            batch: &batch,
            a_batch: &batch,
            b_batch: &batch,
            rows,
            terms,
            columns,
            transpose_a: false,
            transpose_b: false,
        };
        let plan = alone.plan(kernels);
        let columns = Cuts::new(height * columns, columns, height);
        Plan { grid: Grid::new(images, plan.grid.rows, columns), ..plan }
    }
}

/// Scratch values that [`row_product`] needs.
#[must_use]
pub fn row_product_scratch(kernels: &Kernels, shape: &RowShape) -> usize {
    shape.plan(kernels).scratch(kernels.pool.threads())
}

/// `out[n, c, h, u] = sum over w of a[n, c, h, w] b[n, w, h, u]`: a product for every image and row, whose operands and
/// result are read and written where they lie.
///
/// # Panics
/// When a slice's length differs from its shape's.
pub fn row_product(
    kernels: &Kernels,
    a: &[f16],
    b: &[f16],
    shape: &RowShape,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let &RowShape { images, channels, height, terms, columns } = shape;
    assert_eq!(a.len(), images * channels * height * terms, "row_product: left operand's length");
    assert_eq!(b.len(), images * terms * height * columns, "row_product: right operand's length");
    assert_eq!(out.len(), images * channels * height * columns, "row_product: output's length");
    epilogue.check(channels, height * columns, images);
    if out.is_empty() {
        return;
    }
    let plan = shape.plan(kernels);
    let scratch = scratch.take(plan.scratch(kernels.pool.threads()));
    tiles(&kernels.pool, out, plan.grid, (scratch, plan.per_worker), |tile, scratch| {
        let (image, line) = (tile.batch(), tile.columns().start / columns);
        let offset = image * channels * height * terms + line * terms;
        let left = MatrixRows { source: Strided { data: a, offset, row: height * terms, column: 1 }, terms };
        let offset = image * terms * height * columns;
        let right = Strided { data: b, offset, row: height * columns, column: 1 };
        multiply_tile(kernels, &plan, (left, right), epilogue, scratch, tile);
    });
}
