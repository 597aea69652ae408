//! After its first call, a session on the host allocates nothing, whatever the op.

use crate::counting::allocations;
use crate::support::{Built, build, engine, feed_tensors, numbers};
use aneforge::ir::op::OPS;
use aneforge::ir::ops::leaf::Role;
use aneforge::{CompileOptions, Graph, Session, Shape, TensorType, Var, compile, compile_graph};

#[test]
fn no_case_of_any_op_allocates_after_its_first_call() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 3]))), 1, "the counter counts");
    let mut found = Vec::new();
    for entry in OPS {
        for (i, case) in (entry.cases)().iter().enumerate() {
            for all_fed in [false, true] {
                let Built { output, feeds, .. } = build(case, all_fed);
                let output = numbers(&output);
                let feeds = feed_tensors(&Graph::freeze(std::slice::from_ref(&output)).unwrap(), &feeds);
                let Ok(plan) = compile(&[output], &CompileOptions::default()) else { continue };
                let mut session = Session::new(plan, engine(1)).unwrap();
                let mut result = vec![0.0f32; session.run(&feeds).unwrap()[0].shape().count()];
                let count = allocations(|| {
                    session.execute().unwrap();
                    session.read(0, &mut result);
                });
                if count > 0 {
                    found.push((entry.info.name, i, all_fed, count));
                }
            }
        }
    }
    assert_eq!(found, [], "op, case, whether its weights are fed, allocations");
}

/// Neither do programs that keep state, in one part or in several.
#[test]
fn state_is_kept_without_allocating() {
    for cut in [false, true] {
        let ty = TensorType::f16(Shape::new(&[1, 8]).unwrap());
        let (state, other) = (Var::leaf(ty, Role::State), Var::leaf(ty, Role::State));
        let next = state.muls(0.5).adds(1.0);
        let next = if cut { next.sort(false, false) } else { next };
        let graph =
            Graph::carrying(&[next.muls(2.0)], &[(&state, &next), (&other, &(&state + &other))]).unwrap();
        let plan = compile_graph(&graph, &CompileOptions::default()).unwrap();
        assert_eq!(plan.segments.len() > 1, cut);
        let mut session = Session::new(plan, engine(1)).unwrap();
        session.execute().unwrap();
        let count = allocations(|| (0..1000).for_each(|_| session.execute().unwrap()));
        assert_eq!((count, session.copied()), (0, 0), "cut: {cut}");
        assert!(session.snapshot().unwrap()[0].1.to_f32().iter().all(|v| (v - 2.0).abs() < 1e-2));
    }
}
