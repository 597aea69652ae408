//! The rows that a weight's rows are multiplied with.

use aneforge_kernels::conv::ConvParams;
use aneforge_tensor::Shape;

/// The most rows of one set of inputs that are looked at: of images with more places, each so many-th.
const MOST_ROWS: usize = 1 << 12;
/// Values that are handed on at once.
const PIECE: usize = 1 << 18;
/// Windows of an image that say as much as one row apart. With convolutions of EfficientNet-lite0 whose moments come from 5 to 60
/// windows a column, products of other photographs were off least with a damping of 0.1 to 3, and up to half as far again at 0.01.
const ALIKE: usize = 8;

/// How a value is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Windows {
    /// As rows of so many values.
    Rows(usize),
    /// As what a convolution's kernels lie over.
    Images {
        params: ConvParams,
        groups: usize,
        /// `[N, C, H, W]`.
        image: [usize; 4],
        kernel: [usize; 2],
    },
}

impl Windows {
    /// Of a linear layer.
    pub(super) fn rows(shape: Shape) -> Windows {
        Windows::Rows(shape.dims().last().copied().unwrap_or(1))
    }

    /// Of a convolution of images with kernels `[Cout, Cin/groups, kH, kW]`.
    pub(super) fn images(params: ConvParams, groups: usize, image: Shape, kernels: Shape) -> Windows {
        let image = std::array::from_fn(|axis| image[axis]);
        Windows::Images { params, groups, image, kernel: [kernels[2], kernels[3]] }
    }

    /// Values of a row, which are the columns of the weight.
    pub(super) fn columns(&self) -> usize {
        match *self {
            Windows::Rows(columns) => columns,
            Windows::Images { groups, image, kernel, .. } => image[1] / groups * kernel[0] * kernel[1],
        }
    }

    /// Rows that are as good as one, since neighbours in an image are alike.
    pub(super) fn alike(&self) -> usize {
        match self {
            Windows::Rows(_) => 1,
            Windows::Images { .. } => ALIKE,
        }
    }

    /// Groups that do not mix.
    pub(super) fn groups(&self) -> usize {
        match *self {
            Windows::Rows(_) => 1,
            Windows::Images { groups, .. } => groups,
        }
    }

    /// Shows the rows of a value, of each group, piece by piece.
    pub(super) fn each(&self, value: &[f32], mut see: impl FnMut(usize, &[f32], usize)) {
        let columns = self.columns();
        let at_once = (PIECE / columns.max(1)).max(1);
        let Windows::Images { params, groups, image: [n, c, h, w], kernel } = *self else {
            return value.chunks(at_once * columns).for_each(|rows| see(0, rows, columns));
        };
        let [oh, ow] = params.output_size([h, w], kernel);
        let every = (n * oh * ow).div_ceil(MOST_ROWS).max(1);
        // A step that shares no factor with the width looks at every column of the image.
        let every = (every..).find(|every| gcd(*every, ow.max(1)) == 1).unwrap_or(1);
        let places: Vec<usize> = (0..n * oh * ow).step_by(every).collect();
        let channels = c / groups;
        let mut rows = Vec::with_capacity(at_once * columns);
        for group in 0..groups {
            for places in places.chunks(at_once) {
                rows.clear();
                for &place in places {
                    let (image, y, x) = (place / (oh * ow), place / ow % oh, place % ow);
                    for channel in group * channels..(group + 1) * channels {
                        let plane = &value[(image * c + channel) * h * w..][..h * w];
                        taps(params, kernel, [y, x], |y, x| {
                            let inside = y < h && x < w;
                            rows.push(if inside { plane[y * w + x] } else { 0.0 });
                        });
                    }
                }
                see(group, &rows, columns);
            }
        }
    }
}

/// Where the taps of a kernel lie for one output, row by row; beyond the image for padding.
fn taps(params: ConvParams, kernel: [usize; 2], at: [usize; 2], mut tap: impl FnMut(usize, usize)) {
    let place = |axis: usize, k: usize| {
        (at[axis] * params.stride[axis] + k * params.dilation[axis]).wrapping_sub(params.pad[2 * axis])
    };
    for ky in 0..kernel[0] {
        for kx in 0..kernel[1] {
            tap(place(0, ky), place(1, kx));
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
