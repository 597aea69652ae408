//! Weight files as neutral structs over shared bytes.
//!
//! Everything here reads files that strangers made. No input makes it panic, nothing is allocated that the
//! file's own size does not justify, and each way in which a file can be wrong is an error of its own that
//! names the file, the tensor and what to do. This crate knows tensors and no graph.

mod checkpoint;
mod file;
pub mod pth;
pub mod safetensors;

pub use checkpoint::{Checkpoint, CheckpointError, ReadError};
pub use file::{FileError, at_most, given, map, read};
pub use pth::{Pth, PthError};
pub use safetensors::{SafeTensors, SafeTensorsError};
