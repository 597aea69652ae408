//! The two runs, side by side.

use super::exact;
use super::report::{Diagnosis, NodeReport, Trouble, Values};
use super::values::{Got, Value, compare, constant, held, is_finite, numbers};
use crate::device::host::Host;
use crate::device::{Buffer, Device, DeviceError, Feed};
use crate::ir::form::{Form, Move};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::Numerics;
use crate::ir::op::{Mil, Op};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::Caller;
use crate::plan::{Plan, Source};
use crate::session::RunError;
use aneforge_kernels::map::{Binary, Unary};
use aneforge_kernels::reduce::Reduction;
use aneforge_kernels::threads::stopped;
use aneforge_tensor::{DType, Encoding, Tensor, f16, round_f16};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest whole number up to which half precision holds all.
const WHOLE: f64 = 2048.0;

/// Runs a plan in both precisions.
pub(super) fn walk(
    host: &Host,
    plan: &Plan,
    feeds: &[Tensor],
    tolerance: f64,
) -> Result<Diagnosis, RunError> {
    let mut walk = Walk {
        host,
        numerics: host.numerics(plan.target),
        tolerance,
        nodes: Vec::new(),
        took: [Duration::ZERO; 2],
    };
    let feeds_of = walk.fed(plan, feeds)?;
    let mut results: HashMap<(usize, usize), Value> = HashMap::new();
    for (at, segment) in plan.segments.iter().enumerate() {
        let graph = host.graph_of(segment)?;
        let inputs = segment.inputs.iter().map(|source| match *source {
            Source::Feed(feed) => feeds_of[feed].clone(),
            Source::Segment { segment, output } => results[&(segment, output)].clone(),
        });
        let inputs = inputs.collect();
        for (output, value) in walk.segment(at, &graph, inputs)?.into_iter().enumerate() {
            results.insert((at, output), value);
        }
    }
    let result = |(_, source): &(_, Source)| match *source {
        Source::Segment { segment, output } => results[&(segment, output)].clone(),
        Source::Feed(_) => unreachable!("outputs are computed"),
    };
    let results: Vec<Value> = plan.outputs.iter().map(result).collect();
    Ok(Diagnosis {
        target: plan.target,
        numerics: walk.numerics,
        tolerance,
        nodes: walk.nodes,
        outputs: results.iter().map(|value| value.error).collect(),
        notes: Vec::new(),
        took: walk.took,
        results,
        feeds: feeds_of,
    })
}

/// How far results are from what the graph as written makes of the same inputs in double precision.
pub(super) fn errors_of_outputs(host: &Host, graph: &Graph, found: &mut Diagnosis) -> Result<(), RunError> {
    let start = Instant::now();
    let feeds: Vec<&Value> = found.feeds.iter().collect();
    let exact = exactly(host, graph, &feeds)?;
    let error = |(exact, found): (&Arc<Array>, &Value)| {
        compare(&exact.data, found.got.array().data.iter().copied()).1
    };
    found.outputs = exact.iter().zip(&found.results).map(error).collect();
    found.took[1] += start.elapsed();
    Ok(())
}

/// What a graph returns, in double precision. Values go when nothing reads them any more.
fn exactly(host: &Host, graph: &Graph, feeds: &[&Value]) -> Result<Vec<Arc<Array>>, RunError> {
    let order = graph.feeds();
    let mut uses = graph.uses();
    let mut values: HashMap<NodeId, Arc<Array>> = HashMap::new();
    for (id, node) in graph.nodes() {
        if stopped() {
            return Err(DeviceError::Stopped.into());
        }
        let value = match &node.op {
            Op::Input(_) => {
                let feed = order.iter().position(|&f| f == id).expect("invariant: leaves are feeds");
                Arc::clone(&feeds[feed].exact)
            }
            // Looked up when they are read.
            Op::Constant(_) if !graph.outputs().contains(&id) => continue,
            Op::Constant(_) => Arc::new(constant(graph.constant(id).expect("invariant: it is in the table"))),
            _ => {
                let inputs = operands(graph, node, |input| Arc::clone(&values[&input]));
                let inputs: Vec<&Array> = inputs.iter().map(|array| &**array).collect();
                Arc::new(exact::eval(graph, id, &inputs, host.threads()))
            }
        };
        values.insert(id, value);
        release(graph, node, &mut uses, &mut values);
    }
    Ok(graph.outputs().iter().map(|id| Arc::clone(&values[id])).collect())
}

/// What a node reads, constants among them.
fn operands(graph: &Graph, node: &GraphNode, value: impl Fn(NodeId) -> Arc<Array>) -> Vec<Arc<Array>> {
    let operand = |&input: &NodeId| match graph.constant(input) {
        Some(weight) => Arc::new(constant(weight)),
        None => value(input),
    };
    node.inputs.iter().map(operand).collect()
}

/// Lets go of operands that nothing reads any more.
fn release<T>(graph: &Graph, node: &GraphNode, uses: &mut [u32], values: &mut HashMap<NodeId, T>) {
    for input in &node.inputs {
        uses[input.index()] -= 1;
        if uses[input.index()] == 0 && !graph.outputs().contains(input) {
            values.remove(input);
        }
    }
}

struct Walk<'a> {
    host: &'a Host,
    numerics: Numerics,
    tolerance: f64,
    nodes: Vec<NodeReport>,
    /// In half precision, and in double precision.
    took: [Duration; 2],
}

impl Walk<'_> {
    /// Inputs in both precisions.
    fn fed(&mut self, plan: &Plan, feeds: &[Tensor]) -> Result<Vec<Value>, RunError> {
        if feeds.len() != plan.feeds.len() {
            return Err(RunError::Count { want: plan.feeds.len(), got: feeds.len() });
        }
        let mut values = Vec::new();
        for (index, (tensor, feed)) in feeds.iter().zip(&plan.feeds).enumerate() {
            let (want, got) = (feed.ty.shape, tensor.shape());
            if want != got {
                return Err(RunError::Shape { index, want, got: got.dims().to_vec() });
            }
            let exact = Array::from_tensor(tensor, Precision::F64);
            let buffer = self.host.allocate(feed.ty)?;
            let bytes: Vec<u8>;
            let written = match (feed.ty.dtype, tensor.dtype()) {
                (DType::U8, DType::U8) => buffer.write(Feed::U8(tensor.bytes())),
                (DType::U8, _) if exact.data.iter().all(|v| v.fract() == 0.0 && (0.0..256.0).contains(v)) => {
                    bytes = exact.data.iter().map(|v| *v as u8).collect();
                    buffer.write(Feed::U8(&bytes))
                }
                _ => buffer.write(Feed::F64(&exact.data)),
            };
            written.map_err(|_| RunError::DType { index, want: feed.ty.dtype, got: tensor.dtype() })?;
            let value = Value { exact: Arc::new(exact), got: Got::Held(buffer), error: 0.0 };
            let name =
                if feed.name.is_empty() { format!("input {index}") } else { format!("input {}", feed.name) };
            values.push(self.judged_feed(value, feed.ty, Caller::named(&name, 0)));
        }
        Ok(values)
    }

    /// An input is only told of where half precision does not hold it.
    fn judged_feed(&mut self, value: Value, ty: crate::ir::types::TensorType, at: Caller) -> Value {
        let Got::Held(buffer) = &value.got else { unreachable!("inputs lie in buffers") };
        let got = numbers(buffer);
        let exact = &value.exact.data;
        let (largest, error) = compare(exact, got.iter().copied());
        let beyond =
            exact.iter().zip(&got).filter(|(want, got)| want.is_finite() && !got.is_finite()).count();
        let lost = lost_integers(exact, &got);
        let mut troubles = Vec::new();
        let mut add = |trouble, values, remedy: &str| {
            if values > 0 {
                troubles.push(Values { trouble, values, remedy: remedy.into() });
            }
        };
        add(Trouble::Overflow, beyond, "half precision ends at 65504; scale the array down before it is fed");
        add(Trouble::LostIntegers, lost, INTEGERS);
        let nan = exact.iter().zip(&got).filter(|(want, got)| want.is_nan() && !got.is_nan()).count();
        add(Trouble::Invalid, nan, "the array holds NaN, which engines do not keep; mend what it comes from");
        if troubles.is_empty() && error > self.tolerance {
            let remedy = "half precision holds no magnitudes below 6e-8, and few digits of those below 6e-5; scale the array up \
                          before it is fed";
            troubles.push(Values { trouble: Trouble::Error, values: exact.len(), remedy: remedy.into() });
        }
        if !troubles.is_empty() {
            let (op, segment, narrow) = ("input", 0, None);
            self.nodes.push(NodeReport { segment, op, at, ty, largest, error, narrow, troubles });
        }
        Value { error, ..value }
    }

    /// What a segment returns.
    fn segment(&mut self, at: usize, graph: &Graph, inputs: Vec<Value>) -> Result<Vec<Value>, RunError> {
        let order = graph.feeds();
        let mut uses = graph.uses();
        let mut values: HashMap<NodeId, Value> = HashMap::new();
        for (id, node) in graph.nodes() {
            if stopped() {
                return Err(DeviceError::Stopped.into());
            }
            if matches!(node.op.mil(), Mil::Leaf) {
                if let Some(feed) = order.iter().position(|&feed| feed == id) {
                    values.insert(id, inputs[feed].clone());
                }
                continue;
            }
            let value = self.node(at, graph, id, &values)?;
            values.insert(id, value);
            release(graph, node, &mut uses, &mut values);
        }
        Ok(graph.outputs().iter().map(|id| values[id].clone()).collect())
    }

    /// One node in both precisions.
    fn node(
        &mut self,
        segment: usize,
        graph: &Graph,
        id: NodeId,
        values: &HashMap<NodeId, Value>,
    ) -> Result<Value, RunError> {
        let node = graph.node(id);
        let start = Instant::now();
        let inputs = operands(graph, node, |input| Arc::clone(&values[&input].exact));
        let inputs: Vec<&Array> = inputs.iter().map(|array| &**array).collect();
        let exact = exact::eval(graph, id, &inputs, self.host.threads());
        self.took[1] += start.elapsed();
        let start = Instant::now();
        let (plain, got) = self.computed(graph, id, values)?;
        let reads: Vec<&Value> = node.inputs.iter().filter_map(|input| values.get(input)).collect();
        let error = if node.ty.dtype == DType::Bool {
            0.0
        } else {
            self.judged(Judged { segment, graph, id, exact: &exact, plain: &plain, got: &got, reads })
        };
        self.took[0] += start.elapsed();
        Ok(Value { exact: Arc::new(exact), got, error })
    }

    /// A node's value in half precision as IEEE 754 says, and with what this family does.
    fn computed(
        &self,
        graph: &Graph,
        id: NodeId,
        values: &HashMap<NodeId, Value>,
    ) -> Result<(Got, Got), DeviceError> {
        let node = graph.node(id);
        let truths = node.inputs.iter().any(|&input| graph.node(input).ty.dtype == DType::Bool);
        if truths || node.ty.dtype == DType::Bool {
            let scalar = |numerics| {
                let inputs = node.inputs.iter().map(|input| match graph.constant(*input) {
                    Some(weight) => Arc::new(Array::from_weight(weight, Precision::F16(numerics))),
                    None => values[input].got.array(),
                });
                let inputs: Vec<Arc<Array>> = inputs.collect();
                let inputs: Vec<&Array> = inputs.iter().map(|array| &**array).collect();
                node.op.eval(&inputs, &node.ty, Precision::F16(numerics))
            };
            if node.ty.dtype == DType::Bool {
                let truth = Got::Truth(Arc::new(scalar(self.numerics)));
                return Ok((truth.clone(), truth));
            }
            let plain = Got::Held(held(self.host, &scalar(Numerics::Ieee))?);
            return Ok((plain, Got::Held(held(self.host, &scalar(self.numerics))?)));
        }
        let operand = |input: NodeId| -> &Buffer {
            match &values[&input].got {
                Got::Held(buffer) => buffer,
                Got::Truth(_) => unreachable!("truth values were computed by the definition"),
            }
        };
        let plain = self.host.node(graph, id, Numerics::Ieee, operand)?;
        let got = match self.departs(graph.form(id), &plain) {
            true => self.host.node(graph, id, self.numerics, operand)?,
            false => plain.clone(),
        };
        Ok((Got::Held(plain), Got::Held(got)))
    }

    /// Whether a node's value may be another with what this family does.
    fn departs(&self, form: Form, plain: &Buffer) -> bool {
        let rules = self.numerics.arithmetic();
        let limit = rules.product_limit.min(rules.offset_slice_limit);
        let beyond = |v: &f16| v.is_nan() || f64::from(v.to_f32().abs()) > limit;
        match form {
            _ if self.numerics == Numerics::Ieee => false,
            _ if self.numerics.is_faithful() => true,
            Form::Map(function) if rules.function(function) != function => true,
            _ => plain.values().is_some_and(|v| v.iter().any(beyond)),
        }
    }

    /// Says what is wrong with a node's value; its relative error.
    fn judged(&mut self, judged: Judged<'_>) -> f64 {
        let Judged { segment, graph, id, exact, plain, got, ref reads } = judged;
        let node = graph.node(id);
        let (Got::Held(plain), Got::Held(got)) = (plain, got) else { unreachable!("no truth values") };
        let (Some(plain), Some(halves)) = (plain.values(), got.values()) else {
            unreachable!("computed values are half precision without gaps")
        };
        let (largest, error) = compare(&exact.data, halves.iter().map(|v| v.to_f64()));
        let counts = judged.counts(&plain, &halves);
        let narrow = judged.narrow();
        let mut troubles = Vec::new();
        for (trouble, values) in counts {
            if values > 0 {
                troubles.push(Values { trouble, values, remedy: remedy(trouble, graph, id).into() });
            }
        }
        let one = |trouble| Values {
            trouble,
            values: node.ty.shape.count(),
            remedy: remedy(trouble, graph, id).into(),
        };
        if error <= self.tolerance && narrow.is_some_and(|narrow| narrow > self.tolerance) {
            troubles.push(one(Trouble::NarrowSum));
        }
        let first = reads.iter().all(|value| value.error <= self.tolerance);
        if troubles.is_empty() && first && error > self.tolerance {
            troubles.push(one(Trouble::Error));
        }
        let (op, at, ty) = (node.op.name(), node.at, node.ty);
        self.nodes.push(NodeReport { segment, op, at, ty, largest, error, narrow, troubles });
        error
    }
}

/// What a node's value is judged by.
struct Judged<'a> {
    segment: usize,
    graph: &'a Graph,
    id: NodeId,
    exact: &'a Array,
    /// As IEEE 754 says.
    plain: &'a Got,
    got: &'a Got,
    /// Operands that are no constants.
    reads: Vec<&'a Value>,
}

impl Judged<'_> {
    /// How many values have each trouble.
    fn counts(&self, plain: &[f16], got: &[f16]) -> [(Trouble, usize); 4] {
        let finite = self.reads.iter().all(|value| is_finite(&value.got));
        // Where an operand is not finite, only functions of elements are looked into.
        let elementwise = matches!(self.graph.form(self.id), Form::Map(_) | Form::Zip(_));
        let same: Vec<Arc<Array>> = match finite || !elementwise {
            true => Vec::new(),
            false => self.reads.iter().map(|value| value.got.array()).collect(),
        };
        let aligned = same.iter().all(|array| array.data.len() == plain.len());
        let was_finite =
            |at: usize| finite || (elementwise && aligned && same.iter().all(|a| a.data[at].is_finite()));
        // Infinities that cancel are the fault of what made them, unless they are right.
        let sound = self.reads.iter().all(|value| value.error.is_finite());
        let (mut saturated, mut overflowed, mut invalid) = (0, 0, 0);
        for (at, (plain, got)) in plain.iter().zip(got).enumerate() {
            saturated += usize::from(plain.is_finite() && got.is_infinite());
            overflowed +=
                usize::from(plain.is_infinite() && self.exact.data[at].is_finite() && was_finite(at));
            invalid += usize::from(plain.is_nan() && sound);
        }
        // Products that happen to be whole are no indices and no counts.
        let arithmetic = matches!(
            self.graph.form(self.id),
            Form::Product(_)
                | Form::RowProduct
                | Form::Conv(..)
                | Form::ConvTranspose(..)
                | Form::Pool(..)
                | Form::Zip(Binary::Mul | Binary::RealDiv | Binary::Pow)
                | Form::Map(Unary::MulScalar { .. } | Unary::Square)
        );
        let exact_operands = !arithmetic && self.reads.iter().all(|value| value.error == 0.0);
        let numbers: Vec<f64> = match exact_operands {
            true => got.iter().map(|v| v.to_f64()).collect(),
            false => Vec::new(),
        };
        let lost = if exact_operands { lost_integers(&self.exact.data, &numbers) } else { 0 };
        [
            (Trouble::Saturation, saturated),
            (Trouble::Overflow, overflowed),
            (Trouble::Invalid, invalid),
            (Trouble::LostIntegers, lost),
        ]
    }

    /// The relative error of a plain sum that is accumulated in half precision, element by element.
    fn narrow(&self) -> Option<f64> {
        let Form::Reduce(Reduction::Sum, axes) = self.graph.form(self.id) else { return None };
        let read = self.reads.first()?;
        let (values, shape) = (read.got.array(), read.exact.shape);
        let mut sums = vec![f16::ZERO; self.exact.data.len()];
        let mut at = vec![0; shape.rank()];
        for value in &values.data {
            let mut place = 0;
            for (axis, &extent) in shape.dims().iter().enumerate() {
                if axes >> axis & 1 == 0 {
                    place = place * extent + at[axis];
                }
            }
            sums[place] = round_f16(sums[place].to_f64() + value);
            for axis in (0..shape.rank()).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Some(compare(&self.exact.data, sums.iter().map(|v| v.to_f64())).1)
    }
}

/// How many whole numbers beyond 2048 are not what they should be, where all values are whole.
fn lost_integers(exact: &[f64], got: &[f64]) -> usize {
    if !exact.iter().all(|v| v.fract() == 0.0) {
        return 0;
    }
    let lost = |(want, got): &(&f64, &f64)| want.abs() > WHOLE && got.is_finite() && want != got;
    exact.iter().zip(got).filter(lost).count()
}

const INTEGERS: &str = "half precision holds all whole numbers up to 2048 only: keep indices below it, by splitting what is \
    indexed, or carry two halves (paired)";

/// What to do about a trouble of a node.
fn remedy(trouble: Trouble, graph: &Graph, id: NodeId) -> &'static str {
    let encoded = || {
        let weights = graph.node(id).inputs.iter().filter_map(|&input| graph.constant(input));
        weights.map(aneforge_tensor::Weight::encoding).any(|encoding| encoding != Encoding::Dense)
    };
    match (trouble, graph.form(id)) {
        (Trouble::Saturation, Form::Move(Move::Slice { .. })) => {
            "a slice that begins past 0 on the last axis is infinite beyond 4094 on A13 and A14: slice another axis, \
             transpose before it, or scale the values down"
        }
        (Trouble::Saturation, _) => {
            "products are infinite beyond 32752 on every family: scale an operand down by a power of two, and the result up \
             where it has become small"
        }
        (Trouble::Overflow, Form::Map(Unary::Exp | Unary::Exp2)) => {
            "subtract the row's maximum before it, or use softmax, which does"
        }
        (
            Trouble::Overflow,
            Form::Reduce(Reduction::SumSquare | Reduction::L2Norm, _) | Form::Zip(Binary::Mul),
        ) => {
            "scale the values down before they are squared; norms survive when they are compiled with norms=robust"
        }
        (Trouble::Overflow, Form::Zip(Binary::RealDiv)) => {
            "keep the divisor away from 0, by an eps or a maximum"
        }
        (Trouble::Overflow, Form::Map(Unary::Inverse { .. } | Unary::Rsqrt { .. } | Unary::Log { .. })) => {
            "keep the operand away from 0, by an eps or a maximum"
        }
        (Trouble::Overflow, _) => "scale the values down before it",
        (Trouble::Invalid, Form::Map(_)) => {
            "its operand has no result: clip it to the function's domain before"
        }
        (Trouble::Invalid, Form::Zip(Binary::RealDiv)) => {
            "0 / 0 or infinite / infinite: add an eps to the divisor"
        }
        (Trouble::Invalid, _) => "infinite operands cancel: mend the node that made them infinite",
        (Trouble::LostIntegers, _) => INTEGERS,
        (Trouble::NarrowSum, _) => {
            "write it as a product with ones, which is wide on every chip: reduce_sum_to_matmul(out)"
        }
        (Trouble::Error, Form::Zip(Binary::Sub | Binary::Add)) => {
            "close values cancel: carry them in two halves (paired), or rearrange the formula"
        }
        (Trouble::Error, _) if encoded() => {
            "store this weight in another form, such as int8 in the place of int4"
        }
        (Trouble::Error, _) => "",
    }
}
