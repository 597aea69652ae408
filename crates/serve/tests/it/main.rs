//! The server as clients meet it: through sockets, with small models.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod batches;
mod classify;
mod embeddings;
mod ends;
mod hostile;
mod limits;
#[path = "../../../models/tests/it/made.rs"]
#[allow(dead_code, reason = "the tests of models use all of it")]
mod made;
mod page;
mod rerank;
mod support;
