//! The integration tests of the library: one binary.

mod conformance;
mod encoder;
mod golden;
mod support;
