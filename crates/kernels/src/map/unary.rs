//! Elementwise functions of one operand.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::{BLOCK, GRAIN};
use crate::Kernels;
use crate::math::{self, maximum, minimum};
use crate::simd::{Lanes, Task, chunks};

macro_rules! unary_functions {
    ($($(#[$doc:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident),* })? => |$x:ident| $body:expr;)*) => {
        /// An elementwise function of one operand, with its parameters.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Unary {
            $($(#[$doc])* $name $({ $($(#[$field_doc])* $field: f32),* })?,)*
        }

        impl Unary {
            /// The function of one value, in `f32`: the definition of the slice routines, before their rounding
            /// to `f16`.
            #[must_use]
            pub fn eval(self, x: f32) -> f32 {
                match self {
                    $(Unary::$name $({ $($field),* })? => { let $x = x; $body })*
                }
            }
        }

        /// [`Unary::eval`] of every value, in place.
        #[inline(always)]
        pub(crate) fn apply(function: Unary, values: &mut [f32]) {
            match function {
                $(Unary::$name $({ $($field),* })? => {
                    for value in values {
                        let $x = *value;
                        *value = $body;
                    }
                })*
            }
        }
    };
}

unary_functions! {
    /// `max(0, x)`.
    Relu => |x| maximum(0.0, x);
    /// `min(6, max(0, x))`.
    Relu6 => |x| minimum(6.0, maximum(0.0, x));
    /// `x Phi(x)`, see [`math::gelu`].
    Gelu => |x| math::gelu(x);
    /// `x / (1 + e^-x)`.
    Silu => |x| math::silu(x);
    /// `1 / (1 + e^-x)`.
    Sigmoid => |x| math::sigmoid(x);
    /// The hyperbolic tangent.
    Tanh => |x| math::tanh(x);
    /// `e^x`.
    Exp => |x| math::exp(x);
    /// `2^x`.
    Exp2 => |x| math::exp2(x);
    /// The square root; NaN below zero.
    Sqrt => |x| math::sqrt(x);
    /// The absolute value.
    Abs => |x| x.abs();
    /// The error function.
    Erf => |x| math::erf(x);
    /// `x / (1 + |x|)`.
    Softsign => |x| x / (1.0 + x.abs());
    /// `ln(1 + e^x)`.
    Softplus => |x| math::softplus(x);
    /// The arc tangent.
    Atan => |x| math::atan(x);
    /// The sine.
    Sin => |x| math::sin(x);
    /// The cosine.
    Cos => |x| math::cos(x);
    /// The largest integer not above `x`.
    Floor => |x| x.floor();
    /// The smallest integer not below `x`.
    Ceil => |x| x.ceil();
    /// The nearest integer, ties away from zero.
    Round => |x| x.round();
    /// -1, 0 or 1; NaN of NaN.
    Sign => |x| {
        let sign = if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { 0.0 };
        if x.is_nan() { x } else { sign }
    };
    /// `x^2`.
    Square => |x| x * x;
    /// `ln(x + eps)`.
    Log {
        /// Added to `x`.
        eps
    } => |x| math::log(x + eps);
    /// `1 / sqrt(x + eps)`.
    Rsqrt {
        /// Added to `x`.
        eps
    } => |x| math::rsqrt(x + eps);
    /// `1 / (x + eps)`.
    Inverse {
        /// Added to `x`.
        eps
    } => |x| 1.0 / (x + eps);
    /// `x` above zero, else `alpha (e^x - 1)`.
    Elu {
        /// The factor below zero.
        alpha
    } => |x| {
        let below = alpha * math::exp_m1(x);
        if x > 0.0 { x } else { below }
    };
    /// `x` from zero, else `alpha x`.
    LeakyRelu {
        /// The slope below zero.
        alpha
    } => |x| if x >= 0.0 { x } else { alpha * x };
    /// `min(hi, max(lo, x))`.
    Clip {
        /// The lower limit.
        lo,
        /// The upper limit.
        hi
    } => |x| minimum(hi, maximum(lo, x));
    /// `max(x, alpha)`.
    Threshold {
        /// The lower limit.
        alpha
    } => |x| maximum(x, alpha);
    /// `x` from `alpha`, else 0; NaN of NaN.
    ThresholdedRelu {
        /// The threshold.
        alpha
    } => |x| if x >= alpha || x.is_nan() { x } else { 0.0 };
    /// `alpha tanh(beta x)`.
    ScaledTanh {
        /// The factor outside.
        alpha,
        /// The factor inside.
        beta
    } => |x| alpha * math::tanh(beta * x);
    /// `min(beta, x)` from zero, else `min(beta, alpha x)`.
    ClampedRelu {
        /// The slope below zero.
        alpha,
        /// The upper limit.
        beta
    } => |x| {
        let sloped = if x >= 0.0 { x } else { alpha * x };
        minimum(beta, sloped)
    };
    /// `alpha x + beta`, limited to 0 and 1; the product and the sum round once each, in `f32`.
    SigmoidHard {
        /// The slope.
        alpha,
        /// The value at zero.
        beta
    } => |x| minimum(1.0, maximum(0.0, alpha * x + beta));
    /// `alpha x + beta`; the product and the sum round once each, in `f32`.
    Linear {
        /// The slope.
        alpha,
        /// The value at zero.
        beta
    } => |x| alpha * x + beta;
    /// `x k`.
    MulScalar {
        /// The factor.
        k
    } => |x| x * k;
    /// `x + k`.
    AddScalar {
        /// The summand.
        k
    } => |x| x + k;
}

/// `out[i] = f16(function(x[i]))`.
///
/// # Panics
/// When the lengths differ.
pub fn unary(kernels: &Kernels, function: Unary, x: &[f16], out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "unary: lengths differ");
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        let source = Some(&x[start..start + out.len()]);
        kernels.simd.run(UnaryTask { function, source, out });
    });
}

/// `x[i] = f16(function(x[i]))`.
pub fn unary_in_place(kernels: &Kernels, function: Unary, x: &mut [f16]) {
    chunks(&kernels.pool, x, GRAIN, |_, out| kernels.simd.run(UnaryTask { function, source: None, out }));
}

struct UnaryTask<'a> {
    function: Unary,
    source: Option<&'a [f16]>,
    out: &'a mut [f16],
}

impl Task for UnaryTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mut buffer = [0.0; BLOCK];
        for (block, out) in self.out.chunks_mut(BLOCK).enumerate() {
            let values = &mut buffer[..out.len()];
            match self.source {
                Some(source) => L::widen(&source[block * BLOCK..block * BLOCK + out.len()], values),
                None => L::widen(out, values),
            }
            apply(self.function, values);
            L::narrow(values, out);
        }
    }
}

/// Stores +0 in place of every NaN and returns how many there were.
pub fn sanitize(kernels: &Kernels, out: &mut [f16]) -> usize {
    count_replaced(kernels, out, |bits| if bits & 0x7fff > 0x7c00 { 0 } else { bits })
}

/// Turns every value of magnitude above `limit` into an infinity of its sign, and returns how many finite
/// values it turned. NaN stays.
pub fn overflow_above(kernels: &Kernels, out: &mut [f16], limit: f16) -> usize {
    let limit = limit.to_bits();
    count_replaced(kernels, out, move |bits| {
        let magnitude = bits & 0x7fff;
        if magnitude > limit && magnitude <= 0x7c00 { bits & 0x8000 | 0x7c00 } else { bits }
    })
}

fn count_replaced(kernels: &Kernels, out: &mut [f16], replace: impl Fn(u16) -> u16 + Sync) -> usize {
    let count = AtomicUsize::new(0);
    chunks(&kernels.pool, out, GRAIN, |_, out| {
        let replaced =
            kernels.simd.run(ReplaceTask { out: bytemuck::cast_slice_mut(out), replace: &replace });
        count.fetch_add(replaced, Ordering::Relaxed);
    });
    count.into_inner()
}

struct ReplaceTask<'a, F> {
    out: &'a mut [u16],
    replace: &'a F,
}

impl<F: Fn(u16) -> u16> Task for ReplaceTask<'_, F> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self) -> usize {
        let mut total = 0;
        for block in self.out.chunks_mut(BLOCK) {
            let mut count = 0_u16;
            for bits in block {
                let replaced = (self.replace)(*bits);
                count += u16::from(replaced != *bits);
                *bits = replaced;
            }
            total += usize::from(count);
        }
        total
    }
}
