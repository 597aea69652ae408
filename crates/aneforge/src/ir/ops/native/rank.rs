//! Ranking the elements of rows.
//!
//! Places are stored as half-precision numbers, which count to 2048, so longer rows are refused. The engine's
//! order of equal elements is not documented; here the first comes first. NaN ranks behind every number.

use crate::ir::form::{Facts, Form, Layer as Kernel};
use crate::ir::op::{Case, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{matrix, of, result, row};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::layers::Ranking;
use aneforge_mil::netplist::{Layer, Symbol, Value};
use std::cmp::Ordering;

op! {
    /// The place of the greatest element of each row or column, as a number.
    ///
    /// `x` is `[C, W]`; the result is `[C, 1]` for axis 1 and `[1, W]` for axis 0. Of equal elements the first
    /// counts. At most 2049 elements are searched: places are half-precision numbers, exact up to 2048.
    pub struct Argmax = "argmax"("x") {
        /// The axis searched; negative counts from the last.
        axis: i64 as axes = -1,
    }
}

op! {
    /// The `k` greatest (or least) elements of each row, best first.
    ///
    /// `x` is `[C, W]`; the result is `[C, k]`. The engine's compiler fails for `k` of 3 and 4, so they are
    /// refused. Needs A14 or newer.
    pub struct Topk = "topk"("x") {
        /// How many elements.
        k: i64,
        /// Whether the greatest are wanted, rather than the least.
        largest: bool = true,
    }
}

op! {
    /// The elements of each row in order, or their places.
    ///
    /// `x` is `[C, W]`, and so is the result. Equal elements keep their order. Places are half-precision numbers,
    /// exact up to 2048, so they are given of at most 2049 elements. Needs A14 or newer.
    pub struct Sort = "sort"("x") {
        /// Whether the greatest comes first.
        descending: bool = false,
        /// Whether places in the row are wanted, rather than elements.
        return_indices: bool = false,
    }
}

/// `a` before `b` in falling order, NaN last.
fn falling(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.partial_cmp(&a).expect("invariant: neither is NaN"),
        (nan_a, nan_b) => nan_a.cmp(&nan_b),
    }
}

/// `a` before `b` in rising order, NaN last.
fn rising(a: f64, b: f64) -> Ordering {
    if a.is_nan() || b.is_nan() { falling(a, b) } else { falling(b, a) }
}

/// Places of a row's elements, best first.
fn ranked(row: &[f64], descending: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    let compare = if descending { falling } else { rising };
    order.sort_by(|&a, &b| compare(row[a], row[b]));
    order
}

/// Sends each result's cotangent to the elements of its row that equal it, in equal shares.
fn to_equals(x: &Var, y: &Var, dy: &Var) -> Var {
    let same = x.expand_dims(&[1]).equal(&y.expand_dims(&[2]));
    let hit = same.select(&Var::from(1.0), &Var::from(0.0));
    let share = &hit / hit.sum(&[2]);
    dy.expand_dims(&[1]).matmul_value(&share).squeeze(&[1])
}

/// The most elements whose places half precision tells apart: 0 to 2048.
pub const MOST_PLACES: usize = 2049;

fn numbered(n: usize) -> Result<(), String> {
    let parts = "take those of parts of at most 2049 elements, and the parts' greatest elements with amax";
    let why = || format!("places among {n} elements exceed 2048, up to which half precision counts; {parts}");
    (n <= MOST_PLACES).then_some(()).ok_or_else(why)
}

const PLACES: &str = "places of elements do not vary with their values";

impl Operator for Argmax {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let [rows, columns] = matrix("x", &x[0])?;
        match x[0].shape.axis(self.axis).map_err(|e| e.to_string())? {
            0 => numbered(rows).and_then(|()| of(&[1, columns])),
            _ => numbered(columns).and_then(|()| of(&[rows, 1])),
        }
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let (rows, columns) = (x[0].shape[0], x[0].shape[1]);
        Form::Layer(match x[0].shape.axis(self.axis) {
            // One column of several rows is as contiguous as one row.
            Ok(0) => Kernel::Argmax { n: rows, step: columns },
            _ => Kernel::Argmax { n: columns, step: 1 },
        })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { stays_finite: false, flat_in: 1, ..Facts::TRUTH }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let columns = x[0].shape[1];
        let along = x[0].shape.axis(self.axis).expect("invariant: inferred");
        Array::from_fn(out.shape, |i| {
            let (start, step, n) =
                if along == 0 { (i, columns, x[0].shape[0]) } else { (i * columns, 1, columns) };
            let at = |place: usize| x[0].data[start + place * step];
            let better =
                |best: usize, next: usize| if falling(at(next), at(best)).is_lt() { next } else { best };
            p.store((0..n).reduce(better).unwrap_or(0) as f64)
        })
    }
    fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
        vec![Grad::Zero(PLACES)]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::Argmax(argmax) = op else { unreachable!("called on its own op") };
            let (rows, columns) = (x[0].shape[0], x[0].shape[1]);
            let (dimension, extents) = match x[0].shape.axis(argmax.axis) {
                Ok(0) => ("Channel", row(columns)),
                _ => ("Width", [1, rows, 1, 1]),
            };
            let params = [("Type", "Max".into()), ("Dimension", dimension.into())];
            let x = Symbol::dense("x", [1, rows, 1, columns]);
            Layer { unit_channels: Some(rows), ..Layer::new("GlobalArgMinMax", params, [x], result(extents)) }
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], axis| Case::new(Argmax { axis }, &[x], (-4.0, 4.0), Tolerance::EXACT);
        vec![on(&[3, 9], 1), on(&[5, 4], 0), on(&[1, 40], -1)]
    }
}

/// Parameters of the layers that order a row along its width. More channels would all be permuted by the
/// first one's order, so rows run one by one.
fn keyed(first: (&'static str, Value)) -> Vec<(&'static str, Value)> {
    vec![
        first,
        ("SortDimension", "Width".into()),
        ("VectorDimension", "Channel".into()),
        ("SortIndices", vec![Value::Int(0)].into()),
    ]
}

fn per_row(kind: &'static str, params: Vec<(&'static str, Value)>, n: usize, out: usize) -> Layer {
    Layer { per_row: true, ..Layer::new(kind, params, [Symbol::dense("x", row(n))], result(row(out))) }
}

impl Operator for Topk {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let [rows, columns] = matrix("x", &x[0])?;
        let k = usize::try_from(self.k).unwrap_or(0);
        if !(1..=columns).contains(&k) {
            return Err(format!("k must be from 1 to the {columns} elements of a row, got {}", self.k));
        }
        if matches!(k, 3 | 4) {
            return Err(format!(
                "the engine's compiler fails for k = {k}; take k = 5, or sort, and slice the first {k}"
            ));
        }
        of(&[rows, k])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let ranking = Ranking { descending: self.largest, places: false };
        Form::Layer(Kernel::Rank { rows: x[0].shape[0], ranking })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
        let (columns, k) = (x[0].shape[1], self.k as usize);
        let best = |row: &[f64]| -> Vec<f64> {
            ranked(row, self.largest).into_iter().take(k).map(|at| row[at]).collect()
        };
        Array { shape: out.shape, data: x[0].data.chunks(columns).flat_map(best).collect() }
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        vec![Grad::To(to_equals(&x[0], y, dy))]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::Topk(Topk { k, largest }) = op else { unreachable!("called on its own op") };
            let mut params = keyed(("Type", if *largest { "Max" } else { "Min" }.into()));
            params.push(("K", (*k).into()));
            per_row("TopK", params, x[0].shape[1], *k as usize)
        }))
    }
    fn cases() -> Vec<Case> {
        let on =
            |x: &[usize], k, largest| Case::new(Topk { k, largest }, &[x], (-4.0, 4.0), Tolerance::EXACT);
        vec![on(&[2, 9], 5, true), on(&[3, 8], 2, false), on(&[1, 6], 1, true), on(&[2, 7], 7, true)]
    }
}

impl Operator for Sort {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let [_, columns] = matrix("x", &x[0])?;
        if self.return_indices {
            numbered(columns)?;
        }
        Ok(x[0])
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        let ranking = Ranking { descending: self.descending, places: self.return_indices };
        Form::Layer(Kernel::Rank { rows: x[0].shape[0], ranking })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        let places = self.return_indices;
        Facts { never_negative: places, whole: places, flat_in: places.into(), ..Facts::ANY }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let ordered = |row: &[f64]| -> Vec<f64> {
            let value = |at: usize| if self.return_indices { p.store(at as f64) } else { row[at] };
            ranked(row, self.descending).into_iter().map(value).collect()
        };
        Array { shape: out.shape, data: x[0].data.chunks(x[0].shape[1]).flat_map(ordered).collect() }
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        vec![if self.return_indices { Grad::Zero(PLACES) } else { Grad::To(to_equals(&x[0], y, dy)) }]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::Sort(sort) = op else { unreachable!("called on its own op") };
            let direction = if sort.descending { "Descending" } else { "Ascending" };
            let mut params = keyed(("Direction", direction.into()));
            if sort.return_indices {
                params.push(("Indices", true.into()));
            }
            let n = x[0].shape[1];
            per_row("Sort", params, n, n)
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], descending, return_indices| {
            Case::new(Sort { descending, return_indices }, &[x], (-4.0, 4.0), Tolerance::EXACT)
        };
        vec![
            on(&[2, 9], false, false),
            on(&[3, 6], true, false),
            on(&[2, 11], false, true),
            on(&[1, 8], true, true),
        ]
    }
}

impl Var {
    /// The place of the greatest element along one axis of a matrix.
    #[track_caller]
    pub fn argmax(&self, axis: i64) -> Var {
        let axis = self.shape().axis(axis).map_or(axis, |at| at as i64);
        Var::apply(Argmax { axis }, &[self])
    }

    /// The `k` greatest elements of each row of a matrix, or the least, best first.
    #[track_caller]
    pub fn topk(&self, k: usize, largest: bool) -> Var {
        Var::apply(Topk { k: k as i64, largest }, &[self])
    }

    /// The rows of a matrix in order, or the places of their elements.
    #[track_caller]
    pub fn sort(&self, descending: bool, return_indices: bool) -> Var {
        Var::apply(Sort { descending, return_indices }, &[self])
    }
}
