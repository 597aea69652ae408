//! The integration tests of the library: one binary.
#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap: a failing unwrap is a failing test")]

mod conformance;
mod encoder;
mod golden;
mod support;
