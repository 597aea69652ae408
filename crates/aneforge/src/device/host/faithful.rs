//! Programs with all that is published of the engine's arithmetic: node by node, each rounded as the family rounds.
//!
//! What a node has in common with the fast kernels, it computes by them; products sum in the same order and are rounded otherwise;
//! everything else is its op's own definition.

mod product;

use super::overflow::Overflows;
use super::packs::Packs;
use super::{planner, run, single};
use crate::device::bound::Bound;
use crate::device::host::memory::{promised, room};
use crate::device::{Buffer, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::form::{Form, Move, Norm, Pooling};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::numerics::{Arithmetic, Numerics};
use crate::ir::op::{Mil, Op};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::target::layers::written_out;
use aneforge_kernels::map::{self, Binary, HALVES};
use aneforge_kernels::reduce::Reduction;
use aneforge_kernels::threads::stopped;
use aneforge_kernels::{Kernels, Layout, View};
use aneforge_tensor::{DType, Shape, f16};
use product::Product;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How a node is computed.
enum Step {
    /// A port or a constant.
    Leaf,
    /// By the fast kernels, whose rules are its own.
    Shared(Box<run::Program>),
    /// A product, which is rounded by these rules.
    Product(Box<Product>),
    /// A function of one half: its value at each.
    Map(Arc<[f16]>),
    /// A function of two that broadcast, rounded by these rules.
    Zip(Binary),
    /// By the op's definition.
    Defined,
}

/// A program that is ready to run.
pub(super) struct Faithful {
    graph: Graph,
    numerics: Numerics,
    kernels: Kernels,
    feeds: Vec<NodeId>,
    steps: Vec<Step>,
    /// What is fed, and what each node computes, but truth values.
    held: Vec<Option<Buffer>>,
    truths: Vec<Option<Arc<Array>>>,
    bound: Bound,
    constants: Vec<Option<Arc<Array>>>,
    /// By function.
    tables: HashMap<Op, Arc<[f16]>>,
    overflows: Overflows,
    copied: u64,
}

/// Whether the fast kernels compute a form by these rules too: nothing is rounded but once and to even, nor summed, nor from a table.
fn is_shared(form: &Form, rules: &Arithmetic) -> bool {
    match form {
        Form::View => true,
        Form::Move(
            Move::Slice { .. }
            | Move::Concat(_)
            | Move::Transpose { .. }
            | Move::Repeat(_)
            | Move::Reverse(_),
        ) => true,
        Form::Reduce(Reduction::Max | Reduction::Min, _) | Form::Pool(_, Pooling::Max) => true,
        Form::Zip(_) | Form::Prelu | Form::Normalise(Norm::Softmax(_) | Norm::Given { .. }) => {
            !rules.ties_away
        }
        _ => false,
    }
}

impl Faithful {
    pub(super) fn new(graph: &Graph, numerics: Numerics, kernels: Kernels) -> Result<Faithful, DeviceError> {
        let graph = written_out(graph);
        let values = graph.nodes().map(|(_, node)| node.ty.bytes());
        let working = graph.nodes().map(|(id, _)| product::working(&graph, id));
        promised(values.chain(working).fold(0, usize::saturating_add))?;
        let held = |(id, node): (NodeId, &GraphNode)| {
            let has_values = graph.constant(id).is_none() && node.ty.dtype != DType::Bool;
            has_values.then(|| fresh(node.ty)).transpose()
        };
        let held: Vec<Option<Buffer>> = graph.nodes().map(held).collect::<Result<_, _>>()?;
        let count = graph.len();
        let mut faithful = Faithful {
            feeds: graph.feeds(),
            steps: Vec::with_capacity(count),
            truths: vec![None; count],
            constants: vec![None; count],
            bound: Bound::new(graph.feeds().len(), graph.outputs().len()),
            tables: HashMap::new(),
            overflows: Overflows::new(&graph),
            copied: 0,
            held,
            numerics,
            kernels,
            graph,
        };
        let ids: Vec<NodeId> = faithful.graph.nodes().map(|(id, _)| id).collect();
        for id in ids {
            let step = faithful.step(id)?;
            faithful.steps.push(step);
        }
        for id in faithful.graph.outputs().to_vec() {
            faithful.constant(id);
        }
        Ok(faithful)
    }

    /// How a node is computed.
    fn step(&mut self, id: NodeId) -> Result<Step, DeviceError> {
        let (graph, rules) = (&self.graph, self.numerics.arithmetic());
        let node = graph.node(id);
        if matches!(node.op.mil(), Mil::Leaf) {
            return Ok(Step::Leaf);
        }
        if let Some(product) = Product::new(graph, id, rules, &self.kernels) {
            let read: Vec<NodeId> =
                (0..node.inputs.len()).filter(|&at| product.reads(at)).map(|at| node.inputs[at]).collect();
            read.into_iter().for_each(|input| self.constant(input));
            return Ok(Step::Product(Box::new(product)));
        }
        let half = |ty: TensorType| ty.dtype == DType::F16;
        let plain = half(node.ty) && node.inputs.iter().all(|&input| half(graph.node(input).ty));
        if plain && is_shared(&graph.form(id), rules) {
            let (alone, fed) = single::alone(graph, id);
            let plan = planner::plan(&alone, self.numerics.fast(), false);
            let mut program = run::Program::new(&alone, plan, self.kernels.clone(), &Packs::default())?;
            for (port, &input) in fed.iter().enumerate() {
                program.bind(Port::Input(port), self.buffer(input))?;
            }
            program.bind(Port::Output(0), self.buffer(id))?;
            return Ok(Step::Shared(Box::new(program)));
        }
        for input in node.inputs.clone() {
            self.constant(input);
        }
        let node = self.graph.node(id);
        Ok(match self.graph.form(id) {
            // Fewer are not worth a table.
            Form::Map(_) if plain && node.ty.shape.count() >= HALVES / 2 => {
                Step::Map(self.table(node.op.clone()))
            }
            Form::Zip(function) if plain => Step::Zip(function),
            _ => Step::Defined,
        })
    }

    /// The values of a function of one half.
    fn table(&mut self, op: Op) -> Arc<[f16]> {
        let known = self.tables.entry(op);
        let table = known.or_insert_with_key(|op| {
            let all = TensorType::f16(Shape::new(&[HALVES]).expect("invariant: one axis"));
            let halves = Array::from_fn(all.shape, |bits| f16::from_bits(bits as u16).to_f64());
            let values = op.eval(&[&halves], &all, Precision::F16(self.numerics)).data;
            values.into_iter().map(f16::from_f64).collect()
        });
        Arc::clone(table)
    }

    fn constant(&mut self, id: NodeId) {
        if self.constants[id.index()].is_none()
            && let Some(weight) = self.graph.constant(id)
        {
            let array = Array::from_weight(weight, Precision::F16(self.numerics));
            self.constants[id.index()] = Some(Arc::new(array));
        }
    }

    /// A value as numbers.
    fn array(&self, id: NodeId) -> Arc<Array> {
        let known = self.constants[id.index()].as_ref().or(self.truths[id.index()].as_ref());
        if let Some(array) = known {
            return Arc::clone(array);
        }
        let buffer = self.buffer(id);
        let shape = buffer.ty().shape;
        let data = match buffer.values() {
            Some(values) => values.iter().map(|v| v.to_f64()).collect(),
            None => buffer.lock().iter().take(shape.count()).map(|v| f64::from(*v)).collect(),
        };
        Arc::new(Array { shape, data })
    }

    /// Where a value lies that is neither constant nor a truth value.
    fn buffer(&self, id: NodeId) -> &Buffer {
        self.held[id.index()].as_ref().expect("invariant: all others are held")
    }

    /// Runs every node on a copy of what is fed, which nobody else can change meanwhile.
    fn run(&mut self, mut after: impl FnMut(NodeId)) -> Result<(), DeviceError> {
        let bound = std::mem::take(&mut self.bound);
        let done = self.run_on(&bound, &mut after);
        self.bound = bound;
        done
    }

    fn run_on(&mut self, bound: &Bound, after: &mut dyn FnMut(NodeId)) -> Result<(), DeviceError> {
        let mut locked = bound.lock();
        let outputs = (0..self.graph.outputs().len()).map(|at| bound.place(Port::Output(at)));
        let outputs: Vec<usize> = outputs.collect::<Result<_, _>>()?;
        for (at, &feed) in self.feeds.iter().enumerate() {
            let place = bound.place(Port::Input(at))?;
            let from = bound.inputs[at].as_ref().expect("invariant: it has a place");
            self.take(self.buffer(feed), from, &mut locked[place]);
        }
        for at in 0..self.steps.len() {
            let id = NodeId(at as u32);
            if matches!(self.steps[at], Step::Leaf) {
                continue;
            }
            self.compute(id)?;
            // What was stopped has computed some of its values only.
            if stopped() {
                return Err(DeviceError::Stopped);
            }
            self.look(id);
            after(id);
        }
        for (at, (&id, place)) in self.graph.outputs().iter().zip(outputs).enumerate() {
            let out = bound.outputs[at].as_ref().expect("invariant: it has a place");
            let values = self.halves(id);
            self.copied += out.ty().bytes() as u64;
            out.put_halves_in(&mut locked[place], &values);
        }
        Ok(())
    }

    /// Copies what is fed. What may hold NaN that nobody cleaned is cleaned.
    fn take(&self, to: &Buffer, from: &Buffer, bytes: &mut [u8]) {
        if to.ty().dtype != DType::F16 {
            to.lock_mut().copy_from_slice(&bytes[..to.ty().bytes()]);
            return;
        }
        if !from.is_clean() && self.numerics.arithmetic().takes_nan_for_infinity {
            map::sanitize(&self.kernels, bytemuck::cast_slice_mut(bytes));
        }
        from.halves_in(bytes, &mut to.values_mut().expect("invariant: fresh buffers are plain"));
    }

    fn compute(&mut self, id: NodeId) -> Result<(), DeviceError> {
        match &mut self.steps[id.index()] {
            Step::Leaf => Ok(()),
            Step::Shared(program) => program.execute(),
            Step::Product(_) | Step::Map(_) | Step::Zip(_) => {
                self.compute_halves(id);
                Ok(())
            }
            Step::Defined => {
                let node = self.graph.node(id);
                let inputs: Vec<Arc<Array>> = node.inputs.iter().map(|&input| self.array(input)).collect();
                let inputs: Vec<&Array> = inputs.iter().map(|array| &**array).collect();
                let array = node.op.eval(&inputs, &node.ty, Precision::F16(self.numerics));
                match &self.held[id.index()] {
                    None => self.truths[id.index()] = Some(Arc::new(array)),
                    Some(buffer) => {
                        let mut out = buffer.values_mut().expect("invariant: fresh buffers are plain");
                        out.iter_mut().zip(&array.data).for_each(|(to, v)| *to = f16::from_f64(*v));
                    }
                }
                Ok(())
            }
        }
    }

    /// The same, of a node that reads and writes halves.
    fn compute_halves(&self, id: NodeId) {
        let (node, k) = (self.graph.node(id), &self.kernels);
        let out = self.buffer(id);
        let to = || out.values_mut().expect("invariant: fresh buffers are plain");
        match &self.steps[id.index()] {
            Step::Product(product) => {
                let mut operands = [const { None }; 3];
                for (at, operand) in operands.iter_mut().enumerate().take(node.inputs.len()) {
                    if product.reads(at) {
                        *operand = Some(self.halves(node.inputs[at]).iter().map(|v| v.to_f32()).collect());
                    }
                }
                product.run(k, operands, out);
            }
            Step::Map(table) => map::look_up(k, table, &self.halves(node.inputs[0]), &mut to()),
            Step::Zip(function) => {
                let [a, b] = [self.halves(node.inputs[0]), self.halves(node.inputs[1])];
                let [x, y] = [0, 1].map(|at| self.graph.node(node.inputs[at]).ty.shape);
                let views = [View::new(&a, x.dims()), View::new(&b, y.dims())];
                let rules = self.numerics.arithmetic();
                let store = |a: f32, b: f32| f16::from_f64(rules.store(f64::from(function.eval(a, b))));
                map::zip_with(k, views, node.ty.shape.dims(), store, &mut to());
            }
            Step::Leaf | Step::Shared(_) | Step::Defined => unreachable!("computed otherwise"),
        }
    }

    /// A value as halves.
    fn halves(&self, id: NodeId) -> Vec<f16> {
        if let Some(array) = &self.constants[id.index()] {
            return array.data.iter().map(|v| f16::from_f64(*v)).collect();
        }
        self.buffer(id).values().expect("invariant: fresh buffers of halves are plain").to_vec()
    }

    /// Takes note of a node that made infinities or NaN of finite operands.
    fn look(&mut self, id: NodeId) {
        let finite = |buffer: &Buffer| {
            buffer.values().is_none_or(|v| v.iter().fold(true, |all, v| all & v.is_finite()))
        };
        let node = self.graph.node(id);
        let Some(made) = &self.held[id.index()] else { return };
        if finite(made) {
            return;
        }
        let mut fed = node.inputs.iter().filter_map(|input| self.held[input.index()].as_ref());
        if fed.all(finite) {
            let values = made.values().map_or(0, |v| v.iter().filter(|v| !v.is_finite()).count());
            self.overflows.add(id, node.op.name(), values);
        }
    }
}

/// Memory for a value.
fn fresh(ty: TensorType) -> Result<Buffer, DeviceError> {
    Ok(Buffer::new(ty, Layout::row_major(ty.shape.dims()), room(ty.bytes())?, None))
}

impl Loaded for Faithful {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        let id = match port {
            Port::Input(at) => self.feeds.get(at),
            Port::Output(at) => self.graph.outputs().get(at),
        };
        let none = || DeviceError::Bind { port, why: "the program has no such port".into() };
        let (want, got) = (self.graph.node(*id.ok_or_else(none)?).ty, buffer.ty());
        if (want.dtype, want.shape.count()) != (got.dtype, got.shape.count()) {
            let why = format!("takes {want}, and the buffer holds {got}");
            return Err(DeviceError::Bind { port, why });
        }
        self.bound.set(port, buffer);
        Ok(())
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        self.run(|_| {})
    }

    fn profile(&mut self) -> Result<Vec<StepTime>, DeviceError> {
        let (mut start, mut times) = (Instant::now(), Vec::new());
        self.run(|id| {
            times.push((id, start.elapsed()));
            start = Instant::now();
        })?;
        let step = |(id, time): (NodeId, _)| {
            let node = self.graph.node(id);
            let read: usize = node.inputs.iter().map(|&input| self.graph.node(input).ty.bytes()).sum();
            let (flops, bytes) = (self.graph.facts(id).flops, read + node.ty.bytes());
            StepTime { name: node.op.name().into(), ty: node.ty, flops, bytes, time }
        };
        Ok(times.into_iter().map(step).collect())
    }

    fn roof(&self) -> Option<Roof> {
        None
    }

    fn overflows(&self) -> &[Overflow] {
        self.overflows.found()
    }

    fn copied(&self) -> u64 {
        self.copied
    }

    fn describe(&self) -> String {
        let line = |(at, step): (usize, &Step)| {
            let how = match step {
                Step::Leaf => return None,
                Step::Shared(_) => "by the fast kernels",
                Step::Product(_) => "summed as they sum, rounded by the rules",
                Step::Map(_) => "from a table of all halves",
                Step::Zip(_) => "rounded by the rules",
                Step::Defined => "by its definition",
            };
            let node = self.graph.node(NodeId(at as u32));
            Some(format!("  {} : {}, {how}\n", node.op.name(), node.ty))
        };
        let lines: String = self.steps.iter().enumerate().filter_map(line).collect();
        format!("{}, node by node\n{lines}", self.numerics)
    }

    fn receipt(&self) -> Receipt {
        let how = format!("this library computes it node by node, as {} says", self.numerics);
        Receipt { device: "host".into(), how: vec![how] }
    }
}
