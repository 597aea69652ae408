//! Running a plan on a device.

mod carry;
mod error;
mod fed;
mod submit;

use carry::Carried;
pub use carry::State;
pub use error::RunError;
pub use fed::Unheld;
use fed::feed_of;
pub use submit::{Done, Running};

use crate::device::{Buffer, Device, DeviceError, Feed, Loaded, Overflow, Port, Receipt, Values, ValuesMut};
use crate::ir::graph::InputInfo;
use crate::ir::numerics::Numerics;
use crate::ir::ops::leaf::Role;
use crate::ir::types::TensorType;
use crate::plan::{Plan, Source};
use crate::profile::Profile;
use aneforge_tensor::{AlignedBytes, Bytes, DType, Tensor};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A plan on a device, ready to run.
///
/// ```
/// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
/// let x = Var::input(Shape::new(&[4])?);
/// let plan = compile(&[x.relu()], &CompileOptions::default())?;
/// let mut session = Session::new(plan, device::named("host")?)?;
/// let feed = Tensor::from_slice(Shape::new(&[4])?, &[-1.0f32, 0.5, 2.0, -3.0])?;
/// assert_eq!(session.run(&[feed])?[0].to_f32(), [0.0, 0.5, 2.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Feeds and results lie in [buffers](Buffer) of the device, one for each unless the caller binds others: so sessions share
/// memory, and an input and an output that are bound to one buffer are state.
///
/// ```
/// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
/// let x = Var::input(Shape::new(&[1])?);
/// let plan = compile(&[x.adds(1.0)], &CompileOptions::default())?;
/// let mut counter = Session::new(plan, device::named("host")?)?;
/// let state = counter.input_buffer(0).ok_or("it is read")?.clone();
/// counter.bind_output(0, &state)?;
/// for _ in 0..3 {
///     counter.execute()?;
/// }
/// assert_eq!(counter.output(0)[0].to_f32(), 3.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    plan: Arc<Plan>,
    /// One per segment.
    programs: Vec<Box<dyn Loaded>>,
    device: &'static str,
    numerics: Numerics,
    /// One per feed of the plan; `None` where no segment reads it.
    inputs: Vec<Option<Buffer>>,
    /// Of every segment, one per output.
    results: Vec<Vec<Buffer>>,
    /// State that runs change.
    carried: Vec<Carried>,
    /// Bytes of it that were copied.
    copied: u64,
    /// Whether an overflow was logged.
    warned: bool,
    /// Inputs that were fed finite values which half precision cannot hold.
    unheld: Vec<Unheld>,
}

impl Session {
    /// Loads `plan` into `device`: a reference to one, or what [`device::named`](crate::device::named) gives.
    pub fn new(plan: impl Into<Arc<Plan>>, device: impl AsRef<dyn Device>) -> Result<Session, RunError> {
        let (plan, device) = (plan.into(), device.as_ref());
        let target = plan.target;
        let loaded = plan.segments.iter().map(|segment| device.load(segment, target));
        // First of all, as loading finds out whether there is memory for all of it.
        let programs = loaded.collect::<Result<Vec<_>, DeviceError>>()?;
        let read = |at: usize| {
            plan.carries.contains(&at) || plan.segments.iter().any(|s| s.inputs.contains(&Source::Feed(at)))
        };
        let feeds = plan.feeds.iter().enumerate();
        let input = |(at, feed): (usize, &InputInfo)| read(at).then(|| device.allocate(feed.ty)).transpose();
        let inputs: Vec<Option<Buffer>> = feeds.map(input).collect::<Result<_, DeviceError>>()?;
        let outputs = plan.segments.iter().map(|segment| {
            let graph = &segment.graph;
            graph.outputs().iter().map(|&id| device.allocate(graph.node(id).ty)).collect()
        });
        let results: Vec<Vec<Buffer>> = outputs.collect::<Result<_, DeviceError>>()?;
        let (device, numerics) = (device.title(), device.numerics(target));
        let mut session = Session {
            programs,
            device,
            numerics,
            inputs,
            results,
            plan,
            carried: Vec::new(),
            copied: 0,
            warned: false,
            unheld: Vec::new(),
        };
        session.bind_all()?;
        session.carry()?;
        Ok(session)
    }

    fn bind_all(&mut self) -> Result<(), DeviceError> {
        for at in 0..self.inputs.len() {
            if let Some(buffer) = self.inputs[at].clone() {
                self.bind_source(Source::Feed(at), &buffer)?;
            }
        }
        for segment in 0..self.results.len() {
            for output in 0..self.results[segment].len() {
                let buffer = self.results[segment][output].clone();
                self.bind_source(Source::Segment { segment, output }, &buffer)?;
            }
        }
        Ok(())
    }

    /// Binds `buffer` to every port that a value of the plan goes through.
    fn bind_source(&mut self, source: Source, buffer: &Buffer) -> Result<(), DeviceError> {
        if let Source::Segment { segment, output } = source {
            self.programs[segment].bind(Port::Output(output), buffer)?;
        }
        for (segment, program) in self.plan.segments.iter().zip(&mut self.programs) {
            for (port, _) in segment.inputs.iter().enumerate().filter(|(_, from)| **from == source) {
                program.bind(Port::Input(port), buffer)?;
            }
        }
        Ok(())
    }

    /// The buffer of an input; `None` when no op reads it.
    pub fn input_buffer(&self, index: usize) -> Option<&Buffer> {
        self.inputs.get(index)?.as_ref()
    }

    /// The buffer of an output; `None` when there is no such output.
    pub fn output_buffer(&self, index: usize) -> Option<&Buffer> {
        let (segment, output) = self.produced(index)?;
        let state = self.becomes((segment, output)).and_then(|feed| self.inputs[feed].as_ref());
        Some(state.unwrap_or(&self.results[segment][output]))
    }

    /// Reads an input from `buffer` from now on, and writes there what a run makes of it if it is state. What no op reads is
    /// not bound.
    pub fn bind_input(&mut self, index: usize, buffer: &Buffer) -> Result<(), RunError> {
        if index >= self.inputs.len() {
            return Err(RunError::Count { want: self.inputs.len(), got: index + 1 });
        }
        self.rebind(index, buffer)
    }

    /// Writes an output to `buffer` from now on; if state becomes it, that is read from there too.
    pub fn bind_output(&mut self, index: usize, buffer: &Buffer) -> Result<(), RunError> {
        let Some((segment, output)) = self.produced(index) else {
            let why = format!("there are {} outputs", self.plan.outputs.len());
            return Err(DeviceError::Bind { port: Port::Output(index), why }.into());
        };
        match self.becomes((segment, output)) {
            Some(feed) => self.rebind(feed, buffer),
            None => self.move_output((segment, output), index, buffer),
        }
    }

    /// Why a value must not go through `buffer`, if it must not: another value is written into it, or an input that is
    /// still to be read when it is written. One program sees to its own ports; this sees to those of several.
    fn clash(&self, source: Source, buffer: &Buffer) -> Option<String> {
        let same = |other: &Buffer| other.number() == buffer.number();
        let results = self.results.iter().enumerate();
        let results = results.flat_map(|(s, all)| all.iter().enumerate().map(move |(o, b)| (s, o, b)));
        let mut writers = results.filter(|(_, _, other)| same(other)).map(|(s, o, _)| (s, o));
        let last_reader = |feed: usize| {
            self.plan.segments.iter().rposition(|segment| segment.inputs.contains(&Source::Feed(feed)))
        };
        let late = |feed: usize, written: usize| {
            last_reader(feed).filter(|read| *read > written).map(|read| {
                format!(
                    "segment {written} writes what segment {read} is to read of input {feed}; bind another buffer \
                     and copy"
                )
            })
        };
        match source {
            Source::Feed(feed) => writers.find_map(|(segment, _)| late(feed, segment)),
            Source::Segment { segment, output } => {
                if writers.any(|writer| writer != (segment, output)) {
                    return Some("another output is written into this buffer; bind one of its own".into());
                }
                let feeds = self.inputs.iter().enumerate();
                let mut state = feeds.filter(|(_, other)| other.as_ref().is_some_and(same));
                state.find_map(|(feed, _)| late(feed, segment))
            }
        }
    }

    /// Binds `new` in the place of `old`, on every port or on none.
    fn exchange(&mut self, port: Port, source: Source, old: &Buffer, new: &Buffer) -> Result<(), RunError> {
        if let Some(why) = self.clash(source, new) {
            return Err(DeviceError::Bind { port, why }.into());
        }
        let bound = self.bind_source(source, new);
        if bound.is_err() {
            self.bind_source(source, old)?;
        }
        Ok(bound?)
    }

    /// Which segment computes an output of the plan, and as which of its own.
    fn produced(&self, index: usize) -> Option<(usize, usize)> {
        match self.plan.outputs.get(index)?.1 {
            Source::Segment { segment, output } => Some((segment, output)),
            Source::Feed(_) => unreachable!("outputs are computed"),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The device it runs on: `host`, `ane` or `ane (stand-in)`.
    pub fn device(&self) -> &str {
        self.device
    }

    /// The numerics it runs with.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// The steps and the memory it runs with.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (i, program) in self.programs.iter().enumerate() {
            if self.programs.len() > 1 {
                text += &format!("segment {i}: ");
            }
            text += &program.describe();
        }
        text
    }

    /// Where each segment runs, and how that is known.
    pub fn placement(&self) -> Vec<Receipt> {
        self.programs.iter().map(|program| program.receipt()).collect()
    }

    /// Runs with what the ports hold. The first overflow of a session is also logged, as a warning.
    pub fn execute(&mut self) -> Result<(), RunError> {
        self.programs.iter_mut().try_for_each(|program| program.execute())?;
        self.deliver();
        let first = if self.warned { None } else { self.overflows().next().cloned() };
        if let Some(first) = first {
            tracing::warn!("{first}; {}", Overflow::REMEDY);
            self.warned = true;
        }
        Ok(())
    }

    /// Runs with what the ports hold, unless and until `stop` is set, from another thread; the error is then
    /// [`DeviceError::Stopped`], and what the outputs hold means nothing.
    pub fn execute_until(&mut self, stop: &Arc<AtomicBool>) -> Result<(), RunError> {
        aneforge_kernels::threads::stoppable(stop, || self.execute())
    }

    /// Runs `calls` times on what was fed last, after a few calls that are not counted, and says where the time goes.
    /// Devices that cannot tell have no steps in it. State is afterwards what it was before.
    pub fn profile(&mut self, calls: usize) -> Result<Profile, RunError> {
        let calls = calls.max(1);
        let before = self.snapshot()?;
        for _ in 0..calls.div_ceil(5) {
            self.execute()?;
        }
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            let call = self.programs.iter_mut().map(|program| program.profile());
            times.push(call.collect::<Result<Vec<_>, DeviceError>>()?);
            self.deliver();
        }
        self.restore(&before)?;
        let roof = self.programs.first().and_then(|program| program.roof());
        Ok(Profile::new(self.device.into(), &times, roof))
    }

    /// Nodes that have made infinities or NaN out of finite operands so far. Where an operand was not finite, only
    /// elementwise ops are looked into.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
    /// let x = Var::input(Shape::new(&[2])?);
    /// let plan = compile(&[x.exp()], &CompileOptions::default())?;
    /// let mut session = Session::new(plan, device::named("host")?)?;
    /// session.run(&[Tensor::from_slice(Shape::new(&[2])?, &[1.0f32, 20.0])?])?;
    /// let overflow = session.overflows().next().ok_or("nothing overflowed")?;
    /// assert_eq!((overflow.op, overflow.values, overflow.calls), ("exp", 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overflows(&self) -> impl Iterator<Item = &Overflow> {
        self.programs.iter().flat_map(|program| program.overflows())
    }

    /// The type of an output.
    pub fn output_type(&self, index: usize) -> Option<TensorType> {
        self.plan.outputs.get(index).map(|(ty, _)| *ty)
    }

    /// The values of an output where they lie. The session does not run while this is held.
    ///
    /// # Panics
    /// If there is no such output, or the device keeps it with gaps.
    pub fn output(&self, index: usize) -> Values<'_> {
        self.result(index).values().expect("outputs are half precision, and without gaps on the host")
    }

    /// Copies an output in single precision.
    ///
    /// # Panics
    /// If there is no such output or `out` has another length.
    pub fn read(&self, index: usize, out: &mut [f32]) {
        self.result(index).read(out);
    }

    /// The same, as long as `go_on` says so, which is asked every few milliseconds; whether it did to the end.
    ///
    /// # Panics
    /// If there is no such output or `out` has another length.
    pub fn read_while(&self, index: usize, out: &mut [f32], go_on: &mut dyn FnMut() -> bool) -> bool {
        self.result(index).read_while(out, go_on)
    }

    fn result(&self, index: usize) -> &Buffer {
        let count = self.plan.outputs.len();
        self.output_buffer(index).unwrap_or_else(|| panic!("output {index} of {count}"))
    }

    /// The values of an input, to be written in place; `None` when no op reads it or it takes bytes.
    pub fn input_mut(&mut self, index: usize) -> Option<ValuesMut<'_>> {
        self.input_buffer(index)?.values_mut()
    }

    /// Runs once with inputs by name: [`Plan::feed`] says which there are. Outputs in single precision.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Session, Shape, Tensor, TensorType, Var, compile, device};
    /// let [a, b] = ["a", "b"].map(|name| Var::named_input(TensorType::f16(Shape::SCALAR), name));
    /// let plan = compile(&[&a - &b], &CompileOptions::default())?;
    /// let mut session = Session::new(plan, device::named("host")?)?;
    /// let difference = session.run_named(&[("b", Tensor::scalar(1.0f32)), ("a", Tensor::scalar(3.0f32))])?;
    /// assert_eq!(difference[0].to_f32(), [2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Every input that is a [`Role::Feed`] is to be given; parameters and state may be, and else keep what they hold.
    pub fn run_named(&mut self, feeds: &[(&str, Tensor)]) -> Result<Vec<Tensor>, RunError> {
        let mut given: Vec<Option<&Tensor>> = vec![None; self.plan.feeds.len()];
        let names = || self.plan.feeds.iter().enumerate();
        let name = |(at, feed): (usize, &InputInfo)| match &feed.name {
            none if none.is_empty() => at.to_string(),
            name => name.clone(),
        };
        for (key, tensor) in feeds {
            let Some(at) = names().position(|feed| name(feed) == *key) else {
                let known = names().map(name).collect::<Vec<_>>().join(", ");
                return Err(RunError::Name { name: (*key).to_owned(), known });
            };
            if given[at].replace(tensor).is_some() {
                return Err(RunError::Times { name: (*key).to_owned(), times: "twice" });
            }
        }
        if let Some(feed) = names().find(|(at, feed)| given[*at].is_none() && feed.role == Role::Feed) {
            return Err(RunError::Times { name: name(feed), times: "not at all" });
        }
        let given: Vec<_> =
            given.into_iter().enumerate().filter_map(|(at, given)| Some((at, given?))).collect();
        self.run_with(&given)
    }

    /// Runs once: inputs in the order in which they were made, outputs in single precision. Parameters and state are no
    /// part of `feeds` and keep what they hold: what was [set](Session::set) or bound, zeros before.
    ///
    /// ```
    /// use aneforge::ir::ops::leaf::Role;
    /// use aneforge::{CompileOptions, Session, Shape, Tensor, TensorType, Var, compile, device};
    /// let scalar = TensorType::f16(Shape::new(&[1])?);
    /// let (x, total) = (Var::leaf(scalar, Role::Feed), Var::leaf(scalar, Role::State));
    /// let plan = compile(&[&total + &x], &CompileOptions::default())?;
    /// let mut sum = Session::new(plan, device::named("host")?)?;
    /// let state = sum.input_buffer(1).ok_or("it is read")?.clone();
    /// sum.bind_output(0, &state)?;
    /// for x in [1.0f32, 2.0, 3.0] {
    ///     sum.run(&[Tensor::from_slice(Shape::new(&[1])?, &[x])?])?;
    /// }
    /// assert_eq!(sum.output(0)[0].to_f32(), 6.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(&mut self, feeds: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let inputs = self.plan.feeds.iter().enumerate();
        let fed: Vec<usize> =
            inputs.filter(|(_, feed)| feed.role == Role::Feed).map(|(index, _)| index).collect();
        if feeds.len() != fed.len() {
            return Err(RunError::Count { want: fed.len(), got: feeds.len() });
        }
        self.run_with(&fed.into_iter().zip(feeds).collect::<Vec<_>>())
    }

    /// The same with a value for every input, parameters and state too.
    pub fn run_all(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        if inputs.len() != self.plan.feeds.len() {
            return Err(RunError::Count { want: self.plan.feeds.len(), got: inputs.len() });
        }
        self.run_with(&inputs.iter().enumerate().collect::<Vec<_>>())
    }

    fn run_with(&mut self, given: &[(usize, &Tensor)]) -> Result<Vec<Tensor>, RunError> {
        for &(index, tensor) in given {
            let feed = feed_of(tensor);
            let widened;
            let feed = match feed {
                Some(feed) => feed,
                None if tensor.dtype() == DType::U8 => Feed::U8(tensor.bytes()),
                None => {
                    widened = tensor.to_f32();
                    Feed::F32(&widened)
                }
            };
            self.set(index, feed, tensor.shape().dims())?;
        }
        self.execute()?;
        self.outputs()
    }

    /// What is returned, in single precision.
    pub fn outputs(&self) -> Result<Vec<Tensor>, RunError> {
        let collect = |(index, (ty, _)): (usize, &(TensorType, Source))| {
            let need = ty.shape.count() * size_of::<f32>();
            let mut bytes = AlignedBytes::try_zeroed(need).ok_or(DeviceError::Memory { need })?;
            self.read(index, bytes.as_mut_slice());
            Ok(Tensor::new(DType::F32, ty.shape, Bytes::new(bytes))
                .expect("invariant: one value per element"))
        };
        self.plan.returned().iter().enumerate().map(collect).collect()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ops, target, numerics) = (self.plan.n_ops, self.plan.target, self.numerics);
        write!(f, "Session({ops} ops, target {target}, device {}, numerics {numerics})", self.device)
    }
}
