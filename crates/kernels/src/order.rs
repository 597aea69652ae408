//! The accumulation orders, written as plain scalar code: the definitions that every fast path equals bit for
//! bit.
//!
//! They are functions of logical indices only, so neither layout, blocking, vector width nor threads can
//! change a result. The order of [`Dot`] is the one in which the AMX instruction `TDPFP16PS` adds.
//!
//! Processors with AMX-BF16 and without AMX-FP16 do not get a path of their own. An `f16` is exactly the sum of two
//! `bf16`, and the four products of the parts are exact, but each pass rounds its own chains: the defined chain
//! rounds `c + ab` once per term, the passes round `c' + a'b'` four times with other partial sums, and the results
//! differ in the last place of some sums. `tests/it/split.rs` counts such sums.

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
pub fn tree(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}
