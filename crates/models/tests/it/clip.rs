//! CLIP and SigLIP beside what transformers computes in double precision.

use crate::made::{crc32, json};
use aneforge::device;
use aneforge_formats::safetensors::layout;
use aneforge_models::vision::{Clip, Picture, VisionOptions};
use aneforge_tensor::{DType, Shape, random};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(format!("vision-{kind}"))
}

/// The elements of a weight: as `weights` of `tools/fixtures/vision.py` says.
fn values(name: &str, shape: Shape) -> Vec<f32> {
    if name == "logit_scale" {
        return vec![1.5];
    }
    let seed = u64::from(crc32(name.as_bytes()));
    let fan_in: usize = shape.dims().iter().skip(1).product();
    let value = |i: u64| match shape.rank() {
        0 | 1 => 0.1 * random::normal(seed, i) + f32::from(u8::from(name.ends_with("weight"))),
        _ if name.ends_with("weight") => random::normal(seed, i) * (1.0 / (fan_in as f64).sqrt()) as f32,
        _ => random::normal(seed, i),
    };
    (0..shape.count() as u64).map(value).collect()
}

fn model(kind: &str) -> tempfile::TempDir {
    let (from, to) = (fixture(kind), tempfile::tempdir().unwrap());
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(file), to.path().join(file)).unwrap();
    }
    let list = json(from.join("weights.json"));
    let dims = |dims: &Value| {
        dims.as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect::<Vec<_>>()
    };
    let described: Vec<(String, DType, Shape)> = list
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, extents)| (name.clone(), DType::F32, Shape::new(&dims(extents)).unwrap()))
        .collect();
    let layout = layout(&described, &BTreeMap::new());
    let mut file = layout.head;
    for at in layout.order {
        let (name, _, shape) = &described[at];
        values(name, *shape).iter().for_each(|v| file.extend(v.to_le_bytes()));
    }
    fs::write(to.path().join("model.safetensors"), file).unwrap();
    to
}

fn load(folder: &Path) -> Clip {
    let options = VisionOptions { device: Some(device::named("host").unwrap()), ..VisionOptions::default() };
    Clip::load(folder.to_str().unwrap(), options).unwrap()
}

/// A row of the fixture: `pictures`, `vectors` or `probabilities`.
fn expected(kind: &str, what: &str) -> Vec<Vec<f64>> {
    let record = json(fixture(kind).join("expected.json"));
    let row = record["rows"].as_array().unwrap().iter().find(|row| row.get(what).is_some()).unwrap();
    let numbers = |row: &Value| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    row[what].as_array().unwrap().iter().map(numbers).collect()
}

fn texts(kind: &str) -> Vec<String> {
    let record = json(fixture(kind).join("expected.json"));
    let rows = record["rows"][0]["texts"].as_array().unwrap().clone();
    rows.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * y).sum();
    let norms = a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() * b.iter().map(|y| y * y).sum::<f64>();
    dot / norms.sqrt()
}

#[test]
fn texts_have_the_vectors_of_transformers() {
    for kind in ["clip", "siglip"] {
        let folder = model(kind);
        let mut clip = load(folder.path());
        let (texts, want) = (texts(kind), expected(kind, "vectors"));
        let got = clip.texts(&texts).unwrap();
        for ((got, want), text) in got.iter().zip(&want).zip(&texts) {
            assert!(cosine(got, want) > 0.9999, "{kind} `{text}`: {}", cosine(got, want));
            let length: f32 = got.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-5);
        }
        // Company changes nothing that one would see.
        let alone = clip.texts(&texts[1..2]).unwrap();
        assert!(alone[0].iter().zip(&got[1]).all(|(a, b)| (a - b).abs() < 2e-3), "{kind}");
        assert!(clip.texts::<&str>(&[]).unwrap().is_empty());
    }
}

#[test]
fn pictures_are_judged_as_transformers_does() {
    for kind in ["clip", "siglip"] {
        let folder = model(kind);
        let mut clip = load(folder.path());
        let want = expected(kind, "pictures");
        let count = want.len();
        let x: Vec<f32> = (0..count as u64 * 3 * 64 * 64).map(|i| random::normal(7, i)).collect();
        let got = clip.vision_mut().run_normalized(count, &x).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!(cosine(got, want) > 0.9999, "{kind}: {}", cosine(got, want));
        }
        let texts = texts(kind);
        let judged = clip.judged(&got, &texts).unwrap();
        for (judged, want) in judged.iter().zip(expected(kind, "probabilities")) {
            for class in judged {
                assert!(
                    (f64::from(class.probability) - want[class.index]).abs() < 2e-3,
                    "{kind} {class:?} {want:?}"
                );
                assert_eq!(class.label, texts[class.index]);
            }
            assert!(judged.is_sorted_by(|a, b| a.probability >= b.probability));
        }
        let picture = Picture::new(80, 70, (0..80 * 70 * 3).map(|i| (i * 7 % 251) as u8).collect()).unwrap();
        let classes = clip.classify(&[picture], &texts).unwrap();
        assert_eq!((classes.len(), classes[0].len()), (1, texts.len()));
    }
}

#[test]
fn texts_are_padded_with_the_token_of_the_tokenizer() {
    let folder = model("siglip");
    let vocabulary = json(folder.path().join("tokenizer.json"))["model"]["vocab"].clone();
    let named = |number: u64| {
        let mut all = vocabulary.as_object().unwrap().iter();
        all.find(|(_, id)| id.as_u64() == Some(number)).unwrap().0.clone()
    };
    let mut config = json(folder.path().join("config.json"));
    config["text_config"]["pad_token_id"] = 5.into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let (text, want) = (&texts("siglip")[..1], &expected("siglip", "vectors")[0]);
    let apart = load(folder.path()).texts(text).unwrap();
    assert!(cosine(&apart[0], want) < 0.999, "another token pads: {}", cosine(&apart[0], want));
    let tokenizer = serde_json::json!({ "pad_token": { "content": named(1) } });
    fs::write(folder.path().join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    assert!(cosine(&load(folder.path()).texts(text).unwrap()[0], want) > 0.9999);
    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    config["text_config"]["pad_token_id"] = 999.into();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let options = VisionOptions { device: Some(device::named("host").unwrap()), ..VisionOptions::default() };
    let error = Clip::load(folder.path().to_str().unwrap(), options).err().unwrap().to_string();
    assert!(error.contains("texts are padded with token 999, and it has"), "{error}");
}

#[test]
fn what_stands_for_a_picture_looks_where_it_does_in_transformers() {
    for kind in ["clip", "siglip"] {
        let folder = model(kind);
        let record = json(fixture(kind).join("looks.json"));
        let side = record["side"].as_u64().unwrap() as usize;
        let pixels = (0..(side * side * 3) as u64).map(|i| (random::uniform(9, i) * 256.0) as u8).collect();
        let picture = Picture::new(side, side, pixels).unwrap();
        let looks = load(folder.path()).vision_mut().looks(&picture).unwrap();
        let want: Vec<f64> = record["heads"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|head| head.as_array().unwrap())
            .map(|v| v.as_f64().unwrap())
            .collect();
        assert_eq!((looks.rows(), looks.columns()), (4, 4));
        assert_eq!(looks.values().len(), want.len());
        for (got, want) in looks.values().iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 1e-4 + 0.02 * want, "{kind}: {got} {want}");
        }
    }
}

#[test]
fn what_compares_nothing_is_an_error() {
    let folder = model("clip");
    let path = folder.path().to_str().unwrap().to_owned();
    let options =
        || VisionOptions { device: Some(device::named("host").unwrap()), ..VisionOptions::default() };
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = Clip::load(&path, options()).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny-bert");
    let error = Clip::load(other.to_str().unwrap(), options()).err().unwrap().to_string();
    assert!(error.contains("are those of no network that this version knows"), "{error}");
}
