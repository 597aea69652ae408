//! Comparisons of two inputs, which broadcast: a row each. Their result is consumed by `select` and
//! `logical_not` only.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::binary::{broadcast_type, source};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::map::Compare;

macro_rules! compare {
    ($( $(#[doc = $doc:literal])* $Op:ident $name:literal $method:ident; $holds:expr; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x", "y") {} }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                Ok(TensorType::bool(broadcast_type(x)?.shape))
            }
            fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
                Form::Compare(Compare::$Op)
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts::TRUTH
            }
            fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
                let holds: fn(&f64, &f64) -> bool = $holds;
                Array::from_fn(out.shape, |i| {
                    let a = &x[0].data[source(x[0].shape, out.shape, i)];
                    let b = &x[1].data[source(x[1].shape, out.shape, i)];
                    f64::from(u8::from(holds(a, b)))
                })
            }
            fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
                vec![Grad::Zero("truth values have no gradient"), Grad::Zero("truth values have no gradient")]
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling { op: $name, args: &[("x", Arg::In(0)), ("y", Arg::In(1))] })
            }
            fn cases() -> Vec<Case> {
                let on = |shapes: &[&[usize]]| Case::new($Op {}, shapes, (-1.0, 1.0), Tolerance::EXACT);
                vec![on(&[&[2, 3], &[2, 3]]), on(&[&[2, 3], &[]]).constants_from(1), on(&[&[2, 1, 3], &[4, 1]])]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, other: &Var) -> Var { Var::apply($Op {}, &[self, other]) }
        }
    )* };
}

compare! {
    /// Whether `x > y`, for each element.
    /// In Python, `af.select(x.greater(y), x, y)`.
    Greater "greater" greater; f64::gt;
    /// Whether `x < y`, for each element.
    /// In Python, `af.select(x.less(y), x, y)`.
    Less "less" less; f64::lt;
    /// Whether `x == y`, for each element.
    /// In Python, `af.select(x.equal(y), x, y)`.
    Equal "equal" equal; f64::eq;
    /// Whether `x != y`, for each element.
    /// In Python, `af.select(x.not_equal(y), x, y)`.
    NotEqual "not_equal" not_equal; f64::ne;
    /// Whether `x <= y`, for each element.
    /// In Python, `af.select(x.less_equal(y), x, y)`.
    LessEqual "less_equal" less_equal; f64::le;
    /// Whether `x >= y`, for each element.
    /// In Python, `af.select(x.greater_equal(y), x, y)`.
    GreaterEqual "greater_equal" greater_equal; f64::ge;
}
