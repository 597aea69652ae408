//! Convolution.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::concat::joined;
use crate::ir::ops::conv_transpose::ConvTranspose;
use crate::ir::ops::prelu::bias_gradient;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Dot, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::conv::ConvParams;
use aneforge_tensor::Shape;

/// Up to this many channels per group, a block of the sum spans taps instead of channels.
pub(crate) const FEW_CHANNELS: usize = 4;

/// Elements of windows that the gradient of a weight holds at a time, where a single tap has no more: 32 MiB.
const WINDOWS: usize = 1 << 24;

op! {
    /// Correlation of an image with a weight, per group of channels, plus an optional bias.
    ///
    /// `x` is `[N, Cin, H, W]`, `weight` `[Cout, Cin/groups, kH, kW]`, `bias` `[Cout]` or
    /// `[1, Cout, 1, 1]`. The
    /// result is `[N, Cout, Ho, Wo]` with `Ho = (H + top + bottom - d*(kH-1) - 1)/s + 1`, rounded down.
    /// Sums run over taps row by row, then channels, in single precision, and are rounded once; the bias
    /// is added to the rounded sum. `kW` is at most 15, and at most 13 before A16.
    /// In Python, `af.conv(x, weight, pad=1)`.
    pub struct Conv = "conv"("x", "weight", "bias?") {
        /// Steps between windows, down and across.
        strides: [i64; 2] = [1, 1],
        /// Rows and columns of zeros: top, bottom, left, right.
        pad: [i64; 4] = [0; 4],
        /// Steps between taps, down and across.
        dilations: [i64; 2] = [1, 1],
        /// Groups of channels that do not mix.
        groups: i64 = 1,
    }
}

impl Conv {
    /// Output extents for this image and kernel, or why there are none.
    fn extents(&self, x: Shape, w: Shape) -> Result<[usize; 2], String> {
        let positive = self.strides.iter().chain(&self.dilations).all(|&v| v >= 1);
        if !positive || self.pad.iter().any(|&v| v < 0) || self.groups < 1 {
            return Err(format!(
                "strides {:?}, dilations {:?} and groups {} must be at least 1 and pad {:?} at least 0",
                self.strides, self.dilations, self.groups, self.pad
            ));
        }
        let mut out = [0; 2];
        for axis in 0..2 {
            let padded = x[2 + axis] as i64 + self.pad[2 * axis] + self.pad[2 * axis + 1];
            let span = self.dilations[axis] * (w[2 + axis] as i64 - 1) + 1;
            if padded < span {
                return Err(format!(
                    "kernel spans {span} of axis {}, padded to {padded}; pad more",
                    2 + axis
                ));
            }
            out[axis] = ((padded - span) / self.strides[axis] + 1) as usize;
        }
        Ok(out)
    }

    /// Rows (or columns) at the end of the padded image that no window reaches.
    fn unused(&self, x: Shape, w: Shape, axis: usize) -> i64 {
        let padded = x[2 + axis] as i64 + self.pad[2 * axis] + self.pad[2 * axis + 1];
        (padded - self.dilations[axis] * (w[2 + axis] as i64 - 1) - 1) % self.strides[axis]
    }

    /// The gradient of the image: the transposed convolution, with rows that no window read as zeros.
    fn image_gradient(&self, x: Shape, weight: &Var, dy: &Var) -> Var {
        let mut op = ConvTranspose {
            strides: self.strides,
            pad: self.pad,
            dilations: self.dilations,
            groups: self.groups,
        };
        let unused = [0, 1].map(|axis| self.unused(x, weight.shape(), axis));
        let missing = [0, 1].map(|axis| (unused[axis] - op.pad[2 * axis + 1]).max(0));
        for (axis, unused) in unused.into_iter().enumerate() {
            op.pad[2 * axis + 1] = (op.pad[2 * axis + 1] - unused).max(0);
        }
        let dx = Var::apply(op, &[dy, weight]);
        zero_pad(&dx, [0, missing[0], 0, missing[1]])
    }

    /// The gradient of the weight: products of the output's cotangent with the windows that the taps read, of as many taps at a
    /// time as [`WINDOWS`] has room for.
    pub(crate) fn weight_gradient(&self, x: &Var, weight: Shape, dy: &Var) -> Var {
        let groups = self.groups;
        let dense = spread(dy, self.strides);
        let [n, out, h, w] = four(dense.shape());
        let channels = x.shape()[1];
        let terms = (n * h * w) as i64;
        let left = dense.transpose(&[1, 0, 2, 3]).reshape(&[groups, out as i64 / groups, terms]);
        let planes = zero_pad(x, self.pad).transpose(&[1, 0, 2, 3]);
        let window = |&[i, j]: &[usize; 2]| {
            let (top, edge) = (i * self.dilations[0] as usize, j * self.dilations[1] as usize);
            planes.slice_by_size(&[0, 0, top, edge], &[channels, n, h, w]).reshape(&[
                channels as i64,
                1,
                terms,
            ])
        };
        let taps: Vec<[usize; 2]> =
            (0..weight[2]).flat_map(|i| (0..weight[3]).map(move |j| [i, j])).collect();
        let at_a_time = (WINDOWS / (channels * n * h * w).max(1)).max(1);
        let product = |taps: &[[usize; 2]]| {
            let windows: Vec<Var> = taps.iter().map(window).collect();
            let columns = channels as i64 / groups * taps.len() as i64;
            let right = joined(&windows, 1).reshape(&[groups, columns, terms]);
            left.matmul_value(&right.swap_last()).reshape(&[
                weight[0] as i64,
                weight[1] as i64,
                taps.len() as i64,
            ])
        };
        let products: Vec<Var> = taps.chunks(at_a_time).map(product).collect();
        joined(&products, 2).reshape_to(weight)
    }
}

/// The extents of an image or a convolution's weight.
pub(crate) fn four(shape: Shape) -> [usize; 4] {
    std::array::from_fn(|axis| shape[axis])
}

/// `dy` with `stride - 1` zeros between neighbours.
pub(crate) fn spread(dy: &Var, strides: [i64; 2]) -> Var {
    if strides == [1, 1] {
        return dy.clone();
    }
    let channels = dy.shape()[1];
    let one = Var::full(Shape::new(&[channels, 1, 1, 1]).expect("invariant: four axes"), 1.0);
    let op = ConvTranspose { strides, pad: [0; 4], dilations: [1, 1], groups: channels as i64 };
    Var::apply(op, &[dy, &one])
}

/// An image with zeros around it.
pub(crate) fn zero_pad(x: &Var, pad: [i64; 4]) -> Var {
    let mut out = x.clone();
    for axis in 0..2 {
        let zeros = |size: i64, like: &Var| Var::full(like.shape().with(2 + axis, size as usize), 0.0);
        let (before, after) = (pad[2 * axis], pad[2 * axis + 1]);
        let mut parts = Vec::new();
        if before > 0 {
            parts.push(zeros(before, &out));
        }
        parts.push(out.clone());
        if after > 0 {
            parts.push(zeros(after, &out));
        }
        if parts.len() > 1 {
            out = Var::concat(&parts.iter().collect::<Vec<_>>(), 2 + axis as i64);
        }
    }
    out
}

/// Runs the defined order of a convolution's sum: taps row by row, and per tap blocks of 32 channels; with
/// few channels, blocks of eight taps of a row with four channels each.
pub(crate) fn accumulate(
    dot: &mut Dot,
    [kh, kw, channels]: [usize; 3],
    mut at: impl FnMut(usize, usize, usize) -> (Option<f64>, f64),
) {
    let mut push = |dot: &mut Dot, i, j, c| match at(i, j, c) {
        (Some(pixel), weight) => dot.push(pixel, weight),
        (None, weight) => dot.pad(weight),
    };
    for i in 0..kh {
        if channels <= FEW_CHANNELS {
            for j in 0..kw {
                (0..channels).for_each(|c| push(dot, i, j, c));
                dot.skip(FEW_CHANNELS - channels);
            }
            dot.end_block();
        } else {
            for j in 0..kw {
                (0..channels).for_each(|c| push(dot, i, j, c));
                dot.end_block();
            }
        }
    }
}

impl Conv {
    /// How the kernel moves, as the kernels take it.
    pub(crate) fn params(&self) -> ConvParams {
        ConvParams {
            stride: self.strides.map(|v| v as usize),
            pad: self.pad.map(|v| v as usize),
            dilation: self.dilations.map(|v| v as usize),
        }
    }
}

impl Operator for Conv {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        for ty in x {
            half_only(ty)?;
        }
        let (a, w) = (x[0].shape, x[1].shape);
        if a.rank() != 4 || w.rank() != 4 {
            return Err(format!(
                "x must be [N, C, H, W] and weight [Cout, Cin/groups, kH, kW], got {a} and {w}"
            ));
        }
        let extents = self.extents(a, w)?;
        let groups = self.groups as usize;
        if w[1] * groups != a[1] || !w[0].is_multiple_of(groups) {
            return Err(format!("{groups} groups of {} channels do not match x {a} and weight {w}", w[1]));
        }
        if let Some(bias) = x.get(2)
            && bias.shape.dims() != [w[0]]
            && bias.shape.dims() != [1, w[0], 1, 1]
        {
            return Err(format!("bias must be [{0}] or [1, {0}, 1, 1], got {1}", w[0], bias.shape));
        }
        let dims = [a[0], w[0], extents[0], extents[1]];
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Conv(self.params(), self.groups as usize)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        let [_, per_group, h, w] = four(x[1].shape);
        Facts { flops: 2.0 * out.shape.count() as f64 * (per_group * h * w) as f64, ..Facts::WEIGHTED }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let ([_, cin, h, w], [_, per_group, kh, kw]) = (four(x[0].shape), four(x[1].shape));
        let [_, cout, ho, wo] = four(out.shape);
        let group_size = cout / self.groups as usize;
        Array::from_fn(out.shape, |index| {
            let (n, co) = (index / (cout * ho * wo), index / (ho * wo) % cout);
            let (oy, ox) = (index / wo % ho, index % wo);
            let first = co / group_size * per_group;
            let mut dot = p.dot();
            let place = |i: usize, j: usize| {
                let y =
                    (oy as i64 * self.strides[0] + i as i64 * self.dilations[0]).checked_sub(self.pad[0])?;
                let z =
                    (ox as i64 * self.strides[1] + j as i64 * self.dilations[1]).checked_sub(self.pad[2])?;
                let (y, z) = (usize::try_from(y).ok()?, usize::try_from(z).ok()?);
                (y < h && z < w).then_some((y, z))
            };
            accumulate(&mut dot, [kh, kw, per_group], |i, j, c| {
                let pixel = place(i, j).map(|(y, z)| x[0].data[((n * cin + first + c) * h + y) * w + z]);
                (pixel, x[1].data[((co * per_group + c) * kh + i) * kw + j])
            });
            // One term is an elementwise product, which has the range of half precision.
            let store = if per_group * kh * kw > 1 { Precision::store_product } else { Precision::store };
            let sum = store(p, dot.total());
            x.get(2).map_or(sum, |bias| p.store(sum + bias.data[co]))
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let mut grads = vec![
            Grad::To(self.image_gradient(x[0].shape(), &x[1], dy)),
            Grad::To(self.weight_gradient(&x[0], x[1].shape(), dy)),
        ];
        grads.extend(x.get(2).map(|bias| bias_gradient(dy, bias)));
        grads
    }
    fn mil() -> Mil {
        const SPELLING: Spelling = Spelling {
            op: "conv",
            args: &[
                ("dilations", Arg::Named("dilations", Lit::Ints)),
                ("groups", Arg::Named("groups", Lit::Int32)),
                ("pad", Arg::Named("pad", Lit::Ints)),
                ("pad_type", Arg::NamedFixed(Fixed::Str("custom"))),
                ("strides", Arg::Named("strides", Lit::Ints)),
                ("weight", Arg::In(1)),
                ("x", Arg::In(0)),
            ],
        };
        Mil::StmtWith(SPELLING, 2, |op, x| Var::apply(op.clone(), &[&x[0], &x[1]]) + x[2].per_channel())
    }
    fn cases() -> Vec<Case> {
        let on = |op: Conv, shapes: &[&[usize]]| {
            Case::new(
                op,
                shapes,
                (-1.0, 1.0),
                if shapes.len() > 2 { Tolerance::BIASED } else { Tolerance::SUM },
            )
            .constants_from(1)
        };
        let plain = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        vec![
            on(Conv { pad: [1; 4], ..plain }, &[&[1, 5, 5, 4], &[3, 5, 3, 3], &[1, 3, 1, 1]]),
            on(Conv { strides: [2, 2], pad: [1, 0, 2, 1], ..plain }, &[&[2, 3, 6, 5], &[4, 3, 3, 2]]),
            on(Conv { dilations: [2, 1], groups: 2, ..plain }, &[&[1, 4, 6, 4], &[6, 2, 2, 3]]),
            on(Conv { groups: 3, pad: [1; 4], ..plain }, &[&[1, 3, 4, 4], &[3, 1, 3, 3]]),
            on(plain.clone(), &[&[1, 40, 2, 2], &[2, 40, 1, 1]]),
            on(Conv { pad: [0, 0, 7, 7], ..plain.clone() }, &[&[1, 2, 1, 9], &[2, 2, 1, 15]]),
            on(
                Conv { strides: [3, 2], dilations: [2, 2], groups: 2, pad: [2, 1, 1, 2] },
                &[&[2, 4, 7, 6], &[4, 2, 2, 3], &[1, 4, 1, 1]],
            ),
            on(Conv { pad: [1; 4], ..plain }, &[&[1, 2, 3, 3], &[3, 2, 2, 2], &[3]]),
            on(Conv { strides: [2, 3], ..plain }, &[&[1, 1, 4, 5], &[1, 1, 1, 1]]),
        ]
    }
}

impl Var {
    /// Correlation with a weight `[Cout, Cin/groups, kH, kW]`; `bias` is `[Cout]` or `[1, Cout, 1, 1]`.
    #[track_caller]
    pub fn conv(&self, op: Conv, weight: &Var, bias: Option<&Var>) -> Var {
        match bias {
            None => Var::apply(op, &[self, weight]),
            Some(bias) => Var::apply(op, &[self, weight, &bias.per_channel()]),
        }
    }
}
