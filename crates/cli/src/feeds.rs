//! What programs are fed: arrays from files, or random ones.

use crate::exit::caller;
use crate::output::counted;
use crate::program;
use aneforge::ir::graph::InputInfo;
use aneforge::ir::ops::leaf::Role;
use aneforge::{DType, DeviceError, Graph, Plan, Tensor, TensorType, artifact};
use aneforge_tensor::{Bytes, npy, random};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Inputs that are given at every run, without state that is kept elsewhere.
pub fn without_state(plan: &Plan) -> Vec<InputInfo> {
    plan.feeds.iter().filter(|feed| feed.role == Role::Feed).cloned().collect()
}

/// An array for each of these inputs.
pub fn from_files(files: &[PathBuf], inputs: &[InputInfo]) -> Result<Vec<Tensor>> {
    if files.len() != inputs.len() {
        let types: Vec<String> = inputs.iter().map(|f| f.ty.to_string()).collect();
        return Err(caller(format!(
            "the program takes {} ({}), got {}; give --input FILE.npy for each, or --random SEED",
            counted(types.len(), "input"),
            types.join(", "),
            files.len()
        )));
    }
    files.iter().zip(inputs).map(|(path, feed)| array(path, feed.ty)).collect()
}

/// Sets of arrays, each with one for every input of a graph that is no state.
pub fn sets(files: &[PathBuf], graph: &Graph) -> Result<Vec<Vec<Tensor>>> {
    let feeds: Vec<_> = graph.feed_types().into_iter().filter(|feed| feed.role == Role::Feed).collect();
    if feeds.is_empty() || !files.len().is_multiple_of(feeds.len()) {
        return Err(caller(format!(
            "the graph takes {}, and --calibrate names {}; name one for each input, and that again for each further set",
            counted(feeds.len(), "input"),
            counted(files.len(), "file")
        )));
    }
    let set = |files: &[PathBuf]| {
        files
            .iter()
            .zip(&feeds)
            .map(|(path, feed)| {
                let tensor = array(path, feed.ty)?;
                match tensor.shape() == feed.ty.shape {
                    true => Ok(tensor),
                    false => {
                        let (name, got, want) = (program::name(path), tensor.shape(), feed.ty.shape);
                        Err(caller(format!(
                            "{name} has shape {got}, and the input {want}; give it that shape"
                        )))
                    }
                }
            })
            .collect()
    };
    files.chunks(feeds.len()).map(set).collect()
}

/// Random arrays for all of these inputs.
pub fn drawn(seed: u64, inputs: &[InputInfo]) -> Result<Vec<Tensor>> {
    let draw = |(seed, ty): (u64, TensorType)| {
        let drawn = match ty.dtype {
            DType::U8 => random::try_bytes(seed, ty.shape),
            _ => random::try_normal_f16(seed, ty.shape),
        };
        drawn.ok_or_else(|| DeviceError::Memory { need: ty.bytes() }.into())
    };
    (0..).map(|i| seed.wrapping_add(i)).zip(inputs.iter().map(|feed| feed.ty)).map(draw).collect()
}

/// The array in a file, for a port of this type.
fn array(path: &Path, port: TensorType) -> Result<Tensor> {
    // No element takes more than eight bytes; what is of a wrong shape is better read than not, to name it.
    let most = (port.shape.count() as u64).saturating_mul(8).saturating_add(program::MOST_TEXT);
    let tensor = npy::read(&program::bytes(path, most)?).with_context(|| program::name(path))?;
    let wider = matches!(tensor.dtype(), DType::I8 | DType::I32 | DType::I64);
    if port.dtype != DType::U8 || !wider {
        return Ok(tensor);
    }
    let byte = |v: f32| if (0.0..=255.0).contains(&v) { Ok(v as u8) } else { Err(v) };
    let bytes: Result<Vec<u8>, f32> = tensor.to_f32().into_iter().map(byte).collect();
    let bytes = bytes.map_err(|v| {
        let name = program::name(path);
        caller(format!("{name}: the port takes integers from 0 to 255, the file has {v}"))
    })?;
    Ok(Tensor::new(DType::U8, tensor.shape(), Bytes::new(bytes))?)
}

/// Says which file an input came from.
pub fn named(error: aneforge::RunError, files: &[PathBuf]) -> anyhow::Error {
    use aneforge::RunError::{DType, Shape};
    let file = match &error {
        Shape { index, .. } | DType { index, .. } => files.get(*index),
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match file {
        Some(file) => error.context(program::name(file)),
        None => error,
    }
}

/// What a command computes with.
#[derive(clap::Args)]
pub struct Data {
    /// An input as an .npy file, or `-` for standard input; once per input, in their order
    #[arg(short, long = "input", value_name = "FILE.npy")]
    pub inputs: Vec<PathBuf>,

    /// Feed normally distributed numbers instead (bytes to ports that take bytes)
    #[arg(long, value_name = "SEED", conflicts_with = "inputs")]
    pub random: Option<u64>,

    /// Take state from this file, which `run --state` wrote, and not from --input or --random
    #[arg(long, value_name = "FILE.safetensors")]
    pub state: Option<PathBuf>,
}

impl Data {
    /// Whether there is any.
    pub fn is_given(&self) -> bool {
        !self.inputs.is_empty() || self.random.is_some()
    }

    /// Inputs, of the number and types that the program has, and state.
    pub fn fed(&self, plan: &Plan) -> Result<Vec<Tensor>> {
        let inputs = if self.state.is_some() { without_state(plan) } else { plan.feeds.clone() };
        let given = match self.random {
            Some(seed) => drawn(seed, &inputs)?,
            None => from_files(&self.inputs, &inputs)?,
        };
        let Some(path) = &self.state else { return Ok(given) };
        let mut held = artifact::read_state(path)?;
        let mut given = given.into_iter();
        let names = plan.feeds.iter().enumerate().map(|(at, feed)| {
            let name = if feed.name.is_empty() { at.to_string() } else { feed.name.clone() };
            (feed.role, name)
        });
        let one = |(role, name): (Role, String)| match role {
            Role::Feed => Ok(given.next().expect("invariant: as many as there are")),
            _ => held
                .remove(&name)
                .ok_or_else(|| caller(format!("{}: it has no state `{name}`", program::name(path)))),
        };
        names.map(one).collect()
    }
}
