//! What is said of graphs for families and chips without compiling them.

use aneforge::ir::attr::Real;
use aneforge::ir::op::Op;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::conv_transpose::ConvTranspose;
use aneforge::ir::ops::leaf::Input;
use aneforge::passes::{Notice, Noticed, cross_chip, notices, preflight};
use aneforge::target::{Availability, Family};
use aneforge::{CompileOptions, Graph, Shape, Target, Var, compile};

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

fn constant(dims: &[usize]) -> Var {
    Var::full(Shape::new(dims).unwrap(), 0.5)
}

fn graph(y: &Var) -> Graph {
    Graph::freeze(std::slice::from_ref(y)).unwrap()
}

fn bounded(dims: &[usize], most: f64) -> Var {
    let Op::Input(leaf) = input(dims).op().clone() else { unreachable!("an input") };
    Var::apply(Input { max_abs: Real(most), ..leaf }, &[])
}

/// Whether each family that runs programs takes a graph.
fn taken(y: &Var) -> [bool; 4] {
    [Family::A13, Family::A14, Family::A15, Family::A16].map(|family| preflight(&graph(y), family).ok())
}

/// The reference's examples.
#[test]
fn preflight_knows_the_limits() {
    let group_norm = |c: usize, h: usize, w: usize, groups: usize| {
        input(&[1, c, h, w]).group_norm(&constant(&[c]), &constant(&[c]), groups, 1e-5)
    };
    let conv = |height: usize, width: usize| {
        let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
        input(&[1, 1, 40, 40]).conv(op, &constant(&[1, 1, height, width]), None)
    };
    let older = [false, false, false, true];
    assert_eq!(taken(&input(&[1, 20000]).relu()), older);
    assert_eq!(taken(&input(&[1, 16384]).relu()), [true; 4]);
    assert_eq!(taken(&input(&[1, 65536, 1, 1]).relu()), [true; 4]);
    assert_eq!(taken(&input(&[1, 65537, 1, 1]).relu()), [false; 4]);
    assert_eq!(taken(&input(&[1 << 20, 2]).transpose(&[1, 0])), [true; 4]);
    assert_eq!(taken(&input(&[8_388_608, 2]).transpose(&[1, 0])), older);
    assert_eq!(taken(&input(&[1 << 20, 2]).relu().transpose(&[1, 0])), [false; 4]);
    assert_eq!(taken(&group_norm(32, 130, 130, 1)), older);
    assert_eq!(taken(&group_norm(640, 64, 64, 32)), [true; 4]);
    assert_eq!(taken(&conv(1, 13)), [true; 4]);
    assert_eq!(taken(&conv(1, 14)), older);
    assert_eq!(taken(&conv(29, 1)), [true; 4]);
    assert_eq!(taken(&conv(30, 1)), [false, true, true, true]);
    assert_eq!(taken(&conv(33, 1)), [false; 4]);
}

#[test]
fn preflight_sorts_nodes_by_what_becomes_of_them() {
    let y = input(&[4, 8]).sin().linear(&constant(&[3, 8]), None).sort(true, false);
    let names =
        |rows: &[aneforge::passes::NodeReport]| rows.iter().map(|row| row.op).collect::<Vec<_>>().join(" ");
    let of = |family| {
        let report = preflight(&graph(&y), family);
        (names(&report.native), names(&report.decompose), names(&report.reject), report.ok())
    };
    let known = |native: &str, decompose: &str, reject: &str, ok| {
        (native.into(), decompose.into(), reject.into(), ok)
    };
    // Weights are no nodes of the reference.
    assert_eq!(of(Family::A13), known("input matmul", "sin", "sort", false));
    assert_eq!(of(Family::A14), known("input matmul sort", "sin", "", true));
    assert_eq!(of(Family::A15), known("input sin matmul sort", "", "", true));
    assert_eq!(of(Family::Older), known("", "", "input sin matmul sort", false));
    let large = preflight(&graph(&input(&[1, 20000]).relu()), Family::A13);
    assert_eq!((names(&large.native), names(&large.oversize)), ("input relu".into(), "input relu".into()));
    assert_eq!(large.oversize[0].status, Availability::Native);
    let why = large.oversize[0].oversize.as_deref().unwrap();
    assert_eq!(why, "axis 1 of [1, 20000] is above the 16384 that A13 allows; split it into parts");
    let older = preflight(&graph(&input(&[1, 20000]).relu()), Family::Older);
    assert!(older.oversize.is_empty() && older.reject.len() == 2);
}

/// What compiles was let through before, and what was not does not compile, for every case of every op.
#[test]
fn preflight_agrees_with_compile() {
    let mut refused = 0;
    for case in aneforge::ir::op::OPS.iter().flat_map(|entry| (entry.cases)()) {
        let leaf = |(at, ty): (usize, &aneforge::TensorType)| match ty.dtype {
            aneforge::DType::Bool => Var::input(ty.shape).greater(&Var::from(0.0)),
            _ if at >= case.constants_from => Var::full(ty.shape, 0.5),
            _ => Var::input_of(*ty),
        };
        let inputs: Vec<Var> = case.inputs.iter().enumerate().map(leaf).collect();
        let y = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
        let Ok(graph) = Graph::freeze(std::slice::from_ref(&y)) else { continue };
        for name in ["h13", "h14", "h15", "h17s"] {
            let target = Target::named(name).unwrap();
            let ok = preflight(&graph, target.family()).ok();
            refused += usize::from(!ok);
            let compiled = compile(std::slice::from_ref(&y), &CompileOptions::target(target));
            assert!(ok || compiled.is_err(), "{} compiles for {name}", case.op.name());
        }
    }
    assert!(refused > 0, "every op runs everywhere");
}

fn said(y: &Var, target: &str) -> Vec<(Notice, &'static str)> {
    let found = notices(&graph(y), Target::named(target).unwrap());
    found.iter().map(|Noticed { kind, op, .. }| (*kind, *op)).collect()
}

#[test]
fn slices_with_an_offset_are_told_of_before_a16() {
    let x = input(&[2, 8]);
    let slice = x.narrow(1, 1, 4);
    for target in ["h13", "h14g", "h15"] {
        assert_eq!(said(&slice, target), [(Notice::Saturates, "slice_by_size")], "{target}");
    }
    let why = |target| notices(&graph(&slice), Target::named(target).unwrap())[0].why.clone();
    assert!(why("h13").contains("A13 saturates: magnitudes above 4094"), "{}", why("h13"));
    assert!(why("h15").contains("was not measured"), "{}", why("h15"));
    let crop = input(&[1, 1, 8, 8]).crop(0, 0, 1, 0);
    assert_eq!(said(&crop, "h13"), [(Notice::Saturates, "crop")]);
    for y in [&x.narrow(1, 0, 4), &x.narrow(0, 1, 2), &bounded(&[2, 8], 4094.0).narrow(1, 1, 4)] {
        assert_eq!(said(y, "h13"), []);
    }
    assert_eq!(said(&bounded(&[2, 8], 4096.0).narrow(1, 1, 4), "h13").len(), 1);
    assert_eq!((said(&slice, "h17s"), said(&slice, "h11")), (vec![], vec![]));
}

#[test]
fn two_such_slices_in_a_concat_are_told_of_before_a16() {
    let x = bounded(&[2, 8], 1.0);
    let [a, b, start] = [(1, 4), (5, 8), (0, 3)].map(|(from, to)| x.narrow(1, from, to));
    let both = Var::concat(&[&a, &b], 1);
    for (target, want) in [("h13", 1), ("h14", 1), ("h15", 1), ("h16", 0)] {
        assert_eq!(said(&both, target), vec![(Notice::WrongElements, "concat"); want], "{target}");
    }
    assert_eq!(said(&Var::concat(&[&a, &start], 1), "h13"), []);
    assert_eq!(said(&Var::concat(&[&a, &b.relu()], 1), "h13"), []);
}

#[test]
fn transposed_convolutions_with_steps_and_large_kernels_are_told_of() {
    let turned = |kernel: [usize; 2], strides: [i64; 2]| {
        let op = ConvTranspose { strides, pad: [0; 4], dilations: [1, 1], groups: 1 };
        Var::apply(op, &[&input(&[1, 1, 4, 4]), &constant(&[1, 1, kernel[0], kernel[1]])])
    };
    let stepped = [(Notice::Stepped, "conv_transpose")];
    assert_eq!(said(&turned([1, 7], [2, 2]), "h13"), []);
    assert_eq!(said(&turned([1, 8], [2, 2]), "h13"), stepped);
    assert_eq!(said(&turned([1, 8], [2, 1]), "h13"), []);
    assert_eq!(said(&turned([1, 8], [2, 2]), "h14"), []);
    assert_eq!(said(&turned([1, 9], [2, 2]), "h14"), stepped);
    assert_eq!(said(&turned([16, 1], [2, 1]), "h13"), stepped);
    assert_eq!(said(&turned([16, 1], [2, 1]), "h17s"), []);
    assert_eq!(said(&turned([2, 2], [3, 1]), "h17s"), stepped);
}

/// Layers take the sides of blocks that the compiler's table has; others are written out unless they are asked for.
#[test]
fn blocks_of_other_sides_are_written_out() {
    let image = || input(&[1, 100, 40, 40]);
    let many = || input(&[50, 2, 40, 40]);
    let natives = |y: &Var| compile(std::slice::from_ref(y), &CompileOptions::default()).unwrap().n_native();
    let blocks: [fn(&Var, usize) -> Var; 4] = [
        |x, r| x.space_to_channel(r),
        |x, r| x.channel_to_space(r),
        |x, r| x.space_to_batch(1, r),
        |x, r| x.batch_to_space(r, 1),
    ];
    for (at, block) in blocks.iter().enumerate() {
        let x = || if at < 3 { image() } else { many() };
        assert_eq!([2, 5, 10].map(|side| natives(&block(&x(), side))), [1, 0, 0], "{at}");
    }
}

#[test]
fn resizing_on_a13_rounds_in_its_own_way() {
    let resized = input(&[1, 1, 4, 4]).upsample_bilinear(2, false);
    assert_eq!(said(&resized, "h13"), [(Notice::Rounding, "upsample_bilinear")]);
    assert_eq!(said(&resized, "h14"), []);
    assert!(!Notice::Rounding.is_warning() && Notice::Saturates.is_warning());
}

#[test]
fn what_differs_between_two_families() {
    let x = input(&[2, 8]);
    let y = x.narrow(1, 1, 5).softmax(-1).sum(&[1]) + x.narrow(1, 2, 3).sum(&[1]);
    let lines = cross_chip(&graph(&y), [Family::A16, Family::A13]);
    let ulp = |op: &str| format!("{op}: ulp1: the last place may differ between A16 and A13");
    let saturation =
        "slice_by_size: saturation: magnitudes above 4094 become infinite on A13, and stay on A16".to_owned();
    assert_eq!(lines, [saturation, ulp("softmax"), ulp("reduce_sum")]);
    assert_eq!(cross_chip(&graph(&y), [Family::A13, Family::A14]), [""; 0]);
    assert_eq!(cross_chip(&graph(&y), [Family::A14, Family::A15]).len(), 3);
    assert_eq!(
        cross_chip(&graph(&bounded(&[2, 8], 100.0).narrow(1, 1, 5)), [Family::A13, Family::A16]),
        [""; 0]
    );
    assert_eq!(cross_chip(&graph(&x.relu()), [Family::A13, Family::A16]), [""; 0]);
}
