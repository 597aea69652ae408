//! Products with one constant matrix per batch or row.

use crate::ir::form::{Facts, Form, Product};
use crate::ir::op::{Arg, Case, Fixed, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::matmul::Bmm;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;

op! {
    /// The matrix product of each batch with a weight of its own.
    ///
    /// `x` is `[B, M, K]`, `weight` `[B, K, N]`; the result is `[B, M, N]`. Sums are those of `bmm`. The
    /// weight is part of the program and may be compressed, which a constant operand of `bmm` may not.
    /// In Python, `x.bmm_weight(weight)`.
    pub struct BmmW = "bmm_w"("x", "weight" as "wt") {}
}

op! {
    /// `nchw,nwhu->nchu`: for every image and row, the product of channels and columns with a matrix.
    ///
    /// `a` is `[N, C, H, W]`, the weight `b` `[N, W, H, U]`; the result is `[N, C, H, U]` with
    /// `y[n,c,h,u] = sum over w of a[n,c,h,w] * b[n,w,h,u]`. Products are summed in single precision in
    /// blocks of 32, even and odd places apart, and rounded once. The op is called what MIL calls it, whose
    /// `einsum` takes an equation; this is the only one that the engine is known to compute.
    /// In Python, `af.einsum_native("nchw,nwhu->nchu", a, b)`.
    pub struct RowProduct = "einsum"("a", "b") {}
}

impl Operator for BmmW {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        let (a, w) = (x[0].shape, x[1].shape);
        if a.rank() != 3 || w.rank() != 3 {
            return Err(format!("x must be [B, M, K] and weight [B, K, N], got {a} and {w}"));
        }
        if a[0] != w[0] || a[2] != w[1] {
            return Err(format!(
                "x {a} and weight {w} must share the batch, {} and {}, and the inner size, {} and {}",
                a[0], w[0], a[2], w[1]
            ));
        }
        Ok(TensorType::f16(a.with(2, w[2])))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Product(Product::Batched)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        Facts { weights_from: 1, ..Bmm {}.facts(x, out) }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        Bmm {}.eval(x, out, p)
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        Bmm {}.vjp(x, y, dy)
    }
    fn mil() -> Mil {
        Bmm::mil()
    }
    fn cases() -> Vec<Case> {
        let on = |a: &[usize], w: &[usize]| {
            Case::new(BmmW {}, &[a, w], (-1.0, 1.0), Tolerance::SUM).constants_from(1)
        };
        vec![
            on(&[2, 3, 40], &[2, 40, 5]),
            on(&[1, 4, 7], &[1, 7, 3]),
            on(&[3, 1, 33], &[3, 33, 1]),
            on(&[2, 3, 3], &[2, 3, 3]),
        ]
    }
}

impl Operator for RowProduct {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        let (a, b) = (x[0].shape, x[1].shape);
        if a.rank() != 4 || b.rank() != 4 {
            return Err(format!("a must be [N, C, H, W] and b [N, W, H, U], got {a} and {b}"));
        }
        if [a[0], a[3], a[2]] != [b[0], b[1], b[2]] {
            return Err(format!("b must be [{}, {}, {}, U] for a {a}, got {b}", a[0], a[3], a[2]));
        }
        Ok(TensorType::f16(a.with(3, b[3])))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::RowProduct
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        let terms = x[0].shape[3];
        Facts { flops: 2.0 * out.shape.count() as f64 * terms as f64, ..Facts::WEIGHTED }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let [_, c, h, u] = crate::ir::ops::conv::four(out.shape);
        let w = x[0].shape[3];
        Array::from_fn(out.shape, |i| {
            let (n, row, column) = (i / (c * h * u), i / u % h, i % u);
            let mut dot = p.dot();
            for k in 0..w {
                dot.push(x[0].data[i / u * w + k], x[1].data[((n * w + k) * h + row) * u + column]);
            }
            p.store_product(dot.total())
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let [a, b, dy] = [&x[0], &x[1], dy].map(|v| v.transpose(&[0, 2, 1, 3]));
        let left = dy.matmul_value(&b.swap_last()).transpose(&[0, 2, 1, 3]);
        let right = a.swap_last().matmul_value(&dy).transpose(&[0, 2, 1, 3]);
        vec![Grad::To(left), Grad::To(right)]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "einsum",
            args: &[("equation", Arg::NamedFixed(Fixed::Str(EQUATION))), ("values", Arg::All)],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |a: &[usize], u: usize| {
            let b = [a[0], a[3], a[2], u];
            Case::new(RowProduct {}, &[a, &b], (-1.0, 1.0), Tolerance::SUM).constants_from(1)
        };
        vec![on(&[1, 4, 3, 8], 5), on(&[2, 3, 2, 37], 2), on(&[1, 1, 1, 1], 3), on(&[1, 2, 2, 2], 2)]
    }
}

/// The one equation.
pub const EQUATION: &str = "nchw,nwhu->nchu";

impl RowProduct {
    /// The same product of two values, written with `bmm`.
    pub(crate) fn of_values(a: &Var, b: &Var) -> Var {
        let rows = |v: &Var| v.transpose(&[0, 2, 1, 3]);
        rows(&rows(a).matmul_value(&rows(b)))
    }
}

impl Var {
    /// `self @ weight` for `[B, M, K]` and a weight `[B, K, N]`.
    #[track_caller]
    pub fn bmm_weight(&self, weight: &Var) -> Var {
        Var::apply(BmmW {}, &[self, weight])
    }

    /// `nchw,nwhu->nchu` of `[N, C, H, W]` and a weight `[N, W, H, U]`.
    #[track_caller]
    pub fn row_product(&self, b: &Var) -> Var {
        Var::apply(RowProduct {}, &[self, b])
    }
}
