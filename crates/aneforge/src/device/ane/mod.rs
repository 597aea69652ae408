//! The Neural Engine of this machine, through the system's own libraries (`aneforge-ane`).
//!
//! `folder` writes what the compiler reads, `program` and `native` run segments in this process, `apart` runs them in another, `blame`
//! finds out which part of a graph the compiler refuses. None of this has run on an engine yet; it is proven against a stand-in.

mod apart;
mod blame;
mod folder;
pub mod kept;
mod native;
mod program;

use crate::device::{Buffer, Device, DeviceError, Loaded, Memory, STANDS_IN};
use crate::ir::numerics::Numerics;
use crate::ir::types::TensorType;
use crate::pacing::{Backoff, Breaker, Clock, Monotonic};
use crate::plan::{Code, Segment};
use crate::target::{self, Target};
use aneforge_ane::{AneError, BufferHandle, Compiled, Framework, Libraries, Stage, limits};
use aneforge_kernels::Layout;
use folder::Folder;
use std::any::Any;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Programs in this process, which costs least; compiles are tried, and native layers run, in another where there is a
    /// [command](AneOptions::worker) for it.
    #[default]
    Process,
    /// Everything in another process, so that nothing that the engine does ends or hangs this one.
    Worker,
}

/// How the engine is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AneOptions {
    /// The libraries.
    pub libraries: Libraries,
    /// Where programs are written for the compiler, and what it makes of them; a folder of this process by default.
    pub folder: Option<PathBuf>,
    /// The command that runs [`aneforge_ane::worker::serve`], if there is one.
    pub worker: Option<Vec<OsString>>,
    /// Where programs run.
    pub isolation: Isolation,
    /// After how long a call hangs.
    pub call_limit: Duration,
    /// After how long a compile hangs. Only those in another process are ended.
    pub compile_limit: Duration,
    /// The rest that the compiler needs after a failure.
    pub backoff: Backoff,
    /// Whether the part of a graph that the compiler refuses is looked for, which takes compiles of its own.
    pub blame: bool,
}

impl Default for AneOptions {
    fn default() -> AneOptions {
        AneOptions {
            libraries: Libraries::system(),
            folder: None,
            worker: None,
            isolation: Isolation::default(),
            call_limit: limits::CALL_LIMIT,
            compile_limit: limits::COMPILE_LIMIT,
            backoff: Backoff::default(),
            blame: true,
        }
    }
}

/// The engine.
pub struct Ane {
    framework: Arc<Framework>,
    options: AneOptions,
    folder: Arc<OwnFolder>,
    compiled: Mutex<HashMap<String, Compiled>>,
}

/// Where programs are written.
struct OwnFolder {
    path: PathBuf,
    /// The process that it goes with, if it does: with the last program that is in it.
    of: Option<u32>,
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        if self.of == Some(std::process::id()) {
            _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Whether the compiler, of which the machine has one, failed just now, and since when times count.
static BREAKER: LazyLock<Mutex<Breaker>> = LazyLock::new(Mutex::default);
static CLOCK: LazyLock<Monotonic> = LazyLock::new(Monotonic::default);

/// Memory of the engine.
struct EngineMemory {
    buffer: aneforge_ane::Buffer,
}

impl Memory for EngineMemory {
    fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }
    fn known_as(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(self.buffer.handle()))
    }
    fn lent(&mut self) -> Option<&mut (dyn Any + Send + Sync)> {
        Some(&mut self.buffer)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the compiler has tried, and failed: it did so here, or in another process that said so, hung or died of it.
fn compiled(error: &AneError) -> bool {
    matches!(error, AneError::Compile { .. } | AneError::Worker { stage: Stage::Compile, .. })
}

/// What the engine's errors are among a device's, where a program is loaded.
fn refused(error: AneError) -> DeviceError {
    told(error, |why| DeviceError::Prepare { stage: "loading", why })
}

/// The same where a program runs.
fn failed(error: AneError) -> DeviceError {
    told(error, |why| DeviceError::Failed { why })
}

fn told(error: AneError, otherwise: impl FnOnce(String) -> DeviceError) -> DeviceError {
    let (why, compiled) = (error.to_string(), compiled(&error));
    match error {
        _ if compiled => DeviceError::Refused { why },
        AneError::Library { .. } | AneError::Symbol { .. } | AneError::Forked => {
            DeviceError::Unavailable { device: "ane", why }
        }
        AneError::Budget { loaded, limit } => DeviceError::Budget { loaded, limit },
        AneError::Hung(_) | AneError::Recompile(_) | AneError::Worker { .. } => DeviceError::Lost { why },
        AneError::Io { .. } => DeviceError::Folder { why },
        AneError::Memory { bytes, .. } => DeviceError::Memory { need: bytes },
        _ => otherwise(why),
    }
}

/// Waits for the rest that the compiler needs after a failure of this process, runs a compile, and remembers how it went.
pub fn paced<T>(
    framework: &Framework,
    backoff: Backoff,
    compile: impl FnOnce() -> Result<T, AneError>,
) -> Result<T, DeviceError> {
    // The stand-in needs no rest.
    let stands_in = framework.stand_in().is_some();
    let backoff = if stands_in { Backoff { pause: Duration::ZERO, ..backoff } } else { backoff };
    let ready = locked(&BREAKER).check(CLOCK.now(), backoff);
    match ready {
        Err(early) if backoff.strict => {
            return Err(DeviceError::Unavailable { device: "ane", why: early.to_string() });
        }
        Err(early) => {
            tracing::info!("{early}; waiting");
            CLOCK.sleep(early.left);
        }
        Ok(()) => {}
    }
    let done = compile();
    let mut breaker = locked(&BREAKER);
    match &done {
        Ok(_) => breaker.reset(),
        Err(error) if !stands_in && compiled(error) => breaker.failed(CLOCK.now()),
        Err(_) => {}
    }
    drop(breaker);
    done.map_err(refused)
}

impl Ane {
    /// The engine of this machine, or why there is none. Sessions borrow it while they are made; `&*engine` is one of an `Arc<Ane>`, and
    /// [`device::ane_with`](crate::device::ane_with) gives a device that is shared already.
    ///
    /// ```
    /// use aneforge::device::ane::{Ane, AneOptions};
    /// use aneforge::{CompileOptions, Session, Shape, Var, compile};
    /// use std::sync::Arc;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if Ane::open(&AneOptions::default()).is_err() { return Ok(()) }
    /// let ane = Ane::open(&AneOptions::default())?;
    /// let plan = compile(&[Var::input(Shape::new(&[4])?).adds(1.0)], &CompileOptions::default())?;
    /// let mut session = Session::new(plan.clone(), &ane)?;
    /// session.execute()?;
    /// let shared = Arc::new(ane);
    /// let other = Session::new(plan, &*shared)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(options: &AneOptions) -> Result<Ane, DeviceError> {
        let framework = Framework::open(&options.libraries).map_err(|error| unavailable(&error, options))?;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let scratch = || {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            std::env::temp_dir().join(format!("aneforge-engine-{process}-{number}"))
        };
        let of = options.folder.is_none().then_some(process);
        let path = options.folder.clone().unwrap_or_else(scratch);
        Ok(Ane {
            framework,
            options: options.clone(),
            folder: Arc::new(OwnFolder { path, of }),
            compiled: Mutex::default(),
        })
    }

    /// The libraries.
    pub fn framework(&self) -> &Arc<Framework> {
        &self.framework
    }

    /// What a library says that stands in for the engine; `None` where it is the engine.
    pub fn stand_in(&self) -> Option<&str> {
        self.framework.stand_in()
    }

    /// The command of another process, if things of this kind are to run in one.
    fn worker(&self, always: bool) -> Result<Option<&[OsString]>, DeviceError> {
        let command = self.options.worker.as_deref();
        match (self.options.isolation, command) {
            (Isolation::Worker, None) => Err(DeviceError::Unavailable {
                device: "ane",
                why: "programs are to run in another process, and there is no command for one; set AneOptions::worker to one that \
                      calls aneforge_ane::worker::serve, such as `aneforge worker`"
                    .into(),
            }),
            (Isolation::Process, _) if !always => Ok(None),
            _ => Ok(command),
        }
    }

    /// See [`paced`].
    fn paced<T>(&self, compile: impl FnOnce() -> Result<T, AneError>) -> Result<T, DeviceError> {
        paced(&self.framework, self.options.backoff, compile)
    }

    /// Compiles the program in a folder, or finds it compiled.
    fn compile(&self, folder: &Folder) -> Result<Compiled, DeviceError> {
        if let Some(compiled) = locked(&self.compiled).get(&folder.key) {
            return Ok(compiled.clone());
        }
        let source = folder.source();
        if let Some(compiled) = self.reopened(folder) {
            return Ok(compiled);
        }
        let options =
            aneforge_ane::Options { call_limit: self.options.call_limit, ..aneforge_ane::Options::default() };
        if let Some(command) = self.worker(true)? {
            let (libraries, limit) = (&self.options.libraries, self.options.compile_limit);
            self.paced(|| aneforge_ane::worker::try_compile(command, libraries, &source, limit))?;
        }
        let compiled = self.paced(|| Compiled::new(&self.framework, &source, options))?;
        folder.stamp(self.framework.system());
        locked(&self.compiled).insert(folder.key.clone(), compiled.clone());
        Ok(compiled)
    }

    /// What an earlier process has compiled, where the system still takes it: whether it does shows when it is loaded.
    fn reopened(&self, folder: &Folder) -> Option<Compiled> {
        let before = folder.stamped()?;
        let now = self.framework.system();
        if before != now {
            tracing::info!(
                "the system was {before} when a program was compiled, and is {now}; it is compiled again"
            );
            return None;
        }
        let [bundle] = &Compiled::bundles(&folder.cache)[..] else { return None };
        let compiled = Compiled::reopen(&self.framework, bundle).ok()?;
        let options = aneforge_ane::Options::default();
        match aneforge_ane::Program::load(&self.framework, &compiled, &folder.source(), options) {
            Ok(_) => {
                // So that it counts as used.
                folder.stamp(now);
                locked(&self.compiled).insert(folder.key.clone(), compiled.clone());
                Some(compiled)
            }
            Err(error) => {
                tracing::info!("{error}");
                None
            }
        }
    }

    fn load_program(&self, segment: &Segment) -> Result<Box<dyn Loaded>, DeviceError> {
        let Code::Mil { program, blob } = &segment.code else { unreachable!("looked at before") };
        let folder =
            Folder::write(&self.folder.path, self.framework.system(), &segment.graph, program, blob)?;
        if self.options.isolation == Isolation::Worker {
            let command = self.worker(true)?.expect("invariant: there is one, or an error").to_vec();
            return Ok(Box::new(apart::program(self, command, &segment.graph, folder)?));
        }
        let compiled = self.compile(&folder)?;
        Ok(Box::new(program::Running::load(self, &segment.graph, &compiled, folder)?))
    }
}

/// Why the engine cannot be reached, in the words of whoever asked for it.
fn why_not(error: &AneError, options: &AneOptions) -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let apple = os == "macos" && arch == "aarch64";
    let system = options.libraries.espresso == Libraries::system().espresso;
    match (system, apple) {
        (true, false) => {
            format!("the Neural Engine is part of Apple silicon and this is {arch} {os}; run on `host`")
        }
        _ => error.to_string(),
    }
}

/// Why the engine cannot be reached in this way, if so.
pub(crate) fn absent(options: &AneOptions) -> Option<String> {
    Framework::open(&options.libraries).err().map(|error| why_not(&error, options))
}

/// The same, as an error for those who have not asked `doctor`.
fn unavailable(error: &AneError, options: &AneOptions) -> DeviceError {
    let why = match (why_not(error, options), options.libraries == Libraries::system()) {
        (why, true) if why.ends_with("run on `host`") => why,
        (why, true) => format!("{why}; `aneforge doctor` says more, and programs run on `host` meanwhile"),
        (why, false) => {
            format!("{why}; a library that is named is used, or nothing is: name another, or none")
        }
    };
    DeviceError::Unavailable { device: "ane", why }
}

impl Device for Ane {
    fn name(&self) -> &'static str {
        "ane"
    }

    fn title(&self) -> &'static str {
        if self.stand_in().is_some() { STANDS_IN } else { "ane" }
    }

    fn describe(&self) -> String {
        let apart = match self.options.isolation {
            Isolation::Process => "",
            Isolation::Worker => ", in another process",
        };
        match self.stand_in() {
            Some(version) => format!("{version} for the engine, which computes on the host{apart}"),
            None => {
                let processor = self.framework.processor().unwrap_or_else(|| "an unknown processor".into());
                format!("the Neural Engine of {processor}, macOS build {}{apart}", self.framework.system())
            }
        }
    }

    fn numerics(&self, target: Target) -> Numerics {
        Numerics::Ane(target.family())
    }

    fn allocate(&self, ty: TensorType) -> Result<Buffer, DeviceError> {
        let prepare = |why| DeviceError::Prepare { stage: "taking memory", why };
        let buffer = self.framework.allocate(ty.bytes()).map_err(|error| told(error, prepare))?;
        Ok(Buffer::new(ty, Layout::row_major(ty.shape.dims()), EngineMemory { buffer }, None))
    }

    fn load(&self, segment: &Segment, target: Target) -> Result<Box<dyn Loaded>, DeviceError> {
        self.fits(target)?;
        let loaded = match &segment.code {
            Code::Mil { .. } => self.load_program(segment),
            Code::Native(netplist) => match self.worker(true)? {
                Some(command) => apart::native(self, command.to_vec(), &segment.graph, netplist)
                    .map(|l| Box::new(l) as Box<dyn Loaded>),
                None => native::Running::load(self, &segment.graph, netplist)
                    .map(|l| Box::new(l) as Box<dyn Loaded>),
            },
        };
        match loaded {
            Err(error @ DeviceError::Refused { .. }) => Err(blame::named(self, segment, error)),
            loaded => loaded,
        }
    }
}

impl Ane {
    /// Whether a program for `target` may run on this machine's chip: one of another family would be wrong, or refused late.
    fn fits(&self, target: Target) -> Result<(), DeviceError> {
        if self.stand_in().is_some() {
            return Ok(());
        }
        let brand = self.framework.processor();
        let family = brand.as_deref().and_then(target::family_of_brand).map(|brand| brand.family);
        match family {
            Some(family) if family != target.family() => Err(DeviceError::Refused {
                why: format!(
                    "it is compiled for {target} ({}), and this machine's engine is of {family}; compile it with that target",
                    target.family()
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl AsRef<dyn Device> for Ane {
    fn as_ref(&self) -> &(dyn Device + 'static) {
        self
    }
}

/// What the engine knows a buffer by, or why it does not.
fn handle_of(
    port: crate::device::Port,
    buffer: &Buffer,
    ty: TensorType,
) -> Result<BufferHandle, DeviceError> {
    let got = buffer.ty();
    if (got.dtype, got.shape.count()) != (ty.dtype, ty.shape.count()) {
        let why = format!("takes {ty}, and the buffer holds {}", buffer.ty());
        return Err(DeviceError::Bind { port, why });
    }
    buffer.known_as::<BufferHandle>().cloned().ok_or_else(|| DeviceError::Bind {
        port,
        why: "the buffer is not the engine's; allocate it with the device that the program runs on".into(),
    })
}

/// A folder for things of this process, made.
fn made(folder: &Path) -> Result<(), DeviceError> {
    std::fs::create_dir_all(folder).map_err(|error| DeviceError::Folder {
        why: format!("cannot make folder {}: {error}", folder.display()),
    })
}
