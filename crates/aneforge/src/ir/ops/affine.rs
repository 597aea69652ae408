//! Images seen through a linear map of their coordinates.

use crate::ir::form::{Facts, Form, Warp};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::four;
use crate::ir::ops::norm::{distinct, pulled_back};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Tensor};

op! {
    /// An image warped by an affine map, interpolated between the four nearest pixels.
    ///
    /// `x` is `[N, C, H, W]`, `transform` `[N, 6]` or `[1, 6]` with `a0, a1, a2, b0, b1, b2`; the result is
    /// `[N, C, output_h, output_w]`. Its pixel at `(u, v)`, across and down from -1 to 1, reads `x` at
    /// `(a0*u + a1*v + a2, b0*u + b1*v + b2)`; there are zeros around `x`. -1 and 1 are the image's edges, or
    /// with `align_corners` the centres of its corner pixels. Mixed in single precision, rounded once. Needs
    /// A14 or newer, and a constant `transform`. The gradient costs a product with `H*W` by
    /// `output_h*output_w` weights per image.
    /// In Python, `af.affine(x, transform, 3, 4)`.
    pub struct Affine = "affine"("x", "transform") {
        /// The height of the result.
        output_h: i64,
        /// The width of the result.
        output_w: i64,
        /// What -1 and 1 are.
        align_corners: bool = false,
    }
}

impl Affine {
    fn warp(&self, x: Shape) -> Warp {
        let [_, _, h, w] = four(x);
        let to = [self.output_h as usize, self.output_w as usize];
        Warp { from: [h, w], to, corners: self.align_corners }
    }
}

impl Warp {
    /// What each pixel of an axis gives to each place: `max(0, 1 - |place - pixel|)`, as `[N, n, places]`.
    fn tents(&self, axis: usize, [a, b, c]: [&Var; 3], grid: &[Var; 2]) -> Var {
        let ([slope, offset], n) = (self.pixels(axis), self.from[axis]);
        let place = (a * &grid[0] + b * &grid[1] + c).muls(slope).adds(offset);
        let pixels = vector(&[1, n, 1], (0..n).map(|i| i as f64));
        (place - pixels).abs().muls(-1.0).adds(1.0).relu()
    }
}

fn vector(dims: &[usize], values: impl Iterator<Item = f64>) -> Var {
    let shape = Shape::new(dims).expect("invariant: extents of valid shapes");
    Var::constant(Tensor::from_slice(shape, &values.collect::<Vec<_>>()).expect("invariant: one value each"))
}

impl Operator for Affine {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        let (a, t) = (x[0].shape, x[1].shape);
        if a.rank() != 4 || t.rank() != 2 || t[1] != 6 {
            return Err(format!("x must be [N, C, H, W] and transform [N, 6] or [1, 6], got {a} and {t}"));
        }
        if t[0] != 1 && t[0] != a[0] {
            return Err(format!("transform must be [{}, 6] or [1, 6] for x {a}, got {t}", a[0]));
        }
        let size = |n: i64| usize::try_from(n).ok().filter(|&n| n >= 1);
        let (Some(h), Some(w)) = (size(self.output_h), size(self.output_w)) else {
            return Err(format!("the result would be {} by {} pixels", self.output_h, self.output_w));
        };
        Ok(TensorType::f16(Shape::new(&[a[0], a[1], h, w]).map_err(|e| e.to_string())?))
    }
    fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
        Form::Warp(self.warp(x[0].shape))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::WEIGHTED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let ([_, _, h, w], [_, channels, ho, wo]) = (four(x[0].shape), four(out.shape));
        let warp = self.warp(x[0].shape);
        let single = |v: f64| if p == Precision::F64 { v } else { f64::from(v as f32) };
        Array::from_fn(out.shape, |i| {
            let image = if x[1].shape[0] == 1 { 0 } else { i / (channels * ho * wo) };
            let t = &x[1].data[image * 6..][..6];
            let (u, v) = (warp.coordinate(1, i % wo), warp.coordinate(0, i / wo % ho));
            let place = |t: &[f64], axis: usize| {
                let [slope, offset] = warp.pixels(axis);
                (t[0] * u + t[1] * v + t[2]) * slope + offset
            };
            let (column, row) = (place(&t[..3], 1), place(&t[3..], 0));
            let near = |place: f64, n: usize| {
                let pixels = [place.floor(), place.floor() + 1.0].into_iter();
                let inside = pixels.filter(move |k| (0.0..n as f64).contains(k));
                inside.map(move |k| (k as usize, 1.0 - (place - k).abs()))
            };
            let plane = &x[0].data[i / (ho * wo) * h * w..][..h * w];
            let mut sum = 0.0;
            for (y, down) in near(row, h) {
                for (z, across) in near(column, w) {
                    sum = single(sum + single(plane[y * w + z] * single(down * across)));
                }
            }
            p.store(sum)
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let leaves = distinct(x);
        pulled_back(&self.as_product(&leaves[0], &leaves[1]), dy, &leaves)
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "affine",
            args: &[
                ("align_corners", Arg::Named("align_corners", Lit::Bool)),
                ("coordinates_mode", Arg::NamedFixed(Fixed::Str("normalized_minus_one_to_one"))),
                ("output_height", Arg::Named("output_h", Lit::Int32)),
                ("output_width", Arg::Named("output_w", Lit::Int32)),
                ("padding_mode", Arg::NamedFixed(Fixed::Str("constant"))),
                ("padding_value", Arg::NamedFixed(Fixed::Fp16(0.0))),
                ("sampling_mode", Arg::NamedFixed(Fixed::Str("bilinear"))),
                ("transform_matrix", Arg::In(1)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |x: &[usize], maps: usize, [h, w]: [i64; 2], align_corners: bool| {
            let op = Affine { output_h: h, output_w: w, align_corners };
            Case::new(op, &[x, &[maps, 6]], (-1.0, 1.0), Tolerance::SUM).constants_from(1)
        };
        vec![
            on(&[1, 2, 4, 5], 1, [3, 4], false),
            on(&[2, 1, 3, 4], 2, [4, 3], true),
            on(&[2, 2, 3, 3], 1, [2, 1], true),
            on(&[1, 1, 5, 2], 1, [5, 2], false),
        ]
    }
}

impl Affine {
    /// `x`, one row per channel, times the weights of all pixels for all places.
    fn as_product(&self, x: &Var, transform: &Var) -> Var {
        let ([n, c, h, w], warp) = (four(x.shape()), self.warp(x.shape()));
        let [ho, wo] = warp.to;
        let places = ho * wo;
        let grid = [
            vector(&[1, 1, places], (0..places).map(|i| warp.coordinate(1, i % wo))),
            vector(&[1, 1, places], (0..places).map(|i| warp.coordinate(0, i / wo))),
        ];
        let maps = transform.shape()[0] as i64;
        let entry: [Var; 6] = std::array::from_fn(|i| transform.narrow(1, i, i + 1).reshape(&[maps, 1, 1]));
        let [a0, a1, a2, b0, b1, b2] = &entry;
        let (columns, rows) = (warp.tents(1, [a0, a1, a2], &grid), warp.tents(0, [b0, b1, b2], &grid));
        let weights = rows.expand_dims(&[2]) * columns.expand_dims(&[1]);
        let weights = weights.reshape(&[maps, (h * w) as i64, places as i64]);
        let flat = x.reshape(&[n as i64, c as i64, (h * w) as i64]);
        flat.matmul_value(&weights).reshape(&[n as i64, c as i64, ho as i64, wo as i64])
    }
}

impl Var {
    /// Warped by `transform`, to `[N, C, height, width]`.
    #[track_caller]
    pub fn affine(&self, transform: &Var, height: usize, width: usize, align_corners: bool) -> Var {
        let op = Affine { output_h: height as i64, output_w: width as i64, align_corners };
        Var::apply(op, &[self, transform])
    }
}
