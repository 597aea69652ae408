//! Reductions of neighbouring columns along an outer axis.

use half::f16;

use super::{Fold, Reduction, Set};
use crate::Kernels;
use crate::order::LANES;
use crate::simd::{Lanes, Task, WIDTH, chunks};

/// Neighbouring outputs that are reduced together along an outer axis: their lanes stay in the first-level cache,
/// and what is read of a row is long enough for the processor to fetch ahead.
pub(super) const SPAN: usize = 512;
/// Rows that join a lane on one way through the registers.
const DEEP: usize = 4;
/// Sums of the columns of one lane; whole lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lane<const W: usize>(pub(crate) [f32; W]);

/// The reductions of neighbouring columns along one axis, each thread with the rows of some lanes.
pub(super) fn reduce_by_lanes<const KIND: u8>(kernels: &Kernels, set: &Set<'_, KIND>, out: &mut [f16]) {
    let mut lanes = [Lane([0.0; SPAN]); LANES];
    let size = LANES.div_ceil(kernels.pool.threads());
    for (block, out) in out.chunks_mut(SPAN).enumerate() {
        let (at, width) = (block * SPAN, out.len());
        chunks(&kernels.pool, &mut lanes, size, |first, lanes| {
            kernels.simd.run(LanesTask { set, at, width, first, lanes });
        });
        kernels.simd.run(FinishTask { set, lanes: &mut lanes, out });
    }
}

/// Adds the rows of the lanes from `first` on.
struct LanesTask<'a, const KIND: u8> {
    set: &'a Set<'a, KIND>,
    at: usize,
    width: usize,
    first: usize,
    lanes: &'a mut [Lane<SPAN>],
}

impl<const KIND: u8> Task for LanesTask<'_, KIND> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let LanesTask { set, at, width, first, lanes } = self;
        let reduction = Set::<KIND>::LOOPS;
        set.add_lanes::<L>(reduction, &Lane([0.0; SPAN]), (at, width), first, lanes);
    }
}

/// Combines the lanes.
struct FinishTask<'a, const KIND: u8> {
    set: &'a Set<'a, KIND>,
    lanes: &'a mut [Lane<SPAN>; LANES],
    out: &'a mut [f16],
}

impl<const KIND: u8> Task for FinishTask<'_, KIND> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let FinishTask { set, lanes, out } = self;
        fold_lanes::<L, SPAN>(Set::<KIND>::LOOPS.fold(), lanes, (set.count, out.len()));
        set.finish::<L>(lanes, &Lane([0.0; SPAN]), out);
    }
}

impl<const KIND: u8> Set<'_, KIND> {
    /// Up to [`SPAN`] neighbouring outputs, reduced along one outer axis.
    #[inline(always)]
    pub(super) fn across<L: Lanes>(
        &self,
        at: usize,
        lanes: &mut [Lane<SPAN>; LANES],
        largest: &mut Lane<SPAN>,
        out: &mut [f16],
    ) {
        let (columns, used) = ((at, out.len()), (self.count, out.len()));
        if Self::LOOPS.needs_largest() {
            self.add_lanes::<L>(Reduction::Max, largest, columns, 0, lanes);
            fold_lanes::<L, SPAN>(Fold::Max, lanes, used);
            *largest = lanes[0];
        }
        self.add_lanes::<L>(Self::LOOPS, largest, columns, 0, lanes);
        fold_lanes::<L, SPAN>(Self::LOOPS.fold(), lanes, used);
        self.finish::<L>(lanes, largest, out);
    }

    /// Writes the results of the columns whose lanes are combined.
    #[inline(always)]
    fn finish<L: Lanes>(&self, lanes: &mut [Lane<SPAN>; LANES], largest: &Lane<SPAN>, out: &mut [f16]) {
        let totals = &mut lanes[0].0[..out.len()];
        for (total, largest) in totals.iter_mut().zip(&largest.0) {
            *total = self.reduction.finish(*total, *largest, self.count);
        }
        L::narrow(totals, out);
    }

    /// The sums of the lanes from `first` on, for `width` columns from `at` on.
    #[inline(always)]
    fn add_lanes<L: Lanes>(
        &self,
        reduction: Reduction,
        largest: &Lane<SPAN>,
        (at, width): (usize, usize),
        first: usize,
        lanes: &mut [Lane<SPAN>],
    ) {
        let fold = reduction.fold();
        let stride = self.reduced.inner_strides()[0] as usize;
        let row = |index: usize| &self.x[at + index * stride..][..width];
        for lane in &mut *lanes {
            lane.0[..width.next_multiple_of(WIDTH)].fill(fold.start());
        }
        let deep = self.count - self.count % (DEEP * LANES);
        for start in (0..deep).step_by(DEEP * LANES) {
            for (index, lane) in lanes.iter_mut().enumerate() {
                let rows = std::array::from_fn(|depth| row(start + depth * LANES + first + index));
                add_rows::<L, DEEP>(reduction, largest, rows, lane);
            }
        }
        for start in (deep..self.count).step_by(LANES) {
            let rest = (self.count - start).saturating_sub(first);
            for (index, lane) in lanes.iter_mut().enumerate().take(rest) {
                add_rows::<L, 1>(reduction, largest, [row(start + first + index)], lane);
            }
        }
    }
}

/// Adds the elements of `rows` to their columns of a lane, one row after the other.
#[inline(always)]
fn add_rows<L: Lanes, const N: usize>(
    reduction: Reduction,
    largest: &Lane<SPAN>,
    rows: [&[f16]; N],
    lane: &mut Lane<SPAN>,
) {
    let fold = reduction.fold();
    let (lane, largest) = (lane.0.as_chunks_mut::<WIDTH>().0, largest.0.as_chunks::<WIDTH>().0);
    let whole = rows[0].len() / WIDTH;
    let vectors = rows.map(|row| &row.as_chunks::<WIDTH>().0[..whole]);
    for (index, (lane, largest)) in lane.iter_mut().zip(largest).enumerate().take(whole) {
        let mut sum = L::load(lane);
        for row in vectors {
            sum = fold.combine(sum, reduction.term(L::read(&row[index]), L::load(largest)));
        }
        L::store(sum, lane);
    }
    if !rows[0].len().is_multiple_of(WIDTH) {
        for row in rows {
            let term = reduction.term(L::read_some(&row[whole * WIDTH..]), L::load(&largest[whole]));
            L::store(fold.combine(L::load(&lane[whole]), term), &mut lane[whole]);
        }
    }
}

/// [`tree`] for the first `columns` columns, into the first lane. Only the first `used` lanes hold elements; to
/// combine the others as well would change no bit.
#[inline(always)]
pub(crate) fn fold_lanes<L: Lanes, const W: usize>(
    fold: Fold,
    lanes: &mut [Lane<W>; LANES],
    (mut used, columns): (usize, usize),
) {
    let (vectors, mut width) = (columns.div_ceil(WIDTH), LANES / 2);
    used = used.min(LANES);
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high).take(used.saturating_sub(width)) {
            let pairs = low.0.as_chunks_mut::<WIDTH>().0.iter_mut().zip(high.0.as_chunks::<WIDTH>().0);
            for (a, b) in pairs.take(vectors) {
                L::store(fold.combine(L::load(a), L::load(b)), a);
            }
        }
        used = used.min(width);
        width /= 2;
    }
}
