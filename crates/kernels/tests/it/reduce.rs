//! Reductions and softmax.

use aneforge_kernels::f16;
use aneforge_kernels::order;
use aneforge_kernels::reduce::{Reduction, reduce};
use aneforge_kernels::softmax::{softmax, softmax_row};
use proptest::prelude::*;

use super::support::{cases, check, values, wild_values};

const ALL: [Reduction; 9] = [
    Reduction::Sum,
    Reduction::Mean,
    Reduction::Max,
    Reduction::Min,
    Reduction::SumAbs,
    Reduction::SumSquare,
    Reduction::LogSum,
    Reduction::LogSumExp,
    Reduction::L2Norm,
];

/// The reduced sets, in row-major order of the kept axes, each in row-major order.
fn sets(x: &[f16], shape: &[usize], axes: u32) -> Vec<Vec<f32>> {
    let kept: usize = (0..shape.len()).filter(|axis| axes >> axis & 1 == 0).map(|axis| shape[axis]).product();
    let mut sets = vec![Vec::new(); kept];
    for (index, value) in x.iter().enumerate() {
        let (mut rest, mut set, mut step) = (index, 0, 1);
        for axis in (0..shape.len()).rev() {
            if axes >> axis & 1 == 0 {
                set += rest % shape[axis] * step;
                step *= shape[axis];
            }
            rest /= shape[axis];
        }
        sets[set].push(value.to_f32());
    }
    sets
}

#[test]
fn the_order_of_a_sum_is_sixteen_lanes_and_a_tree() {
    let x: Vec<f32> = values(91, 3).iter().map(|x| x.to_f32()).collect();
    let mut lanes = [0.0_f32; 16];
    for (index, x) in x.iter().enumerate() {
        lanes[index % 16] += x;
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    assert_eq!(order::sum(x.iter().copied()).to_bits(), lanes[0].to_bits());
    assert_eq!(Reduction::Sum.eval(&x).to_bits(), lanes[0].to_bits());
    assert_eq!(Reduction::Mean.eval(&x).to_bits(), (lanes[0] / 91.0).to_bits());
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn reductions_equal_their_definition(
        shape in prop::collection::vec(prop_oneof![1..5_usize, Just(19), Just(35)], 0..5),
        axes in 0..32_u32,
        kind in 0..9_usize,
        wild in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let count = shape.iter().product();
        let x = if wild { wild_values(count, seed) } else { values(count, seed) };
        let axes = axes & ((1 << shape.len()) - 1);
        let want: Vec<f16> =
            sets(&x, &shape, axes).iter().map(|set| f16::from_f32(ALL[kind].eval(set))).collect();
        check(&want, &format!("{:?}", ALL[kind]), |kernels, out| {
            reduce(kernels, ALL[kind], &x, &shape, axes, out);
        });
    }

    #[test]
    fn softmax_equals_its_definition(
        outer in 1..4_usize,
        size in prop_oneof![1..70_usize, Just(1500)],
        inner in prop_oneof![Just(1_usize), 2..70_usize],
        seed in any::<u64>(),
    ) {
        let x = values(outer * size * inner, seed);
        let mut want = vec![f16::NAN; x.len()];
        for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
            let at = |k: usize| (o * size + k) * inner + i;
            let row: Vec<f16> = (0..size).map(|k| x[at(k)]).collect();
            let mut out = vec![f16::ZERO; size];
            softmax_row(&row, &mut out);
            out.iter().enumerate().for_each(|(k, &value)| want[at(k)] = value);
        }
        for flush_nan in [false, true] {
            check(&want, "softmax", |kernels, out| {
                softmax(kernels, &x, &[outer, size, inner], 1, flush_nan, out);
            });
        }
        // Infinite elements share the whole where NaN is flushed.
        let infinite = |o: usize, i: usize| (o + i).is_multiple_of(3);
        let mut x = x;
        for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).filter(|&(o, i)| infinite(o, i)) {
            let at = |k: usize| (o * size + k) * inner + i;
            let shares = [size / 3, size - 1];
            let share = f16::from_f32(if shares[0] == shares[1] { 1.0 } else { 0.5 });
            (0..size).for_each(|k| want[at(k)] = f16::ZERO);
            shares.iter().for_each(|&k| (x[at(k)], want[at(k)]) = (f16::INFINITY, share));
        }
        check(&want, "softmax of infinities", |kernels, out| {
            softmax(kernels, &x, &[outer, size, inner], 1, true, out);
        });
        // So do elements of which none is greater than minus infinity.
        let none = vec![f16::NEG_INFINITY; x.len()];
        let equal = vec![f16::from_f32(1.0 / size as f32); x.len()];
        check(&equal, "softmax of minus infinities", |kernels, out| {
            softmax(kernels, &none, &[outer, size, inner], 1, true, out);
        });
    }
}

#[test]
fn long_reductions_along_every_axis() {
    let shape = [6, 50, 400];
    let x = values(6 * 50 * 400, 8);
    for axes in 0..8 {
        for kind in ALL {
            let want: Vec<f16> =
                sets(&x, &shape, axes).iter().map(|set| f16::from_f32(kind.eval(set))).collect();
            check(&want, &format!("{kind:?} over {axes:b}"), |kernels, out| {
                reduce(kernels, kind, &x, &shape, axes, out);
            });
        }
    }
}

#[test]
fn the_sign_of_a_zero_that_is_the_extreme_of_all_goes_by_the_order() {
    // One zero in lane 5 early, one of the other sign in lane 0 late: the lower lane's is the result.
    for (kind, rest) in [(Reduction::Max, -1.0), (Reduction::Min, 1.0)] {
        for early in [0.0, -0.0] {
            let mut x = vec![f16::from_f32(rest); 100_000];
            (x[21], x[64_000]) = (f16::from_f32(early), f16::from_f32(-early));
            let wide: Vec<f32> = x.iter().map(|v| v.to_f32()).collect();
            let want = f16::from_f32(kind.eval(&wide));
            assert_eq!(want.to_bits(), f16::from_f32(-early).to_bits());
            check(&[want], &format!("{kind:?} {early:?}"), |kernels, out| {
                reduce(kernels, kind, &x, &[100, 1000], 0b11, out);
            });
        }
    }
}

#[test]
fn columns_in_blocks_and_lanes_on_threads() {
    for shape in [[200, 700], [131, 1537], [77, 33], [2000, 19], [5, 1600]] {
        for wild in [false, true] {
            let count = shape[0] * shape[1];
            let x = if wild { wild_values(count, 8) } else { values(count, 8) };
            let sets = sets(&x, &shape, 1);
            for reduction in ALL {
                let want: Vec<f16> = sets.iter().map(|set| f16::from_f32(reduction.eval(set))).collect();
                check(&want, &format!("{reduction:?} of {shape:?}"), |kernels, out| {
                    reduce(kernels, reduction, &x, &shape, 1, out);
                });
            }
        }
    }
}
