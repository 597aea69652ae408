//! Drawing beside what diffusers computes in double precision.

use crate::drawn::{apart, fixture, listed, normal, numbers, options, pipeline, write};
use crate::made::json;
use aneforge_models::diffusion::{Draw, Pipeline, Sampler, Schedule, Step, Steps};
use aneforge_tensor::DType;
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;

const NAMES: [&str; 2] = ["sd1", "sd2"];
const DIMS: [usize; 4] = [2, 4, 8, 8];

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn loaded(name: &str) -> (tempfile::TempDir, Pipeline, Value) {
    let folder = pipeline(name);
    let pipeline = Pipeline::load(folder.path(), options()).unwrap();
    (folder, pipeline, json(fixture(name).join("expected.json")))
}

#[test]
fn texts_become_the_tokens_and_states_of_transformers() {
    for name in NAMES {
        let (_folder, mut pipeline, want) = loaded(name);
        let texts: Vec<&str> =
            want["texts"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let tokens = pipeline.text.tokens(&texts).unwrap();
        for ((got, want), text) in tokens.iter().zip(want["tokens"].as_array().unwrap()).zip(&texts) {
            let want: Vec<u32> = numbers(want).into_iter().map(|v| v as u32).collect();
            assert_eq!(*got, want, "{name} `{text}`");
        }
        // 1.4e-3 and 1.3e-3.
        let error = apart(pipeline.text.run(&texts).unwrap(), &numbers(&want["states"]));
        assert!(error < 2e-3, "{name}: {error}");
    }
}

/// About a hundred values are rounded one after the other, each by 2.8e-4 of it on average.
#[test]
fn noise_and_pictures_are_those_of_diffusers() {
    for name in NAMES {
        let (_folder, mut pipeline, want) = loaded(name);
        let (latents, states) = (normal(11, 2 * 4 * 64), normal(12, 2 * 16 * 32));
        for (time, want) in [601.0, 17.25].into_iter().zip(want["noise"].as_array().unwrap()) {
            let step = Step { latents: &latents, dims: DIMS, time, states: &states };
            // 2.4e-3 to 3.1e-3.
            let error = apart(pipeline.unet.run(&step).unwrap(), &numbers(want));
            assert!(error < 4e-3, "{name} at {time}: {error}");
        }
        let scaled: Vec<f32> = normal(13, 4 * 64).iter().map(|v| v * 0.2).collect();
        let made = pipeline.vae.run(&scaled, [1, 4, 8, 8]).unwrap();
        // 1.8e-3 and 1.7e-3.
        let error = apart(made, &numbers(&want["picture"]));
        assert!(error < 2.5e-3, "{name}: {error}");
    }
}

/// States of two texts; where they are near, as of real texts, the second changes the noise by less than a hundredth.
fn states(near: bool) -> Vec<f32> {
    let mut states = normal(12, 2 * 16 * 32);
    if near {
        let (first, second) = states.split_at_mut(16 * 32);
        let changed: Vec<f32> =
            first.iter().zip(normal(14, 16 * 32)).map(|(v, noise)| v + 0.01 * noise).collect();
        second.copy_from_slice(&changed);
    }
    states
}

#[test]
fn what_a_text_changes_is_as_near_as_both_forwards_leave_it() {
    for (name, kind) in NAMES.into_iter().flat_map(|name| [(name, "guided"), (name, "near")]) {
        let (_folder, mut pipeline, want) = loaded(name);
        let (latents, states) = (normal(11, 4 * 64), states(kind == "near"));
        let [plain, change] = [0, 1].map(|at| numbers(&want[kind][at]));
        let one = Step { latents: &latents, dims: [1, 4, 8, 8], time: 601.0, states: &states };
        let guided = pipeline.unet.guide(&one).unwrap();
        let twice = [&latents[..], &latents].concat();
        let made = pipeline.unet.run(&Step { latents: &twice, dims: DIMS, ..one }).unwrap();
        let (first, second) = made.split_at(made.len() / 2);
        let rounded: Vec<f32> = first.iter().zip(second).map(|(a, b)| b - a).collect();
        let paired = apart(guided.change.clone(), &change);
        let rounded = apart(rounded, &change);
        // What both forwards have rounded before the last layer remains, which is nearly all of it.
        // The end itself is tested in `guidance.rs`.
        let most = if kind == "near" { 0.4 } else { 6e-3 };
        assert!(paired < 1.02 * rounded && paired < most, "{name} {kind}: {paired} {rounded}");
        assert!(apart(guided.plain.clone(), &plain) < 4e-3, "{name} {kind}");
        let by = guided.by(3.0);
        assert!((by[5] - (guided.plain[5] + 3.0 * guided.change[5])).abs() < 1e-12);
    }
}

#[test]
fn drawings_are_those_of_diffusers() {
    for name in NAMES {
        let (_folder, mut pipeline, want) = loaded(name);
        for row in want["drawn"].as_array().unwrap() {
            let draw = Draw {
                negative: "blurry".into(),
                steps: row["steps"].as_u64().unwrap() as usize,
                guidance: row["guidance"].as_f64().unwrap(),
                seed: row["seed"].as_u64().unwrap(),
                sampler: Sampler::named(row["sampler"].as_str().unwrap()),
                eta: row["eta"].as_f64().unwrap(),
                ..Draw::new("a photo of a cat")
            };
            let drawn = pipeline.draw(&draw, &mut go_on).unwrap();
            let error = apart(drawn.latents, &numbers(&row["latents"]));
            // DDIM's first steps divide by what is left of the picture: up to 2.3e-2, and 7.6e-3 of the others.
            let most = if drawn.sampler == Sampler::Ddim { 3e-2 } else { 1e-2 };
            assert!(error < most, "{name} {draw:?}: {error}");
            if Some(row) == want["drawn"].as_array().unwrap().last() {
                let bytes = numbers(&want["bytes"]);
                let far = drawn
                    .picture
                    .rgb()
                    .iter()
                    .zip(&bytes)
                    .map(|(g, w)| (f64::from(*g) - w).abs())
                    .sum::<f64>();
                assert_eq!((drawn.picture.width(), drawn.picture.height(), bytes.len()), (16, 16, 768));
                assert!(far / 768.0 < 1.0, "{name}: {far}");
            }
        }
    }
}

#[test]
fn steps_are_those_of_diffusers() {
    for row in json(fixture("schedulers").join("expected.json")).as_array().unwrap() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, row["config"].to_string()).unwrap();
        let schedule = Schedule::read(file.path(), None).unwrap();
        let (steps, eta) = (row["steps"].as_u64().unwrap() as usize, row["eta"].as_f64().unwrap());
        assert_eq!(schedule.sampler.name(), row["sampler"].as_str().unwrap());
        let mut steps = Steps::new(&schedule, schedule.sampler, steps, eta).unwrap();
        let times = numbers(&row["times"]);
        assert_eq!(steps.times().len(), times.len(), "{row}");
        assert!(
            steps.times().iter().zip(&times).all(|(g, w)| (g - w).abs() < 1e-3),
            "{:?} {row}",
            steps.times()
        );
        let scale = row["scale"].as_f64().unwrap();
        assert!((steps.initial_scale() / scale - 1.0).abs() < 1e-5, "{} {scale}", steps.initial_scale());
        let mut x: Vec<f64> = normal(100, 16).into_iter().map(|v| f64::from(v) * scale).collect();
        for (at, want) in row["latents"].as_array().unwrap().iter().enumerate() {
            let error = apart(steps.input(at, &x)[..2].to_vec(), &numbers(&row["inputs"][at]));
            assert!(error < 1e-4, "{error} of what is given at {at}: {row}");
            let doubled =
                |seed: u64, n: usize| normal(seed, n).into_iter().map(f64::from).collect::<Vec<f64>>();
            x = steps.step(at, &doubled(200 + at as u64, 16), &x, &mut |n| doubled(300 + at as u64, n));
            let error = apart(x.clone(), &numbers(want));
            assert!(error < 1e-4, "{error} behind step {at}: {row}");
        }
    }
}

/// Eight pictures have more pixels than an axis may be long, so that the rows of each are kept apart.
#[test]
fn many_pictures_are_what_each_is_alone() {
    let folder = pipeline("sd2");
    let mut pipeline = Pipeline::load(folder.path(), options()).unwrap();
    let each = 4 * 48 * 48;
    let (latents, states) = (normal(21, 8 * each), normal(22, 8 * 16 * 32));
    let step = Step { latents: &latents, dims: [8, 4, 48, 48], time: 300.0, states: &states };
    let all = pipeline.unet.run(&step).unwrap();
    let one = Step {
        latents: &latents[5 * each..6 * each],
        dims: [1, 4, 48, 48],
        time: 300.0,
        states: &states[5 * 512..6 * 512],
    };
    let alone: Vec<f64> = pipeline.unet.run(&one).unwrap().into_iter().map(f64::from).collect();
    let error = apart(all[5 * each..6 * each].to_vec(), &alone);
    assert!(error < 1e-3, "{error}");
}

#[test]
fn weights_in_half_precision_and_in_parts_are_found() {
    let folder = pipeline("sd2");
    let (unet, list) = (folder.path().join("unet"), listed(&fixture("sd2").join("unet")));
    fs::remove_file(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (part, tensors) in list.chunks(list.len() / 2 + 1).enumerate() {
        let file = format!("diffusion_pytorch_model.fp16-{:05}-of-00002.safetensors", part + 1);
        map.extend(tensors.iter().map(|(name, _)| (name.clone(), Value::from(file.clone()))));
        write(&unet.join(file), tensors, "", DType::F16);
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(unet.join("diffusion_pytorch_model.safetensors.index.fp16.json"), index.to_string()).unwrap();
    let mut pipeline = Pipeline::load(folder.path(), options()).unwrap();
    let (latents, states) = (normal(11, 2 * 4 * 64), normal(12, 2 * 16 * 32));
    let step = Step { latents: &latents, dims: DIMS, time: 601.0, states: &states };
    let want = json(fixture("sd2").join("expected.json"));
    let error = apart(pipeline.unet.run(&step).unwrap(), &numbers(&want["noise"][0]));
    assert!(error < 4e-3, "{error}");
}
