//! The integration tests of the library: one binary.

mod conformance;
mod errors;
mod golden;
mod passes;
mod random_graph;
mod reference;
mod support;
