//! The demonstration: it learns, it is the same every time, and it says what it did.

use crate::support::{command, finish, json, keys, run};
use serde_json::Value;

#[test]
fn the_demo_learns_to_read_and_says_so() {
    let value = json(&["demo", "--calls", "10", "--batch", "8"]);
    assert_eq!(keys(&value), ["accuracy", "device", "digits", "numerics", "program", "time", "training"]);
    let accuracy = &value["accuracy"];
    assert_eq!((accuracy["total"].as_u64(), accuracy["correct_float32"].as_u64()), (Some(360), Some(358)));
    let correct = accuracy["correct"].as_u64().unwrap();
    assert!(correct * 100 >= 360 * 98, "{accuracy}");
    assert_eq!(value["device"]["name"], "host");
    let program = ["family", "ops", "program_bytes", "statements", "target", "weight_bytes"];
    assert_eq!(keys(&value["program"]), program);
    assert_eq!(value["time"]["one"]["calls"], 10);
    let batch = ["calls", "images", "images_per_second", "median_us", "p10_us"];
    assert_eq!(keys(&value["time"]["batch"]), batch);
    assert_eq!(value["digits"].as_array().unwrap().len(), 5);

    let training = &value["training"];
    let all = ["batch", "curve", "examples", "ops", "seconds", "states", "steps", "steps_per_second"];
    assert_eq!(keys(training), all);
    assert_eq!(training["examples"], 1437, "those that are not held out");
    let curve = training["curve"].as_array().unwrap();
    let of = |at: &Value, key: &str| at[key].as_f64().unwrap();
    let (first, last) = (&curve[0], curve.last().unwrap());
    assert_eq!(last["step"], training["steps"]);
    assert!(of(last, "loss") < of(first, "loss") / 2.0 && of(last, "accuracy") > of(first, "accuracy"));
    // The program with weights in it reads as the one did whose weights were state.
    assert!((of(last, "accuracy") * 360.0 - correct as f64).abs() < 1.5, "{last} {accuracy}");
}

#[test]
fn the_demo_is_the_same_every_time() {
    let once = |threads| {
        let value = json(&["demo", "--steps", "60", "--calls", "1", "--batch", "1", "--threads", threads]);
        (value["training"]["curve"].clone(), value["accuracy"].clone(), value["digits"].clone())
    };
    let first = once("1");
    assert_eq!(first.0[0]["step"], 45);
    assert_eq!(first, once("2"));
}

#[test]
fn the_demo_fits_eighty_columns_and_says_where_it_ran() {
    let args = ["demo", "--steps", "100", "--calls", "10", "--batch", "1024", "--target", "h13"];
    let output = run(&args);
    let (out, err) = (output.out, output.err);
    assert_eq!(output.code, 0, "{err}");
    assert!(out.lines().chain(err.lines()).all(|line| line.chars().count() <= 80), "{out}{err}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "colour without a terminal");
    for part in [
        "trained    100 steps of 32 of 1,437 digits in ",
        "% of held-out digits ▁",
        "target     h13 (family A13)",
        "device     host: ",
        "of 360 held-out digits",
        "wrong: a ",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(out.ends_with("This project has not run on Apple silicon.\n"), "{out}");
    // It climbs while it trains.
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("step  45 of 100  loss "), "{err}");
    assert!(lines.iter().all(|line| line.contains("held-out digits read ")), "{err}");
    assert_eq!(run(&["demo", "--steps", "1", "--calls", "1", "--batch", "1", "-q"]).err, "");
}

#[test]
fn an_interrupted_demo_ends_without_a_result() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let mut child = command(&["demo", "--steps", "100000"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.starts_with("step     45 of 100000"), "{line}");
    let mut kill = std::process::Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert_eq!(finish(kill).code, 0);
    let ended = child.wait().unwrap();
    let (mut out, mut rest) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    err.read_to_string(&mut rest).unwrap();
    // A signal ended it, and no code of its own.
    assert_eq!((ended.code(), out.as_str()), (None, ""));
    assert!(rest.lines().all(|line| line.starts_with("step ")), "{rest}");
}
