//! What the crate does as a whole, seen from outside.
#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap: a failing unwrap is a failing test")]

mod encoder;
