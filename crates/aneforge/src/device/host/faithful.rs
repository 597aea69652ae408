//! Programs with all that is published of the engine's arithmetic: node by node, each rounded as the family rounds.
//!
//! What a node has in common with the fast kernels, it computes by them; products sum in the same order and are rounded otherwise;
//! everything else is its op's own definition.

mod product;

use super::overflow::Overflows;
use super::packs::Packs;
use super::{planner, run, single};
use crate::device::host::memory::{promised, room};
use crate::device::{Buffer, DeviceError, Loaded, Overflow, Port, Receipt, Roof, StepTime};
use crate::ir::form::{Form, Move, Norm, Pooling};
use crate::ir::graph::{Graph, NodeId};
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
    Shared(Box<run::Program>, Vec<NodeId>),
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
    /// What each node computes, but truth values.
    held: Vec<Option<Buffer>>,
    truths: Vec<Option<Arc<Array>>>,
    outputs: Vec<Option<Buffer>>,
    constants: Vec<Option<Arc<Array>>>,
    /// By function.
    tables: HashMap<Op, Arc<[f16]>>,
    overflows: Overflows,
    copied: u64,
}

/// Whether the fast kernels compute a form by these rules too: nothing is rounded but once and to even, nor summed, nor from a table.
fn is_shared(form: &Form, rules: &Arithmetic) -> bool {
    match form {
        Form::View | Form::Select | Form::Not | Form::Compare(_) => true,
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
        let bytes = |total: usize, ty: TensorType| total.saturating_add(ty.bytes());
        promised(graph.nodes().map(|(_, node)| node.ty).fold(0, bytes))?;
        let held = |(id, node): (NodeId, &crate::ir::graph::GraphNode)| {
            let computed = !matches!(node.op.mil(), Mil::Leaf) && node.ty.dtype != DType::Bool;
            computed.then(|| fresh(graph.node(id).ty)).transpose()
        };
        let held: Vec<Option<Buffer>> = graph.nodes().map(held).collect::<Result<_, _>>()?;
        let count = graph.len();
        let mut faithful = Faithful {
            feeds: graph.feeds(),
            steps: Vec::with_capacity(count),
            truths: vec![None; count],
            constants: vec![None; count],
            outputs: vec![None; graph.outputs().len()],
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
            for (port, input) in fed.iter().enumerate() {
                if let Some(buffer) = &self.held[input.index()] {
                    program.bind(Port::Input(port), buffer)?;
                }
            }
            program
                .bind(Port::Output(0), self.held[id.index()].as_ref().expect("invariant: half precision"))?;
            return Ok(Step::Shared(Box::new(program), fed));
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
    fn array(&self, id: NodeId) -> Result<Arc<Array>, DeviceError> {
        let known = self.constants[id.index()].as_ref().or(self.truths[id.index()].as_ref());
        if let Some(array) = known {
            return Ok(Arc::clone(array));
        }
        let buffer = self.buffer(id)?;
        let shape = buffer.ty().shape;
        let data = match (buffer.ty().dtype, buffer.values()) {
            (DType::F16, Some(values)) => values.iter().map(|v| v.to_f64()).collect(),
            (DType::F16, None) => {
                let mut values = vec![f16::ZERO; shape.count()];
                buffer.read_halves(&mut values);
                values.iter().map(|v| v.to_f64()).collect()
            }
            _ => buffer.lock().iter().take(shape.count()).map(|v| f64::from(*v)).collect(),
        };
        Ok(Arc::new(Array { shape, data }))
    }

    fn buffer(&self, id: NodeId) -> Result<&Buffer, DeviceError> {
        let port = || self.feeds.iter().position(|&feed| feed == id).expect("invariant: leaves are feeds");
        let unbound =
            || DeviceError::Bind { port: Port::Input(port()), why: "no buffer is bound to it".into() };
        self.held[id.index()].as_ref().ok_or_else(unbound)
    }

    fn run(&mut self, mut after: impl FnMut(NodeId)) -> Result<(), DeviceError> {
        for at in 0..self.steps.len() {
            if stopped() {
                return Err(DeviceError::Stopped);
            }
            let id = NodeId(at as u32);
            if matches!(self.steps[at], Step::Leaf) {
                continue;
            }
            self.compute(id)?;
            self.look(id)?;
            after(id);
        }
        self.deliver()
    }

    fn compute(&mut self, id: NodeId) -> Result<(), DeviceError> {
        match &mut self.steps[id.index()] {
            Step::Leaf => Ok(()),
            Step::Shared(program, _) => program.execute(),
            Step::Product(_) | Step::Map(_) | Step::Zip(_) => self.compute_halves(id),
            Step::Defined => {
                let node = self.graph.node(id);
                let inputs: Vec<Arc<Array>> =
                    node.inputs.iter().map(|&input| self.array(input)).collect::<Result<_, _>>()?;
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
    fn compute_halves(&self, id: NodeId) -> Result<(), DeviceError> {
        let (node, k) = (self.graph.node(id), &self.kernels);
        let out = self.held[id.index()].as_ref().expect("invariant: half precision");
        let to = || out.values_mut().expect("invariant: fresh buffers are plain");
        match &self.steps[id.index()] {
            Step::Product(product) => {
                let mut operands = [const { None }; 3];
                for (at, operand) in operands.iter_mut().enumerate().take(node.inputs.len()) {
                    if product.reads(at) {
                        *operand = Some(self.halves(node.inputs[at])?.iter().map(|v| v.to_f32()).collect());
                    }
                }
                product.run(k, operands, out);
            }
            Step::Map(table) => map::look_up(k, table, &self.halves(node.inputs[0])?, &mut to()),
            Step::Zip(function) => {
                let [a, b] = [self.halves(node.inputs[0])?, self.halves(node.inputs[1])?];
                let [x, y] = [0, 1].map(|at| self.graph.node(node.inputs[at]).ty.shape);
                let views = [View::new(&a, x.dims()), View::new(&b, y.dims())];
                let rules = self.numerics.arithmetic();
                let store = |a: f32, b: f32| f16::from_f64(rules.store(f64::from(function.eval(a, b))));
                map::zip_with(k, views, node.ty.shape.dims(), store, &mut to());
            }
            Step::Leaf | Step::Shared(..) | Step::Defined => unreachable!("computed otherwise"),
        }
        Ok(())
    }

    /// A value as halves.
    fn halves(&self, id: NodeId) -> Result<Vec<f16>, DeviceError> {
        if let Some(array) = &self.constants[id.index()] {
            return Ok(array.data.iter().map(|v| f16::from_f64(*v)).collect());
        }
        let buffer = self.buffer(id)?;
        let mut values = vec![f16::ZERO; buffer.ty().shape.count()];
        buffer.read_halves(&mut values);
        Ok(values)
    }

    /// Takes note of a node that made infinities or NaN of finite operands.
    fn look(&mut self, id: NodeId) -> Result<(), DeviceError> {
        let finite = |buffer: &Buffer| {
            buffer.values().is_none_or(|v| v.iter().fold(true, |all, v| all & v.is_finite()))
        };
        let node = self.graph.node(id);
        let Some(made) = &self.held[id.index()] else { return Ok(()) };
        if finite(made) {
            return Ok(());
        }
        let mut fed = node.inputs.iter().filter_map(|input| self.held[input.index()].as_ref());
        if fed.all(finite) {
            let values = made.values().map_or(0, |v| v.iter().filter(|v| !v.is_finite()).count());
            self.overflows.add(id, node.op.name(), values);
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), DeviceError> {
        for (at, &id) in self.graph.outputs().iter().enumerate() {
            let port = Port::Output(at);
            let unbound = || DeviceError::Bind { port, why: "no buffer is bound to it".into() };
            let out = self.outputs[at].as_ref().ok_or_else(unbound)?;
            let array = self.array(id)?;
            let values: Vec<f16> = array.data.iter().map(|v| f16::from_f64(*v)).collect();
            self.copied += out.ty().bytes() as u64;
            let written = out.write(crate::device::Feed::F16(&values));
            written.map_err(|error| DeviceError::Bind { port, why: error.to_string() })?;
        }
        Ok(())
    }
}

/// Memory for a value.
fn fresh(ty: TensorType) -> Result<Buffer, DeviceError> {
    Ok(Buffer::new(ty, Layout::row_major(ty.shape.dims()), room(ty.bytes())?, None))
}

impl Loaded for Faithful {
    fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        let none = || DeviceError::Bind { port, why: "the program has no such port".into() };
        match port {
            Port::Output(at) => *self.outputs.get_mut(at).ok_or_else(none)? = Some(buffer.clone()),
            Port::Input(at) => {
                let feed = *self.feeds.get(at).ok_or_else(none)?;
                let want = self.graph.node(feed).ty;
                if (want.dtype, want.shape.count()) != (buffer.ty().dtype, buffer.ty().shape.count()) {
                    let why = format!("takes {want}, and the buffer holds {}", buffer.ty());
                    return Err(DeviceError::Bind { port, why });
                }
                self.held[feed.index()] = Some(buffer.clone());
                for step in &mut self.steps {
                    let Step::Shared(program, fed) = step else { continue };
                    for (port, _) in fed.iter().enumerate().filter(|(_, input)| **input == feed) {
                        program.bind(Port::Input(port), buffer)?;
                    }
                }
            }
        }
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
                Step::Shared(..) => "by the fast kernels",
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
