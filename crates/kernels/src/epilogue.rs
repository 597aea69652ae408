//! What follows the sum of a matrix product or a convolution, node by node.

use std::ops::Range;

use half::f16;

use crate::map::{Unary, apply};
use crate::simd::{COLUMNS, Lanes, Simd, Task, Tile};

/// The bias of an [`Epilogue`].
#[derive(Clone, Copy, Debug, Default)]
pub enum Bias<'a> {
    /// No bias.
    #[default]
    None,
    /// One value per column of the output matrix (`[N]`, a linear layer's bias).
    Column(&'a [f16]),
    /// One value per row of the output matrix (`[M]`; per output channel of a convolution).
    Row(&'a [f16]),
}

/// What follows the sum, each node with a rounding of its own: the sum rounds to `f16`, then `+ bias` rounds to
/// `f16`, then `activation` rounds to `f16`. The same bits as separate nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to the rounded sum.
    pub bias: Bias<'a>,
    /// Applied last.
    pub activation: Option<Unary>,
    /// A rounded sum of a magnitude above this becomes an infinity.
    pub limit: Option<f16>,
    /// NaN becomes +0 wherever a node would store it.
    pub flush_nan: bool,
}

impl Epilogue<'_> {
    /// The scalar definition: what is stored for `sum` at (`row`, `column`).
    #[must_use]
    pub fn eval(&self, sum: f32, row: usize, column: usize) -> f16 {
        let mut value = self.kept(f16::from_f32(sum));
        if self.limit.is_some_and(|limit| value.to_f32().abs() > limit.to_f32()) {
            value = f16::INFINITY.copysign(value);
        }
        let bias = match self.bias {
            Bias::None => None,
            Bias::Column(bias) => Some(bias[column]),
            Bias::Row(bias) => Some(bias[row]),
        };
        if let Some(bias) = bias {
            value = self.kept(f16::from_f32(value.to_f32() + bias.to_f32()));
        }
        self.activation.map_or(value, |function| self.kept(f16::from_f32(function.eval(value.to_f32()))))
    }

    fn kept(&self, value: f16) -> f16 {
        if self.flush_nan && value.is_nan() { f16::ZERO } else { value }
    }

    pub(crate) fn check(&self, rows: usize, columns: usize) {
        match self.bias {
            Bias::None => {}
            Bias::Column(bias) => assert_eq!(bias.len(), columns, "epilogue: bias per column"),
            Bias::Row(bias) => assert_eq!(bias.len(), rows, "epilogue: bias per row"),
        }
    }

    /// Stores `sums`, one row after the other, at `rows` and `columns` of `out`.
    pub(crate) fn store(
        &self,
        simd: Simd,
        sums: &[[f32; COLUMNS]],
        (rows, columns): (Range<usize>, Range<usize>),
        out: &mut Tile<'_, f16>,
    ) {
        simd.run(StoreTask { epilogue: self, sums, rows, columns, out });
    }
}

struct StoreTask<'a, 'b, 'c> {
    epilogue: &'a Epilogue<'b>,
    sums: &'a [[f32; COLUMNS]],
    rows: Range<usize>,
    columns: Range<usize>,
    out: &'a mut Tile<'c, f16>,
}

impl Task for StoreTask<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let StoreTask { epilogue, sums, rows, columns, out } = self;
        for (row, sums) in rows.zip(sums) {
            let mut values = *sums;
            let out = out.row(row, columns.clone());
            store_row::<L>(epilogue, &mut values, (row, columns.start), out);
        }
    }
}

/// Stores `values`, the sums of row `row` from column `column` on; of them, as many as `out` holds.
#[inline(always)]
pub(crate) fn store_row<L: Lanes>(
    epilogue: &Epilogue<'_>,
    values: &mut [f32; COLUMNS],
    (row, column): (usize, usize),
    out: &mut [f16],
) {
    let width = out.len();
    let mut bias = [0.0; COLUMNS];
    match epilogue.bias {
        Bias::None => {}
        Bias::Column(per_column) => L::widen(&per_column[column..column + width], &mut bias[..width]),
        Bias::Row(per_row) => {
            let mut value = [0.0];
            L::widen(&per_row[row..=row], &mut value);
            bias.fill(value[0]);
        }
    }
    flush(epilogue, values);
    if let Some(limit) = epilogue.limit {
        L::round(values);
        let limit = limit.to_f32();
        for value in values.iter_mut() {
            *value = if value.abs() > limit { f32::INFINITY.copysign(*value) } else { *value };
        }
    }
    if !matches!(epilogue.bias, Bias::None) {
        L::round(values);
        for (value, bias) in values.iter_mut().zip(&bias) {
            *value += bias;
        }
        flush(epilogue, values);
    }
    if let Some(function) = epilogue.activation {
        L::round(values);
        apply(function, values);
        flush(epilogue, values);
    }
    L::narrow(&values[..width], out);
}

/// Stores +0 in place of NaN, where the epilogue asks for it.
#[inline(always)]
fn flush(epilogue: &Epilogue<'_>, values: &mut [f32; COLUMNS]) {
    if epilogue.flush_nan {
        for value in values {
            *value = if value.is_nan() { 0.0 } else { *value };
        }
    }
}
