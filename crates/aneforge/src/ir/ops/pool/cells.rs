//! The cells of windows as values, which gradients of pools are written with.

use super::Window;
use crate::ir::ops::conv::{Conv, four, zero_pad};
use crate::ir::ops::conv_transpose::ConvTranspose;
use crate::ir::var::Var;
use aneforge_tensor::{Shape, Tensor, f16};

impl Window {
    /// How many cells of each window are valid, as a constant `[1, 1, Ho, Wo]`.
    pub(super) fn counts(&self, x: Shape, out: Shape) -> Var {
        let [_, _, ho, wo] = four(out);
        let count = |i: usize| self.cells(x, i / wo, i % wo).flatten().count();
        let values: Vec<f16> = (0..ho * wo).map(|i| f16::from_f32(count(i) as f32)).collect();
        plane(&values, ho, wo)
    }

    /// Adds `dy`, scaled by a kernel, back onto the image's cells.
    pub(super) fn scatter(&self, x: Shape, kernel: &[f16], dy: &Var) -> Var {
        let channels = x[1];
        let (pad, covered) = self.covering_pad(x, dy.shape());
        let dims = [channels, 1, self.kernel[0] as usize, self.kernel[1] as usize];
        let shape = Shape::new(&dims).expect("invariant: a window has cells");
        let values: Vec<f16> = (0..channels).flat_map(|_| kernel.iter().copied()).collect();
        let weight =
            Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one kernel per channel"));
        let op = ConvTranspose { strides: self.strides, pad, dilations: [1, 1], groups: channels as i64 };
        let dx = Var::apply(op, &[dy, &weight]);
        let missing = [x[2] - covered[0], x[3] - covered[1]];
        zero_pad(&dx, [0, missing[0] as i64, 0, missing[1] as i64])
    }

    /// Whether windows neither overlap nor leave anything out, nor read padding.
    pub(super) fn tiles(&self, x: Shape) -> bool {
        let whole = |axis: usize| x[2 + axis] as i64 % self.kernel[axis] == 0;
        self.kernel == self.strides && self.pad == [0; 4] && whole(0) && whole(1)
    }

    /// An image with a row for each row of windows: `[rows, kH, Wo, kW]`.
    pub(super) fn apart(&self, x: &Var) -> Var {
        let [n, c, h, w] = four(x.shape()).map(|d| d as i64);
        let [kh, kw] = self.kernel;
        x.reshape(&[n * c * (h / kh), kh, w / kw, kw])
    }

    /// The cell of every window at one tap, of windows that tile the image.
    pub(super) fn cell(&self, apart: &Var, out: Shape, (i, j): (usize, usize)) -> Var {
        apart.narrow(1, i, i + 1).narrow(3, j, j + 1).reshape_to(out)
    }

    /// An image of the cells of its windows, which tile it; `cells` has them by taps, row by row.
    pub(super) fn assembled(&self, x: Shape, cells: &[Var]) -> Var {
        let [_, _, _, w] = four(x).map(|d| d as i64);
        let [kh, kw] = self.kernel;
        let row = |taps: &[Var]| {
            let columns: Vec<Var> = taps.iter().map(|cell| cell.reshape(&[-1, w / kw, 1])).collect();
            Var::concat(&columns.iter().collect::<Vec<_>>(), 2).reshape(&[-1, 1, w])
        };
        let rows: Vec<Var> = cells.chunks(kw as usize).map(row).collect();
        debug_assert_eq!(rows.len() as i64, kh, "a cell for each tap");
        Var::concat(&rows.iter().collect::<Vec<_>>(), 1).reshape_to(x)
    }

    /// The cell of every window at one tap, by a convolution with a kernel of one 1; and where it is valid.
    pub(super) fn gather(&self, x: &Var, out: Shape, tap: (usize, usize)) -> (Var, Option<Var>) {
        let [_, channels, h, w] = four(x.shape());
        let [_, _, ho, wo] = four(out);
        let end = |axis: usize, extent: usize| {
            let last = (out[2 + axis] as i64 - 1) * self.strides[axis] + self.kernel[axis];
            (last - self.pad[2 * axis] - extent as i64).max(0)
        };
        let pad = [self.pad[0], end(0, h), self.pad[2], end(1, w)];
        let dims = [channels, 1, self.kernel[0] as usize, self.kernel[1] as usize];
        let one_hot = one_hot(self.kernel, tap);
        let values: Vec<f16> = (0..channels).flat_map(|_| one_hot.iter().copied()).collect();
        let shape = Shape::new(&dims).expect("invariant: a window has cells");
        let weight =
            Var::constant(Tensor::from_slice(shape, &values).expect("invariant: one kernel per channel"));
        let op = Conv { strides: self.strides, pad, dilations: [1, 1], groups: channels as i64 };
        let cell = Var::apply(op, &[x, &weight]).slice_by_size(&[0; 4], out.dims());
        let index = tap.0 * self.kernel[1] as usize + tap.1;
        let inside = |i: usize| self.cells(x.shape(), i / wo, i % wo).nth(index).flatten().is_some();
        let valid: Vec<f16> = (0..ho * wo).map(|i| f16::from_f32(f32::from(u8::from(inside(i))))).collect();
        let mask = valid.contains(&f16::ZERO).then(|| plane(&valid, ho, wo));
        (cell, mask)
    }
}

fn plane(values: &[f16], h: usize, w: usize) -> Var {
    let shape = Shape::new(&[1, 1, h, w]).expect("invariant: an output plane has cells");
    Var::constant(Tensor::from_slice(shape, values).expect("invariant: one value per cell"))
}

pub(super) fn one_hot(kernel: [i64; 2], tap: (usize, usize)) -> Vec<f16> {
    let mut out = vec![f16::ZERO; (kernel[0] * kernel[1]) as usize];
    out[tap.0 * kernel[1] as usize + tap.1] = f16::ONE;
    out
}
