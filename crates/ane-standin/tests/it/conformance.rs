//! The conformance suite on the engine's interface as a second device: every case of every op, and the same bits as the host.

use crate::standin::Standin;
use crate::support::{Built, build, feed_tensors, numbers};
use aneforge::device::host;
use aneforge::ir::op::OPS;
use aneforge::{CompileOptions, Graph, Session, Tensor, compile};

#[test]
fn every_case_computes_the_same_through_the_interface() {
    let standin = Standin::new();
    let engine = standin.engine();
    let host = host::shared();
    let (mut cases, mut native) = (0, 0);
    for entry in OPS {
        for (at, case) in (entry.cases)().iter().enumerate() {
            let what = format!("{} case {at}", entry.info.name);
            let Built { output, feeds, .. } = build(case, false);
            let output = numbers(&output);
            let Ok(plan) = compile(std::slice::from_ref(&output), &CompileOptions::default()) else {
                continue;
            };
            let graph = Graph::freeze(&[output]).unwrap();
            let feeds = feed_tensors(&graph, &feeds);
            native += plan.n_native();
            let run = |session: Result<Session, _>| -> Vec<Tensor> {
                let mut session: Session =
                    session.unwrap_or_else(|error: aneforge::RunError| panic!("{what}: {error}"));
                session.run(&feeds).unwrap_or_else(|error| panic!("{what}: {error}"))
            };
            let want = run(Session::new(plan.clone(), &*host));
            let got = run(Session::new(plan, &engine));
            let bits = |values: &[Tensor]| -> Vec<u32> {
                values.iter().flat_map(|t| t.to_f32()).map(f32::to_bits).collect()
            };
            assert_eq!(bits(&got), bits(&want), "{what}");
            cases += 1;
        }
    }
    assert!(cases >= 300 && native >= 40, "{cases} cases, {native} native layers");
}
