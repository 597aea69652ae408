//! Conversions.

use aneforge_kernels::{convert, f16};

use super::support::{Random, assert_same, check, contexts};

#[test]
fn f32_to_f16_rounds_to_nearest_even() {
    let mut random = Random(1);
    let mut source: Vec<f32> = (0..70_001)
        .map(|_| f32::from_bits(random.next() & 0x8fff_ffff | 0x3000_0000))
        .map(|x| if x.abs() > 3.0 { x * 1.0e-4 } else { x })
        .collect();
    for bits in 0..0x7c00_u16 {
        let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
        if high.is_finite() {
            source.push((low + high) / 2.0);
        }
    }
    source.extend([65_519.99, 65_520.0, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, -0.0, 1.0e-45]);
    let want: Vec<f16> = source.iter().map(|&x| f16::from_f32_const(x)).collect();
    check(&want, "f32_to_f16", |kernels, out| convert::f32_to_f16(kernels, &source, out));
}

#[test]
fn every_f16_survives_the_way_through_f32() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for kernels in contexts() {
        let (mut wide, mut back) = (vec![0.0; all.len()], vec![f16::ZERO; all.len()]);
        convert::f16_to_f32(kernels, &all, &mut wide);
        for (wide, half) in wide.iter().zip(&all) {
            assert!(*wide == half.to_f32_const() || wide.is_nan() && half.is_nan());
        }
        convert::f32_to_f16(kernels, &wide, &mut back);
        assert_same(kernels, &back, &all, "back");
    }
}

#[test]
fn bytes_and_doubles() {
    let bytes: Vec<u8> = (0..=255).cycle().take(777).collect();
    let want: Vec<f16> = bytes.iter().map(|&x| f16::from_f32(f32::from(x))).collect();
    check(&want, "u8_to_f16", |kernels, out| convert::u8_to_f16(kernels, &bytes, out));
    let doubles: Vec<f64> = (1..500).map(|x| 1.0 / f64::from(x)).collect();
    for kernels in contexts() {
        let mut out = vec![0.0; doubles.len()];
        convert::f64_to_f32(kernels, &doubles, &mut out);
        assert!(out.iter().zip(&doubles).all(|(out, x)| *out == *x as f32));
    }
}
