//! A rectifier with a slope per channel.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::binary::unbroadcast;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Weight};

op! {
    /// `x` where it is positive, else `alpha * x` with the slope of its channel.
    ///
    /// `x` is `[N, C, ...]` of rank 3 or more, `alpha` `[C]`. The product is rounded once.
    /// In Python, `x.prelu(alpha)`.
    pub struct Prelu = "prelu"("x", "alpha") {}
}

/// Checks that `x` is `[N, C, ...]` of at least `rank` axes, and that each parameter is `[C]`.
pub(crate) fn channelwise(x: &[TensorType], rank: usize, names: &[&str]) -> Result<(), String> {
    for ty in x {
        half_only(ty)?;
    }
    let shape = x[0].shape;
    if shape.rank() < rank {
        return Err(format!("x must be [N, C, ...] of rank {rank} or more, got {shape}"));
    }
    for (ty, name) in x[1..].iter().zip(names) {
        if ty.shape.dims() != [shape[1]] {
            return Err(format!("{name} must be [{}], one per channel of x, got {}", shape[1], ty.shape));
        }
    }
    Ok(())
}

/// A vector with one element per channel, shaped to meet `[N, C, ...]` of this rank.
pub(crate) fn along_channels(v: &Var, rank: usize) -> Var {
    let mut dims = vec![1; rank];
    dims[1] = v.shape().count() as i64;
    v.reshape(&dims)
}

/// The gradient of a bias: the cotangent's sum per channel.
pub(crate) fn bias_gradient(dy: &Var, bias: &Var) -> Grad {
    let channels = dy.shape()[1];
    let sums = unbroadcast(dy.clone(), Shape::new(&[1, channels, 1, 1]).expect("invariant: four axes"));
    Grad::To(if sums.shape() == bias.shape() { sums } else { sums.reshape_to(bias.shape()) })
}

impl Operator for Prelu {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        channelwise(x, 3, &["alpha"])?;
        Ok(x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Prelu
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (channels, inner) = (out.shape[1], out.shape.strides()[1]);
        Array::from_fn(out.shape, |i| match x[0].data[i] {
            v if v > 0.0 => v,
            v => p.store(x[1].data[i / inner % channels] * v),
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let slope = along_channels(&x[1], x[0].shape().rank());
        let positive = x[0].greater(&Var::from(0.0));
        let below = positive.select(&Var::from(0.0), &(dy * &x[0]));
        let alpha = unbroadcast(below, slope.shape()).reshape_to(x[1].shape());
        vec![Grad::To(positive.select(dy, &(dy * slope))), Grad::To(alpha)]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling { op: "prelu", args: &[("x", Arg::In(0)), ("alpha", Arg::In(1))] })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize]| {
            Case::new(Prelu {}, &[x, &[x[1]]], (-4.0, 4.0), Tolerance::ROUNDED).constants_from(1)
        };
        vec![on(&[1, 4, 3, 5]), on(&[2, 3, 4]), on(&[2, 2, 1, 3, 2]), on(&[3, 1, 1])]
    }
}

impl Var {
    /// A vector as `[1, C, 1, 1]`, the form in which biases are added; anything else as it is.
    pub(crate) fn per_channel(&self) -> Var {
        let wide =
            |vector: &Weight| vector.reshape(Shape::new(&[1, vector.shape().count(), 1, 1]).ok()?).ok();
        match (self.shape().rank(), self.data().and_then(wide)) {
            (1, Some(wide)) => Var::rebuilt_constant(wide, self.caller()),
            (1, None) => along_channels(self, 4),
            _ => self.clone(),
        }
    }

    /// `self` where it is positive, else `alpha * self`, with `alpha` `[C]` for `[N, C, ...]`.
    #[track_caller]
    pub fn prelu(&self, alpha: &Var) -> Var {
        Var::apply(Prelu {}, &[self, alpha])
    }
}
