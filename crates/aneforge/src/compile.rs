//! The only way from a graph to a plan.

use crate::emit::emit;
use crate::ir::graph::{Graph, GraphNode, InputInfo, NodeId};
use crate::ir::op::Mil;
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::netplist::netplist;
use crate::passes::partition::{Part, partition};
use crate::passes::{self, Calibration, CompileOptions, PassError, Trace};
use crate::plan::{Code, Plan, Results, Segment, Source};
use crate::rewrite::Event;
use std::collections::HashSet;

/// A graph could not be compiled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A pass refused it, or failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The emitted program breaks MIL's rules. A bug of ours.
    #[error("the emitted program is invalid: {0}; please report this graph")]
    Emit(String),
}

/// Compiles what `outputs` need into one plan. Pure: it touches no file and no device.
///
/// ```
/// use aneforge::{CompileOptions, Shape, Var, compile};
/// let x = Var::input(Shape::new(&[2, 8])?);
/// let plan = compile(&[(&x * 2.0).softmax(-1)], &CompileOptions::default())?;
/// assert_eq!(plan.n_ops, 2);
/// let (program, _) = plan.segments[0].mil().ok_or("a native layer")?;
/// assert!(program.to_string().contains("softmax"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn compile(outputs: &[Var], options: &CompileOptions) -> Result<Plan, CompileError> {
    let graph = Graph::freeze(outputs).map_err(PassError::from)?;
    compile_graph(&graph, options)
}

/// Compiles a frozen graph.
#[track_caller]
pub fn compile_graph(graph: &Graph, options: &CompileOptions) -> Result<Plan, CompileError> {
    compile_knowing(graph, options, None)
}

/// Compiles a frozen graph whose weights were [calibrated](crate::calibrate::calibrate) with these options. Pure, as
/// [`compile`]: of the same graph, options and calibration it makes the same plan.
#[track_caller]
pub fn compile_calibrated(
    graph: &Graph,
    options: &CompileOptions,
    calibration: &Calibration,
) -> Result<Plan, CompileError> {
    compile_knowing(graph, options, Some(calibration))
}

#[track_caller]
fn compile_knowing(
    graph: &Graph,
    options: &CompileOptions,
    calibration: Option<&Calibration>,
) -> Result<Plan, CompileError> {
    if graph.outputs().is_empty() {
        let at = crate::ir::types::Caller::here();
        let why = "nothing is returned; pass at least one value".into();
        return Err(PassError::Build(crate::ir::var::BuildError { op: "compile".into(), why, at }).into());
    }
    let mut traces = passes::run(graph, options)?;
    let weights = match options.compression {
        Some(compression) => {
            let legal = &traces.last().expect("invariant: the pipeline has stages").graph;
            let (graph, weights) = passes::compress(legal, compression, options.target, calibration)?;
            traces.push(Trace { stage: "compress", events: Vec::new(), graph });
            weights
        }
        None => Vec::new(),
    };
    let legal = &traces.last().expect("invariant: the pipeline has stages").graph;
    let feeds = graph.feed_types();
    let mut cuts = Vec::new();
    let (segments, outputs) = segments(legal, &feeds, options, &mut cuts)?;
    // Ports have axes where the graph as written may have none.
    let shapes = graph.outputs().iter().map(|&o| graph.node(o).ty.shape);
    let types =
        legal.outputs().iter().zip(shapes).map(|(&o, shape)| TensorType { shape, ..legal.node(o).ty });
    let outputs: Vec<(TensorType, Source)> = types.zip(outputs).collect();
    let n_ops = n_ops(&traces);
    if !cuts.is_empty() {
        let graph = legal.clone();
        traces.push(Trace { stage: "partition", events: cuts, graph });
    }
    let order = graph.feeds();
    let place = |(state, _)| order.iter().position(|&feed| feed == state).expect("invariant: state is fed");
    let carries = graph.carries().map(place).collect();
    // Leaves that passes made unused are still fed, so feeds are those of the graph as written.
    let results = Results::InOrder;
    Ok(Plan { target: options.target, feeds, outputs, carries, results, n_ops, segments, traces, weights })
}

/// The programs of a legal graph, and where its outputs come from. The feeds are those of the graph as written.
pub(crate) fn segments(
    legal: &Graph,
    feeds: &[InputInfo],
    options: &CompileOptions,
    cuts: &mut Vec<Event>,
) -> Result<(Vec<Segment>, Vec<Source>), CompileError> {
    let (parts, outputs) = partition(legal, feeds, options.ceiling(), cuts).map_err(PassError::from)?;
    let segment = |part: Part| {
        Ok(Segment { code: code(&part.graph, part.native)?, graph: part.graph, inputs: part.inputs })
    };
    Ok((parts.into_iter().map(segment).collect::<Result<_, CompileError>>()?, outputs))
}

/// The number of ops as the reference counts them: nodes of the routed graph that are no input, weight or native layer. A
/// layer that is written out counts as the ops it is written with.
fn n_ops(traces: &[Trace]) -> usize {
    let routed = &traces[0].graph;
    let weights: HashSet<NodeId> = routed
        .nodes()
        .flat_map(|(id, node)| node.inputs.iter().skip(routed.facts(id).weights_from).copied())
        .collect();
    let counts = |(id, node): &(NodeId, &GraphNode)| match node.op.mil() {
        Mil::Leaf => routed.constant(*id).is_some() && !weights.contains(id),
        Mil::Native(_) => false,
        _ => true,
    };
    routed.nodes().filter(counts).count()
}

/// What the engine is given for a legal graph, which is one native layer or has none.
pub(crate) fn code(graph: &Graph, native: bool) -> Result<Code, CompileError> {
    if native {
        return Ok(Code::Native(netplist(graph)));
    }
    let (program, blob) = emit(graph);
    aneforge_mil::verify(&program, Some(blob.layout.directory())).map_err(|errors| {
        let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CompileError::Emit(messages.join("; "))
    })?;
    Ok(Code::Mil { program, blob })
}
