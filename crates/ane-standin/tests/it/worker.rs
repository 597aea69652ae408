//! Processes that run programs apart: what they say, and what becomes of those that crash, hang or never were.

use crate::calls::written;
use crate::standin::{Standin, library, worker};
use aneforge_ane::worker::{ProgramWork, Request, Work, Worker, try_compile};
use aneforge_ane::{AneError, Libraries};
use std::ffi::OsString;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn request(work: Work, limit: Duration) -> Request {
    Request { libraries: Libraries::all(library()), work, call_limit_ms: limit.as_millis() as u64 }
}

fn child(argument: &str) -> Vec<OsString> {
    vec![env!("CARGO_BIN_EXE_standin_child").into(), argument.into()]
}

/// A command for a process whose stand-in is set so.
fn faulty(settings: &str) -> Vec<OsString> {
    let set = format!("ANEFORGE_STANDIN={settings}");
    ["env".into(), set.into()].into_iter().chain(worker()).collect()
}

fn values(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| aneforge::f16::from_f32(v).to_le_bytes()).collect()
}

#[test]
fn a_worker_runs_a_program_again_and_again() {
    let standin = Standin::new();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    for command in [worker(), child("loud")] {
        let work = Work::Program { program: ProgramWork::of(&files.source()) };
        let mut worker = Worker::start(&command, &request(work, LONG), LONG, LONG).unwrap();
        assert_eq!((&worker.inputs[..], &worker.outputs[..]), (&[8][..], &[8][..]));
        for k in 0..20u8 {
            let k = f32::from(k);
            assert_eq!(
                worker.run(&[&values(&[k, 1.0, 2.0, 3.0])]).unwrap(),
                values(&[2.0 * k, 2.0, 4.0, 6.0])
            );
        }
        assert!(matches!(worker.run(&[&[0; 6]]), Err(AneError::Values { .. })));
        assert!(worker.run(&[&values(&[1.0; 4])]).is_ok(), "what was refused was not sent");
    }
}

#[test]
fn a_worker_that_dies_between_calls_is_known_to_have_ended() {
    let standin = Standin::new();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let work = Work::Program { program: ProgramWork::of(&files.source()) };
    let mut worker = Worker::start(&worker(), &request(work, LONG), LONG, LONG).unwrap();
    assert!(!worker.has_ended());
    assert!(
        std::process::Command::new("kill").args(["-9", &worker.id().to_string()]).status().unwrap().success()
    );
    let start = Instant::now();
    while !worker.has_ended() && start.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(worker.has_ended(), "before anything is asked of it");
    assert!(matches!(worker.run(&[&values(&[1.0; 4])]), Err(AneError::Worker { .. })));
}

#[test]
fn crashes_and_hangs_of_a_worker_are_errors_in_time() {
    let standin = Standin::new();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let short = Duration::from_millis(400);
    let start = |command: &[OsString], ready, limit| {
        let work = Work::Program { program: ProgramWork::of(&files.source()) };
        Worker::start(command, &request(work, LONG), ready, limit)
    };
    let told = |error: AneError, told: &str| {
        assert!(matches!(error, AneError::Worker { .. }) && error.to_string().contains(told), "{error}");
    };
    let begin = Instant::now();
    told(start(&child("deaf"), short, LONG).unwrap_err(), "has not answered within 0.4 s");
    told(start(&["/nowhere/at/all".into()], LONG, LONG).unwrap_err(), "could not be started");
    told(start(&[], LONG, LONG).unwrap_err(), "has no command");
    told(start(&["false".into()], LONG, LONG).unwrap_err(), "ended");
    told(start(&["echo".into(), "{\"status\":\"no\"}".into()], LONG, LONG).unwrap_err(), "no");
    let call = |settings: &str, limit| {
        let mut worker = start(&faulty(settings), LONG, limit).unwrap();
        let error = worker.run(&[&values(&[1.0; 4])]).unwrap_err();
        assert!(worker.has_ended());
        assert!(worker.run(&[&values(&[1.0; 4])]).is_err(), "and stays so");
        error
    };
    told(call("crash=e5rt_execution_stream_execute_sync@1", LONG), "was set to crash");
    told(call("hang=e5rt_execution_stream_execute_sync@1:60000", short), "has not answered within 0.4 s");
    told(call("fail=e5rt_execution_stream_execute_sync@1:2", LONG), "answered 2");
    told(call("corrupt=1", LONG), "0xe00002bc");
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
}

#[test]
fn compiles_are_tried_apart() {
    let standin = Standin::new();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let libraries = Libraries::all(library());
    let tried = |settings: &str, limit| try_compile(&faulty(settings), &libraries, &files.source(), limit);
    tried("reset", LONG).unwrap();
    for (settings, told) in [
        ("crash=e5rt_e5_compiler_compile@1", "was set to crash"),
        ("hang=e5rt_e5_compiler_compile@1:60000", "has not answered within 1 s"),
        ("reject=mul;print=tensor too wide", "tensor too wide"),
        ("null=e5rt_e5_compiler_compile@1", "succeeded and gave nothing"),
    ] {
        let limit = if settings.starts_with("hang") { Duration::from_secs(1) } else { LONG };
        let error = tried(settings, limit).unwrap_err();
        assert!(error.to_string().contains(told), "{settings}: {error}");
    }
}
