//! Worked examples of ops.

use crate::ir::op::Op;
use crate::ir::types::TensorType;

/// A worked example: enough to test an op in every way this project tests ops.
#[derive(Clone, Debug)]
pub struct Case {
    /// The op with its attributes.
    pub op: Op,
    /// Types of the inputs.
    pub inputs: Vec<TensorType>,
    /// Inputs from this index on are constants, as weights are.
    pub constants_from: usize,
    /// The range inputs are drawn from.
    pub domain: (f64, f64),
    /// How far results may be from the exact ones, and why.
    pub tolerance: Tolerance,
}

/// How far a half-precision result may be from the exact one.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// In units in the last place of the exact result.
    pub ulp: f64,
    /// Or absolutely, for results that come out of cancellation.
    pub absolute: f64,
    /// Why this much.
    pub reason: &'static str,
}

impl Tolerance {
    /// One rounding.
    pub const ROUNDED: Tolerance =
        Tolerance { ulp: 0.5, absolute: 0.0, reason: "the exact result, rounded once" };
    /// Copies.
    pub const EXACT: Tolerance =
        Tolerance { ulp: 0.0, absolute: 0.0, reason: "elements are moved, not computed" };
    /// A transcendental function of the kernels, then one rounding.
    pub const FUNCTION: Tolerance = Tolerance {
        ulp: 1.0,
        absolute: 0.0,
        reason: "the kernel's function is within 1 ulp of the exact one",
    };
    /// A function in two pieces, each rounded.
    pub const SPLIT: Tolerance = Tolerance {
        ulp: 1.5,
        absolute: 5e-5,
        reason: "split at 10, where the second piece is off by ln(1 + exp(-10))",
    };
    /// A function whose argument or result is shifted in single precision.
    pub const SHIFTED: Tolerance = Tolerance {
        ulp: 1.0,
        absolute: 1e-5,
        reason: "within 1 ulp; near a zero of the function its error is absolute",
    };
    /// A wide sum, then one rounding.
    pub const SUM: Tolerance = Tolerance {
        ulp: 1.0,
        absolute: 1e-5,
        reason: "single-precision accumulation; near cancellation its error is absolute",
    };
    /// A wide sum and a bias, each rounded.
    pub const BIASED: Tolerance = Tolerance {
        ulp: 1.0,
        absolute: 4e-3,
        reason: "the sum rounds before the bias is added, and may be larger than the result",
    };
}

impl Case {
    /// A case over half-precision inputs of these shapes.
    pub fn new(op: impl Into<Op>, shapes: &[&[usize]], domain: (f64, f64), tolerance: Tolerance) -> Case {
        let shape =
            |dims: &&[usize]| aneforge_tensor::Shape::new(dims).expect("invariant: cases have valid shapes");
        let inputs = shapes.iter().map(|d| TensorType::f16(shape(d))).collect();
        Case { op: op.into(), inputs, constants_from: usize::MAX, domain, tolerance }
    }

    /// The same with inputs from `index` on as constants.
    pub fn constants_from(self, index: usize) -> Case {
        Case { constants_from: index, ..self }
    }

    /// The same with input `index` of another element type.
    pub fn dtype(mut self, index: usize, dtype: aneforge_tensor::DType) -> Case {
        self.inputs[index].dtype = dtype;
        self
    }
}
