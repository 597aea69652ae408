//! Whether the engine is the place for a network, or the processor or a GPU of the same chip.
//!
//! Thresholds are of workloads that were measured on both sides (arXiv 2606.22283 c11, c13 and c14, on M1, M2 Pro and M5 Pro);
//! what lies between them goes with the nearest, and what is like none is said to be unlike.

use super::{NoCurve, Rates};
use crate::ir::form::{Form, Norm, Product};
use crate::ir::graph::{Graph, NodeId};
use crate::target::layers::written_out;
use crate::target::{Family, Target};
use std::fmt;

/// What may compute a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Processor {
    /// The Neural Engine.
    Engine,
    /// The processor's cores.
    Cpu,
    /// The graphics processor.
    Gpu,
}

impl Processor {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Processor::Engine => "engine",
            Processor::Cpu => "cpu",
            Processor::Gpu => "gpu",
        }
    }
}

/// Where a network is computed best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is fastest.
    pub fastest: Processor,
    /// Where it takes the least energy, if that was measured.
    pub least_energy: Option<Processor>,
    /// The measured workload that says so.
    pub why: String,
}

impl Place {
    /// Whether the engine is wrong: another is faster, and takes no more energy that is known.
    pub fn is_wrong(&self) -> bool {
        self.fastest != Processor::Engine && self.least_energy != Some(Processor::Engine)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.why;
        match (self.fastest, self.is_wrong()) {
            (Processor::Engine, _) => write!(f, "the engine is the place: {why}"),
            (other, true) => {
                write!(f, "the engine is the wrong place, the {} is better: {why}", other.name())
            }
            (other, false) => {
                write!(f, "the engine is slower than the {}, but takes less energy: {why}", other.name())
            }
        }
    }
}

/// Operations of a processor in a microsecond.
///
/// Evidence: arXiv 2606.22283 c9, 1.898 TFLOP/s, M5 Pro (measured).
const CPU_FLOPS_PER_US: f64 = 1.9e6;
/// Bytes of a processor in a microsecond.
///
/// Evidence: arXiv 2606.22283 c9, 130.4 GB/s, M5 Pro (measured).
const CPU_BYTES_PER_US: f64 = 130e3;
/// Microseconds that a call of a processor takes at least.
///
/// Evidence: one product of 64 by 256 by 256 takes 26 (arXiv 2606.22283 c11), M1 (assumed).
const CPU_CALL_US: f64 = 10.0;
/// The part of an engine's floor below which a processor is taken for faster.
///
/// Evidence: a margin for processors slower than the M5 Pro's, any chip (assumed).
const CPU_SHARE: f64 = 0.5;
/// Inner and outer extent, and rows, from which a GPU multiplies matrices faster.
///
/// Evidence: arXiv 2606.22283 c11, 256 by 4096 by 4096 and "past N about 2048", M1 and M5 Pro (measured).
const GPU_PRODUCT: [usize; 2] = [2048, 256];
/// The same where the engine takes less energy all the same.
///
/// Evidence: arXiv 2606.22283 c11, 128 by 1024 by 1024, M1 (measured).
const MIDDLE_PRODUCT: [usize; 2] = [1024, 128];
/// Keys from which a GPU computes attention faster.
///
/// Evidence: arXiv 2606.22283 c11: 197 are a tie and 512 are not, M1 (measured).
const GPU_KEYS: usize = 512;
/// Batch from which a GPU computes attention faster.
///
/// Evidence: arXiv 2606.22283 c11, M5 Pro (measured).
const GPU_BATCH: usize = 6;
/// The same of blocks of an encoder, which have products beside it.
///
/// Evidence: arXiv 2606.22283 c11, M5 Pro (measured).
const GPU_ENCODER_BATCH: usize = 23;
/// Batch up to which the engine takes less energy for it.
///
/// Evidence: arXiv 2606.22283 c11, M5 Pro (measured).
const ENERGY_BATCH: usize = 256;
/// Rows up to which a product does little but read its weight.
///
/// Evidence: arXiv 2606.22283 c14, decoding a language model with a batch of 16, M5 Pro (measured).
const FEW_ROWS: usize = 16;

/// Where a graph is computed best: the engine of `target`, its processor or its GPU.
pub fn place(graph: &Graph, target: Target) -> Result<Place, NoCurve> {
    Ok(of(&written_out(graph), target, Rates::of(target)?.constants.floor.value))
}

/// What decides where a graph is computed.
#[derive(Default)]
struct Work {
    flops: f64,
    bytes: f64,
    /// Arithmetic of convolutions, and of products with weights.
    convolved: f64,
    multiplied: f64,
    /// Bytes of weights in all, and of products with few rows.
    weights: f64,
    few_rows: f64,
    /// Rows, and the lesser of inner and outer extent, of the product with most arithmetic.
    product: [usize; 2],
    /// Keys and batch of attention.
    attention: Option<[usize; 2]>,
}

impl Work {
    fn of(graph: &Graph) -> Work {
        let mut work = Work::default();
        let mut largest = 0.0;
        let outside = graph.feeds().into_iter().chain(graph.outputs().iter().copied());
        work.bytes = outside.map(|id| 2.0 * graph.node(id).ty.shape.count() as f64).sum();
        for (id, node) in graph.nodes() {
            let (flops, form) = (graph.facts(id).flops, graph.form(id));
            work.flops += flops;
            let constants = node.inputs.iter().filter_map(|&input| graph.constant(input));
            let weights: f64 = constants.map(|weight| weight.stored_bytes() as f64).sum();
            work.weights += weights;
            match form {
                Form::Conv(..) | Form::ConvTranspose(..) => work.convolved += flops,
                Form::Product(_) if weights > 0.0 => {
                    work.multiplied += flops;
                    let product = Work::product_of(graph, id, flops);
                    work.few_rows += if product[0] <= FEW_ROWS { weights } else { 0.0 };
                    if flops > largest {
                        (largest, work.product) = (flops, product);
                    }
                }
                _ => {}
            }
        }
        work.bytes += work.weights;
        work.attention = attention(graph);
        work
    }

    fn product_of(graph: &Graph, id: NodeId, flops: f64) -> [usize; 2] {
        let shape = graph.node(id).ty.shape;
        let columns = shape.dims().last().copied().unwrap_or(1).max(1);
        let inner = flops / (2.0 * shape.count().max(1) as f64);
        [shape.count() / columns, columns.min(inner as usize)]
    }
}

/// Keys and batch of the attention with most keys: a softmax along the last axis of products of two values, or the layer.
fn attention(graph: &Graph) -> Option<[usize; 2]> {
    let scored = |(id, _): &(NodeId, _)| {
        matches!(graph.form(*id), Form::Product(Product::Batched))
            && graph.node(*id).inputs.iter().all(|&input| graph.constant(input).is_none())
    };
    let scores = graph.nodes().any(|node| scored(&node));
    let batch = |dims: &[usize]| if dims.len() == 4 { dims[0] } else { 1 };
    let found = graph.nodes().filter_map(|(id, node)| {
        let dims = node.ty.shape.dims();
        match graph.form(id) {
            Form::Normalise(Norm::Softmax(axis)) if scores && dims.len() > 2 && axis + 1 == dims.len() => {
                Some([dims[axis], batch(dims)])
            }
            Form::Attention { .. } => {
                let keys = graph.node(node.inputs[1]).ty.shape;
                Some([keys[keys.rank() - 2], batch(dims)])
            }
            _ => None,
        }
    });
    found.max()
}

/// Where a graph of written-out nodes is computed best, beside an engine of this floor.
pub(super) fn of(graph: &Graph, target: Target, floor_us: f64) -> Place {
    use Processor::{Cpu, Engine, Gpu};
    let work = Work::of(graph);
    let place = |fastest, least_energy, why: String| Place { fastest, least_energy, why };
    let cpu = work.flops / CPU_FLOPS_PER_US + work.bytes / CPU_BYTES_PER_US + CPU_CALL_US;
    if cpu < CPU_SHARE * floor_us {
        let why = format!(
            "a processor like the M5 Pro's takes about {cpu:.0} us, and starting a program {floor_us:.0} us; larger batches or \
             longer programs may change that"
        );
        return place(Cpu, None, why);
    }
    if work.few_rows > 0.5 * work.bytes {
        let why = "it reads weights for few rows, which a GPU did 2.7 times as fast for 4.6 times less energy (decoding a \
                   language model on an M5 Pro)";
        return place(Gpu, Some(Gpu), why.into());
    }
    if let Some(place) = work.attention.and_then(|[keys, batch]| of_attention(keys, batch, &work)) {
        return place;
    }
    let [rows, extent] = work.product;
    let multiplies = work.multiplied > 0.5 * work.flops;
    if multiplies && extent >= GPU_PRODUCT[0] && rows >= GPU_PRODUCT[1] {
        let why = "a GPU multiplied matrices of 4096 by 4096 twice as fast on an M1 and 2.8 times on an M5 Pro, with a \
                   smaller error, for 4 times the energy";
        return place(Gpu, Some(Engine), why.into());
    }
    if multiplies
        && target.family() == Family::A13
        && extent >= MIDDLE_PRODUCT[0]
        && rows >= MIDDLE_PRODUCT[1]
    {
        let why =
            "a GPU multiplied 128 by 1024 by 1024 in 0.6 of the time on an M1, for 2.3 times the energy";
        return place(Gpu, Some(Engine), why.into());
    }
    if work.convolved > 0.5 * work.flops {
        let why = "convolutions ran 2 to 6 times as fast as on a GPU, for 6 to 14 times less energy (single small ones: a tie)";
        return place(Engine, Some(Engine), why.into());
    }
    match work.attention {
        Some(_) => {
            let why =
                "short attention was no slower than on a GPU, for half the energy (M1; faster on an M5 Pro)";
            place(Engine, Some(Engine), why.into())
        }
        None => place(Engine, None, "no workload like this was measured to be faster elsewhere".into()),
    }
}

/// Where attention, and what is around it, is faster than on the engine, if it is.
fn of_attention(keys: usize, batch: usize, work: &Work) -> Option<Place> {
    let energy = (batch <= ENERGY_BATCH).then_some(Processor::Engine);
    let place = |why| Some(Place { fastest: Processor::Gpu, least_energy: energy, why });
    let (most, what) = match work.multiplied > 0.5 * work.flops {
        true => (GPU_ENCODER_BATCH, "blocks of an encoder"),
        false => (GPU_BATCH, "attention"),
    };
    if keys >= GPU_KEYS {
        return place(
            "a GPU computed attention to 512 keys 2.1 times as fast on an M1, for about twice the energy"
                .into(),
        );
    }
    if batch >= most {
        return place(format!(
            "a GPU is faster for {what} from a batch of {most} on (M5 Pro), for more energy"
        ));
    }
    None
}
