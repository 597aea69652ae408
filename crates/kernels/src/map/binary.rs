//! Elementwise functions of two and three operands, with broadcasting.

use half::f16;

use super::GRAIN;
use crate::broadcast::Walk;
use crate::math::real as math;
use crate::simd::{Lanes, Real, Task, WIDTH, chunks};
use crate::stores::Stores;
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
    /// `a^b`, see [`crate::math::pow`].
    Pow,
}

impl Binary {
    /// The function of one pair, in `f32`: the definition of [`binary`], before its rounding to `f16`.
    #[must_use]
    #[inline(always)]
    pub fn eval(self, a: f32, b: f32) -> f32 {
        self.apply(a, b)
    }

    #[inline(always)]
    fn apply<V: Real>(self, a: V, b: V) -> V {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::RealDiv => a / b,
            Binary::Maximum => math::maximum(a, b),
            Binary::Minimum => math::minimum(a, b),
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

/// `out = f16(function(a, b))`, both operands broadcast to `out_shape` as NumPy does, stored as `stores` says.
///
/// # Panics
/// When a shape does not broadcast to `out_shape`, or `out` has another number of elements.
pub fn binary(
    kernels: &Kernels,
    function: Binary,
    a: View<'_, f16>,
    b: View<'_, f16>,
    out_shape: &[usize],
    stores: Stores<'_>,
    out: &mut [f16],
) {
    let walk = Walk::broadcast(out_shape, [a.shape, b.shape]);
    assert_eq!(out.len(), out_shape.iter().product::<usize>(), "binary: output length");
    let grain = if function == Binary::Pow { GRAIN / 8 } else { GRAIN };
    chunks(&kernels.pool, out, grain, |start, out| {
        let pairs = Pairs { walk: &walk, a: a.data, b: b.data, start, before: [0; 2] };
        kernels.simd.run(BinaryTask { pairs, function, stores, out });
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
        let pairs = Pairs { walk: &walk, a: a.data, b: b.data, start, before: [0; 2] };
        kernels.simd.run(CompareTask { pairs, comparison, out });
    });
}

/// The operands of consecutive elements of the output.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) walk: &'a Walk<2>,
    pub(super) a: &'a [f16],
    pub(super) b: &'a [f16],
    /// The first element of the output.
    pub(super) start: usize,
    /// Elements of each operand that lie before its slice.
    pub(super) before: [usize; 2],
}

impl<'a> Pairs<'a> {
    /// [`Walk::runs`] of the first `count` elements, with offsets in the slices.
    #[inline(always)]
    pub(super) fn runs(self, count: usize) -> impl Iterator<Item = (usize, usize, [usize; 2])> + use<'a> {
        let [a, b] = self.before;
        self.walk.runs(self.start, count).map(move |(at, length, [x, y])| (at, length, [x - a, y - b]))
    }
}

/// The values of an operand from `at` on, up to `count`; the same one again where the stride is zero.
#[inline(always)]
fn operand<L: Lanes>(data: &[f16], at: usize, stride: isize, count: usize) -> L::Vector {
    match stride {
        1 => L::read_some(&data[at..at + count]),
        0 => L::read(&[data[at]; WIDTH]),
        _ => {
            let mut values = [f16::ZERO; WIDTH];
            for (index, value) in values[..count].iter_mut().enumerate() {
                *value = data[(at as isize + index as isize * stride) as usize];
            }
            L::read(&values)
        }
    }
}

/// The vectors of an operand along a run.
struct Vectors<'a> {
    whole: &'a [[f16; WIDTH]],
    rest: &'a [f16],
    /// From one vector to the next: 0 where a single value is repeated.
    every: usize,
}

impl<'a> Vectors<'a> {
    /// `None` for a stride other than 0 and 1. A value that is repeated is kept in `same`.
    #[inline(always)]
    fn new(
        data: &'a [f16],
        at: usize,
        stride: isize,
        length: usize,
        same: &'a mut [f16; WIDTH],
    ) -> Option<Vectors<'a>> {
        match stride {
            1 => {
                let (whole, rest) = data[at..at + length].as_chunks();
                Some(Vectors { whole, rest, every: 1 })
            }
            0 => {
                *same = [data[at]; WIDTH];
                Some(Vectors { whole: std::slice::from_ref(same), rest: &same[..length % WIDTH], every: 0 })
            }
            _ => None,
        }
    }
}

/// Runs `$body` for vectors of consecutive pairs: `$a` and `$b` are the operands, `$position` and `$count` say
/// where they belong.
macro_rules! each_pair {
    ($lanes:ident, $pairs:expr, $total:expr, |$position:ident, $count:ident, $a:ident, $b:ident| $body:expr) => {{
        let Pairs { walk, a: data_a, b: data_b, start, before: [before_a, before_b] } = $pairs;
        let [step_a, step_b] = walk.inner_strides();
        let mut same = [[f16::ZERO; WIDTH]; 2];
        for (position, length, [at_a, at_b]) in walk.runs(start, $total) {
            let (at_a, at_b) = (at_a - before_a, at_b - before_b);
            let [same_a, same_b] = &mut same;
            let vectors_a = Vectors::new(data_a, at_a, step_a, length, same_a);
            let vectors_b = Vectors::new(data_b, at_b, step_b, length, same_b);
            if let (Some(all_a), Some(all_b)) = (vectors_a, vectors_b) {
                if (all_a.every, all_b.every) == (1, 1) {
                    for (index, (a, b)) in all_a.whole.iter().zip(all_b.whole).enumerate() {
                        let ($position, $count) = (position + index * WIDTH, WIDTH);
                        let ($a, $b) = ($lanes::read(a), $lanes::read(b));
                        $body
                    }
                } else {
                    for index in 0..length / WIDTH {
                        let ($position, $count) = (position + index * WIDTH, WIDTH);
                        let $a = $lanes::read(&all_a.whole[index * all_a.every]);
                        let $b = $lanes::read(&all_b.whole[index * all_b.every]);
                        $body
                    }
                }
                if !all_a.rest.is_empty() {
                    let ($position, $count) = (position + length / WIDTH * WIDTH, all_a.rest.len());
                    let ($a, $b) = ($lanes::read_some(all_a.rest), $lanes::read_some(all_b.rest));
                    $body
                }
                continue;
            }
            for done in (0..length).step_by(WIDTH) {
                let ($position, $count) = (position + done, WIDTH.min(length - done));
                let along = |at: usize, step: isize| (at as isize + done as isize * step) as usize;
                let $a = operand::<$lanes>(data_a, along(at_a, step_a), step_a, $count);
                let $b = operand::<$lanes>(data_b, along(at_b, step_b), step_b, $count);
                $body
            }
        }
    }};
}

pub(super) struct BinaryTask<'a> {
    pub(super) pairs: Pairs<'a>,
    pub(super) function: Binary,
    pub(super) stores: Stores<'a>,
    pub(super) out: &'a mut [f16],
}

/// Runs `$body` with `$name` bound to a variant that the compiler knows, so that its loop has no branch.
macro_rules! each_variant {
    ($value:expr, $kind:ident { $($variant:ident)* }, |$name:ident| $body:expr) => {
        match $value {
            $($kind::$variant => { let $name = $kind::$variant; $body })*
        }
    };
}

impl Task for BinaryTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let BinaryTask { pairs, function, stores, out } = self;
        if L::ONE_BY_ONE {
            let [step_a, step_b] = pairs.walk.inner_strides();
            for (position, length, [at_a, at_b]) in pairs.runs(out.len()) {
                for index in 0..length as isize {
                    let a = pairs.a[(at_a as isize + index * step_a) as usize].to_f32();
                    let b = pairs.b[(at_b as isize + index * step_b) as usize].to_f32();
                    out[position + index as usize] = stores.one(f16::from_f32(function.eval(a, b)));
                }
            }
            return;
        }
        each_variant!(function, Binary { Add Sub Mul RealDiv Maximum Minimum Pow }, |known| {
            each_pair!(L, pairs, out.len(), |position, count, a, b| {
                stores.write_some::<L>(known.apply(a, b), &mut out[position..position + count]);
            })
        });
    }
}

pub(super) struct CompareTask<'a> {
    pub(super) pairs: Pairs<'a>,
    pub(super) comparison: Compare,
    pub(super) out: &'a mut [u8],
}

impl Task for CompareTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let CompareTask { pairs, comparison, out } = self;
        each_variant!(comparison, Compare { Less LessEqual Greater GreaterEqual Equal NotEqual }, |known| {
            each_pair!(L, pairs, out.len(), |position, count, a, b| {
                let (mut first, mut second) = ([0.0; WIDTH], [0.0; WIDTH]);
                L::store(a, &mut first);
                L::store(b, &mut second);
                let pairs = first.iter().zip(&second);
                for (out, (a, b)) in out[position..position + count].iter_mut().zip(pairs) {
                    *out = u8::from(known.eval(*a, *b));
                }
            })
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
    chunks(&kernels.pool, out, GRAIN, |start, out| {
        let (condition, a, b) = (condition.data, a.data, b.data);
        kernels.simd.run(SelectTask { walk: &walk, condition, a, b, start, before: [0; 3], out });
    });
}

pub(super) struct SelectTask<'a> {
    pub(super) walk: &'a Walk<3>,
    pub(super) condition: &'a [u8],
    pub(super) a: &'a [f16],
    pub(super) b: &'a [f16],
    /// The first element of the output.
    pub(super) start: usize,
    /// Elements of each operand that lie before its slice.
    pub(super) before: [usize; 3],
    pub(super) out: &'a mut [f16],
}

impl Task for SelectTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let steps = self.walk.inner_strides();
        let (all_a, all_b): (&[u16], &[u16]) = (bytemuck::cast_slice(self.a), bytemuck::cast_slice(self.b));
        let all: &mut [u16] = bytemuck::cast_slice_mut(self.out);
        self.walk.run(self.start, all.len(), |position, length, at| {
            let [condition, a, b] = std::array::from_fn(|operand| at[operand] - self.before[operand]);
            let out = &mut all[position..position + length];
            let run = Choice { conditions: self.condition, all_a, all_b, condition, a, b };
            run.choose(steps, out);
        });
    }
}

/// A run of a selection: its operands, and where they begin.
struct Choice<'a> {
    conditions: &'a [u8],
    all_a: &'a [u16],
    all_b: &'a [u16],
    condition: usize,
    a: usize,
    b: usize,
}

impl Choice<'_> {
    /// Chooses between operands whose elements are so far apart; each of the usual cases is a loop of its own.
    #[inline(always)]
    fn choose(self, steps: [isize; 3], out: &mut [u16]) {
        let Choice { conditions, all_a, all_b, condition, a, b } = self;
        let length = out.len();
        match steps {
            [0, step_a, step_b] => {
                let (all, at, step) =
                    if conditions[condition] != 0 { (all_a, a, step_a) } else { (all_b, b, step_b) };
                match step {
                    0 => out.fill(all[at]),
                    1 => out.copy_from_slice(&all[at..at + length]),
                    _ => out.iter_mut().enumerate().for_each(|(i, out)| *out = all[apart(at, step, i)]),
                }
            }
            [1, 1, 1] => {
                let (a, b) = (&all_a[a..a + length], &all_b[b..b + length]);
                let pairs = a.iter().zip(b);
                for ((out, chosen), (a, b)) in out.iter_mut().zip(&conditions[condition..]).zip(pairs) {
                    *out = if *chosen != 0 { *a } else { *b };
                }
            }
            [1, 1, 0] => {
                let (a, b) = (&all_a[a..a + length], all_b[b]);
                for ((out, chosen), a) in out.iter_mut().zip(&conditions[condition..]).zip(a) {
                    *out = if *chosen != 0 { *a } else { b };
                }
            }
            [1, 0, 1] => {
                let (a, b) = (all_a[a], &all_b[b..b + length]);
                for ((out, chosen), b) in out.iter_mut().zip(&conditions[condition..]).zip(b) {
                    *out = if *chosen != 0 { a } else { *b };
                }
            }
            [1, 0, 0] => {
                let (a, b) = (all_a[a], all_b[b]);
                for (out, chosen) in out.iter_mut().zip(&conditions[condition..]) {
                    *out = if *chosen != 0 { a } else { b };
                }
            }
            [step_condition, step_a, step_b] => {
                for (index, out) in out.iter_mut().enumerate() {
                    let (a, b) = (all_a[apart(a, step_a, index)], all_b[apart(b, step_b, index)]);
                    *out = if conditions[apart(condition, step_condition, index)] != 0 { a } else { b };
                }
            }
        }
    }
}

/// The place of an element of a run.
#[inline(always)]
fn apart(base: usize, step: isize, index: usize) -> usize {
    base + step as usize * index
}

/// `out[i] = x[i] == 0`, as 0 or 1.
///
/// # Panics
/// When the lengths differ.
pub fn logical_not(kernels: &Kernels, x: &[u8], out: &mut [u8]) {
    assert_eq!(x.len(), out.len(), "logical_not: lengths differ");
    chunks(&kernels.pool, out, GRAIN * 2, |start, out| opposites(&x[start..], out));
}

/// The opposites of the first truth values.
pub(super) fn opposites(x: &[u8], out: &mut [u8]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = u8::from(*x == 0);
    }
}
