//! Matrix products: with a weight, and of two values.

use crate::ir::form::{Facts, Form, Product};
use crate::ir::op::{Arg, Case, Fixed, Grad, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::binary::{source, unbroadcast};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Weight};

op! {
    /// `x @ weight^T (+ bias)`: a linear layer.
    ///
    /// `x` is `[..., K]`, `weight` `[N, K]`, `bias` `[N]` or `[1, N]`; the result is `[..., N]`. Products
    /// are summed in single precision in blocks of 32, even and odd places apart, and rounded once; the
    /// bias is added to the rounded product and rounded again.
    /// In Python, `x.linear(weight)`.
    pub struct Matmul = "matmul"("x", "weight" as "wt", "bias?") {}
}

impl Operator for Matmul {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        for ty in x {
            half_only(ty)?;
        }
        let (a, w) = (x[0].shape, x[1].shape);
        if w.rank() != 2 || a.rank() == 0 {
            return Err(format!("weight must be [N, K] and x [..., K], got {w} and {a}"));
        }
        let (k, n) = (a[a.rank() - 1], w[0]);
        if w[1] != k {
            return Err(format!("inner sizes differ, {k} and {}; x is {a}, weight {w} (as [N, K])", w[1]));
        }
        if let Some(bias) = x.get(2)
            && (bias.shape.count() != n || bias.shape.rank() == 0 || bias.shape[bias.shape.rank() - 1] != n)
        {
            return Err(format!("bias must have {n} elements on its last axis, got {}", bias.shape));
        }
        Ok(TensorType::f16(a.with(a.rank() - 1, n)))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Product(Product::Linear)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        let terms = x[1].shape[1];
        Facts { flops: 2.0 * out.shape.count() as f64 * terms as f64, ..Facts::WEIGHTED }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (k, n) = (x[1].shape[1], x[1].shape[0]);
        Array::from_fn(out.shape, |i| {
            let (row, column) = (i / n, i % n);
            let mut dot = p.dot();
            for j in 0..k {
                dot.push(x[0].data[row * k + j], x[1].data[column * k + j]);
            }
            let product = p.store_product(dot.total());
            x.get(2).map_or(product, |bias| p.store(product + bias.data[column]))
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let flat = |v: &Var| {
            let columns = v.shape()[v.shape().rank() - 1];
            v.reshape(&[(v.shape().count() / columns) as i64, columns as i64])
        };
        let weight = flat(dy).transpose(&[1, 0]).matmul_value(&flat(&x[0]));
        let mut grads =
            vec![Grad::To(Var::apply(Matmul {}, &[dy, &x[1].transpose(&[1, 0])])), Grad::To(weight)];
        grads.extend(x.get(2).map(|bias| Grad::To(unbroadcast(dy.clone(), bias.shape()))));
        grads
    }
    fn mil() -> Mil {
        const SPELLING: Spelling = Spelling {
            op: "matmul",
            args: &[
                ("transpose_x", Arg::InlineFixed(Fixed::Bool(false))),
                ("transpose_y", Arg::InlineFixed(Fixed::Bool(true))),
                ("x", Arg::In(0)),
                ("y", Arg::In(1)),
            ],
        };
        Mil::StmtWith(SPELLING, 2, |_, x| {
            let product = Var::apply(Matmul {}, &[&x[0], &x[1]]);
            let bias =
                if product.shape().rank() == 1 { x[2].reshape_to(product.shape()) } else { x[2].clone() };
            product + bias
        })
    }
    fn cases() -> Vec<Case> {
        let on = |shapes: &[&[usize]]| {
            Case::new(
                Matmul {},
                shapes,
                (-1.0, 1.0),
                if shapes.len() > 2 { Tolerance::BIASED } else { Tolerance::SUM },
            )
            .constants_from(1)
        };
        vec![
            on(&[&[2, 7], &[3, 7]]),
            on(&[&[3, 40], &[5, 40], &[1, 5]]),
            on(&[&[2, 3, 70], &[4, 70], &[4]]),
            on(&[&[5], &[3, 5], &[3]]),
            on(&[&[1, 2, 1, 2, 33], &[1, 33]]),
        ]
    }
}

op! {
    /// The matrix product of two values over their last two axes.
    ///
    /// `x` is `[..., M, K]`, `y` `[..., K, N]`; leading axes broadcast. Products are summed in single
    /// precision in blocks of 32, even and odd places apart, and rounded once.
    /// In Python, `x @ y`.
    pub struct Bmm = "bmm"("x", "y") {}
}

impl Operator for Bmm {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        let (a, b) = (x[0].shape, x[1].shape);
        if a.rank() < 2 || b.rank() < 2 {
            return Err(format!("both operands need at least two axes, got {a} and {b}"));
        }
        let (k, inner) = (a[a.rank() - 1], b[b.rank() - 2]);
        if k != inner {
            return Err(format!("inner sizes differ, {k} and {inner}; x is {a}, y {b}"));
        }
        let batch = lead(a).broadcast(lead(b)).map_err(|e| format!("batch axes: {e}"))?;
        let dims = [batch.dims(), &[a[a.rank() - 2], b[b.rank() - 1]]].concat();
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Product(Product::Batched)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        let terms = x[0].shape[x[0].shape.rank() - 1];
        Facts { flops: 2.0 * out.shape.count() as f64 * terms as f64, ..Facts::ANY }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (a, b, batch) = (x[0].shape, x[1].shape, lead(out.shape));
        let (m, k, n) = (a[a.rank() - 2], a[a.rank() - 1], b[b.rank() - 1]);
        Array::from_fn(out.shape, |i| {
            let (at, row, column) = (i / (m * n), i / n % m, i % n);
            let left = source(lead(a), batch, at) * m * k + row * k;
            let right = source(lead(b), batch, at) * k * n + column;
            let mut dot = p.dot();
            for j in 0..k {
                dot.push(x[0].data[left + j], x[1].data[right + j * n]);
            }
            p.store_product(dot.total())
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let left = dy.matmul_value(&x[1].swap_last());
        let right = x[0].swap_last().matmul_value(dy);
        vec![Grad::To(unbroadcast(left, x[0].shape())), Grad::To(unbroadcast(right, x[1].shape()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "matmul",
            args: &[
                ("transpose_x", Arg::InlineFixed(Fixed::Bool(false))),
                ("transpose_y", Arg::InlineFixed(Fixed::Bool(false))),
                ("x", Arg::In(0)),
                ("y", Arg::In(1)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |a: &[usize], b: &[usize]| Case::new(Bmm {}, &[a, b], (-1.0, 1.0), Tolerance::SUM);
        vec![
            on(&[2, 7], &[7, 3]),
            on(&[2, 3, 40], &[2, 40, 5]),
            on(&[2, 1, 3, 4], &[3, 4, 2]),
            on(&[1, 33], &[2, 33, 1]),
            on(&[2, 1, 2, 1, 3], &[2, 1, 3, 2]),
            on(&[2, 3, 3], &[2, 3, 3]),
        ]
    }
}

/// All but the last two axes.
pub(crate) fn lead(shape: Shape) -> Shape {
    Shape::new(&shape.dims()[..shape.rank() - 2]).expect("invariant: part of a valid shape")
}

impl Var {
    /// `self @ y` for two values.
    #[track_caller]
    pub fn matmul_value(&self, y: &Var) -> Var {
        Var::apply(Bmm {}, &[self, y])
    }

    /// `self @ weight^T (+ bias)` with `weight` `[N, K]` and `bias` `[N]`.
    #[track_caller]
    pub fn linear(&self, weight: &Var, bias: Option<&Var>) -> Var {
        match bias {
            None => Var::apply(Matmul {}, &[self, weight]),
            Some(bias) => Var::apply(Matmul {}, &[self, weight, &bias.row()]),
        }
    }

    /// A constant vector as a row `[1, N]`, the form in which biases are stored; anything else as it is.
    fn row(&self) -> Var {
        let as_row = |vector: &Weight| {
            let shape = Shape::new(&[1, vector.shape().count()]).ok()?;
            vector.reshape(shape).ok()
        };
        let row = self.data().filter(|vector| vector.shape().rank() == 1).and_then(as_row);
        row.map_or_else(|| self.clone(), |row| Var::rebuilt_constant(row, self.caller()))
    }

    /// The last two axes exchanged.
    #[track_caller]
    pub fn swap_last(&self) -> Var {
        let rank = self.shape().rank() as i64;
        let mut perm: Vec<i64> = (0..rank).collect();
        if rank >= 2 {
            perm.swap(rank as usize - 1, rank as usize - 2);
        }
        self.transpose(&perm)
    }
}
