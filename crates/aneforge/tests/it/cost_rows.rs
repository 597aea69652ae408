//! The rows of `tests/silicon/cost.tsv`: graphs whose time was measured, as they are written there. The test of the measured
//! model reads them, and so does the page that `cargo xtask gen` writes.

use aneforge::ir::ops::conv::Conv;
use aneforge::target::cost::{Estimate, Rates, measured};
use aneforge::{Graph, Shape, Target, Tensor, Var, Weight, f16};
use aneforge_tensor::{Int8Weight, Lut4Weight, SparseWeight};

const TIMES: &str = include_str!("../silicon/cost.tsv");
const POWERS: &str = include_str!("../silicon/power.tsv");

/// A graph that was measured on a chip.
pub struct Row {
    /// The chip.
    pub target: Target,
    /// The graph, as it is written.
    pub text: &'static str,
    /// Microseconds, or watts.
    pub measured: f64,
    /// Whether the harness had the slower floor.
    pub loaded: bool,
    /// Whose figure it is, how it is known, and what else there is to say.
    pub source: &'static str,
    pub tag: &'static str,
    pub note: &'static str,
    /// Why the model is far off, where it is.
    pub reason: &'static str,
}

/// Graphs whose time was measured.
pub fn times() -> Vec<Row> {
    read(TIMES)
}

/// Graphs whose power was measured.
pub fn powers() -> Vec<Row> {
    read(POWERS)
}

fn read(table: &'static str) -> Vec<Row> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<&'static str> = line.split('\t').collect();
            let [target, text, measured, floor, source, tag, note, reason] = fields[..] else {
                panic!("not eight fields: {line}")
            };
            let target = Target::named(target).unwrap_or_else(|e| panic!("{line}: {e}"));
            let measured = measured.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            Row { target, text, measured, loaded: floor == "loaded", source, tag, note, reason }
        })
        .collect()
}

impl Row {
    /// The graph.
    pub fn graph(&self) -> Graph {
        Graph::freeze(&[built(self.text)]).unwrap_or_else(|e| panic!("{}: {e}", self.text))
    }

    /// What the model makes of it.
    pub fn estimate(&self) -> Estimate {
        measured(&self.graph(), self.target, false).unwrap_or_else(|e| panic!("{}: {e}", self.text))
    }

    /// Microseconds in this row's harness.
    pub fn time(&self, estimate: &Estimate) -> f64 {
        let rates = Rates::of(self.target).expect("the chip was measured").constants;
        let floor = if self.loaded { rates.loaded_floor.value - rates.floor.value } else { 0.0 };
        estimate.microseconds + floor
    }
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).expect("a shape")
}

/// The numbers in a text.
fn numbers(text: &str) -> Vec<usize> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    digits.map(|part| part.parse().expect("digits")).collect()
}

fn built(text: &str) -> Var {
    let (op, rest) = text.split_once(' ').unwrap_or_else(|| panic!("no operands: {text}"));
    match op {
        "matmul" => product(rest),
        _ if op.starts_with("conv") => convolution(numbers(op)[0], rest),
        "max_pool2" => Var::input(shape(&numbers(rest))).max_pool(2, 2, 0),
        "avg_pool2" => Var::input(shape(&numbers(rest))).avg_pool(2, 2, 0),
        _ => function(op, &numbers(rest)),
    }
}

fn function(op: &str, dims: &[usize]) -> Var {
    let x = Var::input(shape(dims));
    let one = || Var::full(shape(&dims[dims.len() - 1..]), 1.0);
    match op {
        "relu" => x.relu(),
        "gelu" => x.gelu(),
        "sigmoid" => x.sigmoid(),
        "softmax" => x.softmax(-1),
        "l2_norm" => x.l2_norm(-1, 1e-6),
        "rms_norm" => x.rms_norm(&one(), 1e-5),
        "layer_norm" => x.layer_norm(&one(), &one(), 1e-5),
        other => panic!("no function {other}"),
    }
}

/// `[M,K]@[K,N]`, perhaps several times, perhaps with a weight in another form.
fn product(rest: &str) -> Var {
    let (operands, more) = rest.split_once(' ').unwrap_or((rest, ""));
    let [rows, inner, _, columns] = numbers(operands)[..] else { panic!("not a product: {rest}") };
    let weight = Var::constant(stored(shape(&[columns, inner]), more));
    let times = more.strip_prefix('x').map_or(1, |times| times.parse().expect("how often"));
    (0..times).fold(Var::input(shape(&[rows, inner])), |x, _| x.linear(&weight, None))
}

/// A weight of this form, of zeros and ones.
fn stored(shape: Shape, form: &str) -> Weight {
    let count = shape.count();
    let bytes = |count: usize, value: u8| vec![value; count];
    let line = |count: usize| Shape::new(&[count]).expect("a shape");
    let fixed = "a weight of this form";
    if form == "int8" {
        let codes = Tensor::from_slice(shape, &vec![0i8; count]).expect(fixed);
        let scales = Tensor::from_slice(line(shape[0]), &vec![f16::ONE; shape[0]]).expect(fixed);
        return Int8Weight::new(codes, scales).expect(fixed).into();
    }
    if form.starts_with("int4") {
        let indices = Tensor::from_slice(line(count / 2), &bytes(count / 2, 0)).expect(fixed);
        let table = Tensor::from_slice(line(16), &[f16::ONE; 16]).expect(fixed);
        return Lut4Weight::new(shape, indices, table).expect(fixed).into();
    }
    if form.starts_with("sparse") {
        // 8 of every 25 bytes of the mask are full: 32 %.
        let [percent] = numbers(form)[..] else { panic!("how many are kept: {form}") };
        let mask: Vec<u8> = (0..count / 8).map(|i| if i % 100 < percent { 255 } else { 0 }).collect();
        let kept = mask.iter().filter(|&&byte| byte == 255).count() * 8;
        let mask = Tensor::from_slice(line(count / 8), &mask).expect(fixed);
        let values = Tensor::from_slice(line(kept), &vec![f16::ONE; kept]).expect(fixed);
        return SparseWeight::new(shape, mask, values).expect(fixed).into();
    }
    assert!(form.is_empty() || form.starts_with('x'), "no form {form}");
    Weight::Dense(Tensor::from_slice(shape, &vec![f16::ONE; count]).expect(fixed))
}

/// `64>64 @16x16 valid`, and what follows: `s2` (its step), `x16` (how often), `relu`, `mean` (over the image).
fn convolution(kernel: usize, rest: &str) -> Var {
    let mut parts = rest.split(' ');
    let mut pair = || match numbers(parts.next().unwrap_or_default())[..] {
        [first, second] => [first, second],
        _ => panic!("not a convolution: {rest}"),
    };
    let ([from, to], [height, width]) = (pair(), pair());
    let options: Vec<&str> = parts.collect();
    let given = |what: char| {
        let option = options.iter().find_map(|option| option.strip_prefix(what)?.parse().ok());
        option.unwrap_or(1usize)
    };
    let pad = if options.contains(&"same") { kernel as i64 / 2 } else { 0 };
    let op = Conv { strides: [given('s') as i64; 2], pad: [pad; 4], dilations: [1, 1], groups: 1 };
    let weight = Var::full(shape(&[to, from, kernel, kernel]), 1.0);
    let image = Var::input(shape(&[1, from, height, width]));
    let mut y = (0..given('x')).fold(image, |x, _| x.conv(op.clone(), &weight, None));
    for option in options {
        y = match option {
            "relu" => y.relu(),
            "mean" => y.mean(&[2, 3]),
            _ => y,
        };
    }
    y
}
