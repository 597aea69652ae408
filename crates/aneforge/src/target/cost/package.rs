//! ANEForge 0.4.0's own two formulas, kept so that its numbers can be had: what users see is
//! [`measured`](super::measured()).
//!
//! The first is fitted to an M5 Pro and ranks ways to write a program; the analytic one is a roofline per chip, scaled from
//! the nearest chip that was measured. Both order programs; neither replaces a measurement. Every constant is ANEForge
//! 0.4.0's (arXiv 2606.17090), from its authors' devices; nothing here has run on silicon by this project.

use super::NoCurve;
use crate::ir::form::{Form, Product};
use crate::ir::graph::{Graph, GraphNode, NodeId};
use crate::ir::op::Mil;
use crate::target::clocks::Curve;
use crate::target::layers::written_out;
use crate::target::{Family, Target};

/// Time of an empty program on an M5 Pro.
///
/// Evidence: ANEForge 0.4.0's calibration, M5 Pro (measured).
pub const FLOOR_US: f64 = 63.3;
/// Arithmetic per microsecond, from the steeper of two fits: convolutions in their channels.
///
/// Evidence: ANEForge 0.4.0's calibration, M5 Pro (fitted).
const FLOPS_PER_US: f64 = 19_623_233.9;
/// Bytes per microsecond.
///
/// Evidence: ANEForge 0.4.0's own value, M5 Pro (assumed).
const BYTES_PER_US: f64 = 1.1e5;
/// What a cut costs beside its layer: the cheapest layer measured. It may be far too little: one community report has a
/// network of 13 programs at 13.19 ms that takes 4.60 ms as one, 720 us for each cut.
///
/// Evidence: ANEForge 0.4.0's calibration, M5 Pro (measured).
const CUT_US: f64 = 75.6;
/// The same in the analytic model, for every chip.
///
/// Evidence: ANEForge 0.4.0's own value, any chip (assumed).
const ANALYTIC_CUT_US: f64 = 200.0;
/// The reference's ceiling of an M1, in 10^12 operations per second.
///
/// Evidence: ANEForge 0.4.0, convolutions, M1 (measured).
const M1_TERAFLOPS: f64 = 1.8;

/// What a node does: bytes moved, weights among them, and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Work {
    bytes: f64,
    /// Elements of weights that eight bits would halve.
    weights: f64,
    flops: f64,
}

/// The measured model's time for a graph, in microseconds, with weights of products in eight bits or not.
pub fn estimate(graph: &Graph, int8: bool) -> f64 {
    let graph = &written_out(graph);
    let mut time = 0.0;
    let mut weights = 0.0;
    for (node, work) in works(graph, int8) {
        weights += work.weights;
        let roof = (work.bytes / BYTES_PER_US).max(work.flops / FLOPS_PER_US);
        time += match is_layer(node) {
            true => CUT_US + FLOOR_US.max(layer_time(graph, node).unwrap_or(roof)),
            false => (roof - FLOOR_US).max(0.0),
        };
    }
    let discount = if int8 { (0.49 * FLOOR_US).min(0.5 * weights / BYTES_PER_US) } else { 0.0 };
    regions(graph) as f64 * FLOOR_US + time - discount
}

/// The analytic model's time for a graph on a chip, in microseconds.
///
/// Against 68 graphs that were measured on an M1, half of the estimates are off by more than 31 % (arXiv 2606.22283).
/// Products of one row are over-predicted four to five times there, as weights stream faster than the traffic fitted.
pub fn estimate_on(graph: &Graph, target: Target, int8: bool) -> Result<f64, NoCurve> {
    let chip = Chip::of(target)?;
    let graph = &written_out(graph);
    let mut time = 0.0;
    let mut cuts = 0;
    for (node, work) in works(graph, int8) {
        cuts += usize::from(is_layer(node));
        time += (work.bytes / chip.bytes_per_us).max(work.flops / chip.flops_per_us(work.flops));
    }
    Ok(regions(graph) as f64 * chip.floor_us + time + cuts as f64 * ANALYTIC_CUT_US)
}

pub(super) fn is_layer(node: &GraphNode) -> bool {
    matches!(node.op.mil(), Mil::Native(_))
}

/// Programs as the reference counts them: one more than there are cuts, if anything but layers is computed.
fn regions(graph: &Graph) -> usize {
    let computed = |n: &&GraphNode| !matches!(n.op.mil(), Mil::Leaf);
    let cuts = graph.nodes.iter().filter(|n| is_layer(n)).count();
    let others = graph.nodes.iter().filter(computed).any(|n| !is_layer(n));
    if cuts == 0 || others { cuts + 1 } else { 0 }
}

/// Every node that computes, with what it does.
fn works(graph: &Graph, int8: bool) -> impl Iterator<Item = (&GraphNode, Work)> {
    let computed = |(_, n): &(NodeId, &GraphNode)| !matches!(n.op.mil(), Mil::Leaf);
    graph.nodes().filter(computed).map(move |(id, node)| (node, work(graph, id, node, int8)))
}

fn work(graph: &Graph, id: NodeId, node: &GraphNode, int8: bool) -> Work {
    let count = |i: usize| graph.node(node.inputs[i]).ty.shape.count() as f64;
    let out = node.ty.shape;
    let (form, facts) = (graph.form(id), graph.facts(id));
    let weighted = facts.weights_from < node.inputs.len();
    // The reference counts no arithmetic for products of batches with weights of their own, and for computed kernels.
    let flops = match form {
        Form::Product(Product::Batched) => {
            if weighted {
                0.0
            } else {
                facts.flops
            }
        }
        Form::Product(Product::Linear) | Form::Conv(..) | Form::ConvTranspose(..) if weighted => facts.flops,
        _ => 0.0,
    };
    let weights = if form == Form::Product(Product::Linear) { count(1) } else { 0.0 };
    let elements: f64 = (0..node.inputs.len()).map(count).sum::<f64>() + out.count() as f64;
    Work { bytes: 2.0 * elements - if int8 { weights } else { 0.0 }, weights, flops }
}

/// The time of a native layer that was measured, scaled from the nearest size.
pub(super) fn layer_time(graph: &Graph, node: &GraphNode) -> Option<f64> {
    let (_, points) = LAYERS.iter().find(|(name, _)| *name == node.op.name())?;
    let types: Vec<_> = node.inputs.iter().map(|&i| graph.node(i).ty).collect();
    let shape = types[0].shape;
    let work = match node.op.form(&types, &node.ty) {
        Form::Attention { .. } => shape[1] * shape[2] * shape[2] * shape[3],
        _ => shape.count(),
    } as f64;
    let distance = |w: f64| (work.ln() - w.ln()).abs();
    let (measured, time) = points.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)))?;
    Some(time * work / measured)
}

/// A chip's roofline.
struct Chip {
    floor_us: f64,
    bytes_per_us: f64,
    flops_per_us: f64,
    /// Operations from which the peak is reached, and how steeply: only on chips measured to need it.
    ramp: Option<(f64, f64)>,
}

/// A chip that was measured: its name, floor, bandwidth in GB/s, peak in 10^12 operations per second, ramp.
struct Anchor(&'static str, f64, f64, f64, Option<(f64, f64)>);

/// The chips that were measured.
///
/// Evidence: ANEForge 0.4.0's fits, M1, M2 Pro and M5 Pro (fitted).
static ANCHORS: [Anchor; 3] = [
    Anchor("h13", 220.0, 9.0, 3.25, None),
    // The M2 Pro that was measured, with 8 cores. The reference has it as h14, which has 4 (arXiv 2606.22283).
    Anchor("h14g", 100.0, 48.0, 7.3, Some((1.8e10, 0.38))),
    Anchor("h17s", 110.0, 57.0, 8.9, None),
];

/// The chip that was measured, of those that a chip is scaled from.
pub(super) fn anchor_of(target: Target) -> &'static str {
    anchor(target).0
}

fn anchor(target: Target) -> &'static Anchor {
    let family = match target.family() {
        Family::Older | Family::A13 => "h13",
        Family::A14 | Family::A15 => "h14g",
        Family::A16 => "h17s",
    };
    ANCHORS.iter().find(|a| a.0 == family).expect("invariant: every family has an anchor")
}

impl Chip {
    fn of(target: Target) -> Result<Chip, NoCurve> {
        let curve = Curve::of(target).ok_or(NoCurve(target))?;
        let Anchor(name, floor, bandwidth, peak, ramp) = anchor(target);
        let anchor = Target::named(name).ok().and_then(Curve::of).expect("invariant: anchors have curves");
        let scale = curve.scale() / anchor.scale();
        let cores = f64::from(curve.cores) / f64::from(anchor.cores);
        Ok(Chip {
            floor_us: floor / (curve.clock() / anchor.clock()),
            bytes_per_us: bandwidth * 1e3 * cores,
            flops_per_us: peak * 1e6 * scale,
            ramp: ramp.map(|(from, power)| (from * scale, power)),
        })
    }

    fn flops_per_us(&self, flops: f64) -> f64 {
        match self.ramp {
            Some((full, power)) if flops > 0.0 => self.flops_per_us * (flops / full).powf(power).min(1.0),
            _ => self.flops_per_us,
        }
    }
}

/// What the analytic model takes a chip for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// The time of an empty program in microseconds.
    pub floor_us: f64,
    /// Memory traffic in 10^9 bytes per second.
    pub gigabytes: f64,
    /// 10^12 operations per second.
    pub teraflops: f64,
}

/// What the analytic model takes a chip for.
pub fn roofline(target: Target) -> Result<Roofline, NoCurve> {
    let Chip { floor_us, bytes_per_us, flops_per_us, .. } = Chip::of(target)?;
    Ok(Roofline { floor_us, gigabytes: bytes_per_us / 1e3, teraflops: flops_per_us / 1e6 })
}

/// A chip's ceiling, scaled from the M1's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// 10^12 operations per second.
    pub tflops: f64,
    /// In units of an M1.
    pub rel_m1: f64,
    /// Cores of the engine.
    pub cores: u32,
    /// Sustained clock.
    pub ghz: f64,
}

/// A chip's ceiling, by clocks and cores. Measured speed-ups end to end are about half of it: this has an M5 Pro at 4.9
/// times an M1, where fits of programs have 2.7 and convolutions come near 5.
pub fn peak(target: Target) -> Result<Peak, NoCurve> {
    let curve = Curve::of(target).ok_or(NoCurve(target))?;
    let rel_m1 = curve.scale();
    Ok(Peak { tflops: M1_TERAFLOPS * rel_m1, rel_m1, cores: curve.cores, ghz: curve.clock() / 1000.0 })
}

/// Where a chip's estimate comes from: the chip it is scaled from, and whether its family was measured.
pub fn provenance(target: Target) -> (&'static str, bool) {
    let measured = matches!(target.family(), Family::A13 | Family::A14 | Family::A16);
    (anchor_of(target), measured)
}

/// Times of native layers on an M5 Pro: what each grows with, and microseconds, the least of many runs. The reference
/// has times of the other layers too, of 20 to 5,700 ms; those were taken with a process started for every call, say
/// nothing of the engine, and are left out.
///
/// Evidence: ANEForge 0.4.0's calibration, M5 Pro (measured).
#[rustfmt::skip]
static LAYERS: &[(&str, &[(f64, f64)])] = &[
    ("sdpa", &[(262144.0, 111.5), (2097152.0, 172.5), (8388608.0, 252.0), (33554432.0, 637.1)]),
    ("argmax", &[(128.0, 90.7), (512.0, 90.6), (2048.0, 85.6), (2048.0, 90.0), (8192.0, 91.2)]),
    ("topk", &[(128.0, 87.5), (512.0, 75.6), (2048.0, 385.2), (2048.0, 101.1), (8192.0, 607.0)]),
];

#[cfg(test)]
pub(in crate::target) fn layers() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|(name, _)| *name)
}
