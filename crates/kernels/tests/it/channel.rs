//! Functions with parameters per channel.

use aneforge_kernels::channel::{
    PerChannel, Response, batch_norm, instance_norm, normalized, prelu, response_norm, scale,
};
use aneforge_kernels::{Kernels, f16, order};
use proptest::prelude::*;

use super::support::{self, cases, contexts, values, wild_values};

/// Elements of a plane: some beyond one block and one thread's share.
fn inner() -> impl Strategy<Value = usize> {
    prop_oneof![1..20_usize, Just(257), Just(5000)]
}

fn magnitudes(count: usize, seed: u64) -> Vec<f16> {
    values(count, seed).iter().map(|v| f16::from_f32(v.to_f32().abs())).collect()
}

fn check(want: &[f16], body: impl Fn(&Kernels, &mut [f16])) {
    for kernels in contexts() {
        let mut out = vec![f16::ONE; want.len()];
        body(kernels, &mut out);
        assert!(out.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits()), "{kernels:?}");
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn slopes_below_zero(batch in 1..4_usize, channels in 1..6_usize, inner in inner(), seed in any::<u64>()) {
        let (x, alpha) = (values(batch * channels * inner, seed), values(channels, seed ^ 1));
        let of = |(i, x): (usize, &f16)| match x.to_f32() {
            x if x > 0.0 => f16::from_f32(x),
            x => f16::from_f32(alpha[i / inner % channels].to_f32() * x),
        };
        let want: Vec<f16> = x.iter().enumerate().map(of).collect();
        check(&want, |kernels, out| prelu(kernels, &x, inner, &alpha, out));
    }

    #[test]
    fn given_statistics(batch in 1..4_usize, channels in 1..6_usize, inner in inner(), seed in any::<u64>()) {
        let x = values(batch * channels * inner, seed);
        let [gamma, beta, mean] = [1, 2, 3].map(|n| values(channels, seed ^ n));
        let variance = magnitudes(channels, seed ^ 4);
        let of = |(i, x): (usize, &f16)| {
            let c = i / inner % channels;
            let scale = scale(gamma[c].to_f32(), variance[c].to_f32(), 1e-3);
            f16::from_f32(normalized(x.to_f32(), mean[c].to_f32(), scale, beta[c].to_f32()))
        };
        let want: Vec<f16> = x.iter().enumerate().map(of).collect();
        let affine = PerChannel { gamma: &gamma, beta: &beta };
        check(&want, |kernels, out| batch_norm(kernels, &x, inner, affine, [&mean, &variance], 1e-3, out));
    }

    #[test]
    fn statistics_of_the_plane(batch in 1..4_usize, channels in 1..6_usize, inner in inner(), seed in any::<u64>()) {
        let x = values(batch * channels * inner, seed);
        let [gamma, beta] = [1, 2].map(|n| values(channels, seed ^ n));
        let mut want = Vec::new();
        for (plane, x) in x.chunks(inner).enumerate() {
            let c = plane % channels;
            let mean = order::sum(x.iter().map(|v| v.to_f32())) / inner as f32;
            let square = |v: &f16| (v.to_f32() - mean) * (v.to_f32() - mean);
            let variance = order::sum(x.iter().map(square)) / inner as f32;
            let scale = scale(gamma[c].to_f32(), variance, 1e-3);
            want.extend(x.iter().map(|v| f16::from_f32(normalized(v.to_f32(), mean, scale, beta[c].to_f32()))));
        }
        let affine = PerChannel { gamma: &gamma, beta: &beta };
        check(&want, |kernels, out| instance_norm(kernels, &x, inner, affine, 1e-3, out));
    }

    #[test]
    fn responses_of_neighbours(
        batch in 1..3_usize, channels in prop_oneof![1..8_usize, Just(40)], inner in inner(),
        size in prop_oneof![1..7_usize, Just(37)], wild in any::<bool>(), seed in any::<u64>(),
    ) {
        let count = batch * channels * inner;
        let x = if wild { wild_values(count, seed) } else { values(count, seed) };
        let response = Response { size, alpha: 0.5, beta: [0.75, 0.5, -1.0][seed as usize % 3], k: 1.25 };
        let of = |(i, v): (usize, &f16)| {
            let channel = i / inner % channels;
            let square = |c: usize| x[i - channel * inner + c * inner].to_f32().powi(2);
            let total = order::sum(response.neighbours(channel, channels).map(square));
            f16::from_f32(response.of(v.to_f32(), total))
        };
        let want: Vec<f16> = x.iter().enumerate().map(of).collect();
        support::check(&want, "response_norm", |kernels, out| {
            response_norm(kernels, &x, [channels, inner], response, out);
        });
    }
}

#[test]
fn neighbours_are_those_that_exist_and_one_more_after_than_before() {
    let of = |size, channel| Response { size, alpha: 1.0, beta: 1.0, k: 1.0 }.neighbours(channel, 7);
    assert_eq!([of(1, 3), of(4, 3), of(5, 3), of(5, 0), of(4, 6)], [3..4, 2..6, 1..6, 0..3, 5..7]);
    assert_eq!(of(usize::MAX, 3), 0..7);
}
