//! The engine as a device: sessions, state, views, caches, the wrong chip, the wrong memory.

use crate::counting::allocations;
use crate::standin::{Standin, library, worker};
use aneforge::device::ane::{Ane, AneOptions, Isolation};
use aneforge::device::{Device, DeviceError, host};
use aneforge::ir::ops::leaf::Role;
use aneforge::session::Running;
use aneforge::{
    CompileOptions, Feed, Graph, RunError, Session, Shape, State, Tensor, TensorType, Var, compile,
    compile_graph, device,
};
use aneforge_ane::Libraries;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

fn vector(n: usize) -> Shape {
    Shape::new(&[n]).unwrap()
}

#[test]
fn where_there_is_no_engine_it_says_why() {
    let error = device::ane().err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string().contains("is not available")),
        (aneforge::Kind::Device, true),
        "{error}"
    );
    let options = AneOptions { libraries: Libraries::all("/nowhere/lib.so"), ..AneOptions::default() };
    let error = Ane::open(&options).err().unwrap();
    assert!(error.to_string().contains("/nowhere/lib.so"), "{error}");
}

#[test]
fn a_stand_in_is_never_taken_for_the_engine() {
    let standin = Standin::new();
    let engine = standin.engine();
    assert!(engine.describe().starts_with("stand-in 0.1.0 for the engine"), "{}", engine.describe());
    let plan = compile(&[Var::input(vector(4)).relu()], &CompileOptions::default()).unwrap();
    let session = Session::new(plan, &engine).unwrap();
    let [receipt] = &session.placement()[..] else { panic!("one segment") };
    assert_eq!(receipt.device, "ane (stand-in)");
    assert_eq!((session.device(), engine.name()), ("ane (stand-in)", "ane"));
    assert!(format!("{session:?}").contains(", device ane (stand-in), "), "{session:?}");
    // By its title it is found, and nothing else.
    let open =
        |options: &AneOptions| device::open(Some("ANE (stand-in)"), &host::HostOptions::default(), options);
    assert_eq!(open(&standin.options()).unwrap().title(), "ane (stand-in)");
    assert!(open(&AneOptions::default()).is_err());
    assert!(receipt.how[0].contains("mask 0x4") && receipt.how[1].contains("main_ane"), "{receipt:?}");
}

#[test]
fn feeds_and_results_are_the_engines_own_memory() {
    let standin = Standin::new();
    let engine = standin.engine();
    let plan = compile(&[Var::input(vector(64)).muls(2.0)], &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, &engine).unwrap();
    for k in 0..4u8 {
        session.input_mut(0).unwrap().fill(aneforge::f16::from_f32(f32::from(k)));
        session.execute().unwrap();
        assert!(session.output(0).iter().all(|v| v.to_f32() == 2.0 * f32::from(k)));
    }
    assert_eq!(session.copied(), 0);
    assert_eq!(standin.count("e5rt_execution_stream_encode_operation"), 1, "encoded once");
    let error =
        session.bind_input(0, &host::shared().allocate(TensorType::f16(vector(64))).unwrap()).unwrap_err();
    assert!(error.to_string().contains("not the engine's"), "{error}");
    assert!(session.execute().is_ok(), "and the old buffer is still bound");
}

#[test]
fn state_stays_where_it_is_over_a_thousand_steps() {
    let standin = Standin::new();
    let engine = standin.engine();
    let total = State::new(&engine, "total", vector(3)).unwrap();
    let x = Var::leaf(TensorType::f16(vector(3)), Role::Feed);
    let step = Graph::carrying(&[], &[(total.var(), &(total.var().muls(0.5) + &x))]).unwrap();
    let mut step = Session::new(compile_graph(&step, &CompileOptions::default()).unwrap(), &engine).unwrap();
    let read = compile(&[total.var().muls(1.0)], &CompileOptions::default()).unwrap();
    let mut read = Session::new(read, &engine).unwrap();
    step.bind_state(&total).unwrap();
    read.bind_state(&total).unwrap();
    let mut want = [0.0f32; 3];
    for k in 0..1000u32 {
        let values = [k as f32 % 7.0, 1.0, -2.0];
        step.run(&[Tensor::from_slice(vector(3), &values).unwrap()]).unwrap();
        want.iter_mut().zip(values).for_each(|(w, v)| *w = half(half(*w * 0.5) + v));
    }
    assert_eq!(read.run(&[]).unwrap()[0].to_f32(), want);
    assert_eq!((step.copied(), read.copied()), (0, 0));
    assert_eq!(standin.count("e5rt_execution_stream_encode_operation"), 2, "each once");
    let kept = step.snapshot().unwrap();
    total.write(Feed::F32(&[9.0; 3])).unwrap();
    assert_eq!(read.run(&[]).unwrap()[0].to_f32(), [9.0; 3]);
    step.restore(&kept).unwrap();
    assert_eq!(read.run(&[]).unwrap()[0].to_f32(), want);
}

#[test]
fn a_call_allocates_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 3]))), 1, "the counter counts");
    let standin = Standin::new();
    let plan = compile(&[Var::input(vector(64)).muls(2.0)], &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, standin.engine()).unwrap();
    session.execute().unwrap();
    let count = allocations(|| {
        for k in 0..100u8 {
            session.input_mut(0).unwrap().fill(aneforge::f16::from_f32(f32::from(k)));
            session.execute().unwrap();
            assert_eq!(session.output(0)[63].to_f32(), 2.0 * f32::from(k));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn calls_that_were_submitted_go_on_beside_their_caller() {
    let standin = Standin::new();
    let plan = compile(&[Var::input(vector(4)).adds(1.0)], &CompileOptions::default()).unwrap();
    let sessions: Vec<Session> =
        (0..2).map(|_| Session::new(plan.clone(), standin.engine()).unwrap()).collect();
    standin.set("slow=e5rt_execution_stream_execute_sync:1500");
    let running: Vec<Running> = sessions.into_iter().map(Session::submit).collect();
    assert!(running.iter().all(|running| !running.is_done()), "they come back at once");
    for running in running {
        let done = running.wait_for(Duration::ZERO);
        let (session, done) = done.unwrap_or_else(Running::wait);
        done.unwrap();
        assert_eq!(session.output(0)[0].to_f32(), 1.0);
    }
    // As a future, on an executor of one thread.
    standin.set("reset");
    let session = Session::new(plan, standin.engine()).unwrap();
    let (session, done) = block_on(async move { session.submit().await });
    done.unwrap();
    assert_eq!(session.output(0)[3].to_f32(), 1.0);
}

/// Runs a future to its end.
#[test]
fn a_result_that_was_given_as_a_future_is_not_waited_for_again() {
    let session = || {
        let plan = compile(&[Var::input(vector(4)).adds(1.0)], &CompileOptions::default()).unwrap();
        Session::new(plan, &*host::shared()).unwrap()
    };
    let told = |work: &dyn Fn(Running)| {
        let mut running = session().submit();
        let (_, done) = block_on(&mut running);
        done.unwrap();
        assert!(running.is_done());
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(running))).unwrap_err();
        panic.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned())
    };
    let again: [&dyn Fn(Running); 3] = [
        &|running| _ = running.wait(),
        &|running| _ = running.wait_for(Duration::from_secs(60)),
        &|running| _ = block_on(running),
    ];
    for work in again {
        assert!(told(work).contains("has given its result as a future"), "{}", told(work));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn half(v: f32) -> f32 {
    aneforge::f16::from_f32(v).to_f32()
}

#[test]
fn the_same_program_is_compiled_once_in_a_process_and_opened_again_in_the_next() {
    let standin = Standin::new();
    let plan = compile(&[Var::input(vector(8)).exp()], &CompileOptions::default()).unwrap();
    let compiles = || standin.count("e5rt_e5_compiler_compile");
    let engine = standin.engine();
    let sessions: Vec<Session> = (0..3).map(|_| Session::new(plan.clone(), &engine).unwrap()).collect();
    assert_eq!(compiles(), 1);
    drop((sessions, engine));
    // Another device over the same folder, as another process would have.
    let again = standin.engine();
    let mut session = Session::new(plan.clone(), &again).unwrap();
    assert_eq!((compiles(), standin.count("e5rt_program_library_create")), (1, 1), "opened again");
    assert_eq!(
        session.run(&[Tensor::from_slice(vector(8), &[0.0f32; 8]).unwrap()]).unwrap()[0].to_f32(),
        [1.0; 8]
    );
    // Where the system refuses what it has not compiled for this process, it is compiled.
    standin.set("reopen=no");
    Session::new(plan.clone(), standin.engine()).unwrap();
    assert_eq!(compiles(), 2);
    // And where it was compiled on another system.
    let stamps: Vec<_> = std::fs::read_dir(standin.folder.path())
        .unwrap()
        .flatten()
        .map(|e| e.path().join("compiled"))
        .collect();
    stamps.iter().filter(|path| path.exists()).for_each(|path| std::fs::write(path, "25A1").unwrap());
    standin.set("reset");
    Session::new(plan, standin.engine()).unwrap();
    assert_eq!((compiles(), standin.count("e5rt_program_library_create")), (1, 0));
}

#[test]
fn a_program_runs_in_another_process_with_the_same_bits() {
    let standin = Standin::new();
    let options = AneOptions { worker: Some(worker()), isolation: Isolation::Worker, ..standin.options() };
    let apart = Ane::open(&options).unwrap();
    let x = Var::input(Shape::new(&[5, 8]).unwrap());
    let plan = compile(&[x.softmax(1), x.sum(&[0])], &CompileOptions::default()).unwrap();
    let values: Vec<f32> = (0..40).map(|i| (i as f32).sin()).collect();
    let feeds = [Tensor::from_slice(Shape::new(&[5, 8]).unwrap(), &values).unwrap()];
    let run = |session: Result<Session, RunError>| -> Vec<Vec<f32>> {
        session.unwrap().run(&feeds).unwrap().iter().map(Tensor::to_f32).collect()
    };
    assert_eq!(run(Session::new(plan.clone(), &apart)), run(Session::new(plan.clone(), &*host::shared())));
    assert_eq!(standin.count("e5rt_e5_compiler_compile"), 0, "nothing compiles here");
    let without = AneOptions { worker: None, ..options };
    let error = Session::new(plan.clone(), Ane::open(&without).unwrap()).unwrap_err();
    assert!(error.to_string().contains("AneOptions::worker"), "{error}");
}

#[test]
fn a_program_on_disk_that_is_damaged_is_written_again() {
    let standin = Standin::new();
    let x = Var::input(Shape::new(&[1, 8]).unwrap());
    let values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin()).collect();
    let weight = Var::constant(Tensor::from_slice(Shape::new(&[8, 8]).unwrap(), &values).unwrap());
    let plan = compile(&[x.linear(&weight, None)], &CompileOptions::default()).unwrap();
    let feed = [Tensor::from_slice(Shape::new(&[1, 8]).unwrap(), &[1.0f32; 8]).unwrap()];
    let run = || {
        let mut session = Session::new(plan.clone(), standin.engine()).unwrap();
        session.run(&feed).unwrap()[0].to_f32()
    };
    let want = run();
    let entries = std::fs::read_dir(standin.folder.path()).unwrap().flatten().map(|entry| entry.path());
    let folder = entries.into_iter().find(|path| path.join("model.mil").exists()).unwrap();
    for file in ["weights.bin", "model.mil"] {
        let path = folder.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let last = flipped.len() - 3;
        flipped[last] ^= 0x55;
        for damaged in [Some(flipped), Some(whole[..whole.len() / 2].to_vec()), Some(Vec::new()), None] {
            match damaged {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert_eq!(run(), want, "{file}");
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{file}");
        }
    }
}

#[test]
fn another_process_that_has_ended_is_started_again() {
    let standin = Standin::new();
    let mut command = worker();
    let set = "ANEFORGE_STANDIN=crash=e5rt_execution_stream_execute_sync@2";
    command.splice(0..0, ["env".into(), set.into()]);
    let options = AneOptions { worker: Some(command), isolation: Isolation::Worker, ..standin.options() };
    let plan = compile(&[Var::input(vector(4)).muls(3.0)], &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, Ane::open(&options).unwrap()).unwrap();
    let feed = [Tensor::from_slice(vector(4), &[2.0f32; 4]).unwrap()];
    for k in 0..6 {
        match session.run(&feed) {
            Ok(values) => assert_eq!((k % 2, values[0].to_f32()), (0, vec![6.0; 4])),
            Err(error) => {
                assert!(k % 2 == 1 && error.to_string().contains("was set to crash"), "{k}: {error}")
            }
        }
    }
}

#[test]
fn a_session_on_the_engine_is_made_by_name_with_options() {
    let standin = Standin::new();
    let open = || device::ane_with(&standin.options()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&open(), &open()), "one device for equal options");
    let error =
        device::open(Some("ane"), &host::HostOptions::default(), &AneOptions::default()).err().unwrap();
    assert!(matches!(error, DeviceError::Unavailable { device: "ane", .. }));
    assert!(library().exists());
    let missing =
        Session::new(compile(&[Var::input(vector(2)).relu()], &CompileOptions::default()).unwrap(), open());
    let missing: Result<_, RunError> = missing.and_then(|mut session| session.run(&[]));
    assert!(missing.unwrap_err().to_string().contains("takes 1 input"));
}
