//! Pipelines that cannot draw, and what is said of them.

use crate::drawn::{fixture, listed, normal, options, pipeline, write};
use crate::made::json;
use aneforge::Kind;
use aneforge_models::diffusion::{DiffusionError, Draw, Pipeline, Sampler, Schedule, Step, Steps};
use aneforge_tensor::DType;
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn load(folder: &Path) -> Result<Pipeline, DiffusionError> {
    Pipeline::load(folder, options())
}

/// Loads, and runs every network once.
fn through(folder: &Path) -> Result<(), DiffusionError> {
    let mut pipeline = load(folder)?;
    let draw = Draw { steps: 1, guidance: 1.0, ..Draw::new("a cat") };
    pipeline.draw(&draw, &mut |_, _| ControlFlow::Continue(())).map(drop)
}

/// The folder with another value for a key of a file; `null` takes the key out.
fn changed(name: &str, file: &str, key: &str, value: Value) -> tempfile::TempDir {
    let folder = pipeline(name);
    let path = folder.path().join(file);
    let mut config = json(path.clone());
    config[key] = value;
    if config[key].is_null() {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(path, config.to_string()).unwrap();
    folder
}

fn said(name: &str, file: &str, key: &str, value: Value) -> String {
    let folder = changed(name, file, key, value);
    let error = through(folder.path()).unwrap_err();
    assert!(error.kind() == Kind::File, "{error}");
    error.to_string()
}

#[test]
fn what_other_models_have_is_refused_by_name() {
    let unet = |key: &str, value: Value| said("sd1", "unet/config.json", key, value);
    let xl = unet("addition_embed_type", json!("text_time"));
    assert!(
        xl.contains("unet/config.json`: addition_embed_type is \"text_time\", and only null is supported"),
        "{xl}"
    );
    assert!(unet("time_cond_proj_dim", json!(256)).contains("time_cond_proj_dim is 256"));
    assert!(unet("class_embed_type", json!("timestep")).contains("class_embed_type"));
    assert!(unet("resnet_time_scale_shift", json!("scale_shift")).contains("only \"default\" is supported"));
    assert!(unet("in_channels", json!(9)).contains("in_channels is 9 and out_channels is not"));
    assert!(unet("mid_block_type", json!("UNetMidBlock2D")).contains("mid_block_type"));
    assert!(said("sd1", "vae/config.json", "latents_mean", json!([0.0])).contains("latents_mean"));
    assert!(
        said("sd1", "text_encoder/config.json", "hidden_act", json!("relu")).contains("quick_gelu, gelu")
    );
    let index = said("sd1", "model_index.json", "_class_name", json!("StableDiffusionXLPipeline"));
    assert!(index.contains("only \"StableDiffusionPipeline\" is supported"), "{index}");
    let other = said("sd1", "model_index.json", "unet", json!(["diffusers", "UNet2DModel"]));
    assert!(other.contains("unet is \"UNet2DModel\", and only UNet2DConditionModel"), "{other}");
    let scheduler = |key: &str, value: Value| said("sd2", "scheduler/scheduler_config.json", key, value);
    let unknown = scheduler("_class_name", json!("HeunDiscreteScheduler"));
    assert!(
        unknown.contains(
            "its sampler is \"HeunDiscreteScheduler\", which is not known; name one of ddim, euler, pndm"
        ),
        "{unknown}"
    );
    assert!(
        scheduler("use_karras_sigmas", json!(true)).contains("use_karras_sigmas is true, and only false")
    );
    assert!(scheduler("prediction_type", json!("flow")).contains("epsilon, v_prediction, sample are known"));
}

/// What graphs and their sizes follow from.
const KEYS: [(&str, &str); 22] = [
    ("unet/config.json", "block_out_channels"),
    ("unet/config.json", "layers_per_block"),
    ("unet/config.json", "attention_head_dim"),
    ("unet/config.json", "cross_attention_dim"),
    ("unet/config.json", "norm_num_groups"),
    ("unet/config.json", "down_block_types"),
    ("unet/config.json", "transformer_layers_per_block"),
    ("unet/config.json", "norm_eps"),
    ("unet/config.json", "sample_size"),
    ("vae/config.json", "block_out_channels"),
    ("vae/config.json", "layers_per_block"),
    ("vae/config.json", "up_block_types"),
    ("vae/config.json", "scaling_factor"),
    ("text_encoder/config.json", "hidden_size"),
    ("text_encoder/config.json", "num_hidden_layers"),
    ("text_encoder/config.json", "num_attention_heads"),
    ("text_encoder/config.json", "intermediate_size"),
    ("text_encoder/config.json", "max_position_embeddings"),
    ("text_encoder/config.json", "vocab_size"),
    ("scheduler/scheduler_config.json", "num_train_timesteps"),
    ("scheduler/scheduler_config.json", "beta_start"),
    ("scheduler/scheduler_config.json", "beta_schedule"),
];

#[test]
fn hostile_descriptions_are_errors() {
    let values = [
        json!(0),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([]),
        json!([0, 0]),
        json!({}),
        json!(true),
        json!(u64::MAX),
    ];
    let folder = pipeline("sd1");
    for (file, key) in KEYS {
        let path = folder.path().join(file);
        let config = json(path.clone());
        for value in &values {
            let mut config = config.clone();
            config[key] = value.clone();
            fs::write(&path, config.to_string()).unwrap();
            match through(folder.path()) {
                // Zero is a rate of noise, and the least that variances need.
                Ok(()) => assert!(
                    *value == json!(0) && ["norm_eps", "beta_start"].contains(&key),
                    "{file} {key} {value}"
                ),
                Err(error) => assert!(
                    error.to_string().contains(key) || error.to_string().contains("betas"),
                    "{key} {value}: {error}"
                ),
            }
        }
        for text in ["", "[]", "{", "\u{0}"] {
            fs::write(&path, text).unwrap();
            let error = through(folder.path()).unwrap_err().to_string();
            assert!(error.contains("is not valid JSON"), "{error}");
        }
        fs::write(&path, config.to_string()).unwrap();
    }
    through(folder.path()).unwrap();
}

#[test]
fn weights_that_do_not_belong_are_named() {
    let folder = pipeline("sd1");
    let (file, from) =
        (folder.path().join("unet/diffusion_pytorch_model.safetensors"), fixture("sd1").join("unet"));
    let all = listed(&from);
    let without = |key: &str| all.iter().filter(|(name, _)| name != key).cloned().collect::<Vec<_>>();
    let fails = |list: &[(String, Vec<usize>)]| {
        write(&file, list, "", DType::F32);
        through(folder.path()).unwrap_err().to_string()
    };
    let key = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight";
    let error = fails(&without(key));
    assert!(error.contains(&format!("lack `{key}`")) && error.contains("unet/config.json"), "{error}");
    let key = "conv_out.bias";
    let error = fails(&[without(key), vec![(key.into(), vec![5])]].concat());
    assert!(error.contains("`conv_out.bias`") && error.contains("has shape [5]"), "{error}");
    let error = fails(&[all.clone(), vec![("add_embedding.linear_1.weight".into(), vec![2, 2])]].concat());
    assert!(
        error.contains(
            "have `add_embedding.linear_1.weight`, which the network that unet/config.json describes has not"
        ),
        "{error}"
    );
    let narrow = changed("sd1", "unet/config.json", "cross_attention_dim", json!(24));
    let error = through(narrow.path()).unwrap_err().to_string();
    assert!(error.contains("states of 24 components") && error.contains("32 components"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = through(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("holds no weights, such as diffusion_pytorch_model.safetensors"),
        "{error}"
    );
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
}

#[test]
fn a_weight_beyond_half_precision_is_named() {
    let folder = pipeline("sd1");
    let file = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let table: Value = serde_json::from_slice(&bytes[8..head]).unwrap();
    let at = head + table["decoder.conv_out.bias"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at + 4..at + 8].copy_from_slice(&1e6f32.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let error = through(folder.path()).unwrap_err().to_string();
    assert!(
        error.starts_with("weight `decoder.conv_out.bias` in `")
            && error.contains("has 1000000 at element 1"),
        "{error}"
    );
}

#[test]
fn tokenizers_that_are_damaged_are_named() {
    let broken = |file: &str, text: Option<&str>| {
        let folder = pipeline("sd1");
        let path = folder.path().join("tokenizer").join(file);
        text.map_or_else(|| fs::remove_file(&path), |text| fs::write(&path, text)).unwrap();
        load(folder.path()).err().unwrap().to_string()
    };
    assert!(broken("vocab.json", None).contains("vocab.json"));
    assert!(broken("merges.txt", None).contains("merges.txt"));
    assert!(broken("vocab.json", Some("[1]")).contains("is not valid JSON"));
    assert!(broken("vocab.json", Some("{\"a\": 1}")).contains("lacks the token `<|startoftext|>`"));
    assert!(broken("merges.txt", Some("no such\n")).contains("is not a tokenizer that can be used"));
    let unknown = broken("tokenizer_config.json", Some("{\"pad_token\": \"<none>\"}"));
    assert!(unknown.contains("padded with `<none>`, which is no token"), "{unknown}");
}

#[test]
fn what_is_asked_for_is_looked_at_before_any_work() {
    let folder = pipeline("sd1");
    let mut pipeline = load(folder.path()).unwrap();
    let mut asked = |draw: Draw| {
        let error = pipeline.draw(&draw, &mut |_, _| panic!("work has begun")).unwrap_err();
        assert_eq!(error.kind(), Kind::Caller);
        error.to_string()
    };
    let draw = || Draw::new("a cat");
    assert!(asked(Draw { steps: 0, ..draw() }).contains("0 steps; there must be from 1 to 1000"));
    // The first time would be 1,000.
    assert!(asked(Draw { steps: 1000, ..draw() }).contains("begin at time 1000"));
    assert!(asked(Draw { guidance: f64::NAN, ..draw() }).contains("guidance is NaN"));
    assert!(asked(Draw { size: Some((4096, 4096)), ..draw() }).contains("multiples of 4 up to 2048"));
    assert!(asked(Draw { size: Some((0, 16)), ..draw() }).contains("0 by 16"));
    assert!(asked(Draw { eta: 2.0, sampler: Some(Sampler::Ddim), ..draw() }).contains("eta is 2"));
    let mut seen = 0;
    let stop = &mut |done: usize, _: usize| {
        seen = done;
        if done == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = pipeline.draw(&Draw { steps: 3, ..draw() }, stop).unwrap_err();
    assert!(matches!(error, DiffusionError::Stopped { done: 1, total: 4 }), "{error}");
    assert_eq!(seen, 1);

    let (latents, states) = (normal(1, 4 * 64), normal(2, 16 * 32));
    let step = |dims: [usize; 4]| Step { latents: &latents, dims, time: 1.0, states: &states };
    let mut run = |step: &Step<'_>| pipeline.unet.run(step).unwrap_err().to_string();
    assert!(run(&step([1, 4, 7, 8])).contains("H and W multiples of 2"));
    assert!(run(&step([1, 3, 8, 8])).contains("[N, 4, H, W]"));
    assert!(run(&step([1, 4, 8, 16])).contains("latents must have 512 values, [1, 4, 8, 16], got 256"));
    assert!(
        run(&Step { states: &states[..31], ..step([1, 4, 8, 8]) }).contains("states must have 32 values")
    );
    assert!(run(&Step { time: f64::INFINITY, ..step([1, 4, 8, 8]) }).contains("the time is inf"));
}

#[test]
fn pictures_that_are_too_large_are_errors_when_they_are_compiled() {
    let folder = pipeline("sd1");
    let mut pipeline = load(folder.path()).unwrap();
    // Attention has more parts than it may, and images more pixels than a tensor.
    let error = pipeline.unet.program([1, 4096, 4096, 16], false).err().unwrap();
    assert!(
        error.kind() == Kind::Caller
            && error.to_string().starts_with("attention: parts must be from 1 to 4096"),
        "{error}"
    );
    let error = pipeline.vae.program([1, 4096, 4096]).err().unwrap();
    assert!(error.kind() == Kind::Caller && error.to_string().starts_with("attention: parts"), "{error}");
}

#[test]
fn pndm_needs_four_steps_of_runge_and_kutta() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, json!({ "_class_name": "PNDMScheduler", "skip_prk_steps": false }).to_string()).unwrap();
    let schedule = Schedule::read(file.path(), None).unwrap();
    let error = Steps::new(&schedule, Sampler::Pndm, 3, 0.0).unwrap_err().to_string();
    assert!(error.contains("3 steps, and PNDM begins with 4 of Runge and Kutta"), "{error}");
}
