//! The two precisions in which every op is defined, and the orders in which sums are taken.
//!
//! [`Precision::F64`] is mathematics, for finite differences and diagnosis. [`Precision::F16`] is the
//! engine: operands in half precision, sums in single precision in an order that is defined on logical
//! indices alone, one rounding to half precision per node. The host engine's fast kernels compute the
//! same bits as this scalar definition for finite values; the conformance suite holds them to it. With [`Numerics::Faithful`]
//! it is all that is published of the engine's own arithmetic.

mod sums;

pub(crate) use sums::Engine;
pub use sums::{BLOCK, Dot, LANES, Sum};

use crate::ir::numerics::Numerics;
use aneforge_kernels::map::Unary;
use aneforge_tensor::{Shape, Tensor, Weight, f16, round_f16};

/// Values of one tensor in the scalar definition. Truth values are 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Shape,
    /// Row-major elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array whose elements are `f(0), f(1), ...` in row-major order.
    pub fn from_fn(shape: Shape, f: impl FnMut(usize) -> f64) -> Array {
        Array { shape, data: (0..shape.count()).map(f).collect() }
    }

    /// A tensor's elements.
    pub fn from_tensor(tensor: &Tensor, precision: Precision) -> Array {
        let data = match (precision, tensor.as_slice::<f64>()) {
            (Precision::F64, Some(values)) => values.to_vec(),
            (Precision::F64, None) => tensor.to_f32().into_iter().map(f64::from).collect(),
            (Precision::F16(_), _) => tensor.to_f16().into_iter().map(f16::to_f64).collect(),
        };
        Array { shape: tensor.shape(), data }
    }

    /// The values that a weight stands for.
    pub fn from_weight(weight: &Weight, precision: Precision) -> Array {
        match weight {
            Weight::Dense(tensor) => Array::from_tensor(tensor, precision),
            encoded => {
                let data = encoded.to_f16().into_iter().map(f16::to_f64).collect();
                Array { shape: encoded.shape(), data }
            }
        }
    }
}

/// In which arithmetic an op is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// Double precision, nothing rounded to half.
    F64,
    /// Half precision with these rules for what IEEE arithmetic and the engine do differently.
    F16(Numerics),
}

impl Precision {
    /// What is stored for the computed value `v`.
    pub fn store(self, v: f64) -> f64 {
        match self {
            Precision::F64 => v,
            Precision::F16(numerics) => numerics.arithmetic().store(v),
        }
    }

    /// What a product of more than one term, or of two matrices, stores for the accumulated value `v`.
    pub fn store_product(self, v: f64) -> f64 {
        match self {
            Precision::F64 => v,
            Precision::F16(numerics) => numerics.arithmetic().store_product(v),
        }
    }

    /// A scalar attribute as the engine sees it.
    pub fn scalar(self, k: f64) -> f64 {
        match self {
            Precision::F64 => k,
            Precision::F16(_) => round_f16(k).to_f64(),
        }
    }

    /// Applies a function that the engine computes in single precision.
    pub fn call(self, x: f64, exact: impl Fn(f64) -> f64, single: impl Fn(f32) -> f32) -> f64 {
        match self {
            Precision::F64 => exact(x),
            Precision::F16(_) => f64::from(single(x as f32)),
        }
    }

    /// Applies a function that a kernel has, or its exact counterpart.
    pub fn function(self, kernel: Unary, x: f64, exact: impl Fn(f64) -> f64) -> f64 {
        let Precision::F16(numerics) = self else { return exact(x) };
        let rules = numerics.arithmetic();
        match (kernel, rules.at_zero, rules.sigmoid) {
            (Unary::Gelu, Some([value, _]), _) | (Unary::Silu, Some([_, value]), _) if x == 0.0 => value,
            (Unary::Sigmoid, _, Some([low, high])) => f64::from(kernel.eval(x.clamp(low, high) as f32)),
            (Unary::Round, ..) if rules.rounds_by_adding => self.store(x + 0.5f64.copysign(x)).trunc(),
            _ => f64::from(rules.function(kernel).eval(x as f32)),
        }
    }

    /// Values as a product takes them that meets weights of eight bits.
    pub(crate) fn met_by_bytes(self, x: &Array) -> Array {
        let limit = match self {
            Precision::F64 => f64::INFINITY,
            Precision::F16(numerics) => numerics.arithmetic().byte_operand_limit,
        };
        let saturate = |v: &f64| if v.abs() > limit { f64::INFINITY.copysign(*v) } else { *v };
        Array { shape: x.shape, data: x.data.iter().map(saturate).collect() }
    }

    /// `v * v` as a sum of squares takes it.
    pub fn square(self, v: f64) -> f64 {
        match self {
            Precision::F16(numerics) if numerics.arithmetic().rounds_squares => self.store(v * v),
            _ => v * v,
        }
    }

    /// `x - y`, of which the engine stores no NaN, inside of an op either.
    pub fn difference(self, x: f64, y: f64) -> f64 {
        match self {
            Precision::F16(numerics) if numerics.flushes_nan() && (x - y).is_nan() => 0.0,
            _ => x - y,
        }
    }

    /// `x / y` as the engine divides before it stores.
    pub fn divide(self, x: f64, y: f64) -> f64 {
        match self {
            Precision::F64 => x / y,
            Precision::F16(_) => f64::from(x as f32 / y as f32),
        }
    }

    /// An empty [`Sum`] of plain values.
    pub fn sum(self) -> Sum {
        match self {
            Precision::F64 => Sum::exact(),
            Precision::F16(numerics) => Sum::of_plain_values(numerics.arithmetic()),
        }
    }

    /// An empty [`Sum`] inside of an op, of which nothing is published.
    pub fn inner_sum(self) -> Sum {
        match self {
            Precision::F64 => Sum::exact(),
            Precision::F16(_) => Sum::of_singles(),
        }
    }

    /// The sum of plain values in the defined order.
    pub fn sum_of(self, values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = self.sum();
        values.into_iter().for_each(|v| sum.push(v));
        sum.total()
    }

    /// The sum of values inside of an op in the defined order.
    pub fn inner_sum_of(self, values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = self.inner_sum();
        values.into_iter().for_each(|v| sum.push(v));
        sum.total()
    }

    /// An empty [`Dot`].
    pub fn dot(self) -> Dot {
        match self {
            Precision::F64 => Dot::exact(),
            Precision::F16(numerics) => Dot::of_singles(numerics.arithmetic()),
        }
    }
}
