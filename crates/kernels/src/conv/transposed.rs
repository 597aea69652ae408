//! Transposed convolution, as one ordinary convolution per phase of the stride.
//!
//! Outputs whose place has one remainder modulo the stride read the same taps, and those taps walk the image
//! backwards. Taps of other remainders are zeros in the order of the sum, and leaving out a zero changes no bit as
//! long as the terms keep their blocks and their parity; see [`PackedConvTranspose::new`].

use half::f16;

use super::image::{Geometry, Image};
use super::{ConvParams, PackedConv, Target, image_scratch, run_image};
use crate::gemm::Weight;
use crate::order::{Dot, NARROW, NARROW_TAPS, conv_term, conv_terms};
use crate::simd::chunks;
use crate::{Epilogue, Kernels, Residual, Scratch};

/// The weights of a transposed convolution, packed once.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    /// `[channels in, channels out per group, kh, kw]`.
    shape: [usize; 4],
    groups: usize,
    params: ConvParams,
    /// Per remainder, rows first: what its taps are.
    phases: Vec<Phase>,
    /// All weights, where leaving out taps would change the blocks.
    whole: Option<Vec<f16>>,
}

/// The taps of one remainder, and their weights; none without taps.
#[derive(Clone, Debug)]
struct Phase {
    taps: [Taps; 2],
    weights: Option<PackedConv>,
}

/// The taps of one axis that reach outputs of one remainder: `first`, `first + step` and so on, `count` of them.
#[derive(Clone, Copy, Debug)]
struct Taps {
    first: usize,
    step: usize,
    count: usize,
    /// How far back the last of them reaches, in inputs, and how far one reaches beyond the one before.
    reach: isize,
    stride: usize,
}

impl Taps {
    fn new(kernel: usize, stride: usize, dilation: usize, remainder: usize) -> Taps {
        let own = || (0..kernel).filter(|tap| tap * dilation % stride == remainder);
        let (first, count) = (own().next().unwrap_or(0), own().count());
        let step = own().nth(1).map_or(1, |second| second - first);
        let last = first + count.saturating_sub(1) * step;
        let reach = ((last * dilation) as isize - remainder as isize) / stride as isize;
        Taps { first, step, count, reach, stride: step * dilation / stride }
    }
}

impl PackedConvTranspose {
    /// Packs weights `[channels, outputs per group, kh, kw]` for [`conv_transpose2d`] with these parameters.
    ///
    /// # Panics
    /// When the length is not the shape's, `groups` does not divide the channels, or a stride is zero.
    #[must_use]
    pub fn new<W: Weight>(
        weights: &[W],
        shape: [usize; 4],
        groups: usize,
        params: &ConvParams,
    ) -> PackedConvTranspose {
        let [channels, per_group, height, width] = shape;
        assert_eq!(
            weights.len(),
            shape.iter().product::<usize>(),
            "conv_transpose: weights are not {shape:?}"
        );
        assert!(
            groups > 0 && channels.is_multiple_of(groups),
            "conv_transpose: {channels} channels in {groups} groups"
        );
        assert!(params.stride.iter().all(|&stride| stride > 0), "conv_transpose: stride {:?}", params.stride);
        let (inside, [rows, columns]) = (channels / groups, params.stride);
        // With few channels a block holds several taps of a row, and with more taps than fit in one block, leaving
        // some out would move others to another block.
        let narrow = inside <= NARROW && width > NARROW_TAPS && columns > 1;
        let mut packed =
            PackedConvTranspose { shape, groups, params: *params, phases: Vec::new(), whole: None };
        if narrow {
            packed.whole = Some(weights.iter().map(|weight| weight.to_half()).collect());
            return packed;
        }
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let vertical = Taps::new(height, rows, params.dilation[0], row);
            let horizontal = Taps::new(width, columns, params.dilation[1], column);
            let kernel = [per_group * groups, inside, vertical.count, horizontal.count];
            let weights = (vertical.count * horizontal.count > 0).then(|| {
                let mut taps = Vec::with_capacity(kernel.iter().product());
                for (output, channel) in (0..kernel[0]).flat_map(|o| (0..inside).map(move |c| (o, c))) {
                    let from = (output / per_group * inside + channel) * per_group + output % per_group;
                    for kh in (0..vertical.count).map(|tap| vertical.first + tap * vertical.step) {
                        for kw in (0..horizontal.count).map(|tap| horizontal.first + tap * horizontal.step) {
                            taps.push(weights[(from * height + kh) * width + kw].to_half());
                        }
                    }
                }
                PackedConv::new(&taps, kernel, groups)
            });
            packed.phases.push(Phase { taps: [vertical, horizontal], weights });
        }
        packed
    }

    /// Output channels.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.shape[1] * self.groups
    }

    /// Height and width of the result for an image of `size`; 0 where the padding leaves nothing.
    #[must_use]
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        let ConvParams { stride, pad, dilation } = self.params;
        std::array::from_fn(|axis| {
            let taps = self.shape[2 + axis].max(1) - 1;
            let full = (size[axis].max(1) - 1) * stride[axis] + dilation[axis] * taps + 1;
            full.saturating_sub(pad[2 * axis] + pad[2 * axis + 1])
        })
    }

    /// The phase of the outputs `place`, `place + stride` and so on of an image of `input`, and how it reads.
    fn phase(&self, input: [usize; 4], place: [usize; 2]) -> (&Phase, Geometry) {
        let ConvParams { stride, pad, .. } = self.params;
        let shifted = [place[0] + pad[0], place[1] + pad[2]];
        let phase = &self.phases[shifted[0] % stride[0] * stride[1] + shifted[1] % stride[1]];
        let size = self.output_size([input[2], input[3]]);
        let out = std::array::from_fn(|axis| (size[axis] - place[axis]).div_ceil(stride[axis]));
        let before: [isize; 2] =
            std::array::from_fn(|axis| phase.taps[axis].reach - (shifted[axis] / stride[axis]) as isize);
        let kernel = phase.taps.map(|taps| taps.count);
        let dilation = phase.taps.map(|taps| taps.stride);
        (phase, Geometry::backwards(input, kernel, out, before, dilation))
    }

    /// The first outputs of all phases that the result has.
    fn places(&self, size: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
        let [rows, columns] = std::array::from_fn(|axis| self.params.stride[axis].min(size[axis]));
        (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
    }
}

/// Scratch values that [`conv_transpose2d`] needs for an input of shape `[n, c, h, w]`.
#[must_use]
pub fn conv_transpose2d_scratch(
    kernels: &Kernels,
    input: [usize; 4],
    weights: &PackedConvTranspose,
) -> usize {
    if weights.whole.is_some() {
        return 0;
    }
    let size = weights.output_size([input[2], input[3]]);
    let phases = weights.places(size).map(|place| {
        let (phase, geometry) = weights.phase(input, place);
        phase
            .weights
            .as_ref()
            .map_or(0, |conv| image_scratch(kernels, conv, &geometry, &Target::planes(&geometry)))
    });
    phases.max().unwrap_or(0) + stored_len(weights, size)
}

/// Values that the results of all phases of one image take.
fn stored_len(weights: &PackedConvTranspose, size: [usize; 2]) -> usize {
    (weights.outputs() * size[0] * size[1]).div_ceil(2).next_multiple_of(16)
}

/// `out[n, o, y, x] = epilogue(sum over kh, kw, c of x[n, g C + c, (y + top - kh d) / s, (x + left - kw d) / s]
/// w[g C + c, o', kh, kw])` with `g` the group of `o` and `o'` its place in it; taps at which the quotient is not
/// whole or outside of the image are zeros. The sum is in the order of [`crate::order::conv_term`].
///
/// `input` is the shape `[n, c, h, w]` of `x`; `out` is `[n, outputs, oh, ow]` with the size of
/// [`PackedConvTranspose::output_size`].
///
/// # Panics
/// When a slice's length differs from its shape's, the channels do not fit the weights, or the epilogue has a residual or
/// a value per column.
pub fn conv_transpose2d(
    kernels: &Kernels,
    x: &[f16],
    input: [usize; 4],
    weights: &PackedConvTranspose,
    epilogue: &Epilogue<'_>,
    scratch: &mut Scratch,
    out: &mut [f16],
) {
    let [images, channels, height, width] = input;
    let size = weights.output_size([height, width]);
    let pixels = size[0] * size[1];
    assert_eq!(x.len(), input.iter().product::<usize>(), "conv_transpose: input is not {input:?}");
    assert_eq!(channels, weights.shape[0], "conv_transpose: channels");
    assert_eq!(
        out.len(),
        images * weights.outputs() * pixels,
        "conv_transpose: output is not {size:?} per channel"
    );
    assert!(matches!(epilogue.residual, Residual::None), "conv_transpose: no residual");
    epilogue.check_channels();
    epilogue.check(weights.outputs(), pixels, images);
    if out.is_empty() {
        return;
    }
    if let Some(whole) = &weights.whole {
        return one_by_one(x, input, (weights, whole), epilogue, out);
    }
    let scratch = scratch.take(conv_transpose2d_scratch(kernels, input, weights));
    let (stored, scratch) = scratch.split_at_mut(stored_len(weights, size));
    let stored: &mut [f16] = &mut bytemuck::cast_slice_mut(stored)[..weights.outputs() * pixels];
    let len = channels * height * width;
    for (image, out) in out.chunks_exact_mut(weights.outputs() * pixels).enumerate() {
        let x = Image::Planes(&x[image * len..(image + 1) * len]);
        let mut rest = &mut *stored;
        for place in weights.places(size) {
            let (phase, geometry) = weights.phase(input, place);
            let (part, after) = rest.split_at_mut(weights.outputs() * geometry.pixels());
            rest = after;
            if let Some(conv) = &phase.weights {
                let target = Target::planes(&geometry);
                run_image(kernels, x, (&geometry, conv), epilogue, &target, scratch, part);
            } else {
                without_taps(epilogue, geometry.pixels(), part);
            }
        }
        interleave(kernels, weights, size, stored, out);
    }
}

/// The outputs of a phase that no tap reaches.
fn without_taps(epilogue: &Epilogue<'_>, pixels: usize, out: &mut [f16]) {
    for (output, plane) in out.chunks_exact_mut(pixels.max(1)).enumerate() {
        plane.fill(epilogue.eval(0.0, (output, 0), 0));
    }
}

/// Puts the results of the phases where they belong.
fn interleave(
    kernels: &Kernels,
    weights: &PackedConvTranspose,
    size: [usize; 2],
    stored: &[f16],
    out: &mut [f16],
) {
    let (stride, outputs, pixels) = (weights.params.stride, weights.outputs(), size[0] * size[1]);
    let extent = |place: usize, axis: usize| (size[axis] - place).div_ceil(stride[axis]);
    chunks(&kernels.pool, out, pixels, |start, out| {
        for (index, plane) in out.chunks_exact_mut(pixels).enumerate() {
            let output = start / pixels + index;
            let mut at = 0;
            for place in weights.places(size) {
                let (rows, columns) = (extent(place[0], 0), extent(place[1], 1));
                let part = &stored[at + output * rows * columns..][..rows * columns];
                at += outputs * rows * columns;
                for (row, part) in part.chunks_exact(columns).enumerate() {
                    let first = (place[0] + row * stride[0]) * size[1];
                    let row = &mut plane[first..first + size[1]];
                    let targets = row[place[1]..].iter_mut().step_by(stride[1]);
                    targets.zip(part).for_each(|(target, value)| *target = *value);
                }
            }
        }
    });
}

/// The definition itself, for kernels that [`PackedConvTranspose::new`] cannot cut.
fn one_by_one(
    x: &[f16],
    [_, channels, height, width]: [usize; 4],
    (packed, weights): (&PackedConvTranspose, &[f16]),
    epilogue: &Epilogue<'_>,
    out: &mut [f16],
) {
    let [_, per_group, kernel_height, kernel_width] = packed.shape;
    let (size, outputs) = (packed.output_size([height, width]), packed.outputs());
    let (inside, kernel) = (channels / packed.groups, [kernel_height, kernel_width]);
    let ConvParams { stride, pad, dilation } = packed.params;
    let origin = |axis: usize, place: usize, tap: usize, extent: usize| {
        let distance = (place + pad[2 * axis]).checked_sub(tap * dilation[axis])?;
        let at = distance / stride[axis];
        (distance.is_multiple_of(stride[axis]) && at < extent).then_some(at)
    };
    for (index, out) in out.iter_mut().enumerate() {
        let (pixel, plane) = (index % (size[0] * size[1]), index / (size[0] * size[1]));
        let (image, output) = (plane / outputs, plane % outputs);
        let mut sum = Dot::default();
        for term in 0..conv_terms(inside, kernel) {
            let value = conv_term(term, inside, kernel).and_then(|[kh, kw, channel]| {
                let row = origin(0, pixel / size[1], kh, height)?;
                let column = origin(1, pixel % size[1], kw, width)?;
                let channel = output / per_group * inside + channel;
                let x = x[((image * channels + channel) * height + row) * width + column];
                let at = (channel * per_group + output % per_group) * kernel_height + kh;
                Some((x.to_f32(), weights[at * kernel_width + kw].to_f32()))
            });
            let (x, weight) = value.unwrap_or((0.0, 0.0));
            sum.push(x, weight);
        }
        *out = epilogue.eval(sum.finish(), (output, pixel), index);
    }
}
