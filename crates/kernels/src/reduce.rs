//! Reductions over any axes, in the order of [`crate::order::LaneSum`].

use half::f16;

use crate::Kernels;
use crate::broadcast::{MAX_RANK, Walk, row_major};
use crate::math::{self, maximum, minimum};
use crate::order::{LANES, tree};
use crate::simd::{Lanes, Task, chunks};

/// Elements that one thread reduces at a time.
const GRAIN: usize = 1 << 15;
/// Elements converted at a time; a multiple of [`LANES`].
const BLOCK: usize = 256;
/// Neighbouring outputs that are reduced together along an outer axis.
const WIDTH: usize = 32;

/// What becomes of the elements of a reduced set, `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The sum divided by the number of elements, as `f32`.
    Mean,
    /// The largest; NaN when there is one.
    Max,
    /// The smallest; NaN when there is one.
    Min,
    /// The sum of `|x|`.
    SumAbs,
    /// The sum of `x^2`.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// `m + ln(sum of e^(x - m))` with `m` the largest element, or `m` where it is infinite.
    LogSumExp,
    /// The square root of the sum of squares.
    L2Norm,
}

impl Reduction {
    /// The scalar definition, for the elements in row-major order, before the rounding to `f16`.
    #[must_use]
    pub fn eval(self, values: &[f32]) -> f32 {
        let largest = self.needs_largest().then(|| fold(Fold::Max, values.iter().copied()));
        let total = fold(self.fold(), values.iter().map(|&x| self.term(x, largest.unwrap_or(0.0))));
        self.finish(total, largest.unwrap_or(0.0), values.len())
    }

    fn needs_largest(self) -> bool {
        self == Reduction::LogSumExp
    }

    #[inline(always)]
    fn fold(self) -> Fold {
        match self {
            Reduction::Max => Fold::Max,
            Reduction::Min => Fold::Min,
            _ => Fold::Sum,
        }
    }

    #[inline(always)]
    fn term(self, x: f32, largest: f32) -> f32 {
        match self {
            Reduction::SumAbs => x.abs(),
            Reduction::SumSquare | Reduction::L2Norm => x * x,
            Reduction::LogSumExp => math::exp(x - largest),
            _ => x,
        }
    }

    #[inline(always)]
    fn finish(self, total: f32, largest: f32, count: usize) -> f32 {
        match self {
            Reduction::Mean => total / count as f32,
            Reduction::LogSum => math::log(total),
            Reduction::LogSumExp if largest.is_infinite() => largest,
            Reduction::LogSumExp => largest + math::log(total),
            Reduction::L2Norm => total.sqrt(),
            _ => total,
        }
    }
}

/// How elements combine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Max,
    Min,
}

impl Fold {
    #[inline(always)]
    pub(crate) fn start(self) -> f32 {
        match self {
            Fold::Sum => 0.0,
            Fold::Max => f32::NEG_INFINITY,
            Fold::Min => f32::INFINITY,
        }
    }

    #[inline(always)]
    pub(crate) fn combine(self, a: f32, b: f32) -> f32 {
        match self {
            Fold::Sum => a + b,
            Fold::Max => maximum(a, b),
            Fold::Min => minimum(a, b),
        }
    }
}

fn fold(fold: Fold, values: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [fold.start(); LANES];
    for (index, value) in values.enumerate() {
        lanes[index % LANES] = fold.combine(lanes[index % LANES], value);
    }
    tree(lanes, |a, b| fold.combine(a, b))
}

/// Adds a block that starts at lane 0.
#[inline(always)]
pub(crate) fn add_block(fold: Fold, lanes: &mut [f32; LANES], values: &[f32]) {
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = fold.combine(*lane, *value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = fold.combine(*lane, *value);
    }
}

/// Reduces the axes whose bits are set in `axes` (bit 0 is the outermost axis) of `x`, a row-major array of shape
/// `shape`. `out` holds one value per position of the other axes, row-major: the same with and without kept axes.
///
/// # Panics
/// When a slice's length differs from its shape's, or the rank is above 8.
pub fn reduce(
    kernels: &Kernels,
    reduction: Reduction,
    x: &[f16],
    shape: &[usize],
    axes: u32,
    out: &mut [f16],
) {
    assert!(shape.len() <= MAX_RANK, "reduce: rank {} is above {MAX_RANK}", shape.len());
    assert_eq!(x.len(), shape.iter().product::<usize>(), "reduce: input is not {shape:?}");
    let axis_set = |reduced: bool| {
        let (mut sizes, mut strides, mut rank) = ([1; MAX_RANK], [0; MAX_RANK], 0);
        let own = row_major(shape);
        for axis in (0..shape.len()).filter(|axis| (axes >> axis & 1 == 1) == reduced) {
            (sizes[rank], strides[rank], rank) = (shape[axis], own[axis], rank + 1);
        }
        (Walk::strided(&sizes[..rank], [&strides[..rank]], [0]), sizes.iter().product::<usize>())
    };
    let ((kept, outputs), (reduced, count)) = (axis_set(false), axis_set(true));
    assert_eq!(out.len(), outputs, "reduce: output length");
    if out.is_empty() {
        return;
    }
    let across = reduced.inner_strides() != [1] && kept.inner_strides() == [1] && reduced.is_one_run();
    let grain = (GRAIN / count.max(1)).max(1).next_multiple_of(if across { WIDTH } else { 1 });
    chunks(&kernels.pool, out, grain, |first, out| {
        let task = ReduceTask { reduction, x, kept: &kept, reduced: &reduced, count, across, first, out };
        kernels.simd.run(task);
    });
}

struct ReduceTask<'a> {
    reduction: Reduction,
    x: &'a [f16],
    kept: &'a Walk<1>,
    reduced: &'a Walk<1>,
    count: usize,
    across: bool,
    first: usize,
    out: &'a mut [f16],
}

impl Task for ReduceTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let count = self.out.len();
        let stride = self.kept.inner_strides()[0] as usize;
        let ReduceTask { reduction, x, kept, reduced, count: elements, across, first, out } = self;
        let set = Set { reduction, x, reduced, count: elements };
        kept.run(first, count, |position, length, [at]| {
            let out = &mut out[position..position + length];
            if across {
                for (block, out) in out.chunks_mut(WIDTH).enumerate() {
                    set.across::<L>(at + block * WIDTH, out);
                }
                return;
            }
            for (index, out) in out.iter_mut().enumerate() {
                let value = set.along::<L>(at + index * stride);
                L::narrow(&[value], std::slice::from_mut(out));
            }
        });
    }
}

struct Set<'a> {
    reduction: Reduction,
    x: &'a [f16],
    reduced: &'a Walk<1>,
    count: usize,
}

impl Set<'_> {
    /// One output: its elements in row-major order, in blocks.
    #[inline(always)]
    fn along<L: Lanes>(&self, at: usize) -> f32 {
        let largest =
            if self.reduction.needs_largest() { self.pass::<L>(Fold::Max, at, |_| {}) } else { 0.0 };
        let reduction = self.reduction;
        let total = match reduction {
            Reduction::LogSumExp => self.pass::<L>(Fold::Sum, at, |values| {
                values.iter_mut().for_each(|x| *x = math::exp(*x - largest));
            }),
            Reduction::SumAbs => self.pass::<L>(Fold::Sum, at, |values| {
                values.iter_mut().for_each(|x| *x = x.abs());
            }),
            Reduction::SumSquare | Reduction::L2Norm => self.pass::<L>(Fold::Sum, at, |values| {
                values.iter_mut().for_each(|x| *x *= *x);
            }),
            Reduction::Max => self.pass::<L>(Fold::Max, at, |_| {}),
            Reduction::Min => self.pass::<L>(Fold::Min, at, |_| {}),
            _ => self.pass::<L>(Fold::Sum, at, |_| {}),
        };
        reduction.finish(total, largest, self.count)
    }

    #[inline(always)]
    fn pass<L: Lanes>(&self, fold: Fold, at: usize, map: impl Fn(&mut [f32])) -> f32 {
        let mut lanes = [fold.start(); LANES];
        let mut block = [0.0; BLOCK];
        let mut filled = 0;
        let stride = self.reduced.inner_strides()[0] as usize;
        self.reduced.run(0, self.count, |_, length, [offset]| {
            let start = at + offset;
            let mut done = 0;
            while done < length {
                let size = (BLOCK - filled).min(length - done);
                let target = &mut block[filled..filled + size];
                if stride == 1 {
                    L::widen(&self.x[start + done..start + done + size], target);
                } else {
                    let mut half = [f16::ZERO; BLOCK];
                    for (index, half) in half[..size].iter_mut().enumerate() {
                        *half = self.x[start + (done + index) * stride];
                    }
                    L::widen(&half[..size], target);
                }
                (done, filled) = (done + size, filled + size);
                if filled == BLOCK {
                    map(&mut block);
                    add_block(fold, &mut lanes, &block);
                    filled = 0;
                }
            }
        });
        map(&mut block[..filled]);
        add_block(fold, &mut lanes, &block[..filled]);
        tree(lanes, |a, b| fold.combine(a, b))
    }

    /// Up to [`WIDTH`] neighbouring outputs, reduced along one outer axis.
    #[inline(always)]
    fn across<L: Lanes>(&self, at: usize, out: &mut [f16]) {
        let reduction = self.reduction;
        let mut largest = [0.0; WIDTH];
        if reduction.needs_largest() {
            largest = self.pass_across::<L>(Fold::Max, at, out.len(), |_| {});
        }
        let count = out.len();
        let totals = match reduction {
            Reduction::LogSumExp => self.pass_across::<L>(Fold::Sum, at, count, |values| {
                values.iter_mut().zip(&largest).for_each(|(x, largest)| *x = math::exp(*x - largest));
            }),
            Reduction::SumAbs => self.pass_across::<L>(Fold::Sum, at, count, |values| {
                values.iter_mut().for_each(|x| *x = x.abs());
            }),
            Reduction::SumSquare | Reduction::L2Norm => {
                self.pass_across::<L>(Fold::Sum, at, count, |values| {
                    values.iter_mut().for_each(|x| *x *= *x);
                })
            }
            Reduction::Max => self.pass_across::<L>(Fold::Max, at, count, |_| {}),
            Reduction::Min => self.pass_across::<L>(Fold::Min, at, count, |_| {}),
            _ => self.pass_across::<L>(Fold::Sum, at, count, |_| {}),
        };
        let mut results = [0.0; WIDTH];
        for ((result, total), largest) in results.iter_mut().zip(totals).zip(largest) {
            *result = reduction.finish(total, largest, self.count);
        }
        L::narrow(&results[..count], out);
    }

    #[inline(always)]
    fn pass_across<L: Lanes>(
        &self,
        fold: Fold,
        at: usize,
        width: usize,
        map: impl Fn(&mut [f32; WIDTH]),
    ) -> [f32; WIDTH] {
        let stride = self.reduced.inner_strides()[0] as usize;
        let mut lanes = [[fold.start(); WIDTH]; LANES];
        let mut row = [0.0; WIDTH];
        for index in 0..self.count {
            let start = at + index * stride;
            L::widen(&self.x[start..start + width], &mut row[..width]);
            map(&mut row);
            for (lane, value) in lanes[index % LANES].iter_mut().zip(&row) {
                *lane = fold.combine(*lane, *value);
            }
        }
        tree_across(fold, lanes)
    }
}

/// [`tree`] for every column.
#[inline(always)]
pub(crate) fn tree_across<const W: usize>(fold: Fold, mut lanes: [[f32; W]; LANES]) -> [f32; W] {
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            for (a, b) in low.iter_mut().zip(high) {
                *a = fold.combine(*a, *b);
            }
        }
        width /= 2;
    }
    lanes[0]
}
