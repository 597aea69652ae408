//! Programs that are kept from call to call.

use crate::support::{command, fails, file, finish, folder, json, keys, sample, show, text};
use std::fs;

#[test]
fn a_program_is_compiled_once() {
    let folder = folder();
    let dir = show(&folder.path().join("cache"));
    let within = ["--cache-dir", dir.as_str()];
    let run = |graph: &str, more: &[&str]| {
        json(&[&["run", graph, "--random", "3"], &within[..], more].concat())["outputs"].clone()
    };
    let programs = || json(&[&["cache", "ls"], &within[..]].concat())["programs"].clone();
    let mlp = sample("mlp");
    let want = run(&mlp, &[]);
    assert_eq!(programs(), serde_json::json!([]), "only on request");
    assert_eq!((run(&mlp, &["--cache"]), run(&mlp, &["--cache"])), (want.clone(), want.clone()));
    assert_eq!(programs().as_array().unwrap().len(), 1);
    // The one that is there is used.
    let said = finish(command(&["run", &mlp, "--random", "3", "--cache", "--cache-dir", &dir, "-v"])).err;
    assert!(said.contains("from the cache, "), "{said}");
    let model = show(&folder.path().join("model.aneforge"));
    text(&["compile", &mlp, "-o", &model, "--cache", "--cache-dir", &dir]);
    assert_eq!(programs().as_array().unwrap().len(), 1);
    run(&mlp, &["--cache", "--target", "h13"]);
    run(&sample("convnet"), &["--cache"]);
    let all = programs();
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(keys(&all[0]), ["bytes", "fault", "idle_s", "key", "path", "target", "version"]);
    assert_eq!(run(all[0]["path"].as_str().unwrap(), &[]), want);

    // What is damaged is compiled again.
    let path = all[0]["path"].as_str().unwrap().to_owned();
    fs::write(&path, &fs::read(&path).unwrap()[..100]).unwrap();
    let error = fails_with_output(&["cache", "verify", "--cache-dir", &dir]);
    assert!(
        error.contains("1 of 3 programs cannot be loaded; `aneforge cache gc` removes what cannot"),
        "{error}"
    );
    let said = finish(command(&["run", &mlp, "--random", "3", "--cache", "--cache-dir", &dir])).err;
    assert!(
        said.contains("it was cut off: 100 bytes are there") && said.contains("it is compiled again"),
        "{said}"
    );
    text(&["cache", "verify", "--cache-dir", &dir]);
    let said = text(&["cache", "gc", "--cache-dir", &dir]);
    assert!(said.starts_with("removed 0 programs, 0 bytes; 3 programs left, "), "{said}");
    let done = json(&["cache", "gc", "--cache-dir", &dir, "--cache-limit", "0"]);
    assert_eq!((&done["removed"], &done["left"], &done["bytes"]), (&3.into(), &0.into(), &0.into()));
}

fn fails_with_output(args: &[&str]) -> String {
    let output = finish(command(args));
    assert_eq!(output.code, 3, "{output:?}");
    output.err
}

#[test]
fn where_the_cache_is_and_how_large_it_may_be() {
    let folder = folder();
    let home = show(folder.path());
    let mlp = sample("mlp");
    let at = |variables: &[(&str, &str)]| {
        let mut command = command(&["run", &mlp, "--random", "1", "--cache"]);
        command.env("HOME", &home).envs(variables.iter().copied());
        let output = finish(command);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
    };
    let count =
        |place: &str| fs::read_dir(folder.path().join(place).join("plans")).map_or(0, Iterator::count);
    at(&[]);
    at(&[("ANEFORGE_CACHE_DIR", "")]);
    assert_eq!(count(".cache/aneforge"), 1);
    at(&[("ANEFORGE_CACHE_DIR", "~/mine")]);
    assert_eq!(count("mine"), 1);
    at(&[("ANEFORGE_CACHE_DIR", "~/small"), ("ANEFORGE_CACHE_LIMIT", "1K")]);
    assert_eq!(count("small"), 0);
    let error = fails(2, &["cache", "ls", "--cache-limit", "much"]);
    assert!(
        error.contains("`much` is no number of bytes; give one such as 4294967296, 512M or 4G"),
        "{error}"
    );
    // A cache that cannot be written is said to be so, and the program runs.
    let taken = file(&folder, "taken", "mine");
    let output = finish(command(&["run", &mlp, "--random", "1", "--cache", "--cache-dir", &taken]));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.err.contains("the program is not kept in the cache: cannot make folder"), "{output:?}");
}
