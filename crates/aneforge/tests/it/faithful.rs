//! All that is published of the engine's arithmetic: every row of the list, and products of operands that meet every rule.

use crate::random_graph::{cases, generate};
use crate::support::{assert_same, engine, evaluate, feed_tensors, run_segments, tensor, to_f64};
use aneforge::device::Device;
use aneforge::device::host::{Host, Isa, Sums};
use aneforge::doctor::silicon::ROWS;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::precision::{Array, Precision};
use aneforge::{
    CompileOptions, DType, Family, Graph, Numerics, Session, Shape, Target, Var, Weight, compile, f16,
};
use aneforge_tensor::{Int8Weight, Tensor, random};
use proptest::prelude::*;
use std::sync::Arc;

fn chip(family: Family) -> Target {
    let name = match family {
        Family::A14 => "h14",
        Family::A15 => "h15",
        Family::A16 => "h17s",
        _ => "h13",
    };
    Target::named(name).unwrap()
}

fn bits(values: &[f16]) -> Vec<u16> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Every published value, bit for bit, in each family that it is known of; what we cannot reproduce is listed as open.
#[test]
fn published_values_are_reproduced() {
    let (mut reproduced, mut open) = (0, Vec::new());
    for row in ROWS.iter() {
        if row.open.is_some() {
            open.push(row.id.as_str());
            continue;
        }
        let expected: Vec<Vec<u16>> = row.expected().unwrap().iter().map(|v| bits(v)).collect();
        for family in row.families() {
            let host: Arc<dyn Device> = Arc::new(engine(2).with_numerics(Numerics::Faithful(family)));
            let got = bits(&row.run(&host, chip(family)).unwrap_or_else(|why| panic!("{}: {why}", row.id)));
            assert!(expected.contains(&got), "{} in {family}: got {got:x?}, want {expected:x?}", row.id);
        }
        reproduced += 1;
    }
    let known = [
        "floor-div-older",
        "product-error-of-long-sums",
        "table-errors",
        "trigonometric-seams",
        "layer-norm-of-nan",
        "winograd",
    ];
    assert_eq!((reproduced, open), (75, known.to_vec()));
}

/// The default reproduces what costs nothing, and says so by failing the rest.
#[test]
fn the_default_reproduces_what_is_free() {
    let mut other = Vec::new();
    for row in ROWS.iter().filter(|row| row.open.is_none()) {
        let expected: Vec<Vec<u16>> = row.expected().unwrap().iter().map(|v| bits(v)).collect();
        let host: Arc<dyn Device> = Arc::new(engine(2));
        let got = bits(&row.run(&host, chip(row.families()[0])).unwrap());
        if !expected.contains(&got) {
            other.push(row.id.as_str());
        }
    }
    assert_eq!(
        other,
        [
            "sum-4096-and-ones",
            "survivors-4096",
            "survivors-8000",
            "survivors-16000",
            "survivors-30000",
            "survivors-turned-4096",
            "survivors-turned-8000",
            "survivors-turned-16000",
            "survivors-turned-30000",
            "tie-of-sum-away",
            "subnormals-in-sums-flushed",
            "gelu-of-zero",
            "silu-of-zero",
            "bytes-ties-away",
            "bytes-all",
            "native-round",
            "byte-weights-4094",
            "partial-overflow",
        ]
    );
}

/// Numbers that meet the rules: ones, subnormal, large, infinite and ordinary ones.
fn wild(dims: &[usize], seed: u64, kind: usize) -> Array {
    let value = |i: usize| {
        let (pick, v) = (random::uniform(seed, 2 * i as u64), random::normal(seed, 2 * i as u64 + 1));
        let v = match (kind, (pick * 8.0) as usize) {
            (0, _) => 1.0,
            (1, 0) => 3e-6 * v,
            (2, _) => 9000.0 * v,
            (3, 0) => f32::INFINITY.copysign(v),
            _ => v,
        };
        f16::from_f32(v).to_f64()
    };
    Array::from_fn(Shape::new(dims).unwrap(), value)
}

/// What a graph gives on the host, and by its definition.
fn both(output: &Var, feeds: &[Array], numerics: Numerics, host: Host) -> [Vec<f64>; 2] {
    let family = numerics.family().unwrap();
    let plan = compile(std::slice::from_ref(output), &CompileOptions::target(chip(family))).unwrap();
    let graph = Graph::freeze(std::slice::from_ref(output)).unwrap();
    let want = evaluate(&plan.segments[0].graph, feeds, Precision::F16(numerics));
    let mut session = Session::new(plan, host.with_numerics(numerics)).unwrap();
    session.run(&feed_tensors(&graph, feeds)).unwrap();
    [to_f64(&session.output(0)), want.data]
}

#[test]
fn products_meet_every_rule() {
    let input = |dims: &[usize]| Var::input(Shape::new(dims).unwrap());
    let conv = |x: &Var, dims: &[usize], groups: usize, seed: u64, kind: usize| {
        let op = Conv { strides: [1, 2], pad: [1, 0, 2, 1], dilations: [1, 1], groups: groups as i64 };
        x.conv(op, &Var::constant(tensor(&wild(dims, seed, kind))), None)
    };
    for (seed, (left, right)) in (0..5).flat_map(|l| (0..5).map(move |r| (l, r))).enumerate() {
        let seed = 100 * seed as u64;
        // No constant may be infinite.
        let constant = if right == 3 { 1 } else { right };
        let bias = Var::constant(tensor(&wild(&[9], seed + 5, 4)));
        let linear =
            input(&[7, 70]).linear(&Var::constant(tensor(&wild(&[9, 70], seed, constant))), Some(&bias));
        let image = input(&[2, 6, 5, 7]);
        let cases = [
            (linear, vec![wild(&[7, 70], seed + 1, left)]),
            (
                input(&[2, 1, 3, 33]).matmul_value(&input(&[4, 33, 5])),
                vec![wild(&[2, 1, 3, 33], seed + 1, left), wild(&[4, 33, 5], seed + 2, right)],
            ),
            (conv(&image, &[4, 6, 3, 3], 1, seed, constant), vec![wild(&[2, 6, 5, 7], seed + 1, left)]),
            (conv(&image, &[6, 3, 2, 3], 2, seed, constant), vec![wild(&[2, 6, 5, 7], seed + 1, left)]),
            (conv(&image, &[6, 1, 3, 3], 6, seed, constant), vec![wild(&[2, 6, 5, 7], seed + 1, left)]),
            (conv(&image, &[6, 1, 1, 1], 6, seed, constant), vec![wild(&[2, 6, 5, 7], seed + 1, left)]),
        ];
        for (at, (output, feeds)) in cases.iter().enumerate() {
            for family in [Family::A13, Family::A15, Family::A16] {
                let numerics = Numerics::Faithful(family);
                let [got, want] = both(output, feeds, numerics, engine(2));
                assert_same(&got, &want, &format!("case {at}, operands {left} and {right}, {numerics}"));
            }
        }
    }
}

/// Functions of many elements are looked up, sums of two broadcast.
#[test]
fn functions_of_many_elements_are_their_definition() {
    let all = Array::from_fn(Shape::new(&[8, 8192]).unwrap(), |bits| {
        let half = f16::from_bits(bits as u16);
        // What is fed is never NaN.
        if half.is_nan() { f64::INFINITY } else { half.to_f64() }
    });
    let (x, row) = (Var::input(all.shape), Var::constant(tensor(&wild(&[8192], 3, 1))));
    for (name, output) in [
        ("gelu", x.gelu()),
        ("sigmoid", x.sigmoid()),
        ("round", x.native_round()),
        ("log", x.log(0.0)),
        ("mul", &x * &row),
        ("add", &row + &x),
    ] {
        for family in [Family::A13, Family::A16] {
            let numerics = Numerics::Faithful(family);
            let [got, want] = both(&output, std::slice::from_ref(&all), numerics, engine(2));
            assert_same(&got, &want, &format!("{name}, {numerics}"));
        }
    }
}

/// Activations beyond what weights of eight bits are multiplied by become infinite.
#[test]
fn weights_of_eight_bits_take_large_values_for_infinities() {
    let codes = Tensor::from_slice(Shape::new(&[1, 1]).unwrap(), &[1i8]).unwrap();
    let scales = Tensor::from_slice(Shape::new(&[1]).unwrap(), &[f16::ONE]).unwrap();
    let weight = Var::constant(Weight::from(Int8Weight::new(codes, scales).unwrap()));
    let output = Var::input(Shape::new(&[2, 1]).unwrap()).linear(&weight, None);
    let feed = Array { shape: Shape::new(&[2, 1]).unwrap(), data: vec![4094.0, -4096.0] };
    for (numerics, want) in [
        (Numerics::Faithful(Family::A13), [4094.0, f64::NEG_INFINITY]),
        (Numerics::Faithful(Family::A16), [4094.0, f64::NEG_INFINITY]),
        (Numerics::Ane(Family::A13), [4094.0, -4096.0]),
    ] {
        let plan =
            compile(std::slice::from_ref(&output), &CompileOptions::target(chip(Family::A13))).unwrap();
        let mut session = Session::new(plan, engine(1).with_numerics(numerics)).unwrap();
        session.run(&[tensor(&feed)]).unwrap();
        assert_same(&to_f64(&session.output(0)), &want, &numerics.to_string());
        let graph = Graph::freeze(std::slice::from_ref(&output)).unwrap();
        let defined = evaluate(&graph, std::slice::from_ref(&feed), Precision::F16(numerics));
        assert_same(&defined.data, &want, "as defined");
    }
}

/// What rules say of single numbers.
#[test]
fn rules_of_numbers() {
    let of = |family| Precision::F16(Numerics::Faithful(family));
    let subnormal = f16::from_bits(0x0200).to_f64();
    let stored = [Family::A13, Family::A14, Family::A15, Family::A16].map(|f| of(f).store_product(subnormal));
    assert_eq!(stored, [0.0, 0.0, subnormal, subnormal]);
    let next = 1.0 + 2f64.powi(-10);
    let ane = Precision::F16(Numerics::Ane(Family::A13));
    assert_eq!([of(Family::A15), ane].map(|p| p.square(next)), [1.0 + 2f64.powi(-9), next * next]);
    // A lane of padding is a lane.
    let mut sum = of(Family::A16).sum();
    sum.skip();
    [4096.0, 1.0, 1.0, 1.0].into_iter().for_each(|v| sum.push(v));
    assert_eq!(sum.total(), 4097.0);
    let mut dot = of(Family::A16).dot();
    dot.pad(1.0);
    [4096.0, 1.0, 1.0, 1.0].into_iter().for_each(|v| dot.push(v, 1.0));
    assert_eq!(dot.total(), 4097.0);
    let mut dot = of(Family::A16).dot();
    dot.pad(0.5);
    [4096.0, 1.0, 1.0, 1.0].into_iter().for_each(|v| dot.push(v, 1.0));
    assert_eq!(dot.total(), 4099.0, "a kernel that is not all ones");
}

/// Constants may come first, and functions that legalization rewrites are what they say.
#[test]
fn constants_first_and_ops_as_written() {
    let constant = |dims: &[usize]| Var::constant(tensor(&wild(dims, 1, 4)));
    let fed = wild(&[3, 2], 2, 4);
    let products = [
        constant(&[2, 3]).matmul_value(&Var::input(fed.shape)),
        constant(&[2, 3]).linear(&Var::input(Shape::new(&[2, 3]).unwrap()), None),
    ];
    for (output, feed) in products.iter().zip([fed, wild(&[2, 3], 2, 4)]) {
        for family in [Family::A13, Family::A16] {
            let [got, want] =
                both(output, std::slice::from_ref(&feed), Numerics::Faithful(family), engine(1));
            assert_same(&got, &want, "a constant first");
        }
    }
    let x = Var::input(Shape::new(&[3]).unwrap());
    let feed = Array { shape: x.shape(), data: vec![12.0, 1024.0, f64::INFINITY] };
    for (output, want) in
        [(x.softplus(), [12.0, 1024.0, f64::INFINITY]), (x.round(), [12.0, 1024.0, f64::INFINITY])]
    {
        let graph = Graph::freeze(&[output]).unwrap();
        let got =
            evaluate(&graph, std::slice::from_ref(&feed), Precision::F16(Numerics::Faithful(Family::A16)));
        assert_same(&got.data, &want, "as written");
    }
}

/// What hangs over the edge of an image are zeros, also under an infinite weight.
#[test]
fn infinite_weights_meet_the_zeros_around_an_image() {
    let shape = |dims: &[usize]| Shape::new(dims).unwrap();
    let (x, kernel) = (Var::input(shape(&[1, 1, 2, 2])), Var::input(shape(&[1, 1, 3, 3])));
    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let output = Var::apply(op, &[&x, &kernel]);
    let feeds = [
        Array { shape: x.shape(), data: vec![1.0, 2.0, 3.0, 4.0] },
        Array { shape: kernel.shape(), data: vec![f64::INFINITY, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0] },
    ];
    for family in [Family::A13, Family::A16] {
        for numerics in [Numerics::Ane(family), Numerics::Faithful(family)] {
            let [got, want] = both(&output, &feeds, numerics, engine(1));
            assert_same(&got, &want, &numerics.to_string());
            assert_same(&got, &[0.0, 0.0, 0.0, f64::INFINITY], "infinity times zero is stored as 0");
        }
    }
}

/// Infinities inside of a softmax and a sum of exponentials, as defined, in every setting.
#[test]
fn infinities_inside_of_ops() {
    let x = Var::input(Shape::new(&[3, 4]).unwrap());
    let (inf, rows) = (f64::INFINITY, x.shape());
    let feed =
        Array { shape: rows, data: vec![inf, 1.0, inf, 3.0, -inf, -inf, -inf, -inf, -inf, 1.0, 2.0, 3.0] };
    for output in [x.softmax(-1), x.softmax(0), x.reduce_log_sum_exp(&[1])] {
        for family in [Family::A13, Family::A16] {
            for numerics in [Numerics::Ane(family), Numerics::Faithful(family)] {
                for host in [engine(2), engine(1).unfused()] {
                    let [got, want] = both(&output, std::slice::from_ref(&feed), numerics, host);
                    assert_same(&got, &want, &numerics.to_string());
                }
            }
        }
    }
}

/// Where no rule makes a difference, the code is that of the default.
#[test]
fn what_is_shared_runs_by_the_fast_kernels() {
    let x = Var::input(Shape::new(&[1, 4, 6, 6]).unwrap());
    let sum = &x + &x.transpose(&[0, 1, 3, 2]);
    let output = Var::concat(&[&sum, &x], 1).softmax(1).amax(&[2]);
    let ways = |family: Family, numerics: Numerics| {
        let options = CompileOptions::target(chip(family));
        let plan = compile(std::slice::from_ref(&output), &options).unwrap();
        let session = Session::new(plan, engine(1).with_numerics(numerics)).unwrap();
        let text = session.describe();
        let way = |line: &str| {
            let (op, how) = (line.trim().split(' ').next()?, line.rsplit_once(", ")?.1);
            Some((op.to_owned(), how.to_owned()))
        };
        text.lines().filter(|line| line.starts_with("  ")).filter_map(way).collect::<Vec<_>>()
    };
    let (fast, table) = ("by the fast kernels", "rounded by the rules");
    let all = ["transpose", "add", "concat", "softmax", "reduce_max"];
    let with = |how: [&str; 5]| {
        all.iter().zip(how).map(|(op, how)| ((*op).to_owned(), how.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(ways(Family::A13, Numerics::Faithful(Family::A13)), with([fast; 5]));
    // Ties that go away from zero are another rounding of what rounds.
    let a16 = ways(Family::A16, Numerics::Faithful(Family::A16));
    assert_eq!(a16, with([fast, table, fast, "by its definition", fast]));
}

/// The same bits on any number of threads, in any place of a batch, with any instruction set.
#[test]
fn faithful_results_are_the_same_everywhere() {
    let weight = Var::constant(tensor(&wild(&[40, 50], 1, 4)));
    let rows = wild(&[16, 50], 2, 1);
    let net = |rows: usize| {
        Var::input(Shape::new(&[rows, 50]).unwrap()).linear(&weight, None).gelu().softmax(-1).sum(&[1])
    };
    let numerics = Numerics::Faithful(Family::A16);
    let run = |host: Host, rows: Array| both(&net(rows.shape[0]), &[rows], numerics, host)[0].clone();
    let want = run(engine(1), rows.clone());
    for isa in Isa::available() {
        for threads in [1, 2, 5] {
            for sums in [Sums::Defined, Sums::Fast] {
                let host = Host::new(threads).with_sums(sums).with_isa(isa).unwrap();
                assert_eq!(run(host, rows.clone()), want, "{isa:?}, {threads} threads, {sums:?}");
            }
        }
    }
    for (at, value) in want.iter().enumerate() {
        let row =
            Array { shape: Shape::new(&[1, 50]).unwrap(), data: rows.data[at * 50..(at + 1) * 50].to_vec() };
        assert_eq!(run(engine(2), row), [*value], "row {at}");
    }
}

proptest! {
    #![proptest_config(cases(150))]

    /// With all that is published of a family, the host computes what the definitions say, whatever is fed.
    #[test]
    fn random_graphs_are_faithful(seed in any::<u64>(), steps in 1usize..25, scale in 0usize..4, chip in 0usize..4) {
        let (outputs, feeds) = generate(seed, steps);
        let graph = Graph::freeze(&outputs).unwrap();
        let factor = [1.0, 100.0, 30_000.0, 1e-6][scale];
        let scaled = feeds.iter().zip(graph.feed_types()).map(|(feed, info)| match info.ty.dtype {
            DType::F16 => Array { data: feed.data.iter().map(|v| f16::from_f64(v * factor).to_f64()).collect(), ..feed.clone() },
            _ => feed.clone(),
        });
        let feeds: Vec<Array> = scaled.collect();
        let target = Target::named(["h13", "h14", "h15", "h17s"][chip]).unwrap();
        let Ok(plan) = compile(&outputs, &CompileOptions::target(target)) else { return Ok(()) };
        let numerics = Numerics::Faithful(target.family());
        let want = run_segments(&plan, &feeds, Precision::F16(numerics));
        for threads in [1, 3] {
            let mut session = Session::new(plan.clone(), engine(threads).with_numerics(numerics)).unwrap();
            session.run(&feed_tensors(&graph, &feeds)).unwrap();
            for (i, (_, source)) in plan.outputs.iter().enumerate() {
                assert_same(&to_f64(&session.output(i)), &want.of(*source).data, &format!("{numerics}"));
            }
        }
    }
}
