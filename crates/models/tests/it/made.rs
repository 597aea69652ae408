//! Small models whose weights are made here, from the names and shapes in `tests/models`.

use aneforge_formats::safetensors::layout;
use aneforge_tensor::{DType, Shape, f16, random};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(format!("{family}-classifier"))
}

pub fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// How the weights are written.
#[derive(Clone, Copy)]
pub struct Stored {
    pub dtype: DType,
    /// In how many files.
    pub parts: usize,
}

pub const WHOLE: Stored = Stored { dtype: DType::F32, parts: 1 };

/// The elements of a weight: as `weights` of `tools/fixtures/encoders.py` says.
fn values(name: &str, shape: Shape) -> Vec<f32> {
    let seed = u64::from(crc32(name.as_bytes()));
    let value = |i: u64| match shape.rank() {
        1 => 0.1 * random::normal(seed, i) + if name.ends_with("bias") { 0.0 } else { 1.0 },
        _ => 0.2 * random::normal(seed, i),
    };
    (0..shape.count() as u64).map(value).collect()
}

pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(!0, step)
}

fn bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    let of = |v: f32| match dtype {
        DType::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
        DType::Bf16 => v.to_bits().to_le_bytes()[2..].to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(|v| of(*v)).collect()
}

fn write(path: &Path, tensors: &[(String, DType, Shape)]) {
    let layout = layout(tensors, &BTreeMap::new());
    let mut file = layout.head;
    for at in layout.order {
        let (name, dtype, shape) = &tensors[at];
        file.extend(bytes(&values(name, *shape), *dtype));
    }
    fs::write(path, file).unwrap();
}

/// Names, types and shapes of weights, as a fixture lists them.
fn described(list: &Value, dtype: DType) -> Vec<(String, DType, Shape)> {
    let shape = |dims: &Value| {
        let dims: Vec<usize> =
            dims.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        Shape::new(&dims).unwrap()
    };
    list.as_object().unwrap().iter().map(|(name, dims)| (name.clone(), dtype, shape(dims))).collect()
}

/// A file with the weights of a fixture's list.
#[allow(dead_code, reason = "one of the binaries that share this module writes no single files")]
pub fn write_all(path: &Path, list: &Value) {
    write(path, &described(list, DType::F32));
}

/// A folder with a model of the family.
pub fn model(family: &str, stored: Stored) -> tempfile::TempDir {
    let (from, to) = (folder(family), tempfile::tempdir().unwrap());
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let all = described(&json(from.join("weights.json")), stored.dtype);
    if stored.parts == 1 {
        write(&to.path().join("model.safetensors"), &all);
        return to;
    }
    let mut map = serde_json::Map::new();
    for (part, tensors) in all.chunks(all.len().div_ceil(stored.parts)).enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", part + 1, stored.parts);
        map.extend(tensors.iter().map(|(name, _, _)| (name.clone(), json!(file))));
        write(&to.path().join(file), tensors);
    }
    fs::write(to.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string())
        .unwrap();
    to
}
