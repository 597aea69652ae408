//! The stand-in, one test at a time: what goes wrong on purpose is of the whole process.

use aneforge::device::ane::{Ane, AneOptions};
use aneforge::pacing::Backoff;
use aneforge_ane::{Framework, Libraries};
use std::ffi::{CStr, CString, OsString, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where cargo has put the library: beside the tests, or above them.
pub fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let names = ["libaneforge_standin.so", "libaneforge_standin.dylib"];
    let folders = tests.ancestors().skip(1).take(2).map(Path::to_owned);
    let found = folders.flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.exists());
    found.expect("the stand-in is built with its tests")
}

/// The command that runs programs in another process.
pub fn worker() -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_standin_child").into(), "worker".into()]
}

/// The stand-in as it was built.
pub struct Standin {
    library: libloading::Library,
    pub folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Standin {
    /// The stand-in for one test, as it behaves without settings.
    pub fn new() -> Standin {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        #[allow(unsafe_code, reason = "the stand-in may be opened by anybody")]
        // SAFETY: as the reason says.
        let library = unsafe { libloading::Library::new(library()) }.unwrap();
        let standin = Standin { library, folder: tempfile::tempdir().unwrap(), _alone: alone };
        standin.set("reset");
        standin
    }

    /// Changes its settings.
    pub fn set(&self, settings: &str) {
        let settings = CString::new(settings).unwrap();
        let code = self.ask(c"aneforge_standin_configure", &settings);
        assert_eq!(code as i32, 0, "{settings:?}");
    }

    /// Whether it understands settings.
    pub fn takes(&self, settings: &str) -> bool {
        self.ask(c"aneforge_standin_configure", &CString::new(settings).unwrap()) as i32 == 0
    }

    /// How often something was called.
    pub fn count(&self, what: &str) -> u64 {
        self.ask(c"aneforge_standin_count", &CString::new(what).unwrap())
    }

    #[allow(unsafe_code, reason = "functions of the stand-in that take a text")]
    fn ask(&self, symbol: &CStr, text: &CStr) -> u64 {
        type Ask = unsafe extern "C" fn(*const c_char) -> u64;
        // SAFETY: both functions take a text and give a number.
        let ask = unsafe { self.library.get::<Ask>(symbol.to_bytes_with_nul()) }.unwrap();
        // SAFETY: as above.
        unsafe { ask(text.as_ptr()) }
    }

    pub fn framework(&self) -> Arc<Framework> {
        Framework::open(&Libraries::all(library())).unwrap()
    }

    /// How tests reach the engine: without rest, and with short limits.
    pub fn options(&self) -> AneOptions {
        AneOptions {
            libraries: Libraries::all(library()),
            folder: Some(self.folder.path().to_owned()),
            call_limit: Duration::from_secs(30),
            compile_limit: Duration::from_secs(60),
            backoff: Backoff { pause: Duration::ZERO, strict: false },
            ..AneOptions::default()
        }
    }

    pub fn engine(&self) -> Ane {
        Ane::open(&self.options()).unwrap()
    }
}
