//! Random numbers inside programs, and where gradients stop.

use super::support::engine;
use aneforge::ir::ops::conv::Conv;
use aneforge::nn::Noise;
use aneforge::{CompileOptions, Feed, Session, Shape, Tensor, Var, compile, grad};

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

#[test]
fn dropout_is_uniform_new_in_each_step_and_repeatable() {
    let (rows, columns) = (64, 64);
    let draws = |seed| {
        let noise = Noise::new(seed);
        let (clock, next) = noise.clock().unwrap();
        let (a, b) = (noise.uniform(shape(&[rows, columns])), noise.uniform(shape(&[rows, columns])));
        let graph = aneforge::Graph::carrying(&[a, b], &[(&clock, &next)]).unwrap();
        let plan = aneforge::compile_graph(&graph, &CompileOptions::default()).unwrap();
        let mut session = Session::new(plan, engine(1)).unwrap();
        let feed = session.plan().feeds.iter().position(|feed| feed.name == "noise.clock").unwrap();
        session.input_buffer(feed).unwrap().write(Feed::F32(&Noise::BEGIN)).unwrap();
        let mut all: Vec<Vec<f32>> = Vec::new();
        for _ in 0..40 {
            all.extend(session.run(&[]).unwrap().iter().map(Tensor::to_f32));
        }
        all
    };
    let all = draws(1);
    assert_eq!(all, draws(1));
    let count = (rows * columns) as f64;
    let correlation = |a: &[f32], b: &[f32]| {
        let product: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - 0.5) * f64::from(b - 0.5)).sum();
        product / count * 12.0
    };
    for (at, draw) in all.iter().enumerate() {
        assert!(draw.iter().all(|v| (0.0..1.0).contains(v)));
        // Chi-square of 16 cells: 99.99 % are below 44.
        let mut cells = [0.0; 16];
        draw.iter().for_each(|v| cells[(v * 16.0) as usize] += 1.0);
        let expected = count / 16.0;
        let chi: f64 = cells.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
        assert!(chi < 60.0, "draw {at}: {chi} {cells:?}");
        // Neighbours, the next draw, the next step and the one after: 0.016 is one deviation.
        let others = [
            &draw[1..],
            all.get(at + 1).map_or(&[][..], |d| &d[..]),
            all.get(at + 2).map_or(&[][..], |d| &d[..]),
            all.get(at + 4).map_or(&[][..], |d| &d[..]),
        ];
        for other in others.into_iter().filter(|other| !other.is_empty()) {
            let r = correlation(draw, other);
            assert!(r.abs() < 0.08, "draw {at}: {r}");
        }
    }
}

#[test]
fn dropout_is_off_where_nobody_turns_it_on() {
    let (rows, columns) = (64, 64);
    let count = (rows * columns) as f64;
    // Dropout of a tenth.
    let noise = Noise::new(3);
    let x = Var::input(shape(&[rows, columns]));
    let plan = compile(&[noise.dropout(&x, 0.1)], &CompileOptions::default()).unwrap();
    let ones = Tensor::from_slice(x.shape(), &vec![0.9f32; rows * columns]).unwrap();
    let mut session = Session::new(plan, engine(1)).unwrap();
    // Nobody has turned it on.
    assert!(
        session.run(std::slice::from_ref(&ones)).unwrap()[0].to_f32().iter().all(|v| (v - 0.9).abs() < 1e-3)
    );
    let feed = session.plan().feeds.iter().position(|feed| feed.name == "noise.clock").unwrap();
    session.input_buffer(feed).unwrap().write(Feed::F32(&Noise::BEGIN)).unwrap();
    let kept = session.run(&[ones]).unwrap()[0].to_f32();
    let zeros = kept.iter().filter(|v| **v == 0.0).count() as f64 / count;
    assert!((zeros - 0.1).abs() < 0.02, "{zeros}");
    assert!(kept.iter().all(|v| *v == 0.0 || (*v - 1.0).abs() < 2e-3));
}

#[test]
fn gradients_stop_where_they_are_told() {
    let w = Var::input(shape(&[3]));
    let next = &w - w.square().muls(0.5);
    let loss = next.square();
    let dy = Var::full(loss.shape(), 1.0);
    let value = |g: &Var| {
        let plan = compile(std::slice::from_ref(g), &CompileOptions::default()).unwrap();
        let feed = Tensor::from_slice(w.shape(), &[0.5f32, 1.0, 2.0]).unwrap();
        Session::new(plan, engine(1)).unwrap().run(&[feed]).unwrap()[0].to_f32()
    };
    let of = |wrt: &Var, stop: &[Var]| grad::gradients(&loss, &dy, std::slice::from_ref(wrt), stop).unwrap();
    // 2 (w - w^2 / 2) (1 - w), and without the way through the step 2 (w - w^2 / 2).
    assert_eq!(value(&of(&w, std::slice::from_ref(&w)).values[0]), [0.375, 0.0, 0.0]);
    assert_eq!(value(&of(&next, std::slice::from_ref(&next)).values[0]), [0.75, 1.0, 0.0]);
    assert_eq!(of(&w, std::slice::from_ref(&next)).unreached, [0]);
    // Nor does it go on where another way leads to what lies behind: of w times its next value, that value alone.
    let beside = (&next * &w).sum(&[0]);
    let one = Var::full(beside.shape(), 1.0);
    let ends = [next.clone(), w.clone()];
    let found = grad::gradients(&beside, &one, &ends, &ends).unwrap();
    assert_eq!(value(&found.values[1]), [0.375, 0.5, 0.0]);
    // A value that is no stop hands its gradient on.
    let both = grad::gradients(&loss, &dy, &[next.clone(), w.clone()], std::slice::from_ref(&w)).unwrap();
    assert_eq!([value(&both.values[0]), value(&both.values[1])], [[0.75, 1.0, 0.0], [0.375, 0.0, 0.0]]);
    // Gradients are graphs, so they have gradients: 2 (1 - w)^2 - 2 (w - w^2 / 2).
    let second =
        grad::gradients(&both.values[1], &dy, std::slice::from_ref(&w), std::slice::from_ref(&w)).unwrap();
    assert_eq!(value(&second.values[0]), [-0.25, -1.0, 2.0]);
}

/// The windows of a large image do not go into one product. Elements that a tap does not read are missing from its sum.
#[test]
fn gradients_of_kernels_of_large_images_are_sums_over_windows() {
    let (c, h, w) = (32, 256, 256);
    let (x, kernel) = (Var::input(shape(&[1, c, h, w])), Var::input(shape(&[1, c, 3, 3])));
    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let y = x.conv(op, &kernel, None);
    let one = Var::full(y.shape(), 1.0);
    let found = grad::gradients(&y, &one, std::slice::from_ref(&kernel), &[]).unwrap();
    let plan = compile(&found.values, &CompileOptions::default()).unwrap();
    let (mut image, last) = (vec![0.0f32; c * h * w], (c - 1) * h * w);
    (image[last], image[last + 100 * w + 50], image[last + h * w - 1]) = (1.0, 2.0, 4.0);
    let image = Tensor::from_slice(x.shape(), &image).unwrap();
    let got = Session::new(plan, engine(2)).unwrap().run(&[image]).unwrap()[0].to_f32();
    // The first element is above and left of the windows of the last taps, the last one below and right of the first.
    let (zeros, got) = got.split_at((c - 1) * 9);
    assert!(zeros.iter().all(|&sum| sum == 0.0));
    assert_eq!(got, [3.0, 3.0, 2.0, 3.0, 7.0, 6.0, 2.0, 6.0, 6.0]);
}
