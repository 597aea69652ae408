//! The image as a convolution reads it: `f32`, padded, with the columns of one stride phase side by side, so that
//! the inputs of neighbouring outputs are neighbours for every tap.

use std::ops::Range;

use half::f16;

use super::{ConvParams, PackedConv};
use crate::Kernels;
use crate::order::{BLOCK, NARROW, NARROW_TAPS};
use crate::simd::{COLUMNS, Lanes, Simd, Task, chunks};

/// Values that a copy may touch behind a row.
const SLACK: usize = 64;
/// Values behind a panel that [`Geometry::gather`] may touch.
pub(super) const PANEL_SLACK: usize = 32;
/// Values copied at a time.
pub(super) const STEP: usize = 16;

/// Sizes of one convolution of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    channels: usize,
    size: [usize; 2],
    pub(super) out: [usize; 2],
    kernel: [usize; 2],
    params: ConvParams,
    /// Rows and columns of the image that no output reads, at its top and left.
    crop: [usize; 2],
    /// Taps walk the image backwards.
    backwards: bool,
    /// Columns of one phase.
    phase: usize,
    plane: usize,
}

impl Geometry {
    pub(super) fn new(input: [usize; 4], kernel: [usize; 2], params: &ConvParams) -> Geometry {
        let [_, _, height, width] = input;
        assert!(params.stride.iter().all(|&stride| stride > 0), "conv: stride {:?}", params.stride);
        let out = params.output_size([height, width], kernel);
        Geometry::with_size(input, kernel, out, params)
    }

    /// A convolution of stride 1 whose taps walk the image backwards from `before` rows and columns before output
    /// (0, 0) reads its last tap.
    pub(super) fn backwards(
        input: [usize; 4],
        kernel: [usize; 2],
        out: [usize; 2],
        before: [isize; 2],
        dilation: [usize; 2],
    ) -> Geometry {
        let pad = before.map(|before| before.max(0) as usize);
        let params = ConvParams { stride: [1, 1], pad: [pad[0], 0, pad[1], 0], dilation };
        let crop = before.map(|before| (-before).max(0) as usize);
        Geometry { crop, backwards: true, ..Geometry::with_size(input, kernel, out, &params) }
    }

    fn with_size(input: [usize; 4], kernel: [usize; 2], out: [usize; 2], params: &ConvParams) -> Geometry {
        let [_, channels, height, width] = input;
        let reach = |axis: usize| {
            (out[axis].max(1) - 1) * params.stride[axis]
                + (kernel[axis].max(1) - 1) * params.dilation[axis]
                + 1
        };
        let (rows, phase) = (reach(0), reach(1).div_ceil(params.stride[1]));
        let plane = rows * phase * params.stride[1];
        let (size, params) = ([height, width], *params);
        Geometry { channels, size, out, kernel, params, crop: [0; 2], backwards: false, phase, plane }
    }

    pub(super) fn pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Length of the whole padded image, one value per channel.
    pub(super) fn image_len(&self) -> usize {
        self.planes_len(self.channels)
    }

    /// Length of `planes` padded planes.
    pub(super) fn planes_len(&self, planes: usize) -> usize {
        (planes * self.plane + SLACK).next_multiple_of(STEP)
    }

    /// Whether some output reads the padded row `row`.
    fn reads_row(&self, row: usize) -> bool {
        let first = |kh: usize| kh * self.params.dilation[0];
        (0..self.kernel[0])
            .any(|kh| row >= first(kh) && (row - first(kh)).is_multiple_of(self.params.stride[0]))
    }

    fn row_len(&self) -> usize {
        self.phase * self.params.stride[1]
    }

    /// Where the tap `(kh, kw)` of output (0, 0) lies in channel `channel`.
    #[inline(always)]
    pub(super) fn tap(&self, kh: usize, kw: usize, channel: usize) -> usize {
        let (kh, kw) =
            if self.backwards { (self.kernel[0] - 1 - kh, self.kernel[1] - 1 - kw) } else { (kh, kw) };
        let column = kw * self.params.dilation[1];
        let stride = self.params.stride[1];
        let row = kh * self.params.dilation[0];
        channel * self.plane + row * self.row_len() + column % stride * self.phase + column / stride
    }

    /// Values from one channel to the next.
    pub(super) fn plane(&self) -> usize {
        self.plane
    }

    /// How far the inputs of output row `y` lie behind those of row 0.
    pub(super) fn row_offset(&self, y: usize) -> usize {
        y * self.params.stride[0] * self.row_len()
    }

    pub(super) fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// The runs of inputs that the output pixels `pixels`, at most 32, read for each tap, and how many they are.
    pub(super) fn runs(&self, pixels: Range<usize>) -> ([Run; COLUMNS], usize) {
        let mut runs = [Run::default(); COLUMNS];
        let mut count = 0;
        let mut pixel = pixels.start;
        while pixel < pixels.end {
            let (y, x) = (pixel / self.out[1], pixel % self.out[1]);
            let length = (self.out[1] - x).min(pixels.end - pixel);
            let mut done = 0;
            while done < length {
                let target = pixel + done - pixels.start;
                if count < COLUMNS {
                    runs[count] = Run { source: self.row_offset(y) + x + done, target };
                }
                count += 1;
                done += STEP;
            }
            pixel += length;
        }
        (runs, count)
    }

    /// Writes the panel `[term][32]` of the output pixels `pixels` for group `group`.
    pub(super) fn gather(
        &self,
        simd: Simd,
        image: &[f32],
        weights: &PackedConv,
        group: usize,
        pixels: Range<usize>,
        panel: &mut [f32],
    ) {
        let (runs, count) = self.runs(pixels);
        let first = group * weights.channels;
        let runs = &runs[..count];
        let (geometry, channels) = (self, weights.channels);
        simd.run(Gather { geometry, image, channels, first, runs, panel });
    }
}

/// 16 consecutive inputs and the column of the first.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) source: usize,
    pub(super) target: usize,
}

struct Gather<'a> {
    geometry: &'a Geometry,
    image: &'a [f32],
    channels: usize,
    first: usize,
    runs: &'a [Run],
    panel: &'a mut [f32],
}

impl Gather<'_> {
    /// Fills row `term`. Copies of whole steps spill into the next row, which is filled later.
    #[inline(always)]
    fn row(&mut self, term: usize, source: Option<usize>) {
        let row = &mut self.panel[term * COLUMNS..(term + 1) * COLUMNS + PANEL_SLACK];
        let Some(source) = source else {
            row[..COLUMNS].fill(0.0);
            return;
        };
        let image = &self.image[source..];
        for run in self.runs {
            let from = &image[run.source..run.source + STEP];
            row[run.target..run.target + STEP].copy_from_slice(from);
        }
    }
}

impl Task for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let [height, width] = self.geometry.kernel;
        let mut term = 0;
        for kh in 0..height {
            if self.channels > NARROW {
                for kw in 0..width {
                    let base = self.geometry.tap(kh, kw, self.first);
                    for channel in 0..self.channels.next_multiple_of(BLOCK) {
                        let inside = channel < self.channels;
                        self.row(term, inside.then(|| base + channel * self.geometry.plane));
                        term += 1;
                    }
                }
                continue;
            }
            for kw in 0..width.next_multiple_of(NARROW_TAPS) {
                let base = self.geometry.tap(kh, kw.min(width - 1), self.first);
                for channel in 0..NARROW {
                    let inside = kw < width && channel < self.channels;
                    self.row(term, inside.then(|| base + channel * self.geometry.plane));
                    term += 1;
                }
            }
        }
    }
}

/// A value of a padded image.
pub(super) trait Sample: Copy + Send {
    const ZERO: Self;
    /// Channels in a value: one or two.
    const CHANNELS: usize;
    /// Converts equally long rows of neighbouring channels; the second is empty where there is none.
    fn convert<L: Lanes>(source: [&[f16]; 2], target: &mut [Self]);
}

impl Sample for f32 {
    const ZERO: f32 = 0.0;
    const CHANNELS: usize = 1;

    #[inline(always)]
    fn convert<L: Lanes>([source, _]: [&[f16]; 2], target: &mut [f32]) {
        L::widen(source, target);
    }
}

/// Two channels, the first in the low half.
impl Sample for u32 {
    const ZERO: u32 = 0;
    const CHANNELS: usize = 2;

    #[inline(always)]
    fn convert<L: Lanes>([first, second]: [&[f16]; 2], target: &mut [u32]) {
        if second.is_empty() {
            target.iter_mut().zip(first).for_each(|(to, first)| *to = u32::from(first.to_bits()));
        }
        for ((to, first), second) in target.iter_mut().zip(first).zip(second) {
            *to = u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16;
        }
    }
}

/// Writes the padded image of `x` `[channels, height, width]`, `group` channels of which belong together.
pub(super) fn fill_image<T: Sample>(
    kernels: &Kernels,
    x: &[f16],
    geometry: &Geometry,
    group: usize,
    image: &mut [T],
) {
    let planes = geometry.channels / group.max(1) * group.div_ceil(T::CHANNELS);
    let (used, slack) = image.split_at_mut(planes * geometry.plane);
    slack.fill(T::ZERO);
    let planes = (8192 / geometry.plane.max(1)).max(1);
    chunks(&kernels.pool, used, planes * geometry.plane, |start, planes| {
        kernels.simd.run(FillPlanes { geometry, group, x, first: start / geometry.plane, planes });
    });
}

struct FillPlanes<'a, T> {
    geometry: &'a Geometry,
    group: usize,
    x: &'a [f16],
    first: usize,
    planes: &'a mut [T],
}

impl<T: Sample> Task for FillPlanes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let geometry = self.geometry;
        let [height, width] = geometry.size;
        let [top, _, left, _] = geometry.params.pad;
        let stride = geometry.params.stride[1];
        for (index, plane) in self.planes.chunks_exact_mut(geometry.plane).enumerate() {
            let per_group = self.group.div_ceil(T::CHANNELS);
            let (group, within) = ((self.first + index) / per_group, (self.first + index) % per_group);
            let channel = group * self.group + within * T::CHANNELS;
            let first = &self.x[channel * height * width..][..height * width];
            let paired = T::CHANNELS == 2 && within * 2 + 1 < self.group;
            let second =
                if paired { &self.x[(channel + 1) * height * width..][..height * width] } else { &[] };
            for (row, target) in plane.chunks_exact_mut(geometry.row_len()).enumerate() {
                if !geometry.reads_row(row) {
                    continue;
                }
                let [above, before] = geometry.crop;
                if row < top || row + above >= top + height || before >= width {
                    target.fill(T::ZERO);
                    continue;
                }
                let row = row + above - top;
                let at = row * width + before..(row + 1) * width;
                let source = [&first[at.clone()], second.get(at).unwrap_or_default()];
                if stride == 1 {
                    fill_row::<L, T>(source, left, target);
                } else {
                    fill_phases::<L, T>(source, left, (stride, geometry.phase), target);
                }
            }
        }
    }
}

#[inline(always)]
fn fill_row<L: Lanes, T: Sample>(source: [&[f16]; 2], left: usize, target: &mut [T]) {
    let left = left.min(target.len());
    let count = source[0].len().min(target.len() - left);
    let (before, rest) = target.split_at_mut(left);
    let (inside, after) = rest.split_at_mut(count);
    before.fill(T::ZERO);
    T::convert::<L>(source.map(|row| &row[..count.min(row.len())]), inside);
    after.fill(T::ZERO);
}

#[inline(always)]
fn fill_phases<L: Lanes, T: Sample>(
    source: [&[f16]; 2],
    left: usize,
    (stride, phase): (usize, usize),
    target: &mut [T],
) {
    const BLOCK: usize = 256;
    target.fill(T::ZERO);
    let mut wide = [T::ZERO; BLOCK];
    for (block, first) in source[0].chunks(BLOCK).enumerate() {
        let wide = &mut wide[..first.len()];
        let second = source[1].chunks(BLOCK).nth(block).unwrap_or_default();
        T::convert::<L>([first, second], wide);
        let start = left + block * BLOCK;
        if stride == 2 {
            split_pairs(wide, start, target.split_at_mut(phase));
            continue;
        }
        for first in 0..stride.min(wide.len()) {
            let column = start + first;
            let skip = column % stride * phase;
            let Some(target) = target[skip..skip + phase].get_mut(column / stride..) else { continue };
            for (to, from) in target.iter_mut().zip(wide[first..].iter().step_by(stride)) {
                *to = *from;
            }
        }
    }
}

/// Writes the padded columns from `start` on to the even and the odd phase.
#[inline(always)]
fn split_pairs<T: Copy>(wide: &[T], start: usize, (even, odd): (&mut [T], &mut [T])) {
    let at = (start / 2).min(even.len());
    let (mut first, mut second) = (&mut even[at..], &mut odd[at..]);
    if start % 2 == 1 {
        (first, second) = (second, first.get_mut(1..).unwrap_or_default());
    }
    let (pairs, _) = wide.as_chunks::<2>();
    for ((first, second), pair) in first.iter_mut().zip(second.iter_mut()).zip(pairs) {
        (*first, *second) = (pair[0], pair[1]);
    }
    // `second` may end one before `first`; the last value then has no partner in the loop above.
    let paired = pairs.len().min(second.len());
    if let (Some(first), Some(value)) = (first.get_mut(paired), wide.get(2 * paired)) {
        *first = *value;
    }
}
