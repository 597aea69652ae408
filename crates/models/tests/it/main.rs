//! The integration tests of the models: one binary.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod clip;
mod diffusion;
mod drawn;
mod encoder;
mod families;
mod full;
mod made;
mod reranker;
mod resnet;
mod undrawn;
mod vision;
