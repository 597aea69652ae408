//! Processes that are killed while they write: nothing that was there is lost, and nothing torn is loaded.

use crate::support::{command, file, finish, folder, json, show, text};
use aneforge::Plan;
use aneforge::artifact::Cache;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How often one is killed.
const KILLS: u32 = 200;

/// A graph with so large a constant that writing takes a while, which differs from number to number.
fn graph(number: u32) -> String {
    format!(
        "@0 : fp16[160, 160] = normal({number}, 0.1)\n%0 = input(feed=0) : fp16[4, 160]\n\
         %1 = const_array(index=0) : fp16[160, 160]\n%2 = matmul(%0, %1) : fp16[4, 160]\nreturn %2\n"
    )
}

/// Numbers that look random, the same in every run.
fn draws() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_save_and_a_cache_survive_kills() {
    let folder = folder();
    let model = show(&folder.path().join("model.aneforge"));
    let dir = show(&folder.path().join("cache"));
    let graphs: Vec<String> = (0..4).map(|i| file(&folder, &format!("{i}.ir"), graph(i))).collect();
    let args = |at: usize| {
        ["compile", "-q", &graphs[at], "-o", &model, "--cache", "--cache-dir", &dir].map(str::to_owned)
    };
    let spawn = |at: usize| {
        let args = args(at);
        let mut command = command(&args.each_ref().map(String::as_str));
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    // What each leaves when nobody disturbs it, and about how long it takes, in microseconds.
    let (mut whole, mut about) = (HashSet::new(), 0);
    for graph in &graphs {
        let start = Instant::now();
        text(&["compile", "-q", graph, "-o", &model]);
        about = start.elapsed().as_micros() as u64;
        assert!(whole.insert(fs::read(&model).unwrap()), "graphs differ");
    }
    let cache = Cache::new(Path::new(&dir));
    let mut draw = draws();
    let (mut interrupted, mut replaced, mut last) = (0, 0, fs::read(&model).unwrap());
    for _ in 0..KILLS {
        let mut child = spawn((draw() % 4) as usize);
        let (start, moment) = (Instant::now(), Duration::from_micros(draw() % (2 * about)));
        while start.elapsed() < moment && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        interrupted += u32::from(!done);
        // However busy the machine is, about half are to be interrupted.
        about = (if done { about * 19 / 20 } else { about * 21 / 20 }).clamp(100, 500_000);
        let now = fs::read(&model).unwrap();
        assert!(whole.contains(&now), "{} bytes that nobody saved", now.len());
        Plan::load(&model).unwrap();
        replaced += u32::from(now != last);
        last = now;
        let all = cache.verify().unwrap();
        assert!(all.iter().all(|checked| checked.fault.is_none()), "{all:?}");
        // So that there is something to write again.
        if draw().is_multiple_of(3) {
            all.iter().take(2).for_each(|checked| fs::remove_file(&checked.kept.path).unwrap());
        }
    }
    assert!(interrupted > KILLS / 4 && replaced > 0, "{interrupted} were interrupted, {replaced} were done");
    // What they have left goes with the next.
    for at in 0..4 {
        assert_eq!(finish(command(&args(at).each_ref().map(String::as_str))).code, 0);
    }
    json(&["cache", "gc", "--cache-dir", &dir]);
    let left = [names(folder.path()), names(cache.folder())].concat();
    // Without a list of processes, only age tells.
    let told = Path::new("/proc/self").exists();
    assert!(!(told && left.iter().any(|name| name.starts_with(".aneforge-"))), "{left:?}");
    assert_eq!(cache.verify().unwrap().len(), 4);
}

#[test]
fn processes_share_a_cache_that_is_too_small_for_them() {
    let folder = folder();
    let dir = show(&folder.path().join("cache"));
    let graphs: Vec<String> = (0..4).map(|i| file(&folder, &format!("{i}.ir"), graph(i))).collect();
    let children: Vec<_> = (0..16)
        .map(|i| {
            let args = [
                "run",
                "-q",
                "--json",
                &graphs[i % 4],
                "--random",
                "1",
                "--cache",
                "--cache-dir",
                &dir,
                "--cache-limit",
                "120K",
            ];
            command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut outputs = vec![HashSet::new(); 4];
    for (i, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        outputs[i % 4].insert(output.stdout);
    }
    assert!(outputs.iter().all(|different| different.len() == 1));
    let left = json(&["cache", "gc", "--cache-dir", &dir, "--cache-limit", "120K"]);
    assert!(left["bytes"].as_u64().unwrap() <= 120 << 10, "{left}");
}
