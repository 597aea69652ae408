//! Images of another size: a row each. Every row and column of the result reads one or two of `x`, so the
//! ops differ only in where an axis is sampled.

use crate::ir::form::{Facts, Form, Move, Rule, Sampling};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::four;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::gather;
use aneforge_tensor::{Shape, Tensor};

fn sampled(x: &TensorType, target: [i64; 2]) -> Result<TensorType, String> {
    half_only(x)?;
    if x.shape.rank() != 4 {
        return Err(format!("x must be [N, C, H, W], got {}", x.shape));
    }
    let [h, w] = target.map(|t| usize::try_from(t).unwrap_or(0));
    if h == 0 || w == 0 {
        return Err(format!(
            "the result would have {} by {} pixels; both must be at least 1",
            target[0], target[1]
        ));
    }
    let dims = [x.shape[0], x.shape[1], h, w];
    Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
}

/// Where an image of one shape reads from another.
fn sampling(x: Shape, out: Shape, rule: Rule) -> Sampling {
    Sampling { from: [x[2], x[3]], to: [out[2], out[3]], rule }
}

type Taps = Vec<(usize, usize, f64)>;

/// Both neighbours of every row and column, or twice the one before.
fn taps(sampling: Sampling, nearest: bool) -> [Taps; 2] {
    let before = |axis| sampling.before(axis).into_iter().map(|at| (at, at, 0.0)).collect();
    [0, 1].map(|axis| if nearest { before(axis) } else { sampling.between(axis) })
}

fn mix(a: f64, b: f64, share: f64, p: Precision) -> f64 {
    match p {
        Precision::F64 => a * (1.0 - share) + b * share,
        Precision::F16(_) => f64::from(gather::mix(a as f32, b as f32, share as f32)),
    }
}

fn sample(x: &Array, out: &TensorType, [rows, columns]: [Taps; 2], p: Precision) -> Array {
    let [_, _, h, w] = four(x.shape);
    let [_, _, ho, wo] = four(out.shape);
    Array::from_fn(out.shape, |i| {
        let ((top, bottom, down), (left, right, across)) = (rows[i / wo % ho], columns[i % wo]);
        let line = |y: usize| &x.data[(i / (ho * wo) * h + y) * w..][..w];
        let mixed = |y: usize| mix(line(y)[left], line(y)[right], across, p);
        p.store(mix(mixed(top), mixed(bottom), down, p))
    })
}

/// The transpose of sampling one axis, as a matrix `[size, places]`: what each element gives to each place.
fn shares(taps: &Taps, size: usize) -> Var {
    let mut shares = vec![0.0; size * taps.len()];
    for (place, &(low, high, share)) in taps.iter().enumerate() {
        shares[low * taps.len() + place] += 1.0 - share;
        shares[high * taps.len() + place] += share;
    }
    let shape = Shape::new(&[size, taps.len()]).expect("invariant: extents of valid shapes");
    Var::constant(Tensor::from_slice(shape, &shares).expect("invariant: one share each"))
}

/// The transpose of sampling, as a product per axis.
fn unsample(x: Shape, dy: &Var, [rows, columns]: [Taps; 2]) -> Var {
    let wide = dy.linear(&shares(&columns, x[3]), None).swap_last();
    wide.linear(&shares(&rows, x[2]), None).swap_last()
}

macro_rules! resize {
    ($( $(#[doc = $doc:literal])* $Op:ident $name:literal $attrs:tt; mil $mil:literal $args:expr;
        target $target:expr; rule $rule:expr; nearest $nearest:literal, $tolerance:ident on $(($x:expr, $example:tt))*; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x") $attrs }

        impl $Op {
            fn taps(&self, x: Shape, out: Shape) -> [Taps; 2] {
                let rule: fn(&$Op) -> Rule = $rule;
                taps(sampling(x, out, rule(self)), $nearest)
            }
        }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                let target: fn(&$Op, Shape) -> [i64; 2] = $target;
                sampled(&x[0], if x[0].shape.rank() == 4 { target(self, x[0].shape) } else { [1, 1] })
            }
            fn form(&self, x: &[TensorType], out: &TensorType) -> Form {
                let rule: fn(&$Op) -> Rule = $rule;
                let sampling = sampling(x[0].shape, out.shape, rule(self));
                if $nearest { Form::Move(Move::Nearest(sampling)) } else { Form::Sample(sampling) }
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                if $nearest { Facts::MOVED } else { Facts::ANY }
            }
            fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
                sample(x[0], out, self.taps(x[0].shape, out.shape), p)
            }
            fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                vec![Grad::To(unsample(x[0].shape(), dy, self.taps(x[0].shape(), y.shape())))]
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling { op: $mil, args: &$args })
            }
            fn cases() -> Vec<Case> {
                let on = |x: &[usize], op: $Op| Case::new(op, &[x], (-4.0, 4.0), Tolerance::$tolerance);
                vec![$(on(&$x, $Op $example)),*]
            }
        }
    )* };
}

/// The extents times a factor; 0 where the factor is none.
fn scaled(x: Shape, scale: i64) -> [i64; 2] {
    [2, 3].map(|axis| (x[axis] as i64).checked_mul(scale).filter(|_| scale >= 1).unwrap_or(0))
}

resize! {
    /// Every pixel as a square of `scale` by `scale` equal ones: `y[h, w] = x[h / scale, w / scale]`, rounded
    /// down. `x` is `[N, C, H, W]`.
    Upsample "upsample" { /// The factor of height and width, at least 1.
        scale: i64 = 2 };
        mil "upsample_nearest_neighbor" [
            ("scale_factor_height", Arg::Inline("scale", Lit::Int32)),
            ("scale_factor_width", Arg::Inline("scale", Lit::Int32)),
            ("x", Arg::In(0)),
        ];
        target |op, x| scaled(x, op.scale); rule |_| Rule::Proportional;
        nearest true, EXACT on ([1, 3, 2, 5], { scale: 2 }) ([2, 1, 3, 2], { scale: 3 }) ([1, 2, 2, 2], { scale: 1 });
    /// Interpolated between the four nearest pixels, `scale` times as large. `x` is `[N, C, H, W]`.
    ///
    /// Place `o` of the result reads at `(o + 0.5) / scale - 0.5`, not beyond the border, or with
    /// `align_corners` at `o * (H - 1) / (scale * H - 1)`. Columns are mixed first, then rows, in single
    /// precision, rounded once.
    /// In Python, `af.upsample_bilinear(x, 2)`.
    UpsampleBilinear "upsample_bilinear" { /// The factor of height and width, at least 1.
        scale: i64 = 2, /// Whether the corner pixels coincide, instead of the corners of the image.
        align_corners: bool = false };
        mil "upsample_bilinear" [
            ("align_corners", Arg::Named("align_corners", Lit::Bool)),
            ("scale_factor_height", Arg::Inline("scale", Lit::Fp32)),
            ("scale_factor_width", Arg::Inline("scale", Lit::Fp32)),
            ("x", Arg::In(0)),
        ];
        target |op, x| scaled(x, op.scale);
        rule |op| if op.align_corners { Rule::Corners } else { Rule::Centres };
        nearest false, SUM on ([1, 3, 2, 5], { scale: 2, align_corners: false }) ([2, 1, 3, 2], { scale: 3, align_corners: false })
            ([1, 2, 3, 4], { scale: 2, align_corners: true }) ([1, 1, 1, 3], { scale: 3, align_corners: true });
    /// The pixel at or before each place: `y[h, w] = x[h * H / target_h, w * W / target_w]`, rounded down.
    /// `x` is `[N, C, H, W]`.
    /// In Python, `af.resize_nearest_neighbor(x, 7, 3)`.
    ResizeNearest "resize_nearest_neighbor" { /// The new height.
        target_h: i64, /// The new width.
        target_w: i64 };
        mil "resize_nearest_neighbor" [
            ("target_size_height", Arg::Named("target_h", Lit::Int32)),
            ("target_size_width", Arg::Named("target_w", Lit::Int32)),
            ("x", Arg::In(0)),
        ];
        target |op, _| [op.target_h, op.target_w];
        rule |_| Rule::Proportional;
        nearest true, EXACT on ([1, 3, 4, 5], { target_h: 7, target_w: 3 }) ([2, 1, 3, 2], { target_h: 1, target_w: 8 })
            ([1, 2, 5, 5], { target_h: 5, target_w: 2 });
    /// Interpolated between the four nearest pixels. `x` is `[N, C, H, W]`.
    ///
    /// Row `o` of the result reads at `o * H / target_h`, not beyond the last row, or with `align_corners` at
    /// `o * (H - 1) / (target_h - 1)`; columns likewise. This is not the half-pixel rule, which
    /// `upsample_bilinear` has. Columns are mixed first, then rows, in single precision, rounded once.
    /// In Python, `af.resize_bilinear(x, 7, 3)`.
    ResizeBilinear "resize_bilinear" { /// The new height.
        target_h: i64, /// The new width.
        target_w: i64, /// Whether the corner pixels coincide.
        align_corners: bool = false };
        mil "resize_bilinear" [
            ("sampling_mode", Arg::Named("align_corners", Lit::Switch("DEFAULT", "ALIGN_CORNERS"))),
            ("target_size_height", Arg::Named("target_h", Lit::Int32)),
            ("target_size_width", Arg::Named("target_w", Lit::Int32)),
            ("x", Arg::In(0)),
        ];
        target |op, _| [op.target_h, op.target_w];
        rule |op| if op.align_corners { Rule::Corners } else { Rule::Proportional };
        nearest false, SUM on ([1, 3, 4, 5], { target_h: 7, target_w: 3, align_corners: false })
            ([2, 1, 3, 2], { target_h: 5, target_w: 6, align_corners: true })
            ([1, 2, 2, 3], { target_h: 4, target_w: 6, align_corners: false })
            ([1, 1, 5, 4], { target_h: 1, target_w: 3, align_corners: true });
}

impl Var {
    /// Every pixel as a square of `scale` by `scale` equal ones.
    #[track_caller]
    pub fn upsample(&self, scale: usize) -> Var {
        Var::apply(Upsample { scale: scale as i64 }, &[self])
    }

    /// Interpolated, `scale` times as large.
    #[track_caller]
    pub fn upsample_bilinear(&self, scale: usize, align_corners: bool) -> Var {
        Var::apply(UpsampleBilinear { scale: scale as i64, align_corners }, &[self])
    }

    /// Of another height and width, from the pixels at or before each place.
    #[track_caller]
    pub fn resize_nearest_neighbor(&self, height: usize, width: usize) -> Var {
        Var::apply(ResizeNearest { target_h: height as i64, target_w: width as i64 }, &[self])
    }

    /// Of another height and width, interpolated.
    #[track_caller]
    pub fn resize_bilinear(&self, height: usize, width: usize, align_corners: bool) -> Var {
        let (target_h, target_w) = (height as i64, width as i64);
        Var::apply(ResizeBilinear { target_h, target_w, align_corners }, &[self])
    }
}
