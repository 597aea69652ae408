//! How each thing is found out.

pub(super) mod limits;
pub(super) mod numerics;
pub(super) mod runtime;

use super::Bench;
use crate::device::ane::Ane;
use crate::ir::var::Var;
use crate::passes::{CompileOptions, Routes};
use crate::plan::Plan;
use crate::session::Session;
use aneforge_tensor::{Shape, Tensor};
use std::sync::Arc;

/// An error as a reason why a probe found nothing.
fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("invariant: probes have valid shapes")
}

fn tensor(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape(dims), values).expect("invariant: one value per element")
}

impl Bench {
    fn plan(&self, outputs: &[Var]) -> Result<Plan, String> {
        let options = CompileOptions::target(self.target).routes(Routes::Native);
        crate::compile::compile(outputs, &options).map_err(told)
    }

    fn session(&self, outputs: &[Var]) -> Result<Session, String> {
        Session::new(self.plan(outputs)?, &self.device).map_err(told)
    }

    /// What a graph of one output makes of these.
    fn run(&self, output: Var, feeds: &[Tensor]) -> Result<Vec<f32>, String> {
        let mut session = self.session(&[output])?;
        Ok(session.run(feeds).map_err(told)?[0].to_f32())
    }

    /// The engine, which some probes need.
    fn engine(&self) -> Result<&Arc<Ane>, String> {
        self.engine.as_ref().ok_or_else(|| "it needs the engine".into())
    }
}

/// Times of so many calls, in microseconds, sorted.
fn times(count: usize, mut call: impl FnMut() -> Result<(), String>) -> Result<Vec<f64>, String> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = std::time::Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
