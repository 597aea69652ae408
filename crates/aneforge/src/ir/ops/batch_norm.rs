//! Batch normalisation with fixed statistics.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Norm};
use crate::ir::op::{Arg, Case, Declared, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::binary::unbroadcast;
use crate::ir::ops::norm::eps_of;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` per channel, with statistics given.
    ///
    /// `x` is `[N, C, ...]` of rank 3 or more, the other inputs `[C]`. In single precision, rounded once.
    /// In Python, `af.batch_norm(x, gamma, beta, mean, variance)`.
    pub struct BatchNorm = "batch_norm"("x", "gamma", "beta", "mean", "variance") {
        /// Added to the variance; rounded to half precision, to 2^-24 at least.
        eps: Real = Real(1e-5),
    }
}

impl Operator for BatchNorm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.eps.check()?;
        for ty in x {
            half_only(ty)?;
        }
        let shape = x[0].shape;
        if shape.rank() < 3 {
            return Err(format!("x must be [N, C, ...] of rank 3 or more, got {shape}"));
        }
        for (ty, input) in x[1..].iter().zip(&Self::INFO.inputs[1..]) {
            if ty.shape.dims() != [shape[1]] {
                return Err(format!("{input} must be [{}], got {}", shape[1], ty.shape));
            }
        }
        Ok(x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Normalise(Norm::Given { eps: self.eps.0 })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (channels, stride) = (out.shape[1], out.shape.strides()[1]);
        let eps = eps_of(self.eps, p);
        Array::from_fn(out.shape, |i| {
            let at = |input: usize| x[input].data[i / stride % channels];
            p.store(match p {
                Precision::F64 => (x[0].data[i] - at(3)) * (at(1) / (at(4) + eps).sqrt()) + at(2),
                Precision::F16(_) => {
                    let [x, gamma, beta, mean, variance] =
                        [x[0].data[i], at(1), at(2), at(3), at(4)].map(|v| v as f32);
                    f64::from((x - mean) * (gamma / (variance + eps as f32).sqrt()) + beta)
                }
            })
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let rank = x[0].shape().rank();
        let mut dims = vec![1; rank];
        dims[1] = x[0].shape()[1] as i64;
        let wide = |v: &Var| v.reshape(&dims);
        let narrow = |v: Var, like: &Var| {
            let summed = unbroadcast(v, wide(like).shape());
            Grad::To(summed.reshape_to(like.shape()))
        };
        let root = wide(&x[4].rsqrt(self.eps.0));
        let unit = (&x[0] - wide(&x[3])) * &root;
        let dx = dy * wide(&x[1]) * &root;
        vec![
            Grad::To(dx.clone()),
            narrow(dy * &unit, &x[1]),
            narrow(dy.clone(), &x[2]),
            narrow(dx.muls(-1.0), &x[3]),
            narrow((dx * unit * root).muls(-0.5), &x[4]),
        ]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "batch_norm",
            args: &[
                ("beta", Arg::In(2)),
                ("epsilon", Arg::Inline("eps", Lit::Fp16)),
                ("gamma", Arg::In(1)),
                ("mean", Arg::In(3)),
                ("variance", Arg::In(4)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize]| {
            let c: &[usize] = &[x[1]];
            Case::new(BatchNorm { eps: Real(1e-5) }, &[x, c, c, c, c], (0.5, 2.0), Tolerance::SUM)
                .constants_from(1)
        };
        vec![on(&[1, 4, 3, 5]), on(&[2, 3, 4]), on(&[1, 2, 2, 1, 3])]
    }
}

impl Var {
    /// Normalises each channel with fixed statistics, then scales and shifts it.
    #[track_caller]
    pub fn batch_norm(&self, gamma: &Var, beta: &Var, mean: &Var, variance: &Var, eps: f64) -> Var {
        Var::apply(BatchNorm { eps: Real(eps) }, &[self, gamma, beta, mean, variance])
    }
}
