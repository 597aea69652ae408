//! What the suites share: inputs for cases, comparisons, and graphs made of cases.

use aneforge::device::host::{Host, Sums};
use aneforge::ir::graph::Graph;
use aneforge::ir::op::{Case, Tolerance};
use aneforge::ir::precision::{Array, Precision};
use aneforge::plan::{Plan, Source};
use aneforge::{DType, Encoding, Numerics, Session, Shape, Tensor, TensorType, Var, Weight, f16};
use aneforge_tensor::random;
use std::sync::Arc;

pub const IEEE: Precision = Precision::F16(Numerics::Ieee);

/// The engine whose bits are the same everywhere.
pub fn engine(threads: usize) -> Host {
    Host::new(threads).with_sums(Sums::Defined)
}

/// A case as a graph: its inputs as feeds or constants, its op, and what to feed.
pub struct Built {
    pub inputs: Vec<Var>,
    pub output: Var,
    pub feeds: Vec<Array>,
}

/// Values drawn from the case's domain, as half precision holds them.
pub fn draw(shape: Shape, seed: u64, (low, high): (f64, f64)) -> Array {
    let value = |i: usize| low + (high - low) * f64::from(random::uniform(seed, i as u64));
    Array::from_fn(shape, |i| f16::from_f64(value(i)).to_f64())
}

pub fn tensor(array: &Array) -> Tensor {
    let values: Vec<f32> = array.data.iter().map(|&v| v as f32).collect();
    Tensor::from_slice(array.shape, &values).unwrap()
}

/// Builds a case. With `all_fed`, constants are fed too, as gradients of weights need.
pub fn build(case: &Case, all_fed: bool) -> Built {
    let (mut inputs, mut feeds) = (Vec::new(), Vec::new());
    for (i, ty) in case.inputs.iter().enumerate() {
        let seed = 1000 + i as u64;
        let values = draw(ty.shape, seed, case.domain);
        inputs.push(match ty.dtype {
            DType::Bool => {
                feeds.push(draw(ty.shape, seed, (-1.0, 1.0)));
                Var::input(ty.shape).greater(&Var::from(0.0))
            }
            DType::U8 => {
                feeds.push(Array::from_fn(ty.shape, |i| values.data[i].floor()));
                Var::input_of(*ty)
            }
            _ if i >= case.constants_from && !all_fed => Var::constant(tensor(&values)),
            _ => {
                feeds.push(values);
                Var::input(ty.shape)
            }
        });
    }
    let output = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
    Built { inputs, output, feeds }
}

/// The value of one output of a graph.
pub fn evaluate(graph: &Graph, feeds: &[Array], precision: Precision) -> Array {
    graph.eval(feeds, precision)[graph.outputs()[0].index()].clone()
}

/// A result in half precision: truth values become numbers.
pub fn numbers(var: &Var) -> Var {
    match var.ty().dtype {
        DType::Bool => var.select(&Var::from(1.0), &Var::from(0.0)),
        _ => var.clone(),
    }
}

/// The distance between neighbouring half-precision numbers at `v`.
pub fn ulp(v: f64) -> f64 {
    let exponent = v.abs().max(2f64.powi(-14)).log2().floor();
    2f64.powf(exponent - 10.0)
}

/// Fails when a value is further from the exact one than the tolerance allows.
pub fn assert_close(got: &Array, exact: &Array, tolerance: Tolerance, what: &str) {
    assert_eq!(got.shape, exact.shape, "{what}");
    for (i, (g, e)) in got.data.iter().zip(&exact.data).enumerate() {
        let allowed = (tolerance.ulp * ulp(*e)).max(tolerance.absolute) + 1e-12;
        assert!((g - e).abs() <= allowed, "{what}, element {i}: got {g}, exactly {e}, allowed {allowed:e}");
    }
}

/// Fails when any value differs in its bits, but for the sign of zero and the payload of NaN.
pub fn assert_same(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g == w || (g.is_nan() && w.is_nan()), "{what}, element {i}: got {g}, want {w}");
    }
}

pub fn to_f64(values: &[f16]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// What is fed, as tensors of the feeds' element types.
pub fn feed_tensors(graph: &Graph, feeds: &[Array]) -> Vec<Tensor> {
    let as_tensor = |(ty, array): (TensorType, &Array)| match ty.dtype {
        DType::U8 => {
            let bytes: Vec<u8> = array.data.iter().map(|&v| v as u8).collect();
            Tensor::from_slice(array.shape, &bytes).unwrap()
        }
        _ => tensor(array),
    };
    graph.feed_types().iter().map(|f| f.ty).zip(feeds).map(as_tensor).collect()
}

/// What every segment of a plan computes, by the scalar definition.
pub struct Results {
    feeds: Vec<Array>,
    pub segments: Vec<Vec<Array>>,
}

impl Results {
    pub fn of(&self, source: Source) -> &Array {
        match source {
            Source::Feed(i) => &self.feeds[i],
            Source::Segment { segment, output } => &self.segments[segment][output],
        }
    }
}

/// Runs the segments of a plan one after the other, by the scalar definition.
pub fn run_segments(plan: &Plan, feeds: &[Array], precision: Precision) -> Results {
    let mut results = Results { feeds: feeds.to_vec(), segments: Vec::new() };
    for segment in &plan.segments {
        let inputs: Vec<Array> = segment.inputs.iter().map(|s| results.of(*s).clone()).collect();
        let values = segment.graph.eval(&inputs, precision);
        results.segments.push(segment.graph.outputs().iter().map(|o| values[o.index()].clone()).collect());
    }
    results
}

/// A random weight with values of magnitude up to about one. Encodings that do not go with the extents become dense.
pub fn random_weight(encoding: Encoding, dims: &[usize], seed: u64) -> Weight {
    let shape = Shape::new(dims).unwrap();
    let (count, rows) = (shape.count(), dims[0]);
    let line = |n: usize| Shape::new(&[n]).unwrap();
    let bytes = |n: usize| (0..n as u64).map(|i| random::word(seed, i) as u8).collect::<Vec<u8>>();
    let halves = |n: usize, range: (f64, f64)| tensor(&draw(line(n), seed ^ 1, range));
    let codes = || {
        let codes: Vec<i8> = bytes(count).into_iter().map(|b| b.cast_signed().max(-127)).collect();
        Tensor::from_slice(shape, &codes).unwrap()
    };
    let (one, scale) = ((-1.0, 1.0), (0.001, 0.008));
    let parts = match encoding {
        Encoding::Dense => vec![halves(count, one)],
        Encoding::Int8 => vec![codes(), halves(rows, scale)],
        Encoding::Lut4 => {
            vec![
                Tensor::from_slice(line(count.div_ceil(2)), &bytes(count.div_ceil(2))).unwrap(),
                halves(16, one),
            ]
        }
        Encoding::Sparse => {
            let mut mask = bytes(count.div_ceil(8));
            mask[0] |= 1;
            if !count.is_multiple_of(8) {
                *mask.last_mut().unwrap() &= (1 << (count % 8)) - 1;
            }
            let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            vec![Tensor::from_slice(line(mask.len()), &mask).unwrap(), halves(set as usize, one)]
        }
        Encoding::Blockwise => {
            let columns = count / rows;
            let most = 1 + seed as usize % columns.min(5);
            let blocks = (1..=most).rev().find(|blocks| columns.is_multiple_of(*blocks)).unwrap();
            vec![codes(), halves(rows * blocks, scale)]
        }
    };
    let parts: Vec<Tensor> = parts.iter().map(as_half).collect();
    match Weight::assemble(encoding, shape, parts) {
        Ok(weight) => weight,
        Err(_) => random_weight(Encoding::Dense, dims, seed),
    }
}

fn as_half(part: &Tensor) -> Tensor {
    match part.dtype().is_float() {
        true => Tensor::from_slice(part.shape(), &part.to_f16()).unwrap(),
        false => part.clone(),
    }
}

/// The bits of all outputs of a plan, and all overflows: by op, how many values, and in how many calls.
pub type Found = (Vec<Vec<u16>>, Vec<(&'static str, usize, u64)>);

/// What a host finds in two calls, as slots hold what the call before left there.
pub fn twice(plan: &Arc<Plan>, host: Host, feeds: &[Tensor]) -> Found {
    let mut session = Session::new(plan.clone(), host).unwrap();
    session.run(feeds).unwrap();
    session.run(feeds).unwrap();
    let bit = |v: &f16| if v.is_nan() { 0x7e00 } else { v.to_bits() };
    let bits = |at| session.output(at).iter().map(bit).collect();
    let outputs = (0..plan.outputs.len()).map(bits).collect();
    let mut overflows: Vec<_> = session.overflows().map(|o| (o.op, o.values, o.calls)).collect();
    overflows.sort_unstable();
    (outputs, overflows)
}
