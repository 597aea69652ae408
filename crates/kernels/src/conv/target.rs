//! Where the results of a convolution go.

use super::image::{Geometry, Nhwc};
use super::pixels::Pixels;
use crate::gemm::{PackedB, Plan, plan_for};
use crate::simd::{Cuts, Grid, Place};
use crate::{Bias, Epilogue, Kernels};

/// Where the outputs of one image lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Height and width.
    size: [usize; 2],
    /// Pixel after pixel, the first value of the first, from one row to the next and from one pixel to the next; else
    /// the planes of the channels lie one after the other.
    view: Option<(usize, usize, usize)>,
}

impl Target {
    /// `[outputs, height, width]`.
    pub(super) fn planes(geometry: &Geometry) -> Target {
        Target { size: geometry.out, view: None }
    }

    /// As `view` says of image `image`.
    pub(super) fn pixels_of(geometry: &Geometry, view: &Nhwc, image: usize) -> Target {
        let view = Some((view.start + image * view.image, view.row, view.pixel));
        Target { size: geometry.out, view }
    }

    pub(super) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Whether a row of the result holds the pixels of one output: a product is then stored transposed.
    fn is_turned(&self) -> bool {
        self.view.is_none() && self.pixels() > 1
    }

    /// How the product of `pixels` and `b` is cut.
    pub(super) fn plan(&self, kernels: &Kernels, pixels: Pixels<'_>, b: &PackedB) -> Plan {
        let plan = plan_for(kernels, pixels, self.pixels(), b);
        if self.is_turned() { plan.turned() } else { plan }
    }

    /// The grid of so cut pixels and outputs, with `first` outputs before them, and whether it is that of the
    /// transposed result.
    pub(super) fn grid(&self, pixels: Cuts, outputs: Cuts, first: usize) -> (Grid, bool) {
        let count = self.pixels();
        let (rows, columns) = if self.is_turned() { (outputs, pixels) } else { (pixels, outputs) };
        let place = match self.view {
            Some((start, line, row)) => {
                Place { start: start + first, batch: 0, line, rows: self.size[1], row }
            }
            None if count == 1 => Place { start: first, batch: 0, line: 0, rows: 1, row: 0 },
            None => Place { start: first * count, batch: 0, line: 0, rows: usize::MAX, row: count },
        };
        (Grid { batches: 1, rows, columns, place, columns_first: self.is_turned() }, self.is_turned())
    }

    /// `epilogue` for `count` outputs from `first` on.
    pub(super) fn epilogue<'a>(&self, epilogue: &Epilogue<'a>, first: usize, count: usize) -> Epilogue<'a> {
        let own = |bias: Bias<'a>| match bias {
            Bias::Row(values) if self.is_turned() => Bias::Row(&values[first..first + count]),
            Bias::Row(values) => Bias::Column(&values[first..first + count]),
            other => other,
        };
        Epilogue { scale: own(epilogue.scale), bias: own(epilogue.bias), ..*epilogue }
    }
}
