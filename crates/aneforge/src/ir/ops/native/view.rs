//! Layers over values taken as one line of elements.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{of, result, row, written};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Constant, Layer, Symbol, Value};
use aneforge_mil::program::DType;
use aneforge_tensor::Shape;

op! {
    /// All elements of a value as one line, row by row.
    ///
    /// `x` is `[C, H, W]`; the result is `[C*H*W]`. Compiling writes it as `reshape`, which needs no cut, unless
    /// native layers are asked for.
    /// In Python, `af.flatten(x)`.
    pub struct Flatten = "flatten"("x") {}
}

op! {
    /// `size` elements of a value from `offset` on, counted row by row.
    ///
    /// `x` has any shape; the result is `[size]`.
    pub struct InputView = "input_view"("x") {
        /// The first element.
        offset: i64,
        /// How many.
        size: i64,
    }
}

op! {
    /// Two of four elements, from `start` on.
    ///
    /// The name is that of the engine's layer, which reads its start from an operand. Here that is a constant, the
    /// attribute `start`, which goes into a weight file: programs with other starts have the same text, but each is
    /// compiled. `x` has 4 elements; the result is `[2]`. Other sizes are not known to work on the engine; use
    /// `slice_by_size`. Needs A14 or newer.
    pub struct DynamicSlice = "dynamic_slice"("x") {
        /// The first element, 0 to 2.
        start: i64,
        /// How many; 2.
        size: i64 = 2,
    }
}

/// A part of a line of elements, cut as rows of a column: a slice with an offset on the last axis saturates on
/// older engines, and the layers do not.
fn part(x: &Var, offset: usize, size: usize) -> Var {
    x.reshape(&[-1, 1]).narrow(0, offset, offset + size).reshape(&[-1])
}

/// The cotangent of a line's part, with zeros where nothing was read.
fn embed(dy: &Var, like: &Var, offset: usize) -> Grad {
    let zeros = |n: usize| (n > 0).then(|| Var::full(Shape::new(&[n]).expect("invariant: one axis"), 0.0));
    let after = like.shape().count() - offset - dy.shape().count();
    let parts: Vec<Var> = [zeros(offset), Some(dy.clone()), zeros(after)].into_iter().flatten().collect();
    Grad::To(Var::concat(&parts.iter().collect::<Vec<_>>(), 0).reshape_to(like.shape()))
}

fn copy(x: &Array, offset: usize, out: &TensorType) -> Array {
    Array::from_fn(out.shape, |i| x.data[offset + i])
}

const RESHAPE: Decompose = |_, x| x[0].reshape(&[-1]);

impl Operator for Flatten {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        if x[0].shape.rank() != 3 {
            return Err(format!("x must be [C, H, W], got {}; use reshape for other ranks", x[0].shape));
        }
        of(&[x[0].shape.count()])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::View
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        written(self.clone(), RESHAPE, x, p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(dy.reshape_to(x[0].shape()))]
    }
    fn mil() -> Mil {
        let layer = |_: &Op, x: &[TensorType]| {
            let s = x[0].shape;
            let params = [("FlattenType", "NCHW".into()), ("Mode", "NCHW".into())];
            let x = Symbol::dense("x", [1, s[0], s[1], s[2]]);
            Layer::new("Flatten", params, [x], result(row(s.count())))
        };
        Mil::Native(Native { layer, written: Some(RESHAPE), route: |_, _| true })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize]| Case::new(Flatten {}, &[x], (-4.0, 4.0), Tolerance::EXACT);
        vec![on(&[2, 3, 4]), on(&[1, 1, 5])]
    }
}

impl Operator for InputView {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let n = x[0].shape.count() as i64;
        if self.offset < 0 || self.size < 1 || self.offset.saturating_add(self.size) > n {
            let (offset, size) = (self.offset, self.size);
            return Err(format!("{offset}..{offset}+{size} is outside the {n} elements of {}", x[0].shape));
        }
        of(&[self.size as usize])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Opaque("a window of a line of elements, which is a reshape and a slice")
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        copy(x[0], self.offset as usize, out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![embed(dy, &x[0], self.offset as usize)]
    }
    fn mil() -> Mil {
        const WRITE: Decompose = |op, x| {
            let Op::InputView(view) = op else { unreachable!("called on its own op") };
            part(&x[0], view.offset as usize, view.size as usize)
        };
        let layer = |op: &Op, x: &[TensorType]| {
            let Op::InputView(InputView { offset, size }) = op else { unreachable!("called on its own op") };
            let params =
                [("Dimension", "Width".into()), ("Offset", (*offset).into()), ("Size", (*size).into())];
            let x = Symbol::dense("x", row(x[0].shape.count()));
            Layer { unit_channels: None, ..Layer::new("InputView", params, [x], result(row(*size as usize))) }
        };
        Mil::Native(Native { layer, written: Some(WRITE), route: |_, _| false })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], offset, size| {
            Case::new(InputView { offset, size }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[12], 3, 5), on(&[2, 6], 0, 4), on(&[3, 2, 2], 7, 5)]
    }
}

impl Operator for DynamicSlice {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        if x[0].shape.count() != 4 || self.size != 2 {
            return Err(format!(
                "is known to work for 2 of 4 elements only, got {} of {}; use slice_by_size",
                self.size, x[0].shape
            ));
        }
        if !(0..=2).contains(&self.start) {
            return Err(format!("start must be from 0 to 2, got {}", self.start));
        }
        of(&[2])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Opaque("a window of a line of elements, which is a reshape and a slice")
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        copy(x[0], self.start as usize, out)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![embed(dy, &x[0], self.start as usize)]
    }
    fn mil() -> Mil {
        const WRITE: Decompose = |op, x| {
            let Op::DynamicSlice(slice) = op else { unreachable!("called on its own op") };
            part(&x[0], slice.start as usize, slice.size as usize)
        };
        let layer = |op: &Op, _: &[TensorType]| {
            let Op::DynamicSlice(slice) = op else { unreachable!("called on its own op") };
            let width = |key, value| vec![Value::dict([("Coordinate", "Width".into()), (key, value)])].into();
            let params = [
                ("BackgroundValue", Value::Real(0.0)),
                ("CoordinateMode", "NonNormalized".into()),
                ("DynamicSliceAxisOrder", Value::strings(["Width"])),
                ("CoordinateInfo", width("CoordinateMode", "NonNormalized".into())),
                ("DynamicSliceInfo", width("SliceSize", slice.size.into())),
                ("PaddingInfo", width("PaddingMode", "Background".into())),
            ];
            let layer = Layer::new("DynamicSlice", params, [Symbol::dense("x", row(4))], result(row(2)));
            let bytes = (slice.start as u16).to_le_bytes();
            let idx = Constant { name: "idx", operand: 1, dtype: DType::Uint16, bytes };
            Layer { unit_channels: None, constant: Some(idx), ..layer }
        };
        Mil::Native(Native { layer, written: Some(WRITE), route: |_, _| false })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], start| {
            Case::new(DynamicSlice { start, size: 2 }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![on(&[4], 0), on(&[4], 1), on(&[2, 2], 2)]
    }
}

impl Var {
    /// `[C, H, W]` as one line of elements, by the engine's own layer where it is asked for.
    #[track_caller]
    pub fn flatten(&self) -> Var {
        Var::apply(Flatten {}, &[self])
    }

    /// `size` elements from `offset` on, counted row by row.
    #[track_caller]
    pub fn input_view(&self, offset: usize, size: usize) -> Var {
        Var::apply(InputView { offset: offset as i64, size: size as i64 }, &[self])
    }

    /// Two of four elements, from `start` on.
    #[track_caller]
    pub fn dynamic_slice(&self, start: usize) -> Var {
        Var::apply(DynamicSlice { start: start as i64, size: 2 }, &[self])
    }
}
