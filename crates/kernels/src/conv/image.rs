//! Images as convolutions read them: padded, pixel after pixel, with the channels of a pixel side by side.

use half::f16;

use super::ConvParams;
use super::pixels::Pixels;
use crate::order::{BLOCK, NARROW};
use crate::simd::{Lanes, Part, Place, Split, TILE_ROWS, Task, WIDTH, chunks, interleave, turn};
use crate::{Kernels, Layout};

/// Values that one thread copies at a time.
const GRAIN: usize = 1 << 14;
/// Pixels and places of a pixel that are copied together.
const PIXELS: usize = 256;
const PLACES: usize = 64;

/// Sizes of one convolution of one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    size: [usize; 2],
    pub(super) out: [usize; 2],
    kernel: [usize; 2],
    params: ConvParams,
    /// Rows and columns of the image that no output reads, at its top and left.
    crop: [usize; 2],
    /// Taps walk the image backwards.
    backwards: bool,
    /// Rows and columns that outputs read, padding included.
    reach: [usize; 2],
}

impl Geometry {
    pub(super) fn new(input: [usize; 4], kernel: [usize; 2], params: &ConvParams) -> Geometry {
        let [_, _, height, width] = input;
        assert!(params.stride.iter().all(|&stride| stride > 0), "conv: stride {:?}", params.stride);
        let out = params.output_size([height, width], kernel);
        // With one output along an axis, its stride is never taken; the room behind the image does not grow with it.
        let stride = std::array::from_fn(|axis| if out[axis] > 1 { params.stride[axis] } else { 1 });
        Geometry::with_size(input, kernel, out, &ConvParams { stride, ..*params })
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
        let [_, _, height, width] = input;
        let reach = std::array::from_fn(|axis| {
            let taps = (kernel[axis].max(1) - 1) * params.dilation[axis];
            (out[axis].max(1) - 1) * params.stride[axis] + taps + 1
        });
        let (size, params) = ([height, width], *params);
        Geometry { size, out, kernel, params, crop: [0; 2], backwards: false, reach }
    }

    pub(super) fn pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// The layout of an image of pixels of `pixel` values that holds just what outputs read.
    pub(super) fn own_layout(&self, pixel: usize) -> Pitches {
        Pitches { start: 0, row: self.reach[1] * pixel, pixel }
    }

    /// Values of such an image, with some behind it that tile registers may read.
    pub(super) fn image_len(&self, pixel: usize) -> usize {
        self.span(self.own_layout(pixel)).next_multiple_of(2 * WIDTH)
    }

    /// Values from the first one that outputs read to behind the last one that tile registers may read.
    fn span(&self, layout: Pitches) -> usize {
        let columns = self.reach[1] + TILE_ROWS * self.params.stride[1];
        (self.reach[0] - 1) * layout.row + columns * layout.pixel + 2 * WIDTH
    }

    /// Whether the parts of an image of this layout can be read in place of it, and take no more than those of an image
    /// of its own, with pixels of `pixel` values.
    pub(super) fn splits(&self, layout: Pitches, pixel: usize) -> bool {
        let whole = layout.row.is_multiple_of(BLOCK) && layout.pixel.is_multiple_of(BLOCK);
        whole && self.span(layout) <= self.image_len(pixel)
    }

    /// Splits what is read of `data`, and says where `pixels` find it.
    pub(super) fn split<'a>(
        &self,
        kernels: &Kernels,
        (data, layout): (&[f16], Pitches),
        parts: &'a mut [Part],
    ) -> (&'a [Part], usize) {
        let len = self.span(layout) / BLOCK * BLOCK;
        let (data, parts) = (&data[layout.start..][..len], &mut parts[..len]);
        chunks(&kernels.pool, parts, GRAIN, |start, target| {
            kernels.simd.run(Split { source: &data[start..start + target.len()], target });
        });
        (parts, layout.start)
    }

    /// How outputs read `data`, an image of layout `layout` whose first pixel is the first that output (0, 0) reads.
    pub(super) fn read<'a>(&self, data: &'a [f16], layout: Pitches, channels: usize) -> Pixels<'a> {
        let ConvParams { stride, dilation, .. } = self.params;
        let Pitches { mut start, row, pixel } = layout;
        let mut tap = [(dilation[0] * row) as isize, (dilation[1] * pixel) as isize];
        if self.backwards {
            let last = |axis: usize| self.kernel[axis].max(1) - 1;
            start += last(0) * dilation[0] * row + last(1) * dilation[1] * pixel;
            tap = tap.map(|tap| -tap);
        }
        let step = [stride[0] * row, stride[1] * pixel];
        Pixels {
            data,
            start,
            step,
            width: self.out[1],
            tap,
            kernel: self.kernel,
            channels,
            offsets: &[],
            parts: None,
        }
    }

    /// The layout of `view` from the first pixel that output (0, 0) reads, when all that outputs and tile registers
    /// read lies in a slice of `len` values, and what lies beyond the image is the view's halo.
    pub(super) fn within(&self, view: &Nhwc, image: usize, len: usize) -> Option<Pitches> {
        let [top, bottom, left, right] = view.halo;
        let ConvParams { pad, stride, .. } = self.params;
        let behind = |axis: usize| self.reach[axis].saturating_sub(pad[2 * axis] + self.size[axis]);
        if self.backwards || top < pad[0] || left < pad[2] || bottom < behind(0) || right < behind(1) {
            return None;
        }
        let before = (pad[0].checked_mul(view.row)?).checked_add(pad[2].checked_mul(view.pixel)?)?;
        let first = view.image.checked_mul(image)?.checked_add(view.start)?.checked_sub(before)?;
        let columns = self.reach[1] + TILE_ROWS * stride[1];
        let rows = (self.reach[0] - 1).checked_mul(view.row)?;
        let last = columns.checked_mul(view.pixel)?.checked_add(rows)?.checked_add(first + 2 * WIDTH)?;
        (last <= len).then_some(Pitches { start: first, row: view.row, pixel: view.pixel })
    }

    /// Whether some output reads the padded row `row`.
    fn reads_row(&self, row: usize) -> bool {
        let first = |kh: usize| kh * self.params.dilation[0];
        (0..self.kernel[0])
            .any(|kh| row >= first(kh) && (row - first(kh)).is_multiple_of(self.params.stride[0]))
    }
}

/// Where pixels lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pitches {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) pixel: usize,
}

/// Images inside a slice, with neighbouring channels: channel `c` of pixel (`y`, `x`) of image `n` is element
/// `start + n * image + y * row + x * pixel + c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nhwc {
    /// The first element of the first image.
    pub start: usize,
    /// Elements from one image to the next.
    pub image: usize,
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one pixel to the next.
    pub pixel: usize,
    /// Rows above and below and columns to the left and to the right of each image that hold zeros. A convolution
    /// that pads by no more reads the image where it lies, if its slice has room behind it as [`Nhwc::len`] counts;
    /// else it copies it first.
    pub halo: [usize; 4],
}

impl Nhwc {
    /// Images of `channels` channels with a halo around each, one after the other.
    #[must_use]
    pub fn padded([height, width]: [usize; 2], channels: usize, halo: [usize; 4]) -> Nhwc {
        let [top, bottom, left, right] = halo;
        let row = (left + width + right) * channels;
        let (image, start) = ((top + height + bottom) * row, top * row + left * channels);
        Nhwc { start, image, row, pixel: channels, halo }
    }

    /// Images `[images, height, width, channels]` with neighbouring channels and this halo; `None` of another array.
    #[must_use]
    pub fn of(layout: &Layout, halo: [usize; 4]) -> Option<Nhwc> {
        match (layout.extents(), layout.strides()) {
            (&[_, _, _, channels], &[image, row, pixel, step]) if step == 1 || channels <= 1 => {
                Some(Nhwc { start: layout.start(), image, row, pixel, halo })
            }
            _ => None,
        }
    }

    /// The array of so many images of this size.
    #[must_use]
    pub fn layout(&self, images: usize, [height, width]: [usize; 2], channels: usize) -> Layout {
        let strides = [self.image, self.row, self.pixel, 1];
        Layout::new(self.start, &[images, height, width, channels], &strides)
    }

    /// Puts zeros around images of this size that lie one after the other as [`Nhwc::padded`] has them.
    ///
    /// # Panics
    /// When they do not lie in `out`.
    pub fn clear_halo(&self, images: usize, [height, width]: [usize; 2], channels: usize, out: &mut [f16]) {
        let used = width * channels;
        for image in out[..images * self.image].chunks_exact_mut(self.image.max(1)) {
            let mut after = 0;
            for row in 0..height {
                let start = self.start + row * self.row;
                image[after..start].fill(f16::ZERO);
                after = start + used;
            }
            image[after..].fill(f16::ZERO);
        }
    }

    /// Where the pixels of image `image` lie.
    pub(super) fn pitches(&self, image: usize) -> Pitches {
        Pitches { start: self.start + image * self.image, row: self.row, pixel: self.pixel }
    }

    /// Where the pixels of images of this size lie.
    pub(crate) fn place(&self, [_, width]: [usize; 2]) -> Place {
        Place { start: self.start, batch: self.image, line: self.row, rows: width.max(1), row: self.pixel }
    }

    /// Checks `images` images of `channels` channels in a slice of `len` elements.
    ///
    /// # Panics
    /// When pixels overlap, or one does not lie in the slice.
    pub(crate) fn check(&self, size: [usize; 2], channels: usize, images: usize, len: usize) {
        let end = self.place(size).end(images, size[0] * size[1], channels);
        assert!(end <= len, "images end at {end}, behind their slice of {len}");
    }

    /// Elements of a slice that holds `images` such images, with as many behind the last as a convolution may read that
    /// goes on by `stride` columns from one output to the next.
    #[must_use]
    pub fn len(&self, images: usize, stride: usize) -> usize {
        self.start + images * self.image + TILE_ROWS * stride * self.pixel + 2 * WIDTH
    }
}

/// Which channel stands where in a pixel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Channels {
    /// As in the image.
    Same(usize),
    /// Four places for each group of so many, with zeros in those that are left over.
    Fours { groups: usize, channels: usize },
    /// The first channel of the group of every output, then the second of all, and so on.
    Spread { outputs: usize, per_group: usize, channels: usize },
}

impl Channels {
    /// Places.
    pub(super) fn len(&self) -> usize {
        match *self {
            Channels::Same(channels) => channels,
            Channels::Fours { groups, .. } => groups * NARROW,
            Channels::Spread { outputs, channels, .. } => outputs * channels,
        }
    }

    /// The channel at place `place`.
    fn at(&self, place: usize) -> Option<usize> {
        match *self {
            Channels::Same(_) => Some(place),
            Channels::Fours { channels, .. } => {
                let within = place % NARROW;
                (within < channels).then_some(place / NARROW * channels + within)
            }
            Channels::Spread { outputs, per_group, channels } => {
                Some(place % outputs / per_group * channels + place / outputs)
            }
        }
    }
}

/// One image.
#[derive(Clone, Copy)]
pub(super) enum Image<'a> {
    /// `[channels, height, width]`.
    Planes(&'a [f16]),
    /// Pixel after pixel, the first being that of the image.
    Pixels(&'a [f16], Pitches),
    /// Pixel after pixel, padded, in the order that the weights want: there is nothing to copy.
    InPlace(&'a [f16], Pitches),
}

/// Writes what outputs read of `source`, padded.
pub(super) fn fill_image(
    kernels: &Kernels,
    source: Image<'_>,
    geometry: &Geometry,
    channels: Channels,
    image: &mut [f16],
) {
    let row = geometry.own_layout(channels.len()).row;
    let (used, slack) = image.split_at_mut(geometry.reach[0] * row);
    slack.fill(f16::ZERO);
    let rows = (GRAIN / row.max(1)).max(1);
    chunks(&kernels.pool, used, rows * row, |start, rows| {
        kernels.simd.run(FillRows { source, geometry, channels, first: start / row.max(1), rows });
    });
}

struct FillRows<'a> {
    source: Image<'a>,
    geometry: &'a Geometry,
    channels: Channels,
    first: usize,
    rows: &'a mut [f16],
}

impl Task for FillRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let FillRows { source, geometry, channels, first, rows } = self;
        let Geometry { size: [height, width], params, crop: [above, before], reach, .. } = *geometry;
        let (pixel, [top, _, left, _]) = (channels.len(), params.pad);
        let left = left.min(reach[1]);
        let before = before.min(width);
        let count = (width - before).min(reach[1] - left);
        for (row, target) in rows.chunks_exact_mut(reach[1] * pixel).enumerate() {
            let row = first + row;
            if !geometry.reads_row(row) {
                continue;
            }
            if row < top || row + above >= top + height {
                target.fill(f16::ZERO);
                continue;
            }
            let (inside, at) = (left * pixel..(left + count) * pixel, (row + above - top, before));
            target[..inside.start].fill(f16::ZERO);
            target[inside.end..].fill(f16::ZERO);
            let target = &mut target[inside];
            match source {
                Image::Planes(x) => {
                    let plane = |channel: usize| &x[channel * height * width + at.0 * width + at.1..];
                    from_planes::<L>(plane, channels, count, target);
                }
                Image::Pixels(x, layout) | Image::InPlace(x, layout) => {
                    let start = layout.start + at.0 * layout.row + at.1 * layout.pixel;
                    for (index, target) in target.chunks_exact_mut(pixel).enumerate() {
                        let x = &x[start + index * layout.pixel..];
                        if let Channels::Same(count) = channels {
                            target.copy_from_slice(&x[..count]);
                            continue;
                        }
                        for (place, target) in target.iter_mut().enumerate() {
                            *target = channels.at(place).map_or(f16::ZERO, |channel| x[channel]);
                        }
                    }
                }
            }
        }
    }
}

/// The first `count` pixels of a row from the rows of all channels.
#[inline(always)]
fn from_planes<'a, L: Lanes>(
    plane: impl Fn(usize) -> &'a [f16],
    channels: Channels,
    count: usize,
    target: &mut [f16],
) {
    let (pixel, target): (_, &mut [u16]) = (channels.len(), bytemuck::cast_slice_mut(target));
    for start in (0..count).step_by(PIXELS) {
        let (count, target) = ((count - start).min(PIXELS), &mut target[start * pixel..]);
        let row = |place: usize| match channels.at(place) {
            Some(channel) => bytemuck::cast_slice(&plane(channel)[start..]),
            None => &[0; PIXELS],
        };
        if pixel == NARROW {
            interleave([row(0), row(1), row(2), row(3)], &mut target.as_chunks_mut().0[..count]);
            continue;
        }
        for first in (0..pixel).step_by(PLACES) {
            let places = (pixel - first).min(PLACES);
            let mut rows: [&[u16]; PLACES] = [&[]; PLACES];
            for (place, target) in rows.iter_mut().enumerate().take(places) {
                *target = row(first + place);
            }
            turn::<L>(&rows[..places], count, &mut target[first..], pixel);
        }
    }
}
