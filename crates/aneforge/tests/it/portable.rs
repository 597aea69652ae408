//! Graphs and plans as bytes.

use aneforge::device::host::Host;
use aneforge::portable::{pack_plan, pack_values, unpack_plan, unpack_values};
use aneforge::{DType, Options, Plan, Routes, Session, Shape, Tensor, TensorType, Var, compile};
use aneforge_tensor::Bytes;
use proptest::prelude::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// A cut graph with weights in three element types, a byte port, an input that nothing reads early, and two results.
fn outputs() -> Vec<Var> {
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

fn results(plan: Plan) -> Vec<Vec<f32>> {
    let mut session = Session::new(plan, &Host::new(1), Default::default()).unwrap();
    let image = Tensor::from_slice(shape(&[4, 6]), &(0..24).collect::<Vec<u8>>()).unwrap();
    let x = Tensor::from_slice(shape(&[4, 6]), &(0..24).map(|i| i as f32 * 0.3 - 4.0).collect::<Vec<_>>());
    session.run(&[image, x.unwrap()]).unwrap().iter().map(Tensor::to_f32).collect()
}

#[test]
fn a_plan_comes_back_as_it_was() {
    let plan = compile(&outputs(), &Options { routes: Routes::Native, ..Options::default() }).unwrap();
    assert!(plan.segments.len() > 1);
    let bytes = pack_plan(&plan);
    let back = unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh).unwrap();
    assert_eq!(back.to_string(), plan.to_string());
    for (a, b) in plan.segments.iter().zip(&back.segments) {
        assert_eq!((a.text(), a.weight_bytes()), (b.text(), b.weight_bytes()));
        let lines = |s: &aneforge::plan::Segment| s.graph.nodes().map(|(_, n)| n.at).collect::<Vec<_>>();
        assert_eq!(lines(a), lines(b));
    }
    assert_eq!(pack_plan(&back).len(), bytes.len());
    assert_eq!(results(back), results(plan));
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
    let sum = compile(&[&one[0] + &two[0]], &Options::default()).unwrap();
    assert_eq!(sum.feeds.len(), 2, "the same inputs feed both");
    let plan = |outputs: &[Var]| compile(outputs, &Options::default()).unwrap();
    assert_eq!(results(plan(&one)), results(plan(&outputs)));
    assert!(unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh).is_err());
}

proptest! {
    #[test]
    fn damaged_plans_never_panic(changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..4)) {
        let mut bytes = pack_plan(&compile(&outputs(), &Options::default()).unwrap());
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = unpack_plan(Bytes::new(bytes.clone()), &mut |_, fresh| fresh);
        let _ = unpack_values(Bytes::new(bytes), &mut |_, fresh| fresh);
    }
}
