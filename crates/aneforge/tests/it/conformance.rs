//! One suite for every op: what an op's file promises is checked here, never in the file.

use crate::support::{
    Built, IEEE, assert_close, assert_same, build, draw, engine, evaluate, feed_tensors, numbers, to_f64,
};
use aneforge::ir::op::{Case, Mil, Native, OPS, Op, Tolerance};
use aneforge::ir::ops::conv_transpose::ConvTranspose;
use aneforge::ir::precision::{Array, Precision};
use aneforge::ir::{text, verify};
use aneforge::{
    CompileOptions, DType, Family, Graph, Numerics, Plan, Routes, Session, Target, Var, compile, grad, target,
};
use aneforge_mil::Type;
use aneforge_mil::spec::{ResultRule, find};
use std::collections::HashMap;

/// Calls `check` with every case of every op, and counts them.
fn each(check: impl Fn(&Case, &str)) -> usize {
    let mut n = 0;
    for entry in OPS {
        for (i, case) in (entry.cases)().iter().enumerate() {
            check(case, &format!("{} case {i}", entry.info.name));
            n += 1;
        }
    }
    n
}

#[test]
fn every_op_is_documented_and_has_cases() {
    for entry in OPS {
        let info = &entry.info;
        assert!(
            info.page().trim().ends_with('.') || info.page().contains('|'),
            "{}: a page of sentences",
            info.name
        );
        let leaf = matches!(info.name, "input" | "const_array");
        assert!(leaf || !(entry.cases)().is_empty(), "{} has no case", info.name);
        for attr in info.attrs {
            let counts_axes = matches!(attr.name, "axis" | "axes" | "perm");
            assert_eq!(
                counts_axes,
                attr.axes.is_some(),
                "{}.{}: whose axes are these?",
                info.name,
                attr.name
            );
            assert!(!attr.doc.trim().is_empty(), "{}.{} has no documentation", info.name, attr.name);
        }
    }
    let mut names: Vec<&str> = OPS.iter().map(|e| e.info.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), OPS.len(), "names are unique");
}

#[test]
fn there_are_cases_enough() {
    assert!(OPS.len() >= 119, "{} ops", OPS.len());
    let cases = each(|_, _| {});
    assert!(cases >= 300, "{cases} cases");
}

#[test]
fn inferred_types_are_computed_types() {
    each(|case, what| {
        let Built { output, feeds, .. } = build(case, false);
        let ty = output.check().unwrap_or_else(|e| panic!("{what}: {e}"));
        let graph = Graph::freeze(&[output]).unwrap();
        verify::verify(&graph).unwrap_or_else(|e| panic!("{what}: {e}"));
        for precision in [Precision::F64, IEEE] {
            let value = evaluate(&graph, &feeds, precision);
            assert_eq!(value.shape, ty.shape, "{what}");
            assert_eq!(value.data.len(), ty.shape.count(), "{what}");
        }
    });
}

#[test]
fn half_precision_is_within_tolerance_of_exact() {
    each(|case, what| {
        let Built { output, feeds, .. } = build(case, true);
        let graph = Graph::freeze(&[output]).unwrap();
        let (exact, got) = (evaluate(&graph, &feeds, Precision::F64), evaluate(&graph, &feeds, IEEE));
        assert_close(&got, &exact, case.tolerance, what);
    });
}

/// Central differences of `sum(w * y)` in double precision.
fn difference(graph: &Graph, feeds: &[Array], weights: &Array, input: usize, element: usize) -> f64 {
    const STEP: f64 = 1e-5;
    let loss = |delta: f64| -> f64 {
        let mut feeds = feeds.to_vec();
        feeds[input].data[element] += delta;
        let y = evaluate(graph, &feeds, Precision::F64);
        y.data.iter().zip(&weights.data).map(|(y, w)| y * w).sum()
    };
    (loss(STEP) - loss(-STEP)) / (2.0 * STEP)
}

#[test]
fn gradients_match_finite_differences() {
    let mut checked = 0;
    for entry in OPS {
        for (i, case) in (entry.cases)().iter().enumerate() {
            checked += check_gradient(build(case, true), &format!("{} case {i}", entry.info.name));
        }
    }
    assert!(checked >= 300, "{checked} gradients of inputs were checked");
}

/// An input given twice gets the cotangents of both places, each once. Where the types of two inputs differ,
/// the second takes that of the first if the op allows it.
#[test]
fn gradients_of_inputs_given_twice_match_finite_differences() {
    for entry in OPS.iter().filter(|entry| entry.info.arity().1 > 1) {
        let mut pairs = 0;
        for (n, case) in (entry.cases)().iter().enumerate() {
            for (i, j) in (1..case.inputs.len()).flat_map(|j| (0..j).map(move |i| (i, j))) {
                let mut twin = case.clone();
                twin.inputs[j] = twin.inputs[i];
                if twin.op.infer(&twin.inputs).is_ok() {
                    let what = format!("{} case {n} with input {i} also as {j}", entry.info.name);
                    check_gradient(given_again(&twin, i, &[j]), &what);
                    pairs += 1;
                }
            }
            let places: Vec<usize> = (1..case.inputs.len()).collect();
            let mut all = case.clone();
            all.inputs = vec![case.inputs[0]; case.inputs.len()];
            if places.len() > 1 && all.op.infer(&all.inputs).is_ok() {
                let what = format!("{} case {n} with one input in every place", entry.info.name);
                check_gradient(given_again(&all, 0, &places), &what);
            }
        }
        let apart = matches!(entry.info.name, "affine" | "prelu");
        assert!(pairs > 0 || apart, "{}: no case with two equal inputs", entry.info.name);
    }
}

/// A case whose input `i` is its inputs at `places`, which ascend, as well.
fn given_again(case: &Case, i: usize, places: &[usize]) -> Built {
    let Built { mut inputs, mut feeds, .. } = build(case, true);
    for &j in places {
        inputs[j] = inputs[i].clone();
    }
    let output = Var::apply(case.op.clone(), &inputs.iter().collect::<Vec<_>>());
    for &j in places.iter().rev() {
        inputs.remove(j);
        feeds.remove(j);
    }
    Built { inputs, output, feeds }
}

fn check_gradient(built: Built, what: &str) -> usize {
    let Built { inputs, output, mut feeds } = built;
    if output.ty().dtype != DType::F16 {
        return 0;
    }
    let graph = Graph::freeze(std::slice::from_ref(&output)).unwrap();
    let cotangent = Var::input(output.shape());
    let weights = draw(output.shape(), 77, (-1.0, 1.0));
    let before = feeds.clone();
    feeds.push(weights.clone());
    let mut checked = 0;
    for (index, input) in inputs.iter().enumerate() {
        if input.ty().dtype != DType::F16 {
            continue;
        }
        let rule = grad::grad(&output, &cotangent, std::slice::from_ref(input));
        let got = match rule {
            Ok(dx) => {
                let all: Vec<Var> =
                    dx.iter().chain(&inputs).map(numbers).chain([cotangent.clone()]).collect();
                evaluate(
                    &Graph::freeze(&all).unwrap_or_else(|e| panic!("{what}: {e}")),
                    &feeds,
                    Precision::F64,
                )
            }
            Err(grad::GradError::Independent { .. }) => Array::from_fn(input.shape(), |_| 0.0),
            Err(e) => panic!("{what}: {e}"),
        };
        for element in 0..input.shape().count() {
            let want = difference(&graph, &before, &weights, index, element);
            let allowed = 1e-4 * (1.0 + want.abs());
            let got = got.data[element];
            assert!(
                (got - want).abs() <= allowed,
                "{what}, d/d input {index}[{element}]: {got}, want {want}"
            );
        }
        checked += 1;
    }
    checked
}

/// Where elements tie, one alone may have no derivative; as all move alike they stay tied, and the cotangents of all together
/// are the derivative along that, wherever it is the same from both sides.
#[test]
fn gradients_of_elements_that_tie_add_up_to_that_of_moving_all() {
    let compared = OPS.iter().flat_map(|entry| {
        let cases = (entry.cases)().into_iter().enumerate();
        cases.map(|(i, case)| check_ties(&case, &format!("{} case {i}", entry.info.name)))
    });
    let compared: usize = compared.sum();
    assert!(compared >= 400, "{compared} cases were compared");
}

fn check_ties(case: &Case, what: &str) -> usize {
    const STEP: f64 = 1e-5;
    let Built { inputs, output, mut feeds } = build(case, true);
    let moved: Vec<usize> =
        (0..inputs.len()).filter(|&index| inputs[index].ty().dtype == DType::F16).collect();
    let free = |&index: &usize| {
        let rule = grad::grad(&output, &Var::input(output.shape()), std::slice::from_ref(&inputs[index]));
        !matches!(rule, Err(grad::GradError::Independent { .. }))
    };
    if output.ty().dtype != DType::F16 || moved.is_empty() || !moved.iter().all(free) {
        return 0;
    }
    // Two values in each input.
    for &index in &moved {
        let data = &mut feeds[index].data;
        let (least, most) = data.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        let tied = |v: f64| least + (most - least) * if 2.0 * v > least + most { 0.75 } else { 0.25 };
        data.iter_mut().for_each(|v| *v = tied(*v));
    }
    let (graph, weights) =
        (Graph::freeze(std::slice::from_ref(&output)).unwrap(), draw(output.shape(), 77, (-1.0, 1.0)));
    let loss = |delta: f64| -> f64 {
        let mut feeds = feeds.clone();
        moved.iter().for_each(|&index| feeds[index].data.iter_mut().for_each(|v| *v += delta));
        evaluate(&graph, &feeds, Precision::F64).data.iter().zip(&weights.data).map(|(y, w)| y * w).sum()
    };
    let (right, left) = ((loss(STEP) - loss(0.0)) / STEP, (loss(0.0) - loss(-STEP)) / STEP);
    let want = (right + left) / 2.0;
    let allowed = 2e-3 * (1.0 + want.abs());
    if !want.is_finite() || (right - left).abs() > allowed {
        return 0;
    }
    let cotangent = Var::input(output.shape());
    let all: Vec<Var> = moved.iter().map(|&index| inputs[index].clone()).collect();
    let found = grad::grad(&output, &cotangent, &all).unwrap_or_else(|e| panic!("{what}: {e}"));
    feeds.push(weights.clone());
    let sum = |dx: &Var| -> f64 {
        let all: Vec<Var> = [dx].into_iter().chain(&inputs).map(numbers).chain([cotangent.clone()]).collect();
        evaluate(&Graph::freeze(&all).unwrap(), &feeds, Precision::F64).data.iter().sum()
    };
    let got: f64 = found.iter().map(sum).sum();
    assert!((got - want).abs() <= allowed, "{what}, along all inputs: {got}, want {want}");
    1
}

#[test]
fn text_comes_back() {
    each(|case, what| {
        let graph = Graph::freeze(&[build(case, false).output]).unwrap();
        let printed = text::print(&graph);
        let parsed = text::parse(&printed).unwrap_or_else(|e| panic!("{what}: {e}\n{printed}"));
        assert_eq!(text::print(&parsed), printed, "{what}");
    });
}

/// What becomes of native layers; other ops compile to the same either way.
const ROUTES: [Routes; 2] = [Routes::WrittenOut, Routes::Native];

/// A case, frozen, with what to feed it and its plans: one per route.
fn compiled(case: &Case, what: &str) -> (Graph, Vec<Array>, Vec<Plan>) {
    let Built { output, feeds, .. } = build(case, false);
    let output = numbers(&output);
    let before = Graph::freeze(std::slice::from_ref(&output)).unwrap();
    let native = matches!(case.op.mil(), Mil::Native(_));
    let plan = |routes: &Routes| {
        let options = CompileOptions { routes: *routes, ..CompileOptions::default() };
        compile(std::slice::from_ref(&output), &options).unwrap_or_else(|e| panic!("{what}: {e}"))
    };
    (before, feeds, ROUTES[..1 + usize::from(native)].iter().map(plan).collect())
}

/// The whole graph of a plan before it is cut.
fn legal(plan: &Plan) -> &Graph {
    &plan.traces.last().unwrap().graph
}

#[test]
fn legal_graphs_compute_what_was_written() {
    each(|case, what| {
        let (before, feeds, plans) = compiled(case, what);
        for plan in &plans {
            let legal = legal(plan);
            let (want, got) = (evaluate(&before, &feeds, IEEE), evaluate(legal, &feeds, IEEE));
            // A layer and the ops that may stand for it agree to the bit.
            let native = matches!(case.op.mil(), Mil::Native(_));
            match native || legal.nodes().any(|(_, n)| n.op.name() == case.op.name()) {
                true => assert_same(&got.data, &want.data, what),
                false => {
                    assert_close(
                        &got,
                        &evaluate(&before, &feeds, Precision::F64),
                        chain(case.tolerance),
                        what,
                    );
                }
            }
        }
    });
}

/// A decomposition rounds once more per op than the op as a whole, so exact ops stay exact and others
/// get one more unit.
fn chain(t: Tolerance) -> Tolerance {
    if t.ulp == 0.0 { t } else { Tolerance { ulp: t.ulp + 1.0, ..t } }
}

#[test]
fn programs_verify_and_read_back() {
    each(|case, what| {
        let (_, feeds, plans) = compiled(case, what);
        for segment in plans.iter().flat_map(|plan| &plan.segments) {
            let Some((program, blob)) = segment.mil() else { continue };
            let text = program.to_string();
            let parsed = aneforge_mil::parse(&text).unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
            assert_eq!(parsed, *program, "{what}");
            let bytes = blob.write(&segment.graph, Vec::new()).unwrap();
            let weights = aneforge_tensor::Bytes::new(bytes);
            let graph = aneforge::import::mil::read(&parsed, &weights)
                .unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
            let (want, got) = (evaluate(&segment.graph, &feeds, IEEE), evaluate(&graph, &feeds, IEEE));
            assert_same(&got.data, &want.data, what);
        }
    });
}

#[test]
fn host_computes_the_definition_to_the_bit() {
    let engines = [engine(2), engine(1).unfused()];
    each(|case, what| {
        let (before, feeds, plans) = compiled(case, what);
        for plan in &plans {
            for numerics in [Numerics::Ieee, Numerics::Ane(plan.target.family())] {
                let want = evaluate(legal(plan), &feeds, Precision::F16(numerics));
                for engine in &engines {
                    let engine = engine.clone().with_numerics(numerics);
                    let mut session = Session::new(plan.clone(), &engine).unwrap();
                    session.run(&feed_tensors(&before, &feeds)).unwrap();
                    assert_same(&to_f64(&session.output(0)), &want.data, &format!("{what} on {engine:?}"));
                }
            }
        }
    });
}

/// All that is published of every family, too: what fast kernels share, what is summed in their order, and definitions.
#[test]
fn host_computes_the_faithful_definition_to_the_bit() {
    each(|case, what| {
        let (before, feeds, plans) = compiled(&wide(case), what);
        for (plan, family) in plans.iter().flat_map(|plan| FAMILIES.map(|family| (plan, family))) {
            let numerics = Numerics::Faithful(family);
            let want = evaluate(legal(plan), &feeds, Precision::F16(numerics));
            let mut session = Session::new(plan.clone(), engine(2).with_numerics(numerics)).unwrap();
            assert_eq!(session.numerics(), numerics);
            session.run(&feed_tensors(&before, &feeds)).unwrap();
            assert_same(&to_f64(&session.output(0)), &want.data, &format!("{what}, {numerics}"));
        }
    });
}

#[test]
fn attributes_come_back() {
    each(|case, what| {
        let attrs = case.op.attrs();
        let entry = aneforge::ir::op::find(case.op.name()).unwrap();
        let get = |name: &str| attrs.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
        assert_eq!((entry.from_attrs)(&get), Ok::<Op, String>(case.op.clone()), "{what}");
    });
}

/// What a compiler may refuse in a statement that broadcasts: operands of unequal rank, and scalars in records.
#[test]
fn operands_that_broadcast_have_one_rank() {
    each(|case, what| {
        let (_, _, plans) = compiled(case, what);
        for (program, _) in plans.iter().flat_map(|plan| &plan.segments).filter_map(|s| s.mil()) {
            let main = &program.functions[0];
            let results = main.body.iter().flat_map(|s| &s.results);
            let types: HashMap<&str, &Type> =
                main.params.iter().chain(results).map(|p| (p.name.as_str(), &p.ty)).collect();
            for stmt in &main.body {
                if !matches!(find(&stmt.op).unwrap().result, ResultRule::Broadcast(_)) {
                    continue;
                }
                let rank = stmt.results[0].ty.shape().len();
                for name in stmt.args.iter().flat_map(|(_, arg)| arg.names()) {
                    let fits = match types[name] {
                        Type::Scalar(_) => true,
                        Type::Tensor { shape, .. } => shape.len() == rank,
                    };
                    assert!(fits, "{what}: {} in {stmt}", types[name]);
                }
            }
        }
    });
}

/// Every family that runs programs.
const FAMILIES: [Family; 4] = [Family::A13, Family::A14, Family::A15, Family::A16];

/// Every family that runs programs, by a chip of it.
const CHIPS: [&str; 4] = ["h13", "h14", "h15", "h17s"];

/// A case with inputs from the whole range of half precision, where it is defined by moving elements.
fn wide(case: &Case) -> Case {
    let exact = case.tolerance.ulp == 0.0 && !case.inputs.iter().any(|ty| ty.dtype != DType::F16);
    if exact { Case { domain: (-65504.0, 65504.0), ..case.clone() } } else { case.clone() }
}

/// A layer and the ops that may stand for it agree to the bit, whatever a family does to large values.
#[test]
fn layers_agree_with_their_chains_on_every_family() {
    each(|case, what| {
        let Mil::Native(Native { written: Some(write), .. }) = case.op.mil() else { return };
        let Built { inputs, output, feeds } = build(&wide(case), true);
        let [layer, chain] = [output, write(&case.op, &inputs)].map(|v| Graph::freeze(&[v]).unwrap());
        for chip in CHIPS {
            let precision = Precision::F16(Numerics::Ane(Target::named(chip).unwrap().family()));
            let (want, got) = (evaluate(&layer, &feeds, precision), evaluate(&chain, &feeds, precision));
            assert_same(&got.data, &want.data, &format!("{what} on {chip}"));
        }
    });
}

/// What only moves or picks elements does so on every family, however large they are.
#[test]
fn legal_graphs_move_elements_on_every_family() {
    each(|case, what| {
        if case.tolerance.ulp != 0.0 {
            return;
        }
        let Built { output, feeds, .. } = build(&wide(case), false);
        let output = numbers(&output);
        let before = Graph::freeze(std::slice::from_ref(&output)).unwrap();
        for (chip, routes) in CHIPS.into_iter().flat_map(|chip| ROUTES.map(|routes| (chip, routes))) {
            let target = Target::named(chip).unwrap();
            if target.family() < target::floor(case.op.name()) {
                continue;
            }
            let plan = compile(
                std::slice::from_ref(&output),
                &CompileOptions { target, routes, ..CompileOptions::default() },
            )
            .unwrap();
            let precision = Precision::F16(Numerics::Ane(target.family()));
            let want = evaluate(&before, &feeds, precision);
            let what = format!("{what} on {chip}, {routes:?}");
            assert_same(&evaluate(legal(&plan), &feeds, precision).data, &want.data, &what);
            let mut session = Session::new(plan, engine(1)).unwrap();
            session.run(&feed_tensors(&before, &feeds)).unwrap();
            assert_same(&to_f64(&session.output(0)), &want.data, &format!("{what}, host"));
        }
    });
}

/// Cutting what a transposed convolution pads must not saturate what is left.
#[test]
fn a_transposed_convolution_with_a_computed_weight_keeps_large_values() {
    let shape = |dims: &[usize]| aneforge::Shape::new(dims).unwrap();
    let (x, weight) = (Var::input(shape(&[1, 1, 1, 4])), Var::input(shape(&[1, 1, 1, 2])));
    let op = ConvTranspose { strides: [1, 1], pad: [0, 0, 2, 0], dilations: [1, 1], groups: 1 };
    let y = Var::apply(op, &[&x, &weight]);
    let feeds = [vec![100.0, -100.0, 50.0, 100.0], vec![10.0, 60.0]]
        .map(|v| aneforge::Tensor::from_slice(shape(&[1, 1, 1, v.len()]), &v).unwrap());
    for chip in CHIPS {
        let target = Target::named(chip).unwrap();
        let plan = compile(std::slice::from_ref(&y), &CompileOptions::target(target)).unwrap();
        let mut session = Session::new(plan, engine(1)).unwrap();
        assert_eq!(session.run(&feeds).unwrap()[0].to_f32(), [-5500.0, 4000.0, 6000.0], "{chip}");
    }
}
