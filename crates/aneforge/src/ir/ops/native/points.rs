//! Clouds of points.

use crate::ir::attr::Real;
use crate::ir::form::{Facts, Form, Layer as Kernel};
use crate::ir::op::{Case, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::of;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Layer, RESULT, Symbol, Transfer, Value};

/// The most points that the layer samples from (ANEForge 0.4.0).
pub const MOST_POINTS: usize = 8192;
/// The most points that the layer samples.
pub const MOST_SAMPLES: usize = 1024;

op! {
    /// Farthest-point sampling: `k` points, each as far as can be from those before it, from the first on.
    ///
    /// `points` is `[N, 3]`; the result is `[k, 3]`. The distance is Euclidean; of equally far points the
    /// first counts. At most 1024 of 8192 points. Distances are in single precision.
    pub struct Fps = "fps"("points") {
        /// How many points.
        k: i64,
    }
}

op! {
    /// Whether each point lies within `radius` of each centre, as 0 or 1.
    ///
    /// `points` is `[N, 3]`, `centroids` `[M, 3]`; the result is `[N, M]`. The distance is Euclidean, in single
    /// precision, and a point at the radius lies within.
    pub struct RadiusSearch = "radius_search"("points", "centroids") {
        /// The radius, above 0.
        radius: Real,
    }
}

fn cloud(name: &str, ty: &TensorType) -> Result<usize, String> {
    half_only(ty)?;
    match ty.shape.dims() {
        &[n, 3] => Ok(n),
        _ => Err(format!("{name} must be [N, 3], got {}", ty.shape)),
    }
}

/// The square of the distance of two points, summed from x to z.
fn squared_distance(p: Precision, a: &[f64], b: &[f64]) -> f64 {
    match p {
        Precision::F64 => a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum(),
        Precision::F16(_) => {
            let square = |(a, b): (&f64, &f64)| (*a as f32 - *b as f32) * (*a as f32 - *b as f32);
            f64::from(a.iter().zip(b).map(square).sum::<f32>())
        }
    }
}

/// Indices of the sampled points.
fn farthest(p: Precision, points: &[f64], k: usize) -> Vec<usize> {
    let point = |i: usize| &points[3 * i..3 * i + 3];
    let mut nearest = vec![f64::INFINITY; points.len() / 3];
    let mut chosen = vec![0];
    while chosen.len() < k {
        let last = point(chosen[chosen.len() - 1]);
        let mut best = 0;
        for i in 0..nearest.len() {
            nearest[i] = nearest[i].min(squared_distance(p, point(i), last));
            if nearest[i] > nearest[best] {
                best = i;
            }
        }
        chosen.push(best);
    }
    chosen
}

impl Operator for Fps {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let n = cloud("points", &x[0])?;
        let k = usize::try_from(self.k).unwrap_or(0);
        if n > MOST_POINTS || k > MOST_SAMPLES {
            return Err(format!(
                "{k} of {n} points are beyond the engine's {MOST_SAMPLES} of {MOST_POINTS}; sample in parts"
            ));
        }
        if !(1..=n).contains(&k) {
            return Err(format!("k must be from 1 to the {n} points, got {}", self.k));
        }
        of(&[k, 3])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Layer(Kernel::Farthest)
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let chosen = farthest(p, &x[0].data, self.k as usize);
        Array::from_fn(out.shape, |i| x[0].data[3 * chosen[i / 3] + i % 3])
    }
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
        // A sampled point's cotangent goes to the points that equal it, in equal shares.
        let apart = (x[0].expand_dims(&[1]) - y.expand_dims(&[0])).l1_norm(&[2]).squeeze(&[2]);
        let hit = apart.equal(&Var::from(0.0)).select(&Var::from(1.0), &Var::from(0.0));
        vec![Grad::To((&hit / hit.sum(&[0])).matmul_value(dy))]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::Fps(Fps { k }) = op else { unreachable!("called on its own op") };
            let lie = |name, n| Symbol::permuted(name, [1, 3, 1, n], &[1, 0]);
            let params = [("CentroidCount", (*k).into()), ("DistanceMetric", "L2".into())];
            Layer::new(
                "FurthestPointSampling",
                params,
                [lie("points", x[0].shape[0])],
                lie(RESULT, *k as usize),
            )
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |n: usize, k| Case::new(Fps { k }, &[&[n, 3]], (-4.0, 4.0), Tolerance::EXACT);
        vec![on(9, 4), on(20, 7), on(5, 5)]
    }
}

impl Operator for RadiusSearch {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let (n, m) = (cloud("points", &x[0])?, cloud("centroids", &x[1])?);
        if !(self.radius.0 > 0.0 && self.radius.0.is_finite()) {
            return Err(format!("radius must be above 0 and finite, got {}", self.radius.0));
        }
        of(&[n, m])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Layer(Kernel::Within(self.radius.0 as f32))
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { stays_finite: false, ..Facts::TRUTH }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let centres = out.shape[1];
        let point = |a: usize, i: usize| &x[a].data[3 * i..3 * i + 3];
        Array::from_fn(out.shape, |i| {
            let squared = squared_distance(p, point(0, i / centres), point(1, i % centres));
            let distance = p.call(squared, f64::sqrt, f32::sqrt);
            f64::from(u8::from(distance <= p.call(self.radius.0, |r| r, |r| r)))
        })
    }
    fn vjp(&self, _: &[Var], _: &Var, _: &Var) -> Vec<Grad> {
        let why = "membership is piecewise constant in the coordinates";
        vec![Grad::Zero(why), Grad::Zero(why)]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::RadiusSearch(search) = op else { unreachable!("called on its own op") };
            let (n, m) = (x[0].shape[0], x[1].shape[0]);
            let lie = |name, n| Symbol::permuted(name, [1, 3, 1, n], &[1, 0]);
            let flags = Symbol { name: RESULT, extents: [1, 1, n, m], transfer: Transfer::Flags };
            let params = [("Radius", Value::Real(search.radius.0))];
            // The layer takes the centres first.
            let feeds = vec![(1, lie("centroids", m)), (0, lie("points", n))];
            Layer { feeds, ..Layer::new("RadiusSearch", params, [], flags) }
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |n: usize, m: usize, radius: f64| {
            Case::new(
                RadiusSearch { radius: Real(radius) },
                &[&[n, 3], &[m, 3]],
                (-2.0, 2.0),
                Tolerance::EXACT,
            )
        };
        vec![on(8, 3, 1.5), on(4, 6, 2.0), on(1, 1, 0.25)]
    }
}

impl Var {
    /// `k` points of `[N, 3]`, each as far as can be from those before it.
    #[track_caller]
    pub fn fps(&self, k: usize) -> Var {
        Var::apply(Fps { k: k as i64 }, &[self])
    }

    /// Whether each point of `[N, 3]` lies within `radius` of each centre of `[M, 3]`.
    #[track_caller]
    pub fn radius_search(&self, centroids: &Var, radius: f64) -> Var {
        Var::apply(RadiusSearch { radius: Real(radius) }, &[self, centroids])
    }
}
