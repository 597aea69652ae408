//! Transposed convolution.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::{Conv, accumulate, four};
use crate::ir::ops::prelu::bias_gradient;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::Shape;

op! {
    /// The transpose of `conv`: every input pixel adds a scaled kernel to the output.
    ///
    /// `x` is `[N, Cin, H, W]`, `weight` `[Cin, Cout/groups, kH, kW]`, `bias` `[Cout]` or
    /// `[1, Cout, 1, 1]`. The
    /// result is `[N, Cout, Ho, Wo]` with `Ho = (H-1)*s - top - bottom + d*(kH-1) + 1`. Sums run over
    /// taps row by row, then channels, in single precision, and are rounded once.
    /// In Python, `af.conv_transpose(x, weight)`.
    pub struct ConvTranspose = "conv_transpose"("x", "weight", "bias?") {
        /// Steps between the kernels' places, down and across.
        strides: [i64; 2] = [1, 1],
        /// Rows and columns cut off the result: top, bottom, left, right.
        pad: [i64; 4] = [0; 4],
        /// Steps between taps, down and across.
        dilations: [i64; 2] = [1, 1],
        /// Groups of channels that do not mix.
        groups: i64 = 1,
    }
}

impl ConvTranspose {
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
            let cut = self.pad[2 * axis] + self.pad[2 * axis + 1];
            let full = (x[2 + axis] as i64 - 1) * self.strides[axis]
                + self.dilations[axis] * (w[2 + axis] as i64 - 1)
                + 1;
            if full <= cut {
                return Err(format!("pad cuts {cut} of {full} along axis {}; nothing is left", 2 + axis));
            }
            out[axis] = (full - cut) as usize;
        }
        Ok(out)
    }

    /// The input row (or column) that reaches `out` through `tap`, if one does.
    fn origin(&self, axis: usize, out: usize, tap: usize, extent: usize) -> Option<usize> {
        let distance = out as i64 + self.pad[2 * axis] - tap as i64 * self.dilations[axis];
        let at = usize::try_from(distance / self.strides[axis]).ok()?;
        (distance >= 0 && distance % self.strides[axis] == 0 && at < extent).then_some(at)
    }
}

impl Operator for ConvTranspose {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        for ty in x {
            half_only(ty)?;
        }
        let (a, w) = (x[0].shape, x[1].shape);
        if a.rank() != 4 || w.rank() != 4 || w[0] != a[1] {
            return Err(format!(
                "x must be [N, Cin, H, W] and weight [Cin, Cout/groups, kH, kW], got {a} and {w}"
            ));
        }
        let extents = self.extents(a, w)?;
        let groups = self.groups as usize;
        if !a[1].is_multiple_of(groups) {
            return Err(format!("{} channels do not split into {groups} groups", a[1]));
        }
        let channels = w[1] * groups;
        if let Some(bias) = x.get(2)
            && bias.shape.dims() != [channels]
            && bias.shape.dims() != [1, channels, 1, 1]
        {
            return Err(format!("bias must be [{channels}] or [1, {channels}, 1, 1], got {}", bias.shape));
        }
        let dims = [a[0], channels, extents[0], extents[1]];
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        let ConvTranspose { strides, pad, dilations, groups } = self.clone();
        let forward = Conv { strides, pad, dilations, groups };
        Form::ConvTranspose(forward.params(), groups as usize)
    }
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
        // As if every place of the result saw every tap, which is how the reference counts.
        let ([channels, per_group, h, w], [n, _, rows, columns]) = (four(x[1].shape), four(out.shape));
        let places = (n * per_group * rows * columns) as f64;
        Facts { flops: 2.0 * places * (channels * h * w) as f64, ..Facts::WEIGHTED }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let ([_, cin, h, w], [_, per_group, kh, kw]) = (four(x[0].shape), four(x[1].shape));
        let [_, cout, ho, wo] = four(out.shape);
        let group_size = cin / self.groups as usize;
        Array::from_fn(out.shape, |index| {
            let (n, co) = (index / (cout * ho * wo), index / (ho * wo) % cout);
            let (oy, ox) = (index / wo % ho, index % wo);
            let first = co / per_group * group_size;
            let mut dot = p.dot();
            accumulate(&mut dot, [kh, kw, group_size], |i, j, c| {
                let place = self.origin(0, oy, i, h).zip(self.origin(1, ox, j, w));
                let pixel = place.map(|(y, z)| x[0].data[((n * cin + first + c) * h + y) * w + z]);
                (pixel, x[1].data[(((first + c) * per_group + co % per_group) * kh + i) * kw + j])
            });
            // One term is an elementwise product, which has the range of half precision.
            let store = if group_size * kh * kw > 1 { Precision::store_product } else { Precision::store };
            let sum = store(p, dot.total());
            x.get(2).map_or(sum, |bias| p.store(sum + bias.data[co]))
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let forward =
            Conv { strides: self.strides, pad: self.pad, dilations: self.dilations, groups: self.groups };
        let weight = forward.weight_gradient(dy, x[1].shape(), &x[0]);
        let mut grads = vec![Grad::To(Var::apply(forward, &[dy, &x[1]])), Grad::To(weight)];
        grads.extend(x.get(2).map(|bias| bias_gradient(dy, bias)));
        grads
    }
    fn mil() -> Mil {
        const SPELLING: Spelling = Spelling {
            op: "conv_transpose",
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
        let on = |op: ConvTranspose, shapes: &[&[usize]]| {
            Case::new(
                op,
                shapes,
                (-1.0, 1.0),
                if shapes.len() > 2 { Tolerance::BIASED } else { Tolerance::SUM },
            )
            .constants_from(1)
        };
        let plain = ConvTranspose { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        vec![
            on(plain.clone(), &[&[1, 5, 3, 4], &[5, 2, 3, 3], &[1, 2, 1, 1]]),
            on(
                ConvTranspose { strides: [2, 2], pad: [1, 0, 1, 1], ..plain.clone() },
                &[&[2, 3, 3, 3], &[3, 4, 3, 3]],
            ),
            on(
                ConvTranspose { groups: 2, dilations: [1, 2], ..plain.clone() },
                &[&[1, 4, 3, 3], &[4, 3, 2, 2]],
            ),
            on(plain.clone(), &[&[2, 2, 2, 2], &[2, 2, 2, 2]]),
            on(plain.clone(), &[&[1, 2, 2, 3], &[2, 3, 2, 2], &[3]]),
            on(ConvTranspose { strides: [1, 3], ..plain }, &[&[1, 1, 1, 4], &[1, 2, 1, 2], &[1, 2, 1, 1]]),
        ]
    }
}

impl Var {
    /// Transposed convolution; `bias` is `[Cout]` or `[1, Cout, 1, 1]`.
    #[track_caller]
    pub fn conv_transpose(&self, op: ConvTranspose, weight: &Var, bias: Option<&Var>) -> Var {
        match bias {
            None => Var::apply(op, &[self, weight]),
            Some(bias) => Var::apply(op, &[self, weight, &bias.per_channel()]),
        }
    }
}
