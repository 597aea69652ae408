//! What follows the sum of a matrix product or a convolution, node by node.

mod store;

use std::ops::Range;

use half::f16;

use crate::map::{Unary, map_slice};
use crate::simd::{COLUMNS, Lanes, Simd, Task, Tile, WIDTH};
use crate::stores::{Stores, Watch};

use store::StoreTask;

/// A factor or summand of an [`Epilogue`].
#[derive(Clone, Copy, Debug, Default)]
pub enum Bias<'a> {
    /// None.
    #[default]
    None,
    /// One value per column of the output matrix (`[N]`, a linear layer's bias).
    Column(&'a [f16]),
    /// One value per row of the output matrix (`[M]`; per output channel of a convolution).
    Row(&'a [f16]),
    /// One value for all.
    All(f16),
}

/// An array of the output's shape that is added in an [`Epilogue`].
#[derive(Clone, Copy, Debug, Default)]
pub enum Residual<'a> {
    /// None.
    #[default]
    None,
    /// Added before the activation.
    Before(&'a [f16]),
    /// Added after the activation.
    After(&'a [f16]),
}

/// What follows the sum, each node with a rounding of its own: the sum rounds to `f16`, then `* scale` rounds to
/// `f16`, and so do `+ bias`, a residual before the activation, the activation and a residual after it. The same
/// bits as separate nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Multiplies the rounded sum.
    pub scale: Bias<'a>,
    /// Added next.
    pub bias: Bias<'a>,
    /// Added before or after the activation.
    pub residual: Residual<'a>,
    /// Applied to the result.
    pub activation: Option<Unary>,
    /// A rounded sum of a magnitude above this becomes an infinity.
    pub limit: Option<f16>,
    /// NaN becomes +0 wherever a node would store it.
    pub flush_nan: bool,
    /// Told of infinities and NaN wherever a node would store them.
    pub watch: Option<&'a Watch>,
}

impl<'a> Bias<'a> {
    fn at(&self, row: usize, column: usize) -> Option<f16> {
        match self {
            Bias::None => None,
            Bias::Column(values) => Some(values[column]),
            Bias::Row(values) => Some(values[row]),
            Bias::All(value) => Some(*value),
        }
    }

    fn check(&self, rows: usize, columns: usize) {
        match self {
            Bias::None | Bias::All(_) => {}
            Bias::Column(values) => assert_eq!(values.len(), columns, "epilogue: bias per column"),
            Bias::Row(values) => assert_eq!(values.len(), rows, "epilogue: bias per row"),
        }
    }

    /// The value of every row, where there are such.
    fn rows(&self) -> Option<&'a [f16]> {
        match self {
            Bias::Row(values) => Some(values),
            _ => None,
        }
    }

    /// [`Bias::read`], where that is the same in every row.
    #[inline(always)]
    fn read_shared<L: Lanes>(&self, columns: Range<usize>) -> Option<L::Vector> {
        match self {
            Bias::Row(_) => None,
            _ => self.read::<L>(0, columns),
        }
    }

    /// The values for a row's columns from `column` on, up to 16.
    #[inline(always)]
    fn read<L: Lanes>(&self, row: usize, columns: Range<usize>) -> Option<L::Vector> {
        match self {
            Bias::None => None,
            Bias::Column(values) => Some(L::read_some(&values[columns])),
            Bias::Row(values) => Some(splat::<L>(values[row])),
            Bias::All(value) => Some(splat::<L>(*value)),
        }
    }
}

/// An `f16` in every lane.
#[inline(always)]
fn splat<L: Lanes>(value: f16) -> L::Vector {
    L::read(&[value; WIDTH])
}

impl<'a> Residual<'a> {
    /// The part of it that belongs to the elements of `range`.
    pub(crate) fn part(self, range: Range<usize>) -> Residual<'a> {
        match self {
            Residual::None => Residual::None,
            Residual::Before(values) => Residual::Before(&values[range]),
            Residual::After(values) => Residual::After(&values[range]),
        }
    }
}

impl Epilogue<'_> {
    /// The scalar definition: what is stored for `sum` at (`row`, `column`), which is element `index` of the output.
    #[must_use]
    pub fn eval(&self, sum: f32, (row, column): (usize, usize), index: usize) -> f16 {
        let stores = self.stores();
        let mut value = f16::from_f32(sum);
        if self.limit.is_some_and(|limit| value.to_f32().abs() > limit.to_f32()) {
            value = f16::INFINITY.copysign(value);
        }
        value = stores.one(value);
        let add = |value: f16, other: f16| stores.one(f16::from_f32(value.to_f32() + other.to_f32()));
        if let Some(scale) = self.scale.at(row, column) {
            value = stores.one(f16::from_f32(value.to_f32() * scale.to_f32()));
        }
        if let Some(bias) = self.bias.at(row, column) {
            value = add(value, bias);
        }
        if let Residual::Before(values) = self.residual {
            value = add(value, values[index]);
        }
        if let Some(function) = self.activation {
            value = stores.one(f16::from_f32(function.eval(value.to_f32())));
        }
        match self.residual {
            Residual::After(values) => add(value, values[index]),
            _ => value,
        }
    }

    /// How each of the nodes stores its result.
    fn stores(&self) -> Stores<'_> {
        Stores { flush_nan: self.flush_nan, watch: self.watch }
    }

    /// Checks the operands against an output of `count` matrices of `rows` by `columns`.
    pub(crate) fn check(&self, rows: usize, columns: usize, count: usize) {
        self.scale.check(rows, columns);
        self.bias.check(rows, columns);
        if let Residual::Before(values) | Residual::After(values) = self.residual {
            assert_eq!(values.len(), rows * columns * count, "epilogue: residual");
        }
    }

    /// Checks that no operand has a value per column: the columns of a convolution are pixels.
    pub(crate) fn check_channels(&self) {
        let any = |bias: &Bias<'_>| matches!(bias, Bias::Column(_));
        assert!(!any(&self.scale) && !any(&self.bias), "epilogue: a value per output channel is one per row");
    }

    /// Checks the operands against `rows` by `columns` inside of an output of `len` elements.
    pub(crate) fn check_in(&self, rows: usize, columns: usize, len: usize) {
        self.scale.check(rows, columns);
        self.bias.check(rows, columns);
        if let Residual::Before(values) | Residual::After(values) = self.residual {
            assert!(values.len() >= len, "epilogue: residual");
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
        let range = (rows.clone(), columns.clone());
        simd.run(StoreTask { epilogue: self, sums, range, out });
        if self.has_after() {
            for row in rows.take(sums.len()) {
                let (index, out) = out.row_at(row, columns.clone());
                self.after(simd, index, out);
            }
        }
    }

    /// Whether [`Epilogue::after`] has something to do.
    fn has_after(&self) -> bool {
        self.late_activation().is_some() || matches!(self.residual, Residual::After(_))
    }

    /// The activation, where [`finish`] leaves it.
    fn late_activation(&self) -> Option<Unary> {
        self.activation.filter(|function| !matches!(function, Unary::Relu | Unary::Relu6))
    }

    /// What [`StoreTask`] leaves to do, on stored values that are the output's elements from `index` on: they are
    /// rounded at this point anyway.
    pub(crate) fn after(&self, simd: Simd, index: usize, out: &mut [f16]) {
        if let Some(function) = self.late_activation() {
            map_slice(simd, function, None, self.stores(), out);
        }
        if let Residual::After(values) = self.residual {
            let values = &values[index..index + out.len()];
            simd.run(AddTask { values, stores: self.stores(), out });
        }
    }
}

struct AddTask<'a> {
    values: &'a [f16],
    stores: Stores<'a>,
    out: &'a mut [f16],
}

impl Task for AddTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (values, out) in self.values.chunks(WIDTH).zip(self.out.chunks_mut(WIDTH)) {
            let sum = L::read_some(out) + L::read_some(values);
            self.stores.write_some::<L>(sum, out);
        }
    }
}
