//! Convolution with a weight that the graph computes.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Grad, Mil, Op, Operator, Tolerance};
use crate::ir::ops::conv::Conv;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// `conv` of one image with a weight that is computed: a weight per call, as hypernetworks have.
    ///
    /// `x` is `[1, Cin, H, W]`, `weight` `[Cout, Cin/groups, kH, kW]` with `kW` at most 15; the result and
    /// its rounding are those of `conv`. It is written as `conv`, whose statement takes a computed weight
    /// when the batch is 1.
    /// In Python, `af.dynamic_conv(x, weight, pad=1)`.
    pub struct DynamicConv = "dynamic_conv"("x", "weight") {
        /// Steps between windows, down and across.
        strides: [i64; 2] = [1, 1],
        /// Rows and columns of zeros: top, bottom, left, right.
        pad: [i64; 4] = [0; 4],
        /// Steps between taps, down and across.
        dilations: [i64; 2] = [1, 1],
        /// Groups of channels that do not mix.
        groups: i64 = 1,
    }
}

impl DynamicConv {
    fn conv(&self) -> Conv {
        let DynamicConv { strides, pad, dilations, groups } = *self;
        Conv { strides, pad, dilations, groups }
    }
}

impl Operator for DynamicConv {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        match x[0].shape.dims() {
            [n, _, _, _] if *n != 1 => {
                Err(format!("the batch must be 1, got {n}; use conv, which runs image by image"))
            }
            _ => self.conv().infer(x),
        }
    }
    fn form(&self, x: &[TensorType], out: &TensorType) -> Form {
        self.conv().form(x, out)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        Facts { weights_from: usize::MAX, ..self.conv().facts(x, out) }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        self.conv().eval(x, out, p)
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        self.conv().vjp(x, y, dy)
    }
    fn mil() -> Mil {
        Mil::Decompose(|op, x| {
            let Op::DynamicConv(op) = op else { unreachable!("called on its own op") };
            Var::apply(op.conv(), &[&x[0], &x[1]])
        })
    }
    fn cases() -> Vec<Case> {
        let on =
            |op: DynamicConv, x: &[usize], w: &[usize]| Case::new(op, &[x, w], (-1.0, 1.0), Tolerance::SUM);
        let plain = DynamicConv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        vec![
            on(DynamicConv { pad: [1; 4], ..plain.clone() }, &[1, 5, 5, 4], &[3, 5, 3, 3]),
            on(DynamicConv { strides: [2, 1], groups: 2, ..plain.clone() }, &[1, 4, 5, 4], &[6, 2, 2, 3]),
            on(DynamicConv { groups: 3, dilations: [1, 2], ..plain.clone() }, &[1, 3, 4, 5], &[3, 1, 2, 2]),
            on(plain, &[1, 40, 2, 2], &[2, 40, 1, 1]),
        ]
    }
}

impl Var {
    /// Correlation of one image with a computed weight `[Cout, Cin/groups, kH, kW]`.
    #[track_caller]
    pub fn dynamic_conv(&self, op: DynamicConv, weight: &Var) -> Var {
        Var::apply(op, &[self, weight])
    }
}
