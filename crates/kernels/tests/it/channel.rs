//! Functions with parameters per channel.

use aneforge_kernels::channel::{PerChannel, batch_norm, instance_norm, normalized, prelu, scale};
use aneforge_kernels::{Kernels, f16, order};
use proptest::prelude::*;

use super::support::{cases, contexts, values};

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
}
