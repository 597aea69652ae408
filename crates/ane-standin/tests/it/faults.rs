//! What happens when the engine does not do what it should: an error that names it, never a wrong number, and nothing is left over.

use crate::calls::{got, load, put, written};
use crate::standin::{Standin, library, worker};
use aneforge::device::DeviceError;
use aneforge::device::ane::{Ane, AneOptions};
use aneforge::{CompileOptions, RunError, Session, Shape, Tensor, Var, compile};
use aneforge_ane::symbols::{CORE_FOUNDATION, E5RT, IO_SURFACE, Need, OBJC};
use aneforge_ane::{AneError, Buffer, Compiled, Framework, Libraries, Options, Program, Side};
use std::time::{Duration, Instant};

fn vector(n: usize) -> Shape {
    Shape::new(&[n]).unwrap()
}

#[test]
fn every_function_may_fail_with_any_code_at_any_time() {
    let standin = Standin::new();
    let framework = standin.framework();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    let (mut runs, mut errors) = (0, 0);
    let all = || -> Result<Vec<f32>, AneError> {
        let compiled = Compiled::new(&framework, &files.source(), Options::default())?;
        let mut program = Program::load(&framework, &compiled, &files.source(), Options::default())?;
        let (mut input, mut output) = (framework.allocate(8)?, framework.allocate(8)?);
        program.bind(0, Side::Input(0), &input.handle())?;
        program.bind(0, Side::Output(0), &output.handle())?;
        for k in [1.0, 2.0] {
            put(&mut input, &[k, 1.0, 2.0, 3.0]);
            program.execute([&mut input, &mut output])?;
        }
        Ok(got(&output))
    };
    let want = all().unwrap();
    let before = (framework.alive(), framework.loaded());
    for function in E5RT.iter().filter(|function| function.returns == "i32") {
        for call in [1, 2] {
            // A code of a future version, a known one, success without a result, and junk in the upper half of the register.
            for fault in ["fail=SYMBOL@N:9999", "fail=SYMBOL@N:2", "fail=SYMBOL@N:-1", "null=SYMBOL@N"] {
                // Whether a call did what it answers shows only where it gives something.
                if fault.starts_with("null") && !function.arguments.contains(&"Out") {
                    continue;
                }
                let fault = fault.replace("SYMBOL", function.symbol).replace('N', &call.to_string());
                standin.set(&format!("reset;{fault}"));
                let alive = standin.count("alive");
                runs += 1;
                match all() {
                    Ok(values) => assert_eq!(values, want, "{fault}"),
                    Err(error) => {
                        errors += 1;
                        assert!(error.to_string().contains("e5rt_"), "{fault}: {error} names no call");
                    }
                }
                assert_eq!((framework.alive(), framework.loaded()), before, "{fault}");
                assert_eq!(standin.count("alive"), alive, "{fault}");
            }
        }
    }
    assert!(runs >= 200 && errors >= 80, "{errors} errors in {runs} runs");
    standin.set("reset");
    assert_eq!(all().unwrap(), want);
}

#[test]
fn what_a_run_left_that_failed_is_no_result() {
    let standin = Standin::new();
    let plan = compile(&[Var::input(vector(4)).muls(2.0)], &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, standin.engine()).unwrap();
    let feed = [Tensor::from_slice(vector(4), &[1.0f32, 2.0, 3.0, 4.0]).unwrap()];
    session.run(&feed).unwrap();
    standin.set("reset;corrupt=1");
    let mut failed = 0;
    for _ in 0..50 {
        match session.run(&feed) {
            Ok(values) => assert_eq!(values[0].to_f32(), [2.0, 4.0, 6.0, 8.0]),
            Err(error) => {
                failed += 1;
                assert!(error.to_string().contains("means nothing"), "{error}");
            }
        }
    }
    assert!(failed <= 1, "{failed}");
}

#[test]
fn a_library_without_a_function_is_an_error_that_names_it() {
    let standin = Standin::new();
    let files = written(&standin, "double", 4, |x| x.muls(2.0));
    for function in E5RT {
        let libraries = Libraries::all(library()).without(&[function.symbol]);
        let opened = Framework::open(&libraries);
        if function.need == Need::Hard {
            let error = opened.err().unwrap_or_else(|| panic!("{} must be there", function.symbol));
            assert!(error.to_string().contains(function.symbol), "{error}");
            continue;
        }
        // The rest works without it, or names it.
        let framework = opened.unwrap_or_else(|error| panic!("{}: {error}", function.symbol));
        let mut program = load(&framework, &files);
        let mut buffers = vec![framework.allocate(8).unwrap(), framework.allocate(8).unwrap()];
        let both = |program: &mut Program, buffers: &mut Vec<Buffer>| {
            program.bind(0, Side::Input(0), &buffers[0].handle())?;
            program.bind(0, Side::Output(0), &buffers[1].handle())?;
            program.execute(buffers)
        };
        both(&mut program, &mut buffers).unwrap_or_else(|error| panic!("{}: {error}", function.symbol));
        let more = [
            both(&mut program, &mut buffers).err(),
            program.submit(&mut buffers).and_then(|running| running.wait(Duration::from_secs(20))).err(),
            framework.check(&files.source(), "h13").err(),
        ];
        for error in more.into_iter().flatten() {
            assert!(
                matches!(&error, AneError::Symbol { symbol, .. } if *symbol == function.symbol),
                "{}: {error}",
                function.symbol
            );
        }
    }
    let sort =
        compile(&[Var::input(Shape::new(&[2, 5]).unwrap()).sort(false, false)], &CompileOptions::default())
            .unwrap();
    for function in OBJC.iter().chain(CORE_FOUNDATION).chain(IO_SURFACE) {
        let libraries = Libraries::all(library()).without(&[function.symbol]);
        let engine = Ane::open(&AneOptions { libraries, ..standin.options() }).unwrap();
        let error = Session::new(sort.clone(), &engine).unwrap_err();
        assert!(error.to_string().contains(function.symbol), "{error}");
        let plain = compile(&[Var::input(vector(3)).relu()], &CompileOptions::default()).unwrap();
        assert!(Session::new(plain, &engine).is_ok(), "programs need no {}", function.symbol);
    }
}

#[test]
fn a_call_that_hangs_in_this_process_poisons_its_program_only() {
    let standin = Standin::new();
    let limit = Duration::from_millis(200);
    let engine = Ane::open(&AneOptions { call_limit: limit, ..standin.options() }).unwrap();
    let plan = compile(&[Var::input(vector(4)).muls(2.0)], &CompileOptions::default()).unwrap();
    let feed = [Tensor::from_slice(vector(4), &[1.0f32; 4]).unwrap()];
    let [mut hung, mut well] = std::array::from_fn(|_| Session::new(plan.clone(), &engine).unwrap());
    standin.set("reset;hang=e5rt_execution_stream_execute_sync@1:1500");
    let error = hung.run(&feed).unwrap_err();
    assert!(
        matches!(&error, RunError::Device(DeviceError::Lost { why }) if why.contains("0.2 s")),
        "{error}"
    );
    let start = Instant::now();
    assert!(hung.run(&feed).is_err() && start.elapsed() < limit, "it is not tried again");
    assert_eq!(well.run(&feed).unwrap()[0].to_f32(), [2.0; 4]);
}

#[test]
fn what_the_compiler_refuses_is_named_with_what_it_printed() {
    let standin = Standin::new();
    let x = Var::input(Shape::new(&[4, 8]).unwrap());
    let plan = compile(&[x.exp().softmax(1).muls(3.0)], &CompileOptions::default()).unwrap();
    standin.set("print=E5RT: the tensor is too wide;reject=softmax");
    let error = Session::new(plan.clone(), standin.engine()).unwrap_err().to_string();
    assert!(
        error.contains("ANECCompile() FAILED: softmax") && error.contains("the tensor is too wide"),
        "{error}"
    );
    // With another process, the part that does not compile is found there, and named by its line.
    let mut command = worker();
    command.splice(0..0, ["env".into(), "ANEFORGE_STANDIN=reject=softmax".into()]);
    standin.set("reset");
    let engine = Ane::open(&AneOptions { worker: Some(command), ..standin.options() }).unwrap();
    let error = Session::new(plan, &engine).unwrap_err().to_string();
    assert!(error.contains("the smallest part that does not compile: softmax(fp16[4, 8])"), "{error}");
    assert!(error.contains("faults.rs:"), "{error}");
}

#[test]
fn a_compiler_that_takes_nothing_is_no_matter_of_the_graph() {
    let standin = Standin::new();
    let x = Var::input(Shape::new(&[4, 8]).unwrap());
    let plan = compile(
        &[x.exp().softmax(1).matmul_value(&Var::input(Shape::new(&[8, 8]).unwrap()))],
        &CompileOptions::default(),
    )
    .unwrap();
    for call in
        ["e5rt_e5_compiler_create_with_config", "e5rt_e5_compiler_compile", "e5rt_e5_compiler_options_create"]
    {
        let mut command = worker();
        // Every process of a trial makes one.
        command.splice(0..0, ["env".into(), format!("ANEFORGE_STANDIN=fail={call}@1:3").into()]);
        let engine = Ane::open(&AneOptions { worker: Some(command), ..standin.options() }).unwrap();
        let error = Session::new(plan.clone(), &engine).unwrap_err().to_string();
        assert!(
            error.contains(call) && error.contains("even a program of one op does not compile"),
            "{error}"
        );
        assert!(!error.contains("smallest part") && !error.contains("compile it for the chip"), "{error}");
    }
}

#[test]
fn errors_say_at_which_stage_and_give_advice_once() {
    let standin = Standin::new();
    let plan = compile(&[Var::input(vector(4)).muls(2.0)], &CompileOptions::default()).unwrap();
    let open = |options: AneOptions| Session::new(plan.clone(), Ane::open(&options).unwrap()).map(|_| ());
    let told = |fault: &str, text: &str| {
        standin.set(&format!("reset;{fault}"));
        let error = open(standin.options()).unwrap_err().to_string();
        assert!(error.contains(text) && error.ends_with("nothing has run"), "{fault}: {error}");
        assert!(!error.contains("try again") && !error.contains("the call failed"), "{fault}: {error}");
    };
    told("fail=e5rt_execution_stream_operation_retain_input_port@1:2", "loading failed on the device");
    told("fail=e5rt_io_port_bind_buffer_object@1:2", "binding a buffer failed on the device");
    told("fail=e5rt_buffer_object_alloc@1:3", "taking memory failed on the device");
    // A folder that cannot be is a matter of files.
    standin.set("reset");
    let folder = standin.folder.path().join("taken");
    std::fs::write(&folder, "mine").unwrap();
    let error = open(AneOptions { folder: Some(folder.clone()), ..standin.options() }).unwrap_err();
    assert_eq!(error.kind(), aneforge::Kind::File);
    let error = error.to_string();
    assert!(
        error.starts_with(&format!("cannot make folder {}", folder.display()))
            && error.contains("ANEFORGE_CACHE_DIR"),
        "{error}"
    );
    open(standin.options()).unwrap();
    let entries = std::fs::read_dir(standin.folder.path()).unwrap().flatten().map(|entry| entry.path());
    let program = entries.into_iter().find(|path| path.join("model.mil").exists()).unwrap();
    let inside = std::fs::read_dir(&program).unwrap().flatten().map(|entry| entry.path());
    let cache = inside.into_iter().find(|path| path.is_dir()).unwrap();
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::write(&cache, "in the way").unwrap();
    let error = open(standin.options()).unwrap_err();
    assert!(
        error.kind() == aneforge::Kind::File && error.to_string().contains("cannot make folder"),
        "{error}"
    );
    // What is lost is to be loaded again, which is said once.
    let lost = DeviceError::Lost { why: AneError::Hung(Duration::from_secs(5)).to_string() }.to_string();
    assert_eq!(lost.matches("load it again").count(), 1, "{lost}");
}

#[test]
fn nothing_is_blamed_that_is_not_at_fault() {
    let standin = Standin::new();
    let relu = || compile(&[Var::input(vector(4)).relu()], &CompileOptions::default()).unwrap();
    let sort =
        compile(&[Var::input(Shape::new(&[2, 5]).unwrap()).sort(false, false)], &CompileOptions::default());
    let engine = Ane::open(&AneOptions { worker: Some(worker()), ..standin.options() }).unwrap();
    standin.set("programs=1");
    let _held = Session::new(relu(), &engine).unwrap();
    let error = Session::new(relu(), &engine).unwrap_err().to_string();
    assert!(error.contains("re-compile") && !error.contains("smallest part"), "{error}");
    let nobody = AneOptions { worker: Some(vec!["/nowhere/at/all".into()]), ..standin.options() };
    let error = Session::new(sort.unwrap(), Ane::open(&nobody).unwrap()).unwrap_err().to_string();
    assert!(error.contains("could not be started") && !error.contains("smallest part"), "{error}");
}

#[test]
fn after_a_refusal_the_compiler_rests() {
    let standin = Standin::new();
    let backoff = aneforge::pacing::Backoff { pause: Duration::from_secs(60), strict: true };
    let engine = Ane::open(&AneOptions { backoff, ..standin.options() }).unwrap();
    let plan = compile(&[Var::input(vector(4)).exp()], &CompileOptions::default()).unwrap();
    standin.set("fail=e5rt_e5_compiler_compile@1:2");
    assert!(Session::new(plan.clone(), &engine).is_err());
    // The stand-in needs no rest; that the engine does is in `pacing`.
    assert!(Session::new(plan, &engine).is_ok());
}
