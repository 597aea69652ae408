//! What is noticed while results are stored.

use aneforge_kernels::gemm::{PackedB, gemm, gemm_scratch};
use aneforge_kernels::map::{self, Binary, Unary};
use aneforge_kernels::{Bias, Epilogue, Residual, Scratch, Stores, View, Watch, f16};

use super::support::{contexts, values};

fn half(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&v| f16::from_f32(v)).collect()
}

/// `count` ones, and `value` at `place`.
fn ones_but(count: usize, place: usize, value: f32) -> Vec<f16> {
    let mut all = vec![f16::ONE; count];
    all[place] = f16::from_f32(value);
    all
}

#[test]
fn one_value_that_overflows_is_noticed_wherever_it_is() {
    for kernels in contexts() {
        for count in [1, 15, 16, 47, 40_000] {
            let mut out = vec![f16::ZERO; count];
            let mut watch = Watch::default();
            for place in [0, count / 2, count - 1] {
                for (value, notices) in [(255.875, false), (256.0, true), (f32::INFINITY, true), (0.0, false)]
                {
                    let x = ones_but(count, place, value);
                    let stores = Stores { watch: Some(&watch), flush_nan: false };
                    map::unary(kernels, Unary::Square, &x, stores, &mut out);
                    assert_eq!(watch.take(), notices, "{kernels:?}: square of {value} at {place} of {count}");
                    let stores = Stores { watch: Some(&watch), flush_nan: true };
                    let view = View::new(&x, std::slice::from_ref(&count));
                    map::binary(kernels, Binary::Mul, view, view, &[count], stores, &mut out);
                    assert_eq!(watch.take(), notices, "{kernels:?}: {value} * {value} at {place} of {count}");
                    map::store_again(kernels, Stores { watch: Some(&watch), flush_nan: true }, &mut out);
                    assert_eq!(watch.take(), notices, "{kernels:?}: again, {value} at {place} of {count}");
                }
            }
        }
    }
}

#[test]
fn nan_is_noticed_before_it_is_flushed_and_padding_is_not() {
    for kernels in contexts() {
        for count in 1..40 {
            let mut watch = Watch::default();
            let mut out = vec![f16::ZERO; count];
            let (zeros, ones) = (vec![f16::ZERO; count], vec![f16::ONE; count]);
            for (divisor, notices) in [(&zeros, true), (&ones, false)] {
                let stores = Stores { watch: Some(&watch), flush_nan: true };
                let [a, b] = [&zeros, divisor].map(|x| View::new(x, std::slice::from_ref(&count)));
                map::binary(kernels, Binary::RealDiv, a, b, &[count], stores, &mut out);
                assert_eq!((watch.take(), &out), (notices, &zeros), "{kernels:?}: {count} quotients");
            }
            let stores = Stores { watch: Some(&watch), flush_nan: true };
            map::unary(kernels, Unary::Log { eps: 0.0 }, &ones, stores, &mut out);
            assert!(!watch.take(), "{kernels:?}: {count} logarithms");
            let mut out = vec![f16::NAN; count];
            map::store_again(kernels, Stores { watch: Some(&watch), flush_nan: true }, &mut out);
            assert_eq!((watch.take(), &out), (true, &zeros), "{kernels:?}: {count} again");
        }
    }
}

#[test]
fn every_node_of_an_epilogue_is_watched() {
    let (rows, terms, columns) = (9, 33, 50);
    let x = values(rows * terms, 3);
    let packed = PackedB::from_nk(&values(columns * terms, 4), columns, terms);
    let (large, small) = (half(&vec![6.0e4; columns]), half(&vec![-6.0e4; columns]));
    let residual = vec![f16::MAX; rows * columns];
    let quiet = Epilogue::default();
    let cases = [
        ("sum", quiet, false),
        ("relu", Epilogue { activation: Some(Unary::Relu), ..quiet }, false),
        ("limit", Epilogue { limit: Some(f16::from_f32(0.01)), ..quiet }, true),
        (
            "limit, hidden",
            Epilogue { limit: Some(f16::from_f32(0.01)), activation: Some(Unary::Sigmoid), ..quiet },
            true,
        ),
        ("scale", Epilogue { scale: Bias::Column(&large), ..quiet }, true),
        ("bias", Epilogue { bias: Bias::Column(&small), ..quiet }, false),
        (
            "bias, hidden",
            Epilogue {
                scale: Bias::All(f16::from_f32(1000.0)),
                bias: Bias::Column(&small),
                activation: Some(Unary::Relu),
                ..quiet
            },
            true,
        ),
        ("activation", Epilogue { bias: Bias::Column(&large), activation: Some(Unary::Exp), ..quiet }, true),
        (
            "residual",
            Epilogue { bias: Bias::Column(&large), residual: Residual::Before(&residual), ..quiet },
            true,
        ),
        (
            "residual after",
            Epilogue { bias: Bias::Column(&large), residual: Residual::After(&residual), ..quiet },
            true,
        ),
    ];
    for kernels in contexts() {
        for (name, epilogue, notices) in &cases {
            let mut watch = Watch::default();
            let mut scratch = Scratch::with_capacity(gemm_scratch(kernels, rows, &packed));
            let mut out = vec![f16::ZERO; rows * columns];
            let epilogue = Epilogue { watch: Some(&watch), ..*epilogue };
            gemm(kernels, &x, rows, &packed, &epilogue, &mut scratch, &mut out);
            assert_eq!(watch.take(), *notices, "{kernels:?}: {name}");
        }
    }
}
