//! The engine's arithmetic.

use super::super::{Bench, Outcome};
use super::{shape, tensor};
use crate::ir::numerics::{Family, MATMUL_LIMIT, OFFSET_SLICE_LIMIT};
use crate::ir::var::Var;
use crate::target::functions::{ROUND_BELOW, SOFTPLUS_UP_TO};
use aneforge_tensor::f16;

type Found = Result<Outcome, String>;

/// What an elementwise op makes of one value.
fn of(bench: &Bench, value: f32, make: impl Fn(&Var) -> Var) -> Result<f32, String> {
    let x = Var::input(shape(&[4]));
    Ok(bench.run(make(&x), &[tensor(&[4], &[value; 4])])?[0])
}

/// Half-precision values from `low` on.
fn halves_from(low: f32) -> impl Iterator<Item = f32> {
    (f16::from_f32(low).to_bits()..=f16::MAX.to_bits()).map(|bits| f16::from_bits(bits).to_f32())
}

pub(crate) fn product_limit(bench: &Bench) -> Found {
    let values: Vec<f32> = halves_from(32000.0).collect();
    let x = Var::input(shape(&[values.len(), 1]));
    let weight = Var::constant(tensor(&[1, 1], &[1.0]));
    let made = bench.run(x.linear(&weight, None), &[tensor(&[values.len(), 1], &values)])?;
    let largest = made.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max);
    Ok(Outcome::is(f64::from(largest) == MATMUL_LIMIT, format!("the largest finite product is {largest}")))
}

pub(crate) fn offset_slice(bench: &Bench) -> Found {
    let values: Vec<f32> = halves_from(4000.0).collect();
    let (x, n) = (Var::input(shape(&[2, values.len() + 1])), values.len());
    let fed: Vec<f32> = (0..2).flat_map(|_| std::iter::once(0.0).chain(values.iter().copied())).collect();
    let made = bench.run(x.slice_by_size(&[0, 1], &[2, n]), &[tensor(&[2, values.len() + 1], &fed)])?;
    let kept =
        values.iter().zip(&made).take_while(|(fed, got)| fed == got).last().map_or(0.0, |(fed, _)| *fed);
    let expected = match bench.target.family() {
        Family::A13 | Family::A14 => OFFSET_SLICE_LIMIT,
        _ => 65504.0,
    };
    Ok(Outcome::is(f64::from(kept) == expected, format!("values up to {kept} survive")))
}

pub(crate) fn nan_made(bench: &Bench) -> Found {
    let made = of(bench, f32::INFINITY, |x| x - x.relu())?;
    Ok(Outcome::is(made == 0.0, format!("infinity minus infinity is {made}")))
}

pub(crate) fn nan_fed(bench: &Bench) -> Found {
    let made = of(bench, f32::NAN, |x| x.relu())?;
    Ok(Outcome::is(made == f32::INFINITY, format!("relu of a NaN that is fed is {made}")))
}

pub(crate) fn subnormal(bench: &Bench) -> Found {
    let least = f16::from_bits(1).to_f32();
    let made = of(bench, least, |x| x.muls(1.0).abs())?;
    Ok(Outcome::measured(format!("2^-24 comes back as {made:e}, and was {least:e}")))
}

pub(crate) fn tie(bench: &Bench) -> Found {
    let made = of(bench, 2048.0, |x| x.adds(1.0))?;
    Ok(Outcome::measured(format!("2048 + 1 is {made}")))
}

pub(crate) fn softplus(bench: &Bench) -> Found {
    let exact = |v: f32| f64::from(v).exp().ln_1p();
    let error =
        |v: f32| Ok::<_, String>((f64::from(of(bench, v, Var::softplus)?) - exact(v)).abs() / exact(v));
    let (at, beyond) = (error(SOFTPLUS_UP_TO)?, error(SOFTPLUS_UP_TO + 2.0)?);
    let found =
        format!("relative error {at:.1e} at {SOFTPLUS_UP_TO}, {beyond:.1e} at {}", SOFTPLUS_UP_TO + 2.0);
    Ok(Outcome::is(at < 2e-3, found))
}

pub(crate) fn round(bench: &Bench) -> Found {
    let value = ROUND_BELOW - 0.5;
    let (below, at) = (of(bench, value, Var::round)?, of(bench, ROUND_BELOW + 1.0, Var::round)?);
    Ok(Outcome::is(
        below == value.round_ties_even(),
        format!("round of {value} is {below}, of {} is {at}", ROUND_BELOW + 1.0),
    ))
}

pub(crate) fn wide_sum(bench: &Bench) -> Found {
    const COUNT: usize = 16384;
    let made = bench.run(Var::input(shape(&[1, COUNT])).sum(&[1]), &[tensor(&[1, COUNT], &[1.0; COUNT])])?[0];
    Ok(Outcome::is(made == COUNT as f32, format!("{COUNT} ones sum to {made}")))
}

pub(crate) fn integers(bench: &Bench) -> Found {
    let values: Vec<f32> = (2000..2100u16).map(f32::from).collect();
    let made = bench.run(Var::input(shape(&[100])).muls(1.0).abs(), &[tensor(&[100], &values)])?;
    let exact =
        values.iter().zip(&made).take_while(|(fed, got)| fed == got).last().map_or(0.0, |(fed, _)| *fed);
    Ok(Outcome::is(exact == 2048.0, format!("whole numbers up to {exact} come back")))
}
