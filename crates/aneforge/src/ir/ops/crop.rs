//! The inner part of an image.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::zero_pad;
use crate::ir::ops::slice::window;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// An image without some of its rows and columns.
    ///
    /// `x` is `[N, C, H, W]`; the result is `[N, C, H - top - bottom, W - left - right]`. On A13 and A14
    /// cutting columns on the left has the limit of a slice with an offset on the last axis.
    /// In Python, `af.crop(x, top=1, bottom=2, left=2, right=1)`.
    pub struct Crop = "crop"("x") {
        /// Rows cut off: top, bottom.
        crop_height: [i64; 2],
        /// Columns cut off: left, right.
        crop_width: [i64; 2],
    }
}

impl Crop {
    /// Where the part starts.
    pub(crate) fn begin(&self) -> [usize; 4] {
        [0, 0, self.crop_height[0] as usize, self.crop_width[0] as usize]
    }
}

impl Operator for Crop {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let mut shape = x[0].shape;
        if shape.rank() != 4 {
            return Err(format!("x must be [N, C, H, W], got {shape}"));
        }
        for (axis, cut) in [(2, self.crop_height), (3, self.crop_width)] {
            if cut.iter().any(|&c| c < 0) {
                return Err(format!("{cut:?} of axis {axis} must not be negative; pad with concat"));
            }
            let left = shape[axis] as i64 - cut[0].saturating_add(cut[1]);
            if left < 1 {
                return Err(format!(
                    "cutting {} and {} of axis {axis} leaves nothing of {shape}",
                    cut[0], cut[1]
                ));
            }
            shape = shape.with(axis, left as usize);
        }
        Ok(TensorType::f16(shape))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Slice { begin: self.begin().into(), clamped: true })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        window(x[0], out.shape, &self.begin(), p)
    }
    fn vjp(&self, _: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let ([top, bottom], [left, right]) = (self.crop_height, self.crop_width);
        vec![Grad::To(zero_pad(dy, [top, bottom, left, right]))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "crop",
            args: &[
                ("crop_height", Arg::Named("crop_height", Lit::Ints)),
                ("crop_width", Arg::Named("crop_width", Lit::Ints)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], crop_height: [i64; 2], crop_width: [i64; 2]| {
            Case::new(Crop { crop_height, crop_width }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[1, 3, 5, 6], [1, 2], [2, 1]),
            on(&[2, 2, 4, 3], [0, 3], [0, 0]),
            on(&[1, 1, 3, 5], [0, 0], [3, 1]),
        ]
    }
}

impl Var {
    /// Without this many rows at the top and bottom, and columns at the left and right.
    #[track_caller]
    pub fn crop(&self, top: usize, bottom: usize, left: usize, right: usize) -> Var {
        let [crop_height, crop_width] = [[top, bottom], [left, right]].map(|cut| cut.map(|c| c as i64));
        Var::apply(Crop { crop_height, crop_width }, &[self])
    }
}
