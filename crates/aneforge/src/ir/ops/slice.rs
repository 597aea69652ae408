//! Parts of a tensor.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::Shape;

op! {
    /// The window of `size` that starts at `begin`.
    pub struct SliceBySize = "slice_by_size"("x") {
        /// The first element, per axis.
        begin: Vec<i64>,
        /// Extents of the window.
        size: Vec<i64>,
    }
}

op! {
    /// Part `index` of `num_splits` equal parts along one axis. Parts of the same value are emitted as one
    /// statement.
    /// In Python, `af.split(x, 2, axis=0)[1]`.
    pub struct Split = "split"("x") {
        /// Into how many parts.
        num_splits: i64,
        /// The axis that is cut.
        axis: i64 as axes = 0,
        /// Which part this is.
        index: i64 = 0,
    }
}

/// Puts `dy` into a zero tensor of `shape` at `begin`.
fn embed(dy: &Var, shape: Shape, begin: &[usize]) -> Var {
    let mut out = dy.clone();
    for (axis, &begin) in begin.iter().enumerate() {
        let (before, after) = (begin, shape[axis] - begin - out.shape()[axis]);
        let zeros = |n: usize| (n > 0).then(|| Var::full(out.shape().with(axis, n), 0.0));
        let parts = [zeros(before), Some(out.clone()), zeros(after)];
        let parts: Vec<&Var> = parts.iter().flatten().collect();
        if parts.len() > 1 {
            out = Var::concat(&parts, axis as i64);
        }
    }
    out
}

/// Copies the window at `begin`. One that starts past zero on the last axis saturates on older engines.
pub(crate) fn window(x: &Array, out: Shape, begin: &[usize], p: Precision) -> Array {
    let limit = match p {
        Precision::F16(numerics) if begin.last().is_some_and(|&b| b > 0) => numerics.offset_slice_limit(),
        _ => f64::INFINITY,
    };
    copied(x, out, begin, |v| if v.abs() > limit { f64::INFINITY.copysign(v) } else { v })
}

fn copied(x: &Array, out: Shape, begin: &[usize], store: impl Fn(f64) -> f64) -> Array {
    let (from, to) = (x.shape.strides(), out.strides());
    Array::from_fn(out, |i| {
        let at: usize = (0..out.rank()).map(|a| (i / to[a] % out[a] + begin[a]) * from[a]).sum();
        store(x.data[at])
    })
}

impl SliceBySize {
    pub(crate) fn begin(&self) -> Vec<usize> {
        self.begin.iter().map(|&b| b as usize).collect()
    }
}

impl Operator for SliceBySize {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let shape = x[0].shape;
        if self.begin.len() != shape.rank() || self.size.len() != shape.rank() {
            return Err(format!(
                "begin {:?} and size {:?} need one entry per axis of {shape}",
                self.begin, self.size
            ));
        }
        let mut extents = Vec::new();
        for (axis, (&begin, &size)) in self.begin.iter().zip(&self.size).enumerate() {
            if begin < 0 || size < 1 || begin.saturating_add(size) > shape[axis] as i64 {
                return Err(format!("{begin}..{begin}+{size} is outside axis {axis} of {shape}"));
            }
            extents.push(size as usize);
        }
        Ok(TensorType::f16(Shape::new(&extents).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Slice { begin: self.begin(), clamped: true })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        window(x[0], out.shape, &self.begin(), p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(embed(dy, x[0].shape(), &self.begin()))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "slice_by_size",
            args: &[
                ("begin", Arg::Named("begin", Lit::Ints)),
                ("size", Arg::Named("size", Lit::Ints)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], begin: &[i64], size: &[i64]| {
            let op = SliceBySize { begin: begin.to_vec(), size: size.to_vec() };
            Case::new(op, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[4, 6], &[1, 2], &[2, 3]),
            on(&[1, 5, 3, 4], &[0, 2, 0, 0], &[1, 3, 3, 4]),
            on(&[7], &[6], &[1]),
            on(&[2, 3, 2, 2, 4], &[1, 0, 1, 0, 2], &[1, 2, 1, 2, 2]),
        ]
    }
}

impl Split {
    /// Where this part starts in a tensor of this shape.
    pub(crate) fn begin(&self, x: Shape) -> Vec<usize> {
        let axis = x.axis(self.axis).expect("invariant: inferred");
        let mut begin = vec![0; x.rank()];
        begin[axis] = x[axis] / self.num_splits as usize * self.index as usize;
        begin
    }
}

impl Operator for Split {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        let axis = x[0].shape.axis(self.axis).map_err(|e| e.to_string())?;
        let (n, size) = (self.num_splits, x[0].shape[axis]);
        if n < 1 || size as i64 % n != 0 {
            return Err(format!("axis {axis} of {} does not divide into {n} equal parts", x[0].shape));
        }
        if !(0..n).contains(&self.index) {
            return Err(format!("part {} of {n} does not exist", self.index));
        }
        Ok(TensorType::f16(x[0].shape.with(axis, size / n as usize)))
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        Form::Move(Move::Slice { begin: self.begin(x[0].shape), clamped: false })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        copied(x[0], out.shape, &self.begin(x[0].shape), |v| v)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(embed(dy, x[0].shape(), &self.begin(x[0].shape())))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "split",
            args: &[
                ("axis", Arg::Named("axis", Lit::Int32)),
                ("num_splits", Arg::Named("num_splits", Lit::Int32)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], num_splits, axis, index| {
            Case::new(Split { num_splits, axis, index }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[4, 6], 2, 0, 1),
            on(&[1, 6, 2, 3], 3, 1, 0),
            on(&[5], 5, 0, 3),
            on(&[1, 2, 1, 2, 4], 2, 4, 1),
        ]
    }
}

impl Var {
    /// The window of `size` that starts at `begin`.
    #[track_caller]
    pub fn slice_by_size(&self, begin: &[usize], size: &[usize]) -> Var {
        let wide = |v: &[usize]| v.iter().map(|&x| x as i64).collect();
        Var::apply(SliceBySize { begin: wide(begin), size: wide(size) }, &[self])
    }

    /// `n` equal parts along `axis`.
    #[track_caller]
    pub fn split(&self, n: usize, axis: i64) -> Vec<Var> {
        let axis = self.shape().axis(axis).map_or(axis, |at| at as i64);
        let part = |index: usize| {
            let num_splits = i64::try_from(n).unwrap_or(i64::MAX);
            Var::apply(Split { num_splits, axis, index: index as i64 }, &[self])
        };
        let first = part(0);
        match first.check() {
            Ok(_) => std::iter::once(first).chain((1..n).map(part)).collect(),
            // As many as were asked for, unless no axis has so many.
            Err(_) => vec![first; n.clamp(1, 1 << 16)],
        }
    }

    /// Elements `start..end` along one axis.
    #[track_caller]
    pub fn narrow(&self, axis: usize, start: usize, end: usize) -> Var {
        let mut begin = vec![0; self.shape().rank()];
        let mut size = self.shape().dims().to_vec();
        if axis < begin.len() {
            begin[axis] = start;
            size[axis] = end.saturating_sub(start);
        }
        self.slice_by_size(&begin, &size)
    }

    /// The elements at these static places along one axis, as slices put together.
    #[track_caller]
    pub fn gather(&self, indices: &[usize], axis: i64) -> Var {
        let at = match self.shape().axis(axis) {
            Ok(at) => at,
            Err(e) => return Var::poisoned("gather", e.to_string()),
        };
        let (rank, size) = (self.shape().rank(), self.shape()[at]);
        if indices.is_empty() {
            return Var::poisoned("gather", "indices are empty; name at least one element");
        }
        if let Some(&index) = indices.iter().find(|&&i| i >= size) {
            return Var::poisoned(
                "gather",
                format!("index {index} is outside axis {at} of {}", self.shape()),
            );
        }
        // A slice with an offset on the last axis saturates on older engines, so another axis is cut.
        if at == rank - 1 {
            return match rank {
                1 => self.reshape(&[size as i64, 1]).gather(indices, 0).reshape(&[indices.len() as i64]),
                _ => self.swap_last().gather(indices, rank as i64 - 2).swap_last(),
            };
        }
        let mut parts = Vec::new();
        for &index in indices {
            parts.push(self.narrow(at, index, index + 1));
        }
        if parts.len() == 1 {
            parts.remove(0)
        } else {
            Var::concat(&parts.iter().collect::<Vec<_>>(), at as i64)
        }
    }
}
