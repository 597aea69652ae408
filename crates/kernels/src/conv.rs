//! Two-dimensional convolution, in the order of [`crate::order::conv_term`] and [`crate::order::Dot`].

mod direct;
mod image;
mod pixels;
mod target;
mod transposed;
mod weights;

use half::f16;

use crate::gemm::{product, tiled};
use crate::order::BLOCK;
use crate::simd::Factors;
use crate::{Epilogue, Kernels, Scratch};

pub use image::Nhwc;
pub use transposed::{PackedConvTranspose, conv_transpose2d, conv_transpose2d_scratch};
pub use weights::PackedConv;

use direct::direct;
use image::{Geometry, Image, Pitches, fill_image};
use pixels::Pixels;
use target::Target;
use weights::Data;

/// Scratch values of one offset of a block.
const OFFSET: usize = size_of::<usize>() / size_of::<f32>();

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

/// How the images of a convolution lie in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// `[n, c, h, w]`, without gaps.
    Planes,
    /// The channels of a pixel side by side.
    Pixels(Nhwc),
}

/// Scratch values that [`conv2d`] needs for an input of shape `[n, c, h, w]`.
#[must_use]
pub fn conv2d_scratch(
    kernels: &Kernels,
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
) -> usize {
    let geometry = Geometry::new(input, weights.kernel, params);
    image_scratch(kernels, weights, &geometry, &Target::planes(&geometry))
}

/// Scratch values that [`conv2d_nhwc`] needs for an input of shape `[n, c, h, w]`, wherever it lies.
#[must_use]
pub fn conv2d_nhwc_scratch(
    kernels: &Kernels,
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
) -> usize {
    let geometry = Geometry::new(input, weights.kernel, params);
    let view = Nhwc::padded(geometry.out, weights.outputs, [0; 4]);
    image_scratch(kernels, weights, &geometry, &Target::pixels_of(&geometry, &view, 0))
}

/// Scratch values that [`conv2d_images`] needs for an input of shape `[n, c, h, w]`, wherever it and the result lie.
#[must_use]
pub fn conv2d_images_scratch(
    kernels: &Kernels,
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
) -> usize {
    let planes = conv2d_scratch(kernels, input, weights, params);
    planes.max(conv2d_nhwc_scratch(kernels, input, weights, params))
}

/// Scratch values that [`run_image`] needs.
fn image_scratch(kernels: &Kernels, weights: &PackedConv, geometry: &Geometry, target: &Target) -> usize {
    let channels = weights.order();
    let image = geometry.image_len(channels.len()) / 2;
    let Data::Panels(groups) = &weights.data else { return image };
    let pixels = geometry.read(&[], geometry.own_layout(channels.len()), weights.channels);
    let parts = parts_len(kernels, weights, geometry, target);
    let pixels = Pixels { parts: (parts > 0).then_some((&[], 0)), ..pixels };
    let plan = |b| target.plan(kernels, pixels, b).scratch(kernels.pool.threads());
    let offsets = (pixels.offsets_len() * OFFSET).next_multiple_of(16);
    image + parts + offsets + groups.first().map_or(0, plan)
}

/// Values of the image whose parts tile registers read, if they do.
fn parts_len(kernels: &Kernels, weights: &PackedConv, geometry: &Geometry, target: &Target) -> usize {
    let whole = matches!(weights.data, Data::Panels(_)) && weights.channels.is_multiple_of(BLOCK);
    let splits = whole && tiled::factors(kernels, target.pixels()) == Some(Factors::Parts);
    if splits { geometry.image_len(weights.order().len()) } else { 0 }
}

/// `out[n, o, y, x] = epilogue(sum over kh, kw, c of
/// x[n, g C + c, y s + kh d - top, x s + kw d - left] w[o, c, kh, kw])` with `g` the group of `o`; taps outside of
/// the image are zeros.
///
/// `input` is the shape `[n, c, h, w]` of `x`; `out` is `[n, outputs, oh, ow]` with the size of
/// [`ConvParams::output_size`]. [`crate::Bias::Row`] is the bias per output channel. Images are copied pixel by
/// pixel first; [`conv2d_nhwc`] reads them where they lie.
///
/// # Panics
/// When a slice's length differs from its shape's, the channels do not fit the weights, a stride is zero, or the
/// epilogue has a value per column.
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
    let (from, to) = ((x, &Images::Planes), (out, &Images::Planes));
    conv2d_images(kernels, from, input, weights, params, epilogue, scratch, to);
}

/// [`conv2d`] with the channels of a pixel side by side, in slices that may hold more than the images: `x` is read
/// where `from` says and `out` written where `to` says. A residual lies as `out` does. With a halo in `to`, which
/// stays as it is, the next convolution reads the result in place.
///
/// # Panics
/// When the channels do not fit the weights, a stride is zero, an image does not lie in its slice, pixels overlap, a
/// residual is shorter than `out`, or the epilogue has a value per column.
#[expect(clippy::too_many_arguments, reason = "operands and where they lie, parameters, scratch, result")]
pub fn conv2d_nhwc(
    kernels: &Kernels,
    (x, from): (&[f16], &Nhwc),
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    (out, to): (&mut [f16], &Nhwc),
) {
    let (from, to) = ((x, &Images::Pixels(*from)), (out, &Images::Pixels(*to)));
    conv2d_images(kernels, from, input, weights, params, epilogue, scratch, to);
}

/// [`conv2d`] or [`conv2d_nhwc`], or from one layout to the other.
///
/// # Panics
/// As [`conv2d`] and [`conv2d_nhwc`].
#[expect(clippy::too_many_arguments, reason = "operands and where they lie, parameters, scratch, result")]
pub fn conv2d_images(
    kernels: &Kernels,
    (x, from): (&[f16], &Images),
    input: [usize; 4],
    weights: &PackedConv,
    params: &ConvParams,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    (out, to): (&mut [f16], &Images),
) {
    let [images, channels, height, width] = input;
    let geometry = Geometry::new(input, weights.kernel, params);
    let (size, pixels) = (geometry.out, geometry.pixels());
    let empty = images * pixels * weights.outputs == 0;
    assert_eq!(channels, weights.channels * weights.groups, "conv: channels");
    epilogue.check_channels();
    match from {
        Images::Planes => assert_eq!(x.len(), input.iter().product(), "conv: input is not {input:?}"),
        Images::Pixels(_) if empty => {}
        Images::Pixels(from) => from.check([height, width], channels, images, x.len()),
    }
    match to {
        Images::Planes => {
            assert_eq!(
                out.len(),
                images * weights.outputs * pixels,
                "conv: output is not {size:?} per channel"
            );
            epilogue.check(weights.outputs, pixels, images);
        }
        Images::Pixels(to) => {
            epilogue.check_in(weights.outputs, 0, out.len());
            if !empty {
                to.check(size, weights.outputs, images, out.len());
            }
        }
    }
    if empty {
        return;
    }
    let target = |image: usize| match to {
        Images::Planes => Target::planes(&geometry),
        Images::Pixels(to) => Target::pixels_of(&geometry, to, image),
    };
    let scratch = scratch.take(image_scratch(kernels, weights, &geometry, &target(0)));
    let splits = parts_len(kernels, weights, &geometry, &target(0)) > 0;
    for image in 0..images {
        let source = image_of((x, from), (image, images), (&geometry, weights), splits);
        let range = match to {
            Images::Planes => image * weights.outputs * pixels..(image + 1) * weights.outputs * pixels,
            Images::Pixels(_) => 0..out.len(),
        };
        let epilogue = &Epilogue { residual: epilogue.residual.part(range.clone()), ..*epilogue };
        run_image(kernels, source, (&geometry, weights), epilogue, &target(image), scratch, &mut out[range]);
    }
}

/// Image `index` of `count`, and whether it is read in place. `splits`: its values are split.
fn image_of<'a>(
    (x, from): (&'a [f16], &Images),
    (index, count): (usize, usize),
    (geometry, weights): (&Geometry, &PackedConv),
    splits: bool,
) -> Image<'a> {
    let from = match from {
        Images::Planes => return Image::Planes(&x[x.len() / count * index..][..x.len() / count]),
        Images::Pixels(from) => from,
    };
    let in_place = |layout: &Pitches| {
        weights.reads_in_place() && (!splits || geometry.splits(*layout, weights.order().len()))
    };
    match geometry.within(from, index, x.len()).filter(in_place) {
        Some(layout) => Image::InPlace(x, layout),
        None => Image::Pixels(x, from.pitches(index)),
    }
}

/// One image.
fn run_image(
    kernels: &Kernels,
    source: Image<'_>,
    (geometry, weights): (&Geometry, &PackedConv),
    epilogue: &Epilogue<'_>,
    target: &Target,
    scratch: &mut [f32],
    out: &mut [f16],
) {
    let channels = weights.order();
    let (image, scratch) = scratch.split_at_mut(geometry.image_len(channels.len()) / 2);
    let (data, layout) = if let Image::InPlace(x, layout) = source {
        (x, layout)
    } else {
        let image = bytemuck::cast_slice_mut(image);
        fill_image(kernels, source, geometry, channels, image);
        (&*image, geometry.own_layout(channels.len()))
    };
    let pixels = geometry.read(data, layout, weights.channels);
    let groups = match &weights.data {
        Data::Direct(data) => return direct(kernels, &pixels, (weights, data), epilogue, target, out),
        Data::Panels(groups) => groups,
    };
    let (parts, scratch) = scratch.split_at_mut(parts_len(kernels, weights, geometry, target));
    let parts =
        (!parts.is_empty()).then(|| geometry.split(kernels, (data, layout), bytemuck::cast_slice_mut(parts)));
    let offsets = pixels.offsets_len();
    let (own, scratch) = scratch.split_at_mut((offsets * OFFSET).next_multiple_of(16));
    let own: &mut [usize] = &mut bytemuck::cast_slice_mut(own)[..offsets];
    pixels.fill_offsets(own);
    let pixels = Pixels { offsets: own, parts, ..pixels };
    let per_group = weights.outputs / weights.groups;
    for (index, b) in groups.iter().enumerate() {
        let first = index * per_group;
        let pixels = Pixels { start: pixels.start + index * weights.group_places(), ..pixels };
        let mut plan = target.plan(kernels, pixels, b);
        let (rows, columns) = plan.cuts();
        plan.grid = target.grid(rows, columns, first).0;
        let epilogue = target.epilogue(epilogue, first, per_group);
        product(kernels, pixels, b, &epilogue, (&plan, scratch), out);
    }
}
