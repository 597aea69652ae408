//! Numbers as sums of two halves: more digits than half precision has, from ordinary ops of the graph.
//!
//! The sums and products whose rounding errors are recovered here are exact in IEEE arithmetic: Knuth's sum of two
//! numbers, Dekker's product with Veltkamp's splitting (Dekker, Numerische Mathematik 18, 1971). They hold because no pass
//! reorders or distributes anything.

use crate::ir::types::Caller;
use crate::ir::var::Var;
use aneforge_tensor::Shape;
use std::ops::{Add, Mul, Neg, Sub};

/// `2^6 + 1`: parts a half-precision number of 11 bits into two of which each has at most six.
const SPLITTER: f64 = 65.0;

/// An unevaluated sum `hi + lo` of two values of one shape, about 22 bits of precision together.
///
/// Products need magnitudes up to 1000: splitting multiplies by 65. Mistakes stay in the halves, as in any [`Var`].
///
/// ```
/// use aneforge::paired::Paired;
/// use aneforge::{Shape, Var};
/// let (x, y) = (Var::input(Shape::new(&[8])?), Var::input(Shape::new(&[8])?));
/// let (x, y) = (Paired::from(&x), Paired::from(&y));
/// let small = &(&x + &y) - &x;
/// assert_eq!(small.to_var().check()?.shape.dims(), [8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Paired {
    /// The value, rounded to half precision.
    pub hi: Var,
    /// What rounding lost.
    pub lo: Var,
}

impl From<&Var> for Paired {
    /// A value that lost nothing.
    #[track_caller]
    fn from(hi: &Var) -> Paired {
        Paired { hi: hi.clone(), lo: hi.minus(hi) }
    }
}

impl Paired {
    /// The pair of these halves, which have one shape.
    #[track_caller]
    pub fn new(hi: &Var, lo: &Var) -> Paired {
        let (a, b) = (hi.shape(), lo.shape());
        let mistaken = hi.check().is_err() || lo.check().is_err();
        let lo = match mistaken || a == b {
            true => lo.clone(),
            false => Var::poisoned("Paired", format!("hi and lo must have one shape, got {a} and {b}")),
        };
        Paired { hi: hi.clone(), lo }
    }

    /// The sum of products along `axis`, which becomes the last and has size one.
    #[track_caller]
    pub fn dot(&self, other: &Paired, axis: i64) -> Paired {
        Caller::here().scope(|| {
            let (p, e) = product(self, other);
            let (p, e) = (with_last(&p, axis), with_last(&e, axis));
            let total = sum_last(&p);
            // What rounding the sum lost comes out of the same wide sum with the rounded one taken away.
            let lost = sum_last(&Var::concat(&[&p, &total.muls(-1.0)], -1));
            settled(two_sum(&total, &(sum_last(&e) + lost)))
        })
    }

    /// `hi + lo`, rounded to half precision.
    #[track_caller]
    pub fn to_var(&self) -> Var {
        &self.hi + &self.lo
    }
}

impl Add for &Paired {
    type Output = Paired;
    #[track_caller]
    fn add(self, other: &Paired) -> Paired {
        Caller::here().scope(|| {
            let (s, e) = two_sum(&self.hi, &other.hi);
            settled((s, e + (&self.lo + &other.lo)))
        })
    }
}

impl Sub for &Paired {
    type Output = Paired;
    #[track_caller]
    fn sub(self, other: &Paired) -> Paired {
        Caller::here().scope(|| {
            let (s, e) = two_sum(&self.hi, &other.hi.muls(-1.0));
            settled((s, e + (&self.lo - &other.lo)))
        })
    }
}

impl Mul for &Paired {
    type Output = Paired;
    #[track_caller]
    fn mul(self, other: &Paired) -> Paired {
        Caller::here().scope(|| settled(product(self, other)))
    }
}

impl Mul<f64> for &Paired {
    type Output = Paired;
    #[track_caller]
    fn mul(self, k: f64) -> Paired {
        Paired { hi: self.hi.muls(k), lo: self.lo.muls(k) }
    }
}

impl Neg for &Paired {
    type Output = Paired;
    #[track_caller]
    fn neg(self) -> Paired {
        self * -1.0
    }
}

/// The pair of a sum and its error, with the digits moved up.
fn settled((s, e): (Var, Var)) -> Paired {
    let hi = &s + &e;
    let lo = e - (&hi - s);
    Paired { hi, lo }
}

/// `a + b` rounded, and what the rounding lost.
fn two_sum(a: &Var, b: &Var) -> (Var, Var) {
    let s = a + b;
    let t = &s - a;
    let lost = (a - (&s - &t)) + (b - t);
    (s, lost)
}

/// `x` as a sum of two numbers with half of the digits each.
fn split(x: &Var) -> (Var, Var) {
    let c = x * SPLITTER;
    let high = &c - (&c - x);
    let low = x - &high;
    (high, low)
}

/// `a * b` rounded, and what the rounding lost.
fn two_product(a: &Var, b: &Var) -> (Var, Var) {
    let p = a * b;
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    let lost = (&ah * &bh - &p) + ah * &bl + &al * bh + al * bl;
    (p, lost)
}

/// The product of the high halves, and its error with the mixed products; the low ones' is dropped.
fn product(a: &Paired, b: &Paired) -> (Var, Var) {
    let (p, e) = two_product(&a.hi, &b.hi);
    let mixed = &a.hi * &b.lo + &a.lo * &b.hi;
    (p, e + mixed)
}

/// `x` with `axis` last.
fn with_last(x: &Var, axis: i64) -> Var {
    let (shape, rank) = (x.shape(), x.shape().rank());
    match shape.axis(axis) {
        _ if x.check().is_err() => x.clone(),
        Err(_) => Var::poisoned("Paired.dot", format!("axis {axis} is out of range for shape {shape}")),
        Ok(at) if at + 1 == rank => x.clone(),
        Ok(at) => {
            let others = (0..rank).filter(|&i| i != at);
            x.transpose(&others.chain([at]).map(|i| i as i64).collect::<Vec<_>>())
        }
    }
}

/// The sum over the last axis as a product, which accumulates wide.
fn sum_last(x: &Var) -> Var {
    let terms = x.shape().dims().last().copied().unwrap_or(1);
    let ones = Shape::new(&[1, terms]).expect("invariant: part of a shape");
    x.linear(&Var::full(ones, 1.0), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::precision::{Array, Precision};
    use crate::{Graph, Numerics};
    use aneforge_tensor::{random, round_f16};

    fn half(v: f64) -> f64 {
        round_f16(v).to_f64()
    }

    /// `hi + lo` of a pair whose inputs are fed in order, in half precision.
    fn value(pair: &Paired, feeds: &[Array]) -> Vec<f64> {
        let graph = Graph::freeze(&[pair.hi.clone(), pair.lo.clone()]).unwrap();
        let values = graph.eval(feeds, Precision::F16(Numerics::Ieee));
        let [hi, lo] = [0, 1].map(|i| &values[graph.outputs()[i].index()].data);
        hi.iter().zip(lo).map(|(h, l)| h + l).collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        let most = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 2e-5 * most, "{g} {w}");
        }
    }

    #[test]
    fn pairs_keep_what_rounding_loses() {
        let shape = Shape::new(&[4, 32]).unwrap();
        let exact = [1, 2]
            .map(|seed| Array::from_fn(shape, |i| 0.5 + 1.5 * f64::from(random::uniform(seed, i as u64))));
        let parts = |x: &Array| {
            let hi = Array::from_fn(shape, |i| half(x.data[i]));
            let lo = Array::from_fn(shape, |i| half(x.data[i] - hi.data[i]));
            [hi, lo]
        };
        let feeds: Vec<Array> = exact.iter().flat_map(parts).collect();
        let [a, b] = [0, 2].map(|at| -> Vec<f64> {
            feeds[at].data.iter().zip(&feeds[at + 1].data).map(|(h, l)| h + l).collect()
        });
        let inputs: Vec<Var> = (0..4).map(|_| Var::input(shape)).collect();
        let p = Paired::new(&inputs[0], &inputs[1]);
        let q = Paired::new(&inputs[2], &inputs[3]);
        let zip = |f: fn(f64, f64) -> f64| -> Vec<f64> { a.iter().zip(&b).map(|(a, b)| f(*a, *b)).collect() };
        close(&value(&(&p + &q), &feeds), &zip(|a, b| a + b));
        close(&value(&(&p - &q), &feeds), &zip(|a, b| a - b));
        close(&value(&(&p * &q), &feeds), &zip(|a, b| a * b));
        close(&value(&(&p * 2.0), &feeds[..2]), &zip(|a, _| 2.0 * a));
        close(&value(&-&p, &feeds[..2]), &zip(|a, _| -a));
        let products = zip(|a, b| a * b);
        let rows: Vec<f64> = products.chunks(32).map(|row| row.iter().sum()).collect();
        close(&value(&p.dot(&q, -1), &feeds), &rows);
        let columns: Vec<f64> = (0..32).map(|c| products.iter().skip(c).step_by(32).sum()).collect();
        close(&value(&p.dot(&q, 0), &feeds), &columns);
    }

    #[test]
    fn mistakes_stay_in_the_halves_and_name_the_line() {
        let x = Var::input(Shape::new(&[2, 8]).unwrap());
        let uneven = Paired::new(&x, &Var::input(Shape::new(&[8]).unwrap()));
        let why = uneven.to_var().check().unwrap_err().to_string();
        assert!(why.starts_with("Paired: hi and lo must have one shape, got [2, 8] and [8]"), "{why}");
        let pair = Paired::from(&x);
        let line = line!() + 1;
        let why = pair.dot(&pair, 2).to_var().check().unwrap_err().to_string();
        let place = format!("{}:{line}", file!());
        assert_eq!(why, format!("Paired.dot: axis 2 is out of range for shape [2, 8] (at {place})"));
    }
}
