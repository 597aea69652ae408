//! Choosing among ways to compile a graph, by measuring them on a device.
//!
//! [`tune`] chooses what native layers, weights and chains of scalars become, [`choose`] the same by the cost model alone, [`tune_precision`] how sums are written, [`tune_attention`] into how many
//! parts attention is cut. [`Bench`] says where and how all of them measure.

mod attention;
mod precision;
mod routes;
mod ways;

pub use attention::{AttentionShape, CANDIDATES, tune_attention};
pub use precision::{Chosen, Goal, tune_precision};
pub use routes::{Search, tune};
pub use ways::{Considered, choose, consider};

use crate::artifact::ArtifactError;
use crate::compile::{CompileError, compile};
use crate::device::{Device, DeviceError};
use crate::error::Kind;
use crate::ir::graph::{self, Graph};
use crate::ir::precision::{Array, Precision};
use crate::ir::var::Var;
use crate::passes::{self, CompileOptions, PassError, Routes};
use crate::session::{RunError, Session};
use crate::target::layers::written_out;
use aneforge_tensor::{AlignedBytes, Bytes, DType, Shape, Tensor, f16, random};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Runs that are not timed, before those that are.
const WARM_UPS: usize = 5;
const SEED: u64 = 0xA9E;

/// Ways could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// The graph or what is fed is wrong, or the device is not there.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What was measured could not be kept.
    #[error(transparent)]
    Cache(#[from] ArtifactError),
    /// Attention runs in none of the parts that were to be tried.
    #[error("tune_attention: none of ({list}) parts of {queries} queries could run", list = list(candidates))]
    NoParts {
        /// How many parts were tried.
        candidates: Vec<usize>,
        /// How many queries there are.
        queries: usize,
    },
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

impl TuneError {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            TuneError::Run(error) => error.kind(),
            TuneError::Cache(error) => error.kind(),
            TuneError::NoParts { .. } => Kind::Device,
        }
    }
}

impl From<CompileError> for TuneError {
    fn from(error: CompileError) -> TuneError {
        RunError::from(error).into()
    }
}

/// Where and how ways are measured.
#[derive(Clone)]
pub struct Bench {
    /// Where they run.
    pub device: Arc<dyn Device>,
    /// How they are compiled, but for what is chosen.
    pub compile: CompileOptions,
    /// Arrays to run them with; by default random ones, none of whose values is close to zero, where functions have
    /// kinks.
    pub feeds: Option<Vec<Tensor>>,
    /// Timed runs per way.
    pub reps: usize,
    /// The folder where choices are kept, and taken from without measuring. What is kept depends on the structure of a
    /// graph and not on its weights.
    pub cache: Option<PathBuf>,
}

impl Bench {
    /// On a device, and by default otherwise: twenty timed runs with random arrays, and nothing is kept.
    pub fn on(device: Arc<dyn Device>) -> Bench {
        Bench { device, compile: CompileOptions::default(), feeds: None, reps: 20, cache: None }
    }

    /// The same with these arrays.
    #[must_use]
    pub fn feeds(self, feeds: Vec<Tensor>) -> Bench {
        Bench { feeds: Some(feeds), ..self }
    }

    /// The same with this many timed runs per way.
    #[must_use]
    pub fn reps(self, reps: usize) -> Bench {
        Bench { reps, ..self }
    }

    /// The same, with choices kept in this folder.
    #[must_use]
    pub fn cache(self, folder: impl Into<PathBuf>) -> Bench {
        Bench { cache: Some(folder.into()), ..self }
    }

    /// The arrays to measure `graph` with.
    fn arrays(&self, graph: &Graph) -> Result<Vec<Tensor>, RunError> {
        if let Some(feeds) = &self.feeds {
            return Ok(feeds.clone());
        }
        let array = |(i, feed): (u64, &graph::InputInfo)| match feed.ty.dtype {
            DType::U8 => random::try_bytes(SEED + i, feed.ty.shape)
                .ok_or(DeviceError::Memory { need: feed.ty.shape.count() }.into()),
            _ => Ok(filled(feed.ty.shape, |at| away_from_zero(random::normal(SEED + i, at)))?),
        };
        (0..).zip(&graph.feed_types()).map(array).collect()
    }

    /// The result, and the times of all runs in microseconds; none where the target or the device cannot run it.
    fn run(
        &self,
        out: &Var,
        options: &CompileOptions,
        feeds: &[Tensor],
    ) -> Result<Option<(Tensor, Vec<f64>)>, RunError> {
        let plan = compile(std::slice::from_ref(out), options);
        let loaded = plan.map_err(RunError::from).and_then(|plan| Session::new(plan, &self.device));
        let mut session = match loaded {
            Ok(session) => session,
            Err(error) if error.kind() == Kind::Caller => return Err(error),
            Err(_) => return Ok(None),
        };
        for _ in 0..WARM_UPS {
            session.run_all(feeds)?;
        }
        let mut times = Vec::new();
        let mut result = Vec::new();
        for _ in 0..self.reps.max(1) {
            let start = Instant::now();
            result = session.run_all(feeds)?;
            times.push(1e6 * start.elapsed().as_secs_f64());
        }
        Ok(result.into_iter().next().map(|result| (result, times)))
    }
}

/// One way to compile a graph, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// What it is called.
    pub name: &'static str,
    /// Microseconds by ANEForge's formula for an M5 Pro, [`package::estimate`](crate::target::cost::package::estimate).
    pub estimate: f64,
    /// The least time of a run in microseconds; infinite where it cannot run.
    pub time: f64,
    /// How far its result is from the one it is compared with, in units of the largest value; infinite where it is no
    /// number, or there is none.
    pub error: f64,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Way { name, estimate, time, error } = self;
        let error = general(*error, 2);
        write!(f, "{name}: {time:.1} us, error {error}, estimated {estimate:.1} us")
    }
}

/// A graph with its layers as `routes` says.
fn routed(graph: &Graph, routes: Routes) -> Result<Graph, CompileError> {
    match routes {
        Routes::Native => Ok(graph.clone()),
        Routes::WrittenOut => {
            let rewritten = crate::rewrite::run(graph, passes::ROUTE, &mut Vec::new());
            Ok(rewritten.map_err(PassError::from)?)
        }
    }
}

fn frozen(out: &Var) -> Result<Graph, CompileError> {
    Ok(written_out(&Graph::freeze(std::slice::from_ref(out)).map_err(PassError::from)?))
}

/// `value`, half a unit further from zero if it is close.
fn away_from_zero(value: f32) -> f32 {
    if value.abs() < 0.25 { value + 0.5f32.copysign(value) } else { value }
}

/// A half-precision tensor of `value(0)`, `value(1)` and so on.
fn filled(shape: Shape, value: impl Fn(u64) -> f32) -> Result<Tensor, DeviceError> {
    let need = shape.count().saturating_mul(size_of::<f16>());
    let mut bytes = AlignedBytes::try_zeroed(need).ok_or(DeviceError::Memory { need })?;
    for (i, element) in (0..).zip(bytes.as_mut_slice::<f16>()) {
        *element = f16::from_f32(value(i));
    }
    Ok(Tensor::new(DType::F16, shape, Bytes::new(bytes)).expect("invariant: two bytes per element"))
}

/// The largest difference in units of the largest value; infinite for what is no number, and for other shapes.
fn error(got: &Array, want: &Array, floor: f64) -> f64 {
    if got.shape != want.shape {
        return f64::INFINITY;
    }
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold(0.0, |most: f64, v| if v.is_nan() || most.is_nan() { f64::NAN } else { most.max(v.abs()) })
    };
    let difference = largest(&mut got.data.iter().zip(&want.data).map(|(g, w)| g - w));
    let error = difference / (largest(&mut want.data.iter().copied()) + floor);
    if error.is_finite() { error } else { f64::INFINITY }
}

fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn array(tensor: &Tensor) -> Array {
    Array::from_tensor(tensor, Precision::F64)
}

/// A number as C's `%g` writes it, with so many digits.
fn general(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("invariant: scientific notation has an e");
    let exponent: i32 = exponent.parse().expect("invariant: an exponent is an integer");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match usize::try_from(digits as i32 - 1 - exponent) {
        Ok(decimals) if exponent >= -4 => trimmed(&format!("{value:.decimals$}")),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_c() {
        let six = [0.5, 1e-9, 1e6, 123456.0, 1234567.0, 0.0001, 0.00001234, 0.0, 100.0, f64::INFINITY];
        let want =
            ["0.5", "1e-09", "1e+06", "123456", "1.23457e+06", "0.0001", "1.234e-05", "0", "100", "inf"];
        assert_eq!(six.map(|v| general(v, 6)), want);
        assert_eq!([0.00123, 9.96, 123.0].map(|v| general(v, 2)), ["0.0012", "10", "1.2e+02"]);
    }

    #[test]
    fn errors_are_relative_to_the_largest_value() {
        let of = |data: &[f64]| Array { shape: Shape::new(&[data.len()]).unwrap(), data: data.to_vec() };
        assert_eq!(error(&of(&[1.0, -4.5]), &of(&[1.0, -4.0]), 0.0), 0.125);
        for (got, want) in [([f64::NAN, 0.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, f64::NAN])] {
            assert_eq!(error(&of(&got), &of(&want), 1e-9), f64::INFINITY);
        }
        assert_eq!(error(&of(&[0.0]), &of(&[0.0, 0.0]), 1.0), f64::INFINITY);
    }

    #[test]
    fn random_arrays_keep_away_from_kinks() {
        let x = Var::input(Shape::new(&[1000]).unwrap());
        let host = crate::device::named("host").unwrap();
        let arrays = Bench::on(host).arrays(&frozen(&x).unwrap()).unwrap();
        let values = arrays[0].to_f32();
        assert!(values.iter().all(|v| v.abs() >= 0.249));
        assert!(values.iter().any(|v| *v < 0.0) && values.iter().any(|v| *v > 0.0));
    }
}
