//! Values that are parts of others in the same memory: what is true of those by themselves is of parts, too.

use crate::counting::allocations;
use crate::support::engine;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::leaf::Role;
use aneforge::{
    CompileOptions, Graph, Numerics, Plan, Session, Shape, Tensor, TensorType, Var, compile, compile_graph,
};
use std::sync::Arc;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn tensor(dims: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    let shape = shape(dims);
    Tensor::from_slice(shape, &(0..shape.count()).map(value).collect::<Vec<_>>()).unwrap()
}

/// The steps that a plan has, with parts or without.
fn steps(plan: &Plan) -> Vec<String> {
    let host = engine(1);
    let text = host.plan(&plan.segments[0], plan.target).unwrap().to_string();
    text.lines().filter(|line| line.contains(" = ")).map(str::to_owned).collect()
}

/// Channels of images of two convolutions, the second of which has 200 as its weight, side by side.
fn beside(x: &Var) -> Var {
    let of = |weight: f32| {
        let weight = Var::constant(tensor(&[4, 2, 1, 1], |_| weight));
        x.conv(Conv { strides: [1; 2], pad: [0; 4], dilations: [1; 2], groups: 1 }, &weight, None)
    };
    let (one, other) = (of(0.5), of(200.0));
    let all = Var::concat(&[&one, &other.relu(), &one.sigmoid()], 1);
    Var::concat(&[&all.amax(&[2, 3]), &other.amax(&[2, 3])], 1)
}

/// What another call has left in other parts is of no concern.
#[test]
fn overflows_in_parts_are_those_of_nodes_by_themselves() {
    let x = Var::input(shape(&[2, 2, 3, 3]));
    let plan = Arc::new(compile(&[beside(&x)], &CompileOptions::default()).unwrap());
    assert!(steps(&plan).iter().any(|step| step.contains("by 12] = conv")), "{:?}", steps(&plan));
    let mut found = Vec::new();
    for host in [engine(2), engine(1).unfused()] {
        let mut session = Session::new(plan.clone(), host.with_numerics(Numerics::Ieee)).unwrap();
        for large in [1.0, 300.0, 2.0, 400.0] {
            session.run(&[tensor(&[2, 2, 3, 3], |i| if i % 7 == 3 { large } else { 0.25 })]).unwrap();
        }
        found.push(session.overflows().map(|o| (o.op, o.values, o.calls)).collect::<Vec<_>>());
    }
    assert_eq!(found[0], found[1], "fused and not");
    assert_eq!(found[0].len(), 1);
    assert_eq!((found[0][0].0, found[0][0].2), ("conv", 1), "{found:?}");
}

#[test]
fn parts_are_read_and_written_without_allocating() {
    let x = Var::input(shape(&[2, 2, 3, 3]));
    let rows = beside(&x).reshape(&[2, 16]);
    let weight = Var::constant(tensor(&[12, 8], |i| (i % 5) as f32 * 0.1));
    let gates = rows.narrow(1, 3, 11).linear(&weight, None);
    let half = |from: usize| gates.narrow(1, from, from + 6);
    let y = Var::concat(&[&(&half(0).sigmoid() * &half(6)), &rows.narrow(1, 0, 2)], 1);
    let mut session = Session::new(compile(&[y], &CompileOptions::default()).unwrap(), engine(1)).unwrap();
    session.run(&[tensor(&[2, 2, 3, 3], |i| i as f32 * 0.01)]).unwrap();
    assert_eq!(allocations(|| (0..10).for_each(|_| session.execute().unwrap())), 0);
}

/// The last rows that were computed: what becomes of them is a part of them and one more, in the same buffer.
#[test]
fn state_may_be_a_part_of_itself_beside_what_is_new() {
    let (x, kept) = (Var::input(shape(&[1, 3])), Var::leaf(TensorType::f16(shape(&[4, 3])), Role::State));
    let double = Var::constant(tensor(&[3, 3], |i| if i % 4 == 0 { 2.0 } else { 0.0 }));
    let next = Var::concat(&[&kept.narrow(0, 1, 4), &x.linear(&double, None)], 0);
    let graph = Graph::carrying(&[kept.narrow(0, 2, 4).muls(0.5)], &[(&kept, &next)]).unwrap();
    let plan = compile_graph(&graph, &CompileOptions::default()).unwrap();
    assert!(steps(&plan).iter().any(|step| step.contains("[9] = matmul")), "{:?}", steps(&plan));
    for host in [engine(2), engine(1).unfused()] {
        let mut session = Session::new(plan.clone(), host).unwrap();
        for call in 0..6 {
            let row =
                |call: i32| move |i: usize| (call.max(0) * 3) as f32 + if call < 1 { 0.0 } else { i as f32 };
            let result = session.run(&[tensor(&[1, 3], row(call + 1))]).unwrap()[0].to_f32();
            let wanted: Vec<f32> =
                [call - 1, call].into_iter().flat_map(|call| (0..3).map(row(call))).collect();
            assert_eq!(result, wanted, "call {call}");
        }
    }
}
