//! Sentence encoders against embeddings computed by `tools/fixtures`, and against broken files.

use aneforge::device::host::Host;
use aneforge::{Device, Numerics};
use aneforge_models::{EncodeOptions, Encoder, EncoderOptions, Pooling};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models")
}

fn tiny() -> PathBuf {
    models().join("tiny-bert")
}

fn options() -> EncoderOptions {
    EncoderOptions { device: Some(Arc::new(Host::new(2))), ..EncoderOptions::default() }
}

fn load(directory: &Path, options: EncoderOptions) -> Encoder {
    Encoder::load(directory.to_str().unwrap(), options).unwrap()
}

/// Texts and expected vectors of a fixture, pooled in this way.
fn expected(file: &Path, pooling: &str) -> (Vec<String>, Vec<Vec<f32>>) {
    let record: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let rows = record["texts"].as_array().unwrap().iter();
    let vector = |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
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
fn every_pooling_agrees_with_the_reference() {
    for (pooling, name) in [(Pooling::Mean, "mean"), (Pooling::Cls, "cls"), (Pooling::Max, "max")] {
        for host in [Host::new(2), Host::new(2).with_numerics(Numerics::Ieee)] {
            let (texts, want) = expected(&tiny().join("expected.json"), name);
            let device: Option<Arc<dyn Device>> = Some(Arc::new(host));
            let mut encoder = load(&tiny(), EncoderOptions { pooling: Some(pooling), device, ..options() });
            let least = least_cosine(&encoder.encode(&texts).unwrap(), &want);
            assert!(least >= 0.9999, "{name}: {least}");
        }
    }
}

#[test]
fn the_models_own_files_decide_what_is_not_given() {
    let encoder = load(&tiny(), options());
    assert_eq!((encoder.dim(), encoder.max_seq_length(), encoder.pooling()), (32, 40, Pooling::Mean));
    assert!(encoder.normalizes());
    assert!(
        format!("{encoder:?}").ends_with("32 components, mean of up to 40 tokens, target h17s, device host)")
    );
    let shorter = load(&tiny(), EncoderOptions { max_seq_length: Some(9), ..options() });
    assert_eq!(shorter.max_seq_length(), 9);
    let longer = load(&tiny(), EncoderOptions { max_seq_length: Some(1000), ..options() });
    assert_eq!(longer.max_seq_length(), 48);
}

#[test]
fn vectors_have_unit_length_unless_asked_otherwise() {
    let mut encoder = load(&tiny(), options());
    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let unit = encoder.encode(&["the cat", ""]).unwrap();
    assert!(unit.iter().all(|v| (length(v) - 1.0).abs() < 1e-6));
    let raw = encoder.encode_with(
        &["the cat"],
        EncodeOptions { normalize: false, ..EncodeOptions::default() },
        &mut |_, _| ControlFlow::Continue(()),
    );
    let raw = raw.unwrap();
    assert!((length(&raw[0]) - 1.0).abs() > 1e-3 && cosine(&raw[0], &unit[0]) > 0.999_999);
    assert_eq!(encoder.encode::<&str>(&[]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn results_do_not_depend_on_company_or_order() {
    let (texts, _) = expected(&tiny().join("expected.json"), "mean");
    let mut encoder = load(&tiny(), EncoderOptions { programs: Some(1), ..options() });
    let together = encoder.encode(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert_eq!(&encoder.encode(&[text]).unwrap()[0], vector, "{text}");
    }
}

#[test]
fn encoding_reports_and_stops() {
    let mut encoder = load(&tiny(), options());
    let mut seen = Vec::new();
    // The long text is a batch of its own, and the first one; so are the short ones together.
    let texts = ["cat", "the dog ran over the old house and the bird flew", "bird", "star"];
    let stopped = encoder.encode_with(&texts, EncodeOptions::default(), &mut |done, total| {
        seen.push((done, total));
        if done == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap_err().to_string(), "stopped after 1 of 4 texts");
    assert_eq!(seen, [(0, 4), (1, 4)]);
    seen.clear();
    let all = encoder.encode_with(&texts, EncodeOptions::default(), &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!((all.unwrap().len(), seen), (4, vec![(0, 4), (1, 4), (4, 4)]));
}

/// A copy of the tiny model to break.
struct Broken(tempfile::TempDir);

impl Broken {
    fn new() -> Broken {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        let files = ["config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json"];
        for file in files.into_iter().chain(["model.safetensors", "1_Pooling/config.json"]) {
            std::fs::copy(tiny().join(file), dir.path().join(file)).unwrap();
        }
        Broken(dir)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(self, file: &str, contents: impl AsRef<[u8]>) -> Broken {
        std::fs::write(self.path(file), contents).unwrap();
        self
    }

    fn without(self, file: &str) -> Broken {
        std::fs::remove_file(self.path(file)).unwrap();
        self
    }

    /// Replaces text in a file, keeping its length where it is binary.
    fn edit(self, file: &str, from: &str, to: &str) -> Broken {
        let bytes = std::fs::read(self.path(file)).unwrap();
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let edited = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
        self.write(file, edited)
    }

    fn load(&self) -> Result<Encoder, String> {
        Encoder::load(self.0.path().to_str().unwrap(), options()).map_err(|e| e.to_string())
    }

    /// The error of loading, with the directory's name left out.
    fn refusal(&self) -> String {
        self.load().unwrap_err().replace(self.0.path().to_str().unwrap(), "DIR")
    }
}

#[test]
fn absent_files_are_named_with_the_remedy() {
    let without = |file| Broken::new().without(file).refusal();
    assert_eq!(
        without("config.json"),
        "`DIR/config.json` does not exist; check the path, or download the file again"
    );
    assert_eq!(
        without("tokenizer.json"),
        "`DIR/tokenizer.json` does not exist; save the tokenizer there with \
         `AutoTokenizer.from_pretrained(...).save_pretrained(...)`, which writes it"
    );
    assert_eq!(
        without("model.safetensors"),
        "`DIR` holds neither model.safetensors nor model.safetensors.index.json, and no pytorch_model.bin; save the model with \
         `save_pretrained(..., safe_serialization=True)`"
    );
    let nowhere = Encoder::load("/no/such/model", options()).unwrap_err().to_string();
    assert_eq!(
        nowhere,
        "there is no directory `/no/such/model`; check the path, or pass a hub id such as `organisation/model`"
    );
}

#[test]
fn a_plain_transformer_directory_needs_no_further_files() {
    let plain = Broken::new()
        .without("modules.json")
        .without("sentence_bert_config.json")
        .without("1_Pooling/config.json");
    let encoder = plain.load().unwrap();
    // The tokenizer file truncates to 8.
    assert_eq!((encoder.max_seq_length(), encoder.pooling()), (8, Pooling::Mean));
    assert!(!encoder.normalizes());
}

#[test]
fn truncated_weights_are_named_with_the_remedy() {
    let whole = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let cut = |n: usize| Broken::new().write("model.safetensors", &whole[..n]).refusal();
    assert_eq!(
        cut(0),
        "`DIR/model.safetensors` has 0 bytes, too few for a safetensors file; download it again"
    );
    assert!(cut(100).starts_with("`DIR/model.safetensors` says its header takes "));
    assert!(cut(100).ends_with("it is cut off or no safetensors file, download it again"));
    let message = cut(whole.len() - 1);
    assert!(
        message.starts_with("tensor `") && message.contains("` of `DIR/model.safetensors` lies at bytes")
    );
    assert!(message.ends_with("the file is cut off or damaged, download it again"), "{message}");
}

#[test]
fn configurations_that_cannot_be_built_say_why() {
    let config = |from: &str, to: &str| Broken::new().edit("config.json", from, to).refusal();
    assert_eq!(
        config("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
        "`DIR/config.json`: hidden_size 32 does not divide into 5 attention heads"
    );
    assert_eq!(
        config("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"),
        "`DIR/config.json`: num_attention_heads is 0; it must be at least 1"
    );
    for huge in ["4611686018427387904", "9223372036854775807", "9223372036854775808", "1048577"] {
        let said = config("\"intermediate_size\": 64", &format!("\"intermediate_size\": {huge}"));
        assert!(
            said.contains(&format!("`DIR/config.json`: intermediate_size is {huge}; more than 1048576")),
            "{said}"
        );
    }
    assert_eq!(
        config("\"bert\"", "\"vits\""),
        "`DIR/config.json`: model type `vits` is not supported; encoders are of the types bert, roberta, xlm-roberta, \
         camembert, distilbert, mpnet, modernbert, nomic_bert, gte, new"
    );
    assert!(config("\"gelu\"", "\"mish\"").contains("hidden_act `mish` is not supported; gelu, gelu_new"));
    assert!(
        config("\"hidden_size\"", "\"hidden_sighs\"").contains("is not valid: missing field `hidden_size`")
    );
    assert!(config("32", "-32").contains("`DIR/config.json` is not valid: invalid value: integer `-32`"));
    let modules = |from: &str, to: &str| Broken::new().edit("modules.json", from, to).refusal();
    assert!(
        modules("models.Normalize", "models.Dense")
            .contains("of type `sentence_transformers.models.Dense` is not supported")
    );
    assert!(
        modules("1_Pooling", "../x").contains("module path `../x` leaves the directory; do not trust it")
    );
    let pooling = Broken::new().edit("1_Pooling/config.json", "mean_tokens", "lasttoken");
    assert!(pooling.refusal().contains("asks for lasttoken pooling, which is not supported; pass `pooling`"));
    let short = Broken::new().edit("sentence_bert_config.json", "40", "2");
    assert_eq!(
        short.refusal(),
        "max_seq_length 2 leaves no room, as the tokenizer adds 2 tokens to each text; raise it"
    );
}

#[test]
fn a_broken_tokenizer_is_an_error() {
    let message = Broken::new().write("tokenizer.json", "{}").refusal();
    assert!(message.starts_with("`DIR/tokenizer.json` is not a tokenizer that can be used: "), "{message}");
    let foreign = Broken::new().edit("tokenizer.json", "\"cat\":11", "\"cat\":900");
    let error = foreign.load().unwrap().encode(&["the cat"]).unwrap_err().to_string();
    let want = "text 0 has token 900, the model has ";
    assert!(error.starts_with(want) && error.ends_with("tokenizer.json belongs to another model"), "{error}");
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named() {
    let key = "encoder.layer.1.output.dense.weight";
    let renamed = Broken::new().edit("model.safetensors", key, &key.replace("dense", "tense")).refusal();
    assert_eq!(
        renamed,
        "the weights in `DIR` lack `encoder.layer.1.output.dense.weight`; they are not those of the model that \
         config.json describes"
    );
    let shape = Broken::new().edit("config.json", "\"intermediate_size\": 64", "\"intermediate_size\": 65");
    assert_eq!(
        shape.refusal(),
        "weight `encoder.layer.0.intermediate.dense.weight` in `DIR` has shape [64, 32], config.json asks for \
         [65, 32]; the two belong to different models"
    );
    let deeper = Broken::new().edit("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert!(deeper.refusal().contains("lack `encoder.layer.2.attention.self.query.weight`"));
}

/// The tiny model's weights, some of them changed, under other names.
fn rewritten(rename: impl Fn(&str) -> String, change: impl Fn(&str, &mut [u8])) -> Broken {
    let bytes = std::fs::read(tiny().join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    let mut renamed = serde_json::Map::new();
    for (name, about) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let at = |i: usize| about["data_offsets"][i].as_u64().unwrap() as usize;
        change(&name, &mut data[at(0)..at(1)]);
        renamed.insert(rename(&name), about);
    }
    let header = serde_json::to_vec(&renamed).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    Broken::new().write("model.safetensors", file)
}

#[test]
fn prefixes_and_older_names_are_understood() {
    let (texts, want) = expected(&tiny().join("expected.json"), "mean");
    let older = |name: &str| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    for prefix in ["bert.", "0.auto_model."] {
        let model = rewritten(|name| older(&format!("{prefix}{name}")), |_, _| {});
        let got = model.load().unwrap().encode(&texts).unwrap();
        assert!(least_cosine(&got, &want) >= 0.9999);
    }
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    for (bad, shown) in [(f32::NAN, "NaN"), (1e6, "1000000.0")] {
        for key in ["encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"] {
            if key.starts_with("embeddings") && bad.is_finite() {
                continue;
            }
            let model = rewritten(str::to_owned, |name, bytes| {
                if name == key {
                    bytes[20..24].copy_from_slice(&bad.to_le_bytes());
                }
            });
            let error = model.load().unwrap().encode(&["the cat"]).unwrap_err().to_string();
            let error = error.replace(model.0.path().to_str().unwrap(), "DIR");
            assert_eq!(
                error,
                format!(
                    "weight `{key}` in `DIR` has {shown} at element 5, which half precision cannot hold; fix or \
                     rescale the weights"
                )
            );
        }
    }
}

#[test]
fn texts_are_cut_as_the_nearest_file_says() {
    let length = |broken: Broken| broken.load().unwrap().max_seq_length();
    let config = "tokenizer_config.json";
    let limit = |n: &str| format!(r#"{{"model_max_length": {n}}}"#);
    let plain = || Broken::new().without("sentence_bert_config.json");
    assert_eq!(
        length(Broken::new().write(config, limit("24"))),
        40,
        "the sentence configuration comes first"
    );
    assert_eq!(length(plain().write(config, limit("24"))), 24);
    assert_eq!(length(plain().write(config, limit("1000000000000000019884624838656"))), 48);
    assert_eq!(length(plain().write(config, "{}")), 8, "what the tokenizer file says");
    assert_eq!(length(plain().write(config, limit("null"))), 8);
    assert_eq!(length(Broken::new().write("sentence_bert_config.json", "{}").write(config, limit("24"))), 24);
}

#[test]
fn pooling_follows_the_models_files_unless_given() {
    let cls = || Broken::new().write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
    assert_eq!(cls().load().unwrap().pooling(), Pooling::Cls);
    let directory = cls();
    let given = load(directory.0.path(), EncoderOptions { pooling: Some(Pooling::Max), ..options() });
    assert_eq!(given.pooling(), Pooling::Max);
}

#[test]
fn files_that_ask_for_nothing_are_named() {
    let sentence = "sentence_bert_config.json";
    let zero = Broken::new().write(sentence, r#"{"max_seq_length": 0}"#);
    assert_eq!(zero.refusal(), "`DIR/sentence_bert_config.json`: max_seq_length is 0; it must be at least 1");
    let given = load(zero.0.path(), EncoderOptions { max_seq_length: Some(20), ..options() });
    assert_eq!(given.max_seq_length(), 20);
    let none = Broken::new().without(sentence).write("tokenizer_config.json", r#"{"model_max_length": 0}"#);
    assert_eq!(none.refusal(), "`DIR/tokenizer_config.json`: model_max_length is 0; it must be at least 1");
    let pooling = Broken::new().write("1_Pooling/config.json", r#"{"pooling_mode_mean_tokens": false}"#);
    assert_eq!(
        pooling.refusal(),
        "`DIR/1_Pooling/config.json` asks for no pooling at all, which is not supported; pass `pooling` as one of mean, \
         cls, max to override it"
    );
}

/// The tokenizer library panics on such a template, with the first text.
#[test]
fn a_template_with_an_unknown_token_is_an_error() {
    let broken = Broken::new();
    let mut tokenizer: Value =
        serde_json::from_slice(&std::fs::read(broken.path("tokenizer.json")).unwrap()).unwrap();
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NOWHERE]".into();
    let refused = broken.write("tokenizer.json", tokenizer.to_string()).refusal();
    let why = "its template names the token `[NOWHERE]`, which it does not define; download it again";
    assert_eq!(refused, format!("`DIR/tokenizer.json` is not a tokenizer that can be used: {why}"));
}

#[test]
fn pipes_in_the_place_of_files_are_not_waited_for() {
    let files = ["config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json"];
    for file in
        files.into_iter().chain(["model.safetensors", "1_Pooling/config.json", "tokenizer_config.json"])
    {
        let broken = Broken::new();
        let _ = std::fs::remove_file(broken.path(file));
        assert!(std::process::Command::new("mkfifo").arg(broken.path(file)).status().unwrap().success());
        let refused = broken.refusal();
        assert!(refused.contains(&format!("`DIR/{file}` is a pipe, a device or a socket")), "{refused}");
    }
}
