//! The cost models, against the numbers that the reference works out.

use aneforge::ir::ops::conv::Conv;
use aneforge::nn::{Attention, sdpa};
use aneforge::target::cost::{estimate, estimate_on, peak, provenance};
use aneforge::{Graph, Shape, Target, Var};

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

fn weight(dims: &[usize]) -> Var {
    Var::full(Shape::new(dims).unwrap(), 0.5)
}

fn graph(y: Var) -> Graph {
    Graph::freeze(&[y]).unwrap()
}

fn linear(rows: usize, k: usize, n: usize) -> Graph {
    graph(input(&[rows, k]).linear(&weight(&[n, k]), None))
}

fn conv(channels: usize, size: usize, kernel: usize) -> Graph {
    let pad = (kernel / 2) as i64;
    let op = Conv { strides: [1, 1], pad: [pad; 4], dilations: [1, 1], groups: 1 };
    let w = weight(&[channels, channels, kernel, kernel]);
    graph(input(&[1, channels, size, size]).conv(op, &w, None))
}

fn attention() -> Graph {
    let x = || input(&[1, 8, 128, 64]);
    graph(sdpa(&x(), &x(), &x(), &Attention::default()))
}

fn close(got: f64, want: f64, what: &str) {
    // The reference prints two or three decimals.
    assert!((got - want).abs() <= 6e-3 * (1.0 + want / 1000.0), "{what}: {got}, want {want}");
}

/// No spelling of a chip makes a layer thousands of times as slow as another.
#[test]
fn layers_take_about_as_long_by_both_models() {
    let rows = input(&[1, 4096]);
    let layers = [
        rows.sort(true, false),
        rows.topk(5, true),
        input(&[64, 3]).fps(16),
        input(&[1, 16, 32, 32]).minmax_norm("Width", 1e-5),
        input(&[4]).dynamic_slice(1),
    ];
    for layer in layers {
        let graph = graph(layer);
        let measured = estimate(&graph, false);
        for chip in ["m1", "h14", "m5", "h17s"] {
            let analytic = estimate_on(&graph, Target::named(chip).unwrap(), false).unwrap();
            let ratio = measured / analytic;
            assert!((0.2..5.0).contains(&ratio), "{graph}: {measured} us, and {analytic} us on {chip}");
        }
    }
}

#[test]
fn the_measured_model() {
    close(estimate(&graph(input(&[1, 64]).relu()), false), 63.3, "relu");
    close(estimate(&linear(768, 768, 768), false), 63.3, "768^3");
    close(estimate(&linear(768, 768, 768), true), 60.619, "768^3 in int8");
    close(estimate(&linear(1, 4096, 4096), false), 305.189, "4096");
    close(estimate(&linear(1, 4096, 4096), true), 121.652, "4096 in int8");
    close(estimate(&conv(2048, 8, 1), false), 81.03, "conv");
    close(estimate(&attention(), false), 327.6, "attention");
}

#[test]
fn the_analytic_model() {
    let rows = [
        (conv(256, 28, 3), [504.57, 491.42, 475.66, 213.92, 135.98]),
        (conv(512, 32, 1), [511.27, 379.38, 366.38, 170.32, 125.08]),
        (conv(512, 14, 3), [788.89, 491.42, 475.66, 213.92, 135.98]),
        (conv(2048, 8, 1), [1210.32, 379.38, 366.38, 266.37, 149.09]),
    ];
    for (graph, want) in rows {
        for (name, want) in ["h13", "h14", "h15", "h16s", "h17d"].into_iter().zip(want) {
            close(estimate_on(&graph, Target::named(name).unwrap(), false).unwrap(), want, name);
        }
    }
    let on =
        |graph: &Graph, name: &str, int8| estimate_on(graph, Target::named(name).unwrap(), int8).unwrap();
    close(on(&linear(768, 768, 768), "h14", false), 486.45, "768^3 on h14");
    close(on(&linear(1, 4096, 4096), "h13", true), 2085.96, "int8 on h13");
    close(on(&linear(1, 4096, 4096), "h17s", true), 404.62, "int8 on h17s");
    close(on(&attention(), "h17s", false), 209.20, "attention on h17s");
}

#[test]
fn peaks_and_where_estimates_come_from() {
    let of = |name| Target::named(name).unwrap();
    close(peak(of("h13")).unwrap().tflops, 1.8, "M1");
    close(peak(of("h17d")).unwrap().rel_m1, 19.7681, "h17d");
    assert_eq!((peak(of("h15c")).unwrap().cores, provenance(of("h15c"))), (32, ("h14", false)));
    assert_eq!(provenance(of("h16g")), ("h17s", true));
    assert!(peak(of("t0")).unwrap_err().to_string().contains("no recorded clock"));
}
