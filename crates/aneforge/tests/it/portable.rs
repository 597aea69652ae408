//! Graphs and plans as bytes.

use super::support::engine;
use aneforge::portable::{pack_plan, pack_values, unpack_plan, unpack_values};
use aneforge::{CompileOptions, DType, Plan, Routes, Session, Shape, Tensor, TensorType, Var, compile};
use aneforge_tensor::Bytes;
use proptest::prelude::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// A cut graph with weights in three element types, a byte port, an input that nothing reads early, and two results.
pub fn outputs() -> Vec<Var> {
    let values: Vec<f64> = (0..48).map(|i| f64::from(i % 7) - 3.0).collect();
    let single: Vec<f32> = values.iter().map(|&v| v as f32 / 8.0).collect();
    let image = Var::input_of(TensorType { dtype: DType::U8, shape: shape(&[4, 6]) });
    let x = Var::input(shape(&[4, 6]));
    let a = Var::constant(Tensor::from_slice(shape(&[8, 6]), &single).unwrap());
    let b = Var::constant(Tensor::from_slice(shape(&[6, 8]), &values).unwrap());
    let y = (&image.cast() * 0.01 + &x).linear(&a, None).gelu().linear(&b, None);
    let one = Var::full(shape(&[6]), 1.0);
    vec![y.sort(true, false).exp(), y.layer_norm(&one, &one, 1e-5)]
}

pub fn results(plan: Plan) -> Vec<Vec<f32>> {
    let mut session = Session::new(plan, engine(1)).unwrap();
    let image = Tensor::from_slice(shape(&[4, 6]), &(0..24).collect::<Vec<u8>>()).unwrap();
    let x = Tensor::from_slice(shape(&[4, 6]), &(0..24).map(|i| i as f32 * 0.3 - 4.0).collect::<Vec<_>>());
    session.run(&[image, x.unwrap()]).unwrap().iter().map(Tensor::to_f32).collect()
}

#[test]
fn a_plan_comes_back_as_it_was() {
    let plan =
        compile(&outputs(), &CompileOptions { routes: Routes::Native, ..CompileOptions::default() }).unwrap();
    assert!(plan.segments.len() > 1);
    let bytes = pack_plan(&plan).unwrap();
    let back = unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh).unwrap();
    assert_eq!(back.to_string(), plan.to_string());
    for (a, b) in plan.segments.iter().zip(&back.segments) {
        assert_eq!((a.text(), a.weight_bytes()), (b.text(), b.weight_bytes()));
        let lines = |s: &aneforge::plan::Segment| s.graph.nodes().map(|(_, n)| n.at).collect::<Vec<_>>();
        assert_eq!(lines(a), lines(b));
    }
    assert_eq!(pack_plan(&back).unwrap().len(), bytes.len());
    assert_eq!(results(back), results(plan));
}

/// Scalars go in and out of programs through ports of one element.
#[test]
fn plans_with_scalars_come_back() {
    let (x, k) = (Var::input(shape(&[2, 6])), Var::input(Shape::SCALAR));
    let total = x.sum(&[0, 1]).squeeze(&[0, 1]);
    for outputs in [
        vec![total.clone()],
        vec![&x * &k, k.relu()],
        vec![x.sort(true, false).amax(&[0, 1]).squeeze(&[0, 1])],
    ] {
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        let back = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, fresh| fresh).unwrap();
        assert_eq!(back.to_string(), plan.to_string());
    }
}

#[test]
fn values_come_back_and_share_the_leaves_that_they_shared() {
    let outputs = outputs();
    let bytes = pack_values(&outputs).unwrap();
    let mut kept: std::collections::HashMap<u64, Var> = Default::default();
    let mut again = || {
        let mut leaf = |number, fresh: Var| kept.entry(number).or_insert(fresh).clone();
        unpack_values(Bytes::new(bytes.clone()), &mut leaf).unwrap()
    };
    let (one, two) = (again(), again());
    let sum = compile(&[&one[0] + &two[0]], &CompileOptions::default()).unwrap();
    assert_eq!(sum.feeds.len(), 2, "the same inputs feed both");
    let plan = |outputs: &[Var]| compile(outputs, &CompileOptions::default()).unwrap();
    assert_eq!(results(plan(&one)), results(plan(&outputs)));
    assert!(unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh).is_err());
}

#[test]
fn names_of_inputs_survive_text_and_bytes() {
    let named = |name: &str| Var::named_input(TensorType::f16(shape(&[2])), name);
    let sum = named("image.0") + named("mask");
    let graph = aneforge::Graph::freeze(std::slice::from_ref(&sum)).unwrap();
    let text = aneforge::ir::text::print(&graph);
    assert!(text.contains("%1 = input(feed=1, role=\"feed\", name=\"mask\")"), "{text}");
    let read = aneforge::ir::text::parse(&text).unwrap();
    assert_eq!(aneforge::ir::text::print(&read), text);
    let plan = compile(&read.thaw(), &CompileOptions::default()).unwrap();
    let back = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, fresh| fresh).unwrap();
    for plan in [&plan, &back] {
        assert_eq!((plan.feed("image.0"), plan.feed("mask"), plan.feed("")), (Some(0), Some(1), None));
    }
    let values = unpack_values(Bytes::new(pack_values(&[sum]).unwrap()), &mut |_, fresh| fresh).unwrap();
    assert_eq!(compile(&values, &CompileOptions::default()).unwrap().feed("mask"), Some(1));
    let twice = compile(&[named("x") + named("x")], &CompileOptions::default()).unwrap_err().to_string();
    assert!(
        twice.starts_with("input: two inputs are called `x`; give each a name of its own (at "),
        "{twice}"
    );
    assert!(aneforge::ir::text::parse(&text.replace("image.0", "mask")).is_err());
    assert!(named("two words").check().is_err());
}

#[test]
fn slices_with_a_step_are_held_to_their_places_on_every_family() {
    let x: Vec<f32> = (0..30).map(|i| i as f32).collect();
    for target in ["h13", "h14", "h15", "h16", "h17s"] {
        let options =
            CompileOptions { target: aneforge::Target::named(target).unwrap(), ..CompileOptions::default() };
        for (begin, step, count) in [(0, 2, 3), (1, 2, 2), (0, 3, 2), (1, 4, 1), (4, 1, 1), (0, 4, 2)] {
            let input = Var::input(shape(&[2, 5, 3]));
            let plan = compile(&[input.every(1, begin, step, count)], &options).unwrap();
            let feed = Tensor::from_slice(shape(&[2, 5, 3]), &x).unwrap();
            let mut session = Session::new(plan, engine(1)).unwrap();
            let got = session.run(&[feed]).unwrap()[0].to_f32();
            let want = (0..2 * count * 3).map(|i| {
                let (row, at, column) = (i / (count * 3), i / 3 % count, i % 3);
                x[row * 15 + (begin + at * step) * 3 + column]
            });
            assert_eq!(got, want.collect::<Vec<_>>(), "{target}: {count} from {begin}, {step} apart");
        }
    }
    for (begin, step, count) in [(0, 0, 2), (0, 1, 0), (0, 2, 4), (5, 1, 1), (0, usize::MAX, 3)] {
        assert!(Var::input(shape(&[5])).every(0, begin, step, count).check().is_err());
    }
}

proptest! {
    #[test]
    fn damaged_plans_never_panic(changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..4)) {
        let mut bytes = pack_plan(&compile(&outputs(), &CompileOptions::default()).unwrap()).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh);
        let _ = unpack_values(Bytes::new(bytes), &mut |_, fresh| fresh);
    }
}
