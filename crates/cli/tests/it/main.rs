//! The built command, as people and machines run it.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod artifacts;
mod cache;
mod classify;
mod commands;
mod corpus;
mod demo;
mod diagnose;
mod documents;
mod draw;
#[path = "../../../models/tests/it/drawn.rs"]
#[allow(dead_code, reason = "the tests of models use all of it")]
mod drawn;
mod embed;
mod engine;
mod errors;
mod fetch;
mod files;
mod inputs;
mod kills;
#[path = "../../../models/tests/it/made.rs"]
#[allow(dead_code, reason = "the tests of models use all of it")]
mod made;
mod outputs;
mod rerank;
mod search;
#[cfg(feature = "serve")]
mod serve;
mod support;
mod train;
