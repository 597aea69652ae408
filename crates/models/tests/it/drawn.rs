//! Small pipelines of Stable Diffusion, whose weights are made here from the names and shapes in `tests/models`.

use crate::made::{crc32, json};
use aneforge::device;
use aneforge_formats::safetensors::layout;
use aneforge_models::diffusion::DiffusionOptions;
use aneforge_tensor::{DType, Shape, random};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/models/diffusion-{name}"))
}

pub fn options() -> DiffusionOptions {
    DiffusionOptions { device: Some(device::named("host").unwrap()), ..DiffusionOptions::default() }
}

pub fn numbers(row: &Value) -> Vec<f64> {
    row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

pub fn normal(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| random::normal(seed, i)).collect()
}

/// `|got - want| / |want|`, as lengths of vectors.
pub fn apart(got: impl IntoIterator<Item = impl Into<f64>>, want: &[f64]) -> f64 {
    let got: Vec<f64> = got.into_iter().map(Into::into).collect();
    assert_eq!(got.len(), want.len());
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    length(&mut got.iter().zip(want).map(|(g, w)| g - w)) / length(&mut want.iter().copied())
}

/// The elements of a weight: as `weights` of `tools/fixtures/diffusion.py` says.
fn values(name: &str, shape: Shape) -> Vec<f32> {
    let seed = u64::from(crc32(name.as_bytes()));
    let fan_in: usize = shape.dims().iter().skip(1).product();
    let value = |i: u64| match shape.rank() {
        0 | 1 => 0.1 * random::normal(seed, i) + f32::from(u8::from(name.ends_with("weight"))),
        _ => random::normal(seed, i) * (1.0 / (fan_in as f64).sqrt()) as f32,
    };
    (0..shape.count() as u64).map(value).collect()
}

/// Names and shapes of the weights in a folder of a fixture.
pub fn listed(folder: &Path) -> Vec<(String, Vec<usize>)> {
    let list = json(folder.join("weights.json"));
    let dims = |dims: &Value| dims.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    list.as_object().unwrap().iter().map(|(name, extents)| (name.clone(), dims(extents))).collect()
}

/// Writes weights, before whose names `prefix` comes in the file.
pub fn write(path: &Path, list: &[(String, Vec<usize>)], prefix: &str, dtype: DType) {
    let named: Vec<(String, DType, Shape)> = list
        .iter()
        .map(|(name, dims)| (format!("{prefix}{name}"), dtype, Shape::new(dims).unwrap()))
        .collect();
    let layout = layout(&named, &BTreeMap::new());
    let mut file = layout.head;
    for at in layout.order {
        for v in values(&list[at].0, named[at].2) {
            match dtype {
                DType::F16 => file.extend(aneforge_tensor::f16::from_f32(v).to_le_bytes()),
                _ => file.extend(v.to_le_bytes()),
            }
        }
    }
    fs::write(path, file).unwrap();
}

/// A directory with a pipeline. The first has the names of older files.
pub fn pipeline(name: &str) -> tempfile::TempDir {
    let (from, to) = (fixture(name), tempfile::tempdir().unwrap());
    fs::copy(from.join("model_index.json"), to.path().join("model_index.json")).unwrap();
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        let (from, to) = (from.join(part), to.path().join(part));
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let encoder = part == "text_encoder";
        let file = if encoder { "model.safetensors" } else { "diffusion_pytorch_model.safetensors" };
        if from.join("weights.json").exists() {
            let prefix = if encoder && name == "sd1" { "text_model." } else { "" };
            write(&to.join(file), &listed(&from), prefix, DType::F32);
        }
    }
    to
}
