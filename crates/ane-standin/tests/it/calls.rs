//! The sequence of calls: compile, bind, encode once, run, rebind, share, submit, release.

use crate::standin::Standin;
use aneforge::{CompileOptions, Shape, Var, compile, f16};
use aneforge_ane::{AneError, Buffer, Compiled, Framework, Options, PortSpec, Program, Side, Source};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A program on disk: what MIL says, and its ports.
pub struct Files {
    pub text: PathBuf,
    pub cache: PathBuf,
    pub inputs: Vec<PortSpec>,
    pub outputs: Vec<PortSpec>,
}

impl Files {
    pub fn source(&self) -> Source<'_> {
        Source { text: &self.text, cache: &self.cache, inputs: &self.inputs, outputs: &self.outputs }
    }
}

/// Writes the program of a graph of one input and one output of `[n]`.
pub fn written(standin: &Standin, name: &str, n: usize, make: impl Fn(&Var) -> Var) -> Files {
    let x = Var::input(Shape::new(&[n]).unwrap());
    let plan = compile(&[make(&x)], &CompileOptions::default()).unwrap();
    let (program, blob) = plan.segments[0].mil().unwrap();
    let folder = standin.folder.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let text = folder.join("model.mil");
    std::fs::write(&text, program.to_string()).unwrap();
    blob.write(&plan.segments[0].graph, std::fs::File::create(folder.join("weights.bin")).unwrap()).unwrap();
    let port = |name: &str| PortSpec { name: name.to_owned(), bytes: 2 * n };
    let function = &program.functions[0];
    Files {
        text,
        cache: folder.join("cache"),
        inputs: vec![port(&function.params[0].name)],
        outputs: vec![port(&function.returns[0])],
    }
}

pub fn put(buffer: &mut Buffer, values: &[f32]) {
    let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    buffer.bytes_mut().copy_from_slice(bytemuck::cast_slice(&halves));
}

pub fn got(buffer: &Buffer) -> Vec<f32> {
    bytemuck::cast_slice::<u8, f16>(buffer.bytes()).iter().map(|v| v.to_f32()).collect()
}

pub fn load(framework: &Arc<Framework>, files: &Files) -> Program {
    let compiled = Compiled::new(framework, &files.source(), Options::default()).unwrap();
    Program::load(framework, &compiled, &files.source(), Options::default()).unwrap()
}

/// Binds the one input and the one output.
fn bound(program: &mut Program, input: &Buffer, output: &Buffer) {
    program.bind(0, Side::Input(0), &input.handle()).unwrap();
    program.bind(0, Side::Output(0), &output.handle()).unwrap();
}

#[test]
fn a_program_is_encoded_once_and_runs_many_times() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let mut program = load(&framework, &files);
    let [mut input, mut output] = std::array::from_fn(|_| framework.allocate(8).unwrap());
    assert_eq!(input.bytes(), [0; 8], "memory is zeroed, whatever it held");
    program.bind(0, Side::Input(0), &input.handle()).unwrap();
    assert!(matches!(program.execute([&mut input]), Err(AneError::Unbound(_))), "a port without a buffer");
    program.bind(0, Side::Output(0), &output.handle()).unwrap();
    for k in 1..=5 {
        put(&mut input, &[k as f32, 0.5, -1.0, 3.0]);
        program.execute([&mut output, &mut input]).unwrap();
        assert_eq!(got(&output), [2.0 * k as f32, 1.0, -2.0, 6.0]);
    }
    assert_eq!(standin.count("e5rt_execution_stream_encode_operation"), 1);
    assert_eq!(standin.count("e5rt_execution_stream_execute_sync"), 5);
    assert_eq!(program.layout(0, Side::Input(0)), Some(vec![(4, 1)]), "what the library says of a port");
}

#[test]
fn ports_are_bound_again_after_a_reset() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let mut program = load(&framework, &files);
    let [mut a, mut b, mut output] = std::array::from_fn(|_| framework.allocate(8).unwrap());
    put(&mut a, &[1.0; 4]);
    put(&mut b, &[5.0; 4]);
    program.bind(0, Side::Output(0), &output.handle()).unwrap();
    for (b_comes, want) in [(false, 2.0), (true, 10.0), (false, 2.0)] {
        let buffer = if b_comes { &mut b } else { &mut a };
        program.bind(0, Side::Input(0), &buffer.handle()).unwrap();
        program.execute([buffer, &mut output]).unwrap();
        assert_eq!(got(&output), [want; 4]);
    }
    assert_eq!(standin.count("e5rt_execution_stream_reset"), 2);
}

#[test]
fn an_input_and_an_output_that_share_a_buffer_are_state() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "count", 4, |x| x.adds(1.0));
    let mut program = load(&framework, &files);
    let mut state = framework.allocate(8).unwrap();
    bound(&mut program, &state, &state);
    for k in 1..=4 {
        program.execute([&mut state]).unwrap();
        assert_eq!(got(&state), [k as f32; 4]);
    }
}

#[test]
fn programs_of_one_stream_run_in_order_and_hand_over_by_a_buffer() {
    let standin = Standin::new();
    let framework = standin.framework();
    let (add, double) =
        (written(&standin, "add", 4, |x| x.adds(1.0)), written(&standin, "double", 4, |x| x.muls(2.0)));
    let mut program = load(&framework, &add);
    let second = Compiled::new(&framework, &double.source(), Options::default()).unwrap();
    assert_eq!(program.add(&second, &double.source()).unwrap(), 1);
    program.chain(0, 1).unwrap();
    let [mut input, mut between, mut output] = std::array::from_fn(|_| framework.allocate(8).unwrap());
    put(&mut input, &[1.0, 2.0, 3.0, 4.0]);
    for (op, side, buffer) in [
        (0, Side::Input(0), &input),
        (0, Side::Output(0), &between),
        (1, Side::Input(0), &between),
        (1, Side::Output(0), &output),
    ] {
        program.bind(op, side, &buffer.handle()).unwrap();
    }
    program.execute([&mut input, &mut between, &mut output]).unwrap();
    assert_eq!(got(&output), [4.0, 6.0, 8.0, 10.0]);
    assert!(matches!(program.chain(1, 1), Err(AneError::Port { .. })), "a program cannot wait for itself");
    assert!(program.bind(2, Side::Input(0), &input.handle()).is_err());
}

#[test]
fn a_run_takes_every_buffer_so_that_nobody_reads_what_is_written() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let (mut one, mut other) = (load(&framework, &files), load(&framework, &files));
    let [mut input, mut output, mut none] = std::array::from_fn(|_| framework.allocate(8).unwrap());
    bound(&mut one, &input, &output);
    bound(&mut other, &output, &input);
    let lacks = |error: AneError, port: &PortSpec| assert_eq!(error, AneError::NotHeld(port.name.clone()));
    for _ in 0..2 {
        // What was handed over for a run before, or for another program's, counts for nothing.
        one.execute([&mut input, &mut none, &mut output]).unwrap();
        other.execute([&mut output, &mut input]).unwrap();
        lacks(one.execute([&mut input, &mut none]).unwrap_err(), &files.outputs[0]);
        lacks(one.execute([&mut output]).unwrap_err(), &files.inputs[0]);
        let mut all = vec![framework.allocate(8).unwrap()];
        lacks(one.submit(&mut all).unwrap_err(), &files.inputs[0]);
        assert_eq!(all.len(), 1);
    }
    assert_eq!(standin.count("e5rt_execution_stream_execute_sync"), 4, "nothing else reached the engine");
}

#[test]
fn a_buffer_that_is_too_small_never_reaches_the_engine() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 400, |x| x.muls(2.0));
    let mut program = load(&framework, &files);
    let small = framework.allocate(799).unwrap();
    let error = program.bind(0, Side::Input(0), &small.handle()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("port `{}` takes 800 bytes and the buffer has 799", files.inputs[0].name)
    );
    assert_eq!(standin.count("e5rt_io_port_bind_buffer_object"), 0);
}

#[test]
fn a_port_with_fewer_bytes_than_its_elements_is_never_loaded() {
    let standin = Standin::new();
    let framework = standin.framework();
    let mut files = written(&standin, "double", 400, |x| x.muls(2.0));
    let compiled = Compiled::new(&framework, &files.source(), Options::default()).unwrap();
    let load = |files: &Files| Program::load(&framework, &compiled, &files.source(), Options::default());
    let before = (framework.alive(), framework.loaded());
    for (input, output) in [(2, 800), (800, 2), (399, 800), (800, 798), (0, 800)] {
        (files.inputs[0].bytes, files.outputs[0].bytes) = (input, output);
        let (port, bytes) = if input < 800 { (&files.inputs[0], input) } else { (&files.outputs[0], output) };
        let error = load(&files).unwrap_err();
        assert_eq!(error, AneError::Extents { port: port.name.clone(), elements: 400, bytes });
        assert!(error.to_string().contains(&port.name), "{error}");
        assert_eq!((framework.alive(), framework.loaded()), before);
    }
    // A byte for each is what ports of bytes have, and more than there is does no harm.
    for bytes in [400, 800, 802] {
        (files.inputs[0].bytes, files.outputs[0].bytes) = (bytes, bytes);
        assert!(load(&files).is_ok(), "{bytes}");
    }
}

#[test]
fn memory_that_no_machine_has_is_not_asked_for() {
    let standin = Standin::new();
    let framework = standin.framework();
    drop(framework.allocate(8).unwrap());
    let asked = standin.count("e5rt_buffer_object_alloc");
    for bytes in [usize::MAX, usize::MAX - 63, usize::MAX - 64, isize::MAX as usize, 1 << 52] {
        let error = framework.allocate(bytes).unwrap_err();
        assert!(matches!(error, AneError::Memory { bytes: said, .. } if said == bytes), "{error}");
    }
    assert_eq!(standin.count("e5rt_buffer_object_alloc"), asked);
}

#[test]
fn programs_run_asynchronously_one_at_a_time() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "count", 4, |x| x.adds(1.0));
    let [mut one, mut two] = std::array::from_fn(|_| {
        let mut program = load(&framework, &files);
        let state = framework.allocate(8).unwrap();
        bound(&mut program, &state, &state);
        (program, vec![state])
    });
    let limit = Duration::from_secs(20);
    for k in 1..=3 {
        let running = one.0.submit(&mut one.1).unwrap();
        assert!(matches!(two.0.submit(&mut two.1), Err(AneError::InFlight)), "a second one would never end");
        assert_eq!(two.1.len(), 1, "what does not start takes nothing");
        one.1 = running.wait(limit).unwrap();
        assert_eq!(got(&one.1[0]), [k as f32; 4]);
    }
    assert_eq!(one.0.signalled(0).unwrap().unwrap(), 1, "the event of its end");
    let handle = two.1[0].handle();
    drop(two.0.submit(&mut two.1).unwrap());
    assert!(two.1.is_empty() && handle.len() == 8, "dropping waits, and lets go of what it was given");
    assert_eq!(two.0.signalled(0).unwrap().unwrap(), 1, "it had come to its end");
    one.0.execute(&mut one.1).unwrap();
    assert_eq!(got(&one.1[0]), [4.0; 4], "and it runs as before");
    one.0.signal(0, 9).unwrap().unwrap();
    one.0.wait_for(0, 9, limit).unwrap().unwrap();
    let late = one.0.wait_for(0, 10, Duration::from_millis(5)).unwrap();
    assert!(matches!(late, Err(AneError::Call(_))), "a value that nobody gives");
}

#[test]
fn a_run_that_was_forgotten_is_waited_for() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "count", 4, |x| x.adds(1.0));
    let mut program = load(&framework, &files);
    let state = framework.allocate(8).unwrap();
    bound(&mut program, &state, &state);
    standin.set("slow=e5rt_execution_stream_submit_async:1");
    let handle = state.handle();
    std::mem::forget(program.submit(&mut vec![state]).unwrap());
    assert_eq!(program.execute([]).unwrap_err(), AneError::InFlight, "what runs is not run again");
    assert_eq!(program.bind(0, Side::Input(0), &handle).unwrap_err(), AneError::InFlight);
    drop(program);
    assert_eq!((framework.loaded(), standin.count("programs")), (0, 0));
    let mut other = load(&framework, &files);
    let state = framework.allocate(8).unwrap();
    bound(&mut other, &state, &state);
    let buffers = other.submit(&mut vec![state]).unwrap().wait(Duration::MAX).unwrap();
    assert_eq!(got(&buffers[0]), [1.0; 4], "the turn was given back");
}

#[test]
fn the_budget_of_programs_is_an_error_by_name() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let compiled = Compiled::new(&framework, &files.source(), Options::default()).unwrap();
    let one = || Program::load(&framework, &compiled, &files.source(), Options::default());
    let mut programs: Vec<Program> = (0..128).map(|_| one().unwrap()).collect();
    let error = one().unwrap_err();
    assert_eq!(error, AneError::Budget { loaded: 128, limit: 128 });
    assert!(error.to_string().contains("drop models"), "{error}");
    programs.pop();
    one().unwrap();
    drop(programs);
    assert_eq!((framework.loaded(), standin.count("programs")), (0, 0));
    // Other processes take places too.
    standin.set("programs=1");
    let held = one().unwrap();
    assert!(matches!(one(), Err(AneError::Recompile(_))), "{:?}", one().unwrap_err());
    drop(held);
    one().unwrap();
}

#[test]
fn a_thousand_programs_and_a_hundred_thousand_calls_leave_nothing() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 64, |x| x.muls(2.0));
    let before = (framework.alive(), standin.count("alive"), standin.count("objects"));
    for _ in 0..1000 {
        drop(load(&framework, &files));
    }
    assert_eq!(
        (framework.alive(), standin.count("alive"), standin.count("objects")),
        before,
        "1,000 programs"
    );
    let mut program = load(&framework, &files);
    let (mut input, mut output) = (framework.allocate(128).unwrap(), framework.allocate(128).unwrap());
    bound(&mut program, &input, &output);
    let within = (framework.alive(), standin.count("alive"));
    for k in 0..100_000u32 {
        let value = (k % 1000) as f32;
        put(&mut input, &[value; 64]);
        program.execute([&mut input, &mut output]).unwrap();
        assert_eq!(got(&output)[(k % 64) as usize], 2.0 * value);
    }
    assert_eq!((framework.alive(), standin.count("alive")), within, "100,000 calls");
    drop((program, input, output));
    assert_eq!((framework.alive(), standin.count("alive"), standin.count("objects")), before);
}
