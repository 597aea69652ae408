//! Products and distances of geometry and vision.

use crate::ir::form::{Facts, Form, Layer as Kernel};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::conv::Conv;
use crate::ir::ops::native::{matrix, of, result, row, through, written};
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Layer, Symbol, Value};

op! {
    /// The cross product of two vectors of three elements.
    ///
    /// The result is `[3]`, whatever the shapes of `a` and `b`. Each element is a difference of two products
    /// in single precision, rounded once.
    pub struct CrossProduct = "cross_product"("a", "b") {}
}

op! {
    /// Correlation of a map with a template at every place where it fits: `y[i, j] = sum x[i+u, j+v] *
    /// template[u, v]`.
    ///
    /// `x` is `[H, W]`, `template` `[Th, Tw]`, both values; the result is `[H-Th+1, W-Tw+1]`. The template is
    /// at most 15 wide (13 before A16) and, on the engine, smaller than the map.
    pub struct CrossCorrelation = "cross_correlation"("x", "template") {}
}

op! {
    /// Distances of every pixel of a line to its candidates in another: `out[d, x] = |aux[x] - ref[x + d]|`.
    ///
    /// `aux` has `Wa` elements and `ref` at least `Wa + R`, of any shapes; the result is `[R+1, Wa]`.
    pub struct CostVolume = "cost_volume"("aux", "ref") {
        /// The greatest disparity, `R`.
        disparity_range: i64 = 1,
    }
}

impl Operator for CrossProduct {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        for (name, ty) in ["a", "b"].iter().zip(x) {
            half_only(ty)?;
            if ty.shape.count() != 3 {
                return Err(format!("{name} must have 3 elements, got {}", ty.shape));
            }
        }
        of(&[3])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Layer(Kernel::Cross)
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let (a, b) = (&x[0].data, &x[1].data);
        Array::from_fn(out.shape, |i| {
            let (j, k) = ((i + 1) % 3, (i + 2) % 3);
            // Products of half-precision numbers are exact in double precision, as one fused step is.
            p.store(a[j] * b[k] - a[k] * b[j])
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let back = |v: Var, like: &Var| Grad::To(v.reshape_to(like.shape()));
        vec![back(x[1].cross_product(dy), &x[0]), back(dy.cross_product(&x[0]), &x[1])]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|_, _| {
            let vector = |name| Symbol::dense(name, [1, 3, 1, 1]);
            let layer = Layer::new("CrossProduct", [], [vector("x"), vector("z")], result([1, 3, 1, 1]));
            // As the reference writes it; the compiler infers three channels all the same.
            Layer { unit_channels: Some(1), ..layer }
        }))
    }
    fn cases() -> Vec<Case> {
        let on =
            |a: &[usize], b: &[usize]| Case::new(CrossProduct {}, &[a, b], (-2.0, 2.0), Tolerance::ROUNDED);
        vec![on(&[3], &[3]), on(&[1, 3], &[3, 1]), on(&[1, 1, 3], &[3])]
    }
}

const CORRELATE: Decompose = |_, x| {
    let image = |v: &Var| v.expand_dims(&[0, 1]);
    let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    Var::apply(op, &[&image(&x[0]), &image(&x[1])]).squeeze(&[0, 1])
};

impl Operator for CrossCorrelation {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let ([h, w], [th, tw]) = (matrix("x", &x[0])?, matrix("template", &x[1])?);
        if th > h || tw > w {
            return Err(format!("template {} is larger than the map {}", x[1].shape, x[0].shape));
        }
        of(&[h - th + 1, w - tw + 1])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Opaque("a convolution of one map with a kernel that is a value")
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts::ANY
    }
    fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
        written(self.clone(), CORRELATE, x, p)
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        through(self.clone(), CORRELATE, x, dy)
    }
    fn mil() -> Mil {
        let layer = |_: &Op, x: &[TensorType]| {
            let (map, template) = (x[0].shape, x[1].shape);
            let zero = |name| (name, Value::Int(0));
            let mut params = vec![("NumGroups", Value::Int(1))];
            params.extend(["PadTop", "PadBot", "PadLeft", "PadRight"].map(zero));
            params.push(("TemplateHeight", template[0].into()));
            params.push(("TemplateWidth", template[1].into()));
            let feeds = [
                Symbol::dense("x", [1, 1, map[0], map[1]]),
                // Row by row, as a line.
                Symbol::dense("template", row(template.count())),
            ];
            let extents = [1, 1, map[0] - template[0] + 1, map[1] - template[1] + 1];
            Layer::new("CrossCorrelation", params, feeds, result(extents))
        };
        Mil::Native(Native { layer, written: Some(CORRELATE), route: |_, _| false })
    }
    fn cases() -> Vec<Case> {
        let on =
            |x: &[usize], t: &[usize]| Case::new(CrossCorrelation {}, &[x, t], (-1.0, 1.0), Tolerance::SUM);
        vec![on(&[5, 5], &[3, 3]), on(&[6, 4], &[2, 3]), on(&[1, 9], &[1, 4])]
    }
}

impl CostVolume {
    fn lengths(&self, x: &[TensorType]) -> [usize; 2] {
        [x[0].shape.count(), x[1].shape.count()]
    }
}

impl Operator for CostVolume {
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        half_only(&x[0])?;
        half_only(&x[1])?;
        let [aux, reference] = self.lengths(x);
        let range = usize::try_from(self.disparity_range)
            .map_err(|_| format!("disparity_range must be at least 0, got {}", self.disparity_range))?;
        if reference < aux.saturating_add(range) {
            return Err(format!(
                "ref has {reference} elements and needs {aux} + {range}, one per pixel of aux and disparity"
            ));
        }
        of(&[range + 1, aux])
    }
    fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
        Form::Layer(Kernel::CostVolume)
    }
    fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
        Facts { never_negative: true, ..Facts::ANY }
    }
    fn eval(&self, x: &[&Array], out: &TensorType, p: Precision) -> Array {
        let width = out.shape[1];
        Array::from_fn(out.shape, |i| {
            let (d, at) = (i / width, i % width);
            p.store((x[0].data[at] - x[1].data[at + d]).abs())
        })
    }
    fn vjp(&self, x: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
        let (rows, width) = (dy.shape()[0], dy.shape()[1]);
        let flat = |v: &Var| v.reshape(&[-1]);
        let (aux, reference, length) = (flat(&x[0]), flat(&x[1]), x[1].shape().count());
        let mut toward_aux = Vec::new();
        let mut toward_ref = None::<Var>;
        for d in 0..rows {
            let sign = (&aux - reference.narrow(0, d, d + width)).sign();
            let part = dy.narrow(0, d, d + 1).reshape(&[-1]) * sign;
            let zeros = |n: usize| Var::full(aneforge_tensor::Shape::new(&[n]).expect("one axis"), 0.0);
            let pieces: Vec<Var> = [
                (d > 0).then(|| zeros(d)),
                Some(part.muls(-1.0)),
                (length > d + width).then(|| zeros(length - d - width)),
            ]
            .into_iter()
            .flatten()
            .collect();
            let shifted = Var::concat(&pieces.iter().collect::<Vec<_>>(), 0);
            toward_ref = Some(toward_ref.map_or_else(|| shifted.clone(), |sum| sum + &shifted));
            toward_aux.push(part);
        }
        let aux_sum = toward_aux.into_iter().reduce(|a, b| a + b).expect("invariant: at least one disparity");
        let ref_sum = toward_ref.expect("invariant: at least one disparity");
        vec![Grad::To(aux_sum.reshape_to(x[0].shape())), Grad::To(ref_sum.reshape_to(x[1].shape()))]
    }
    fn mil() -> Mil {
        Mil::Native(Native::only(|op, x| {
            let Op::CostVolume(volume) = op else { unreachable!("called on its own op") };
            let [aux, reference] = volume.lengths(x);
            let params =
                [("DisparityDirection", Value::Int(0)), ("DisparityRange", volume.disparity_range.into())];
            let feeds = [Symbol::dense("aux", row(aux)), Symbol::dense("ref", row(reference))];
            let planes = [1, volume.disparity_range as usize + 1, 1, aux];
            // As the reference writes it; the compiler infers a plane per disparity all the same.
            Layer { unit_channels: Some(1), ..Layer::new("CostVolume", params, feeds, result(planes)) }
        }))
    }
    fn cases() -> Vec<Case> {
        let on = |aux: &[usize], reference: &[usize], disparity_range| {
            let op = CostVolume { disparity_range };
            Case::new(op, &[aux, reference], (-2.0, 2.0), Tolerance::ROUNDED)
        };
        vec![on(&[6], &[8], 2), on(&[2, 4], &[12], 1), on(&[5], &[5], 0)]
    }
}

impl Var {
    /// The cross product of two vectors of three elements.
    #[track_caller]
    pub fn cross_product(&self, other: &Var) -> Var {
        Var::apply(CrossProduct {}, &[self, other])
    }

    /// Correlation with a template that is a value, at every place where it fits.
    #[track_caller]
    pub fn cross_correlation(&self, template: &Var) -> Var {
        Var::apply(CrossCorrelation {}, &[self, template])
    }

    /// Distances of each element to `disparity_range + 1` elements of `reference`.
    #[track_caller]
    pub fn cost_volume(&self, reference: &Var, disparity_range: usize) -> Var {
        Var::apply(CostVolume { disparity_range: disparity_range as i64 }, &[self, reference])
    }
}
