//! Elementwise functions.

use aneforge_kernels::map::{self, Binary, Compare, Unary};
use aneforge_kernels::{Stores, View, f16};
use proptest::prelude::*;

use super::support::{Random, assert_same, cases, check, contexts, misaligned, wild_values};

pub fn all_unary() -> Vec<Unary> {
    use Unary::*;
    vec![
        Relu,
        Relu6,
        Gelu,
        Silu,
        Sigmoid,
        Tanh,
        Exp,
        Exp2,
        Sqrt,
        Abs,
        Erf,
        Softsign,
        Softplus,
        Atan,
        Sin,
        Cos,
        Floor,
        Ceil,
        Round,
        Sign,
        Square,
        Log { eps: 1.0e-3 },
        Rsqrt { eps: 1.0e-5 },
        Inverse { eps: 0.0 },
        Elu { alpha: 0.7 },
        LeakyRelu { alpha: 0.1 },
        Clip { lo: -0.3, hi: 1.1 },
        Threshold { alpha: 0.2 },
        ThresholdedRelu { alpha: 0.5 },
        ScaledTanh { alpha: 1.7, beta: 0.6 },
        ClampedRelu { alpha: 0.2, beta: 1.3 },
        SigmoidHard { alpha: 0.2, beta: 0.5 },
        Linear { alpha: 1.3, beta: -0.2 },
        EngineSqrt,
        EngineLog { eps: 0.0, least: -45440.0 },
        EngineLog { eps: 0.25, least: -3.0 },
        EngineSoftplus { end: 11.09375 },
        MulScalar { k: 0.3 },
        AddScalar { k: 0.7 },
    ]
}

#[test]
fn every_unary_function_equals_its_scalar_definition_on_every_input() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for function in all_unary() {
        let want: Vec<f16> = all.iter().map(|x| f16::from_f32(function.eval(x.to_f32()))).collect();
        check(&want, &format!("{function:?}"), |kernels, out| {
            map::unary(kernels, function, &all, Stores::default(), out)
        });
    }
}

#[test]
fn unary_in_place_and_short_slices() {
    for count in [0, 1, 7, 15, 16, 17, 255, 256, 257, 40_000] {
        let x = wild_values(count, count as u64);
        let want: Vec<f16> = x.iter().map(|x| f16::from_f32(Unary::Gelu.eval(x.to_f32()))).collect();
        check(&want, "in place", |kernels, out| {
            out.copy_from_slice(&x);
            map::unary_in_place(kernels, Unary::Gelu, out);
        });
    }
}

#[test]
fn definitions_at_chosen_points() {
    let at = |function: Unary, x: f32| function.eval(x);
    assert_eq!([-2.5, -1.5, 0.5, 2.5].map(|x| at(Unary::Round, x)), [-3.0, -2.0, 1.0, 3.0]);
    assert_eq!([-2.0, 0.0, 3.0].map(|x| at(Unary::Sign, x)), [-1.0, 0.0, 1.0]);
    let clamped = Unary::ClampedRelu { alpha: 0.5, beta: 1.0 };
    assert_eq!([-4.0, 0.5, 3.0].map(|x| at(clamped, x)), [-2.0, 0.5, 1.0]);
    assert_eq!([0.4, 0.5].map(|x| at(Unary::ThresholdedRelu { alpha: 0.5 }, x)), [0.0, 0.5]);
    assert_eq!(
        [-9.0, 0.0, 9.0].map(|x| at(Unary::SigmoidHard { alpha: 0.2, beta: 0.5 }, x)),
        [0.0, 0.5, 1.0]
    );
    assert!(at(Unary::Relu, f32::NAN).is_nan());
    let bits = |function: Unary, x: f32| f16::from_f32(function.eval(x)).to_bits();
    assert_eq!([bits(Unary::EngineSqrt, -0.0), bits(Unary::EngineSqrt, 4.0)], [0, 0x4000]);
    let log = Unary::EngineLog { eps: 0.0, least: -45440.0 };
    assert_eq!([0.0, -0.0, 1.0].map(|x| bits(log, x)), [0xf98c, 0xf98c, 0]);
    let softplus = Unary::EngineSoftplus { end: 11.09375 };
    assert_eq!([11.09375, f32::INFINITY].map(|x| bits(softplus, x)), [0, 0]);
    assert_eq!(bits(softplus, 11.0859375), f16::from_f32(11.0859375).to_bits());
}

/// The shapes of an output and of operands that broadcast to it.
pub fn shapes(operands: usize) -> impl Strategy<Value = (Vec<usize>, Vec<Vec<usize>>, u64)> {
    let size = prop_oneof![1..4_usize, Just(17), Just(40)];
    (prop::collection::vec(size, 0..5), any::<u64>()).prop_map(move |(shape, seed)| {
        let mut random = Random(seed);
        let operand = |random: &mut Random| -> Vec<usize> {
            let skip = if random.below(2) == 0 { 0 } else { random.below(shape.len() + 1) };
            shape[skip..].iter().map(|&size| if random.below(3) == 0 { 1 } else { size }).collect()
        };
        let operands = (0..operands).map(|_| operand(&mut random)).collect();
        (shape, operands, seed)
    })
}

/// The element of an operand that is broadcast to position `index` of `shape`.
pub fn element(shape: &[usize], operand: &[usize], mut index: usize) -> usize {
    let (mut at, mut step) = (0, 1);
    for axis in (0..shape.len()).rev() {
        let coordinate = index % shape[axis];
        index /= shape[axis];
        if let Some(own) = (axis + operand.len()).checked_sub(shape.len()) {
            at += if operand[own] == 1 { 0 } else { coordinate * step };
            step *= operand[own];
        }
    }
    at
}

pub const BINARY: [Binary; 7] =
    [Binary::Add, Binary::Sub, Binary::Mul, Binary::RealDiv, Binary::Maximum, Binary::Minimum, Binary::Pow];
pub const COMPARE: [Compare; 6] = [
    Compare::Less,
    Compare::LessEqual,
    Compare::Greater,
    Compare::GreaterEqual,
    Compare::Equal,
    Compare::NotEqual,
];

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn binary_functions_broadcast((shape, operands, seed) in shapes(2)) {
        let count: usize = shape.iter().product();
        let sizes = [0, 1].map(|index| operands[index].iter().product::<usize>());
        let (a, b) = (misaligned(&wild_values(sizes[0], seed), 1), wild_values(sizes[1], seed + 1));
        let (a, b) = (View::new(&a[1..], &operands[0]), View::new(&b, &operands[1]));
        let pair = |i| {
            let at = [0, 1].map(|index| element(&shape, &operands[index], i));
            (a.data[at[0]].to_f32(), b.data[at[1]].to_f32())
        };
        let function = BINARY[seed as usize % 7];
        let want: Vec<f16> = (0..count).map(pair).map(|(a, b)| f16::from_f32(function.eval(a, b))).collect();
        check(&want, "binary", |kernels, out| map::binary(kernels, function, a, b, &shape, Stores::default(), out));
        let comparison = COMPARE[seed as usize % 6];
        let want: Vec<u8> = (0..count).map(pair).map(|(a, b)| u8::from(comparison.eval(a, b))).collect();
        for kernels in contexts() {
            let mut out = vec![9; count];
            map::compare(kernels, comparison, a, b, &shape, &mut out);
            prop_assert_eq!(&out, &want);
        }
    }

    #[test]
    fn select_broadcasts((shape, operands, seed) in shapes(3)) {
        let sizes = [0, 1, 2].map(|index| operands[index].iter().product::<usize>());
        let condition: Vec<u8> = wild_values(sizes[0], seed).iter().map(|x| u8::from(x.to_f32() > 0.0)).collect();
        let (a, b) = (wild_values(sizes[1], seed + 1), wild_values(sizes[2], seed + 2));
        let at = |operand: usize, index| element(&shape, &operands[operand], index);
        let pick = |i| if condition[at(0, i)] != 0 { a[at(1, i)] } else { b[at(2, i)] };
        let want: Vec<f16> = (0..shape.iter().product()).map(pick).collect();
        let views = (View::new(&condition, &operands[0]), View::new(&a, &operands[1]), View::new(&b, &operands[2]));
        check(&want, "select", |kernels, out| map::select(kernels, views.0, views.1, views.2, &shape, out));
    }
}

#[test]
fn large_operands_are_shared_among_threads() {
    let shape = [3, 40, 700];
    let (a, b) = (wild_values(3 * 40 * 700, 1), wild_values(40, 2));
    let (a, b) = (View::new(&a, &shape), View::new(&b, &[40, 1]));
    let want: Vec<f16> = (0..a.data.len())
        .map(|i| f16::from_f32(a.data[i].to_f32() * b.data[i / 700 % 40].to_f32()))
        .collect();
    check(&want, "per channel", |kernels, out| {
        map::binary(kernels, Binary::Mul, a, b, &shape, Stores::default(), out)
    });
}

#[test]
fn policies_for_nan_and_overflow() {
    let x = wild_values(50_000, 5);
    let nans = x.iter().filter(|x| x.is_nan()).count();
    assert!(nans > 0);
    let limit = f16::from_f32(1.5);
    for kernels in contexts() {
        let mut out = x.clone();
        assert_eq!(map::sanitize(kernels, &mut out), nans);
        let want: Vec<f16> = x.iter().map(|&x| if x.is_nan() { f16::INFINITY } else { x }).collect();
        assert_same(kernels, &out, &want, "sanitize");
        let mut out = x.clone();
        let over = |x: &&f16| x.is_finite() && x.to_f32().abs() > 1.5;
        assert_eq!(map::overflow_above(kernels, &mut out, limit), x.iter().filter(over).count());
        let turned = |x: &f16| if over(&x) { f16::INFINITY.copysign(*x) } else { *x };
        assert_same(kernels, &out, &x.iter().map(turned).collect::<Vec<_>>(), "overflow_above");
        let flags: Vec<u8> = (0..=255).collect();
        let mut not = vec![7; 256];
        map::logical_not(kernels, &flags, &mut not);
        assert!(not.iter().zip(&flags).all(|(not, flag)| *not == u8::from(*flag == 0)));
    }
}
