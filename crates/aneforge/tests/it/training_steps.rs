//! Steps that are void, those of several workers, and parameters and inputs of every kind.

use super::support::engine;
use super::training::{Driven, Net, adam, bits, host, kept, shape};
use aneforge::device::Device;
use aneforge::ir::ops::conv::Conv;
use aneforge::nn::{self, Init, Noise, Scope};
use aneforge::optim::{Optimizer, Weights};
use aneforge::train::{Options, Scaling, Trainer, average};
use aneforge::{CompileOptions, Feed, Graph, Session, Shape, Tensor, Var, compile, grad};
use std::sync::Arc;

/// That everything is as it was, but for a scale that was halved, and what is multiplied with it.
fn nothing_but_the_scale_moved(
    before: &[(String, Tensor)],
    after: &[(String, Tensor)],
    weights: Weights,
    what: &str,
) {
    for ((name, old), (_, new)) in before.iter().zip(after) {
        if [":sum", ":gradient", "held"].iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let scaled = [":velocity", ":mean", ":root"].iter().any(|end| name.ends_with(end));
        let by = if name == "train.scale" || scaled && weights != Weights::Masters { 0.5 } else { 1.0 };
        let want: Vec<f32> = old.to_f32().iter().map(|v| v * by).collect();
        assert_eq!(new.to_f32(), want, "{name} {what}");
    }
}

#[test]
fn a_step_that_would_leave_half_precision_is_void_and_names_its_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let shape = shape(&[4]);
    for (optimizer, lr) in [
        (Optimizer::sgd(), 9e3),
        (Optimizer::momentum(0.9), 9e3),
        (Optimizer::nesterov(0.9), 9e3),
        (Optimizer::adamw(1.0), 9e3),
        (Optimizer::lion(1.0), 9e3),
    ] {
        for weights in [Weights::Half, Weights::Paired, Weights::Masters] {
            for (accumulate, split) in [(1, false), (2, false), (1, true)] {
                let scope = Scope::new(3);
                let (a, b) = (
                    scope.parameter("a", shape, Init::Fill(1.0)),
                    scope.parameter("b", shape, Init::Fill(60000.0)),
                );
                let x = Var::input(shape);
                let loss = ((&a + &b) * &x).sum(&[0]);
                let scaling = Scaling::Dynamic { initial: 4.0, patience: 100 };
                let options = Options {
                    weights,
                    scaling,
                    accumulate,
                    split,
                    average: Some(0.5),
                    ..Options::new(optimizer, 1e-3)
                };
                let made = Trainer::new(host(), &loss, &scope, &Noise::off(), options);
                let mut trainer = made.unwrap();
                let step = |trainer: &mut Trainer| {
                    let batch = [(&x, Feed::F32(&[-1.0, -2.0, -0.5, -1.5][..]))];
                    if split {
                        let (_, gradients) = trainer.gradients(&batch).unwrap();
                        return trainer.apply(&gradients).unwrap();
                    }
                    (0..accumulate).map(|_| trainer.step(&batch).unwrap()).last().unwrap()
                };
                let what = format!("{optimizer} {weights:?} {accumulate} {split}");
                assert!(step(&mut trainer).updated, "{what}");
                let before = kept(&trainer, &folder);
                trainer.set_lr(lr).unwrap();
                let report = step(&mut trainer);
                assert_eq!((report.updated, report.updates, report.skipped), (false, 1, 1), "{what}");
                assert!(
                    report.overflowed.is_empty() && report.beyond.contains(&"b".into()),
                    "{report:?} {what}"
                );
                nothing_but_the_scale_moved(&before, &kept(&trainer, &folder), weights, &what);
                trainer.set_lr(1e-3).unwrap();
                assert!(step(&mut trainer).updated, "{what}");
            }
        }
    }
}

#[test]
fn a_scale_that_moments_would_not_hold_is_not_taken() {
    // The velocity comes to ten times the gradient, which is 3 times the scale: 61440, and there is no room for twice that.
    let (momentum, scaling) = (Optimizer::momentum(0.9), Scaling::Dynamic { initial: 2048.0, patience: 100 });
    let weights = Weights::Half;
    let mut driven = Driven::new(2, Options { scaling, weights, ..Options::new(momentum, 1e-6) });
    for _ in 0..250 {
        let report = driven.step(&[3.0, 0.1]);
        assert_eq!((report.void(), report.scale), (None, 2048.0));
    }
    // Once the gradient is smaller the velocity follows it, and there is.
    let scales: Vec<f64> = (0..120).map(|_| driven.step(&[1.0, 0.1]).scale).collect();
    assert_eq!(scales.last(), Some(&4096.0));
}

#[test]
fn moments_stay_in_half_precision_as_the_scale_grows() {
    for optimizer in [Optimizer::adam(), Optimizer::momentum(0.9), Optimizer::lion(0.0)] {
        let scaling = Scaling::Dynamic { initial: 16384.0, patience: 3 };
        let weights = Weights::Half;
        let mut driven = Driven::new(2, Options { scaling, weights, ..Options::new(optimizer, 1e-4) });
        let void: Vec<Option<String>> = (0..40).map(|_| driven.step(&[3.0, 0.1]).void()).collect();
        assert!(void.iter().flatten().count() > 0, "{optimizer}");
        assert!(driven.weight().iter().all(|w| w.is_finite()));
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in kept(&driven.trainer, &folder) {
            assert!(value.to_f32().iter().all(|v| v.is_finite()), "{name} {optimizer}");
        }
    }
}

#[test]
fn a_gradient_with_one_nan_is_seen_also_with_the_arithmetic_of_ieee() {
    let ieee: Arc<dyn Device> = Arc::new(engine(1).with_numerics(aneforge::Numerics::Ieee));
    let scope = Scope::new(3);
    let w = scope.parameter("w", shape(&[3]), Init::Fill(1.0));
    let x = Var::input(shape(&[3]));
    // The gradient of the second element is inf * 0.
    let loss = (&w * (x.inverse(0.0) * &x)).sum(&[0]);
    let options = Options { scaling: Scaling::Fixed(1.0), ..Options::new(Optimizer::sgd(), 0.1) };
    let mut trainer = Trainer::new(ieee, &loss, &scope, &Noise::off(), options).unwrap();
    let report = trainer.step(&[(&x, Feed::F32(&[1.0, 0.0, 1.0]))]).unwrap();
    assert_eq!(report.overflowed, ["w"]);
}

#[test]
fn parameters_without_axes_and_images_of_bytes_are_trained() {
    for weights in [Weights::Half, Weights::Paired, Weights::Masters] {
        for (accumulate, clip) in [(1, None), (2, Some(1.0))] {
            let scope = Scope::new(3);
            let w = scope.parameter("w", Shape::SCALAR, Init::Fill(0.5));
            let pixels =
                Var::input_of(aneforge::TensorType { dtype: aneforge::DType::U8, shape: shape(&[2, 3]) });
            let loss = nn::mse(&(pixels.cast() * &w), &pixels.cast());
            let options = Options {
                weights,
                accumulate,
                clip,
                average: Some(0.9),
                ..Options::new(Optimizer::adam(), 0.01)
            };
            let mut trainer = Trainer::new(host(), &loss, &scope, &Noise::off(), options).unwrap();
            for _ in 0..100 * accumulate {
                trainer.step(&[(&pixels, Feed::U8(&[1, 2, 3, 1, 0, 1]))]).unwrap();
            }
            let weight = trainer.weights().unwrap()[0].1.to_f32();
            assert!((weight[0] - 1.0).abs() < 0.05, "{weight:?} {weights:?}");
        }
    }
}

#[test]
fn several_workers_make_the_steps_of_one() {
    // Three, whose third is no number in half precision, and a rule that minds how long a gradient is, as Adam does not.
    const WORKERS: u64 = 3;
    for weights in [Weights::Half, Weights::Paired, Weights::Masters] {
        for scaling in [Scaling::Dynamic { initial: 256.0, patience: 2 }, Scaling::Fixed(100.0)] {
            let (net, other) = (Net::new(0.2), Net::new(0.2));
            let sgd = Options { weights, scaling, ..Options::new(Optimizer::momentum(0.9), 0.05) };
            let mut one = net.trainer(Options { accumulate: WORKERS as usize, ..sgd.clone() });
            let mut workers: Vec<Trainer> =
                (0..WORKERS).map(|_| other.trainer(Options { split: true, ..sgd.clone() })).collect();
            for round in 0..4 {
                let mut shares = Vec::new();
                for (at, worker) in workers.iter_mut().enumerate() {
                    let t = round * WORKERS + at as u64;
                    let report = net.step(&mut one, t);
                    assert_eq!(report.updated, at as u64 + 1 == WORKERS);
                    let (images, labels) = Net::batch(t);
                    worker.pass(at as u64).unwrap();
                    let batch = [(&other.x, Feed::F32(&images)), (&other.target, Feed::F32(&labels))];
                    let (loss, gradients) = worker.gradients(&batch).unwrap();
                    worker.pass(WORKERS - 1 - at as u64).unwrap();
                    assert_eq!(loss, report.loss);
                    shares.push(gradients);
                }
                let mean = average(&shares).unwrap();
                for worker in &mut workers {
                    let report = worker.apply(&mean).unwrap();
                    assert!(report.updated);
                    assert_eq!(report.updates, round + 1);
                }
                for worker in &workers {
                    assert_eq!(
                        bits(&worker.weights().unwrap()),
                        bits(&one.weights().unwrap()),
                        "{weights:?}"
                    );
                }
            }
            // A gradient of one worker that is not finite makes the step of all void.
            let mut bad =
                vec![workers[0].weights().unwrap().iter().map(|(_, w)| w.clone()).collect::<Vec<_>>()];
            let shape = bad[0][0].shape();
            bad[0][0] = Tensor::from_slice(shape, &vec![f32::NAN; shape.count()]).unwrap();
            let scale = if let Scaling::Fixed(scale) = scaling { scale } else { 1024.0 };
            for worker in &mut workers {
                let report = worker.apply(&average(&bad).unwrap()).unwrap();
                assert_eq!((report.updated, report.overflowed.len(), report.scale), (false, 1, scale));
            }
            assert_eq!(bits(&workers[2].weights().unwrap()), bits(&one.weights().unwrap()));
        }
    }
}

#[test]
fn mistakes_of_workers_are_told() {
    let told = |workers: &[Vec<Tensor>]| average(workers).unwrap_err().to_string();
    let half = Tensor::scalar(aneforge::f16::ONE);
    assert!(told(&[]).contains("no gradients to average"));
    assert!(told(&[vec![half.clone()], vec![Tensor::scalar(1.0f32)]]).contains("of worker 1 are not"));
    assert!(told(&[vec![Tensor::scalar(1u8)]]).contains("half or single precision, got uint8"));
    let net = Net::new(0.0);
    let mut whole = net.trainer(adam());
    for error in [whole.gradients(&[]).unwrap_err(), whole.apply(&[]).unwrap_err()] {
        assert!(error.to_string().contains("needs a trainer with `split`"), "{error}");
    }
    let both = Options { split: true, accumulate: 2, ..adam() };
    assert!(both.check().unwrap_err().contains("accumulate must be 1, got 2"));
}

/// A scale that half precision does not hold is named, and not the shape that nothing mistaken has.
#[test]
fn a_scale_beyond_half_precision_is_told() {
    let scope = Scope::new(1);
    let (x, target) = (Var::input(shape(&[4, 3])), Var::input(shape(&[4, 2])));
    let y = nn::Linear::new(&scope.at("fc"), 3, 2).forward(&x);
    let options = Options { scaling: Scaling::Fixed(1e6), ..adam() };
    for loss in [nn::softmax_cross_entropy(&y, &target), nn::mse(&y, &target).into()] {
        let error = Trainer::new(host(), &loss, &scope, &Noise::off(), options.clone()).err().unwrap();
        assert!(error.to_string().contains("65504"), "{error}");
    }
}

/// Windows of an image are many times the image, so the gradient of a kernel takes some taps at a time.
#[test]
fn the_gradient_of_a_kernel_holds_few_windows_at_a_time() {
    const SIDE: usize = 128;
    const CHANNELS: usize = 256;
    let (x, dy) = (Var::input(shape(&[1, CHANNELS, SIDE, SIDE])), Var::input(shape(&[1, 1, SIDE, SIDE])));
    let weight = Var::input(shape(&[1, CHANNELS, 3, 3]));
    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let y = x.conv(op, &weight, None);
    let dw = grad::grad(&y, &dy, &[weight]).unwrap();
    let graph = Graph::freeze(&dw).unwrap();
    // A tap's windows are 2^22 elements; those of all nine would be 9 * 2^22.
    let most = graph.nodes().map(|(_, node)| node.ty.shape.count()).max().unwrap();
    assert!(most <= 1 << 24, "{most} elements at once");

    // Cotangents of three pixels, one in a corner: each tap has the sum of three pixels of the image.
    let pixel = |c: usize, i: usize, j: usize| ((7 * c + 3 * i + 5 * j) % 64) as f32;
    let image: Vec<f32> =
        (0..CHANNELS * SIDE * SIDE).map(|at| pixel(at / SIDE / SIDE, at / SIDE % SIDE, at % SIDE)).collect();
    let places = [(0, 0), (17, 90), (100, 31)];
    let mut cotangent = vec![0.0; SIDE * SIDE];
    places.iter().for_each(|(i, j)| cotangent[i * SIDE + j] = 1.0);
    let device: Arc<dyn Device> = Arc::new(engine(2));
    let mut session = Session::new(compile(&dw, &CompileOptions::default()).unwrap(), &device).unwrap();
    session.set(0, Feed::F32(&image), x.shape().dims()).unwrap();
    session.set(1, Feed::F32(&cotangent), dy.shape().dims()).unwrap();
    session.execute().unwrap();
    let mut got = vec![0.0; CHANNELS * 9];
    session.read(0, &mut got);
    for (at, got) in got.into_iter().enumerate() {
        let (c, tap) = (at / 9, [at % 9 / 3, at % 3]);
        let read = |&(i, j): &(usize, usize)| match (i + tap[0], j + tap[1]) {
            (1.., 1..) => pixel(c, i + tap[0] - 1, j + tap[1] - 1),
            _ => 0.0,
        };
        assert_eq!(got, places.iter().map(read).sum::<f32>(), "channel {c}, tap {tap:?}");
    }
}
