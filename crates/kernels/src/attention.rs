//! Attention of each head in one piece: `softmax(q k^T * scale + mask) v`.

use std::ops::Range;

use half::f16;

use crate::gemm::{
    Left, MatrixRows, PackColumns, PackRows, Packed, Part, Right, Sink, Strided, multiply_panel, row_groups,
    tiled,
};
use crate::order::BLOCK;
use crate::simd::{COLUMNS, Cuts, Grid, Lanes, ROWS, Real, Task, Tile, WIDTH};
use crate::softmax;
use crate::stores::{OVERFLOW, kept};
use crate::{Bias, Epilogue, Kernels, Layout, Scratch, Watch};

/// Most queries of a part.
const QUERIES: usize = 24 * ROWS;

/// What is added to the scaled scores.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mask<'a> {
    /// Nothing.
    #[default]
    None,
    /// `[groups, queries, keys]`, or `[groups, 1, keys]` for every query alike: as many groups of neighbouring heads as
    /// there are have the same values.
    Added {
        /// What is added.
        values: &'a [f16],
        /// How many groups there are.
        groups: usize,
    },
    /// Minus infinity where the key comes after the query, the last query seeing every key.
    Causal,
}

/// The shapes of attention: `q` is `[heads, queries, width]`, `k` `[heads, keys, width]`, `v`
/// `[heads, keys, values]` and the result `[heads, queries, values]`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Heads, those of a batch counted together.
    pub heads: usize,
    /// Rows of `q` per head.
    pub queries: usize,
    /// Rows of `k` and of `v` per head.
    pub keys: usize,
    /// Columns of `q` and of `k`.
    pub width: usize,
    /// Columns of `v`.
    pub values: usize,
}

/// Where the rows of the heads of an operand lie: row `r` of head `h` starts at element
/// `h / each * batch + h % each * head + r * row`, and its values are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of each batch.
    pub each: usize,
    /// Elements from one batch to the next.
    pub batch: usize,
    /// Elements from one head to the next.
    pub head: usize,
    /// Elements from one row to the next.
    pub row: usize,
}

impl Heads {
    /// `[heads, rows, width]`.
    #[must_use]
    pub fn apart(rows: usize, width: usize) -> Heads {
        Heads { head: rows * width, row: width, ..Heads::ONE_BATCH }
    }

    /// `[rows, heads, width]`: what a projection gives that has the heads side by side.
    #[must_use]
    pub fn side_by_side(heads: usize, width: usize) -> Heads {
        Heads { head: width, row: heads * width, ..Heads::ONE_BATCH }
    }

    /// Heads that are all of one batch, and nothing apart.
    pub const ONE_BATCH: Heads = Heads { each: usize::MAX, batch: 0, head: 0, row: 0 };

    /// The first element of a head.
    fn start(&self, head: usize) -> usize {
        head / self.each * self.batch + head % self.each * self.head
    }

    /// The heads `[heads, rows, width]`, or those of batches, `[batches, heads, rows, width]`, that begin with the first
    /// element and whose values are neighbours; `None` of another array.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Heads> {
        let neighbours = |width, step| layout.start() == 0 && (step == 1 || width <= 1);
        match (layout.extents(), layout.strides()) {
            (&[_, _, width], &[head, row, step]) if neighbours(width, step) => {
                Some(Heads { head, row, ..Heads::ONE_BATCH })
            }
            (&[_, each, _, width], &[batch, head, row, step]) if each > 0 && neighbours(width, step) => {
                Some(Heads { each, batch, head, row })
            }
            _ => None,
        }
    }

    /// The array of so many heads and rows of this width.
    #[must_use]
    pub fn layout(&self, heads: usize, rows: usize, width: usize) -> Layout {
        let &Heads { each, batch, head, row } = self;
        match heads <= each {
            true => Layout::new(0, &[heads, rows, width], &[head, row, 1]),
            false => Layout::new(0, &[heads.div_ceil(each), each, rows, width], &[batch, head, row, 1]),
        }
    }
}

/// Attention, described so that a caller can run its parts in any order and on any threads. The bits are those of
/// the separate ops: the product, the scale, the mask, the softmax and the second product round to `f16` each.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The shapes.
    pub shape: Shape,
    /// The queries, and where they lie; by themselves they are `[heads, queries, width]`.
    pub q: (&'a [f16], Option<Heads>),
    /// The keys, and where they lie; by themselves they are `[heads, keys, width]`.
    pub k: (&'a [f16], Option<Heads>),
    /// The values, and where they lie; by themselves they are `[heads, keys, values]`.
    pub v: (&'a [f16], Option<Heads>),
    /// Multiplies the scores.
    pub scale: Option<f16>,
    /// Added to the scores, one after the other.
    pub masks: [Mask<'a>; 2],
    /// A score, or an element of the result, of a magnitude above this becomes an infinity; see [`Epilogue::limit`].
    pub limit: Option<f16>,
    /// NaN becomes +0 wherever an op would store it.
    pub flush_nan: bool,
    /// Told of infinities and NaN wherever an op would store them, but of those of masks.
    pub watch: Option<&'a Watch>,
}

impl<'a> Attention<'a> {
    /// Checks the lengths.
    ///
    /// # Panics
    /// When a slice's length differs from its shape's, or a row does not lie in its slice.
    fn check(&self) {
        let Shape { heads, queries, keys, width, values } = self.shape;
        let fits = |(data, place): (&[f16], Option<Heads>), rows: usize, width: usize, name: &str| match place
        {
            None => assert_eq!(data.len(), heads * rows * width, "attention: {name}"),
            Some(place) => {
                let end = place.layout(heads, rows, width).end();
                assert!(end.is_some_and(|end| end <= data.len()), "attention: {name}");
            }
        };
        fits(self.q, queries, width, "queries");
        fits(self.k, keys, width, "keys");
        fits(self.v, keys, values, "values");
        for mask in self.masks {
            match mask {
                Mask::None => {}
                Mask::Causal => assert!(queries <= keys, "attention: {queries} queries see {keys} keys"),
                Mask::Added { values, groups } => {
                    let rows = [groups, groups * queries];
                    assert!(rows.iter().any(|rows| values.len() == rows * keys), "attention: mask");
                    assert!(groups > 0 && heads % groups == 0, "attention: {heads} heads in {groups} groups");
                }
            }
        }
    }

    /// Queries of one head in as many parts.
    fn cuts(&self) -> Cuts {
        Cuts::new(self.shape.queries, 1, self.shape.queries.div_ceil(QUERIES))
    }

    /// The number of parts.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.shape.heads * self.cuts().parts
    }

    /// The elements of the result that a part computes.
    #[must_use]
    pub fn range(&self, part: usize) -> Range<usize> {
        let (head, rows) = self.place(part);
        let Shape { queries, values, .. } = self.shape;
        (head * queries + rows.start) * values..(head * queries + rows.end) * values
    }

    fn place(&self, part: usize) -> (usize, Range<usize>) {
        let cuts = self.cuts();
        (part / cuts.parts, cuts.range(part % cuts.parts))
    }

    /// Scratch values that one part needs.
    #[must_use]
    pub fn part_scratch(&self) -> usize {
        let Shape { queries, keys, width, values, .. } = self.shape;
        let rows = queries.min(QUERIES);
        let scores = (rows * keys).div_ceil(2).next_multiple_of(16);
        let first = Product { rows, terms: width, columns: keys };
        let second = Product { rows, terms: keys, columns: values };
        2 * scores + first.scratch().max(second.scratch()).next_multiple_of(16)
    }

    /// Computes part `part`; `out` is the part of the result that [`Attention::range`] names, and `scratch` has at
    /// least [`Attention::part_scratch`] values.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn run(&self, kernels: &Kernels, part: usize, scratch: &mut [f32], out: &mut [f16]) {
        self.check();
        let (head, rows) = self.place(part);
        let values = self.shape.values;
        assert_eq!(out.len(), rows.len() * values, "attention: part {part} of the result");
        self.part(kernels, (head, rows.clone()), scratch, &mut Tile::whole(out, rows.len(), values));
    }

    /// The result of some queries of a head.
    fn part(
        &self,
        kernels: &Kernels,
        (head, rows): (usize, Range<usize>),
        scratch: &mut [f32],
        out: &mut Tile<'_, f16>,
    ) {
        let Shape { keys, width, values, .. } = self.shape;
        let (simd, count) = (kernels.simd, rows.len());
        if count * values == 0 {
            return;
        }
        if keys == 0 {
            // The sum of nothing.
            return (0..count).for_each(|row| out.row(row, 0..values).fill(f16::ZERO));
        }
        let half = (count * keys).div_ceil(2).next_multiple_of(16);
        let (scores, scratch) = scratch.split_at_mut(half);
        let (weights, scratch) = scratch.split_at_mut(half);
        let scores: &mut [f16] = &mut bytemuck::cast_slice_mut(scores)[..count * keys];
        let weights: &mut [f16] = &mut bytemuck::cast_slice_mut(weights)[..count * keys];
        let place = |(data, place): (&'a [f16], Option<Heads>), size: usize, width: usize, row: usize| {
            let place = place.unwrap_or_else(|| Heads::apart(size, width));
            Strided { data, offset: place.start(head) + row * place.row, row: place.row, column: 1 }
        };
        let q = place(self.q, self.shape.queries, width, rows.start);
        let k = place(self.k, keys, width, 0);
        let k = Strided { row: 1, column: k.row, ..k };
        let product = Product { rows: count, terms: width, columns: keys };
        let limits = Epilogue {
            limit: self.limit,
            flush_nan: self.flush_nan,
            watch: self.watch,
            ..Epilogue::default()
        };
        let epilogue = Epilogue { scale: self.scale.map_or(Bias::None, Bias::All), ..limits };
        product.run(kernels, q, k, &epilogue, scratch, &mut Tile::whole(scores, count, keys));
        let masks = self.masks.map(|mask| self.mask_of(mask, head, &rows));
        let (flush_nan, watch) = (self.flush_nan, self.watch);
        simd.run(Softmax { scores, weights, size: keys, masks, flush_nan, watch });
        let p = Strided { data: weights, offset: 0, row: keys, column: 1 };
        let v = place(self.v, keys, values, 0);
        let product = Product { rows: count, terms: keys, columns: values };
        product.run(kernels, p, v, &limits, scratch, out);
    }

    /// The part of a mask that belongs to these queries of a head.
    fn mask_of(&self, mask: Mask<'a>, head: usize, rows: &Range<usize>) -> Rows<'a> {
        let Shape { heads, queries, keys, .. } = self.shape;
        match mask {
            Mask::None => Rows::None,
            Mask::Causal => Rows::Causal { last: keys - queries + rows.start },
            Mask::Added { values, groups } => {
                let size = values.len() / groups;
                let values = &values[head / (heads / groups) * size..][..size];
                Rows::Added(if size == keys { values } else { &values[rows.start * keys..rows.end * keys] })
            }
        }
    }
}

/// A mask of some queries of a head.
#[derive(Clone, Copy)]
enum Rows<'a> {
    None,
    /// A row for each query, or one for all.
    Added(&'a [f16]),
    Causal {
        /// The last key that the first query sees.
        last: usize,
    },
}

/// Scratch values that [`attention`] needs.
#[must_use]
pub fn attention_scratch(kernels: &Kernels, attention: &Attention<'_>) -> usize {
    attention.part_scratch() * kernels.pool.threads()
}

/// All parts of `attention` on the threads of `kernels`. The result is `[heads / beside, queries, beside, values]`: so many
/// heads lie side by side.
///
/// # Panics
/// When a slice's length differs from its shape's, or `beside` does not divide the heads.
pub fn attention(
    kernels: &Kernels,
    attention: &Attention<'_>,
    beside: usize,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let Shape { heads, queries, values, .. } = attention.shape;
    attention.check();
    assert_eq!(out.len(), heads * queries * values, "attention: result");
    if out.is_empty() {
        return;
    }
    let scratch = scratch.take(attention_scratch(kernels, attention));
    assert!(beside > 0 && heads.is_multiple_of(beside), "attention: {beside} of {heads} heads side by side");
    let columns = Cuts::new(beside * values, values, beside);
    let grid = Grid::new(heads / beside, attention.cuts(), columns);
    crate::simd::tiles(&kernels.pool, out, grid, (scratch, attention.part_scratch()), |tile, scratch| {
        let head = tile.batch() * beside + tile.columns().start / values;
        attention.part(kernels, (head, tile.rows()), scratch, &mut tile.alone());
    });
}

/// The matrices of one product.
struct Product {
    rows: usize,
    terms: usize,
    columns: usize,
}

impl Product {
    /// Scratch values.
    fn scratch(&self) -> usize {
        let &Product { rows, terms, columns: _ } = self;
        let padded = terms.next_multiple_of(BLOCK);
        ((rows + COLUMNS) * padded + rows * COLUMNS).max(tiled::bmm_scratch(rows, terms))
    }

    fn run(
        &self,
        kernels: &Kernels,
        left: Strided<'_>,
        right: Strided<'_>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
        tile: &mut Tile<'_, f16>,
    ) {
        let (&Product { rows, terms, columns }, simd) = (self, kernels.simd);
        let source = MatrixRows { source: left, terms };
        if let Some(factors) = tiled::factors(kernels, rows) {
            let shape = (rows, terms);
            return tiled::bmm(kernels, factors, (source, right), shape, epilogue, scratch, tile);
        }
        let padded = terms.next_multiple_of(BLOCK);
        let (sums, scratch) = scratch.split_at_mut(rows * COLUMNS);
        let (packed, panel) = scratch.split_at_mut(rows * padded);
        let panel = &mut panel[..padded * COLUMNS];
        let groups = row_groups(rows);
        simd.run(PackRows { source, rows: 0..rows, groups, packed });
        let mut sink = Sink { simd, epilogue, out: tile, turned: false };
        for start in (0..columns).step_by(COLUMNS) {
            let range = start..(start + COLUMNS).min(columns);
            simd.run(PackColumns { source: right, columns: range.clone(), terms, panel });
            let panel = (Right::Panel(panel), &mut [][..]);
            let packed = Packed { values: packed, groups, filled: source.filled(), part: Part::WHOLE };
            multiply_panel(packed, panel, (0..rows, range), sums, &mut sink);
        }
    }
}

/// The softmax of every row of scores, with what is added to them first.
struct Softmax<'a> {
    scores: &'a mut [f16],
    weights: &'a mut [f16],
    size: usize,
    masks: [Rows<'a>; 2],
    flush_nan: bool,
    watch: Option<&'a Watch>,
}

impl Task for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Softmax { scores, weights, size, masks, flush_nan, watch } = self;
        for mask in masks {
            match mask {
                Rows::None => {}
                Rows::Added(mask) => {
                    for (row, scores) in scores.chunks_exact_mut(size).enumerate() {
                        let from = if mask.len() == size { 0 } else { row * size };
                        add::<L>(&mask[from..from + size], flush_nan, watch, scores);
                    }
                }
                Rows::Causal { last } => hide(last, size, flush_nan, scores),
            }
        }
        softmax::rows::<L>(scores, (size, size), flush_nan, weights);
        if flush_nan {
            weights.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = f16::ZERO);
        }
    }
}

/// Adds a mask to a row of scores. Masks may well be infinite, which is nothing to tell of.
#[inline(always)]
fn add<L: Lanes>(mask: &[f16], flush_nan: bool, watch: Option<&Watch>, scores: &mut [f16]) {
    for (scores, mask) in scores.chunks_mut(WIDTH).zip(mask.chunks(WIDTH)) {
        let sum = L::read_some(scores) + L::read_some(mask);
        let limit = <L::Vector as Real>::splat(OVERFLOW);
        if !<L::Vector as Real>::all(sum.abs().lt(limit)) {
            let mut pairs = scores.iter().zip(mask);
            let made = |(a, b): (&f16, &f16)| {
                a.is_finite() && b.is_finite() && (a.to_f32() + b.to_f32()).abs() >= OVERFLOW
            };
            if pairs.any(made) {
                watch.inspect(|watch| watch.note());
            }
        }
        L::write_some(kept::<L>(flush_nan, sum), scores);
    }
}

/// Adds minus infinity to the scores of the keys after `last` in the first row, and after one more in each row after it.
#[inline(always)]
fn hide(last: usize, size: usize, flush_nan: bool, scores: &mut [f16]) {
    for (index, scores) in scores.chunks_exact_mut(size).enumerate() {
        for score in &mut scores[(last + index + 1).min(size)..size] {
            *score = match score.is_nan() || *score == f16::INFINITY {
                true if flush_nan => f16::ZERO,
                true => f16::NAN,
                false => f16::NEG_INFINITY,
            };
        }
    }
}
