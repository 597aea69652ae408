//! The host engine: legal graphs on this machine's processor, with the Neural Engine's numerics.
//!
//! `planner` turns a graph into steps over slots of memory, fusing what the kernels fuse; `run`
//! executes them. Fusing never changes a bit: each node rounds as if it stood alone.

mod layers;
mod overflow;
mod packs;
mod plan;
mod planner;
mod run;
mod step;

pub use plan::{HostPlan, Step};

use crate::device::{Device, DeviceError, Kernel};
use crate::ir::graph::Graph;
use crate::ir::numerics::Numerics;
use crate::passes::{self, CompileOptions};
use crate::plan::Segment;
use aneforge_kernels::process::PerProcess;
use aneforge_kernels::{Isa, Kernels};
use packs::Packs;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// This machine's processor.
#[derive(Clone, Debug)]
pub struct Host {
    kernels: Kernels,
    packs: Arc<PerProcess<Packs>>,
    fuse: bool,
}

impl Host {
    /// An engine on `threads` threads of its own, the caller's included.
    pub fn new(threads: usize) -> Host {
        Host::with_kernels(Kernels::with_threads(threads.max(1)))
    }

    /// An engine on these kernels.
    pub fn with_kernels(kernels: Kernels) -> Host {
        Host { kernels, packs: Arc::default(), fuse: true }
    }

    /// The same engine with one step per node: slower, and the same bits.
    pub fn unfused(self) -> Host {
        Host { fuse: false, ..self }
    }

    /// The threads it runs on, the caller's included.
    pub fn threads(&self) -> usize {
        self.kernels.pool().threads()
    }

    /// The steps that a segment runs as.
    pub fn plan(&self, segment: &Segment, numerics: Numerics) -> Result<HostPlan, DeviceError> {
        let graph = graph_of(segment)?;
        Ok(planner::plan(&graph, numerics, self.fuse))
    }
}

/// What the host runs for a segment: its graph, with layers written out that MIL's ops compute too.
fn graph_of(segment: &Segment) -> Result<Cow<'_, Graph>, DeviceError> {
    let Some(netplist) = segment.netplist() else { return Ok(Cow::Borrowed(&segment.graph)) };
    let written = passes::written_out(&segment.graph, &CompileOptions::default());
    let failed = |error: passes::PassError| DeviceError::Unsupported {
        op: netplist.layer.kind,
        why: error.to_string(),
    };
    written.map(Cow::Owned).map_err(failed)
}

/// Names of the instruction sets that this processor runs and the kernels have code for, slowest first.
pub fn instruction_sets() -> Vec<String> {
    Isa::available().iter().map(|isa| format!("{isa:?}").to_lowercase()).collect()
}

static SHARED: OnceLock<Arc<Host>> = OnceLock::new();

/// The engine that sessions share, with as many threads as the machine runs at once.
pub fn shared() -> Arc<Host> {
    let threads = || std::thread::available_parallelism().map_or(1, usize::from);
    SHARED.get_or_init(|| Arc::new(Host::new(threads()))).clone()
}

/// Sets the number of threads of the shared engine; an error if it is already in use.
pub fn set_threads(threads: usize) -> Result<(), DeviceError> {
    SHARED.set(Arc::new(Host::new(threads))).map_err(|_| DeviceError::Unsupported {
        op: "host",
        why: "threads must be set before the first program is loaded".into(),
    })
}

impl Device for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn describe(&self) -> String {
        let (isa, threads) = (self.kernels.isa(), self.kernels.pool().threads());
        format!("{} processor, {isa:?} kernels, {threads} threads", std::env::consts::ARCH)
    }

    fn load(&self, segment: &Segment, numerics: Numerics) -> Result<Box<dyn Kernel>, DeviceError> {
        let graph = graph_of(segment)?;
        let plan = planner::plan(&graph, numerics, self.fuse);
        let packs = self.packs.get(|_| Packs::default());
        Ok(Box::new(run::HostKernel::new(&graph, plan, self.kernels.clone(), packs)?))
    }
}
