//! What half precision and the engine's arithmetic do to a network, node by node.
//!
//! Every node of the compiled program is computed twice: by the host's kernels in half precision, with the published behaviour
//! of the target's family, and by the ops' definitions in double precision. Where the two part, and why, is told by the line
//! that built the node, with a remedy where one is known. What families do is in `ir/numerics.rs` with its evidence; none
//! of it has been run on silicon by this project.

mod chips;
mod exact;
mod page;
mod report;
mod settings;
mod values;
mod walk;

pub use chips::{AllChips, ChipReport, Verdict, on_all_chips};
pub use report::{Diagnosis, NodeReport, Note, Trouble, Values};
pub use settings::{Departure, Departures, Parting, all_settings, departures};

use crate::compile::compile_graph;
use crate::device::host::Host;
use crate::ir::graph::Graph;
use crate::passes::{CompileOptions, notices};
use crate::plan::Plan;
use crate::risk;
use crate::session::RunError;
use crate::target::Target;
use aneforge_tensor::Tensor;

/// The relative error from which a node is told of, by default: about ten times what half precision does to one result.
pub const TOLERANCE: f64 = 1e-2;

/// Compiles a graph for the target, runs it on these inputs, one for each in feed order, and says what becomes of every value.
///
/// The relative error of a node is that of its values against double precision: the largest difference by the largest
/// magnitude. Infinities count as errors of their own.
///
/// ```
/// use aneforge::device::host::Host;
/// use aneforge::diagnose::{TOLERANCE, Trouble, diagnose};
/// use aneforge::{CompileOptions, Graph, Shape, Tensor, Var};
/// let x = Var::input(Shape::new(&[1, 3])?);
/// // A softmax without its maximum subtracted.
/// let scores = x.exp();
/// let graph = Graph::freeze(&[&scores / &scores.sum(&[-1])])?;
/// let hot = Tensor::from_slice(Shape::new(&[1, 3])?, &[1.0f32, 12.0, 3.0])?;
/// let found = diagnose(&Host::new(1), &graph, &CompileOptions::default(), &[hot], TOLERANCE)?;
/// let first = found.first().ok_or("nothing was found")?;
/// assert_eq!((first.op, first.troubles[0].trouble), ("exp", Trouble::Overflow));
/// assert!(first.troubles[0].remedy.contains("softmax"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn diagnose(
    host: &Host,
    graph: &Graph,
    options: &CompileOptions,
    feeds: &[Tensor],
    tolerance: f64,
) -> Result<Diagnosis, RunError> {
    let plan = compile_graph(graph, options)?;
    let mut found = diagnose_plan(host, &plan, feeds, tolerance)?;
    walk::errors_of_outputs(host, graph, &mut found)?;
    found.notes.extend(notes(graph, options.target));
    Ok(found)
}

/// The same of a compiled program alone. Its results are compared with what the program itself makes in double precision, so
/// that what compiling did to formulas is not seen. Weights that were stored with an error beyond the tolerance are noted.
pub fn diagnose_plan(
    host: &Host,
    plan: &Plan,
    feeds: &[Tensor],
    tolerance: f64,
) -> Result<Diagnosis, RunError> {
    let mut found = walk::walk(host, plan, feeds, tolerance)?;
    found.notes = plan.weights.iter().filter_map(|weight| Note::of_weight(weight, tolerance)).collect();
    Ok(found)
}

/// What structure, declared bounds (`max_abs`) and constants say without any data: the same risks, as far as bounds reach.
pub fn without_data(graph: &Graph, options: &CompileOptions) -> Result<Diagnosis, RunError> {
    let target = compile_graph(graph, options)?.target;
    Ok(Diagnosis { notes: notes(graph, target), ..Diagnosis::empty(target) })
}

fn notes(graph: &Graph, target: Target) -> Vec<Note> {
    let risks = risk::findings(graph).into_iter().map(Note::from);
    risks.chain(notices(graph, target).into_iter().map(Note::from)).collect()
}
