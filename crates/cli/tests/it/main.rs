//! The built command, as people and machines run it.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod artifacts;
mod commands;
mod documents;
mod embed;
mod errors;
mod inputs;
mod outputs;
mod support;
