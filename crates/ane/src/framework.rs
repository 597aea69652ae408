//! The system's libraries, opened.

use crate::error::AneError;
use crate::limits;
use crate::program::Source;
use crate::sys::buffer::Buffer;
use crate::sys::e5rt::{CompileOptions, E5rt};
use crate::sys::objc::Runtime;
use crate::sys::system::{self, BlockClass};
use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Where the libraries are that the engine is reached through. They are opened at run time; nothing is linked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Libraries {
    /// Compiles and runs programs.
    pub espresso: PathBuf,
    /// Compiles and runs native layers.
    pub engine: PathBuf,
    /// Makes CoreFoundation's values objects.
    pub foundation: PathBuf,
    /// Data, texts, numbers, arrays and dictionaries.
    pub core_foundation: PathBuf,
    /// Memory of native layers.
    pub io_surface: PathBuf,
    /// Messages.
    pub objc: PathBuf,
    /// Blocks, and what the kernel says of itself.
    pub system: PathBuf,
    /// Functions that are treated as missing, to see what happens where they are.
    pub without: Vec<String>,
}

impl Libraries {
    /// Those of macOS. They are in the system's shared cache, so that there need not be such files.
    pub fn system() -> Libraries {
        let private = Path::new("/System/Library/PrivateFrameworks");
        let public = Path::new("/System/Library/Frameworks");
        Libraries {
            espresso: private.join("Espresso.framework/Espresso"),
            engine: private.join("AppleNeuralEngine.framework/AppleNeuralEngine"),
            foundation: public.join("Foundation.framework/Foundation"),
            core_foundation: public.join("CoreFoundation.framework/CoreFoundation"),
            io_surface: public.join("IOSurface.framework/IOSurface"),
            objc: "/usr/lib/libobjc.A.dylib".into(),
            system: "/usr/lib/libSystem.B.dylib".into(),
            without: Vec::new(),
        }
    }

    /// The same, as if these functions were missing.
    #[must_use]
    pub fn without(self, symbols: &[&str]) -> Libraries {
        Libraries { without: symbols.iter().map(|&symbol| symbol.to_owned()).collect(), ..self }
    }

    pub(crate) fn has(&self, symbol: &str) -> bool {
        self.without.iter().all(|missing| missing != symbol)
    }

    /// One library in the place of all, such as the stand-in. A relative path, a bare name too, is one from the current folder: it is
    /// never looked for where the system has its libraries.
    pub fn all(path: impl Into<PathBuf>) -> Libraries {
        let path = path.into();
        let path = std::path::absolute(&path).unwrap_or(path);
        Libraries {
            espresso: path.clone(),
            engine: path.clone(),
            foundation: path.clone(),
            core_foundation: path.clone(),
            io_surface: path.clone(),
            objc: path.clone(),
            system: path,
            without: Vec::new(),
        }
    }
}

/// The engine's interface in this process.
pub struct Framework {
    libraries: Libraries,
    pub(crate) e5rt: &'static E5rt,
    native: OnceLock<&'static Runtime>,
    pub(crate) block_class: Option<BlockClass>,
    stand_in: Option<String>,
    system: String,
    /// Bytes of memory that the machine has, once that was asked.
    memory: OnceLock<Option<u64>>,
}

impl Framework {
    /// Opens the libraries; once for each set of them, and for good.
    pub fn open(libraries: &Libraries) -> Result<Arc<Framework>, AneError> {
        static OPEN: Mutex<Option<HashMap<Libraries, Arc<Framework>>>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(framework) = open.get(libraries) {
            framework.e5rt.here()?;
            return Ok(Arc::clone(framework));
        }
        let e5rt = E5rt::open(libraries)?;
        let stand_in = system::stand_in(&libraries.espresso);
        let build = || system::kernel_text(&libraries.system, c"kern.osversion");
        let system = stand_in.clone().or_else(build).unwrap_or_else(|| "unknown".into());
        let framework = Arc::new(Framework {
            libraries: libraries.clone(),
            e5rt,
            native: OnceLock::new(),
            block_class: system::block_class(&libraries.system)
                .filter(|_| libraries.has("_NSConcreteGlobalBlock")),
            stand_in,
            system,
            memory: OnceLock::new(),
        });
        open.insert(libraries.clone(), Arc::clone(&framework));
        Ok(framework)
    }

    /// Where its libraries are.
    pub fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// The build of the system, such as `25F84`, or the version of what stands in for it: what is compiled for one need not load on
    /// another.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// What a library says that stands in for the engine; `None` where it is the engine.
    pub fn stand_in(&self) -> Option<&str> {
        self.stand_in.as_deref()
    }

    /// The processor's name, such as `Apple M5 Pro`.
    pub fn processor(&self) -> Option<String> {
        system::kernel_text(&self.libraries.system, c"machdep.cpu.brand_string")
    }

    /// An error in a process that was forked off the one that has opened the libraries: neither they nor their memory survive that.
    pub fn here(&self) -> Result<(), AneError> {
        self.e5rt.here()
    }

    /// Programs of this process that are loaded.
    pub fn loaded(&self) -> usize {
        self.e5rt.places.taken()
    }

    /// Objects of the interface that are alive in this process.
    pub fn alive(&self) -> usize {
        self.e5rt.alive.load(Ordering::Acquire)
    }

    /// Whether the library has a function that it need not have.
    pub fn lacks(&self, symbol: &str) -> bool {
        self.e5rt.lacks(symbol)
    }

    /// What the library calls a status; `None` where it has no name for it.
    pub fn name_of(&self, code: i32) -> Option<String> {
        self.e5rt.name_of(code)
    }

    /// Zeroed memory that host and engine see. What the machine does not have is not asked for.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, AneError> {
        let have = *self.memory.get_or_init(|| system::memory(&self.libraries.system));
        let room = limits::buffer_bytes(bytes)
            .filter(|&room| isize::try_from(room).is_ok() && have.is_none_or(|have| room as u64 <= have));
        self.e5rt.buffer(bytes, room.ok_or(AneError::Memory { bytes, have })?)
    }

    /// Whether the compiler accepts a program for `architecture`, such as `h13g`. An architecture that it does not know it takes for
    /// this machine's, without a word, and clients report that it may heed none; so a pass means little without a program that must
    /// fail.
    pub fn check(&self, source: &Source<'_>, architecture: &str) -> Result<(), AneError> {
        self.e5rt.here()?;
        let symbol = "e5rt_e5_compiler_options_set_custom_ane_compiler_options";
        if self.e5rt.lacks(symbol) {
            let without = "nothing is compiled for another chip than this machine's";
            return Err(AneError::Symbol { path: self.libraries.espresso.clone(), symbol, without });
        }
        let custom = text(&format!("TargetArchitecture={architecture}"))?;
        let options = CompileOptions { force: true, custom: Some(&custom), profiling: false };
        crate::program::compiled(self.e5rt, source, options).map(drop)
    }

    /// Objective-C and the engine's classes.
    pub(crate) fn native(&self) -> Result<&'static Runtime, AneError> {
        if let Some(native) = self.native.get() {
            native.here()?;
            return Ok(native);
        }
        static OPENING: Mutex<()> = Mutex::new(());
        let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        match self.native.get() {
            Some(native) => Ok(native),
            None => Ok(self.native.get_or_init({
                let native = Runtime::open(&self.libraries)?;
                move || native
            })),
        }
    }
}

impl fmt::Debug for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framework({}, {})", self.libraries.espresso.display(), self.system)
    }
}

pub(crate) fn text(plain: &str) -> Result<CString, AneError> {
    CString::new(plain).map_err(|_| AneError::Text(plain.to_owned()))
}

pub(crate) fn path_text(path: &Path) -> Result<CString, AneError> {
    use std::os::unix::ffi::OsStrExt;
    let name = || AneError::Text(path.to_string_lossy().into_owned());
    CString::new(path.as_os_str().as_bytes()).map_err(|_| name())
}
