//! Conversion of image bytes.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Fixed, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{DType, Shape, Tensor};

op! {
    /// As half precision. Bytes convert exactly.
    pub struct Cast = "cast"("x") {}
}

impl Operator for Cast {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        match x[0].dtype {
            DType::U8 | DType::F16 => Ok(TensorType::f16(x[0].shape)),
            other => Err(format!("cast takes uint8 or fp16, got {other}; use select on a bool")),
        }
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Cast
    }
    fn facts(&self, x: &[TensorType], _: &TensorType) -> Facts {
        let bytes = x[0].dtype != DType::F16;
        Facts { never_negative: bytes, whole: bytes, flat_in: bytes.into(), ..Facts::MOVED }
    }
    fn eval(&self, x: &[&Array], _: &TensorType, _: Precision) -> Array {
        x[0].clone()
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        match x[0].ty().dtype {
            DType::F16 => vec![Grad::To(dy.clone())],
            _ => vec![Grad::Zero("bytes are not differentiable")],
        }
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "cast",
            args: &[("dtype", Arg::NamedFixed(Fixed::Str("fp16"))), ("x", Arg::In(0))],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |dims: &[usize]| Case::new(Cast {}, &[dims], (0.0, 255.0), Tolerance::EXACT);
        vec![on(&[1, 3, 2, 4]).dtype(0, DType::U8), on(&[5]).dtype(0, DType::U8), on(&[2, 3])]
    }
}

impl Var {
    /// As half precision.
    #[track_caller]
    pub fn cast(&self) -> Var {
        Var::apply(Cast {}, &[self])
    }

    /// An image fed as bytes, converted and then scaled and shifted on the device: `x * scale + bias`.
    ///
    /// `scale` and `bias` have one value, or one per channel of `[N, C, H, W]`.
    #[track_caller]
    pub fn image_input(shape: Shape, scale: &[f32], bias: &[f32]) -> Var {
        let image = Var::input_of(TensorType { dtype: DType::U8, shape }).cast();
        let scaled = affine(&image, scale, 1.0, |x, k| x.muls(k), |x, k| x * k);
        affine(&scaled, bias, 0.0, |x, k| x.adds(k), |x, k| x + k)
    }
}

fn affine(
    x: &Var,
    values: &[f32],
    neutral: f32,
    scalar: fn(&Var, f64) -> Var,
    per_channel: fn(&Var, &Var) -> Var,
) -> Var {
    let shape = x.shape();
    match values {
        [one] if *one == neutral => x.clone(),
        [one] => scalar(x, f64::from(*one)),
        many if shape.rank() == 4 && shape[1] == many.len() => {
            let shape = Shape::new(&[1, many.len(), 1, 1]).expect("invariant: four axes");
            let tensor = Tensor::from_slice(shape, many).expect("invariant: one value per channel");
            per_channel(x, &Var::constant(tensor))
        }
        many => Var::poisoned(
            "image_input",
            format!(
                "scale and bias need 1 value or one per channel of [N, C, H, W]; got {} for {shape}",
                many.len()
            ),
        ),
    }
}
