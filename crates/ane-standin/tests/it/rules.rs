//! What the stand-in enforces: each rule is broken by a process that is then ended, or answered with a status.

use crate::calls::written;
use crate::standin::{Standin, library};
use std::process::{Command, Output};

fn broken(standin: &Standin, rule: &str) -> Output {
    let files = written(standin, "double", 64, |x| x.muls(2.0));
    Command::new(env!("CARGO_BIN_EXE_standin_child"))
        .arg("break")
        .arg(library())
        .arg(rule)
        .arg(&files.text)
        .output()
        .unwrap()
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let standin = Standin::new();
    for settings in [
        "fail=e5rt_compile@1:2",
        "slow=execute:3",
        "crash=evaluate@1",
        "hang=@1:5",
        "chip=t8103",
        "chip=h11",
        "chip=h99",
        "programs=many",
        "nothing",
    ] {
        assert!(!standin.takes(settings), "{settings}");
    }
    assert!(standin.takes("chip=h13;fail=e5rt_e5_compiler_compile@1:2;slow=compileWithQoS:options:error::1"));
    standin.set("reset");
}

#[test]
fn broken_rules_end_the_process_by_name() {
    let standin = Standin::new();
    for (rule, told) in [
        ("handle for its address", "takes the address of a handle, not the handle"),
        ("double release", "released twice"),
        ("use after release", "used after it was released"),
        ("address for its handle", "is no handle, but perhaps the address of one"),
        ("wrong kind", "takes a options, got a compiler config"),
        ("small buffer", "machine panic: DART fault"),
        ("odd buffer", "no multiple of 64"),
        ("prepare after encode", "poisoned"),
        ("operation before stream", "release the stream first"),
        ("null block", "the block is null"),
    ] {
        let output = broken(&standin, rule);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && output.status.code().is_none(),
            "{rule}: {:?} {said}",
            output.status
        );
        assert!(said.contains(told), "{rule}: {said}");
    }
}

#[test]
fn wrong_calls_are_answered_with_a_status() {
    let standin = Standin::new();
    for (rule, code) in [
        ("no config", 1),
        ("no place", 1),
        ("load for execution", 2),
        ("legacy submit", 2),
        ("event flags", 1),
        ("bind after encode", 2),
        ("encode twice", 2),
        ("encode unbound", 2),
        ("execute nothing", 2),
    ] {
        let output = broken(&standin, rule);
        assert_eq!(output.status.code(), Some(code), "{rule}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
