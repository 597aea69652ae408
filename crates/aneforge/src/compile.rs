//! The only way from a graph to a plan.

use crate::emit::emit;
use crate::ir::graph::Graph;
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::passes::{self, PassError};
use crate::plan::{Plan, Segment};
use crate::target::Target;

/// How to compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The chip to compile for.
    pub target: Target,
}

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
/// use aneforge::{Options, Shape, Var, compile};
/// let x = Var::input(Shape::new(&[2, 8])?);
/// let plan = compile(&[(&x * 2.0).softmax(-1)], &Options::default())?;
/// assert_eq!(plan.n_ops, 2);
/// assert!(plan.segments[0].program.to_string().contains("softmax"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compile(outputs: &[Var], options: &Options) -> Result<Plan, CompileError> {
    let graph = Graph::freeze(outputs).map_err(PassError::from)?;
    compile_graph(&graph, options)
}

/// Compiles a frozen graph.
pub fn compile_graph(graph: &Graph, options: &Options) -> Result<Plan, CompileError> {
    if graph.outputs().is_empty() {
        let at = crate::ir::types::Caller::here();
        let why = "nothing is returned; pass at least one value".into();
        return Err(PassError::Build(crate::ir::var::BuildError { op: "compile".into(), why, at }).into());
    }
    let traces = passes::run(graph, options.target)?;
    let legal = traces.last().expect("invariant: the pipeline has stages").graph.clone();
    let (program, blob) = emit(&legal);
    aneforge_mil::verify(&program, Some(blob.layout.directory())).map_err(|errors| {
        let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CompileError::Emit(messages.join("; "))
    })?;
    let outputs: Vec<TensorType> = legal.outputs().iter().map(|&o| legal.node(o).ty).collect();
    Ok(Plan {
        target: options.target,
        // Leaves that passes made unused are still fed, so feeds are those of the graph as written.
        feeds: graph.feed_types(),
        outputs,
        n_ops: graph.n_ops(),
        segments: vec![Segment { graph: legal, program, blob }],
        traces,
    })
}
