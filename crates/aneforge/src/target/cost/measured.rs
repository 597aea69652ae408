//! The time and energy of a call, by the constants of chips that were measured.
//!
//! For one program: the floor, the bytes of inputs and results by the rate of ports, and for every node the greatest of the
//! bytes of its weights as they are stored by the rate of weights, its arithmetic by the rate of arithmetic, and twice the bytes
//! of its result by the rate of memory if the result is too large to stay; and what norms of long rows take on top. A cut costs
//! another floor, and what crosses it goes through the ports twice. The model is arXiv 2606.22283's figures put together by this
//! project, and is no one's formula; docs/cost.md has it beside 80 measured rows.

use super::package::{FLOOR_US, is_layer, layer_time};
use super::place::{self, Place};
use super::rates::{BAND_ELSEWHERE, COLD_FIRST_CALL_US, Constants, Rates};
use super::{MEASURED, NoCurve};
use crate::ir::form::{Form, Norm, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Mil;
use crate::target::layers::written_out;
use crate::target::{Target, native_streams};
use aneforge_tensor::{DType, Encoding};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;

/// Microseconds of a call by what they are spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Starting one program.
    pub floor: f64,
    /// Moving the graph's inputs and results.
    pub ports: f64,
    /// Reading weights, of nodes that take longest for that.
    pub weights: f64,
    /// Arithmetic, of nodes that take longest for that.
    pub arithmetic: f64,
    /// Values that are too large to stay in the engine, of nodes that take longest for that.
    pub spill: f64,
    /// Norms of long rows.
    pub norms: f64,
    /// Native layers that were measured.
    pub layers: f64,
    /// Starting the other programs, and moving values between programs.
    pub cuts: f64,
}

impl Terms {
    /// Every term with its name.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("floor", self.floor),
            ("ports", self.ports),
            ("weights", self.weights),
            ("arithmetic", self.arithmetic),
            ("spill", self.spill),
            ("norms", self.norms),
            ("layers", self.layers),
            ("cuts", self.cuts),
        ]
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, us)| us).sum()
    }
}

/// What a call may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The chip.
    pub target: Target,
    /// Microseconds of a call among others, the least of many.
    pub microseconds: f64,
    /// What they may be at least, if the model is off as it was found to be.
    pub low: f64,
    /// What they may be at most, by that error and between other work. Idle engines take longer: `cold_us`.
    pub high: f64,
    /// Where the time goes.
    pub terms: Terms,
    /// Energy of a call.
    pub millijoules: f64,
    /// How far the energy may be off, as a factor.
    pub energy_band: f64,
    /// The most that a call after some seconds without one may take longer; in no other number here.
    pub cold_us: f64,
    /// Programs that the graph becomes: one, and more for every native layer.
    pub programs: usize,
    /// Whether the chip was measured, and every term of the estimate on it.
    pub measured: bool,
    /// Whether the engine is the place for it.
    pub place: Place,
}

/// What a call of `graph` may cost on a chip. With `int8`, weights of products that are stored in full count as bytes: what
/// would be saved. Forms of weights that the chip's family expands when it loads a program save nothing.
///
/// ```
/// use aneforge::target::cost::measured;
/// use aneforge::{Graph, Shape, Target, Var};
/// let weight = Var::full(Shape::new(&[4096, 4096])?, 0.01);
/// let graph = Graph::freeze(&[Var::input(Shape::new(&[1, 4096])?).linear(&weight, None)])?;
/// let m1 = measured(&graph, Target::named("m1")?, false)?;
/// assert!((m1.microseconds - 850.3).abs() < 0.1 && m1.terms.weights > 650.0);
/// // Bytes are expanded on an M1.
/// assert_eq!(measured(&graph, Target::named("m1")?, true)?.microseconds, m1.microseconds);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn measured(graph: &Graph, target: Target, int8: bool) -> Result<Estimate, NoCurve> {
    let rates = Rates::of(target)?;
    let graph = &written_out(graph);
    let model = Model { graph, target, int8, rates: rates.constants };
    let uses = Uses::of(graph);
    let programs = Programs::of(graph, &uses);
    let mut terms = Terms { floor: model.rates.floor.value, ..Terms::default() };
    let mut busy = Busy::default();
    for (id, node) in computed(graph) {
        model.add(&uses, (id, node), &mut terms, &mut busy);
    }
    let ports = &model.rates.ports;
    let outside = graph.feeds().into_iter().chain(graph.outputs().iter().copied());
    terms.ports = outside.map(|id| bytes(graph, id)).sum::<f64>() / per_us(ports.value);
    let more = programs.count.saturating_sub(1) as f64;
    terms.cuts = more * terms.floor + programs.crossing / per_us(ports.value);
    Ok(model.estimate(terms, busy, programs.count, rates.measured))
}

impl Estimate {
    /// As JSON: `target`, `microseconds`, `low`, `high`, `millijoules`, `energy_band`, `cold_us`, `programs`, `measured`, `terms`
    /// by name, `place` (`engine`, `cpu` or `gpu`, where it is fastest), `least_energy` (the same, or null), and `why`.
    pub fn to_json(&self) -> Value {
        let terms = self.terms.named().map(|(name, us)| (name.to_owned(), us.into()));
        json!({
            "target": self.target.name(),
            "microseconds": self.microseconds,
            "low": self.low,
            "high": self.high,
            "millijoules": self.millijoules,
            "energy_band": self.energy_band,
            "cold_us": self.cold_us,
            "programs": self.programs,
            "measured": self.measured,
            "terms": Value::Object(terms.into_iter().collect()),
            "place": self.place.fastest.name(),
            "least_energy": self.place.least_energy.map(super::Processor::name),
            "why": self.place.to_string(),
        })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { target, microseconds, low, high, millijoules, energy_band, cold_us, .. } = self;
        let scaled = if self.measured { "" } else { ", not measured there" };
        writeln!(
            f,
            "{microseconds:.0} us on {target} ({low:.0} to {high:.0}{scaled}); a call after some seconds without one may \
                     take {:.0} ms more",
            cold_us / 1e3
        )?;
        let terms = self.terms.named().into_iter().filter(|(_, us)| *us >= 0.05);
        let terms: Vec<String> = terms.map(|(name, us)| format!("{name} {us:.1}")).collect();
        writeln!(f, "of which {}", terms.join(", "))?;
        writeln!(f, "{millijoules:.3} mJ, by up to {energy_band} times more or less")?;
        write!(f, "{}", self.place)
    }
}

/// Microseconds of all nodes, of which several kinds may pass at once.
#[derive(Default)]
struct Busy {
    arithmetic: f64,
    weights: f64,
}

struct Model<'a> {
    graph: &'a Graph,
    target: Target,
    int8: bool,
    rates: Constants,
}

/// 10^9 per second, in one microsecond.
fn per_us(giga: f64) -> f64 {
    giga * 1e3
}

fn computed(graph: &Graph) -> impl Iterator<Item = (NodeId, &GraphNode)> {
    graph.nodes().filter(|(_, node)| !matches!(node.op.mil(), Mil::Leaf))
}

/// Bytes of a value: half precision, but for ports that take bytes.
fn bytes(graph: &Graph, id: NodeId) -> f64 {
    let ty = graph.node(id).ty;
    (ty.shape.count() * if ty.dtype == DType::U8 { 1 } else { 2 }) as f64
}

impl Model<'_> {
    /// Adds what a node takes.
    fn add(&self, uses: &Uses, (id, node): (NodeId, &GraphNode), terms: &mut Terms, busy: &mut Busy) {
        let rates = &self.rates;
        let form = self.graph.form(id);
        let product = matches!(form, Form::Product(_));
        let full = self.weights(node).map(|(count, _)| 2.0 * count).sum::<f64>();
        let streamed = product && full > rates.resident.value * 1e6;
        let [weight_rate, arithmetic_rate] = match streamed {
            true => [rates.streamed_weights, rates.streamed_arithmetic],
            false => [rates.weights, rates.arithmetic],
        };
        let stored: f64 = self.weights(node).map(|(_, stored)| self.read(&form, stored)).sum();
        let weights = stored / per_us(weight_rate.value);
        let arithmetic = self.graph.facts(id).flops / (arithmetic_rate.value * 1e6);
        let result = bytes(self.graph, id);
        let spills = uses.is_stored(self.graph, id) && result >= rates.spill.value * 1e6;
        let spill = if spills { 2.0 * result / per_us(rates.memory.value) } else { 0.0 };
        let most = weights.max(arithmetic).max(spill);
        match most {
            _ if most == weights => terms.weights += most,
            _ if most == arithmetic => terms.arithmetic += most,
            _ => terms.spill += most,
        }
        busy.weights += weights;
        busy.arithmetic += arithmetic;
        terms.norms += self.norm(node, &form).map_or(0.0, |rate| result / per_us(rate));
        if is_layer(node) {
            // Measured with its floor, on an M5 Pro.
            let alone = layer_time(self.graph, node).map_or(0.0, |us| (us - FLOOR_US).max(0.0));
            terms.layers += alone * rates.floor.value / MEASURED[2].floor.value;
        }
    }

    /// Constants that a node reads: elements, and what is stored of them.
    fn weights<'a>(&'a self, node: &'a GraphNode) -> impl Iterator<Item = (f64, Stored)> + 'a {
        let linear = |at: usize| at == 1 && matches!(self.form(node), Form::Product(Product::Linear));
        node.inputs.iter().enumerate().filter_map(move |(at, &input)| {
            let weight = self.graph.constant(input)?;
            let count = weight.shape().count() as f64;
            let as_bytes = self.int8 && linear(at) && weight.encoding() == Encoding::Dense;
            let stored = match as_bytes {
                true => Stored { encoding: Encoding::Int8, bytes: count, full: 2.0 * count },
                false => Stored {
                    encoding: weight.encoding(),
                    bytes: weight.stored_bytes() as f64,
                    full: 2.0 * count,
                },
            };
            Some((count, stored))
        })
    }

    fn form(&self, node: &GraphNode) -> Form {
        let types: Vec<_> = node.inputs.iter().map(|&i| self.graph.node(i).ty).collect();
        node.op.form(&types, &node.ty)
    }

    /// Bytes that the engine reads of a weight: what is stored where its family reads that form, which takes unit steps and no
    /// dilation; else all of it. Blocks are written with a sum, the only op that is known to take them, and so are all of it.
    fn read(&self, form: &Form, stored: Stored) -> f64 {
        let plain = match form {
            Form::Conv(params, _) | Form::ConvTranspose(params, _) => {
                params.stride == [1, 1] && params.dilation == [1, 1]
            }
            _ => true,
        };
        let read = native_streams(self.target.family()).contains(&stored.encoding);
        let streams = read && plain && stored.encoding != Encoding::Blockwise;
        if streams || stored.encoding == Encoding::Dense { stored.bytes } else { stored.full }
    }

    /// The rate at which a norm goes over long rows, where it is one: those from the extent on at which reductions take another
    /// route.
    fn norm(&self, node: &GraphNode, form: &Form) -> Option<f64> {
        let row = *node.ty.shape.dims().last()?;
        let long = row >= self.target.family().limits().reduction_route;
        // A norm without a weight is a statement of its own, and was measured to be no slower than others.
        let scaled = node.inputs.len() > 1;
        match form {
            Form::Normalise(Norm::Length { terms }) if long && scaled && *terms == row => {
                Some(self.rates.length_norm.value)
            }
            Form::Normalise(Norm::Centred { terms, .. }) if long && *terms == row => {
                Some(self.rates.centred_norm.value)
            }
            _ => None,
        }
    }

    fn estimate(&self, terms: Terms, busy: Busy, programs: usize, measured: bool) -> Estimate {
        let rates = &self.rates;
        let time = terms.total();
        // Norms and layers were measured on an M5 Pro only.
        let elsewhere = terms.norms + terms.layers > 0.0 && rates.chip != MEASURED[2].chip;
        let measured = measured && !elsewhere;
        let band = if measured { rates.band.value } else { BAND_ELSEWHERE };
        let share = |us: f64| (us / time).min(1.0);
        let watts = rates.base_watts.value
            + rates.arithmetic_watts.value * share(busy.arithmetic)
            + rates.weight_watts.value * share(busy.weights);
        let loaded = programs as f64 * (rates.loaded_floor.value - rates.floor.value);
        Estimate {
            target: self.target,
            microseconds: time,
            low: time / band,
            high: time * band + loaded,
            terms,
            millijoules: time * watts / 1e3,
            energy_band: rates.worst_energy.value,
            cold_us: COLD_FIRST_CALL_US,
            programs,
            measured,
            place: place::of(self.graph, self.target, rates.floor.value),
        }
    }
}

/// A weight as it is stored.
#[derive(Clone, Copy)]
struct Stored {
    encoding: Encoding,
    bytes: f64,
    /// Bytes in half precision.
    full: f64,
}

/// Who reads every value.
struct Uses {
    /// For each node, those that read it.
    readers: Vec<Vec<NodeId>>,
}

impl Uses {
    fn of(graph: &Graph) -> Uses {
        let mut readers = vec![Vec::new(); graph.len()];
        for (id, node) in graph.nodes() {
            node.inputs.iter().for_each(|input| readers[input.index()].push(id));
        }
        Uses { readers }
    }

    /// Whether a value lies between nodes: it is no result, no view of another, and not just what a function of single elements
    /// is applied to, which the engine does on the way.
    fn is_stored(&self, graph: &Graph, id: NodeId) -> bool {
        let readers = &self.readers[id.index()];
        let on_the_way = readers.len() == 1 && matches!(graph.form(readers[0]), Form::Map(_));
        !graph.outputs().contains(&id) && graph.form(id) != Form::View && !on_the_way
    }
}

/// The programs that a graph becomes: one for every native layer, and one for what MIL computes between as many layers.
struct Programs {
    count: usize,
    /// Bytes that go through ports beside the graph's own inputs and results.
    crossing: f64,
}

impl Programs {
    fn of(graph: &Graph, uses: &Uses) -> Programs {
        // A program is the number of layers before it, and the layer it is, if it is one.
        let mut of: Vec<Option<(usize, Option<NodeId>)>> = vec![None; graph.len()];
        for (id, node) in computed(graph) {
            let before = node.inputs.iter().filter_map(|input| of[input.index()]);
            let round = before.map(|(round, layer)| round + usize::from(layer.is_some())).max().unwrap_or(0);
            of[id.index()] = Some((round, is_layer(node).then_some(id)));
        }
        let mut crossing = 0.0;
        for (id, node) in graph.nodes().filter(|(id, _)| graph.constant(*id).is_none()) {
            let program = of[id.index()];
            let readers: BTreeSet<_> = uses.readers[id.index()].iter().map(|r| of[r.index()]).collect();
            let others = readers.iter().filter(|&&reader| reader != program).count();
            let is_port = matches!(node.op.mil(), Mil::Leaf);
            // An input is counted once already; a value is written once, and read by each.
            let times = if is_port { others.saturating_sub(1) } else { others + usize::from(others > 0) };
            crossing += bytes(graph, id) * times as f64;
        }
        Programs { count: of.into_iter().flatten().collect::<BTreeSet<_>>().len(), crossing }
    }
}
