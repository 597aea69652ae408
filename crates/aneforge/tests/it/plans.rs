//! What plans say of themselves, and how they are asked for.

use crate::support::{draw, engine, feed_tensors, tensor as of_array, to_f64};
use aneforge::device::ane::AneOptions;
use aneforge::device::host::{Host, Isa, Sums, instruction_sets, set_threads};
use aneforge::device::{self, Device};
use aneforge::{
    CompileOptions, Graph, HostOptions, Norms, Numerics, Routes, Session, Shape, Target, Tensor, Var, compile,
};
use std::sync::Arc;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

#[test]
fn statements_and_weights_are_counted_over_all_segments() {
    let x = Var::input(shape(&[1, 64]));
    let weight = || {
        let values: Vec<f32> = (0..4096).map(|v| (v % 7) as f32).collect();
        Var::constant(Tensor::from_slice(shape(&[64, 64]), &values).unwrap())
    };
    let layer = x.linear(&weight(), None).relu();
    let plan = compile(std::slice::from_ref(&layer), &CompileOptions::default()).unwrap();
    let (program, _) = plan.segments[0].mil().unwrap();
    assert_eq!(plan.n_statements(), program.functions[0].body.len());
    assert!(plan.n_statements() > 2);
    let bytes = plan.weight_bytes();
    assert!((8192..9216).contains(&bytes), "{bytes}");
    assert_eq!(plan.segments[0].weight_bytes(), bytes);
    // A layer in the middle: what comes before and after it is a program each.
    let ranked = layer.sort(false, false).linear(&weight(), None);
    let cut = compile(&[ranked], &CompileOptions::default()).unwrap();
    assert!(cut.segments.len() > 2 && cut.n_native() == 1 && plan.n_native() == 0, "{cut}");
    let each = |of: fn(&aneforge::plan::Segment) -> u64| cut.segments.iter().map(of).sum::<u64>();
    assert_eq!(cut.weight_bytes(), each(aneforge::plan::Segment::weight_bytes));
    assert!(cut.weight_bytes() > bytes);
}

#[test]
fn every_option_can_be_set() {
    let target = Target::named("h14").unwrap();
    let options = CompileOptions::target(target).routes(Routes::Native).norms(Norms::Robust);
    assert_eq!(options, CompileOptions::target(target).routes(Routes::Native).norms(Norms::Robust));
    assert_ne!(options, CompileOptions::target(target));
}

#[test]
fn an_engine_that_does_not_fuse_takes_a_step_for_each_node() {
    let x = Var::input(shape(&[2, 3]));
    let plan =
        compile(&[(x.linear(&Var::full(shape(&[4, 3]), 0.5), None)).relu()], &CompileOptions::default())
            .unwrap();
    let steps = |host: &Host| host.plan(&plan.segments[0], plan.target).unwrap().steps.len();
    let host = engine(1);
    assert_eq!((steps(&host), steps(&host.clone().unfused())), (1, 2));
    assert_eq!(host.name(), "host");
    assert!(host.describe().contains(", 1 thread, "), "{}", host.describe());
    for name in instruction_sets() {
        let isa = Isa::named(&name).unwrap();
        let described = host.clone().with_isa(isa).unwrap().describe();
        assert!(described.contains(&format!(", {name} kernels, ")), "{described}");
    }
    assert_eq!(instruction_sets()[0], "scalar");
    assert_eq!([0, 1, 3].map(|threads| engine(threads).threads()), [1, 1, 3]);
    let loaded = host.load(&plan.segments[0], plan.target).unwrap();
    assert_eq!(loaded.describe(), host.plan(&plan.segments[0], plan.target).unwrap().to_string());
}

#[test]
fn numerics_are_an_option_of_the_host() {
    let target = Target::named("h14").unwrap();
    let modelled = |options: &HostOptions| {
        device::open(Some("host"), options, &AneOptions::default()).unwrap().numerics(target)
    };
    let ieee = HostOptions::default().sums(Sums::Fast).numerics(Numerics::Ieee);
    assert_eq!((ieee.numerics, ieee.sums), (Some(Numerics::Ieee), Sums::Fast));
    assert_eq!(modelled(&ieee), Numerics::Ieee);
    assert_eq!(modelled(&HostOptions::default()), Numerics::Ane(target.family()));
    let late = set_threads(2).unwrap_err().to_string();
    assert!(late.contains("threads must be set before the first program is loaded"), "{late}");
}

#[test]
fn profiles_time_steps_and_measure_the_roof() {
    let y = Var::input(shape(&[64, 64])).exp();
    let plan = compile(&[y], &CompileOptions::default()).unwrap();
    let profile = Session::new(plan, engine(1)).unwrap().profile(1).unwrap();
    assert!(!profile.total().is_zero());
    let roof = profile.roof.unwrap();
    // Slower than any processor of this century under emulation, and faster than any there is.
    assert!((1e7..1e15).contains(&roof.flops) && (1e7..1e14).contains(&roof.bytes), "{roof:?}");
}

/// Up to as many elements as are worth storing.
#[test]
fn constants_are_computed_up_to_a_size() {
    for (dims, adds) in [([256, 256], 1), ([257, 256], 2)] {
        let constant = Var::full(shape(&dims), 1.0);
        let sum = Var::input(shape(&dims)) + (&constant + &constant);
        let plan = compile(&[sum], &CompileOptions::default()).unwrap();
        let found = plan.segments[0].graph.nodes().filter(|(_, node)| node.op.name() == "add").count();
        assert_eq!(found, adds, "{dims:?}");
    }
}

/// Fast sums are exact products in single precision too: the same bits from run to run, and never far from the defined
/// ones; the same bits where the processor has no order of its own.
#[test]
fn sums_are_an_option_of_the_host() {
    let x = Var::input(Shape::new(&[16, 64]).unwrap());
    let weight = of_array(&draw(Shape::new(&[32, 64]).unwrap(), 3, (-1.0, 1.0)));
    let output = x.linear(&Var::constant(weight), None);
    let graph = Graph::freeze(std::slice::from_ref(&output)).unwrap();
    let plan = Arc::new(compile(&[output], &CompileOptions::default()).unwrap());
    let feeds = [draw(Shape::new(&[16, 64]).unwrap(), 5, (-1.0, 1.0))];
    let run = |host: Host| {
        let mut session = Session::new(plan.clone(), host).unwrap();
        session.run(&feed_tensors(&graph, &feeds)).unwrap();
        to_f64(&session.output(0))
    };
    let (defined, fast) = (run(engine(1)), run(engine(1).with_sums(Sums::Fast)));
    assert_eq!(fast, run(engine(2).with_sums(Sums::Fast)));
    assert_eq!(fast, run(engine(1).unfused().with_sums(Sums::Fast)));
    for (a, b) in defined.iter().zip(&fast) {
        assert!((a - b).abs() <= a.abs() * 1e-3, "{a} in the defined order, {b} in the fast one");
    }
    let described = |options: &HostOptions| {
        device::open(Some("host"), options, &AneOptions::default()).unwrap().describe()
    };
    assert!(described(&HostOptions::default().sums(Sums::Defined)).ends_with(", defined sums, ane numerics"));
    for fast in [HostOptions::default(), HostOptions::default().threads(1).sums(Sums::Fast)] {
        assert!(described(&fast).ends_with(", fast sums, ane numerics"));
    }
    assert!(Host::new(1).describe().ends_with(" kernels, 1 thread, fast sums, ane numerics"));
}
