//! Pooling over square or rectangular windows of an image.

mod cells;

use crate::ir::form::{Facts, Form, Pooling};
use crate::ir::op::{Arg, Case, Fixed, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::four;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_kernels::pool;
use aneforge_tensor::{Shape, f16};
use cells::one_hot;

op! {
    /// The greatest element of each window.
    ///
    /// `x` is `[N, C, H, W]`; `Ho = (H + top + bottom - k + r)/s + 1`, rounded down, with `r = s - 1` when
    /// `ceil_mode` else 0. Padding never wins.
    /// In Python, `x.max_pool(2)`.
    pub struct MaxPool = "max_pool"("x") {
        /// Rows and columns of a window.
        kernel_sizes: [i64; 2],
        /// Steps between windows.
        strides: [i64; 2] = [1, 1],
        /// Padding: top, bottom, left, right.
        pad: [i64; 4] = [0; 4],
        /// Whether a last, partial window counts.
        ceil_mode: bool = false,
    }
}

op! {
    /// The mean of each window.
    ///
    /// Extents are those of `max_pool`. The sum is taken in single precision, window cell `i` in lane
    /// `i % 16`, and divided by the window's size, or by its valid cells when `exclude_pad`.
    /// In Python, `x.avg_pool(2)`.
    pub struct AvgPool = "avg_pool"("x") {
        /// Rows and columns of a window.
        kernel_sizes: [i64; 2],
        /// Steps between windows.
        strides: [i64; 2] = [1, 1],
        /// Padding: top, bottom, left, right.
        pad: [i64; 4] = [0; 4],
        /// Whether a last, partial window counts.
        ceil_mode: bool = false,
        /// Whether to divide by the number of cells that are not padding.
        exclude_pad: bool = false,
    }
}

/// A pooling window and how it moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub kernel: [i64; 2],
    pub strides: [i64; 2],
    pub pad: [i64; 4],
    pub ceil: bool,
}

impl Window {
    fn infer(&self, x: &TensorType) -> Result<TensorType, String> {
        half_only(x)?;
        if x.shape.rank() != 4 {
            return Err(format!("x must be [N, C, H, W], got {}", x.shape));
        }
        if self.kernel.iter().chain(&self.strides).any(|&v| v < 1) || self.pad.iter().any(|&v| v < 0) {
            return Err(format!(
                "kernel {:?} and strides {:?} must be at least 1, pad {:?} at least 0",
                self.kernel, self.strides, self.pad
            ));
        }
        let mut shape = x.shape;
        for axis in 0..2 {
            let (kernel, stride) = (self.kernel[axis], self.strides[axis]);
            let (before, after) = (self.pad[2 * axis], self.pad[2 * axis + 1]);
            if before >= kernel || after >= kernel {
                return Err(format!(
                    "pad {:?} leaves windows of {:?} with padding alone",
                    self.pad, self.kernel
                ));
            }
            let padded = x.shape[2 + axis] as i64 + before + after;
            if padded < kernel {
                return Err(format!(
                    "a window of {kernel} is larger than axis {}, padded to {padded}",
                    2 + axis
                ));
            }
            let rounding = if self.ceil { stride - 1 } else { 0 };
            let mut out = (padded - kernel + rounding) / stride + 1;
            // A partial window must start inside the image or its leading padding.
            if (out - 1) * stride >= x.shape[2 + axis] as i64 + before {
                out -= 1;
            }
            shape = shape.with(2 + axis, out as usize);
        }
        Ok(TensorType::f16(shape))
    }

    /// The same as the kernels take it.
    fn moving(&self) -> pool::Window {
        pool::Window {
            kernel: self.kernel.map(|v| v as usize),
            stride: self.strides.map(|v| v as usize),
            pad: self.pad.map(|v| v as usize),
        }
    }

    /// The cells of output `(oy, ox)`'s window: `None` where they are padding.
    fn cells(&self, x: Shape, oy: usize, ox: usize) -> impl Iterator<Item = Option<usize>> + use<'_> {
        let [_, _, h, w] = four(x);
        (0..self.kernel[0]).flat_map(move |i| {
            (0..self.kernel[1]).map(move |j| {
                let y = usize::try_from(oy as i64 * self.strides[0] + i - self.pad[0]).ok()?;
                let z = usize::try_from(ox as i64 * self.strides[1] + j - self.pad[2]).ok()?;
                (y < h && z < w).then_some(y * w + z)
            })
        })
    }

    fn eval(
        &self,
        x: &Array,
        out: Shape,
        mut window: impl FnMut(&mut dyn Iterator<Item = Option<f64>>) -> f64,
    ) -> Array {
        let [_, _, h, w] = four(x.shape);
        let [_, _, ho, wo] = four(out);
        Array::from_fn(out, |index| {
            let plane = &x.data[index / (ho * wo) * h * w..][..h * w];
            let cells = self.cells(x.shape, index / wo % ho, index % wo);
            window(&mut cells.map(|cell| cell.map(|at| plane[at])))
        })
    }

    /// Bottom and right padding with which the windows end where the image does or beyond, and how much of it
    /// they cover.
    pub(crate) fn covering_pad(&self, x: Shape, out: Shape) -> ([i64; 4], [usize; 2]) {
        let mut pad = self.pad;
        let mut covered = [0; 2];
        for axis in 0..2 {
            let reach = (out[2 + axis] as i64 - 1) * self.strides[axis] + self.kernel[axis] - pad[2 * axis];
            let extent = x[2 + axis] as i64;
            pad[2 * axis + 1] = (reach - extent).max(0);
            covered[axis] = reach.min(extent) as usize;
        }
        (pad, covered)
    }
}

impl MaxPool {
    pub(crate) fn window(&self) -> Window {
        Window { kernel: self.kernel_sizes, strides: self.strides, pad: self.pad, ceil: self.ceil_mode }
    }
}

impl AvgPool {
    pub(crate) fn window(&self) -> Window {
        Window { kernel: self.kernel_sizes, strides: self.strides, pad: self.pad, ceil: self.ceil_mode }
    }
}

impl Operator for MaxPool {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.window().infer(&x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Pool(self.window().moving(), Pooling::Max)
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::MOVED
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        self.window()
            .eval(x[0], out.shape, |cells| p.store(cells.flatten().fold(f64::NEG_INFINITY, f64::max)))
    }
    /// Each cotangent goes to the first cell of its window that holds the maximum.
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        let window = self.window();
        let (zero, one) = (Var::from(0.0), Var::from(1.0));
        if window.tiles(x[0].shape()) {
            let (apart, mut left, mut cells) = (window.apart(&x[0]), dy.clone(), Vec::new());
            for i in 0..self.kernel_sizes[0] as usize {
                for j in 0..self.kernel_sizes[1] as usize {
                    let wins = window.cell(&apart, y.shape(), (i, j)).equal(y).select(&left, &zero);
                    left = left - &wins;
                    cells.push(wins);
                }
            }
            return vec![Grad::To(window.assembled(x[0].shape(), &cells))];
        }
        let (mut left, mut dx) = (dy.clone(), None::<Var>);
        for i in 0..self.kernel_sizes[0] as usize {
            for j in 0..self.kernel_sizes[1] as usize {
                let (cell, valid) = window.gather(&x[0], y.shape(), (i, j));
                let mut wins = cell.equal(y).select(&left, &zero);
                if let Some(valid) = valid {
                    wins = valid.equal(&one).select(&wins, &zero);
                }
                left = left - &wins;
                let part = window.scatter(x[0].shape(), &one_hot(self.kernel_sizes, (i, j)), &wins);
                dx = Some(dx.map_or_else(|| part.clone(), |dx| dx + &part));
            }
        }
        vec![Grad::To(dx.expect("invariant: a window has cells"))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "max_pool",
            args: &[
                ("ceil_mode", Arg::Named("ceil_mode", Lit::Bool)),
                ("kernel_sizes", Arg::Named("kernel_sizes", Lit::Ints)),
                ("pad", Arg::Named("pad", Lit::Ints)),
                ("pad_type", Arg::NamedFixed(Fixed::Str("custom"))),
                ("strides", Arg::Named("strides", Lit::Ints)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |op: MaxPool, x: &[usize]| Case::new(op, &[x], (-4.0, 4.0), Tolerance::EXACT);
        let plain = MaxPool { kernel_sizes: [2, 2], strides: [2, 2], pad: [0; 4], ceil_mode: false };
        vec![
            on(plain.clone(), &[1, 3, 4, 6]),
            on(MaxPool { kernel_sizes: [3, 3], pad: [1; 4], ..plain.clone() }, &[2, 2, 5, 4]),
            on(MaxPool { ceil_mode: true, ..plain.clone() }, &[1, 2, 5, 3]),
            on(MaxPool { kernel_sizes: [1, 3], strides: [1, 2], pad: [0, 0, 2, 1], ..plain }, &[1, 1, 3, 6]),
        ]
    }
}

impl Operator for AvgPool {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        self.window().infer(&x[0])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        let exclude_pad = self.exclude_pad;
        Form::Pool(self.window().moving(), Pooling::Mean { exclude_pad })
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let size = (self.kernel_sizes[0] * self.kernel_sizes[1]) as f64;
        self.window().eval(x[0], out.shape, |cells| {
            let (mut sum, mut valid) = (p.sum(), 0.0);
            for cell in cells {
                match cell {
                    Some(v) => {
                        sum.push(v);
                        valid += 1.0;
                    }
                    None => sum.skip(),
                }
            }
            p.store(p.divide(sum.total(), if self.exclude_pad { valid } else { size }))
        })
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        let size = self.kernel_sizes[0] * self.kernel_sizes[1];
        let share = if self.exclude_pad {
            dy / self.window().counts(x[0].shape(), y.shape())
        } else {
            dy.muls(1.0 / size as f64)
        };
        let window = self.window();
        if window.tiles(x[0].shape()) {
            let cells = vec![share; size as usize];
            return vec![Grad::To(window.assembled(x[0].shape(), &cells))];
        }
        vec![Grad::To(window.scatter(x[0].shape(), &vec![f16::ONE; size as usize], &share))]
    }
    fn mil() -> Mil {
        Mil::Stmt(Spelling {
            op: "avg_pool",
            args: &[
                ("ceil_mode", Arg::Named("ceil_mode", Lit::Bool)),
                ("exclude_padding_from_average", Arg::Named("exclude_pad", Lit::Bool)),
                ("kernel_sizes", Arg::Named("kernel_sizes", Lit::Ints)),
                ("pad", Arg::Named("pad", Lit::Ints)),
                ("pad_type", Arg::NamedFixed(Fixed::Str("custom"))),
                ("strides", Arg::Named("strides", Lit::Ints)),
                ("x", Arg::In(0)),
            ],
        })
    }
    fn cases() -> Vec<Case> {
        let on = |op: AvgPool, x: &[usize]| Case::new(op, &[x], (-4.0, 4.0), Tolerance::SUM);
        let plain = AvgPool {
            kernel_sizes: [2, 2],
            strides: [2, 2],
            pad: [0; 4],
            ceil_mode: false,
            exclude_pad: false,
        };
        vec![
            on(plain.clone(), &[1, 3, 4, 6]),
            on(AvgPool { kernel_sizes: [3, 3], pad: [1; 4], ..plain.clone() }, &[2, 2, 5, 4]),
            on(
                AvgPool { kernel_sizes: [3, 3], pad: [1; 4], exclude_pad: true, ..plain.clone() },
                &[1, 2, 5, 4],
            ),
            on(AvgPool { ceil_mode: true, ..plain.clone() }, &[1, 2, 5, 3]),
            on(
                AvgPool {
                    kernel_sizes: [3, 2],
                    strides: [2, 1],
                    pad: [1, 0, 1, 1],
                    ceil_mode: true,
                    exclude_pad: true,
                },
                &[2, 1, 4, 3],
            ),
        ]
    }
}

impl Var {
    /// The greatest element of each `k` by `k` window.
    #[track_caller]
    pub fn max_pool(&self, k: usize, stride: usize, pad: usize) -> Var {
        let (k, s, p) = (k as i64, stride as i64, pad as i64);
        Var::apply(MaxPool { kernel_sizes: [k; 2], strides: [s; 2], pad: [p; 4], ceil_mode: false }, &[self])
    }

    /// The mean of each `k` by `k` window, padding included.
    #[track_caller]
    pub fn avg_pool(&self, k: usize, stride: usize, pad: usize) -> Var {
        let (kernel_sizes, strides, pad) = ([k as i64; 2], [stride as i64; 2], [pad as i64; 4]);
        Var::apply(AvgPool { kernel_sizes, strides, pad, ceil_mode: false, exclude_pad: false }, &[self])
    }
}
