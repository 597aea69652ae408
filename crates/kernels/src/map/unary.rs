//! Elementwise functions of one operand.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::{BLOCK, GRAIN};
use crate::Kernels;
use crate::math::real::{self as math, maximum, minimum};
use crate::simd::{Lanes, Real, Simd, Task, WIDTH, chunks};
use crate::stores::Stores;

#[inline(always)]
fn splat<V: Real>(value: f32) -> V {
    V::splat(value)
}

#[inline(always)]
fn quotient<V: Real>(a: V, b: V) -> V {
    a / b
}

#[inline(always)]
fn choose<V: Real>(mask: V::Mask, a: V, b: V) -> V {
    V::select(mask, a, b)
}

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
                self.apply(x)
            }

            #[inline(always)]
            pub(crate) fn apply<V: Real>(self, x: V) -> V {
                match self {
                    $(Unary::$name $({ $($field),* })? => { let $x = x; $($(let $field = V::splat($field);)*)? $body })*
                }
            }
        }

        impl Task for UnaryTask<'_> {
            type Output = ();

            /// The choice of the function is outside of the loop over the values.
            #[inline(always)]
            fn run<L: Lanes>(self) {
                let UnaryTask { function, source, stores, out } = self;
                let pairs = source.iter().zip(out);
                if L::ONE_BY_ONE {
                    // The portable code for vectors is long, and no faster.
                    for (x, out) in pairs.flat_map(|(source, out)| source.iter().zip(out)) {
                        *out = stores.one(f16::from_f32(function.eval(x.to_f32())));
                    }
                    return;
                }
                match function {
                    $(Unary::$name $({ $($field),* })? => {
                        $($(let $field = <L::Vector as Real>::splat($field);)*)?
                        for (source, out) in pairs {
                            let $x = L::read(source);
                            L::write(stores.vector::<L>($body), out);
                        }
                    })*
                }
            }
        }
    };
}

unary_functions! {
    /// `max(0, x)`.
    Relu => |x| maximum(splat(0.0), x);
    /// `min(6, max(0, x))`.
    Relu6 => |x| minimum(splat(6.0), maximum(splat(0.0), x));
    /// `x Phi(x)`, see [`crate::math::gelu`].
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
    Sqrt => |x| x.sqrt();
    /// The absolute value.
    Abs => |x| x.abs();
    /// The error function.
    Erf => |x| math::erf(x);
    /// `x / (1 + |x|)`.
    Softsign => |x| x / (x.abs() + splat(1.0));
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
    Round => |x| {
        let whole = x.abs().floor();
        let up = (x.abs() - whole).ge(splat(0.5));
        choose(up, whole + splat(1.0), whole).copysign(x)
    };
    /// -1, 0 or 1; NaN of NaN.
    Sign => |x| {
        let sign = choose(x.lt(splat(0.0)), splat(-1.0), splat(0.0));
        let sign = choose(x.gt(splat(0.0)), splat(1.0), sign);
        choose(x.is_nan(), x, sign)
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
    } => |x| quotient(splat(1.0), x + eps);
    /// `x` above zero, else `alpha (e^x - 1)`.
    Elu {
        /// The factor below zero.
        alpha
    } => |x| {
        let below = alpha * math::exp_m1(x);
        choose(x.gt(splat(0.0)), x, below)
    };
    /// `x` from zero, else `alpha x`.
    LeakyRelu {
        /// The slope below zero.
        alpha
    } => |x| choose(x.ge(splat(0.0)), x, alpha * x);
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
    } => |x| choose(x.is_nan(), x, choose(x.ge(alpha), x, splat(0.0)));
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
        let sloped = choose(x.ge(splat(0.0)), x, alpha * x);
        minimum(beta, sloped)
    };
    /// `alpha x + beta`, limited to 0 and 1; the product and the sum round once each, in `f32`.
    SigmoidHard {
        /// The slope.
        alpha,
        /// The value at zero.
        beta
    } => |x| minimum(splat(1.0), maximum(splat(0.0), alpha * x + beta));
    /// `alpha x + beta`; the product and the sum round once each, in `f32`.
    Linear {
        /// The slope.
        alpha,
        /// The value at zero.
        beta
    } => |x| alpha * x + beta;
    /// The square root, +0 of minus zero: [`Unary::Sqrt`] on the engine.
    EngineSqrt => |x| (x + splat(0.0)).sqrt();
    /// `ln(x + eps)`, but not below a least value: [`Unary::Log`] on the engine.
    EngineLog {
        /// Added to `x`.
        eps,
        /// The value at zero.
        least
    } => |x| {
        let log = math::log(x + eps);
        choose(log.lt(least), least, log)
    };
    /// `ln(1 + e^x)`, 0 from a point on: [`Unary::Softplus`] on the engine.
    EngineSoftplus {
        /// The point.
        end
    } => |x| choose(x.ge(end), splat(0.0), math::softplus(x));
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
pub fn unary(kernels: &Kernels, function: Unary, x: &[f16], stores: Stores<'_>, out: &mut [f16]) {
    assert_eq!(x.len(), out.len(), "unary: lengths differ");
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        map_slice(kernels.simd, function, Some(&x[start..start + out.len()]), stores, out);
    });
}

/// `x[i] = f16(function(x[i]))`.
pub fn unary_in_place(kernels: &Kernels, function: Unary, x: &mut [f16]) {
    let stores = Stores::default();
    chunks(&kernels.pool, x, GRAIN, |_, out| map_slice(kernels.simd, function, None, stores, out));
}

/// The function of every value of `source`, or of `out` itself.
pub(crate) fn map_slice(
    simd: Simd,
    function: Unary,
    source: Option<&[f16]>,
    stores: Stores<'_>,
    out: &mut [f16],
) {
    let Some(source) = source else { return map_in_place(simd, function, stores, out) };
    let (blocks, rest) = out.as_chunks_mut();
    let (source, last) = source.as_chunks();
    if !blocks.is_empty() {
        simd.run(UnaryTask { function, source, stores, out: blocks });
    }
    if !rest.is_empty() {
        // Padding must not tell of something that is not there, as a logarithm of zero would.
        let mut source = [last[0]; WIDTH];
        source[..last.len()].copy_from_slice(last);
        let mut out = [f16::ZERO; WIDTH];
        let (source, all) = (std::slice::from_ref(&source), std::slice::from_mut(&mut out));
        simd.run(UnaryTask { function, source, stores, out: all });
        rest.copy_from_slice(&out[..rest.len()]);
    }
}

fn map_in_place(simd: Simd, function: Unary, stores: Stores<'_>, out: &mut [f16]) {
    let mut source = [f16::ZERO; BLOCK];
    for out in out.chunks_mut(BLOCK) {
        let source = &mut source[..out.len()];
        source.copy_from_slice(out);
        map_slice(simd, function, Some(source), stores, out);
    }
}

struct UnaryTask<'a> {
    function: Unary,
    source: &'a [[f16; WIDTH]],
    stores: Stores<'a>,
    out: &'a mut [[f16; WIDTH]],
}

/// Stores positive infinity in place of every NaN and returns how many there were: what the engine does to what it is fed.
pub fn sanitize(kernels: &Kernels, out: &mut [f16]) -> usize {
    count_replaced(kernels, out, |bits| if bits & 0x7fff > 0x7c00 { 0x7c00 } else { bits })
}

fn without_nan(bits: u16) -> u16 {
    if bits & 0x7fff > 0x7c00 { 0 } else { bits }
}

/// Stores values again as `stores` says.
pub fn store_again(kernels: &Kernels, stores: Stores<'_>, out: &mut [f16]) {
    chunks(&kernels.pool, out, GRAIN, |_, out| {
        if has_special(kernels.simd, out) {
            stores.watch.inspect(|watch| watch.note());
            if stores.flush_nan {
                flush(kernels.simd, out);
            }
        }
    });
}

/// Whether there is an infinity or a NaN.
pub(super) fn has_special(simd: Simd, values: &[f16]) -> bool {
    simd.run(SpecialTask { bits: bytemuck::cast_slice(values) })
}

/// Stores +0 in place of every NaN.
pub(super) fn flush(simd: Simd, values: &mut [f16]) {
    simd.run(ReplaceTask { out: bytemuck::cast_slice_mut(values), replace: &without_nan });
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

/// See [`has_special`].
struct SpecialTask<'a> {
    bits: &'a [u16],
}

impl Task for SpecialTask<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<L: Lanes>(self) -> bool {
        self.bits.chunks(BLOCK).any(|block| {
            // A fold without a branch is computed side by side.
            block.iter().fold(false, |any, bits| any | (bits & 0x7c00 == 0x7c00))
        })
    }
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
