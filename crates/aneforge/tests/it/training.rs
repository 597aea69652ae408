//! Training: rules against their definitions, what keeps them right in half precision, and that nothing is lost.

use super::counting::allocations;
use super::support::engine;
use aneforge::device::Device;
use aneforge::nn::{self, Init, Linear, Noise, Scope};
use aneforge::optim::{Masters, Optimizer, Rule, Schedule, Settings, Weights};
use aneforge::train::{Checkpoint, CheckpointError, Options, Report, Scaling, TrainError, Trainer};
use aneforge::{Feed, Shape, Tensor, Var};
use aneforge_tensor::random;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

pub(super) fn host() -> Arc<dyn Device> {
    Arc::new(engine(1))
}

pub(super) fn noise(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| random::normal(seed, i)).collect()
}

/// Every rule.
fn optimizers() -> Vec<Optimizer> {
    let coupled = Optimizer { weight_decay: 0.01, coupled: true, ..Optimizer::adam() };
    vec![
        Optimizer::sgd(),
        Optimizer::momentum(0.9),
        Optimizer::nesterov(0.9),
        Optimizer { weight_decay: 0.01, coupled: true, ..Optimizer::momentum(0.9) },
        Optimizer::adam(),
        Optimizer::adamw(0.01),
        coupled,
        Optimizer::lion(0.01),
    ]
}

/// A trainer of one weight whose gradient is the input.
pub(super) struct Driven {
    pub trainer: Trainer,
    pub x: Var,
}

impl Driven {
    pub fn new(count: usize, options: Options) -> Driven {
        let scope = Scope::new(3);
        let w = scope.parameter("w", shape(&[count]), Init::Normal(0.5));
        let x = Var::input(shape(&[count]));
        let loss = (&w * &x).sum(&[0]);
        Driven { trainer: Trainer::new(host(), &loss, &scope, &Noise::off(), options).unwrap(), x }
    }

    pub fn step(&mut self, gradient: &[f32]) -> Report {
        self.trainer.step(&[(&self.x, Feed::F32(gradient))]).unwrap()
    }

    pub fn weight(&self) -> Vec<f32> {
        self.trainer.weights().unwrap()[0].1.to_f32()
    }
}

#[test]
fn rules_in_half_precision_follow_those_in_single() {
    const COUNT: usize = 64;
    for optimizer in optimizers() {
        for weights in [Weights::Paired, Weights::Half, Weights::Masters] {
            for scaling in
                [Scaling::Fixed(1.0), Scaling::Fixed(256.0), Scaling::Dynamic { initial: 64.0, patience: 7 }]
            {
                let lr = if matches!(optimizer.rule, Rule::Sgd { .. }) { 0.05 } else { 0.01 };
                let options = Options { weights, scaling, ..Options::new(optimizer, lr) };
                let mut driven = Driven::new(COUNT, options);
                let begin = driven.weight();
                let mut exact = Masters::new(begin.clone(), &optimizer);
                for t in 1..=60 {
                    let gradient: Vec<f32> = noise(t, COUNT)
                        .iter()
                        .enumerate()
                        .map(|(i, g)| g * 0.1 + [0.2, -0.2][i % 2])
                        .collect();
                    assert!(driven.step(&gradient).updated);
                    exact.step(&gradient, &optimizer, Settings { lr, t });
                }
                let got = driven.weight();
                let moved = |w: &[f32]| {
                    w.iter().zip(&begin).map(|(w, b)| f64::from(w - b).powi(2)).sum::<f64>().sqrt()
                };
                let apart =
                    got.iter().zip(&exact.weight).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                let share = apart / moved(&exact.weight);
                let most = match weights {
                    Weights::Half => 0.01,
                    Weights::Paired => 0.003,
                    Weights::Masters => 1e-4,
                };
                assert!(share < most, "{optimizer:?} {weights:?} {scaling:?}: {share}");
            }
        }
    }
}

/// Everything that is kept, but for numbers that belong to the scale.
pub(super) fn kept(trainer: &Trainer, folder: &tempfile::TempDir) -> Vec<(String, Tensor)> {
    let path = folder.path().join("kept.safetensors");
    Checkpoint::save(trainer, &BTreeMap::new(), &path).unwrap();
    Checkpoint::open(&path).unwrap().values().to_vec()
}

pub(super) fn bits(values: &[(String, Tensor)]) -> Vec<(&str, Vec<u32>)> {
    values.iter().map(|(name, t)| (name.as_str(), t.to_f32().iter().map(|v| v.to_bits()).collect())).collect()
}

#[test]
fn a_step_that_overflows_changes_the_scale_alone_and_names_its_parameter() {
    let folder = tempfile::tempdir().unwrap();
    for optimizer in optimizers() {
        for weights in [Weights::Half, Weights::Paired, Weights::Masters] {
            let scaling = Scaling::Dynamic { initial: 1024.0, patience: 1000 };
            let average = Some(0.9);
            let mut driven =
                Driven::new(8, Options { scaling, weights, average, ..Options::new(optimizer, 0.01) });
            for t in 0..5 {
                driven.step(&noise(t, 8));
            }
            let before = kept(&driven.trainer, &folder);
            // 100 * 1024 is beyond half precision.
            let report = driven.step(&[0.1, 100.0, 0.2, -100.0, 0.0, 0.1, 0.1, 0.1]);
            assert_eq!(
                (report.updated, report.updates, report.scale),
                (false, 5, 1024.0),
                "{optimizer:?} {weights:?}"
            );
            assert_eq!(report.overflowed, ["w"]);
            let after = kept(&driven.trainer, &folder);
            for ((name, old), (_, new)) in before.iter().zip(&after) {
                // What is multiplied with the scale follows it.
                let scaled = [":velocity", ":mean", ":root"].iter().any(|end| name.ends_with(end))
                    && weights != Weights::Masters;
                let by = if scaled || name == "train.scale" { 0.5 } else { 1.0 };
                if name == "train.held" || name.ends_with(":gradient") {
                    continue;
                }
                let want: Vec<f32> = old.to_f32().iter().map(|v| v * by).collect();
                assert_eq!(new.to_f32(), want, "{name} {optimizer:?} {weights:?}");
            }
            let report = driven.step(&noise(9, 8));
            assert_eq!((report.updated, report.updates, report.scale), (true, 6, 512.0));
        }
    }
}

#[test]
fn the_scale_grows_after_many_good_steps() {
    for weights in [Weights::Paired, Weights::Masters] {
        let scaling = Scaling::Dynamic { initial: 8192.0, patience: 3 };
        let mut driven =
            Driven::new(4, Options { scaling, weights, ..Options::new(Optimizer::adam(), 0.001) });
        let scales: Vec<f64> = (0..9).map(|t| driven.step(&noise(t, 4)).scale).collect();
        let want: Vec<f64> = [8192.0, 16384.0, 32768.0].iter().flat_map(|s| [*s; 3]).collect();
        assert_eq!(scales, want, "{weights:?}");
    }
}

/// A small network with everything in it: its parameters, its inputs, its result and its loss.
pub(super) struct Net {
    pub scope: Scope,
    pub noise: Noise,
    pub x: Var,
    pub target: Var,
    pub y: Var,
    pub loss: nn::Loss,
}

impl Net {
    const BATCH: usize = 6;

    pub fn new(dropout: f64) -> Net {
        let (scope, noise) = (Scope::new(11), Noise::new(5));
        let x = Var::named_input(aneforge::TensorType::f16(shape(&[Net::BATCH, 1, 6, 6])), "x");
        let target = Var::named_input(aneforge::TensorType::f16(shape(&[Net::BATCH, 3])), "target");
        let net = |noise: &Noise| {
            let scope = if noise.clock().is_some() { scope.clone() } else { Scope::new(11) };
            let h = nn::Conv2d::new(&scope.at("conv"), 1, 4, 3).forward(&x);
            let h = nn::GroupNorm::new(&scope.at("norm"), 4, 2).forward(&h).relu().max_pool(2, 2, 0);
            let h = noise.dropout(&h.reshape(&[Net::BATCH as i64, -1]), dropout);
            Linear::new(&scope.at("fc"), 36, 3).forward(&h)
        };
        let y = net(&noise);
        let loss = nn::softmax_cross_entropy(&y, &target);
        Net { scope, noise, x, target, y, loss }
    }

    pub fn trainer(&self, options: Options) -> Trainer {
        Trainer::new(host(), &self.loss, &self.scope, &self.noise, options).unwrap()
    }

    /// Batch `t`: images whose brightest third says what they are.
    pub fn batch(t: u64) -> (Vec<f32>, Vec<f32>) {
        let labels: Vec<usize> = (0..Net::BATCH as u64).map(|i| (random::word(t, i) % 3) as usize).collect();
        let mut images = noise(1000 + t, Net::BATCH * 36);
        for (image, &label) in images.chunks_exact_mut(36).zip(&labels) {
            image[label * 12..label * 12 + 12].iter_mut().for_each(|v| *v += 2.0);
        }
        (images, nn::one_hot(&labels, 3, 0.0))
    }

    pub fn step(&self, trainer: &mut Trainer, t: u64) -> Report {
        let (images, labels) = Net::batch(t);
        trainer.step(&[(&self.target, Feed::F32(&labels)), (&self.x, Feed::F32(&images))]).unwrap()
    }
}

pub(super) fn adam() -> Options {
    Options::new(Optimizer::adam(), 0.01)
}

#[test]
fn a_network_learns_and_is_evaluated_on_the_weights_as_they_are() {
    for options in [
        adam(),
        Options { weights: Weights::Half, ..adam() },
        Options { weights: Weights::Masters, average: Some(0.9), clip: Some(0.5), ..adam() },
        Options { accumulate: 2, clip: Some(0.5), average: Some(0.9), ..adam() },
        Options {
            schedule: Schedule::Cosine { warmup: 10, total: 120, least: 0.1 },
            ..Options::new(Optimizer::lion(0.01), 0.003)
        },
        Options { scaling: Scaling::Fixed(128.0), ..Options::new(Optimizer::nesterov(0.9), 0.02) },
    ] {
        let net = Net::new(0.1);
        let mut trainer = net.trainer(options.clone());
        let first = net.step(&mut trainer, 0).loss;
        let last: f32 = (1..120).map(|t| net.step(&mut trainer, t).loss).skip(99).sum::<f32>() / 20.0;
        assert!(last < first / 4.0, "{options:?}: {first} {last}");
        // An evaluation sees the next step without being told.
        for averaged in [false, true] {
            let evaluator = trainer.evaluator(std::slice::from_ref(&net.y), averaged);
            if averaged && options.average.is_none() {
                assert!(evaluator.unwrap_err().to_string().contains("no average is kept"));
                continue;
            }
            let mut evaluator = evaluator.unwrap();
            let (images, labels) = Net::batch(500);
            let mut read = || {
                let image = Tensor::from_slice(net.x.shape(), &images).unwrap();
                evaluator.run(&[image]).unwrap()[0].to_f32()
            };
            let before = read();
            let right = before.chunks(3).zip(labels.chunks(3)).filter(|(y, t)| {
                let best = |v: &[f32]| (0..3).max_by(|a, b| v[*a].total_cmp(&v[*b]));
                best(y) == best(t)
            });
            assert!(right.count() >= 5, "{options:?}");
            let updates = trainer.updates();
            (0..2).for_each(|t| drop(net.step(&mut trainer, 600 + t)));
            assert_eq!(trainer.updates(), updates + 2 / options.accumulate as u64);
            assert_ne!(read(), before);
        }
    }
}

#[test]
fn a_step_allocates_nothing_for_values_and_copies_nothing() {
    for options in [adam(), Options { accumulate: 2, clip: Some(1.0), average: Some(0.9), ..adam() }] {
        let net = Net::new(0.1);
        let mut trainer = net.trainer(options.clone());
        let (images, labels) = Net::batch(1);
        let batch = [(&net.x, Feed::F32(&images)), (&net.target, Feed::F32(&labels))];
        let stop = Arc::default();
        (0..4).for_each(|_| drop(trainer.step_until(&batch, &stop).unwrap()));
        let count = allocations(|| (0..4).for_each(|_| drop(trainer.step_until(&batch, &stop).unwrap())));
        // A program with more than 16 ports lists them on its way.
        let runs = if options.accumulate > 1 { 4 + 2 } else { 4 };
        assert_eq!((count, trainer.session().copied()), (runs, 0));
    }
}

/// What changes the steps to come is told by name, unless it is meant.
fn another_course_is_refused(
    checkpoint: &Checkpoint,
    again: &Net,
    options: &Options,
    folder: &tempfile::TempDir,
) {
    let schedule = Schedule::Steps { every: 5, factor: 0.5 };
    let mut other = again.trainer(Options { schedule, ..options.clone() });
    let error = checkpoint.restore(&mut other).unwrap_err().to_string();
    let told = "the schedule was constant when it was written, and is times 0.5 after every 5 steps now";
    assert!(error.contains(told), "{error}");
    checkpoint.restore_anyway(&mut other).unwrap();
    assert_eq!(bits(&kept(&other, folder)), bits(checkpoint.values()), "{options:?}");
    let scaling = Scaling::Fixed(64.0);
    let mut other = again.trainer(Options { scaling, ..options.clone() });
    let error = checkpoint.restore_anyway(&mut other).unwrap_err().to_string();
    assert!(error.contains("its scale is one that changes, and this one 64"), "{error}");
    assert!(checkpoint.same("batches", "7").is_ok() && checkpoint.same("nothing", "8").is_ok());
    let error = checkpoint.same("batches", "8").unwrap_err().to_string();
    assert!(error.contains("the batches was 7 when it was written, and is 8 now"), "{error}");
}

#[test]
fn a_training_goes_on_bit_for_bit_where_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for options in [
        Options { average: Some(0.9), clip: Some(1.0), ..adam() },
        Options { weights: Weights::Masters, average: Some(0.9), ..adam() },
        Options { accumulate: 3, ..Options::new(Optimizer::lion(0.01), 0.001) },
    ] {
        let net = Net::new(0.2);
        let mut trainer = net.trainer(options.clone());
        (0..7).for_each(|t| drop(net.step(&mut trainer, t)));
        let notes = BTreeMap::from([("batches".to_owned(), "7".to_owned())]);
        Checkpoint::save(&trainer, &notes, &path).unwrap();
        let losses: Vec<f32> = (7..15).map(|t| net.step(&mut trainer, t).loss).collect();
        let end = kept(&trainer, &folder);
        // Another process: another network, another trainer.
        let again = Net::new(0.2);
        let mut second = again.trainer(options.clone());
        (0..3).for_each(|t| drop(again.step(&mut second, 90 + t)));
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.note("batches"), Some("7"));
        checkpoint.restore(&mut second).unwrap();
        let same: Vec<f32> = (7..15).map(|t| again.step(&mut second, t).loss).collect();
        assert_eq!(same, losses, "{options:?}");
        assert_eq!(bits(&kept(&second, &folder)), bits(&end), "{options:?}");
        // What does not fit is refused, and changes nothing.
        let mut other = again.trainer(Options { optimizer: Optimizer::momentum(0.9), ..options.clone() });
        let error = checkpoint.restore(&mut other).unwrap_err().to_string();
        let told =
            format!("its optimizer is {}, and this one sgd with momentum 0.9; it is", options.optimizer);
        assert!(error.contains(&told) && error.ends_with("of other options"), "{error}");
        another_course_is_refused(&checkpoint, &again, &options, &folder);
        let half = Options { weights: Weights::Half, average: None, ..options };
        let mut other = again.trainer(half);
        let before = kept(&other, &folder);
        let error = checkpoint.restore(&mut other).unwrap_err().to_string();
        let told = ["which this training does not keep", "it has no", "is fp16[4, 1, 3, 3], got fp32"];
        assert!(told.iter().any(|told| error.contains(told)), "{error}");
        assert_eq!(bits(&kept(&other, &folder)), bits(&before));
    }
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.to_string().contains("checkpoint.safetensors was changed after it was written"), "{error}");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(Checkpoint::open(&path), Err(CheckpointError::File(_))));
}

#[test]
fn the_same_batch_four_times_is_that_batch() {
    let net = Net::new(0.0);
    let options = |accumulate| Options { accumulate, ..Options::new(Optimizer::sgd(), 0.5) };
    let (mut one, mut four) = (net.trainer(options(1)), net.trainer(options(4)));
    let begin = one.weights().unwrap();
    net.step(&mut one, 0);
    (0..4).for_each(|_| drop(net.step(&mut four, 0)));
    let farthest = |a: &Tensor, b: &Tensor| {
        a.to_f32().iter().zip(b.to_f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    for ((from, a), b) in begin.iter().zip(one.weights().unwrap()).zip(four.weights().unwrap()) {
        let (moved, apart) = (farthest(&from.1, &a.1), farthest(&a.1, &b.1));
        assert!(moved > 0.0 && apart <= 0.01 * moved, "{}: {apart} of {moved}", from.0);
    }
}

#[test]
fn mistakes_are_told() {
    let net = Net::new(0.0);
    let fails = |options: Options| {
        Trainer::new(host(), &net.loss, &net.scope, &net.noise, options).unwrap_err().to_string()
    };
    let scaled = |scaling| fails(Options { scaling, ..adam() });
    let growing = Scaling::Dynamic { initial: 1000.0, patience: 9 };
    assert!(scaled(growing).contains("power of two from 1 to 32768, got 1000"));
    assert!(scaled(Scaling::Fixed(0.0)).contains("more than 0 and at most 1000000, got 0"));
    let schedule = Schedule::Cosine { warmup: 9, total: 9, least: 0.0 };
    assert!(fails(Options { schedule, ..adam() }).contains("9 steps of 9; it must be fewer"));
    let dropped = Net::new(0.5);
    let silent = Trainer::new(host(), &dropped.loss, &dropped.scope, &Noise::off(), adam());
    assert!(silent.unwrap_err().to_string().ends_with("the network has dropout; give its noise"));
    let some = Scope::of(net.scope.parameters().into_iter().skip(1).collect());
    let unnamed = Trainer::new(host(), &net.loss, &some, &net.noise, adam());
    assert!(unnamed.unwrap_err().to_string().contains("`conv.weight`, which is not among those given"));
    assert!(
        scaled(Scaling::Dynamic { initial: 4.0, patience: 0 }).contains("patience must be from 1 to 2048")
    );
    assert!(fails(Options { lr: f64::NAN, ..adam() }).contains("lr must be from 0 to 10000, got NaN"));
    assert!(fails(Options { accumulate: 0, ..adam() }).contains("accumulate must be at least 1"));
    assert!(fails(Options { clip: Some(0.0), ..adam() }).contains("clip must be more than 0"));
    let nesterov = Rule::Sgd { momentum: 0.0, nesterov: true };
    assert!(fails(Options::new(Optimizer::of(nesterov), 0.1)).contains("nesterov needs a momentum"));
    let fails = |loss: nn::Loss, scope: &Scope| {
        Trainer::new(host(), loss, scope, &Noise::off(), adam()).unwrap_err().to_string()
    };
    assert!(fails((&net.y).into(), &net.scope).contains("the loss must have one element, got [6, 3]"));
    assert!(fails(net.loss.clone(), &Scope::new(0)).contains("there is nothing to train"));

    let mut trainer = net.trainer(adam());
    let (images, labels) = Net::batch(0);
    let mut step = |batch: &[(&Var, Feed<'_>)]| trainer.step(batch).unwrap_err().to_string();
    let (x, target) = (&net.x, &net.target);
    assert!(step(&[(x, Feed::F32(&images))]).contains("no values for the input target"));
    let short = step(&[(x, Feed::F32(&images[1..])), (target, Feed::F32(&labels))]);
    assert!(short.contains("of shape [6, 1, 6, 6] takes 216 values, got 215"), "{short}");
    let mut bad = images.clone();
    bad[17] = f32::NAN;
    let error = step(&[(x, Feed::F32(&bad)), (target, Feed::F32(&labels))]);
    assert!(error.contains("value 17 of the input of shape [6, 1, 6, 6] is NaN; clean the data"), "{error}");
    let other = Var::input(shape(&[1]));
    let error = step(&[(x, Feed::F32(&images)), (target, Feed::F32(&labels)), (&other, Feed::F32(&[1.0]))]);
    assert!(error.contains("the loss has no input"), "{error}");
    let notes = Scope::new(1);
    let w = notes.parameter("__metadata__", shape(&[1]), Init::Fill(0.0));
    assert!(fails(w.square().sum(&[0]).into(), &notes).contains("no parameter may be called `__metadata__`"));
    let scope = Scope::new(1);
    scope.parameter("a", shape(&[2]), Init::Fill(0.0));
    let twice = scope.parameter("a", shape(&[2]), Init::Fill(0.0)).check().unwrap_err();
    assert!(twice.to_string().contains("two are called `a`"), "{twice}");
}

#[test]
fn a_training_that_diverges_ends_with_an_error() {
    let scaling = Scaling::Fixed(1024.0);
    let mut driven = Driven::new(2, Options { scaling, ..adam() });
    let error = (0..200).find_map(|_| driven.trainer.step(&[(&driven.x, Feed::F32(&[100.0, 0.0]))]).err());
    let told = "the gradients of `w` are not finite";
    assert!(matches!(error, Some(TrainError::Diverged { steps: 100, why }) if why == told));
}

#[test]
fn frozen_parameters_stay_and_unused_ones_have_gradients_of_zero() {
    let scope = Scope::new(2);
    let weight = scope.frozen().at("base").parameter("weight", shape(&[3, 4]), Init::Normal(0.5));
    scope.at("unused").parameter("weight", shape(&[2]), Init::Fill(1.0));
    let lora = nn::Lora::new(&scope.at("base"), &weight, 2, 4.0);
    let (x, target) = (Var::input(shape(&[5, 4])), Var::input(shape(&[5, 3])));
    let loss = nn::mse(&lora.forward(&x, None), &target);
    let mut trainer = Trainer::new(host(), &loss, &scope, &Noise::off(), adam()).unwrap();
    assert_eq!(trainer.unreached(), ["unused.weight"]);
    let before = trainer.weights().unwrap();
    let (xs, ys) = (noise(1, 20), noise(2, 15));
    let batch = [(&x, Feed::F32(&xs[..])), (&target, Feed::F32(&ys[..]))];
    let first = trainer.step(&batch).unwrap().loss;
    let last = (0..300).map(|_| trainer.step(&batch).unwrap().loss).last().unwrap();
    assert!(last < 0.6 * first, "{first} {last}");
    for ((name, old), (_, new)) in before.iter().zip(&trainer.weights().unwrap()) {
        let stays = matches!(name.as_str(), "base.weight" | "unused.weight");
        assert_eq!(old.to_f32() == new.to_f32(), stays, "{name}");
    }
}
