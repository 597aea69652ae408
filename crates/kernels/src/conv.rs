//! Two-dimensional convolution, in the order of [`crate::order::conv_term`] and [`crate::order::Dot`].

mod direct;
mod image;
mod panels;
mod tiled;
mod transposed;

use half::f16;

use crate::gemm::Weight;
use crate::order::{NARROW, conv_terms};
use crate::simd::{Lines, Tiles};
use crate::{Epilogue, Kernels, Scratch};

pub use transposed::{PackedConvTranspose, conv_transpose2d, conv_transpose2d_scratch};

use direct::direct;
use image::{Geometry, fill_image};

/// Output channels per group up to which a narrow convolution runs without panels.
const DIRECT_OUTPUTS: usize = 4;

/// Stride, padding and dilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvParams {
    /// Rows and columns from one output to the next.
    pub stride: [usize; 2],
    /// Zeros around the image: top, bottom, left, right.
    pub pad: [usize; 4],
    /// Rows and columns from one tap to the next.
    pub dilation: [usize; 2],
}

impl Default for ConvParams {
    fn default() -> Self {
        ConvParams { stride: [1, 1], pad: [0; 4], dilation: [1, 1] }
    }
}

impl ConvParams {
    /// Height and width of the output for an image of `size` and a kernel of `kernel`; 0 when the kernel does not
    /// fit.
    #[must_use]
    pub fn output_size(&self, size: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let padded = size[axis] + self.pad[2 * axis] + self.pad[2 * axis + 1];
            let reach = (kernel[axis].max(1) - 1) * self.dilation[axis] + 1;
            padded.checked_sub(reach).map_or(0, |rest| rest / self.stride[axis] + 1)
        })
    }
}

/// The weights of a convolution, packed once.
#[derive(Clone, Debug)]
pub struct PackedConv {
    outputs: usize,
    channels: usize,
    kernel: [usize; 2],
    groups: usize,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    /// Narrow and with few outputs per group: `[output][kh][kw][channel]`.
    Direct(Vec<f32>),
    /// As [`panels::pack`] orders them.
    Panels(Lines),
    /// For tile registers, as [`tiled::pack`] orders them.
    Tiles(Lines),
}

impl PackedConv {
    /// Packs weights `[outputs, channels per group, kh, kw]` (OIHW) for [`conv2d`] with the instruction set of
    /// `kernels`.
    ///
    /// # Panics
    /// When the length is not the shape's, or `groups` does not divide the outputs.
    #[must_use]
    pub fn new<W: Weight>(kernels: &Kernels, weights: &[W], shape: [usize; 4], groups: usize) -> PackedConv {
        let [outputs, channels, height, width] = shape;
        assert_eq!(weights.len(), shape.iter().product::<usize>(), "conv: weights are not {shape:?}");
        assert!(groups > 0 && outputs.is_multiple_of(groups), "conv: {outputs} outputs in {groups} groups");
        let data = Data::Direct(Vec::new());
        let mut conv = PackedConv { outputs, channels, kernel: [height, width], groups, data };
        let weight = |output: usize, [kh, kw, channel]: [usize; 3]| {
            weights[((output * channels + channel) * height + kh) * width + kw].to_half()
        };
        conv.data = if conv.channels <= NARROW && conv.outputs_per_group() <= DIRECT_OUTPUTS {
            Data::Direct(conv.pack_direct(|output, tap| weight(output, tap).to_f32()))
        } else if Tiles::usable(kernels.simd) {
            Data::Tiles(tiled::pack(&conv, weight))
        } else {
            Data::Panels(panels::pack(&conv, weight))
        };
        conv
    }

    /// The shape of the weights, `[outputs, channels per group, kh, kw]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        [self.outputs, self.channels, self.kernel[0], self.kernel[1]]
    }

    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    fn outputs_per_group(&self) -> usize {
        self.outputs / self.groups
    }

    fn terms(&self) -> usize {
        conv_terms(self.channels, self.kernel)
    }

    fn pack_direct(&self, weight: impl Fn(usize, [usize; 3]) -> f32) -> Vec<f32> {
        let [height, width] = self.kernel;
        let taps = (0..height).flat_map(|kh| (0..width).map(move |kw| [kh, kw]));
        let taps: Vec<_> = taps.flat_map(|[kh, kw]| (0..self.channels).map(move |c| [kh, kw, c])).collect();
        (0..self.outputs)
            .flat_map(|output| taps.iter().map(move |&tap| (output, tap)))
            .map(|(o, t)| weight(o, t))
            .collect()
    }

    fn geometry(&self, input: [usize; 4], params: &ConvParams) -> Geometry {
        Geometry::new(input, self.kernel, params)
    }
}

/// Scratch values that [`conv2d`] needs for an input of shape `[n, c, h, w]`.
#[must_use]
pub fn conv2d_scratch(
    kernels: &Kernels,
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
) -> usize {
    image_scratch(kernels, weights, &weights.geometry(input, params))
}

/// Scratch values that [`run_image`] needs.
fn image_scratch(kernels: &Kernels, weights: &PackedConv, geometry: &Geometry) -> usize {
    let threads = kernels.pool.threads();
    match &weights.data {
        Data::Direct(_) => geometry.image_len(),
        Data::Panels(_) => panels::scratch_len(weights, geometry, threads),
        Data::Tiles(_) => tiled::scratch_len(weights, geometry, threads),
    }
}

/// `out[n, o, y, x] = epilogue(sum over kh, kw, c of
/// x[n, g C + c, y s + kh d - top, x s + kw d - left] w[o, c, kh, kw])` with `g` the group of `o`; taps outside of
/// the image are zeros.
///
/// `input` is the shape `[n, c, h, w]` of `x`; `out` is `[n, outputs, oh, ow]` with the size of
/// [`ConvParams::output_size`]. [`crate::Bias::Row`] is the bias per output channel.
///
/// # Panics
/// When a slice's length differs from its shape's, the channels do not fit the weights, a stride is zero, or the
/// weights are packed for [`crate::Isa::AmxFp16`] and `kernels` has less.
#[expect(clippy::too_many_arguments, reason = "operands, their shape, parameters, scratch, result")]
pub fn conv2d(
    kernels: &Kernels,
    x: &[f16],
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let [images, channels, height, width] = input;
    let size = params.output_size([height, width], weights.kernel);
    let pixels = size[0] * size[1];
    assert_eq!(x.len(), input.iter().product::<usize>(), "conv: input is not {input:?}");
    assert_eq!(channels, weights.channels * weights.groups, "conv: channels");
    assert_eq!(out.len(), images * weights.outputs * pixels, "conv: output is not {size:?} per channel");
    epilogue.check(weights.outputs, pixels, images);
    if out.is_empty() {
        return;
    }
    let geometry = weights.geometry(input, params);
    let scratch = scratch.take(conv2d_scratch(kernels, input, weights, params));
    let inputs = x.chunks_exact((channels * height * width).max(1));
    for (image, (x, out)) in inputs.zip(out.chunks_exact_mut(weights.outputs * pixels)).enumerate() {
        let range = image * out.len()..(image + 1) * out.len();
        let epilogue = &Epilogue { residual: epilogue.residual.part(range), ..*epilogue };
        run_image(kernels, x, &geometry, weights, epilogue, scratch, out);
    }
}

/// One image.
fn run_image(
    kernels: &Kernels,
    x: &[f16],
    geometry: &Geometry,
    weights: &PackedConv,
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
    out: &mut [f16],
) {
    match &weights.data {
        Data::Tiles(data) => {
            assert!(Tiles::usable(kernels.simd), "conv: weights packed for another instruction set");
            tiled::conv2d(kernels, x, geometry, (weights, data), epilogue, scratch, out);
        }
        Data::Direct(data) => {
            fill_image(kernels, x, geometry, weights.channels * weights.groups, scratch);
            direct(kernels, scratch, geometry, (weights, data), epilogue, out);
        }
        Data::Panels(data) => {
            panels::conv2d(kernels, x, geometry, (weights, data), epilogue, scratch, out);
        }
    }
}

/// `epilogue` for the outputs of one group, the first of which is `first`.
fn group_epilogue<'a>(epilogue: &Epilogue<'a>, first: usize, outputs: usize) -> Epilogue<'a> {
    let (scale, bias) = (epilogue.scale.rows_from(first, outputs), epilogue.bias.rows_from(first, outputs));
    Epilogue { scale, bias, ..*epilogue }
}
