//! Apple's Neural Engine behind a safe interface.
//!
//! The system's private libraries are opened at run time, function by function; nothing is linked, and no compiler is needed. What is
//! known of them is in tables with evidence: [`limits`], [`symbols`] and [`MESSAGES`]. **None of this has run on an engine yet**: it
//! is proven against a stand-in library that exports the same symbols and enforces what is known of their rules, and by building for
//! macOS.
//!
//! - [`Framework`] opens the libraries.
//! - [`Program`] is MIL with its weights, compiled and loaded; its ports are bound to [`Buffer`]s, which host and engine see.
//! - [`worker`] runs either in a process of its own, so that a crash or a hang there is an error here.
//! - [`NativeModel`] is a native layer, a property list, which MIL cannot spell.
//!
//! Memory is released by dropping. A call that never comes back is reported by a watchdog, and its program is not used again.

mod capture;
mod error;
mod framework;
pub mod limits;
mod native;
mod program;
mod rules;
mod sys;
mod watchdog;
pub mod worker;

pub use error::{AneError, Failure, Stage};
pub use framework::{Framework, Libraries};
pub use native::{DOCUMENT_FILE, EXTENTS, Live, NativeModel, NativeSource, STRIDES};
pub use program::{Compiled, Options, PortSpec, Program, Side, Source, Submission};
pub use sys::buffer::{Buffer, BufferHandle};
pub use sys::e5rt::NEVER;
pub use sys::objc::{MESSAGES, Message};

/// Functions of the system's libraries, as they are called here.
pub mod symbols {
    pub use crate::sys::e5rt::E5RT;
    pub use crate::sys::foundation::{CORE_FOUNDATION, IO_SURFACE};
    pub use crate::sys::objc::OBJC;
    pub use crate::sys::table::{Evidence, Function, Need};
    use std::path::Path;

    /// Which of these functions a library has, or why it cannot be opened.
    pub fn found(library: &Path, functions: &[Function]) -> Result<Vec<bool>, String> {
        let library = crate::sys::table::Library::open(library)?;
        Ok(functions.iter().map(|function| library.find(function.symbol).is_some()).collect())
    }
}
