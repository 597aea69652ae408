//! Buffers: what ports are bound to, and what sessions share.

use super::support::engine;
use aneforge::device::host::Host;
use aneforge::device::{Loaded, Memory, Port};
use aneforge::ir::types::TensorType;
use aneforge::{
    Buffer, CompileOptions, DType, Device, DeviceError, Feed, Kind, Numerics, RunError, Session, Shape,
    Target, Tensor, Var, compile, f16,
};
use aneforge_kernels::Layout;
use aneforge_kernels::threads::stoppable;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(shape(dims))
}

fn session(outputs: &[Var], host: &Host) -> Session {
    Session::new(compile(outputs, &CompileOptions::default()).unwrap(), host).unwrap()
}

fn values(session: &Session, output: usize) -> Vec<f32> {
    session.output(output).iter().map(|v| v.to_f32()).collect()
}

fn refused(result: Result<(), RunError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Caller);
    error.to_string()
}

#[test]
fn the_output_of_a_session_is_the_input_of_another() {
    let host = engine(1);
    let (x, y) = (input(&[2]), input(&[2]));
    let (mut first, mut second) = (session(&[x.muls(3.0)], &host), session(&[y.adds(1.0)], &host));
    second.bind_input(0, first.output_buffer(0).unwrap()).unwrap();
    first.run(&[Tensor::from_slice(shape(&[2]), &[1.0f32, 2.0]).unwrap()]).unwrap();
    second.execute().unwrap();
    assert_eq!(values(&second, 0), [4.0, 7.0]);
}

/// The old state is read after the new one is known, and by two outputs.
#[test]
fn state_is_a_buffer_that_two_ports_name() {
    for host in [engine(1), engine(1).unfused()] {
        let (state, x) = (input(&[1, 2]), input(&[1, 2]));
        let next = (&state + &x).relu();
        let mut steps = session(&[next.clone(), &next - &state, state.muls(1.0), next.reshape(&[2])], &host);
        let kept = steps.input_buffer(0).unwrap().clone();
        steps.bind_output(0, &kept).unwrap();
        for (x, want, difference, before) in [
            ([1.0f32, -1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]),
            ([2.0, 4.0], [3.0, 4.0], [2.0, 4.0], [1.0, 0.0]),
        ] {
            steps.set(1, Feed::F32(&x), &[1, 2]).unwrap();
            steps.execute().unwrap();
            assert_eq!((values(&steps, 0), values(&steps, 1)), (want.to_vec(), difference.to_vec()));
            assert_eq!((values(&steps, 2), values(&steps, 3)), (before.to_vec(), want.to_vec()));
        }
    }
}

/// A layer in the middle cuts the graph: what comes after it reads inputs after what comes before it has written.
#[test]
fn state_that_another_segment_is_still_to_read_is_refused() {
    let host = engine(1);
    let (x, state) = (input(&[1, 4]), input(&[1, 4]));
    let early = &state + &x;
    let late = &early.sort(false, false) + &state;
    let make = || session(&[early.clone(), late.clone()], &host);
    let feed = |session: &mut Session| {
        session.set(0, Feed::F32(&[3.0, 1.0, 2.0, 0.0]), &[1, 4]).unwrap();
        session.set(1, Feed::F32(&[1.0; 4]), &[1, 4]).unwrap();
        session.execute().unwrap();
    };
    let mut steps = make();
    assert!(steps.plan().segments.len() == 3);
    let kept = steps.input_buffer(1).unwrap().clone();
    let error = refused(steps.bind_output(0, &kept));
    assert_eq!(
        error,
        "output 0: segment 0 writes what segment 2 is to read of input 1; bind another buffer and copy"
    );
    let own = steps.output_buffer(0).unwrap().clone();
    assert!(refused(steps.bind_input(1, &own)).starts_with("input 1: segment 0 writes what"));
    assert!(refused(steps.bind_output(1, &own)).starts_with("output 1: another output is written into"));
    feed(&mut steps);
    assert_eq!((values(&steps, 0), values(&steps, 1)), (vec![4.0, 2.0, 3.0, 1.0], vec![2.0, 3.0, 4.0, 5.0]));
    // The last segment may: all of the old state has been read by then.
    let mut steps = make();
    steps.bind_output(1, &kept).unwrap();
    steps.bind_input(1, &kept).unwrap();
    feed(&mut steps);
    steps.execute().unwrap();
    assert_eq!(values(&steps, 1), [6.0, 8.0, 9.0, 11.0]);
}

#[test]
fn leaves_and_values_that_are_returned_twice_reach_their_buffers() {
    let x = input(&[3]);
    let y = x.adds(1.0);
    let outputs = [y.clone(), y.clone(), x.reshape(&[1, 3]), Var::full(shape(&[3]), 2.0) * &y];
    let mut session = session(&outputs, &engine(1));
    session.run(&[Tensor::from_slice(shape(&[3]), &[1.0f32, 2.0, 3.0]).unwrap()]).unwrap();
    assert_eq!((values(&session, 0), values(&session, 1)), (vec![2.0, 3.0, 4.0], vec![2.0, 3.0, 4.0]));
    assert_eq!((values(&session, 2), values(&session, 3)), (vec![1.0, 2.0, 3.0], vec![4.0, 6.0, 8.0]));
}

#[test]
fn buffers_that_do_not_fit_are_refused_and_nothing_changes() {
    let host = engine(1);
    let x = input(&[2]);
    let mut session = session(&[x.adds(1.0), x.muls(2.0)], &host);
    let allocate = |ty| host.allocate(ty).unwrap();
    let bytes = TensorType { dtype: DType::U8, shape: shape(&[2]) };
    let wrong = refused(session.bind_input(0, &allocate(TensorType::f16(shape(&[3])))));
    assert_eq!(wrong, "input 0: takes a buffer of fp16[2], got one of fp16[3]");
    assert!(refused(session.bind_output(1, &allocate(bytes))).contains("got one of uint8[2]"));
    let first = session.output_buffer(0).unwrap().clone();
    assert!(refused(session.bind_output(1, &first)).starts_with("output 1: another output is written into"));
    assert!(refused(session.bind_output(2, &first)).contains("there are 2 outputs"));
    assert!(refused(session.bind_input(1, &first)).contains("takes 1 input, got 2"));
    let ty = TensorType::f16(shape(&[2]));
    let gaps = Buffer::new(ty, Layout::new(0, &[2], &[3]), Plain(vec![0; 8]), None);
    assert!(refused(session.bind_input(0, &gaps)).contains("without gaps, got one with strides [3]"));
    session.run(&[Tensor::from_slice(shape(&[2]), &[1.0f32, 2.0]).unwrap()]).unwrap();
    assert_eq!((values(&session, 0), values(&session, 1)), (vec![2.0, 3.0], vec![2.0, 4.0]));
}

#[test]
fn a_program_does_not_run_before_its_ports_are_bound() {
    let host = engine(1);
    let plan = compile(&[input(&[2]).adds(1.0)], &CompileOptions::default()).unwrap();
    let mut program: Box<dyn Loaded> = host.load(&plan.segments[0], plan.target).unwrap();
    let buffer = host.allocate(TensorType::f16(shape(&[2]))).unwrap();
    program.bind(Port::Output(0), &buffer).unwrap();
    let error = program.execute().unwrap_err();
    assert_eq!(error.to_string(), "input 0: has no buffer; bind one before the first run");
    program.bind(Port::Input(0), &buffer).unwrap();
    program.execute().unwrap();
    program.execute().unwrap();
    assert_eq!(buffer.values().unwrap()[1].to_f32(), 2.0);
}

/// NaN becomes infinity where it is written, whichever way.
#[test]
fn values_are_cleaned_as_they_are_written() {
    let x = input(&[2]);
    let nan = [f32::NAN, 1.0];
    let family = Target::default().family();
    let settings =
        [(Numerics::Ieee, false), (Numerics::Ane(family), true), (Numerics::Faithful(family), true)];
    for (numerics, clean) in settings {
        let mut session = session(&[x.adds(1.0)], &engine(1).with_numerics(numerics));
        let check = |session: &mut Session, how: &str| {
            session.execute().unwrap();
            assert_eq!(values(session, 0)[0].is_nan(), !clean, "{numerics}, {how}");
            assert_eq!(values(session, 0)[1], 2.0);
        };
        session.set(0, Feed::F32(&nan), &[2]).unwrap();
        assert_eq!(session.input_mut(0).unwrap()[0].is_nan(), !clean);
        check(&mut session, "set");
        session.input_mut(0).unwrap()[0] = f16::NAN;
        assert_eq!(session.input_mut(0).unwrap()[0].is_nan(), !clean);
        check(&mut session, "in place");
        // From elsewhere: nobody cleaned it, so the run does.
        let ty = TensorType::f16(shape(&[2]));
        let foreign = Buffer::new(ty, Layout::row_major(&[2]), Plain(vec![0; 2]), None);
        foreign.write(Feed::F32(&nan)).unwrap();
        assert!(foreign.values().unwrap()[0].is_nan() && !foreign.is_clean());
        session.bind_input(0, &foreign).unwrap();
        check(&mut session, "foreign");
        assert_eq!(foreign.values().unwrap()[0].is_nan(), !clean);
    }
    let buffer = engine(1).allocate(TensorType::f16(shape(&[2]))).unwrap();
    assert!(buffer.is_clean());
    buffer.expose();
    assert!(!buffer.is_clean());
}

/// Bytes are no numbers in half precision, whatever their bits look like, and whoever wrote them.
#[test]
fn bytes_are_never_cleaned() {
    let ty = TensorType { dtype: DType::U8, shape: shape(&[4]) };
    let bytes = [0xff, 0x7f, 0x01, 0xfe];
    for host in [engine(1), faithful()] {
        let mut session = session(&[Var::input_of(ty).cast()], &host);
        let mut held = Plain(vec![0; 2]);
        held.bytes_mut().copy_from_slice(&bytes);
        let foreign = Buffer::new(ty, Layout::row_major(&[4]), held, None);
        session.bind_input(0, &foreign).unwrap();
        session.execute().unwrap();
        assert_eq!(values(&session, 0), bytes.map(f32::from));
    }
}

/// An engine that follows all that is published.
fn faithful() -> Host {
    engine(1).with_numerics(Numerics::Faithful(Target::default().family()))
}

/// What was stopped is no result, also where the last node was.
#[test]
fn a_run_that_was_stopped_says_so() {
    for host in [engine(1), faithful()] {
        let mut session = session(&[input(&[2, 64]).matmul_value(&input(&[64, 2]))], &host);
        session.execute().unwrap();
        let stop = Arc::new(AtomicBool::new(true));
        let error = stoppable(&stop, || session.execute()).unwrap_err();
        assert_eq!(error, DeviceError::Stopped.into(), "{host:?}");
        session.execute().unwrap();
    }
}

/// Two sessions that have each other's buffers, in opposite order.
#[test]
fn sessions_that_share_buffers_run_at_once() {
    [engine(1), faithful()].iter().for_each(shared_at_once);
}

fn shared_at_once(host: &Host) {
    let make = || {
        let (a, b) = (input(&[4]), input(&[4]));
        session(&[&a + &b, &a - &b], host)
    };
    let (mut one, mut two) = (make(), make());
    let [first, second] = [0, 1].map(|at| one.input_buffer(at).unwrap().clone());
    two.bind_input(0, &second).unwrap();
    two.bind_input(1, &first).unwrap();
    two.bind_output(0, &first).unwrap();
    one.bind_output(1, &second).unwrap();
    std::thread::scope(|scope| {
        for session in [&mut one, &mut two] {
            scope.spawn(move || (0..2000).for_each(|_| session.execute().unwrap()));
        }
    });
}

#[test]
fn inputs_go_by_name() {
    let ty = TensorType::f16(Shape::SCALAR);
    let [a, b] = ["a", "b"].map(|name| Var::named_input(ty, name));
    let last = Var::input(Shape::SCALAR);
    let plan = compile(&[&(&a - &b) + &last], &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, engine(1)).unwrap();
    let number = |v: f32| Tensor::scalar(v);
    let sum = session.run_named(&[("2", number(5.0)), ("b", number(1.0)), ("a", number(3.0))]).unwrap();
    assert_eq!(sum[0].to_f32(), [7.0]);
    let error = session.run_named(&[("a", number(1.0)), ("c", number(1.0))]).unwrap_err().to_string();
    assert_eq!(error, "there is no input `c`; the model has a, b, 2");
    let error = session.run_named(&[("a", number(1.0)), ("a", number(1.0))]).unwrap_err().to_string();
    assert_eq!(error, "input `a` was given twice; give each input once");
    let error = session.run_named(&[("a", number(1.0)), ("b", number(1.0))]).unwrap_err().to_string();
    assert_eq!(error, "input `2` was given not at all; give each input once");
}

/// A program's own names of its ports are those of the graph that is read from it.
#[test]
fn names_come_back_from_programs() {
    let x = input(&[2]);
    let plan = compile(&[&x + &input(&[2])], &CompileOptions::default()).unwrap();
    let (program, blob) = plan.segments[0].mil().unwrap();
    let weights = aneforge_tensor::Bytes::new(blob.write(&plan.segments[0].graph, Vec::new()).unwrap());
    let graph = aneforge::import::mil::read(program, &weights).unwrap();
    let names: Vec<String> = graph.feed_types().into_iter().map(|feed| feed.name).collect();
    let ports: Vec<String> = program.functions[0].params.iter().map(|port| port.name.clone()).collect();
    assert_eq!((names, ports.len()), (ports, 2));
}

#[test]
#[should_panic(expected = "in its memory")]
fn memory_that_is_too_short_is_no_buffer() {
    let ty = TensorType::f16(shape(&[2, 3]));
    let _ = Buffer::new(ty, Layout::new(0, &[2, 3], &[4, 1]), Plain(vec![0; 6]), None);
}

/// A device that does not do as it should.
struct Broken(fn() -> DeviceError);

impl Device for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn title(&self) -> &'static str {
        "broken"
    }
    fn describe(&self) -> String {
        "broken".into()
    }
    fn numerics(&self, _: Target) -> Numerics {
        Numerics::Ieee
    }
    fn allocate(&self, ty: TensorType) -> Result<Buffer, DeviceError> {
        engine(1).allocate(ty)
    }
    fn load(&self, _: &aneforge::plan::Segment, _: Target) -> Result<Box<dyn Loaded>, DeviceError> {
        Err((self.0)())
    }
}

#[test]
fn what_a_device_refuses_fails_at_or_loses_is_told() {
    let plan = std::sync::Arc::new(compile(&[input(&[2]).relu()], &CompileOptions::default()).unwrap());
    type Fault = (fn() -> DeviceError, &'static str);
    let errors: [Fault; 3] = [
        (|| DeviceError::Refused { why: "no".into() }, "the device refused the program: no; compile it for"),
        (|| DeviceError::Failed { why: "no".into() }, "the call failed on the device: no;"),
        (|| DeviceError::Lost { why: "no".into() }, "the device lost the program: no; load it again"),
    ];
    for (error, message) in errors {
        let broken: &dyn Device = &Broken(error);
        let error = Session::new(plan.clone(), broken).unwrap_err();
        assert_eq!(error.kind(), Kind::Device);
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

#[test]
fn finite_values_beyond_half_precision_are_counted_for_each_input() {
    let host = Host::new(1);
    let (x, y) = (input(&[3]), Var::named_input(TensorType::f16(shape(&[3])), "y"));
    let mut session = session(&[x.plus(&y)], &host);
    let fits = [65504.0, -65519.0, f32::INFINITY];
    session.set(0, Feed::F32(&fits), &[3]).unwrap();
    session.set(1, Feed::F16(&[f16::INFINITY, f16::NAN, f16::MAX]), &[3]).unwrap();
    assert!(session.unheld().is_empty());
    for _ in 0..2 {
        session.set(1, Feed::F64(&[1e300, f64::NAN, -65520.0]), &[3]).unwrap();
    }
    let [unheld] = session.unheld() else { panic!("one input: {:?}", session.unheld()) };
    assert_eq!((unheld.values, unheld.largest, unheld.calls), (2, 1e300, 2));
    assert!(
        unheld.to_string().starts_with("input 1 (y) was fed 2 values beyond half precision, the largest 1")
    );
}

#[test]
fn writing_and_reading_end_when_the_caller_has_enough() {
    let (host, dims, count) = (Host::new(1), [16, 1 << 16], 1 << 20);
    let mut session = session(&[input(&dims).muls(2.0)], &host);
    let (ones, mut asked) = (vec![1.0; count], 0);
    let mut twice = || {
        asked += 1;
        asked < 2
    };
    let stopped = session.set_while(0, Feed::F32(&ones), &dims, &mut twice);
    assert!(refused(stopped).starts_with("input 0 was not written to the end"));
    session.set(0, Feed::F32(&ones), &dims).unwrap();
    session.execute().unwrap();
    let mut back = vec![0.0; count];
    assert!(!session.read_while(0, &mut back, &mut || false));
    assert!(session.read_while(0, &mut back, &mut || true));
    assert!(back.iter().all(|v| *v == 2.0));
}

/// Memory that is no device's.
struct Plain(Vec<u16>);

impl Memory for Plain {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

proptest! {
    /// Rows may be padded, as the engine's are.
    #[test]
    fn elements_go_where_the_layout_says(rows in 1_usize..5, columns in 1_usize..6, gap in 0_usize..4, start in 0_usize..3) {
        let pitch = columns + gap;
        let layout = Layout::new(start, &[rows, columns], &[pitch, 1]);
        let held = Plain(vec![0x7bff; start + rows * pitch]);
        let buffer = Buffer::new(TensorType::f16(shape(&[rows, columns])), layout, held, None);
        let values: Vec<f32> = (0..rows * columns).map(|v| v as f32).collect();
        buffer.write(Feed::F32(&values)).unwrap();
        let mut back = vec![0.0; rows * columns];
        buffer.read(&mut back);
        prop_assert_eq!(&back, &values);
        prop_assert_eq!(buffer.values().is_some(), start == 0 && (gap == 0 || rows == 1));
        let error = buffer.write(Feed::F32(&values[1..])).unwrap_err().to_string();
        prop_assert_eq!(error, format!("takes {} values, got {}", rows * columns, rows * columns - 1));
    }
}
