//! State: what programs keep from run to run, and share.

use super::support::engine;
use aneforge::device::host::Host;
use aneforge::ir::ops::leaf::Role;
use aneforge::ir::text::{parse, print};
use aneforge::portable::{pack_plan, unpack_plan};
use aneforge::{
    CompileOptions, Feed, Graph, Kind, Plan, RunError, Session, Shape, State, Tensor, TensorType, Var,
    compile, compile_graph, f16,
};
use aneforge_tensor::{Bytes, random};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn leaf(dims: &[usize]) -> Var {
    Var::leaf(TensorType::f16(shape(dims)), Role::State)
}

fn planned(outputs: &[Var], carries: &[(&Var, &Var)]) -> Plan {
    compile_graph(&Graph::carrying(outputs, carries).unwrap(), &CompileOptions::default()).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32().iter().map(|v| v.to_bits()).collect()
}

fn noise(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| random::normal(seed, i)).collect()
}

/// A model that keeps state: leaves, what they become, and what is returned, of the inputs `feeds`.
struct Step {
    feeds: Vec<Var>,
    states: Vec<Var>,
    nexts: Vec<Var>,
    outputs: Vec<Var>,
}

fn accumulator(dims: &[usize]) -> Step {
    let (x, total) = (Var::input(shape(dims)), leaf(dims));
    let next = &total + &x;
    Step { feeds: vec![x], outputs: vec![next.muls(0.5)], states: vec![total], nexts: vec![next] }
}

fn moving_average(dims: &[usize]) -> Step {
    let (x, mean) = (Var::input(shape(dims)), leaf(dims));
    let next = mean.muls(0.9) + x.muls(0.1);
    Step { feeds: vec![x.clone()], outputs: vec![&x - &mean], states: vec![mean], nexts: vec![next] }
}

/// One head of attention over the last `len` tokens. `place` is one at the token's place in the cache.
fn decoder(len: usize, width: usize) -> Step {
    let (x, place, mask) =
        (Var::input(shape(&[1, width])), Var::input(shape(&[len, 1])), Var::input(shape(&[1, len])));
    let weight = |seed| {
        let values: Vec<f32> = noise(seed, width * width).iter().map(|v| v * 0.2).collect();
        Var::constant(Tensor::from_slice(shape(&[width, width]), &values).unwrap())
    };
    let (keys, values) = (leaf(&[len, width]), leaf(&[len, width]));
    let put = |cache: &Var, new: &Var| cache * &place.muls(-1.0).adds(1.0) + &place * new;
    let [q, k, v] = [1, 2, 3].map(|seed| x.linear(&weight(seed), None));
    let next = [put(&keys, &k), put(&values, &v)];
    let scores = q.matmul_value(&next[0].transpose(&[1, 0])).muls(0.25) + &mask;
    let y = scores.softmax(-1).matmul_value(&next[1]).linear(&weight(4), None);
    Step { feeds: vec![x, place, mask], states: vec![keys, values], nexts: next.to_vec(), outputs: vec![y] }
}

/// What to feed a decoder.
fn token(step: usize, len: usize, width: usize) -> Vec<Vec<f32>> {
    let one = |at| if at == step % len { 1.0 } else { 0.0 };
    let hidden = |at| if at > step { -1e4 } else { 0.0 };
    vec![noise(step as u64, width), (0..len).map(one).collect(), (0..len).map(hidden).collect()]
}

/// Runs a step a thousand times, with its state kept and, in another session, fed by hand: the same bits, nothing copied.
fn kept_is_as_fed(step: &Step, host: &Host, feed: impl Fn(usize) -> Vec<Vec<f32>>) {
    let pairs: Vec<(&Var, &Var)> = step.states.iter().zip(&step.nexts).collect();
    let mut kept = Session::new(planned(&step.outputs, &pairs), host).unwrap();
    let all: Vec<Var> = step.outputs.iter().chain(&step.nexts).cloned().collect();
    let mut fed = Session::new(planned(&all, &[]), host).unwrap();
    let mut by_hand: Vec<Tensor> = step.states.iter().map(|s| zeros(s.shape())).collect();
    for at in 0..1000 {
        let inputs = feed(at);
        let inputs: Vec<Tensor> = step
            .feeds
            .iter()
            .zip(&inputs)
            .map(|(var, values)| Tensor::from_slice(var.shape(), values).unwrap())
            .collect();
        let result = kept.run(&inputs).unwrap();
        let inputs: Vec<Tensor> = inputs.into_iter().chain(by_hand).collect();
        let mut expected = fed.run_all(&inputs).unwrap();
        by_hand = expected.split_off(step.outputs.len());
        let same = result.iter().zip(&expected).all(|(a, b)| bits(a) == bits(b));
        assert!(same && result.len() == expected.len(), "step {at}");
    }
    let snapshot = kept.snapshot().unwrap();
    assert!(snapshot.iter().zip(&by_hand).all(|((_, a), b)| bits(a) == bits(b)) && !snapshot.is_empty());
    assert!(snapshot.iter().any(|(_, state)| state.to_f32().iter().any(|v| *v != 0.0)));
    assert_eq!(kept.copied(), 0);
}

fn zeros(of: Shape) -> Tensor {
    Tensor::from_slice(of, &vec![0.0f32; of.count()]).unwrap()
}

#[test]
fn a_thousand_steps_are_those_of_state_fed_by_hand_and_copy_nothing() {
    for host in [engine(1), engine(2), engine(1).unfused()] {
        kept_is_as_fed(&accumulator(&[3, 5]), &host, |at| vec![noise(at as u64, 15)]);
        kept_is_as_fed(&moving_average(&[40]), &host, |at| vec![noise(at as u64, 40)]);
        kept_is_as_fed(&decoder(16, 32), &host, |at| token(at, 16, 32));
    }
}

/// A first program fills the cache with many tokens at once, another goes on from there, and both see what either wrote.
#[test]
fn prefill_and_decode_share_state() {
    let (host, len, width) = (engine(1), 8, 16);
    let cache = State::new(&host, "cache", shape(&[len, width])).unwrap();
    let tokens = Var::input(shape(&[len, width]));
    let mut prefill = Session::new(planned(&[], &[(cache.var(), &tokens.muls(2.0))]), &host).unwrap();
    let x = Var::input(shape(&[1, width]));
    let next = cache.var() + &x;
    let sums = next.sum(&[0]);
    let mut decode = Session::new(planned(&[sums], &[(cache.var(), &next)]), &host).unwrap();
    let mut look =
        Session::new(compile(&[cache.var().muls(1.0)], &CompileOptions::default()).unwrap(), &host).unwrap();
    for session in [&mut prefill, &mut decode, &mut look] {
        session.bind_state(&cache).unwrap();
    }
    prefill.run(&[Tensor::from_slice(shape(&[len, width]), &vec![1.0f32; len * width]).unwrap()]).unwrap();
    let ones = Tensor::from_slice(shape(&[1, width]), &vec![1.0f32; width]).unwrap();
    assert_eq!(decode.run(std::slice::from_ref(&ones)).unwrap()[0].to_f32(), vec![24.0; width]);
    assert_eq!(decode.run(&[ones]).unwrap()[0].to_f32(), vec![32.0; width]);
    assert_eq!(look.run(&[]).unwrap()[0].to_f32(), vec![4.0; len * width]);
    assert_eq!(cache.read().unwrap().to_f32(), vec![4.0; len * width]);
    cache.write(Feed::F32(&vec![7.0; len * width])).unwrap();
    assert_eq!(look.run(&[]).unwrap()[0].to_f32()[0], 7.0);
    assert_eq!(prefill.copied() + decode.copied() + look.copied(), 0);
}

/// Several steps in one program are several runs of one step.
#[test]
fn steps_may_be_unrolled() {
    let host = engine(1);
    let state = State::new(&host, "w", shape(&[4])).unwrap();
    let step = |w: &Var| w.muls(0.5).adds(1.0);
    let (once, thrice) = (step(state.var()), step(&step(&step(state.var()))));
    let [mut once, mut thrice] =
        [once, thrice].map(|next| Session::new(planned(&[], &[(state.var(), &next)]), &host).unwrap());
    once.bind_state(&state).unwrap();
    thrice.bind_state(&state).unwrap();
    (0..3).for_each(|_| once.execute().unwrap());
    let after = state.read().unwrap();
    state.write(Feed::F32(&[0.0; 4])).unwrap();
    thrice.execute().unwrap();
    assert_eq!(bits(&state.read().unwrap()), bits(&after));
    assert_eq!(after.to_f32(), [1.75; 4]);
}

/// All state is read before any of it changes, also where one becomes another and where two become the same.
#[test]
fn states_change_at_once() {
    for host in [engine(1), engine(1).unfused()] {
        let (a, b, c) = (leaf(&[2]), leaf(&[2]), leaf(&[2]));
        let sum = &a + &b;
        let mut session =
            Session::new(planned(std::slice::from_ref(&sum), &[(&a, &b), (&b, &a), (&c, &sum)]), &host)
                .unwrap();
        session
            .run_all(
                &[[1.0f32, 2.0], [3.0, 4.0], [0.0, 0.0]]
                    .map(|v| Tensor::from_slice(shape(&[2]), &v).unwrap()),
            )
            .unwrap();
        let held = |session: &Session| {
            session.snapshot().unwrap().iter().map(|(_, t)| t.to_f32()).collect::<Vec<_>>()
        };
        assert_eq!(held(&session), [[3.0, 4.0], [1.0, 2.0], [4.0, 6.0]]);
        session.execute().unwrap();
        assert_eq!(held(&session), [[1.0, 2.0], [3.0, 4.0], [4.0, 6.0]]);
        // What is returned is what became of the state.
        assert_eq!(session.outputs().unwrap()[0].to_f32(), [4.0, 6.0]);
        let (a, b) = (leaf(&[2]), leaf(&[2]));
        let next = (&a + &b).adds(1.0);
        let mut twins = Session::new(planned(&[], &[(&a, &next), (&b, &next)]), &host).unwrap();
        twins.execute().unwrap();
        twins.execute().unwrap();
        assert_eq!(held(&twins), [[3.0, 3.0], [3.0, 3.0]]);
    }
}

/// A native layer in the middle: state that the last segment reads is written by the first.
#[test]
fn state_of_a_cut_program_changes_when_all_of_it_is_done() {
    let host = engine(1);
    let (x, state, unread) = (Var::input(shape(&[1, 4])), leaf(&[1, 4]), leaf(&[1, 4]));
    let early = &state + &x;
    let sorted = early.sort(false, false);
    let late = &sorted + &state;
    let plan = planned(&[late], &[(&state, &early), (&unread, &sorted)]);
    assert!(plan.segments.len() == 3);
    let mut session = Session::new(plan, &host).unwrap();
    let x = Tensor::from_slice(shape(&[1, 4]), &[3.0f32, 1.0, 2.0, 0.0]).unwrap();
    assert_eq!(session.run(std::slice::from_ref(&x)).unwrap()[0].to_f32(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(session.run(&[x]).unwrap()[0].to_f32(), [3.0, 3.0, 6.0, 6.0]);
    let held: Vec<Vec<f32>> = session.snapshot().unwrap().iter().map(|(_, t)| t.to_f32()).collect();
    assert_eq!(held, [[6.0, 2.0, 4.0, 0.0], [0.0, 2.0, 4.0, 6.0]]);
    assert_eq!(session.copied(), 0);
}

#[test]
fn what_is_stopped_changes_no_state() {
    let host = engine(1);
    let (state, unread) = (leaf(&[512, 512]), leaf(&[512, 512]));
    // The first step makes what the unread state becomes; many long ones follow.
    let early = state.adds(1.0);
    let next = (0..60).fold(early.clone(), |v, _| v.matmul_value(&v).clip(-1.0, 1.0));
    let mut session = Session::new(planned(&[], &[(&state, &next), (&unread, &early)]), &host).unwrap();
    let all = |session: &Session, value: f32| {
        session.snapshot().unwrap().iter().all(|(_, t)| t.to_f32().iter().all(|v| *v == value))
    };
    for milliseconds in [20, 10, 5, 2, 0] {
        let stop = Arc::new(AtomicBool::new(milliseconds == 0));
        let late = Arc::clone(&stop);
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(milliseconds));
            late.store(true, Ordering::Relaxed);
        });
        let ran = session.execute_until(&stop);
        stopper.join().unwrap();
        if ran.is_ok() {
            // It was over before: nothing is seen, and it begins again.
            assert!(milliseconds > 0 && all(&session, 1.0));
            session = Session::new(session.plan().clone(), &host).unwrap();
            continue;
        }
        assert_eq!(ran.unwrap_err(), RunError::Device(aneforge::DeviceError::Stopped));
        assert!(all(&session, 0.0), "stopped after {milliseconds} ms");
    }
    session.execute().unwrap();
    assert!(all(&session, 1.0));
}

/// Another language looks at a state's memory: it stays where it is, and what becomes of it is copied there.
#[test]
fn memory_that_others_look_at_stays() {
    let host = engine(1);
    let state = State::new(&host, "s", shape(&[4])).unwrap();
    let mut session = Session::new(planned(&[], &[(state.var(), &state.var().adds(1.0))]), &host).unwrap();
    session.bind_state(&state).unwrap();
    session.execute().unwrap();
    let at = state.buffer().expose();
    session.execute().unwrap();
    assert_eq!((state.buffer().expose(), session.copied()), (at, 8));
    assert_eq!(state.read().unwrap().to_f32(), [2.0; 4]);
}

#[test]
fn state_comes_back_from_text_and_from_bytes() {
    let host = engine(1);
    let x = Var::input(shape(&[2]));
    let total = Var::described_leaf(TensorType::f16(shape(&[2])), Role::State, f64::INFINITY, "total");
    let next = &total + &x;
    let graph = Graph::carrying(&[next.muls(2.0)], &[(&total, &next)]).unwrap();
    let text = print(&graph);
    assert!(text.ends_with("carry %0 = %2\nreturn %3\n"), "{text}");
    let back = parse(&text).unwrap();
    assert_eq!(print(&back), text);
    let plan = compile_graph(&back, &CompileOptions::default()).unwrap();
    assert!(plan.to_string().contains("state: input 1 becomes output 1"), "{plan}");
    let plan = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, leaf| leaf).unwrap();
    // By name, as the leaf is another.
    let state = State::new(&host, "total", shape(&[2])).unwrap();
    let mut session = Session::new(plan, &host).unwrap();
    session.bind_state(&state).unwrap();
    let x = Tensor::from_slice(shape(&[2]), &[1.0f32, 2.0]).unwrap();
    session.run(std::slice::from_ref(&x)).unwrap();
    assert_eq!(session.run(&[x]).unwrap()[0].to_f32(), [4.0, 8.0]);
    assert_eq!(state.read().unwrap().to_f32(), [2.0, 4.0]);
    let only = parse(
        "%0 = input(feed=0, role=\"state\") : fp16[1]\n%1 = adds(%0, k=1.0) : fp16[1]\ncarry %0 = %1\nreturn\n",
    );
    assert_eq!(only.unwrap().returned(), []);
    for (text, why) in [
        ("carry %0 = %0\ncarry %0 = %1\nreturn", "a state is carried twice"),
        ("carry %1 = %1\nreturn", "only state and parameters are carried, got the result of adds"),
        ("carry %0 = %2\nreturn", "%2 is used before it is made"),
        ("carry %0\nreturn", "expected `=`"),
    ] {
        let text =
            format!("%0 = input(feed=0, role=\"state\") : fp16[1]\n%1 = adds(%0, k=1.0) : fp16[1]\n{text}\n");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn wrong_states_are_refused() {
    let host = engine(1);
    let (x, s) = (Var::input(shape(&[2])), leaf(&[2]));
    let refused = |carries: &[(&Var, &Var)]| Graph::carrying(&[], carries).unwrap_err().to_string();
    assert!(
        refused(&[(&x, &s)])
            .contains("only state and parameters are carried, and this input is fed; make it state")
    );
    assert!(refused(&[(&s, &x), (&s, &x)]).contains("a state is carried twice"));
    assert!(refused(&[(&s, &x.reshape(&[2, 1]))]).contains("a state of fp16[2] cannot become fp16[2, 1]"));
    let mut session = Session::new(planned(&[&s + &x], &[(&s, &x.muls(2.0))]), &host).unwrap();
    let other = State::new(&host, "other", shape(&[2])).unwrap();
    let error = session.bind_state(&other).unwrap_err();
    assert_eq!(error.kind(), Kind::Caller);
    assert_eq!(error.to_string(), "state `other` is not read or changed by this program, which has 1");
    assert!(other.write(Feed::F32(&[1.0])).unwrap_err().to_string().contains("takes 2 real values"));
    let named = Var::described_leaf(TensorType::f16(shape(&[3])), Role::State, f64::INFINITY, "other");
    let mut three = Session::new(planned(&[named.adds(1.0)], &[]), &host).unwrap();
    let error = three.bind_state(&other).unwrap_err().to_string();
    assert_eq!(error, "state `other` is fp16[2] and the program takes fp16[3]");
    let half = |values: &[f16]| Tensor::from_slice(shape(&[values.len()]), values).unwrap();
    let (one, good) = (f16::from_f32(1.0), half(&[f16::from_f32(1.0); 3]));
    for (values, why) in [
        (vec![], "state `other` has no value among those given"),
        (vec![("other".into(), half(&[one; 2]))], "state `other` is fp16[3], got fp16[2]"),
        (vec![("other".into(), good.clone()), ("more".into(), good.clone())], "state `more` is not read or"),
    ] {
        let error = three.restore(&values).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
        assert_eq!(three.snapshot().unwrap()[0].1.to_f32(), [0.0; 3]);
    }
    three.restore(&[("other".into(), good)]).unwrap();
    assert_eq!(three.run(&[]).unwrap()[0].to_f32(), [2.0; 3]);
}

proptest! {
    /// Whatever becomes of three states, also each other: as if all were fed and read by hand.
    #[test]
    fn any_carries_are_as_state_fed_by_hand(
        picks in proptest::collection::vec(0usize..8, 3), returned in 0usize..8, steps in 1usize..5, cut in any::<bool>()
    ) {
        let host = engine(1);
        let x = Var::input(shape(&[1, 4]));
        let states = [leaf(&[1, 4]), leaf(&[1, 4]), leaf(&[1, 4])];
        let [a, b, c] = &states;
        let mixed = a.muls(0.5) + b.muls(0.25);
        let sorted = if cut { mixed.sort(false, false) } else { mixed.relu() };
        let values = [a.clone(), b.clone(), c.clone(), x.clone(), mixed.clone(), sorted.clone(), &sorted + c, &x + b];
        let nexts: Vec<&Var> = picks.iter().map(|&p| &values[p]).collect();
        let carries: Vec<(&Var, &Var)> = states.iter().zip(nexts.iter().copied()).collect();
        // Every leaf is read, so that both programs have the same inputs.
        let rest = ((a + b) + c) + &x;
        let outputs = [values[returned].muls(1.5), rest];
        let mut kept = Session::new(planned(&outputs, &carries), &host).unwrap();
        let all: Vec<Var> = outputs.iter().cloned().chain(nexts.iter().map(|v| v.muls(1.0))).collect();
        let mut fed = Session::new(planned(&all, &[]), &host).unwrap();
        let mut by_hand: Vec<Tensor> = (0..3).map(|seed| Tensor::from_slice(shape(&[1, 4]), &noise(seed, 4)).unwrap()).collect();
        let given: Vec<(String, Tensor)> = by_hand.iter().enumerate().map(|(i, t)| {
            let halves: Vec<f16> = t.to_f32().iter().map(|v| f16::from_f32(*v)).collect();
            ((i + 1).to_string(), Tensor::from_slice(t.shape(), &halves).unwrap())
        }).collect();
        kept.restore(&given).unwrap();
        for step in 0..steps {
            let x = Tensor::from_slice(shape(&[1, 4]), &noise(100 + step as u64, 4)).unwrap();
            let result = kept.run(std::slice::from_ref(&x)).unwrap();
            let inputs: Vec<Tensor> = std::iter::once(x).chain(by_hand).collect();
            let mut expected = fed.run_all(&inputs).unwrap();
            by_hand = expected.split_off(2);
            prop_assert!(result.iter().zip(&expected).all(|(a, b)| bits(a) == bits(b)), "step {}", step);
        }
        let held = kept.snapshot().unwrap();
        prop_assert!(held.iter().zip(&by_hand).all(|((_, a), b)| bits(a) == bits(b)));
    }
}
