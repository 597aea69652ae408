//! Encoders of every family beside what transformers computes in double precision.

use crate::made::{Stored, WHOLE, folder, json, model};
use aneforge::device::host::Host;
use aneforge_models::encoder::Long;
use aneforge_models::{EncodeOptions, Encoder, EncoderOptions, Pooling};
use aneforge_tensor::DType;
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The fixtures of `tools/fixtures/encoders.py`.
pub const FAMILIES: [&str; 7] = [
    "tiny-bert",
    "tiny-roberta",
    "tiny-distilbert",
    "tiny-mpnet",
    "tiny-modernbert",
    "tiny-nomic-bert",
    "tiny-gte",
];

fn options() -> EncoderOptions {
    EncoderOptions { device: Some(Arc::new(Host::new(2))), ..EncoderOptions::default() }
}

fn load(path: &Path, options: EncoderOptions) -> Encoder {
    Encoder::load(path.to_str().unwrap(), options).unwrap()
}

fn vector(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The texts of a fixture, and what pooling their states gives.
fn expected(family: &str, pooling: &str) -> (Vec<String>, Vec<Vec<f32>>) {
    let record = json(folder(family).join("expected.json"));
    let rows = record["texts"].as_array().unwrap().iter();
    rows.map(|row| (row["text"].as_str().unwrap().to_owned(), vector(&row[pooling]))).unzip()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn least_cosine(got: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| cosine(g, w)).fold(1.0, f64::min)
}

#[test]
fn every_family_agrees_with_the_reference() {
    for family in FAMILIES {
        let folder = model(family, WHOLE);
        for (pooling, name) in [(Pooling::Mean, "mean"), (Pooling::Cls, "cls")] {
            let (texts, want) = expected(family, name);
            let mut encoder = load(folder.path(), EncoderOptions { pooling: Some(pooling), ..options() });
            assert_eq!(encoder.max_seq_length(), 96, "what the tokenizer file says");
            let least = least_cosine(&encoder.encode(&texts).unwrap(), &want);
            assert!(least >= 0.9999, "{family} {name}: {least}");
        }
    }
}

#[test]
fn weights_in_parts_and_in_fewer_bytes_are_read() {
    for (dtype, least) in [(DType::F16, 0.9999), (DType::Bf16, 0.999)] {
        for family in ["tiny-roberta", "tiny-modernbert"] {
            let folder = model(family, Stored { dtype, parts: 3 });
            assert!(!folder.path().join("model.safetensors").exists());
            let (texts, want) = expected(family, "mean");
            let got = load(folder.path(), options()).encode(&texts).unwrap();
            let cosine = least_cosine(&got, &want);
            assert!(cosine >= least, "{family} {dtype}: {cosine}");
        }
    }
}

#[test]
fn company_and_order_change_no_bit() {
    for family in FAMILIES {
        let folder = model(family, WHOLE);
        let (mut texts, _) = expected(family, "mean");
        // Enough short texts for a batch, and some beside it.
        texts.extend((0..41).map(|i| ["one", "two dogs", "three red birds sat"][i % 3].to_owned()));
        let mut encoder = load(folder.path(), EncoderOptions { programs: Some(2), ..options() });
        assert!(encoder.batches(&texts).unwrap().batches.iter().any(|batch| batch.size == 32));
        let together = encoder.encode(&texts).unwrap();
        texts.truncate(9);
        for (text, vector) in texts.iter().zip(&together) {
            assert_eq!(&encoder.encode(&[text]).unwrap()[0], vector, "{family}: {text}");
        }
    }
}

#[test]
fn long_texts_are_cut_or_read_in_windows() {
    let folder = model("tiny-bert", WHOLE);
    let words: Vec<String> = (0..170).map(|i| ["cat", "dog", "bird", "sun"][i * i % 4].to_owned()).collect();
    let long = words.join(" ");
    let mut encoder = load(folder.path(), EncoderOptions { max_seq_length: Some(52), ..options() });
    // 50 words in each window but the last, which has 20; each has two special tokens beside them.
    let windows: Vec<String> = words.chunks(50).map(|words| words.join(" ")).collect();
    let mut encode = |texts: &[String], long| {
        let options = EncodeOptions { normalize: false, long };
        encoder.encode_with(texts, options, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let parts = encode(&windows, Long::Cut);
    let whole = encode(&[long.clone(), windows[1].clone()], Long::Windows);
    for (at, got) in whole[0].iter().enumerate() {
        let weighted = parts.iter().zip([52.0, 52.0, 52.0, 22.0]).map(|(part, n)| f64::from(part[at]) * n);
        let mean = weighted.sum::<f64>() / 178.0;
        assert!((f64::from(*got) - mean).abs() < 1e-6, "{got} {mean}");
    }
    assert_eq!(whole[1], parts[1]);
    assert_eq!(encode(&[long], Long::Cut)[0], parts[0]);
}

#[test]
fn long_texts_are_not_read_to_their_end() {
    let folder = model("tiny-roberta", WHOLE);
    let mut encoder = load(folder.path(), options());
    let beginning = "two red birds flew over the house ".repeat(40);
    let huge = beginning.repeat(10_000);
    assert!(huge.len() > 10_000_000);
    // One word without an end has to be read as a whole.
    let word = "x".repeat(300_000);
    // What follows a long word is read too.
    let after = format!("{word} two red birds");
    let vectors = encoder.encode(&[&beginning, &huge, &word, &after]).unwrap();
    assert_eq!(vectors[0], vectors[1]);
    assert_eq!(vectors[2], encoder.encode(&["日"]).unwrap()[0], "a word that is too long is unknown");
    assert_eq!(vectors[3], encoder.encode(&["日 two red birds"]).unwrap()[0]);
}

/// A family with a change of its configuration.
fn refusal(family: &str, key: &str, value: Value) -> String {
    let folder = model(family, WHOLE);
    let path = folder.path().join("config.json");
    let mut config = json(path.clone());
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
    let error = Encoder::load(folder.path().to_str().unwrap(), options()).unwrap_err().to_string();
    error.replace(folder.path().to_str().unwrap(), "DIR")
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let refused = |family: &str, key: &str, value: Value, said: &str| {
        let error = refusal(family, key, value);
        assert!(error.starts_with("`DIR/config.json`: ") && error.contains(said), "{error}");
    };
    let known = "model type `t5` is not supported; encoders are of the types bert, roberta, xlm-roberta, camembert, \
                 distilbert, mpnet, modernbert, nomic_bert, gte, new";
    refused("tiny-bert", "model_type", "t5".into(), known);
    refused("tiny-bert", "is_decoder", true.into(), "is_decoder is true, which is not supported");
    refused("tiny-bert", "position_embedding_type", "relative_key".into(), "only `absolute` is");
    refused(
        "tiny-nomic-bert",
        "moe_every_n_layers",
        2.into(),
        "moe_every_n_layers is 2, which is not supported",
    );
    refused(
        "tiny-nomic-bert",
        "rotary_emb_fraction",
        0.5.into(),
        "only a part of each head has rotary positions",
    );
    let scaled = serde_json::json!({ "rope_type": "yarn", "factor": 2.0 });
    refused("tiny-gte", "rope_parameters", scaled, "its rotary positions are scaled");
    let scaled = serde_json::json!({ "type": "ntk", "factor": 2.0 });
    refused("tiny-gte", "rope_scaling", scaled, "its rotary positions are scaled");
    let flat = serde_json::json!({ "rope_theta": 0.0 });
    refused("tiny-gte", "rope_parameters", flat, "rope_theta 0 is not above 1");
    let types = serde_json::json!(["full_attention"]);
    refused("tiny-modernbert", "layer_types", types, "layer_types has 1 entries for 4 layers");
    let types = serde_json::json!(["full_attention", "linear", "full_attention", "full_attention"]);
    refused("tiny-modernbert", "layer_types", types, "layer type `linear` is not supported");
    refused("tiny-roberta", "max_position_embeddings", 2.into(), "leaves no place after pad_token_id 1");
    refused("tiny-roberta", "pad_token_id", 4294967295u32.into(), "leaves no place after pad_token_id");
    refused("tiny-mpnet", "relative_attention_num_buckets", 30.into(), "is no multiple of 4");
    let shape = refusal("tiny-mpnet", "relative_attention_num_buckets", 16.into());
    assert!(shape.contains(
        "relative_attention_bias.weight` in `DIR` has shape [32, 4], config.json asks for [16, 4]"
    ));
}

#[test]
fn older_names_of_sizes_are_the_same() {
    let folder = model("tiny-nomic-bert", WHOLE);
    let (texts, want) = expected("tiny-nomic-bert", "mean");
    let path = folder.path().join("config.json");
    let older = serde_json::json!({
        "model_type": "nomic_bert", "n_embd": 32, "n_head": 4, "n_layer": 3, "n_inner": 48, "n_positions": 8192,
        "max_trained_positions": 80, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu", "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false,
        "prenorm": false, "type_vocab_size": 2, "rotary_scaling_factor": null,
    });
    fs::write(path, older.to_string()).unwrap();
    let mut encoder = load(folder.path(), options());
    assert_eq!(encoder.max_seq_length(), 80, "positions that were not trained are not used");
    let got = encoder.encode(&texts[..6]).unwrap();
    assert!(least_cosine(&got, &want[..6]) >= 0.9999);
}
