//! Native layers: all of them, in this process and in another, with the engine's order of ports and gaps between rows.

use crate::standin::{Standin, worker};
use crate::support::{Built, build, feed_tensors};
use aneforge::device::ane::{Ane, AneOptions, Isolation};
use aneforge::device::{DeviceError, host};
use aneforge::ir::op::{Mil, OPS};
use aneforge::nn::{Attention, sdpa};
use aneforge::{CompileOptions, Graph, Plan, Routes, RunError, Session, Shape, Tensor, Var, compile};
use aneforge_tensor::random;

fn values(shape: &[usize], seed: u64) -> Tensor {
    let shape = Shape::new(shape).unwrap();
    let values: Vec<f32> = (0..shape.count()).map(|i| random::uniform(seed, i as u64) * 2.0 - 1.0).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// A plan that keeps native layers where the target has them.
fn native(outputs: &[Var]) -> Plan {
    compile(outputs, &CompileOptions::default().routes(Routes::Native)).unwrap()
}

fn run(plan: &Plan, device: impl AsRef<dyn aneforge::Device>, feeds: &[Tensor]) -> Vec<Vec<f32>> {
    let mut session = Session::new(plan.clone(), device).unwrap();
    session.run(feeds).unwrap().iter().map(Tensor::to_f32).collect()
}

#[test]
fn every_native_layer_runs_here_and_apart_with_the_same_bits() {
    let standin = Standin::new();
    let engine = standin.engine();
    let apart =
        Ane::open(&AneOptions { worker: Some(worker()), isolation: Isolation::Worker, ..standin.options() })
            .unwrap();
    let mut layers = std::collections::BTreeSet::new();
    for entry in OPS.iter().filter(|entry| matches!((entry.mil)(), Mil::Native(_))) {
        for case in (entry.cases)() {
            let Built { output, feeds, .. } = build(&case, false);
            let plan = native(std::slice::from_ref(&output));
            let feeds = feed_tensors(&Graph::freeze(&[output]).unwrap(), &feeds);
            let want = run(&plan, &*host::shared(), &feeds);
            assert_eq!(run(&plan, &engine, &feeds), want, "{}", entry.info.name);
            assert_eq!(run(&plan, &apart, &feeds), want, "{} apart", entry.info.name);
            layers.extend(
                plan.segments.iter().filter_map(|s| s.netplist()).map(|netplist| netplist.layer.kind),
            );
        }
    }
    assert_eq!(layers.len(), 19, "{layers:?}");
}

#[test]
fn attention_decodes_one_position_against_many() {
    let standin = Standin::new();
    let engine = standin.engine();
    let apart =
        Ane::open(&AneOptions { worker: Some(worker()), isolation: Isolation::Worker, ..standin.options() })
            .unwrap();
    let shapes: [&[usize]; 3] = [&[1, 2, 1, 8], &[1, 2, 5, 8], &[1, 2, 5, 8]];
    let leaves: Vec<Var> = shapes.iter().map(|dims| Var::input(Shape::new(dims).unwrap())).collect();
    let plan = native(&[sdpa(&leaves[0], &leaves[1], &leaves[2], &Attention::default())]);
    assert_eq!(plan.n_native(), 1);
    let feeds: Vec<Tensor> = shapes.iter().zip(3..).map(|(dims, seed)| values(dims, seed)).collect();
    let want = run(&plan, &*host::shared(), &feeds);
    assert_eq!(run(&plan, &engine, &feeds), want);
    assert_eq!(run(&plan, &apart, &feeds), want);
}

#[test]
fn a_cut_graph_goes_through_programs_and_layers() {
    let standin = Standin::new();
    let engine = standin.engine();
    let x = Var::input(Shape::new(&[3, 17]).unwrap());
    let plan = native(&[(x.muls(3.0).sort(true, false) + x.relu()).softmax(1)]);
    assert_eq!((plan.n_native(), plan.segments.len()), (1, 3));
    let feeds = [values(&[3, 17], 5)];
    let want = run(&plan, &*host::shared(), &feeds);
    let mut session = Session::new(plan, &engine).unwrap();
    for _ in 0..3 {
        let got: Vec<Vec<f32>> = session.run(&feeds).unwrap().iter().map(Tensor::to_f32).collect();
        assert_eq!(got, want);
    }
    // Into the layer and out of it, once each in a run, half precision: no detour.
    assert_eq!(session.copied(), 3 * 2 * 3 * 17 * 2);
    let placed: Vec<String> = session.placement().into_iter().map(|receipt| receipt.device).collect();
    assert_eq!(placed, ["ane (stand-in)"; 3]);
}

#[test]
fn every_step_of_a_layers_life_may_fail_and_says_so() {
    let standin = Standin::new();
    let engine = standin.engine();
    let x = Var::input(Shape::new(&[2, 9]).unwrap());
    let plan = native(&[x.sort(false, false)]);
    for (step, told) in [
        ("objc_getClass", "there is no class"),
        ("modelWithNetworkDescription:weights:optionsPlist:", "succeeded and gave nothing"),
        ("inMemoryModelWithDescriptor:", "succeeded and gave nothing"),
        ("compileWithQoS:options:error:", "ANECCompile() FAILED"),
        ("loadWithQoS:options:error:", "0xe00002be"),
        ("IOSurfaceCreate", "succeeded and gave nothing"),
        ("objectWithIOSurface:", "succeeded and gave nothing"),
        (
            "requestWithInputs:inputIndices:outputs:outputIndices:procedureIndex:",
            "succeeded and gave nothing",
        ),
        ("mapIOSurfacesWithRequest:cacheInference:error:", "surface map failure"),
    ] {
        standin.set(&format!("reset;null={step}@1"));
        let before = (standin.count("objects"), engine.framework().loaded());
        let error = Session::new(plan.clone(), &engine).unwrap_err();
        assert!(error.to_string().contains(told), "{step}: {error}");
        assert_eq!((standin.count("objects"), engine.framework().loaded()), before, "{step} leaves nothing");
    }
    standin.set("reset;null=evaluateWithQoS:options:request:error:@2");
    let mut session = Session::new(plan, &engine).unwrap();
    let feeds = [values(&[2, 9], 1)];
    let error = session.run(&feeds).unwrap_err();
    assert!(
        matches!(&error, RunError::Device(DeviceError::Failed { why }) if why.contains("0xe00002d6")),
        "{error}"
    );
    assert!(session.run(&feeds).is_ok(), "the next call is another");
}
