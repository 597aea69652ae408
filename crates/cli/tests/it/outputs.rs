//! Where outputs go: files keep their mode, links are followed, and nothing else is replaced.

use crate::support::{command, fails, file, finish, folder, sample, show, text};
use aneforge_tensor::{Bytes, Tensor, npy};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn model() -> String {
    show(&Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/models/tiny-bert"))
}

/// What writes one array to `path`.
fn embed(path: &Path) -> String {
    text(&["embed", "-m", &model(), "--npy", &show(path), "a b c"])
}

fn array(bytes: Vec<u8>) -> Tensor {
    npy::read(&Bytes::new(bytes)).unwrap()
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_file_keeps_its_mode() {
    let folder = folder();
    let path = folder.path().join("rows.npy");
    fs::write(&path, "old").unwrap();
    for mode in [0o600, 0o640, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        embed(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(array(fs::read(&path).unwrap()).shape().dims(), [1, 32]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn links_are_followed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/rows.npy"), "old").unwrap();
    symlink("real/rows.npy", at("relative")).unwrap();
    symlink(at("relative"), at("absolute")).unwrap();
    symlink("real/not-there-yet.npy", at("dangling")).unwrap();
    for (link, target) in
        [("relative", "real/rows.npy"), ("absolute", "real/rows.npy"), ("dangling", "real/not-there-yet.npy")]
    {
        embed(&at(link));
        assert!(at(link).symlink_metadata().unwrap().is_symlink(), "{link}");
        assert_eq!(array(fs::read(at(target)).unwrap()).shape().dims(), [1, 32], "{link}");
        fs::write(at(target), "old").unwrap();
    }
    symlink("circle", at("circle")).unwrap();
    let error = fails(3, &["embed", "-m", &model(), "--npy", &show(&at("circle")), "x"]);
    assert!(error.contains("too many links"), "{error}");
}

#[test]
fn a_pipe_is_written_into() {
    let folder = folder();
    let path = folder.path().join("pipe");
    fifo(&path);
    let reader = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    embed(&path);
    assert_eq!(array(reader.wait_with_output().unwrap().stdout).shape().dims(), [1, 32]);
    assert!(path.symlink_metadata().unwrap().file_type().is_fifo());

    fs::rename(&path, folder.path().join("output0.npy")).unwrap();
    let path = folder.path().join("output0.npy");
    let reader = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    text(&["run", &sample("mlp"), "--random", "1", "-o", &show(folder.path())]);
    assert!(reader.wait_with_output().unwrap().stdout.starts_with(b"\x93NUMPY"));
    assert!(path.symlink_metadata().unwrap().file_type().is_fifo());
}

#[test]
fn what_is_no_folder_is_refused() {
    let folder = folder();
    let path = folder.path().join("pipe");
    fifo(&path);
    let file = file(&folder, "file", "mine");
    for path in [show(&path), file.clone()] {
        for args in [&["compile"][..], &["run", "--random", "1"]] {
            let error = fails(3, &[args, &[&sample("mlp"), "-o", &path]].concat());
            assert!(error.starts_with(&format!("cannot make folder {path}: ")), "{error}");
        }
    }
    assert!(path.symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_dash_is_standard_output() {
    let piped = |args: &[&str]| {
        let output = command(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        array(output.stdout)
    };
    assert_eq!(piped(&["embed", "-m", &model(), "--npy", "-", "a", "b"]).shape().dims(), [2, 32]);
    let folder = folder();
    let d = show(folder.path());
    text(&["run", &sample("mlp"), "--random", "1", "-o", &d]);
    let same = array(fs::read(format!("{d}/output0.npy")).unwrap());
    assert_eq!(piped(&["run", &sample("mlp"), "--random", "1", "-o", "-"]), same);
    assert!(!Path::new("-").exists());

    let model = model();
    let twice: [(&[&str], &str); 3] = [
        (&["embed", "-m", &model, "--npy", "-", "x"], "--npy - and --json both print"),
        (&["run", &sample("mlp"), "--random", "1", "-o", "-"], "--output - and --json both print"),
        (&["compile", &sample("mlp"), "-o", "-"], "a program is several files; name a folder"),
    ];
    for (args, why) in twice {
        let output = finish(command(&[args, &["--json"]].concat()));
        assert_eq!((output.code, output.out.as_str()), (3, ""));
        assert!(output.err.contains(why), "{output:?}");
    }
    let two = file(
        &folder,
        "two.ir",
        "%0 = input(feed=0) : fp16[2]\n%1 = relu(%0) : fp16[2]\n%2 = exp(%0) : fp16[2]\nreturn %1, %2\n",
    );
    let error = fails(3, &["run", &sample("mlp"), "--random", "1", "-o", "-", "--profile"]);
    assert!(error.contains("--output - and --profile both print"), "{error}");
    let error = fails(3, &["run", &two, "--random", "1", "-o", "-"]);
    assert_eq!(error, "--output - takes one output, the program has 2; name a folder");
}

#[test]
fn a_profile_on_standard_output_is_alone_there() {
    let folder = folder();
    let d = show(folder.path());
    let run = |words: &[&str]| {
        let mut command =
            command(&[&["run", &sample("mlp"), "--random", "1", "--repeat", "1"], words].concat());
        command.current_dir(&d);
        let output = finish(command);
        assert!(!folder.path().join("-").exists(), "{words:?}");
        output
    };
    let svg = run(&["--profile-svg", "-", "-o", "arrays"]).out;
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(folder.path().join("arrays/output0.npy").exists());
    let trace: serde_json::Value = serde_json::from_str(&run(&["--profile-trace", "-"]).out).unwrap();
    assert!(trace["traceEvents"].is_array(), "{trace}");

    let twice: [(&[&str], &str); 5] = [
        (
            &["--profile-svg", "-", "--json"],
            "--profile-svg - and --json both print to standard output; name a file",
        ),
        (&["--profile-trace", "-", "--profile"], "--profile-trace - and --profile both print"),
        (&["--profile-trace", "-", "--profile-svg", "-"], "--profile-trace - and --profile-svg - both print"),
        (&["-o", "-", "--profile-svg", "-"], "--output - and --profile-svg - both print"),
        (&["-o", "-", "--profile-trace", "-"], "--output - and --profile-trace - both print"),
    ];
    for (words, why) in twice {
        let output = run(words);
        assert_eq!((output.code, output.out.as_str()), (3, ""), "{words:?}");
        assert!(output.err.contains(why), "{output:?}");
    }
}

#[test]
fn an_output_that_fails_leaves_what_was_there() {
    let folder = folder();
    let path = folder.path().join("rows.npy");
    fs::write(&path, "old").unwrap();
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_aneforge")]).env("ANEFORGE_DEVICE", "host");
    shell.args(["embed", "-m", &model(), "--npy", &show(&path), "x"]);
    let output = finish(shell);
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.err.starts_with(&format!("error: cannot write {}: ", path.display())), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A shell that runs the command with these redirections.
fn shell(script: &str, folder: &Path) -> Output {
    let mut shell = Command::new("bash");
    let environment =
        [("A", env!("CARGO_BIN_EXE_aneforge").to_owned()), ("M", model()), ("G", sample("mlp"))];
    shell.args(["-c", script]).current_dir(folder).env("ANEFORGE_DEVICE", "host").envs(environment);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

#[test]
fn open_pipes_are_written_into_by_their_names() {
    let folder = folder();
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"] {
        if name.starts_with("/proc") && !Path::new("/proc/self").exists() {
            continue;
        }
        let link = folder.path().join("link");
        let _ = symlink("/dev/stdout", &link);
        let mut command = command(&["embed", "-m", &model(), "--npy", name, "hi"]);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let array = &output.stdout[..128 + 32 * 4];
        assert_eq!(self::array(array.to_vec()).shape().dims(), [1, 32], "{name}");
    }
    let output = shell("$A embed -m $M --npy /dev/fd/3 hi 3>&1 >/dev/null", folder.path());
    assert_eq!(array(output.stdout).shape().dims(), [1, 32]);
    let output = shell("$A embed -m $M --npy >(cat) hi >/dev/null", folder.path());
    assert_eq!(array(output.stdout).shape().dims(), [1, 32]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn open_files_keep_what_they_have() {
    let folder = folder();
    let kept = folder.path().join("keep");
    let scripts = [
        "$A embed -m $M --npy /dev/stdout hi >> keep",
        "$A embed -m $M --npy /dev/stderr hi 2>> keep",
        "$A embed -m $M --npy /dev/fd/3 hi 3>> keep",
        "(echo mine >&3; $A embed -m $M --npy /dev/fd/3 hi) 3> keep",
        "(echo mine; $A embed -m $M --npy /dev/stdout hi) > keep",
    ];
    for script in scripts {
        fs::write(&kept, "mine\n").unwrap();
        let output = shell(script, folder.path());
        assert!(output.status.success(), "{script}: {output:?}");
        let bytes = fs::read(&kept).unwrap();
        assert!(bytes.starts_with(b"mine\n\x93NUMPY"), "{script}: {}", String::from_utf8_lossy(&bytes));
        assert_eq!(array(bytes[5..5 + 128 + 32 * 4].to_vec()).shape().dims(), [1, 32], "{script}");
    }
}

#[test]
fn what_a_killed_writer_left_goes_with_the_next_output() {
    let folder = folder();
    let d = folder.path();
    let left = || {
        let names = fs::read_dir(d).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".aneforge-") && *name != alive()).collect::<Vec<_>>()
    };
    fn alive() -> String {
        format!(".aneforge-{}-0", std::process::id())
    }
    fs::write(d.join(alive()), "of a process that is alive").unwrap();
    shell("ulimit -f 0; $A embed -m $M --npy x hi", d);
    shell("ulimit -f 0; $A compile $G -o .", d);
    assert_eq!(left().len(), 2, "both were killed");
    if !Path::new("/proc/self").exists() {
        return;
    }
    embed(&d.join("x"));
    assert_eq!(left().len(), 1, "a folder may belong to a program");
    text(&["compile", &sample("mlp"), "-o", &show(d)]);
    assert_eq!(left(), [""; 0]);
    assert!(d.join(alive()).exists());
}
