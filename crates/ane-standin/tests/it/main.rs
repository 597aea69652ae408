//! The engine's interface against the stand-in: how calls are made, what computes, and what happens when something goes wrong.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod calls;
mod conformance;
#[path = "../../../aneforge/tests/it/counting.rs"]
mod counting;
mod device;
mod faults;
mod native;
mod rules;
mod standin;
#[path = "../../../aneforge/tests/it/support.rs"]
#[allow(dead_code, reason = "it serves other suites, too")]
mod support;
mod tables;
mod worker;
