//! Sine and cosine for engines without the unit for them: a polynomial of half a period, after the argument
//! has been brought there exactly.
//!
//! With `n` the multiple of pi nearest to `x` and `r = x - n*pi`, `sin x` is `sin r` and `cos x` is `cos r`,
//! negated where `n` is odd. pi is taken apart as `3 + 9/64 + rest`: as long as `|x|` is below 227 pi,
//! `n*3`, `n*9/64` and both differences are multiples of the last place of `x` or of 1/64 that half precision
//! holds exactly, so only `n*rest` and the last difference round, by less than 1e-4.

use crate::ir::op::Op;
use crate::ir::var::Var;
use crate::rewrite::{Match, Miss, Rule};
use std::f64::consts::{FRAC_1_PI, PI};

/// The rules for targets that do not compute sine and cosine.
pub static TRIGONOMETRY: &[Rule] = &[
    Rule { name: "sine_polynomial", apply: sine_polynomial },
    Rule { name: "cosine_polynomial", apply: cosine_polynomial },
];

/// Up to this magnitude of the argument the polynomials are within [`POLYNOMIAL_ERROR`] of the function.
/// Beyond, half precision does not tell the nearest multiple of pi.
pub const POLYNOMIAL_RANGE: f64 = 400.0;

/// The largest absolute error within [`POLYNOMIAL_RANGE`]; a test computes all arguments.
pub const POLYNOMIAL_ERROR: f64 = 1.5e-3;

/// Coefficients of `r * P(r^2)` and `Q(r^2)` between -pi/2 and pi/2, the lowest power first: those with which
/// ANEForge 0.4.0 meets its tolerance of 3e-3 on devices.
const SINE: [f64; 4] = [1.0, -0.1666589028907664, 0.008315949363584022, -0.0001860843359648393];
const COSINE: [f64; 4] = [1.0, -0.4999308182201791, 0.041511585587052556, -0.0012786608784929124];

/// A bit more than half a period, so that arguments far out of range give something small.
const WIDEST: f64 = 2.0;

/// `sin x` before A15.
fn sine_polynomial(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Sin(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (r, sign) = reduced(&m.var(x));
    Ok(&r * horner(&r.times(&r), SINE) * sign)
}

/// `cos x` before A15.
fn cosine_polynomial(m: &Match<'_>) -> Result<Var, Miss> {
    let (Op::Cos(_), Some(x)) = (&m.node().op, m.input(0)) else { return Err(Miss::Other) };
    let (r, sign) = reduced(&m.var(x));
    Ok(horner(&r.times(&r), COSINE) * sign)
}

/// The distance to the nearest multiple of pi, and -1 where the multiple is odd, else 1.
fn reduced(x: &Var) -> (Var, Var) {
    let n = x.muls(FRAC_1_PI).adds(-0.5).floor().adds(1.0);
    let r = x - n.muls(3.0) - n.muls(9.0 / 64.0) - n.muls(PI - 3.0 - 9.0 / 64.0);
    let half = n.muls(0.5);
    let odd = &half - half.floor();
    (r.clip(-WIDEST, WIDEST), odd.muls(-4.0).adds(1.0))
}

/// `c[0] + c[1]*q + c[2]*q^2 + c[3]*q^3`, from the inside.
fn horner(q: &Var, c: [f64; 4]) -> Var {
    let inner = q.muls(c[3]).adds(c[2]) * q;
    (inner.adds(c[1]) * q).adds(c[0])
}
