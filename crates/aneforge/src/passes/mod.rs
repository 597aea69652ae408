//! The pipeline, as a table: each stage and the spec it ensures.
//!
//! ```text
//! Any --route--> Any --canonicalize--> Any --fold--> Any --merge--> Any --norms--> Any --legalize--> Legal(target)
//! ```
//!
//! Then weights are stored in fewer bytes, where that is asked for: `--compress-->`.
//!
//! `partition` then cuts a legal graph at its native layers, and where it has more weights than one program may have.

mod canonicalize;
mod ceiling;
mod compress;
pub mod encoded;
mod extents;
mod faults;
mod fold;
mod forms;
pub mod legal;
mod legalize;
mod merge;
mod norms;
mod notices;
pub mod partition;
mod preflight;
mod rank;
mod route;
mod scalars;
mod scaled;
mod trigonometry;

use crate::ir::graph::Graph;
use crate::ir::var::BuildError;
use crate::ir::verify::{VerifyError, verify};
use crate::rewrite::{Event, RewriteError, Rule};
use crate::target::{System, Target};
use legal::LegalError;

pub use canonicalize::CANONICALIZE;
pub use compress::{Calibration, Compression, Form, WeightReport, compress};
pub use fold::FOLD;
pub use forms::FORMS;
pub use legalize::LEGALIZE;
pub use notices::{Notice, Noticed, cross_chip, notices};
pub use partition::partition;
pub use preflight::{NodeReport, Preflight, preflight};
pub use route::{ROUTE, written_out};
pub use scalars::SCALARS;
pub use trigonometry::{POLYNOMIAL_ERROR, POLYNOMIAL_RANGE, TRIGONOMETRY};

/// How to compile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// The chip to compile for.
    pub target: Target,
    /// What becomes of layers that can also be written in MIL.
    pub routes: Routes,
    /// How norms are written.
    pub norms: Norms,
    /// In which form weights are stored; by default in half precision, but for those that come encoded.
    pub compression: Option<Compression>,
    /// What becomes of chains of scalar factors or terms.
    pub scalars: Scalars,
    /// The system whose compiler the program is for, which bounds the weights of one program.
    pub system: System,
    /// The longest weight file of one program in bytes, instead of the system's.
    pub most_bytes: Option<u64>,
}

impl CompileOptions {
    /// For a chip, and by default otherwise.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Norms, Target};
    /// let options = CompileOptions::target(Target::named("m1")?).norms(Norms::Robust);
    /// assert_eq!(options.target.name(), "h13");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn target(target: Target) -> CompileOptions {
        CompileOptions { target, ..CompileOptions::default() }
    }

    /// The same with this for layers that can also be written in MIL.
    pub fn routes(self, routes: Routes) -> CompileOptions {
        CompileOptions { routes, ..self }
    }

    /// The same with norms written in this way.
    pub fn norms(self, norms: Norms) -> CompileOptions {
        CompileOptions { norms, ..self }
    }

    /// The same with weights stored in this form.
    ///
    /// ```
    /// use aneforge::passes::{Compression, Form};
    /// use aneforge::{CompileOptions, Shape, Var, compile};
    /// let x = Var::input(Shape::new(&[2, 8])?).linear(&Var::full(Shape::new(&[4, 8])?, 0.5), None);
    /// let plan = compile(&[x], &CompileOptions::default().compression(Compression::new(Form::Int8)))?;
    /// assert_eq!((plan.weights[0].bytes, plan.weights[0].dense_bytes), (32 + 8, 64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compression(self, compression: impl Into<Option<Compression>>) -> CompileOptions {
        CompileOptions { compression: compression.into(), ..self }
    }

    /// The same with this for chains of scalars.
    pub fn scalars(self, scalars: Scalars) -> CompileOptions {
        CompileOptions { scalars, ..self }
    }

    /// The same for this system.
    pub fn system(self, system: System) -> CompileOptions {
        CompileOptions { system, ..self }
    }

    /// The same with weight files of at most so many bytes: what has more is cut into several programs.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Shape, Var, compile};
    /// let weight = |k| Var::full(Shape::new(&[8, 8]).expect("it has a shape"), k);
    /// let y = Var::input(Shape::new(&[1, 8])?).linear(&weight(0.5), None).linear(&weight(0.25), None);
    /// let plan = compile(&[y], &CompileOptions::default().most_bytes(300))?;
    /// assert_eq!(plan.segments.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn most_bytes(self, most_bytes: impl Into<Option<u64>>) -> CompileOptions {
        CompileOptions { most_bytes: most_bytes.into(), ..self }
    }

    /// The longest weight file of one program, in bytes.
    pub fn ceiling(&self) -> u64 {
        self.most_bytes.unwrap_or(self.system.most_bytes())
    }
}

/// What becomes of chains of scalar factors, and of chains of scalar terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scalars {
    /// They stay, and every result is rounded.
    #[default]
    AsWritten,
    /// Each becomes one, whose results are rounded once: faster, and not to the same bits.
    Folded,
}

/// How norms over rows are written: plainly, as mean, square and root in half precision, which is known to be accepted by
/// the engine's compiler and fast; or so that no finite row overflows or vanishes, at about twice the number of ops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norms {
    /// Plainly, but where declared bounds or constants say that it would go wrong.
    #[default]
    Auto,
    /// Plainly.
    Plain,
    /// So that every finite row comes out right.
    Robust,
}

/// What becomes of a native layer that computes the same as ops of MIL, to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routes {
    /// It is written with those ops, and the graph is not cut. The reference's cost model chooses this for
    /// every shape tried: it predicts 63 to 320 us against 139 to 62,000 us.
    #[default]
    WrittenOut,
    /// It stays a program of its own.
    Native,
}

/// A graph did not come through the pipeline.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PassError {
    /// The graph was built wrongly. The caller's fault.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The target cannot run it. The error names the op, the limit and the way out.
    #[error(transparent)]
    Legal(#[from] LegalError),
    /// A rule went wrong. A bug of ours.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A stage left an invalid graph. A bug of ours.
    #[error("after {stage}: {error}; please report this graph")]
    Verify {
        /// The stage.
        stage: &'static str,
        /// What it left.
        error: VerifyError,
    },
    /// Compiling was stopped on request.
    #[error("compiling was stopped before it was done")]
    Stopped,
}

/// One stage of the pipeline.
pub struct Stage {
    /// A verb.
    pub name: &'static str,
    /// What it does.
    run: fn(&Graph, &CompileOptions, &mut Vec<Event>) -> Result<Graph, PassError>,
}

/// What a stage did, for `aneforge inspect` and `explain`.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The stage.
    pub stage: &'static str,
    /// Rules that fired or refused.
    pub events: Vec<Event>,
    /// The graph after it.
    pub graph: Graph,
}

fn rules(graph: &Graph, rules: &[Rule], events: &mut Vec<Event>) -> Result<Graph, PassError> {
    Ok(crate::rewrite::run(graph, rules, events)?)
}

/// Constants, and where that is asked for, chains of scalars.
fn fold(graph: &Graph, options: &CompileOptions, events: &mut Vec<Event>) -> Result<Graph, PassError> {
    let folded = rules(graph, FOLD, events)?;
    match options.scalars {
        Scalars::AsWritten => Ok(folded),
        Scalars::Folded => rules(&folded, SCALARS, events),
    }
}

/// Every stage, in order.
pub static PIPELINE: &[Stage] = &[
    Stage { name: "route", run: route::route },
    Stage { name: "canonicalize", run: |g, _, events| rules(g, CANONICALIZE, events) },
    Stage { name: "fold", run: fold },
    Stage { name: "merge", run: |g, _, _| Ok(merge::merge(g)?) },
    Stage { name: "norms", run: norms::survive },
    Stage { name: "legalize", run: legalize::legalize },
];

/// Runs the pipeline; the last trace holds a graph that is `Legal(target)`. It ends early when the thread's work is
/// [stopped](aneforge_kernels::threads::stoppable).
pub fn run(graph: &Graph, options: &CompileOptions) -> Result<Vec<Trace>, PassError> {
    let mut traces: Vec<Trace> = Vec::with_capacity(PIPELINE.len());
    for stage in PIPELINE {
        if aneforge_kernels::threads::stopped() {
            return Err(PassError::Stopped);
        }
        let before = traces.last().map_or(graph, |t| &t.graph);
        let mut events = Vec::new();
        let after = (stage.run)(before, options, &mut events)?;
        verify(&after).map_err(|error| PassError::Verify { stage: stage.name, error })?;
        traces.push(Trace { stage: stage.name, events, graph: after });
    }
    let last = traces.last().expect("invariant: the pipeline has stages");
    legal::check(&last.graph, options.target)?;
    Ok(traces)
}
