//! The measured model of costs, against what was measured.

use crate::cost_rows::{Row, powers, times};
use aneforge::ir::ops::conv::Conv;
use aneforge::nn::{Attention, sdpa};
use aneforge::target::CHIPS;
use aneforge::target::cost::{BAND_ELSEWHERE, Estimate, Processor, Rates, Terms, measured, package, place};
use aneforge::{Graph, Shape, Target, Tensor, Var, Weight, f16};
use aneforge_tensor::{BlockwiseWeight, Int8Weight};

/// Beyond this a row has a reason in the table, and within it none.
const EXPLAINED: f64 = 1.25;

/// The chips that were measured, with the geometric mean of the error on their rows, as found.
const CHIPS_MEASURED: [(&str, f64); 3] = [("h13", 1.142), ("h14g", 1.082), ("h17s", 1.085)];

struct Outcome {
    row: Row,
    estimate: Estimate,
}

impl Outcome {
    fn ratio(&self) -> f64 {
        self.row.time(&self.estimate) / self.row.measured
    }

    /// By what factor the time is off without a part of it.
    fn without(&self, part: impl Fn(&Terms) -> f64) -> f64 {
        off((self.row.time(&self.estimate) - part(&self.estimate.terms)) / self.row.measured)
    }

    fn is_of(&self, chip: &str) -> bool {
        self.row.target.name() == chip
    }
}

fn outcomes() -> Vec<Outcome> {
    times().into_iter().map(|row| Outcome { estimate: row.estimate(), row }).collect()
}

/// By what factor a ratio is off.
fn off(ratio: f64) -> f64 {
    ratio.max(1.0 / ratio)
}

/// The geometric mean of such factors.
fn mean(factors: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = factors.map(f64::ln).collect();
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}

fn on(chip: &str) -> Target {
    Target::named(chip).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

fn ones(dims: &[usize]) -> Var {
    Var::full(Shape::new(dims).unwrap(), 1.0)
}

fn graph(y: Var) -> Graph {
    Graph::freeze(&[y]).unwrap()
}

fn linear(rows: usize, k: usize, n: usize) -> Graph {
    graph(input(&[rows, k]).linear(&ones(&[n, k]), None))
}

fn conv(channels: usize, size: usize, stride: i64, weight: &Var) -> Graph {
    let op = Conv { strides: [stride; 2], pad: [0; 4], dilations: [1, 1], groups: 1 };
    graph(input(&[1, channels, size, size]).conv(op, weight, None))
}

fn bytes(dims: &[usize]) -> Var {
    let shape = Shape::new(dims).unwrap();
    let codes = Tensor::from_slice(shape, &vec![0i8; shape.count()]).unwrap();
    let line = Shape::new(&dims[..1]).unwrap();
    let scales = Tensor::from_slice(line, &vec![f16::ONE; dims[0]]).unwrap();
    Var::constant(Weight::from(Int8Weight::new(codes, scales).unwrap()))
}

fn microseconds(graph: &Graph, chip: &str) -> f64 {
    measured(graph, on(chip), false).unwrap().microseconds
}

/// Every row, each within half of the truth and more, and far ones with a reason.
#[test]
fn times_are_near_what_was_measured() {
    let all = outcomes();
    assert_eq!(all.len(), 80);
    for o in &all {
        let Row { reason, source, tag, note, .. } = o.row;
        assert!(tag == "measured" && source.len() > 10 && !note.contains("  "), "{}", o.row.text);
        let (target, text, ratio) = (o.row.target, o.row.text, o.ratio());
        assert_eq!(off(ratio) > EXPLAINED, !reason.is_empty(), "{target} {text}: {ratio:.3}, {reason:?}");
    }
    for (chip, found) in CHIPS_MEASURED {
        let of: Vec<&Outcome> = all.iter().filter(|o| o.is_of(chip)).collect();
        let near = of.iter().filter(|o| off(o.ratio()) <= 1.5).count();
        assert!(near as f64 >= 0.85 * of.len() as f64, "{chip}: {near} of {}", of.len());
        let mean = mean(of.iter().map(|o| off(o.ratio())));
        assert!((mean - found).abs() < 0.002, "{chip}: {mean}");
    }
    // The band of estimates holds them all, and two of three rows of the package's own formula.
    let in_band = |o: &&Outcome| o.estimate.low <= o.row.measured && o.row.measured <= o.estimate.high;
    assert!(all.iter().filter(in_band).count() >= 79);
    let theirs = |o: &Outcome| {
        off(package::estimate_on(&o.row.graph(), o.row.target, o.row.text.ends_with("int8")).unwrap()
            / o.row.measured)
    };
    let (ours, theirs) = (mean(all.iter().map(|o| off(o.ratio()))), mean(all.iter().map(theirs)));
    assert!(ours < 1.11 && theirs > 1.4, "{ours} {theirs}");
}

/// No part of the model can be left out.
#[test]
fn every_term_is_needed() {
    type Part = (&'static str, &'static str, fn(&Terms) -> f64, f64);
    let parts: [Part; 9] = [
        ("floor", "h13", |t| t.floor, 5.0),
        ("floor", "h17s", |t| t.floor, 5.0),
        ("ports", "h13", |t| t.ports, 1.5),
        ("ports", "h14g", |t| t.ports, 2.0),
        ("ports", "h17s", |t| t.ports, 1.5),
        ("weights", "h14g", |t| t.weights, 5.0),
        ("arithmetic", "h17s", |t| t.arithmetic, 2.0),
        ("spill", "h13", |t| t.spill, 5.0),
        ("norms", "h17s", |t| t.norms, 5.0),
    ];
    let all = outcomes();
    for (name, chip, part, worst) in parts {
        let of = || all.iter().filter(|o| o.is_of(chip));
        let got = of().map(|o| o.without(part)).fold(1.0, f64::max);
        assert!(got >= worst, "without {name} the worst row of {chip} is off by {got:.2} only");
        let (with, without) = (mean(of().map(|o| off(o.ratio()))), mean(of().map(|o| o.without(part))));
        assert!(without > with + 0.01, "without {name} {chip} has {without:.3}, with it {with:.3}");
    }
}

/// Watts, where the shape of what ran is known or inferred.
#[test]
fn powers_are_near_what_was_measured() {
    let rows = powers();
    assert_eq!(rows.len(), 12);
    let ratio = |row: &Row| {
        let estimate = row.estimate();
        let ratio = estimate.millijoules * 1e3 / estimate.microseconds / row.measured;
        assert!(off(ratio) <= estimate.energy_band, "{} {}: {ratio}", row.target, row.text);
        off(ratio)
    };
    let mean = mean(rows.iter().map(ratio));
    assert!((mean - 1.113).abs() < 0.002, "{mean}");
    // A saturated chain of convolutions on an M5 Pro: 2289 GFLOP/s per watt.
    let op = Conv { strides: [1; 2], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let weight = ones(&[256, 256, 3, 3]);
    let chain = graph((0..16).fold(input(&[1, 256, 32, 32]), |x, _| x.conv(op.clone(), &weight, None)));
    let estimate = measured(&chain, on("h17s"), false).unwrap();
    let gflop = 16.0 * 2.0 * 256.0 * 256.0 * 9.0 * 1024.0 / 1e9;
    assert!(off(gflop / (estimate.millijoules / 1e3) / 2289.0) < 1.02, "{estimate:?}");
}

/// What is stored in fewer bytes saves time where the family reads it so, and nowhere else.
#[test]
fn forms_of_weights_count_as_they_are_read() {
    let dense = linear(1, 4096, 4096);
    let stored = graph(input(&[1, 4096]).linear(&bytes(&[4096, 4096]), None));
    for (chip, saves) in [("h13", false), ("h14g", true), ("h15", true), ("h17s", true)] {
        let what_if = measured(&dense, on(chip), true).unwrap().microseconds;
        let [full, encoded] = [&dense, &stored].map(|graph| microseconds(graph, chip));
        assert!((what_if / encoded - 1.0).abs() < 1e-3, "{chip}: {what_if} {encoded}");
        assert_eq!(encoded < 0.7 * full, saves, "{chip}: {encoded} of {full}");
        assert_eq!(encoded == full, !saves, "{chip}: {encoded} of {full}");
    }
    // Blocks are expanded everywhere: programs add zero to them.
    let scales = Tensor::from_slice(Shape::new(&[4096, 128]).unwrap(), &vec![f16::ONE; 4096 * 128]).unwrap();
    let codes = Tensor::from_slice(Shape::new(&[4096, 4096]).unwrap(), &vec![0i8; 4096 * 4096]).unwrap();
    let blocks = Var::constant(Weight::from(BlockwiseWeight::new(codes, scales).unwrap()));
    let blocks = graph(input(&[1, 4096]).linear(&blocks, None));
    assert_eq!(microseconds(&blocks, "h17s"), microseconds(&dense, "h17s"));
    // A convolution that takes steps does not stream.
    let at = |stride, weight: &Var| microseconds(&conv(512, 8, stride, weight), "h17s");
    let (full, encoded) = (ones(&[512, 512, 3, 3]), bytes(&[512, 512, 3, 3]));
    assert!(at(1, &encoded) < at(1, &full));
    assert_eq!(at(2, &encoded), at(2, &full));
}

#[test]
fn programs_and_what_crosses_between_them() {
    let x = || input(&[1, 8, 128, 64]);
    let attention = sdpa(&x(), &x(), &x(), &Attention::default());
    let of = |y: Var| measured(&graph(y), on("h13"), false).unwrap();
    let alone = of(attention.clone());
    assert_eq!((alone.programs, alone.terms.cuts), (1, 0.0));
    // A value of 131072 bytes out of the layer and into the next program, and one more floor.
    let after = of(attention.softmax(-1));
    assert_eq!(after.programs, 2);
    assert!((after.terms.cuts - (190.0 + 2.0 * 131072.0 / 7e3)).abs() < 1e-6, "{:?}", after.terms);
    // Two layers of one value: it is written once and read twice.
    let rows = input(&[4, 512]).softmax(-1);
    let both = Graph::freeze(&[rows.argmax(1), rows.topk(5, true)]).unwrap();
    let both = measured(&both, on("h14g"), false).unwrap();
    assert_eq!(both.programs, 3);
    assert!((both.terms.cuts - (2.0 * 145.0 + 3.0 * 4096.0 / 1e4)).abs() < 1e-6, "{:?}", both.terms);
    // Layers were measured on an M5 Pro only.
    assert!(!both.measured && !alone.measured);
    let m5 = measured(&graph(input(&[4, 512]).topk(5, true)), on("h17s"), false).unwrap();
    assert!(m5.measured && (m5.microseconds / 385.2 - 1.0).abs() < 0.05, "{m5:?}");
}

/// Fused functions leave nothing in between; other values of two MiB go through memory.
#[test]
fn large_values_between_nodes_spill() {
    let spill = |y: Var| measured(&graph(y), on("h13"), false).unwrap().terms.spill;
    let x = || input(&[8192, 128]);
    assert_eq!(spill(x().softmax(-1).relu()), 0.0);
    assert!((spill(x().softmax(-1).softmax(-1)) - 2.0 * 2097152.0 / 85e3).abs() < 1e-6);
    assert_eq!(spill(input(&[8191, 128]).softmax(-1).softmax(-1)), 0.0);
    assert_eq!(spill(x().softmax(-1).reshape(&[128, 8192])), 2.0 * 2097152.0 / 85e3);
}

/// Chips that were not measured are scaled from those that were, and say so.
#[test]
fn other_chips_are_scaled() {
    let graph = linear(1024, 1024, 1024);
    for chip in CHIPS.iter() {
        let Ok(estimate) = measured(&graph, on(chip.name), false) else {
            assert!(["h12", "m9", "t0", "h18p", "h19p"].contains(&chip.name), "{}", chip.name);
            continue;
        };
        let own = ["h13", "h13g", "h14g", "h17s"].contains(&chip.name);
        assert_eq!(estimate.measured, own, "{}", chip.name);
        let band = match chip.name {
            "h17s" => 1.49,
            _ if own => 1.96,
            _ => BAND_ELSEWHERE,
        };
        assert!((estimate.microseconds / estimate.low - band).abs() < 1e-9, "{}", chip.name);
        assert!(estimate.high >= band * estimate.microseconds * (1.0 - 1e-9), "{}", chip.name);
        assert!((estimate.terms.total() - estimate.microseconds).abs() < 1e-9);
    }
    assert_eq!(microseconds(&graph, "h13g"), microseconds(&graph, "h13"));
    // Four cores of an M2 have (4/8)^0.56 of an M2 Pro's arithmetic, and its memory is enough for its streams.
    let [base, pro] = ["h14", "h14g"].map(|chip| Rates::of(on(chip)).unwrap().constants);
    assert!((base.arithmetic.value / pro.arithmetic.value - 0.5f64.powf(0.56)).abs() < 1e-9);
    assert_eq!((base.streamed_weights.value, base.floor.value), (55.0, 145.0));
    // That of an M4, of 125 GB/s, is not enough for an M5 Pro's.
    let m4 = Rates::of(on("h16")).unwrap().constants;
    assert_eq!((m4.streamed_weights.value, m4.memory.value), (0.75 * 125.0, 125.0));
    // More cores are never slower, in a family.
    for pair in ["h17", "h17g", "h17s", "h17c", "h17d"].windows(2) {
        assert!(microseconds(&graph, pair[0]) >= microseconds(&graph, pair[1]), "{pair:?}");
    }
}

/// The workloads that were measured on engine and GPU, by where they are faster and where they take less energy.
#[test]
fn places_are_those_that_were_measured() {
    use Processor::{Cpu, Engine, Gpu};
    let heads = |batch: usize, rows: usize, keys: usize| {
        let q = input(&[batch, 12, rows, 64]);
        q.matmul_value(&input(&[batch, 12, 64, keys]))
            .softmax(-1)
            .matmul_value(&input(&[batch, 12, keys, 64]))
    };
    let block = |batch: usize| {
        let wide = ones(&[3072, 768]);
        let x = heads(batch, 197, 197).transpose(&[0, 2, 1, 3]).reshape(&[batch as i64 * 197, 768]);
        graph(x.linear(&wide, None).gelu().linear(&ones(&[768, 3072]), None))
    };
    let chain = |channels| {
        let op = Conv { strides: [1; 2], pad: [1; 4], dilations: [1, 1], groups: 1 };
        let w = ones(&[channels, channels, 3, 3]);
        graph((0..16).fold(input(&[1, channels, 32, 32]), |x, _| x.conv(op.clone(), &w, None)))
    };
    let rows = [
        ("h13", linear(64, 256, 256), Cpu, None),
        ("h13", linear(128, 1024, 1024), Gpu, Some(Engine)),
        ("h17s", linear(128, 1024, 1024), Engine, None),
        ("h13", linear(256, 4096, 4096), Gpu, Some(Engine)),
        ("h17s", linear(256, 4096, 4096), Gpu, Some(Engine)),
        ("h13", chain(256), Engine, Some(Engine)),
        ("h17s", chain(256), Engine, Some(Engine)),
        ("h13", block(1), Engine, Some(Engine)),
        ("h13", graph(heads(1, 512, 512)), Gpu, Some(Engine)),
        ("h17s", graph(heads(6, 197, 197)), Gpu, Some(Engine)),
        ("h17s", graph(heads(5, 197, 197)), Engine, Some(Engine)),
        ("h17s", block(22), Engine, Some(Engine)),
        ("h17s", block(23), Gpu, Some(Engine)),
        ("h17s", block(257), Gpu, None),
        ("h17s", linear(16, 4096, 4096), Gpu, Some(Gpu)),
        ("h17s", linear(64, 4096, 4096), Engine, None),
        ("h17s", graph(input(&[256, 65536]).relu()), Engine, None),
    ];
    for (chip, graph, fastest, least_energy) in rows {
        let place = place(&graph, on(chip)).unwrap();
        assert_eq!((place.fastest, place.least_energy), (fastest, least_energy), "{chip} {graph}: {place}");
        assert_eq!(measured(&graph, on(chip), false).unwrap().place, place);
        let said = place.to_string();
        let begins = match (fastest, least_energy) {
            (Engine, _) => "the engine is the place: ",
            (_, Some(Engine)) => "the engine is slower than the gpu, but takes less energy: ",
            _ => "the engine is the wrong place, the ",
        };
        assert!(said.starts_with(begins), "{said}");
        assert_eq!(place.is_wrong(), begins.contains("wrong"), "{said}");
    }
}
