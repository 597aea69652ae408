//! The integration tests of the library: one binary.

mod conformance;
mod golden;
mod support;
