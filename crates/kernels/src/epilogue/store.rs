//! How sums are finished and stored.

use std::ops::Range;

use half::f16;

use super::{Bias, Epilogue, Residual, splat};
use crate::map::Unary;
use crate::simd::{COLUMNS, Lanes, Real, Task, Tile, WIDTH};
use crate::stores::{OVERFLOW, Stores, kept};

/// Stores rows of sums, but for what [`Epilogue::after`] does.
pub(super) struct StoreTask<'a, 'b, 'c> {
    pub(super) epilogue: &'a Epilogue<'b>,
    pub(super) sums: &'a [[f32; COLUMNS]],
    pub(super) range: (Range<usize>, Range<usize>),
    pub(super) out: &'a mut Tile<'c, f16>,
}

impl Task for StoreTask<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let StoreTask { epilogue, sums, range: (rows, columns), out } = self;
        let usual = Usual::<L>::of(epilogue, &columns);
        let mut done = 0;
        loop {
            let (sums, range) = (&sums[done..], (rows.start + done..rows.end, columns.clone()));
            done += match (usual.is_plain(), usual.residual, columns.len() <= WIDTH) {
                (true, None, false) => usual.store::<true, false, 2>(sums, range, out),
                (true, None, true) => usual.store::<true, false, 1>(sums, range, out),
                (true, Some(_), false) => usual.store::<true, true, 2>(sums, range, out),
                (true, Some(_), true) => usual.store::<true, true, 1>(sums, range, out),
                (false, ..) => usual.store::<false, true, 2>(sums, range, out),
            };
            let Some(sums) = self.sums.get(done) else { return };
            store_any::<L>(epilogue, sums, (rows.start + done, columns.clone()), out);
            done += 1;
        }
    }
}

/// What is done to sums where neither the limit nor what happens to infinities and NaN makes a difference.
struct Usual<'a, L: Lanes> {
    scale: Option<[L::Vector; COLUMNS / WIDTH]>,
    bias: [L::Vector; COLUMNS / WIDTH],
    /// Those of every row, where they are no others.
    of_rows: [Option<&'a [f16]>; 2],
    residual: Option<&'a [f16]>,
    limit: L::Vector,
    /// The activation keeps what lies between these.
    low: L::Vector,
    high: L::Vector,
}

impl<'a, L: Lanes> Usual<'a, L> {
    #[inline(always)]
    fn of(epilogue: &Epilogue<'a>, columns: &Range<usize>) -> Self {
        let real = <L::Vector as Real>::splat;
        // Values need not be rounded before these, as rounding keeps their order and leaves the bounds as they are.
        let (low, high) = match epilogue.activation {
            Some(Unary::Relu) => (0.0, f32::INFINITY),
            Some(Unary::Relu6) => (0.0, 6.0),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        let residual = match epilogue.residual {
            Residual::Before(values) => Some(values),
            _ => None,
        };
        let of_rows = [epilogue.scale.rows(), epilogue.bias.rows()];
        let limit = real(epilogue.limit.map_or(f32::INFINITY, f16::to_f32));
        // To multiply with 1 or to add -0 changes no value.
        let scale = shared_of::<L>(&epilogue.scale, columns, 1.0);
        let bias = shared_of::<L>(&epilogue.bias, columns, -0.0);
        let scale = (!matches!(epilogue.scale, Bias::None)).then_some(scale);
        Usual { scale, bias, of_rows, residual, limit, low: real(low), high: real(high) }
    }

    /// Whether there is no more than a bias that all rows share, a residual and an activation.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.scale.is_none() && self.of_rows[1].is_none()
    }

    /// Stores rows of `N` vectors up to the first with an infinity or NaN, or beyond the limit, and returns how many.
    #[inline(always)]
    fn store<const PLAIN: bool, const RESIDUAL: bool, const N: usize>(
        &self,
        sums: &[[f32; COLUMNS]],
        (rows, columns): (Range<usize>, Range<usize>),
        out: &mut Tile<'_, f16>,
    ) -> usize {
        let mut places = out.walk(rows, columns);
        for (done, sums) in sums.iter().enumerate() {
            let Some((row, index, out)) = places.next() else { return done };
            let (mut values, mut fine) = ([self.low; N], None);
            for (half, value) in values.iter_mut().enumerate() {
                let sum = L::load(&sums.as_chunks().0[half]);
                let mut exact = sum;
                if !PLAIN {
                    exact = self.scaled(exact, row, half);
                }
                exact = L::rounded(exact) + if PLAIN { self.bias[half] } else { self.bias(row, half) };
                if let (true, Some(residual)) = (RESIDUAL, self.residual) {
                    let residual = &residual[index..index + out.len()];
                    exact = L::rounded(exact) + L::read_some(&residual[residual.len().min(half * WIDTH)..]);
                }
                // An infinity or NaN on the way would still be one.
                let finite = exact.abs().lt(<L::Vector as Real>::splat(OVERFLOW));
                let own = <L::Vector as Real>::and(finite, sum.abs().le(self.limit));
                fine = Some(fine.map_or(own, |fine| <L::Vector as Real>::and(fine, own)));
                *value = exact.at_least(self.low).not_above(self.high);
            }
            if !fine.is_none_or(<L::Vector as Real>::all) {
                return done;
            }
            for (value, out) in values.into_iter().zip(out.chunks_mut(WIDTH)) {
                L::write_some(value, out);
            }
        }
        sums.len()
    }

    #[inline(always)]
    fn scaled(&self, sum: L::Vector, row: usize, half: usize) -> L::Vector {
        match (self.scale, self.of_rows[0]) {
            (_, Some(values)) => L::rounded(sum) * splat::<L>(values[row]),
            (Some(scale), None) => L::rounded(sum) * scale[half],
            (None, None) => sum,
        }
    }

    #[inline(always)]
    fn bias(&self, row: usize, half: usize) -> L::Vector {
        self.of_rows[1].map_or(self.bias[half], |values| splat::<L>(values[row]))
    }
}

/// The operand of up to 32 columns where all rows share it, else `other`.
#[inline(always)]
fn shared_of<L: Lanes>(of: &Bias<'_>, columns: &Range<usize>, other: f32) -> [L::Vector; COLUMNS / WIDTH] {
    let mut vectors = [<L::Vector as Real>::splat(other); COLUMNS / WIDTH];
    for (vector, first) in vectors.iter_mut().zip(columns.clone().step_by(WIDTH)) {
        *vector = of.read_shared::<L>(first..columns.end.min(first + WIDTH)).unwrap_or(*vector);
    }
    vectors
}

/// Stores the sums of a row, whatever they are.
#[inline(always)]
fn store_any<L: Lanes>(
    epilogue: &Epilogue<'_>,
    sums: &[f32; COLUMNS],
    (row, columns): (usize, Range<usize>),
    out: &mut Tile<'_, f16>,
) {
    let (index, out) = out.row_at(row, columns.clone());
    for (half, out) in out.chunks_mut(WIDTH).enumerate() {
        let (sum, skip) = (L::load(&sums.as_chunks().0[half]), half * WIDTH);
        let (column, index) = (columns.start + skip, index + skip);
        let (columns, range) = (column..column + out.len(), index..index + out.len());
        L::write_some(finish::<L>(epilogue, sum, (row, columns), range), out);
    }
}

/// What comes before the activation, and the simplest ones, but for the last rounding.
#[inline(always)]
fn finish<L: Lanes>(
    epilogue: &Epilogue<'_>,
    sums: L::Vector,
    (row, columns): (usize, Range<usize>),
    range: Range<usize>,
) -> L::Vector {
    let value = chain::<L>(epilogue, epilogue.stores(), sums, (row, columns), range);
    let flush = epilogue.flush_nan;
    match epilogue.activation {
        Some(Unary::Relu) => kept::<L>(flush, Unary::Relu.apply(L::rounded(value))),
        Some(Unary::Relu6) => kept::<L>(flush, Unary::Relu6.apply(L::rounded(value))),
        _ => value,
    }
}

/// What comes before the activation, each node stored as `stores` says, but for the last rounding.
#[inline(always)]
fn chain<L: Lanes>(
    epilogue: &Epilogue<'_>,
    stores: Stores<'_>,
    sums: L::Vector,
    (row, columns): (usize, Range<usize>),
    range: Range<usize>,
) -> L::Vector {
    let mut value = sums;
    if let Some(limit) = epilogue.limit {
        value = L::rounded(value);
        let infinity = <L::Vector as Real>::splat(f32::INFINITY).copysign(value);
        let above = splat::<L>(limit).lt(value.abs());
        value = <L::Vector as Real>::select(above, infinity, value);
    }
    value = stores.vector::<L>(value);
    if let Some(scale) = epilogue.scale.read::<L>(row, columns.clone()) {
        value = stores.vector::<L>(L::rounded(value) * scale);
    }
    if let Some(bias) = epilogue.bias.read::<L>(row, columns) {
        value = stores.vector::<L>(L::rounded(value) + bias);
    }
    if let Residual::Before(values) = epilogue.residual {
        value = stores.vector::<L>(L::rounded(value) + L::read_some(&values[range]));
    }
    value
}
