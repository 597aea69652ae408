//! The diagnosis finds what was planted, by name, and computes what a session computes.

use super::support::{Built, build, engine, feed_tensors, numbers};
use aneforge::diagnose::{
    Diagnosis, NodeReport, TOLERANCE, Trouble, Verdict, diagnose, diagnose_plan, on_all_chips, without_data,
};
use aneforge::ir::op::OPS;
use aneforge::ir::ops::leaf::Role;
use aneforge::risk::Concern;
use aneforge::{
    CompileOptions, Graph, Session, Shape, Target, Tensor, TensorType, Var, compile, compile_graph,
};
use aneforge_tensor::random;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(shape(dims))
}

fn tensor(dims: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    let shape = shape(dims);
    Tensor::from_slice(shape, &(0..shape.count()).map(value).collect::<Vec<_>>()).unwrap()
}

fn on(target: &str, output: &Var, feeds: &[Tensor]) -> Diagnosis {
    let options = CompileOptions::target(Target::named(target).unwrap());
    diagnose(&engine(2), &Graph::freeze(std::slice::from_ref(output)).unwrap(), &options, feeds, TOLERANCE)
        .unwrap()
}

/// The first trouble that is found.
fn first(found: &Diagnosis) -> (&NodeReport, Trouble) {
    let node = found.first().unwrap_or_else(|| panic!("nothing was found:\n{found}"));
    (node, node.troubles[0].trouble)
}

#[test]
fn a_narrow_sum_is_found() {
    let x = input(&[2, 4096]);
    let line = line!() + 1;
    let sum = x.sum(&[-1]);
    let found = on("h17s", &sum.muls(0.5), &[tensor(&[2, 4096], |i| 1.0 + (i % 7) as f32 / 8.0)]);
    let (node, trouble) = first(&found);
    assert_eq!((node.op, trouble, node.at.line()), ("reduce_sum", Trouble::NarrowSum, line));
    assert!(node.troubles[0].remedy.contains("reduce_sum_to_matmul"));
    assert!(node.error < 1e-3 && node.narrow.unwrap() > 0.1, "{node}");
    let short = on("h17s", &x.muls(1.0).sum(&[0]), &[tensor(&[2, 4096], |i| (i % 9) as f32)]);
    assert!(short.is_safe(), "{short}");
}

#[test]
fn a_hot_softmax_is_found() {
    let x = input(&[2, 8]);
    let scores = x.exp();
    let hot = &scores / &scores.sum(&[-1]);
    let found = on("h17s", &hot, &[tensor(&[2, 8], |i| i as f32)]);
    let (node, trouble) = first(&found);
    assert_eq!((node.op, trouble, node.troubles[0].values), ("exp", Trouble::Overflow, 4));
    assert!(node.troubles[0].remedy.contains("subtract the row's maximum"));
    assert!(!found.is_safe() && found.outputs[0] > 0.1);
    assert!(on("h17s", &x.softmax(-1), &[tensor(&[2, 8], |i| i as f32)]).is_safe());
}

#[test]
fn an_eps_that_vanishes_is_found() {
    let (x, one) = (input(&[2, 8]), Var::full(shape(&[8]), 1.0));
    let found =
        on("h17s", &x.layer_norm(&one, &Var::full(shape(&[8]), 0.0), 1e-9), &[tensor(&[2, 8], |i| i as f32)]);
    let note = found.notes.iter().find(|note| note.kind == Concern::LostEps.name()).expect("it is noted");
    assert!(note.op == "layer_norm" && note.remedy.contains("larger eps") && note.risk);
    assert!(found.to_string().contains("adds eps 1e-9"));
}

#[test]
fn an_offset_slice_is_found_on_the_families_that_saturate() {
    let x = input(&[1, 8]);
    let part = x.slice_by_size(&[0, 2], &[1, 4]);
    let large = || [tensor(&[1, 8], |i| 1000.0 * i as f32)];
    for target in ["h13", "h14"] {
        let found = on(target, &part.muls(0.5), &large());
        let (node, trouble) = first(&found);
        assert_eq!(
            (node.op, trouble, node.troubles[0].values),
            ("slice_by_size", Trouble::Saturation, 1),
            "{target}"
        );
        assert!(node.troubles[0].remedy.contains("slice another axis"));
        let first_columns = on(target, &x.slice_by_size(&[0, 0], &[1, 4]).muls(0.5), &large());
        assert!(first_columns.is_safe(), "{first_columns}");
    }
    assert!(on("h17s", &part.muls(0.5), &large()).is_safe());
}

#[test]
fn a_product_beyond_its_limit_is_found() {
    let (x, weight) = (input(&[1, 4]), Var::full(shape(&[2, 4]), 1.0));
    let found = on("h17s", &x.linear(&weight, None).muls(0.5), &[tensor(&[1, 4], |_| 10_000.0)]);
    let (node, trouble) = first(&found);
    assert_eq!((node.op, trouble, node.troubles[0].values), ("matmul", Trouble::Saturation, 2));
    assert!(node.troubles[0].remedy.contains("32752"));
    assert!(on("h17s", &x.linear(&weight, None).muls(0.5), &[tensor(&[1, 4], |_| 8000.0)]).is_safe());
}

#[test]
fn an_index_above_2048_is_found() {
    // The number of ones among many: an index that is computed, as argmax refuses axes so long.
    let x = input(&[1, 4096]);
    let ones = |count: usize| [tensor(&[1, 4096], move |i| if i < count { 1.0 } else { 0.0 })];
    let found = on("h17s", &x.sum(&[-1]), &ones(3001));
    let (node, trouble) = first(&found);
    assert_eq!((node.op, trouble), ("reduce_sum", Trouble::LostIntegers), "{found}");
    assert!(node.troubles[0].remedy.contains("2048"));
    let small = on("h17s", &x.sum(&[-1]), &ones(1001));
    assert!(small.is_safe(), "{small}");
    // Also where an index is fed.
    let found = on("h17s", &input(&[1, 2]).muls(1.5), &[tensor(&[1, 2], |i| 3001.0 - i as f32)]);
    assert_eq!((first(&found).0.op, first(&found).1), ("input", Trouble::LostIntegers));
}

#[test]
fn nan_cancellation_and_what_is_beyond_half_precision_are_found() {
    let x = input(&[1, 4]);
    let root = on("h17s", &x.sqrt(), &[tensor(&[1, 4], |i| 1.0 - i as f32)]);
    assert_eq!(
        (first(&root).0.op, first(&root).1, first(&root).0.troubles[0].values),
        ("sqrt", Trouble::Invalid, 2)
    );
    let zero = &x / &x;
    let ratio = on("h17s", &zero, &[tensor(&[1, 4], |i| i as f32)]);
    assert_eq!((first(&ratio).0.op, first(&ratio).1), ("real_div", Trouble::Invalid));
    assert!(first(&ratio).0.troubles[0].remedy.contains("eps"));
    let close = x.adds(1.0) - Var::full(shape(&[1, 4]), 1.0);
    let cancels = on("h17s", &close, &[tensor(&[1, 4], |i| 1e-4 * (i + 1) as f32)]);
    let (node, trouble) = first(&cancels);
    assert_eq!((node.op, trouble), ("sub", Trouble::Error));
    assert!(node.troubles[0].remedy.contains("paired"));
    assert!(!cancels.is_safe());
    let hidden =
        on("h17s", &(close.muls(1e-3) + &x.adds(1.0)), &[tensor(&[1, 4], |i| 1e-4 * (i + 1) as f32)]);
    assert!(hidden.is_safe() && first(&hidden).1 == Trouble::Error, "{hidden}");
    assert!(hidden.to_string().contains("safe, 1 node beyond the tolerance on the way"));
    let beyond = on("h17s", &x.muls(1e-3), &[tensor(&[1, 4], |_| 1e5)]);
    assert_eq!(
        (first(&beyond).0.op, first(&beyond).1, first(&beyond).0.at.file()),
        ("input", Trouble::Overflow, "input 0")
    );
}

/// Scalars that half precision rounds away are seen against the graph as written, and noted.
#[test]
fn scalars_that_round_away_are_found() {
    let x = input(&[1, 4]);
    let zeros = || [tensor(&[1, 4], |_| 0.0)];
    let tiny = || Var::scalar(1e-9);
    for (output, noted) in [
        ((&x + &tiny()).sqrt(), true),
        (Var::from(1.0) / (&x + &tiny()), true),
        (x.adds(1e-9).sqrt(), true),
        ((&x + &Var::scalar(2049.0)) - Var::scalar(2048.0), false),
    ] {
        let found = on("h17s", &output, &zeros());
        assert!(!found.is_safe(), "{found}");
        assert_eq!(
            found.notes.iter().any(|note| note.risk && note.kind == Concern::LostEps.name()),
            noted,
            "{found}"
        );
    }
    assert!(on("h17s", &(&x + &Var::scalar(1e-3)).sqrt(), &zeros()).is_safe());
}

/// What is fed may be what half precision does not keep.
#[test]
fn inputs_are_told_of() {
    let x = input(&[1, 4]);
    let nan = on("h17s", &x.muls(2.0), &[tensor(&[1, 4], |i| if i == 1 { f32::NAN } else { 1.0 })]);
    assert_eq!(
        (first(&nan).0.op, first(&nan).1, first(&nan).0.troubles[0].values),
        ("input", Trouble::Invalid, 1)
    );
    let small = on("h17s", &x.muls(2.0), &[tensor(&[1, 4], |_| 1e-9)]);
    assert_eq!((first(&small).0.op, first(&small).1), ("input", Trouble::Error));
    assert!(first(&small).0.troubles[0].remedy.contains("scale the array up") && !small.is_safe());
}

/// Where an infinity comes from is told once; what follows only carries it on.
#[test]
fn only_the_first_of_those_that_carry_a_fault_on_is_blamed() {
    let x = input(&[1, 4]);
    let y = x.exp().muls(0.5).adds(1.0).relu();
    let found = on("h17s", &y, &[tensor(&[1, 4], |i| 5.0 * i as f32)]);
    let blamed: Vec<&str> = found.troubled().map(|node| node.op).collect();
    assert_eq!(blamed, ["exp"]);
    assert!(found.nodes.len() >= 4 && found.nodes.iter().all(|node| node.error.is_infinite()));
}

#[test]
fn a_diagnosis_can_be_read_by_machines() {
    let x = input(&[1, 4]);
    let found = on("h13", &x.exp(), &[tensor(&[1, 4], |i| 5.0 * i as f32)]);
    let json = found.to_json();
    assert_eq!(
        (json["target"].as_str(), json["numerics"].as_str(), json["safe"].as_bool()),
        (Some("h13"), Some("a13"), Some(false))
    );
    assert_eq!(json["nodes"][0]["troubles"][0]["trouble"], "overflow");
    assert!(json["nodes"][0]["error"].is_null() && json["outputs"][0].is_null());
}

/// Declared bounds give the same warnings without data.
#[test]
fn bounds_are_judged_without_data() {
    let bounded = |most: f64| Var::bounded_leaf(TensorType::f16(shape(&[1, 8])), Role::Feed, most);
    let kinds = |target: &str, output: Var| {
        let options = CompileOptions::target(Target::named(target).unwrap());
        let found = without_data(&Graph::freeze(&[output]).unwrap(), &options).unwrap();
        assert_eq!(found.is_safe(), found.notes.iter().all(|note| !note.risk), "{found}");
        found.notes.iter().filter(|note| note.risk).map(|note| note.kind).collect::<Vec<_>>()
    };
    let weight = Var::full(shape(&[2, 8]), 1.0);
    let offset = |x: &Var| x.slice_by_size(&[0, 2], &[1, 4]);
    assert_eq!(kinds("h17s", bounded(8000.0).linear(&weight, None)), ["overflow"]);
    assert_eq!(kinds("h17s", bounded(4000.0).linear(&weight, None)), [""; 0]);
    assert_eq!(kinds("h17s", bounded(12.0).exp()), ["overflow"]);
    assert_eq!(kinds("h17s", bounded(11.0).exp()), [""; 0]);
    assert_eq!(kinds("h13", offset(&bounded(5000.0)).relu()), ["saturates"]);
    assert_eq!(kinds("h13", offset(&bounded(4000.0)).relu()), [""; 0]);
    assert_eq!(kinds("h17s", offset(&bounded(5000.0)).relu()), [""; 0]);
}

#[test]
fn every_chip_is_asked() {
    let x = input(&[1, 8]);
    let part = x.slice_by_size(&[0, 2], &[1, 4]).sin();
    let graph = Graph::freeze(&[part]).unwrap();
    let feeds = [tensor(&[1, 8], |i| 900.0 * i as f32)];
    let all = on_all_chips(&engine(1), &graph, &CompileOptions::default(), &feeds, 1.0).unwrap();
    assert!(all.chips.len() > 20 && all.families.len() == 4 && all.host_us.is_some_and(|us| us > 0.0));
    let verdict = |name: &str| all.chips.iter().find(|chip| chip.target.name() == name).unwrap();
    assert!(matches!(&verdict("h13").verdict, Verdict::Risky(why) if why.starts_with("saturation at ")));
    assert_eq!(verdict("h17s").verdict, Verdict::Safe);
    assert!(verdict("h17s").microseconds().unwrap() > 0.0);
    assert!(
        all.place().starts_with("the engine is the wrong place: the fastest estimate is "),
        "{}",
        all.place()
    );
    let json = all.to_json();
    assert_eq!(
        (json["chips"][0]["target"].as_str(), json["families"].as_array().map(Vec::len)),
        (Some("h13"), Some(4))
    );
    let wide = Graph::freeze(&[input(&[1, 20_000]).relu()]).unwrap();
    let feeds = [tensor(&[1, 20_000], |_| 1.0)];
    let all = on_all_chips(&engine(1), &wide, &CompileOptions::default(), &feeds, TOLERANCE).unwrap();
    let (old, new) =
        all.chips.iter().partition::<Vec<&_>, _>(|chip| chip.target.family() < aneforge::Family::A16);
    assert!(old.iter().all(|chip| matches!(&chip.verdict, Verdict::Refused(why) if why.contains("20000"))));
    assert!(new.iter().all(|chip| chip.verdict == Verdict::Safe) && all.families.len() == 1);
    assert!(all.to_string().contains("h13   A13"));
}

#[test]
fn a_page_names_what_is_wrong_and_stands_alone() {
    let found = on("h17s", &input(&[1, 4]).exp(), &[tensor(&[1, 4], |i| 5.0 * i as f32)]);
    let page = found.to_html();
    assert!(
        page.starts_with("<!doctype html>")
            && page.contains("<svg")
            && page.contains("overflow, 1 of 4 values")
    );
    assert!(!page.contains("http") && page.matches("<tr").count() == 1 + found.nodes.len());
}

#[test]
fn wrong_inputs_are_refused() {
    let graph = Graph::freeze(&[input(&[2]).relu()]).unwrap();
    let run = |feeds: &[Tensor]| {
        diagnose(&engine(1), &graph, &CompileOptions::default(), feeds, TOLERANCE).unwrap_err().to_string()
    };
    assert_eq!(run(&[]), "the model takes 1 input, got 0");
    assert_eq!(run(&[tensor(&[3], |_| 0.0)]), "input 0 must have shape [2], got [3]");
}

/// Every case of every op: the same bits as a session, and the error that half precision makes.
#[test]
fn what_is_diagnosed_is_what_runs() {
    let mut seen = 0;
    for entry in OPS {
        for (at, case) in (entry.cases)().iter().enumerate() {
            let Built { output, feeds, .. } = build(case, false);
            let output = numbers(&output);
            let graph = Graph::freeze(std::slice::from_ref(&output)).unwrap();
            let feeds = feed_tensors(&graph, &feeds);
            for target in ["h13", "h17s"] {
                let options = CompileOptions::target(Target::named(target).unwrap());
                let Ok(plan) = compile(std::slice::from_ref(&output), &options) else { continue };
                let mut session = Session::new(plan, engine(1)).unwrap();
                session.run(&feeds).unwrap();
                let found = diagnose(&engine(1), &graph, &options, &feeds, TOLERANCE).unwrap();
                let bits = |values: &[aneforge::f16]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&found.results()[0]),
                    bits(&session.output(0)),
                    "{} {at} {target}",
                    entry.info.name
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

/// A network of several layers, encoded weights among them.
#[test]
fn the_error_of_encoded_weights_is_that_of_results() {
    use aneforge::passes::{Compression, Form};
    let values: Vec<f32> = (0..64 * 64).map(|i| random::normal(3, i)).collect();
    let weight = Var::constant(Tensor::from_slice(shape(&[64, 64]), &values).unwrap());
    let graph = Graph::freeze(&[input(&[4, 64]).linear(&weight, None).relu()]).unwrap();
    let feeds = [tensor(&[4, 64], |i| random::normal(9, i as u64))];
    let with = |compression: Option<Compression>| {
        let options = CompileOptions::default().compression(compression);
        diagnose(&engine(1), &graph, &options, &feeds, TOLERANCE).unwrap()
    };
    let (dense, table) = (with(None), with(Some(Compression::new(Form::Int4).tolerance(1.0))));
    assert!(dense.outputs[0] < 1e-3 && dense.is_safe());
    assert!(table.outputs[0] > 0.02 && !table.is_safe() && table.first().is_none(), "{table}");
    assert!(table.to_string().contains("results differ"));
    // Of a compiled program alone, what its weights were is not known; how far off they are stored is.
    let options = CompileOptions::default().compression(Compression::new(Form::Int4).tolerance(1.0));
    let plan = compile_graph(&graph, &options).unwrap();
    let alone = diagnose_plan(&engine(1), &plan, &feeds, TOLERANCE).unwrap();
    assert!(!alone.is_safe() && alone.outputs[0] < 1e-3 && alone.notes[0].kind == "encoding", "{alone}");
    assert!(alone.to_string().contains("weights are stored with larger errors"));
}
