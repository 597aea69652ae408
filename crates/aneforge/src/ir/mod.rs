//! The one language of the system: typed, lazy tensor graphs.
//!
//! A [`Var`](var::Var) is a node being built; [`Graph`](graph::Graph) is a frozen set of them in
//! topological order. Both are made of [`Op`](op::Op)s, a closed set with one file each under [`ops`].
//! `ir` does no I/O and knows no target, no importer and no device.

/// Attributes of ops, and the Rust types they may have.
pub mod attr;
pub mod case;
pub mod form;
pub mod graph;
pub mod info;
pub mod numerics;
pub mod rules;
#[macro_use]
pub mod op;
pub mod ops;
pub mod precision;
pub mod text;
/// Types of values, and where in user code they were built.
pub mod types;
pub mod var;
pub mod verify;
