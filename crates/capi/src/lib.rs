//! The C interface.
//!
//! Two sets of functions, each with a header in `include`: those that ANEForge documents for programs of MIL (`ane_e5rt_*`,
//! [`dispatch`]), which programs such as whisper.cpp load by name; and our own for compiled models ([`model`]), which is smaller and
//! says what went wrong. Both run on the device that `ANEFORGE_DEVICE` names: by default the engine on Apple silicon, where a failure
//! is an error, and the host elsewhere, which is said once on standard error.
//!
//! No function unwinds into its caller: what goes wrong inside is an answer, and a text by [`last_error`].

#![expect(unsafe_code, reason = "callers hand over addresses")]

pub mod dispatch;
mod engine;
mod error;
mod host;
pub mod model;
mod names;
mod program;

pub use error::last_error;
