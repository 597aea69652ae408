//! The host engine: legal graphs on this machine's processor, with the Neural Engine's numerics.
//!
//! `planner` turns a graph into steps over slots of memory, fusing what the kernels fuse; `whole` says which nodes one kernel
//! computes, `norms` and `attention` how those are recognised; `chain` joins elementwise nodes; `layout` says which images lie pixel after pixel, `views` which values are parts of others, and `places` where results are written; `run` executes the steps, each
//! by a `routine` of one of the families, which have a file each. Fusing never changes a bit: each node rounds as if it
//! stood alone.

mod apart;
mod attention;
mod chain;
mod conv;
mod elementwise;
mod faithful;
mod joined;
mod layers;
mod layout;
mod lying;
mod memory;
mod movement;
mod normalise;
mod norms;
mod operand;
mod overflow;
mod packs;
mod places;
mod plan;
mod planner;
mod pool;
mod product;
mod reach;
mod reduce;
mod roof;
mod routine;
mod row_product;
mod run;
mod single;
mod views;
mod whole;

pub use operand::{Operand, Order};
pub use plan::{Apart, HostPlan, Place, Step};

use crate::device::{Buffer, Clean, Device, DeviceError, Loaded};
use crate::ir::graph::Graph;
use crate::ir::numerics::Numerics;
use crate::ir::types::TensorType;
use crate::passes::{self, CompileOptions};
use crate::plan::Segment;
use crate::target::Target;
use aneforge_kernels::callers::Callers;
use aneforge_kernels::process::PerProcess;
use aneforge_kernels::threads::Pool;
pub use aneforge_kernels::{Isa, Sums};
use aneforge_kernels::{Kernels, map};
use aneforge_tensor::{DType, f16};
use packs::Packs;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

/// This machine's processor.
#[derive(Clone, Debug)]
pub struct Host {
    kernels: Kernels,
    packs: Arc<PerProcess<Packs>>,
    fuse: bool,
    numerics: Option<Numerics>,
    faithful: bool,
}

/// How the host computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostOptions {
    /// Which departures from IEEE 754 it models; by default those of the family of the chip that a program is compiled
    /// for.
    pub numerics: Option<Numerics>,
    /// Whether, where no numerics are named, all is followed that is published of that family, and not only what costs nothing.
    pub faithful: bool,
    /// In which order products and convolutions sum; by default in the fastest, whose last bits may differ between classes
    /// of processors.
    pub sums: Sums,
    /// The instruction set that the kernels are compiled for; by default the fastest that the processor says it has.
    pub isa: Option<Isa>,
    /// How many threads run a program, the caller's included; by default as many as the machine runs at once, or
    /// [`set_threads`] said. Sessions with as many threads share them.
    pub threads: Option<usize>,
}

/// The most threads that one engine may have.
pub const MAX_THREADS: usize = 1024;

impl HostOptions {
    /// The same with these departures from IEEE 754.
    #[must_use]
    pub fn numerics(self, numerics: impl Into<Option<Numerics>>) -> HostOptions {
        HostOptions { numerics: numerics.into(), ..self }
    }

    /// The same with all that is published of the family of the chip that a program is compiled for, where no numerics are named.
    #[must_use]
    pub fn faithful(self, faithful: bool) -> HostOptions {
        HostOptions { faithful, ..self }
    }

    /// The same with sums in this order.
    #[must_use]
    pub fn sums(self, sums: Sums) -> HostOptions {
        HostOptions { sums, ..self }
    }

    /// The same with kernels for this instruction set.
    #[must_use]
    pub fn isa(self, isa: impl Into<Option<Isa>>) -> HostOptions {
        HostOptions { isa: isa.into(), ..self }
    }

    /// The same on so many threads.
    #[must_use]
    pub fn threads(self, threads: impl Into<Option<usize>>) -> HostOptions {
        HostOptions { threads: threads.into(), ..self }
    }
}

impl Host {
    /// An engine on `threads` threads of its own, the caller's included, that sums fast.
    pub fn new(threads: usize) -> Host {
        Host::with_kernels(Kernels::with_threads(1).on(pool(threads.max(1)))).with_sums(Sums::default())
    }

    /// An engine on these kernels, which sums as they do.
    pub fn with_kernels(kernels: Kernels) -> Host {
        Host { kernels, packs: Arc::default(), fuse: true, numerics: None, faithful: false }
    }

    /// The same engine with one step per node: slower, and the same bits.
    #[must_use]
    pub fn unfused(self) -> Host {
        Host { fuse: false, ..self }
    }

    /// The same engine, which models these departures from IEEE 754 whatever a program is compiled for. Packed weights are
    /// shared.
    #[must_use]
    pub fn with_numerics(self, numerics: Numerics) -> Host {
        Host { numerics: Some(numerics), ..self }
    }

    /// The same engine, with the arithmetic of whatever chip a program is compiled for: all that is published of it, if this one has that.
    pub(crate) fn of_each_chip(&self) -> Host {
        let faithful = self.faithful || self.numerics.is_some_and(Numerics::is_faithful);
        Host { numerics: None, faithful, ..self.clone() }
    }

    /// The same engine, whose products and convolutions sum in this order. Packed weights are shared.
    #[must_use]
    pub fn with_sums(self, sums: Sums) -> Host {
        Host { kernels: self.kernels.with_sums(sums), ..self }
    }

    /// The same engine with kernels for this instruction set. Packed weights are shared.
    ///
    /// Some virtual machines conceal AMX-FP16 that works, so where there are tiles that set is tried, in a child process,
    /// whatever the processor says. An error for a set that this machine cannot run.
    pub fn with_isa(self, isa: Isa) -> Result<Host, DeviceError> {
        if isa.probe()
            && let Some(kernels) = self.kernels.clone().with_isa(isa)
        {
            return Ok(Host { kernels, ..self });
        }
        let why = format!(
            "this processor cannot run {} kernels; choose from {}",
            name_of(isa),
            instruction_sets().join(", ")
        );
        Err(DeviceError::Unsupported { op: "host", why })
    }

    /// The same engine on so many threads, which engines with as many share.
    fn on(self, threads: usize) -> Result<Host, DeviceError> {
        type Pools = PerProcess<Mutex<HashMap<usize, Weak<Pool>>>>;
        static POOLS: LazyLock<Pools> = LazyLock::new(PerProcess::default);
        check_threads(threads)?;
        if threads == self.threads() {
            return Ok(self);
        }
        let mut pools = POOLS.get(|_| Mutex::default()).lock().unwrap_or_else(PoisonError::into_inner);
        let there = pools.get(&threads).and_then(Weak::upgrade);
        let pool = there.unwrap_or_else(|| pool(threads));
        pools.retain(|_, pool| pool.strong_count() > 0);
        pools.insert(threads, Arc::downgrade(&pool));
        Ok(Host { kernels: self.kernels.on(pool), ..self })
    }

    /// The instruction set of its kernels.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// The threads it runs on, the caller's included.
    pub fn threads(&self) -> usize {
        self.kernels.pool().threads()
    }

    /// What it runs for a segment: its graph, with layers written out that MIL's ops compute too.
    pub(crate) fn graph_of<'a>(&self, segment: &'a Segment) -> Result<Cow<'a, Graph>, DeviceError> {
        graph_of(segment)
    }

    /// The steps that a segment, compiled for `target`, runs as.
    pub fn plan(&self, segment: &Segment, target: Target) -> Result<HostPlan, DeviceError> {
        Ok(planner::planned(&*graph_of(segment)?, self.numerics(target), self.fuse).1)
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
    Isa::available().into_iter().map(name_of).collect()
}

/// The name of an instruction set, which [`Isa::named`] reads.
pub fn name_of(isa: Isa) -> String {
    format!("{isa:?}").to_lowercase()
}

/// So many threads, which help where cores have no program to run, of any engine of the process.
fn pool(threads: usize) -> Arc<Pool> {
    static CALLERS: LazyLock<Arc<Callers>> = LazyLock::new(|| Callers::new(cores()));
    Arc::new(Pool::new(threads).sharing(Arc::clone(&CALLERS)))
}

/// How many threads the machine runs at once.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

static SHARED: OnceLock<Arc<Host>> = OnceLock::new();

/// The engine that sessions share, with as many threads as the machine runs at once.
pub fn shared() -> Arc<Host> {
    SHARED.get_or_init(|| Arc::new(Host::new(cores()))).clone()
}

/// The shared engine with these options; an error for an instruction set or a number of threads that it cannot have.
pub fn shared_with(options: &HostOptions) -> Result<Arc<Host>, DeviceError> {
    if *options == HostOptions::default() {
        return Ok(shared());
    }
    let mut host = Host::clone(&shared()).with_sums(options.sums);
    (host.numerics, host.faithful) = (options.numerics, options.faithful);
    if let Some(isa) = options.isa {
        host = host.with_isa(isa)?;
    }
    if let Some(threads) = options.threads {
        host = host.on(threads)?;
    }
    Ok(Arc::new(host))
}

/// Sets the number of threads of the shared engine; an error if it is already in use.
pub fn set_threads(threads: usize) -> Result<(), DeviceError> {
    check_threads(threads)?;
    SHARED.set(Arc::new(Host::new(threads))).map_err(|_| DeviceError::Unsupported {
        op: "host",
        why: "threads must be set before the first program is loaded".into(),
    })
}

fn check_threads(threads: usize) -> Result<(), DeviceError> {
    if (1..=MAX_THREADS).contains(&threads) {
        return Ok(());
    }
    let why = format!("threads must be from 1 to {MAX_THREADS}, got {threads}");
    Err(DeviceError::Unsupported { op: "host", why })
}

impl Device for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn title(&self) -> &'static str {
        "host"
    }

    fn describe(&self) -> String {
        let (isa, threads) = (self.kernels.isa(), self.kernels.pool().threads());
        let threads = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
        let sums = match self.kernels.sums() {
            Sums::Fast => "fast",
            Sums::Defined => "defined",
        };
        let numerics = match (self.numerics, self.faithful) {
            (Some(numerics), _) => numerics.to_string(),
            (None, true) => "faithful".into(),
            (None, false) => "ane".into(),
        };
        let (processor, isa) = (std::env::consts::ARCH, name_of(isa));
        format!("{processor} processor, {isa} kernels, {threads}, {sums} sums, {numerics} numerics")
    }

    fn numerics(&self, target: Target) -> Numerics {
        let all = if self.faithful { Numerics::Faithful } else { Numerics::Ane };
        self.numerics.unwrap_or(all(target.family()))
    }

    fn allocate(&self, ty: TensorType) -> Result<Buffer, DeviceError> {
        let memory = memory::room(ty.bytes())?;
        // Every family takes NaN for infinity.
        let takes = |numerics: Numerics| numerics.arithmetic().takes_nan_for_infinity;
        let flushes = ty.dtype == DType::F16 && self.numerics.is_none_or(takes);
        let kernels = self.kernels.clone();
        let clean = move |values: &mut [f16]| {
            map::sanitize(&kernels, values);
        };
        let clean = flushes.then(|| Arc::new(clean) as Clean);
        Ok(Buffer::own(ty, memory, clean))
    }

    fn load(&self, segment: &Segment, target: Target) -> Result<Box<dyn Loaded>, DeviceError> {
        let (graph, numerics) = (graph_of(segment)?, self.numerics(target));
        if numerics.is_faithful() {
            return Ok(Box::new(faithful::Faithful::new(&graph, numerics, self.kernels.clone())?));
        }
        let (graph, plan) = planner::planned(&graph, numerics, self.fuse);
        let packs = self.packs.get(|_| Packs::default());
        Ok(Box::new(run::Program::new(&graph, plan, self.kernels.clone(), packs)?))
    }
}

impl AsRef<dyn Device> for Host {
    fn as_ref(&self) -> &(dyn Device + 'static) {
        self
    }
}
