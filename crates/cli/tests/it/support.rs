//! Runs the command without the caller's environment.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What a run left behind.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The command with these arguments.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aneforge"));
    let hub = [
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "XDG_CACHE_HOME",
    ];
    let ours = [
        "TARGET",
        "NUMERICS",
        "THREADS",
        "SUMS",
        "ISA",
        "CACHE_DIR",
        "CACHE_LIMIT",
        "ENGINE_LIBRARY",
        "ISOLATION",
        "API_KEYS",
    ]
    .map(|name| format!("ANEFORGE_{name}"));
    for name in ours.iter().map(String::as_str).chain(hub) {
        command.env_remove(name);
    }
    // Wherever the tests run, they run on the host.
    command.env("ANEFORGE_DEVICE", "host").args(args);
    command
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the command.
pub fn run(args: &[&str]) -> Output {
    finish(command(args))
}

/// Runs the command, which must succeed, and returns what it prints.
pub fn text(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "{args:?}");
    output.out
}

/// The same with `--json`.
pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&text(&[args, &["--json"]].concat())).unwrap()
}

/// The names of an object's entries, in order.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Runs the command, which must fail with this code, and returns its error without the prefix.
pub fn fails(code: i32, args: &[&str]) -> String {
    let output = run(args);
    assert_eq!((output.code, output.out.as_str()), (code, ""), "{output:?}");
    output.err.strip_prefix("error: ").unwrap().trim_end().to_owned()
}

/// A sample graph of the repository.
pub fn sample(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    show(&root.join(format!("examples/graphs/{name}.ir")))
}

pub fn show(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A file with these contents.
pub fn file(folder: &tempfile::TempDir, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, contents).unwrap();
    show(&path)
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
