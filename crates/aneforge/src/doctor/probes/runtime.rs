//! How the engine's interface behaves.

use super::super::{Bench, Outcome, Verdict};
use super::{shape, times, told};
use crate::ir::var::Var;
use crate::session::Session;
use aneforge_ane::symbols::{E5RT, Need};
use aneforge_ane::worker::try_compile;
use aneforge_ane::{BufferHandle, Compiled, Framework, Options, PortSpec, Program, Side, Source, limits};
use aneforge_tensor::f16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Found = Result<Outcome, String>;

/// A program that adds one to `n` values, on disk.
struct Files {
    text: PathBuf,
    inputs: Vec<PortSpec>,
    outputs: Vec<PortSpec>,
    cache: PathBuf,
}

impl Files {
    fn source(&self) -> Source<'_> {
        Source { text: &self.text, cache: &self.cache, inputs: &self.inputs, outputs: &self.outputs }
    }
}

fn files(
    bench: &Bench,
    name: &str,
    shapes: &[usize],
    make: impl Fn(&[Var]) -> Vec<Var>,
) -> Result<Files, String> {
    let leaves: Vec<Var> = shapes.iter().map(|&n| Var::input(shape(&[n]))).collect();
    let plan = bench.plan(&make(&leaves))?;
    let (program, blob) = plan.segments[0].mil().ok_or("it is no program")?;
    let root = bench.options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = root.join(format!("doctor-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(told)?;
    let text = folder.join("model.mil");
    std::fs::write(&text, program.to_string()).map_err(told)?;
    let weights = std::fs::File::create(folder.join("weights.bin")).map_err(told)?;
    blob.write(&plan.segments[0].graph, weights).map_err(told)?;
    let function = &program.functions[0];
    let inputs = function.params.iter().zip(plan.feeds.iter());
    let inputs =
        inputs.map(|(port, feed)| PortSpec { name: port.name.clone(), bytes: feed.ty.bytes() }).collect();
    let outputs = function.returns.iter().zip(&plan.outputs);
    let outputs = outputs.map(|(name, (ty, _))| PortSpec { name: name.clone(), bytes: ty.bytes() }).collect();
    Ok(Files { text, inputs, outputs, cache: folder.join("cache") })
}

fn increment(bench: &Bench, name: &str) -> Result<Files, String> {
    files(bench, name, &[4], |x| vec![x[0].adds(1.0)])
}

fn load(framework: &Arc<Framework>, files: &Files) -> Result<Program, String> {
    let compiled = Compiled::new(framework, &files.source(), Options::default()).map_err(told)?;
    Program::load(framework, &compiled, &files.source(), Options::default()).map_err(told)
}

fn bind(program: &mut Program, input: &BufferHandle, output: &BufferHandle) -> Result<(), String> {
    program.bind(0, Side::Input(0), input).map_err(told)?;
    program.bind(0, Side::Output(0), output).map_err(told)
}

fn first(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

pub(crate) fn floor(bench: &Bench) -> Found {
    let mut session = bench.session(&[Var::input(shape(&[64])).adds(1.0)])?;
    let warm = times(5, || session.execute().map_err(told))?;
    let calls = times(1000, || session.execute().map_err(told))?;
    let found = format!(
        "least {:.1} us, median {:.1}, nine tenths {:.1}; the slowest of the first five {:.0}",
        calls[0], calls[500], calls[900], warm[4]
    );
    Ok(Outcome::measured(found))
}

pub(crate) fn state(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let mut program = load(framework, &increment(bench, "state")?)?;
    let mut buffer = framework.allocate(8).map_err(told)?;
    bind(&mut program, &buffer.handle(), &buffer.handle())?;
    let mut counted = Vec::new();
    for _ in 0..4 {
        program.execute([&mut buffer]).map_err(told)?;
        counted.push(first(buffer.bytes()));
    }
    Ok(Outcome::is(counted == [1.0, 2.0, 3.0, 4.0], format!("{counted:?}")))
}

pub(crate) fn rebind(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let mut program = load(framework, &increment(bench, "rebind")?)?;
    let allocate = || framework.allocate(8).map_err(told);
    let (mut a, mut b, mut output) = (allocate()?, allocate()?, allocate()?);
    a.bytes_mut().copy_from_slice(bytemuck::cast_slice(&[f16::from_f32(1.0); 4]));
    b.bytes_mut().copy_from_slice(bytemuck::cast_slice(&[f16::from_f32(5.0); 4]));
    let mut got = Vec::new();
    for first_of_two in [true, false, true] {
        let buffer = if first_of_two { &mut a } else { &mut b };
        bind(&mut program, &buffer.handle(), &output.handle())?;
        program.execute([buffer, &mut output]).map_err(told)?;
        got.push(first(output.bytes()));
    }
    Ok(Outcome::is(got == [2.0, 6.0, 2.0], format!("{got:?}")))
}

pub(crate) fn dense_ports(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let mut found = Vec::new();
    for width in [1usize, 8, 33] {
        let files = files(bench, &format!("dense{width}"), &[3 * width], |x| {
            vec![x[0].reshape(&[3, width as i64]).adds(1.0)]
        })?;
        let program = load(framework, &files)?;
        found.push((width, program.layout(0, Side::Output(0))));
    }
    let dense = |(width, layout): &(usize, Option<Vec<(u64, u64)>>)| {
        layout.as_ref().map(|layout| layout == &[(3, *width as u64), (*width as u64, 1)])
    };
    let all: Option<Vec<bool>> = found.iter().map(dense).collect();
    let found = format!("extents and strides: {found:?}");
    Ok(match all {
        None => Outcome::not_run("the library does not say how ports lie"),
        Some(all) => Outcome::is(all.iter().all(|dense| *dense), found),
    })
}

pub(crate) fn error_texts(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let named: Vec<(i32, String)> =
        (0..=20).filter_map(|code| Some((code, framework.name_of(code)?))).collect();
    if named.is_empty() {
        return Err("the library has no names of statuses".into());
    }
    let same = |(code, name): &&(i32, String)| {
        let ours = limits::meaning(*code);
        (0..=6).contains(code)
            && !name.to_ascii_lowercase().contains(ours.split(' ').next_back().unwrap_or(ours))
    };
    let other: Vec<&(i32, String)> =
        named.iter().filter(same).filter(|(code, _)| *code != 0 && *code != 3).collect();
    Ok(Outcome::is(other.is_empty(), format!("{named:?}")))
}

pub(crate) fn soft_functions(bench: &Bench) -> Found {
    let library = &bench.engine()?.framework().libraries().espresso;
    let there = aneforge_ane::symbols::found(library, E5RT)?;
    let soft = E5RT.iter().zip(there).filter(|(function, there)| function.need == Need::Soft && !there);
    let lacking: Vec<&str> = soft.map(|(function, _)| function.symbol).collect();
    Ok(Outcome::measured(match &lacking[..] {
        [] => "all of them are there".into(),
        _ => format!("lacking: {}", lacking.join(", ")),
    }))
}

pub(crate) fn force(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let files = increment(bench, "force")?;
    let mut found = Vec::new();
    for force in [true, true, false, false] {
        let start = Instant::now();
        let options = Options { force, ..Options::default() };
        Compiled::new(framework, &files.source(), options).map_err(told)?;
        found.push(format!(
            "{} {:.1} ms",
            if force { "forced" } else { "not" },
            start.elapsed().as_secs_f64() * 1e3
        ));
    }
    Ok(Outcome::measured(found.join(", ")))
}

pub(crate) fn same_program_again(bench: &Bench) -> Found {
    bench.engine()?;
    let mut all = Vec::new();
    for _ in 0..2 {
        let start = Instant::now();
        let x = Var::input(shape(&[4]));
        let session: Session = bench.session(&[x.adds(3.0)])?;
        all.push((start.elapsed().as_secs_f64() * 1e3, session));
    }
    let (first, second) = (all[0].0, all[1].0);
    Ok(Outcome::measured(format!("the first load took {first:.1} ms, the second {second:.1} ms")))
}

pub(crate) fn bundle_of_another_process(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let command = bench.options.worker.as_deref().ok_or("there is no command for another process")?;
    let files = increment(bench, "bundle")?;
    try_compile(command, &bench.options.libraries, &files.source(), limits::COMPILE_LIMIT).map_err(told)?;
    let bundles = Compiled::bundles(&files.cache);
    let [bundle] = &bundles[..] else {
        return Err(format!("the compiler has left {} bundles", bundles.len()));
    };
    let loaded = Compiled::reopen(framework, bundle)
        .and_then(|compiled| Program::load(framework, &compiled, &files.source(), Options::default()));
    Ok(Outcome::measured(match loaded {
        Ok(_) => "it is opened".to_owned(),
        Err(error) => format!("it is refused: {error}"),
    }))
}

pub(crate) fn other_chip(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let files = increment(bench, "chip")?;
    let tried = |name: &str| match framework.check(&files.source(), name) {
        Ok(()) => format!("{name} passes"),
        Err(error) => format!("{name} fails: {error}"),
    };
    Ok(Outcome::measured([tried("h13"), tried("no-such-chip")].join("; ")))
}

pub(crate) fn ports(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let mut most = 0;
    let mut refused = String::from("none was refused");
    for count in [8usize, 16, 32, 64] {
        let files = files(bench, &format!("ports{count}"), &vec![4; count], |x| {
            vec![x.iter().skip(1).fold(x[0].clone(), |sum, x| sum + x)]
        })?;
        let run = || -> Result<(), String> {
            let mut program = load(framework, &files)?;
            let mut buffers: Vec<_> =
                (0..=count).map(|_| framework.allocate(8).map_err(told)).collect::<Result<_, _>>()?;
            for (at, buffer) in buffers.iter().take(count).enumerate() {
                program.bind(0, Side::Input(at), &buffer.handle()).map_err(told)?;
            }
            program.bind(0, Side::Output(0), &buffers[count].handle()).map_err(told)?;
            program.execute(&mut buffers).map_err(told)
        };
        match run() {
            Ok(()) => most = count,
            Err(why) => {
                refused = format!("{count}: {why}");
                break;
            }
        }
    }
    Ok(Outcome::is(most == 64, format!("{most} inputs run; {refused}")))
}

pub(crate) fn asynchronous(bench: &Bench) -> Found {
    let framework = bench.engine()?.framework();
    let mut program = load(framework, &increment(bench, "async")?)?;
    let buffer = framework.allocate(8).map_err(told)?;
    bind(&mut program, &buffer.handle(), &buffer.handle())?;
    let start = Instant::now();
    let running = program.submit(&mut vec![buffer]).map_err(told)?;
    let back = start.elapsed();
    let buffers = running.wait(Duration::from_secs(10)).map_err(told)?;
    let done = start.elapsed();
    let value = first(buffers[0].bytes());
    let event = program
        .signalled(0)
        .map_or_else(|| "none".into(), |value| value.map_or_else(|e| e.to_string(), |v| v.to_string()));
    let found = format!(
        "submitting took {:.0} us, the block came after {:.0} us, the result was {value}, the event's value {event}",
        back.as_secs_f64() * 1e6,
        done.as_secs_f64() * 1e6
    );
    Ok(Outcome::is(value == 1.0, found))
}

pub(crate) fn two_threads(bench: &Bench) -> Found {
    bench.engine()?;
    let make =
        || bench.session(&[Var::input(shape(&[256, 256])).matmul_value(&Var::input(shape(&[256, 256])))]);
    let (mut one, mut two) = (make()?, make()?);
    let run = |session: &mut Session| (0..200).try_for_each(|_| session.execute().map_err(told));
    run(&mut one)?;
    let start = Instant::now();
    run(&mut one)?;
    run(&mut two)?;
    let alone = start.elapsed().as_secs_f64();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&mut two));
        run(&mut one)?;
        other.join().map_err(|_| "a thread panicked".to_owned())?
    })?;
    let gain = alone / start.elapsed().as_secs_f64();
    Ok(Outcome { verdict: Verdict::Measured, found: format!("two threads gain {gain:.2} times") })
}

pub(crate) fn idle(bench: &Bench) -> Found {
    bench.engine()?;
    let mut session = bench.session(&[Var::input(shape(&[64])).adds(1.0)])?;
    times(20, || session.execute().map_err(told))?;
    let mut found = Vec::new();
    for gap in [0.01f64, 0.1, 1.0, 5.0] {
        std::thread::sleep(Duration::from_secs_f64(gap));
        let first = times(1, || session.execute().map_err(told))?[0];
        let next = times(20, || session.execute().map_err(told))?[10];
        found.push(format!("after {gap} s {first:.0} us, then {next:.0}"));
    }
    Ok(Outcome::measured(found.join("; ")))
}

/// Removes what probes have written.
pub(crate) fn clean(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = format!("doctor-{}-", std::process::id());
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)) {
        _ = std::fs::remove_dir_all(entry.path());
    }
}
