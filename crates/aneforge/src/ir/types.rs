use aneforge_tensor::{DType, Shape};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

/// What a value is: element type and shape, written `fp16[2, 3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost axis first.
    pub shape: Shape,
}

impl TensorType {
    /// Half precision with this shape, the type of nearly every value.
    pub fn f16(shape: Shape) -> TensorType {
        TensorType { dtype: DType::F16, shape }
    }

    /// A truth value per element.
    pub fn bool(shape: Shape) -> TensorType {
        TensorType { dtype: DType::Bool, shape }
    }

    /// Bytes of storage.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.size()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// The line of user code that made a node; part of every message about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    file: &'static str,
    line: u32,
}

thread_local! {
    static OVERRIDE: Cell<Option<Caller>> = const { Cell::new(None) };
}

impl Caller {
    /// The line that called the function this is called from, unless [`Caller::scope`] names another.
    #[track_caller]
    pub fn here() -> Caller {
        // Outside a closure: inside one, the location would be the closure's.
        let at = Location::caller();
        OVERRIDE.get().unwrap_or(Caller { file: at.file(), line: at.line() })
    }

    /// A line of a source file that is not Rust; line 0 where the whole is meant.
    pub const fn new(file: &'static str, line: u32) -> Caller {
        Caller { file, line }
    }

    /// A line of a file whose name is not known for good. One copy of each name is kept: a process has few.
    pub fn named(file: &str, line: u32) -> Caller {
        static FILES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = files.get(file).copied().unwrap_or_else(|| {
            let kept: &'static str = Box::leak(file.to_owned().into_boxed_str());
            files.insert(kept);
            kept
        });
        Caller::new(kept, line)
    }

    /// The file.
    pub fn file(self) -> &'static str {
        self.file
    }

    /// The line in it, from 1.
    pub fn line(self) -> u32 {
        self.line
    }

    /// Runs `build` with every node it makes attributed to this line.
    pub fn scope<T>(self, build: impl FnOnce() -> T) -> T {
        struct Restore(Option<Caller>);
        impl Drop for Restore {
            fn drop(&mut self) {
                OVERRIDE.set(self.0);
            }
        }
        let _restore = Restore(OVERRIDE.replace(Some(self)));
        build()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number with its noun, in the plural where it is not one.
///
/// ```
/// use aneforge::ir::types::counted;
/// assert_eq!([counted(1, "input"), counted(2, "input")], ["1 input", "2 inputs"]);
/// ```
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
