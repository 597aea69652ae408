//! Reductions over any axes, in the order of [`crate::order::LaneSum`].

mod across;

use half::f16;

use crate::Kernels;
use crate::broadcast::{MAX_RANK, Walk, row_major};
use crate::math::{self, larger, smaller};
use crate::order::{LANES, tree};
use crate::simd::{Lanes, Real, Task, WIDTH, chunks};
pub(crate) use across::{Lane, fold_lanes};
use across::{SPAN, reduce_by_lanes};

/// Elements that one thread reduces at a time.
const GRAIN: usize = 1 << 15;
/// Elements gathered at a time; a multiple of [`LANES`].
const BLOCK: usize = 256;
/// Contiguous sets whose lanes are combined side by side.
const ROWS: usize = 4;

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
    fn term<V: Real>(self, x: V, largest: V) -> V {
        match self {
            Reduction::SumAbs => x.abs(),
            Reduction::SumSquare | Reduction::L2Norm => x * x,
            Reduction::LogSumExp => math::real::exp(x - largest),
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
    pub(crate) fn combine<V: Real>(self, a: V, b: V) -> V {
        match self {
            Fold::Sum => a + b,
            Fold::Max => larger(a, b),
            Fold::Min => smaller(a, b),
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

/// The first `count` lanes of a vector, with `fill` in the others.
#[inline(always)]
pub(crate) fn first_lanes<L: Lanes>(vector: L::Vector, count: usize, fill: f32) -> L::Vector {
    let mut values = [fill; WIDTH];
    L::store(vector, &mut values);
    values[count..].fill(fill);
    L::load(&values)
}

/// The lanes of a vector combined by [`tree`].
#[inline(always)]
pub(crate) fn across_lanes<L: Lanes>(fold: Fold, vector: L::Vector) -> f32 {
    let mut lanes = vector;
    lanes = fold.combine(lanes, L::down::<8>(lanes));
    lanes = fold.combine(lanes, L::down::<4>(lanes));
    lanes = fold.combine(lanes, L::down::<2>(lanes));
    lanes = fold.combine(lanes, L::down::<1>(lanes));
    L::first(lanes)
}

/// Combines `lanes` with `values`, the first of which belongs to lane 0, as terms of `reduction`.
#[inline(always)]
pub(crate) fn add_terms<L: Lanes>(
    reduction: Reduction,
    largest: f32,
    mut lanes: L::Vector,
    values: &[f16],
) -> L::Vector {
    let (fold, wide) = (reduction.fold(), <L::Vector as Real>::splat(largest));
    let (whole, rest) = values.as_chunks::<WIDTH>();
    for values in whole {
        lanes = fold.combine(lanes, reduction.term(L::read(values), wide));
    }
    if !rest.is_empty() {
        let terms = reduction.term(L::read_some(rest), wide);
        lanes = fold.combine(lanes, first_lanes::<L>(terms, rest.len(), fold.start()));
    }
    lanes
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
    if outputs == 1 && count > GRAIN && extreme_of_all(kernels, reduction, x, out) {
        return;
    }
    let across = reduced.inner_strides() != [1] && kept.inner_strides() == [1] && reduced.is_one_run();
    let threads = kernels.pool.threads();
    // Few columns are not cut: every thread takes the rows of some lanes.
    let by_lanes = across && kept.is_one_run() && threads > 1 && outputs < threads * SPAN;
    let by_lanes = by_lanes && !reduction.needs_largest() && count * outputs > GRAIN;
    let grain = (GRAIN / count.max(1)).max(1).next_multiple_of(if across { SPAN } else { 1 });
    // Reductions of one row differ only in what becomes of the total.
    macro_rules! each {
        ($($name:ident $(, $alike:ident)*;)*) => {
            match reduction {
                $(Reduction::$name $(| Reduction::$alike)* => {
                    const KIND: u8 = Reduction::$name as u8;
                    let set = Set::<KIND> { reduction, x, reduced: &reduced, count };
                    if by_lanes {
                        return reduce_by_lanes(kernels, &set, out);
                    }
                    chunks(&kernels.pool, out, grain, |first, out| {
                        kernels.simd.run(ReduceTask { set: &set, kept: &kept, across, first, out });
                    });
                })*
            }
        };
    }
    each! {
        Sum, Mean, LogSum;
        SumAbs;
        SumSquare, L2Norm;
        LogSumExp;
        Max;
        Min;
    }
}

/// The largest or smallest of many elements: that of each part, and then of those. `false` where something else is asked for, or
/// where the order has a say in the result: which of two zeros it is, or of two NaN.
fn extreme_of_all(kernels: &Kernels, reduction: Reduction, x: &[f16], out: &mut [f16]) -> bool {
    const PARTS: usize = 16;
    if !matches!(reduction, Reduction::Max | Reduction::Min) {
        return false;
    }
    let mut extremes = [f16::ZERO; PARTS + 1];
    let (parts, rest) = x.split_at(x.len() / PARTS * PARTS);
    reduce(kernels, reduction, parts, &[PARTS, parts.len() / PARTS], 0b10, &mut extremes[..PARTS]);
    reduce(kernels, reduction, rest, &[rest.len()], 0b1, &mut extremes[PARTS..]);
    reduce(kernels, reduction, &extremes, &[PARTS + 1], 0b1, out);
    out[0] != f16::ZERO && !out[0].is_nan()
}

/// The reduction of a number, the reverse of `as u8`.
#[inline(always)]
const fn reduction(number: u8) -> Reduction {
    const ALL: [Reduction; 9] = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::SumAbs,
        Reduction::SumSquare,
        Reduction::LogSum,
        Reduction::LogSumExp,
        Reduction::L2Norm,
    ];
    let reduction = ALL[number as usize];
    assert!(reduction as u8 == number, "invariant: the order of the enumeration");
    reduction
}

/// A task whose terms the compiler knows, so that its loops have no branch.
struct ReduceTask<'a, const KIND: u8> {
    set: &'a Set<'a, KIND>,
    kept: &'a Walk<1>,
    across: bool,
    first: usize,
    out: &'a mut [f16],
}

impl<const KIND: u8> Task for ReduceTask<'_, KIND> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ReduceTask { set, kept, across, first, out } = self;
        let (total, stride) = (out.len(), kept.inner_strides()[0] as usize);
        if across {
            let (mut lanes, mut largest) = ([Lane([0.0; SPAN]); LANES], Lane([0.0; SPAN]));
            for (position, length, [at]) in kept.runs(first, total) {
                for (block, out) in out[position..position + length].chunks_mut(SPAN).enumerate() {
                    set.across::<L>(at + block * SPAN, &mut lanes, &mut largest, out);
                }
            }
            return;
        }
        let contiguous = set.reduced.inner_strides() == [1] && set.reduced.is_one_run();
        for (position, length, [at]) in kept.runs(first, total) {
            let out = &mut out[position..position + length];
            let (groups, _) = out.as_chunks_mut::<ROWS>();
            let grouped = if contiguous { groups.len() } else { 0 };
            for (index, out) in groups[..grouped].iter_mut().enumerate() {
                L::narrow(&set.rows::<L, ROWS>(at + index * ROWS * stride, stride), out);
            }
            for (index, out) in out.iter_mut().enumerate().skip(grouped * ROWS) {
                let at = at + index * stride;
                let value = if contiguous { set.rows::<L, 1>(at, stride) } else { [set.along::<L>(at)] };
                L::narrow(&value, std::slice::from_mut(out));
            }
        }
    }
}

/// What is reduced, with the loops of the reduction number `KIND`.
struct Set<'a, const KIND: u8> {
    reduction: Reduction,
    x: &'a [f16],
    reduced: &'a Walk<1>,
    count: usize,
}

impl<const KIND: u8> Set<'_, KIND> {
    const LOOPS: Reduction = reduction(KIND);

    /// `N` outputs whose elements are contiguous, `stride` from one to the next.
    #[inline(always)]
    fn rows<L: Lanes, const N: usize>(&self, at: usize, stride: usize) -> [f32; N] {
        let sets: [&[f16]; N] = std::array::from_fn(|row| &self.x[at + row * stride..][..self.count]);
        let mut largest = [0.0; N];
        if Self::LOOPS.needs_largest() {
            largest = Self::pass_rows::<L, N>(Reduction::Max, largest, sets);
        }
        let totals = Self::pass_rows::<L, N>(Self::LOOPS, largest, sets);
        std::array::from_fn(|row| self.reduction.finish(totals[row], largest[row], self.count))
    }

    #[inline(always)]
    fn pass_rows<L: Lanes, const N: usize>(
        reduction: Reduction,
        largest: [f32; N],
        sets: [&[f16]; N],
    ) -> [f32; N] {
        let fold = reduction.fold();
        let mut lanes = [<L::Vector as Real>::splat(fold.start()); N];
        for ((lanes, set), &largest) in lanes.iter_mut().zip(sets).zip(&largest) {
            *lanes = add_terms::<L>(reduction, largest, *lanes, set);
        }
        // A loop: what the closure of `map` calls would not be compiled for the instruction set.
        let mut totals = [0.0; N];
        for (total, &lanes) in totals.iter_mut().zip(&lanes) {
            *total = across_lanes::<L>(fold, lanes);
        }
        totals
    }

    /// One output: its elements in row-major order.
    #[inline(always)]
    fn along<L: Lanes>(&self, at: usize) -> f32 {
        let largest = if Self::LOOPS.needs_largest() { self.pass::<L>(Reduction::Max, 0.0, at) } else { 0.0 };
        let total = self.pass::<L>(Self::LOOPS, largest, at);
        self.reduction.finish(total, largest, self.count)
    }

    #[inline(always)]
    fn pass<L: Lanes>(&self, reduction: Reduction, largest: f32, at: usize) -> f32 {
        let fold = reduction.fold();
        let mut lanes = <L::Vector as Real>::splat(fold.start());
        let stride = self.reduced.inner_strides()[0] as usize;
        let mut block = [f16::ZERO; BLOCK];
        let mut filled = 0;
        for (_, length, [offset]) in self.reduced.runs(0, self.count) {
            let start = at + offset;
            let mut done = 0;
            while done < length {
                let size = (BLOCK - filled).min(length - done);
                let target = &mut block[filled..filled + size];
                if stride == 1 {
                    target.copy_from_slice(&self.x[start + done..start + done + size]);
                } else {
                    let source = self.x[start + done * stride..].iter().step_by(stride.max(1));
                    target.iter_mut().zip(source).for_each(|(target, source)| *target = *source);
                }
                (done, filled) = (done + size, filled + size);
                if filled == BLOCK {
                    lanes = add_terms::<L>(reduction, largest, lanes, &block);
                    filled = 0;
                }
            }
        }
        lanes = add_terms::<L>(reduction, largest, lanes, &block[..filled]);
        across_lanes::<L>(fold, lanes)
    }
}
