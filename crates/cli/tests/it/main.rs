//! The built command, as people and machines run it.

mod commands;
mod errors;
mod support;
