//! The weights of a convolution, packed.

use half::f16;

use super::image::Channels;
use crate::Kernels;
use crate::gemm::{PackedB, Weight};
use crate::order::{BLOCK, NARROW, NARROW_TAPS, conv_term, conv_terms};
use crate::simd::{COLUMNS, PAIRS, WIDTH};

/// Output channels per group up to which a narrow convolution runs without panels.
const DIRECT_OUTPUTS: usize = 4;

/// The weights of a convolution, packed once, for every instruction set.
#[derive(Clone, Debug)]
pub struct PackedConv {
    pub(super) outputs: usize,
    /// Channels per group.
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) groups: usize,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Narrow and with few outputs per group: `[kh][kw][channel][outputs]`, outputs padded to whole vectors.
    Direct(Vec<f32>),
    /// A right operand per group, whose terms are in the order of [`conv_term`].
    Panels(Vec<PackedB>),
}

impl PackedConv {
    /// Packs weights `[outputs, channels per group, kh, kw]` (OIHW) for [`super::conv2d`].
    ///
    /// # Panics
    /// When the length is not the shape's, or `groups` does not divide the outputs.
    #[must_use]
    pub fn new<W: Weight>(weights: &[W], shape: [usize; 4], groups: usize) -> PackedConv {
        let [outputs, channels, height, width] = shape;
        let mut conv = PackedConv::empty(weights.len(), shape, groups);
        let weight = |output: usize, [kh, kw, channel]: [usize; 3]| {
            weights[((output * channels + channel) * height + kh) * width + kw].to_half()
        };
        conv.data = if channels <= NARROW && outputs / groups <= DIRECT_OUTPUTS {
            Data::Direct(conv.pack_direct(|output, tap| weight(output, tap).to_f32()))
        } else {
            conv.panels(|first, count, terms| {
                PackedB::pack(count, terms, |term, n| {
                    conv_term(term, channels, conv.kernel).map_or(f16::ZERO, |tap| weight(first + n, tap))
                })
            })
        };
        conv
    }

    /// Packs other weights of the same shape in place of these.
    ///
    /// # Panics
    /// When the length is not the shape's, or these are compressed.
    pub fn refill(&mut self, kernels: &Kernels, weights: &[f16]) {
        let [outputs, channels, height, width] = self.shape();
        let (inside, per_group) = (channels * height * width, outputs / self.groups);
        assert_eq!(weights.len(), outputs * inside, "conv: weights are not {:?}", self.shape());
        match &mut self.data {
            Data::Direct(data) => {
                let padded = outputs.next_multiple_of(WIDTH);
                for (place, row) in data.chunks_exact_mut(padded.max(1)).enumerate() {
                    let at = place % channels * height * width + place / channels;
                    let of_outputs = weights.chunks_exact(inside.max(1)).map(|weights| weights[at].to_f32());
                    row.iter_mut().zip(of_outputs).for_each(|(value, weight)| *value = weight);
                }
            }
            Data::Panels(groups) => {
                for (packed, weights) in
                    groups.iter_mut().zip(weights.chunks_exact((inside * per_group).max(1)))
                {
                    packed.each_panel(&kernels.pool, |first, panel| {
                        let columns = weights.chunks_exact(inside.max(1)).skip(first).take(COLUMNS);
                        for (column, weights) in columns.enumerate() {
                            fill_column(weights, [channels, height, width], column, panel);
                        }
                    });
                }
            }
        }
    }

    /// Packs bytes in the order of [`PackedConv::new`] with one `f16` scale per output, and keeps them as bytes; see
    /// [`PackedB::from_int8`].
    ///
    /// # Panics
    /// As [`PackedConv::new`], and when there are not as many scales as outputs.
    #[must_use]
    pub fn from_int8(weights: &[i8], scales: &[f16], shape: [usize; 4], groups: usize) -> PackedConv {
        let mut conv = PackedConv::empty(weights.len(), shape, groups);
        assert_eq!(scales.len(), conv.outputs, "conv: a scale per output");
        conv.data = conv.panels(|first, count, terms| {
            let data = conv.ordered(first, count, |at| at.map_or(0, |at| weights[at]));
            PackedB::from_int8(&data, &scales[first..first + count], count, terms)
        });
        conv
    }

    /// Packs indices of four bits into `table`, two per byte with the first in the low half, in the order of
    /// [`PackedConv::new`], and keeps them so; see [`PackedB::from_lut4`].
    ///
    /// # Panics
    /// As [`PackedConv::new`].
    #[must_use]
    pub fn from_lut4(indices: &[u8], table: [f16; 16], shape: [usize; 4], groups: usize) -> PackedConv {
        let count: usize = shape.iter().product();
        assert_eq!(indices.len(), count.div_ceil(2), "conv: indices are not {shape:?}");
        let mut conv = PackedConv::empty(count, shape, groups);
        // What stands for a tap that there is not meets a zero, and must be finite.
        let finite = table.iter().position(|value| value.is_finite()).unwrap_or(0) as u8;
        conv.data = conv.panels(|first, count, terms| {
            let index = |at: Option<usize>| at.map_or(finite, |at| indices[at / 2] >> (at % 2 * 4) & 0xf);
            let data = conv.ordered(first, count, index);
            let pairs = data.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4);
            PackedB::from_lut4(&pairs.collect::<Vec<u8>>(), table, count, terms)
        });
        conv
    }

    /// Packs the weights of the set bits of `mask`, in the order of [`PackedConv::new`] with the first in the lowest
    /// place of its byte, and keeps only those; see [`PackedB::from_sparse`].
    ///
    /// # Panics
    /// As [`PackedConv::new`], and when the mask's set bits are not as many as `values`.
    #[must_use]
    pub fn from_sparse<W: Weight>(mask: &[u8], values: &[W], shape: [usize; 4], groups: usize) -> PackedConv {
        let count: usize = shape.iter().product();
        assert_eq!(mask.len(), count.div_ceil(8), "conv: mask is not {shape:?}");
        let set = |at: usize| mask[at / 8] >> (at % 8) & 1 == 1;
        let mut dense = vec![None; count];
        let mut next = values.iter();
        for (at, value) in dense.iter_mut().enumerate().filter(|(at, _)| set(*at)) {
            let kept = next.next();
            *value = Some(kept.unwrap_or_else(|| panic!("conv: no value for set bit {at}")).to_half());
        }
        assert!(next.next().is_none(), "conv: a set bit for every value");
        let mut conv = PackedConv::empty(count, shape, groups);
        conv.data = conv.panels(|first, count, terms| {
            let data = conv.ordered(first, count, |at| at.and_then(|at| dense[at]));
            let bytes = data.chunks(8).map(|bits| {
                bits.iter().enumerate().fold(0, |byte, (bit, value)| byte | u8::from(value.is_some()) << bit)
            });
            let kept: Vec<f16> = data.iter().flatten().copied().collect();
            PackedB::from_sparse(&bytes.collect::<Vec<u8>>(), &kept, count, terms)
        });
        conv
    }

    fn empty(count: usize, shape: [usize; 4], groups: usize) -> PackedConv {
        let [outputs, channels, height, width] = shape;
        assert_eq!(count, shape.iter().product::<usize>(), "conv: weights are not {shape:?}");
        assert!(groups > 0 && outputs.is_multiple_of(groups), "conv: {outputs} outputs in {groups} groups");
        let data = Data::Panels(Vec::new());
        PackedConv { outputs, channels, kernel: [height, width], groups, data }
    }

    /// `pack(first output, outputs, terms)` of every group.
    fn panels(&self, pack: impl Fn(usize, usize, usize) -> PackedB) -> Data {
        let (per_group, terms) = (self.outputs / self.groups, conv_terms(self.channels, self.kernel));
        Data::Panels((0..self.groups).map(|group| pack(group * per_group, per_group, terms)).collect())
    }

    /// `value(place among the weights)` of every term of `count` outputs, one output after the other.
    fn ordered<T>(&self, first: usize, count: usize, value: impl Fn(Option<usize>) -> T) -> Vec<T> {
        let (terms, [height, width]) = (conv_terms(self.channels, self.kernel), self.kernel);
        let places = (first..first + count).flat_map(|output| (0..terms).map(move |term| (output, term)));
        let place = |(output, term)| {
            conv_term(term, self.channels, self.kernel)
                .map(|[kh, kw, channel]| ((output * self.channels + channel) * height + kh) * width + kw)
        };
        places.map(|at| value(place(at))).collect()
    }

    fn pack_direct(&self, weight: impl Fn(usize, [usize; 3]) -> f32) -> Vec<f32> {
        let ([height, width], padded) = (self.kernel, self.outputs.next_multiple_of(WIDTH));
        let mut data = vec![0.0; height * width * self.channels * padded];
        for (tap, row) in data.chunks_exact_mut(padded.max(1)).enumerate() {
            let (tap, channel) = (tap / self.channels, tap % self.channels);
            for (output, value) in row.iter_mut().take(self.outputs).enumerate() {
                *value = weight(output, [tap / width, tap % width, channel]);
            }
        }
        data
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

    /// The order in which pixels hold their channels.
    pub(super) fn order(&self) -> Channels {
        let (outputs, groups, channels) = (self.outputs, self.groups, self.channels);
        match &self.data {
            Data::Direct(_) if channels == 1 && outputs == groups => Channels::Same(outputs),
            Data::Direct(_) => Channels::Spread { outputs, per_group: outputs / groups, channels },
            Data::Panels(_) if channels <= NARROW => Channels::Fours { groups, channels },
            Data::Panels(_) => Channels::Same(groups * channels),
        }
    }

    /// Whether pixels may lie as an image has them.
    pub(super) fn reads_in_place(&self) -> bool {
        matches!(self.order(), Channels::Same(_))
    }

    /// Values from the channels of one group to those of the next.
    pub(super) fn group_places(&self) -> usize {
        if self.channels <= NARROW { NARROW } else { self.channels }
    }
}

/// Writes the weights `[channels, kh, kw]` of one output to its column of a panel, in the order of [`conv_term`].
fn fill_column(weights: &[f16], [channels, height, width]: [usize; 3], column: usize, panel: &mut [u32]) {
    let (rows, taps) = (panel.as_chunks_mut::<COLUMNS>().0, height * width);
    for (kh, kw) in (0..height).flat_map(|kh| (0..width).map(move |kw| (kh, kw))) {
        let tap = kh * width + kw;
        let first = if channels <= NARROW {
            let blocks = width.div_ceil(NARROW_TAPS);
            (kh * blocks + kw / NARROW_TAPS) * PAIRS + kw % NARROW_TAPS * (NARROW / 2)
        } else {
            tap * channels.div_ceil(BLOCK) * PAIRS
        };
        for (pair, row) in rows[first..][..channels.div_ceil(2)].iter_mut().enumerate() {
            let bits =
                |channel: usize| weights.get(channel * taps + tap).map_or(0, |w| u32::from(w.to_bits()));
            row[column] = bits(2 * pair) | bits(2 * pair + 1) << 16;
        }
    }
}
