//! Elementwise functions of two and three operands, with broadcasting.

use half::f16;

use super::{BLOCK, GRAIN};
use crate::broadcast::Walk;
use crate::math::{self, maximum, minimum};
use crate::simd::{Lanes, Task, chunks};
use crate::{Kernels, View};

/// An elementwise function of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a b`.
    Mul,
    /// `a / b`.
    RealDiv,
    /// The larger; `a` of equals; NaN when either is NaN.
    Maximum,
    /// The smaller; `a` of equals; NaN when either is NaN.
    Minimum,
    /// `a^b`, see [`math::pow`].
    Pow,
}

impl Binary {
    /// The function of one pair, in `f32`: the definition of [`binary`], before its rounding to `f16`.
    #[must_use]
    #[inline(always)]
    pub fn eval(self, a: f32, b: f32) -> f32 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::RealDiv => a / b,
            Binary::Maximum => maximum(a, b),
            Binary::Minimum => minimum(a, b),
            Binary::Pow => math::pow(a, b),
        }
    }
}

/// A comparison; false when either operand is NaN, but for [`Compare::NotEqual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `a < b`.
    Less,
    /// `a <= b`.
    LessEqual,
    /// `a > b`.
    Greater,
    /// `a >= b`.
    GreaterEqual,
    /// `a == b`.
    Equal,
    /// `a != b`.
    NotEqual,
}

impl Compare {
    /// The comparison of one pair: the definition of [`compare`].
    #[must_use]
    #[inline(always)]
    pub fn eval(self, a: f32, b: f32) -> bool {
        match self {
            Compare::Less => a < b,
            Compare::LessEqual => a <= b,
            Compare::Greater => a > b,
            Compare::GreaterEqual => a >= b,
            Compare::Equal => a == b,
            Compare::NotEqual => a != b,
        }
    }
}

/// `out = f16(function(a, b))`, both operands broadcast to `out_shape` as NumPy does.
///
/// # Panics
/// When a shape does not broadcast to `out_shape`, or `out` has another number of elements.
pub fn binary(
    kernels: &Kernels,
    function: Binary,
    a: View<'_, f16>,
    b: View<'_, f16>,
    out_shape: &[usize],
    out: &mut [f16],
) {
    let walk = Walk::broadcast(out_shape, [a.shape, b.shape]);
    assert_eq!(out.len(), out_shape.iter().product::<usize>(), "binary: output length");
    let grain = if function == Binary::Pow { GRAIN / 8 } else { GRAIN };
    chunks(&kernels.pool, out, grain, |start, out| {
        let pairs = Pairs { walk: &walk, a: a.data, b: b.data, start };
        kernels.simd.run(BinaryTask { pairs, function, out });
    });
}

/// `out = comparison(a, b)` as 0 or 1, both operands broadcast to `out_shape` as NumPy does.
///
/// # Panics
/// When a shape does not broadcast to `out_shape`, or `out` has another number of elements.
pub fn compare(
    kernels: &Kernels,
    comparison: Compare,
    a: View<'_, f16>,
    b: View<'_, f16>,
    out_shape: &[usize],
    out: &mut [u8],
) {
    let walk = Walk::broadcast(out_shape, [a.shape, b.shape]);
    assert_eq!(out.len(), out_shape.iter().product::<usize>(), "compare: output length");
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        let pairs = Pairs { walk: &walk, a: a.data, b: b.data, start };
        kernels.simd.run(CompareTask { pairs, comparison, out });
    });
}

struct Pairs<'a> {
    walk: &'a Walk<2>,
    a: &'a [f16],
    b: &'a [f16],
    start: usize,
}

impl Pairs<'_> {
    /// Calls `body(position, a, b)` for blocks of consecutive pairs, as `f32`.
    #[inline(always)]
    fn blocks<L: Lanes>(&self, count: usize, mut body: impl FnMut(usize, &mut [f32], &[f32])) {
        let (mut wide_a, mut wide_b) = ([0.0; BLOCK], [0.0; BLOCK]);
        let [step_a, step_b] = self.walk.inner_strides();
        self.walk.run(self.start, count, |position, length, [at_a, at_b]| {
            if step_b == 0 {
                fill::<L>(self.b, at_b, &mut wide_b[..length.min(BLOCK)]);
            }
            let mut done = 0;
            while done < length {
                let size = BLOCK.min(length - done);
                if step_a == 0 {
                    fill::<L>(self.a, at_a, &mut wide_a[..size]);
                } else {
                    L::widen(&self.a[at_a + done..at_a + done + size], &mut wide_a[..size]);
                }
                if step_b != 0 {
                    L::widen(&self.b[at_b + done..at_b + done + size], &mut wide_b[..size]);
                }
                body(position + done, &mut wide_a[..size], &wide_b[..size]);
                done += size;
            }
        });
    }
}

#[inline(always)]
fn fill<L: Lanes>(source: &[f16], at: usize, target: &mut [f32]) {
    let mut value = [0.0];
    L::widen(&source[at..=at], &mut value);
    target.fill(value[0]);
}

struct BinaryTask<'a> {
    pairs: Pairs<'a>,
    function: Binary,
    out: &'a mut [f16],
}

impl Task for BinaryTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let BinaryTask { pairs, function, out } = self;
        pairs.blocks::<L>(out.len(), |position, a, b| {
            apply(function, a, b);
            L::narrow(a, &mut out[position..position + a.len()]);
        });
    }
}

/// Runs `$body` with `$name` bound to a variant that the compiler knows, so that its loop has no branch.
macro_rules! each_variant {
    ($value:expr, $kind:ident { $($variant:ident)* }, |$name:ident| $body:expr) => {
        match $value {
            $($kind::$variant => { let $name = $kind::$variant; $body })*
        }
    };
}

#[inline(always)]
fn apply(function: Binary, a: &mut [f32], b: &[f32]) {
    each_variant!(function, Binary { Add Sub Mul RealDiv Maximum Minimum Pow }, |known| {
        for (a, b) in a.iter_mut().zip(b) {
            *a = known.eval(*a, *b);
        }
    });
}

struct CompareTask<'a> {
    pairs: Pairs<'a>,
    comparison: Compare,
    out: &'a mut [u8],
}

impl Task for CompareTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let CompareTask { pairs, comparison, out } = self;
        pairs.blocks::<L>(out.len(), |position, a, b| {
            let out = &mut out[position..position + a.len()];
            each_variant!(comparison, Compare { Less LessEqual Greater GreaterEqual Equal NotEqual }, |known| {
                for ((out, a), b) in out.iter_mut().zip(&*a).zip(b) {
                    *out = u8::from(known.eval(*a, *b));
                }
            });
        });
    }
}

/// `out = condition != 0 ? a : b`, all operands broadcast to `out_shape` as NumPy does. Bits are copied.
///
/// # Panics
/// When a shape does not broadcast to `out_shape`, or `out` has another number of elements.
pub fn select(
    kernels: &Kernels,
    condition: View<'_, u8>,
    a: View<'_, f16>,
    b: View<'_, f16>,
    out_shape: &[usize],
    out: &mut [f16],
) {
    let walk = Walk::broadcast(out_shape, [condition.shape, a.shape, b.shape]);
    assert_eq!(out.len(), out_shape.iter().product::<usize>(), "select: output length");
    let (a, b) = (bytemuck::cast_slice(a.data), bytemuck::cast_slice(b.data));
    chunks(&kernels.pool, bytemuck::cast_slice_mut(out), GRAIN, |start, out| {
        kernels.simd.run(SelectTask { walk: &walk, condition: condition.data, a, b, start, out });
    });
}

struct SelectTask<'a> {
    walk: &'a Walk<3>,
    condition: &'a [u8],
    a: &'a [u16],
    b: &'a [u16],
    start: usize,
    out: &'a mut [u16],
}

impl Task for SelectTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let [step_condition, step_a, step_b] = self.walk.inner_strides();
        let contiguous = [step_condition, step_a, step_b] == [1, 1, 1];
        self.walk.run(self.start, self.out.len(), |position, length, [condition, a, b]| {
            let out = &mut self.out[position..position + length];
            if contiguous {
                let condition = &self.condition[condition..condition + length];
                let (a, b) = (&self.a[a..a + length], &self.b[b..b + length]);
                for (index, out) in out.iter_mut().enumerate() {
                    *out = if condition[index] != 0 { a[index] } else { b[index] };
                }
                return;
            }
            let at = |base: usize, step: isize, index: usize| base + step as usize * index;
            for (index, out) in out.iter_mut().enumerate() {
                let a = self.a[at(a, step_a, index)];
                let b = self.b[at(b, step_b, index)];
                *out = if self.condition[at(condition, step_condition, index)] != 0 { a } else { b };
            }
        });
    }
}

/// `out[i] = x[i] == 0`, as 0 or 1.
///
/// # Panics
/// When the lengths differ.
pub fn logical_not(kernels: &Kernels, x: &[u8], out: &mut [u8]) {
    assert_eq!(x.len(), out.len(), "logical_not: lengths differ");
    chunks(&kernels.pool, out, GRAIN * 2, |start, out| {
        for (out, x) in out.iter_mut().zip(&x[start..]) {
            *out = u8::from(*x == 0);
        }
    });
}
