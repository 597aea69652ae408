//! The accumulation orders, written as plain scalar code: the definitions that every fast path equals bit for
//! bit.
//!
//! They are functions of logical indices only, so neither layout, blocking, vector width nor threads can
//! change a result. The order of [`Dot`] is the one in which the AMX instruction `TDPFP16PS` adds.
//!
//! [`PartsDot`] is the other order of products, that of [`crate::Sums::Fast`] on processors with AMX-BF16 alone.

/// Terms of a dot product that are summed before they join the accumulator.
pub const BLOCK: usize = 32;

/// Lanes of a reduction.
pub const LANES: usize = 16;

/// Most channels per group for which a convolution keeps its taps together; see [`conv_term`].
pub const NARROW: usize = 4;

/// Taps of one kernel row in a block of a narrow convolution.
pub const NARROW_TAPS: usize = 8;

/// The sum of products of a matrix product or a convolution.
///
/// Per block of 32 consecutive terms, two chains of fused multiply-adds from +0, over the even and over the odd
/// positions; then `accumulator += even + odd`. The accumulator starts at +0. A shorter last block is as if
/// padded with zeros, which changes no bit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dot {
    accumulator: f32,
    chains: [f32; 2],
    position: usize,
}

impl Dot {
    /// Adds the next term.
    pub fn push(&mut self, a: f32, b: f32) {
        let chain = &mut self.chains[self.position % 2];
        *chain = a.mul_add(b, *chain);
        self.position += 1;
        if self.position == BLOCK {
            self.close_block();
        }
    }

    /// Ends the current block, as zeros up to its end would.
    pub fn close_block(&mut self) {
        self.accumulator += self.chains[0] + self.chains[1];
        self.chains = [0.0; 2];
        self.position = 0;
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> f32 {
        self.close_block();
        self.accumulator
    }
}

/// The dot product of two sequences in the order of [`Dot`].
pub fn dot(terms: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    let mut sum = Dot::default();
    for (a, b) in terms {
        sum.push(a, b);
    }
    sum.finish()
}

/// An `f16` as the sum of two `bf16`, which takes up no rounding: the leading 8 of its 11 significant bits, and the rest.
/// A part is zero or at least 2^-24, so that a processor which takes subnormal `bf16` for zeros sees none. The parts of
/// an infinity are not finite, nor are those of NaN.
#[inline(always)]
#[must_use]
pub fn parts(value: f32) -> [f32; 2] {
    let high = f32::from_bits(value.to_bits() & 0xffff_0000);
    [high, value - high]
}

/// Which parts of a value of the left operand and of the right one the passes of [`PartsDot`] multiply.
const PASSES: [(usize, usize); 4] = [(1, 1), (1, 0), (0, 0), (0, 1)];

/// The sum of products of half-precision numbers as `TDPBF16PS` computes it from their [`parts`].
///
/// Every block of 32 terms is added in four passes, each as in [`Dot`]: low times low parts, low times high ones, high
/// times high ones, high times low ones. The products are exact, and passes over low parts that are all zero change no
/// bit. Where a term is not finite, the sum is that of [`Dot`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PartsDot {
    accumulator: f32,
    chains: [[f32; 2]; 4],
    defined: Dot,
}

impl PartsDot {
    /// Adds the next term.
    pub fn push(&mut self, a: f32, b: f32) {
        let (left, right) = (parts(a), parts(b));
        for (chains, (i, j)) in self.chains.iter_mut().zip(PASSES) {
            let chain = &mut chains[self.defined.position % 2];
            *chain = left[i].mul_add(right[j], *chain);
        }
        self.defined.push(a, b);
        if self.defined.position == 0 {
            self.close_block();
        }
    }

    /// Ends the current block, as zeros up to its end would.
    pub fn close_block(&mut self) {
        for [even, odd] in std::mem::take(&mut self.chains) {
            self.accumulator += even + odd;
        }
        if self.defined.position > 0 {
            self.defined.close_block();
        }
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> f32 {
        self.close_block();
        if self.accumulator.is_finite() { self.accumulator } else { self.defined.finish() }
    }
}

/// The dot product of two sequences in the order of [`PartsDot`].
pub fn parts_dot(terms: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    let mut sum = PartsDot::default();
    for (a, b) in terms {
        sum.push(a, b);
    }
    sum.finish()
}

/// The length of the term sequence of a convolution: a multiple of [`BLOCK`].
#[must_use]
pub fn conv_terms(channels: usize, kernel: [usize; 2]) -> usize {
    if channels <= NARROW {
        kernel[0] * kernel[1].div_ceil(NARROW_TAPS) * BLOCK
    } else {
        kernel[0] * kernel[1] * channels.next_multiple_of(BLOCK)
    }
}

/// The tap `(kh, kw, channel within the group)` that a convolution adds as term `index`, or `None` for a zero.
///
/// With more than 4 channels per group: `kh`, then `kw`, then channels padded to blocks of 32. With at most 4:
/// `kh`, then blocks of 8 `kw` of 4 channels each. A tap outside of the image is a zero too.
#[must_use]
pub fn conv_term(index: usize, channels: usize, kernel: [usize; 2]) -> Option<[usize; 3]> {
    let (block, within) = (index / BLOCK, index % BLOCK);
    let tap = if channels <= NARROW {
        let blocks = kernel[1].div_ceil(NARROW_TAPS);
        [block / blocks, block % blocks * NARROW_TAPS + within / NARROW, within % NARROW]
    } else {
        let blocks = channels.div_ceil(BLOCK);
        let tap = block / blocks;
        [tap / kernel[1], tap % kernel[1], block % blocks * BLOCK + within]
    };
    (tap[1] < kernel[1] && tap[2] < channels).then_some(tap)
}

/// A reduction: element `i` of the reduced set, counted in row-major order, goes to lane `i % 16`; each lane
/// combines its elements in turn, and a tree of lanes 8, 4, 2 and 1 apart combines the lanes.
#[derive(Clone, Copy, Debug)]
pub struct LaneSum {
    lanes: [f32; LANES],
    position: usize,
}

impl Default for LaneSum {
    fn default() -> Self {
        LaneSum { lanes: [0.0; LANES], position: 0 }
    }
}

impl LaneSum {
    /// Adds the next element.
    pub fn push(&mut self, value: f32) {
        self.lanes[self.position % LANES] += value;
        self.position += 1;
    }

    /// Passes over an element, as adding a zero would.
    pub fn skip(&mut self) {
        self.position += 1;
    }

    /// The sum.
    #[must_use]
    pub fn finish(self) -> f32 {
        tree(self.lanes, |a, b| a + b)
    }
}

/// The sum of a sequence in the order of [`LaneSum`].
pub fn sum(values: impl IntoIterator<Item = f32>) -> f32 {
    let mut sum = LaneSum::default();
    for value in values {
        sum.push(value);
    }
    sum.finish()
}

/// Combines 16 lanes: lane `j` with lane `j + 8`, then `j + 4`, `j + 2` and `j + 1`.
#[inline(always)]
pub fn tree<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}
