//! What the global options come to.

use crate::args::{DeviceName, Global, IsolationName, NormsName, SumsName};
use crate::live::Live;
use crate::output::Spinner;
use crate::picture::Style;
use crate::store;
use aneforge::artifact::{Cache, Cached};
use aneforge::device::ane::{AneOptions, Isolation};
use aneforge::device::host::{self, HostOptions, Isa, Sums};
use aneforge::ir::graph::Graph;
use aneforge::passes::{Compression, Scalars, notices};
use aneforge::target::{System, numerics_named};
use aneforge::{
    CompileError, CompileOptions, Device, DeviceError, Norms, Numerics, Plan, Routes, RunError, Session,
    Target, device,
};
use aneforge_ane::Libraries;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;

/// How commands compile, run and print.
pub struct Context {
    /// Whether to print JSON.
    pub json: bool,
    /// The chip to compile for.
    pub target: Target,
    /// The chip that was asked for.
    chosen: Option<Target>,
    quiet: bool,
    device: Option<DeviceName>,
    elsewhere: Option<&'static str>,
    /// None: those of the chip that a program is compiled for.
    numerics: Option<Numerics>,
    faithful: bool,
    sums: Sums,
    isa: Option<Isa>,
    routes: Routes,
    norms: Norms,
    /// In which form weights are stored.
    pub compression: Option<Compression>,
    scalars: Scalars,
    system: System,
    most_bytes: Option<u64>,
    /// How the engine is reached.
    pub engine: AneOptions,
}

impl Context {
    /// Applies the options that belong to the process: logging and threads.
    pub fn new(global: &Global, usual: LevelFilter) -> anyhow::Result<Context> {
        let level = match (global.quiet, global.verbose) {
            (true, _) => LevelFilter::ERROR,
            (_, 0) => usual,
            (_, 1) => LevelFilter::INFO.max(usual),
            _ => LevelFilter::TRACE,
        };
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(false)
            .init();
        if let Some(threads) = global.threads {
            host::set_threads(usize::from(threads))?;
        }
        let target = global.target.unwrap_or_default();
        Ok(Context {
            json: global.json,
            target,
            chosen: global.target,
            quiet: global.quiet,
            device: global.device,
            elsewhere: global.elsewhere,
            numerics: match global.numerics.trim().to_ascii_lowercase().as_str() {
                "ane" | "faithful" => None,
                name => Some(numerics_named(name, target)?),
            },
            faithful: global.numerics.trim().eq_ignore_ascii_case("faithful"),
            sums: match global.sums {
                SumsName::Defined => Sums::Defined,
                SumsName::Fast => Sums::Fast,
            },
            isa: global.isa,
            routes: if global.native { Routes::Native } else { Routes::WrittenOut },
            norms: match global.norms {
                NormsName::Auto => Norms::Auto,
                NormsName::Plain => Norms::Plain,
                NormsName::Robust => Norms::Robust,
            },
            compression: global
                .compress
                .map(|form| Compression::new(form).tolerance(global.compress_atol).block(global.block_size)),
            scalars: if global.fold_scalars { Scalars::Folded } else { Scalars::AsWritten },
            system: global.system,
            most_bytes: global.most_bytes,
            engine: engine(global),
        })
    }

    /// The same context, whose programs for the engine are kept in this folder.
    #[must_use]
    pub fn kept_in(mut self, folder: &Path) -> Context {
        self.engine.folder = Some(store::engine(folder));
        self
    }

    /// The device asked for, or this machine's default one.
    pub fn device(&self) -> Result<Arc<dyn Device>, DeviceError> {
        let device = device::open(self.device_name(), &self.host(), &self.engine)?;
        tracing::info!("device {}: {}", device.title(), device.describe());
        Ok(device)
    }

    /// The name of the device asked for.
    pub fn device_name(&self) -> Option<&'static str> {
        self.device.map(|device| match device {
            DeviceName::Host => "host",
            DeviceName::Ane => "ane",
        })
    }

    /// The chip that was asked for.
    pub fn chosen(&self) -> Option<Target> {
        self.chosen
    }

    /// The option of the command line that asks for the host, or for a library of its own, if one does.
    pub fn elsewhere(&self) -> Option<&'static str> {
        self.elsewhere
    }

    /// Whether only errors are shown.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How the host computes.
    pub fn host(&self) -> HostOptions {
        HostOptions::default().numerics(self.numerics).faithful(self.faithful).sums(self.sums).isa(self.isa)
    }

    /// How to compile.
    pub fn options(&self) -> CompileOptions {
        CompileOptions::target(self.target)
            .routes(self.routes)
            .norms(self.norms)
            .compression(self.compression)
            .scalars(self.scalars)
            .system(self.system)
            .most_bytes(self.most_bytes)
    }

    /// Compiles a graph for the target, and warns of what that computes in its own way.
    pub fn compile(&self, graph: &Graph) -> Result<Plan, CompileError> {
        for notice in notices(graph, self.target).iter().filter(|notice| notice.kind.is_warning()) {
            tracing::warn!("{} {} (at {})", notice.op, notice.why, notice.at);
        }
        let _spinner = self.spinner("compiling");
        aneforge::compile::compile_graph(graph, &self.options())
    }

    /// The same with weights chosen by what they are multiplied with on these inputs, by sums that are the same everywhere.
    pub fn calibrated(&self, graph: &Graph, sets: &[Vec<aneforge::Tensor>]) -> anyhow::Result<Plan> {
        let _spinner = self.spinner("calibrating");
        let host = host::shared_with(&self.host().sums(Sums::Defined))?;
        let calibration = aneforge::calibrate(&host, graph, &self.options(), sets)?;
        Ok(aneforge::compile_calibrated(graph, &self.options(), &calibration)?)
    }

    /// The same, or what a cache has of it.
    pub fn cached(&self, graph: &Graph, cache: Option<&Cache>) -> Result<Plan, CompileError> {
        let Some(cache) = cache else { return self.compile(graph) };
        let _spinner = self.spinner("compiling");
        let Cached { plan, hit, kept } = cache.get_or_compile(graph, &self.options())?;
        match kept {
            Ok(()) => tracing::info!(
                "{} the cache, {}",
                if hit { "from" } else { "not in" },
                cache.folder().display()
            ),
            Err(error) => tracing::warn!("the program is not kept in the cache: {error}"),
        }
        Ok(plan)
    }

    /// Whether a compiled program is what these options ask for, as far as they ask for anything.
    pub fn takes(&self, plan: &Plan) -> bool {
        let chip = self.chosen.is_none_or(|target| target == plan.target);
        chip && CompileOptions { target: plan.target, ..self.options() }
            == CompileOptions::target(plan.target)
    }

    /// Loads a plan into a device.
    pub fn session(&self, plan: impl Into<Arc<Plan>>, device: &Arc<dyn Device>) -> Result<Session, RunError> {
        let _spinner = self.spinner("loading");
        Session::new(plan, device)
    }

    /// How pictures are drawn on standard output.
    pub fn style(&self) -> Style {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Style::of_terminal(std::io::stdout().is_terminal(), set("NO_COLOR"), dumb)
    }

    /// Whether progress is shown at all.
    pub fn progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// How a training of `total` steps goes, on standard error, unless only errors or JSON are wanted.
    pub fn live(&self, total: u64) -> Live {
        Live::new(total, self.quiet || self.json)
    }

    /// A sign of life on standard error while it is held, if that is a terminal.
    pub fn spinner(&self, what: &'static str) -> Spinner {
        Spinner::new(what, self.quiet)
    }

    /// A bar on standard error that counts to `total`, if that is a terminal.
    pub fn bar(&self, what: &'static str, total: usize) -> indicatif::ProgressBar {
        crate::output::bar(what, total, self.quiet)
    }
}

/// How the engine is reached: other processes are this program again.
fn engine(global: &Global) -> AneOptions {
    let libraries = global.engine_library.as_ref().map(Libraries::all).unwrap_or_else(Libraries::system);
    let worker = std::env::current_exe().ok().map(|program| vec![program.into(), "worker".into()]);
    let isolation = match global.isolation {
        IsolationName::Process => Isolation::Process,
        IsolationName::Worker => Isolation::Worker,
    };
    let folder = store::default().ok().map(|folder| store::engine(&folder));
    AneOptions { libraries, worker, isolation, folder, ..AneOptions::default() }
}
