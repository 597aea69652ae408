//! State: buffers outside sessions, which runs read and change.

use super::fed::feed_of;
use super::{RunError, Session};
use crate::device::{Buffer, Device, DeviceError, Feed, Port};
use crate::ir::op::Op;
use crate::ir::ops::leaf::{Input, Role};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use crate::plan::Source;
use aneforge_tensor::{AlignedBytes, Bytes, DType, Shape, Tensor};
use std::fmt;

/// A named value of a device that programs read and change, and that outlives them. Clones are the same value.
///
/// Graphs read [`State::var`], and say with [`Graph::carrying`](crate::Graph::carrying) what a run makes of it. Sessions that
/// [bind](Session::bind_state) it share it, without a copy.
///
/// ```
/// use aneforge::{CompileOptions, Graph, Session, Shape, State, compile, compile_graph, device};
/// let host = device::named("host")?;
/// let count = State::new(&host, "count", Shape::new(&[1])?)?;
/// let options = CompileOptions::default();
/// let step = compile_graph(&Graph::carrying(&[], &[(count.var(), &count.var().adds(1.0))])?, &options)?;
/// let (mut step, mut double) = (Session::new(step, &host)?, Session::new(compile(&[count.var().muls(2.0)], &options)?, &host)?);
/// step.bind_state(&count)?;
/// double.bind_state(&count)?;
/// for _ in 0..5 {
///     step.execute()?;
/// }
/// assert_eq!(double.run(&[])?[0].to_f32(), [10.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct State {
    name: String,
    var: Var,
    buffer: Buffer,
    device: &'static str,
}

impl State {
    /// A state of half-precision zeros in the memory of `device`. Its name is that of its leaf, and what a program that was
    /// read from a file knows it by.
    #[track_caller]
    pub fn new(device: impl AsRef<dyn Device>, name: &str, shape: Shape) -> Result<State, RunError> {
        let ty = TensorType::f16(shape);
        let var = Var::described_leaf(ty, Role::State, f64::INFINITY, name);
        var.check().map_err(|e| RunError::Compile(crate::passes::PassError::from(e).into()))?;
        State::of(device, &var)
    }

    /// The state of a leaf of state, or of a parameter.
    ///
    /// # Panics
    /// If it is neither.
    pub fn of(device: impl AsRef<dyn Device>, leaf: &Var) -> Result<State, RunError> {
        let name = match leaf.op() {
            Op::Input(Input { role, name, .. }) if role.is_kept() => name,
            _ => panic!("state: {leaf:?} is no leaf of state, and no parameter"),
        };
        let device = device.as_ref();
        let buffer = device.allocate(leaf.ty())?;
        Ok(State { name: name.clone(), var: leaf.clone(), buffer, device: device.title() })
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The leaf that graphs read.
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Its memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Gives it these values, which are rounded to half precision.
    pub fn write(&self, values: Feed<'_>) -> Result<(), RunError> {
        let (want, got) = (self.buffer.ty().shape, values.len());
        let fails = |why: String| RunError::State { name: self.name.clone(), why };
        if let Some(why) = self.buffer.refuses(values) {
            return Err(fails(why));
        }
        let written = self.buffer.write(values);
        let why = |_| fails(format!("takes {} real values of shape {want}, got {got}", want.count()));
        written.map(|_| ()).map_err(why)
    }

    /// Its values, in half precision.
    pub fn read(&self) -> Result<Tensor, RunError> {
        Ok(half(&self.buffer)?)
    }

    fn leaf(&self) -> u64 {
        match self.var.op() {
            Op::Input(leaf) => leaf.id,
            _ => unreachable!("states have leaves"),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({:?}, {}, on {})", self.name, self.buffer.ty(), self.device)
    }
}

/// A copy of what a buffer holds.
fn half(buffer: &Buffer) -> Result<Tensor, DeviceError> {
    let ty = buffer.ty();
    let mut bytes = AlignedBytes::try_zeroed(ty.bytes()).ok_or(DeviceError::Memory { need: ty.bytes() })?;
    buffer.read_halves(bytes.as_mut_slice());
    Ok(Tensor::new(DType::F16, ty.shape, Bytes::new(bytes)).expect("invariant: one value per element"))
}

/// What becomes of a state.
pub(super) struct Carried {
    feed: usize,
    /// The segment that computes it, and as which of its outputs.
    source: (usize, usize),
    /// Its number among the outputs of the plan.
    output: usize,
    /// Whether the program leaves it in the state's buffer when it is done. Else it lies in a buffer of its own, whose memory the
    /// state takes over when all programs are done: only then is it sure that none reads the old value, and that none was
    /// stopped.
    direct: bool,
}

impl Session {
    /// Says how state reaches its buffers. Inputs and outputs have theirs.
    pub(super) fn carry(&mut self) -> Result<(), RunError> {
        let mut all: Vec<Carried> = Vec::new();
        for (feed, output) in self.plan.clone().carried() {
            let source = self.produced(output).expect("invariant: what is carried is computed");
            let read = self.plan.segments.iter().any(|s| s.inputs.contains(&Source::Feed(feed)));
            let direct = read && self.plan.segments.len() == 1;
            if direct {
                let state = self.inputs[feed].clone().expect("invariant: it is read");
                self.move_output(source, output, &state)?;
            }
            all.push(Carried { feed, source, output, direct });
        }
        self.carried = all;
        Ok(())
    }

    /// The feed that becomes what a segment computes.
    pub(super) fn becomes(&self, source: (usize, usize)) -> Option<usize> {
        self.carried.iter().find(|carried| carried.source == source).map(|carried| carried.feed)
    }

    /// Binds another buffer to a state that runs change: where it is read and where it is written.
    pub(super) fn rebind(&mut self, feed: usize, buffer: &Buffer) -> Result<(), RunError> {
        let direct = self.carried.iter().find(|c| c.feed == feed && c.direct);
        let direct = direct.map(|carried| (carried.source, carried.output));
        let Some(old) = self.inputs[feed].clone() else { return Ok(()) };
        // What runs write after all programs are done goes there however it is read.
        self.move_input(feed, &old, buffer)?;
        if let Some((source, output)) = direct
            && let Err(error) = self.move_output(source, output, buffer)
        {
            self.move_input(feed, buffer, &old)?;
            return Err(error);
        }
        Ok(())
    }

    /// Brings what becomes of state to its buffers, when all programs are done.
    pub(super) fn deliver(&mut self) {
        for carried in self.carried.iter().filter(|carried| !carried.direct) {
            let (segment, output) = carried.source;
            let state = self.inputs[carried.feed].as_ref().expect("invariant: state has a buffer");
            self.copied += state.take_over(&self.results[segment][output]) as u64;
        }
    }

    /// Reads and changes this state from now on, in the place of the leaf that it stands for: its own, or, in a program
    /// that was read from a file, the one of its name.
    pub fn bind_state(&mut self, state: &State) -> Result<(), RunError> {
        let fails = |why: String| RunError::State { name: state.name.clone(), why };
        if state.device != self.device {
            return Err(fails(format!("lies on {} and the program runs on {}", state.device, self.device)));
        }
        let own = self.plan.feeds.iter().position(|feed| feed.leaf == state.leaf());
        let feed = own.or_else(|| {
            let named = |at: &usize| self.plan.feeds[*at].role.is_kept();
            self.plan.feed(&state.name).filter(named)
        });
        let Some(feed) = feed else {
            let known: Vec<String> = self.states().map(|(name, _)| name).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(fails(format!("is not read or changed by this program, which has {known}")));
        };
        let (want, got) = (self.plan.feeds[feed].ty, state.buffer.ty());
        if want != got {
            return Err(fails(format!("is {got} and the program takes {want}")));
        }
        self.bind_input(feed, &state.buffer)
    }

    /// State and parameters that the program reads or changes, by name, or by number where it has none, with their memory.
    pub fn states(&self) -> impl Iterator<Item = (String, &Buffer)> {
        let feeds = self.plan.feeds.iter().zip(&self.inputs).enumerate();
        let kept = feeds.filter(|(_, (feed, _))| feed.role.is_kept());
        kept.filter_map(|(at, (feed, buffer))| {
            let name = if feed.name.is_empty() { at.to_string() } else { feed.name.clone() };
            Some((name, buffer.as_ref()?))
        })
    }

    /// What all state holds, by name.
    pub fn snapshot(&self) -> Result<Vec<(String, Tensor)>, RunError> {
        self.states().map(|(name, buffer)| Ok((name, half(buffer)?))).collect()
    }

    /// Gives all state these values, of a [snapshot](Session::snapshot): all of it or, where one is missing, unknown or of
    /// another shape, none.
    pub fn restore(&mut self, values: &[(String, Tensor)]) -> Result<(), RunError> {
        let fails = |name: &str, why: String| Err(RunError::State { name: name.to_owned(), why });
        let states: Vec<(String, Buffer)> = self.states().map(|(name, b)| (name, b.clone())).collect();
        if let Some((name, _)) = values.iter().find(|(name, _)| states.iter().all(|(own, _)| own != name)) {
            return fails(name, "is not read or changed by this program".into());
        }
        let mut pairs = Vec::new();
        for (name, buffer) in &states {
            let Some((_, tensor)) = values.iter().find(|(given, _)| given == name) else {
                return fails(name, "has no value among those given".into());
            };
            let (want, got) = (buffer.ty().shape, tensor.shape());
            if want != got || !tensor.dtype().is_float() {
                return fails(name, format!("is fp16{want}, got {}{got}", tensor.dtype()));
            }
            // Bytes of a file may lie where their type may not.
            let widened = if feed_of(tensor).is_none() { tensor.to_f32() } else { Vec::new() };
            pairs.push((name, buffer, tensor, widened));
        }
        let feed = |tensor, widened| feed_of(tensor).unwrap_or(Feed::F32(widened));
        for (name, buffer, tensor, widened) in &pairs {
            if let Some(why) = buffer.refuses(feed(*tensor, widened)) {
                return fails(name, why);
            }
        }
        for (_, buffer, tensor, widened) in &pairs {
            buffer.write(feed(*tensor, widened)).expect("invariant: the count and the type are right");
        }
        Ok(())
    }

    /// How many bytes runs have copied so far, beside what ops compute: none for state, unless another language looks at
    /// its memory.
    pub fn copied(&self) -> u64 {
        self.copied + self.programs.iter().map(|program| program.copied()).sum::<u64>()
    }

    fn move_input(&mut self, feed: usize, old: &Buffer, new: &Buffer) -> Result<(), RunError> {
        self.exchange(Port::Input(feed), Source::Feed(feed), old, new)?;
        self.inputs[feed] = Some(new.clone());
        Ok(())
    }

    /// Binds `new` where a segment writes the output that is number `index` of the plan.
    pub(super) fn move_output(
        &mut self,
        (segment, output): (usize, usize),
        index: usize,
        new: &Buffer,
    ) -> Result<(), RunError> {
        let old = self.results[segment][output].clone();
        self.exchange(Port::Output(index), Source::Segment { segment, output }, &old, new)?;
        self.results[segment][output] = new.clone();
        Ok(())
    }
}
