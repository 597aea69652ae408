//! The two precisions in which every op is defined, and the orders in which sums are taken.
//!
//! [`Precision::F64`] is mathematics, for finite differences and diagnosis. [`Precision::F16`] is the
//! engine: operands in half precision, sums in single precision in an order that is defined on logical
//! indices alone, one rounding to half precision per node. The host engine's fast kernels compute the
//! same bits as this scalar definition for finite values; the conformance suite holds them to it.

use crate::ir::numerics::Numerics;
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
            Precision::F16(numerics) => {
                let stored = round_f16(v);
                if stored.is_nan() && numerics.flushes_nan() { 0.0 } else { stored.to_f64() }
            }
        }
    }

    /// What a product of two matrices stores for the accumulated value `v`.
    pub fn store_product(self, v: f64) -> f64 {
        let stored = self.store(v);
        match self {
            Precision::F16(numerics) if stored.abs() > numerics.matmul_limit() => {
                f64::INFINITY.copysign(stored)
            }
            _ => stored,
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

    /// `x / y` as the engine divides before it stores.
    pub fn divide(self, x: f64, y: f64) -> f64 {
        match self {
            Precision::F64 => x / y,
            Precision::F16(_) => f64::from(x as f32 / y as f32),
        }
    }

    /// An empty [`Sum`].
    pub fn sum(self) -> Sum {
        Sum { single: matches!(self, Precision::F16(_)), exact: 0.0, lanes: [0.0; LANES], index: 0 }
    }

    /// The sum of `values` in the defined order.
    pub fn sum_of(self, values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = self.sum();
        values.into_iter().for_each(|v| sum.push(v));
        sum.total()
    }

    /// An empty [`Dot`].
    pub fn dot(self) -> Dot {
        Dot { single: matches!(self, Precision::F16(_)), exact: 0.0, total: 0.0, pair: [0.0; 2], filled: 0 }
    }
}

/// Partial sums of a reduction: element `i` is added to lane `i % 16`.
pub const LANES: usize = 16;

/// A sum in the defined order: sixteen lanes, each left to right, then a tree of halves.
#[derive(Clone, Debug)]
pub struct Sum {
    single: bool,
    exact: f64,
    lanes: [f32; LANES],
    index: usize,
}

impl Sum {
    /// Adds the next element.
    pub fn push(&mut self, v: f64) {
        if self.single {
            self.lanes[self.index % LANES] += v as f32;
        } else {
            self.exact += v;
        }
        self.index += 1;
    }

    /// Leaves out the next element, as padding.
    pub fn skip(&mut self) {
        self.index += 1;
    }

    /// The sum of all elements.
    pub fn total(mut self) -> f64 {
        if !self.single {
            return self.exact;
        }
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                self.lanes[lane] += self.lanes[lane + half];
            }
            half /= 2;
        }
        f64::from(self.lanes[0])
    }
}

/// Products per block of a dot product.
pub const BLOCK: usize = 32;

/// A dot product in the defined order: per block of 32 products, one fused-multiply-add chain over the
/// even places and one over the odd, whose sum is added to the total. It is the order of x86's
/// TDPFP16PS instruction, so matrix units compute it directly.
#[derive(Clone, Debug)]
pub struct Dot {
    single: bool,
    exact: f64,
    total: f32,
    pair: [f32; 2],
    filled: usize,
}

impl Dot {
    /// Adds the product of the next two elements.
    pub fn push(&mut self, a: f64, b: f64) {
        if self.single {
            let chain = &mut self.pair[self.filled % 2];
            *chain = (a as f32).mul_add(b as f32, *chain);
            self.skip(1);
        } else {
            self.exact += a * b;
        }
    }

    /// Passes over `n` places whose product is zero.
    pub fn skip(&mut self, n: usize) {
        self.filled += n;
        if self.filled >= BLOCK {
            self.end_block();
        }
    }

    /// Ends a block before it is full.
    pub fn end_block(&mut self) {
        self.total += self.pair[0] + self.pair[1];
        self.pair = [0.0; 2];
        self.filled = 0;
    }

    /// The sum of all products.
    pub fn total(mut self) -> f64 {
        if self.single {
            self.end_block();
            f64::from(self.total)
        } else {
            self.exact
        }
    }
}
