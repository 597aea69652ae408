//! What ops are and what is known of them, said by each in its own file, so that whatever plans, estimates, judges or
//! imports ops asks for that and never for a name.

use aneforge_kernels::channel::Response;
use aneforge_kernels::conv::ConvParams;
use aneforge_kernels::layers::{Combine, Ranking};
use aneforge_kernels::map::{Binary, Compare, Unary};
use aneforge_kernels::pool::Window;
use aneforge_kernels::reduce::Reduction;
use aneforge_tensor::f16;

/// What an op with its attributes does to operands of given types.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Nothing: it is a port or a constant.
    Leaf,
    /// The operand's elements in their order, under another shape.
    View,
    /// One function of every element.
    Map(Unary),
    /// One function of pairs of elements of two operands, which broadcast.
    Zip(Binary),
    /// A truth value for each pair of elements of two operands, which broadcast.
    Compare(Compare),
    /// The opposite of every truth value.
    Not,
    /// Elements of the second operand where the first holds, of the third elsewhere; all three broadcast.
    Select,
    /// Every element in half precision.
    Cast,
    /// The elements along some axes made into one: a set of bits, with axis 0 as the lowest.
    Reduce(Reduction, u32),
    /// A matrix product.
    Product(Product),
    /// For every image and row, the channels and columns of `[N, C, H, W]` by a matrix of `[N, W, H, U]`.
    RowProduct,
    /// A correlation of images `[N, C, H, W]` with kernels `[Cout, Cin/groups, kH, kW]`.
    Conv(ConvParams, usize),
    /// The transpose of a correlation, with kernels `[Cin, Cout/groups, kH, kW]`.
    ConvTranspose(ConvParams, usize),
    /// One value for every window of an image `[N, C, H, W]`.
    Pool(Window, Pooling),
    /// Rows, lanes or channels brought to a common scale.
    Normalise(Norm),
    /// `softmax(query @ key^T * scale + mask) @ value`, of all heads.
    Attention {
        /// The factor of the scores.
        scale: f64,
        /// Whether query `i` sees keys `0..=i` only.
        causal: bool,
    },
    /// Elements brought to other places.
    Move(Move),
    /// An image of another size, interpolated between the four nearest elements.
    Sample(Sampling),
    /// Images seen through affine maps of their coordinates, which the second operand holds.
    Warp(Warp),
    /// `x` where it is positive, else `x` times a slope per channel.
    Prelu,
    /// A layer of the engine that is computed by a kernel of its own.
    Layer(Layer),
    /// Something else, which only the op itself can compute. The text says why it is none of the above.
    Opaque(&'static str),
}

impl Form {
    /// The same on operands whose axis `axes[i]` is axis `i`, where an op of this form does not care what its axes are, or
    /// only which are the channels. The result's axes are in that order then, too.
    pub fn reordered(&self, axes: &[usize]) -> Option<Form> {
        let place = |axis: usize| axes.iter().position(|&a| a == axis);
        let moved = |set: u32| {
            let mut places = (0..axes.len()).filter(|axis| set >> axis & 1 == 1).map(place);
            places.try_fold(0, |set, place| Some(set | 1 << place?))
        };
        let each = |values: &[usize]| -> Option<Vec<usize>> {
            (values.len() == axes.len()).then(|| axes.iter().map(|&axis| values[axis]).collect())
        };
        Some(match self {
            Form::Map(_) | Form::Zip(_) | Form::Compare(_) | Form::Not | Form::Select | Form::Cast => {
                self.clone()
            }
            Form::Prelu | Form::Normalise(Norm::Given { .. }) => self.clone(),
            // Sums go through the elements in the order of their axes.
            Form::Reduce(function, set) => {
                let kept: Vec<_> = (0..axes.len()).filter(|axis| set >> axis & 1 == 1).map(place).collect();
                kept.is_sorted().then_some(())?;
                Form::Reduce(*function, moved(*set)?)
            }
            Form::Normalise(Norm::Softmax(axis)) => Form::Normalise(Norm::Softmax(place(*axis)?)),
            Form::Move(Move::Repeat(times)) => Form::Move(Move::Repeat(each(times)?)),
            Form::Move(Move::Concat(axis)) => Form::Move(Move::Concat(place(*axis)?)),
            Form::Move(Move::Reverse(set)) => Form::Move(Move::Reverse(moved(*set)?)),
            Form::Move(Move::Slice { begin, clamped }) => {
                Form::Move(Move::Slice { begin: each(begin)?, clamped: *clamped })
            }
            _ => return None,
        })
    }
}

/// A matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// `[..., K]` by the transpose of a matrix `[N, K]`.
    Linear,
    /// `[..., M, K]` by `[..., K, N]`; leading axes broadcast.
    Batched,
}

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The greatest element.
    Max,
    /// The mean, of the cells that are no padding or of all.
    Mean {
        /// Whether padding counts as no cell.
        exclude_pad: bool,
    },
}

/// How elements are brought to a common scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Exponentials along this axis, scaled to sum to one.
    Softmax(usize),
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta` over as many elements at a time.
    Centred {
        /// Elements normalised together.
        terms: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// The same over the pixels of each channel, in single precision.
    Instance {
        /// Added to the variance.
        eps: f64,
    },
    /// The same with a mean and a variance that are given for each channel.
    Given {
        /// Added to the variance.
        eps: f64,
    },
    /// `x` divided by the length of as many elements at a time, and scaled.
    Length {
        /// Elements normalised together.
        terms: usize,
    },
    /// `x` divided by a power of the mean square of neighbouring channels.
    Response(Response),
}

/// Where the elements of a result come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// The operand's axes, split into these extents, in another order.
    Transpose {
        /// What the axes are split into, or their own extents.
        extents: Vec<usize>,
        /// Which of them each axis of the result is, before they are joined.
        perm: Vec<usize>,
    },
    /// The whole operand, this often along each axis.
    Repeat(Vec<usize>),
    /// An image of another size, of the elements at or before each place.
    Nearest(Sampling),
    /// A window of the operand.
    Slice {
        /// Its first element, per axis.
        begin: Vec<usize>,
        /// Whether engines that clamp windows with an offset on the last axis clamp this one.
        clamped: bool,
    },
    /// The operands one after another along an axis of the result.
    Concat(usize),
    /// Some axes turned around: a set of bits, with axis 0 as the lowest.
    Reverse(u32),
}

/// Where the rows and columns of an image of another size read, as real numbers between 0 and the last element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Height and width of the operand.
    pub from: [usize; 2],
    /// Height and width of the result.
    pub to: [usize; 2],
    /// How places of the two correspond.
    pub rule: Rule,
}

/// How place `o` of a result of `to` elements corresponds to one of `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `o * from / to`.
    Proportional,
    /// `(o + 0.5) * from / to - 0.5`: the centres of pixels correspond.
    Centres,
    /// `o * (from - 1) / (to - 1)`: the first and last elements correspond.
    Corners,
}

impl Sampling {
    /// The elements at or before each place of an axis, 0 for rows and 1 for columns.
    pub fn before(&self, axis: usize) -> Vec<usize> {
        let (from, to) = (self.from[axis] as u128, self.to[axis] as u128);
        (0..to).map(|o| (o * from / to) as usize).collect()
    }

    /// Both neighbours of each place of an axis, and the share of the second.
    pub fn between(&self, axis: usize) -> Vec<(usize, usize, f64)> {
        let (from, to) = (self.from[axis], self.to[axis]);
        let place = |o: f64| match self.rule {
            Rule::Proportional => o * from as f64 / to as f64,
            Rule::Centres => (o + 0.5) / (to as f64 / from as f64) - 0.5,
            Rule::Corners if to == 1 => 0.0,
            Rule::Corners => o * (from - 1) as f64 / (to - 1) as f64,
        };
        let neighbours = |o: usize| {
            let at = place(o as f64).clamp(0.0, (from - 1) as f64);
            let low = at.floor() as usize;
            (low, (low + 1).min(from - 1), at - low as f64)
        };
        (0..to).map(neighbours).collect()
    }
}

/// An image seen through a map of its coordinates, which go from -1 to 1 on it and on the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warp {
    /// Height and width of the operand.
    pub from: [usize; 2],
    /// Height and width of the result.
    pub to: [usize; 2],
    /// Whether -1 and 1 are the centres of the outermost pixels, and not their edges.
    pub corners: bool,
}

impl Warp {
    /// The coordinate of pixel `i` of the result along an axis, 0 for rows and 1 for columns.
    pub fn coordinate(&self, axis: usize, i: usize) -> f64 {
        match (self.corners, self.to[axis]) {
            (true, 1) => 0.0,
            (true, n) => 2.0 * i as f64 / (n - 1) as f64 - 1.0,
            (false, n) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
        }
    }

    /// A place in pixels of the operand is `coordinate * slope + offset`.
    pub fn pixels(&self, axis: usize) -> [f64; 2] {
        let n = self.from[axis] as f64;
        if self.corners { [(n - 1.0) / 2.0; 2] } else { [n / 2.0, (n - 1.0) / 2.0] }
    }
}

/// A layer of the engine that is computed by a kernel of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// The place of the greatest of `n` elements that lie `step` apart.
    Argmax {
        /// Elements searched.
        n: usize,
        /// From one to the next.
        step: usize,
    },
    /// The elements of each row in order, or their places.
    Rank {
        /// How many rows.
        rows: usize,
        /// In which order, and what is wanted.
        ranking: Ranking,
    },
    /// Points, each as far as can be from those before it.
    Farthest,
    /// Whether points lie within this distance of centres.
    Within(f32),
    /// Distances of elements to their candidates in another line.
    CostVolume,
    /// The cross product of two vectors.
    Cross,
    /// Two lines of elements combined and scaled.
    Scaled(Combine, f16),
}

/// What is known of an op's results, whatever its operands hold. [`Facts::ANY`] says nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// The first input that is a weight, where the op has any: weights do not count as ops.
    pub weights_from: usize,
    /// Finite operands give finite results, and only NaN gives NaN.
    pub stays_finite: bool,
    /// No result is negative.
    pub never_negative: bool,
    /// Every result is an integer.
    pub whole: bool,
    /// Multiplications and additions of a product or convolution, with padding. Of other ops, which move more than they
    /// compute, 0.
    pub flops: f64,
    /// Inputs in which the result is piecewise constant: a set of bits, with input 0 as the lowest.
    pub flat_in: u8,
}

impl Facts {
    /// Nothing is known.
    pub const ANY: Facts = Facts {
        weights_from: usize::MAX,
        stays_finite: false,
        never_negative: false,
        whole: false,
        flops: 0.0,
        flat_in: 0,
    };
    /// Elements are brought to other places.
    pub const MOVED: Facts = Facts { stays_finite: true, ..Facts::ANY };
    /// Truth values: 0 or 1, and flat in both operands.
    pub const TRUTH: Facts =
        Facts { stays_finite: true, never_negative: true, whole: true, flat_in: 3, ..Facts::ANY };
    /// The inputs after the first are weights.
    pub const WEIGHTED: Facts = Facts { weights_from: 1, ..Facts::ANY };
}
