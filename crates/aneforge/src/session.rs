//! Running a plan on a device.

use crate::compile::CompileError;
use crate::device::{Device, DeviceError, Kernel, Overflow};
use crate::ir::numerics::Numerics;
use crate::ir::types::TensorType;
use crate::plan::{Plan, Source};
use aneforge_tensor::{AlignedBytes, Bytes, DType, Shape, Tensor, f16};
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A run could not be set up or done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The wrong number of arrays. The caller's fault.
    #[error("the model takes {want} input{s}, got {got}", s = if *want == 1 { "" } else { "s" })]
    Count {
        /// How many it takes.
        want: usize,
        /// How many came.
        got: usize,
    },
    /// An array of the wrong shape. The caller's fault.
    #[error("input {index} must have shape {want}, got {got:?}")]
    Shape {
        /// Which input.
        index: usize,
        /// The shape it takes.
        want: Shape,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// An array of the wrong element type. The caller's fault.
    #[error("input {index} is a {want} port and takes {takes}, got {got}", takes = takes(*want))]
    DType {
        /// Which input.
        index: usize,
        /// The port's type.
        want: DType,
        /// The type that came.
        got: DType,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The graph did not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

fn takes(port: DType) -> &'static str {
    match port {
        DType::U8 => "integers from 0 to 255",
        _ => "real numbers",
    }
}

/// How a session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Which departures from IEEE 754 to model on the host; by default those of the target's family.
    pub numerics: Option<Numerics>,
}

/// A plan on a device, ready to run.
///
/// ```
/// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
/// let x = Var::input(Shape::new(&[4])?);
/// let plan = compile(&[x.relu()], &CompileOptions::default())?;
/// let mut session = Session::new(plan, &*device::named("host")?, Default::default())?;
/// let feed = Tensor::from_slice(Shape::new(&[4])?, &[-1.0f32, 0.5, 2.0, -3.0])?;
/// assert_eq!(session.run(&[feed])?[0].to_f32(), [0.0, 0.5, 2.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    plan: Arc<Plan>,
    /// One per segment.
    kernels: Vec<Box<dyn Kernel>>,
    device: String,
    numerics: Numerics,
    /// For each feed of the plan, the first segment that reads it and its port there; `None` when none does.
    ports: Vec<Option<(usize, usize)>>,
    /// Whether an overflow was logged.
    warned: bool,
}

impl Session {
    /// Loads `plan` into `device`.
    pub fn new(
        plan: impl Into<Arc<Plan>>,
        device: &dyn Device,
        options: SessionOptions,
    ) -> Result<Session, RunError> {
        let plan = plan.into();
        let numerics = options.numerics.unwrap_or(Numerics::Ane(plan.target.family()));
        let kernels: Result<_, DeviceError> =
            plan.segments.iter().map(|segment| device.load(segment, numerics)).collect();
        let reads = |feed: usize| {
            plan.segments.iter().enumerate().find_map(|(at, segment)| {
                let port = segment.inputs.iter().position(|&s| s == Source::Feed(feed))?;
                Some((at, port))
            })
        };
        let ports = (0..plan.feeds.len()).map(reads).collect();
        Ok(Session {
            kernels: kernels?,
            device: device.name().to_owned(),
            numerics,
            ports,
            plan,
            warned: false,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The device it runs on: `host` or `ane`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The numerics it runs with.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// The steps and the memory it runs with.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (i, kernel) in self.kernels.iter().enumerate() {
            if self.kernels.len() > 1 {
                text += &format!("segment {i}: ");
            }
            text += &kernel.describe();
        }
        text
    }

    /// Writes an input: checked, converted to the port's type and rounded once.
    pub fn set(&mut self, index: usize, feed: Feed<'_>, shape: &[usize]) -> Result<(), RunError> {
        let want = self
            .plan
            .feeds
            .get(index)
            .ok_or(RunError::Count { want: self.plan.feeds.len(), got: index + 1 })?
            .ty;
        if shape != want.shape.dims() || feed.len() != want.shape.count() {
            return Err(RunError::Shape { index, want: want.shape, got: shape.to_vec() });
        }
        let mismatch = || RunError::DType { index, want: want.dtype, got: feed.dtype() };
        match (want.dtype, &feed) {
            (DType::U8, Feed::U8(_)) | (DType::F16, _) => {}
            _ => return Err(mismatch()),
        }
        let Some((segment, port)) = self.ports[index] else { return Ok(()) };
        let port = self.kernels[segment].feed(port);
        match feed {
            Feed::U8(values) if want.dtype == DType::U8 => port.copy_from_slice(values),
            Feed::U8(values) => convert(port, values, |&v| f16::from_f32(f32::from(v))),
            Feed::F16(values) => port.copy_from_slice(bytemuck::cast_slice(values)),
            Feed::F32(values) => bytemuck::cast_slice_mut::<u8, f16>(port).convert_from_f32_slice(values),
            Feed::F64(values) => convert(port, values, |&v| aneforge_tensor::round_f16(v)),
        }
        Ok(())
    }

    /// Runs with what the ports hold. The first overflow of a session is also logged, as a warning.
    pub fn execute(&mut self) -> Result<(), RunError> {
        for segment in 0..self.kernels.len() {
            self.hand_over(segment);
            self.kernels[segment].execute()?;
        }
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

    /// Nodes that have made infinities or NaN out of finite operands so far. Where an operand was not finite, only
    /// elementwise ops are looked into.
    ///
    /// ```
    /// use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
    /// let x = Var::input(Shape::new(&[2])?);
    /// let plan = compile(&[x.exp()], &CompileOptions::default())?;
    /// let mut session = Session::new(plan, &*device::named("host")?, Default::default())?;
    /// session.run(&[Tensor::from_slice(Shape::new(&[2])?, &[1.0f32, 20.0])?])?;
    /// let overflow = session.overflows().next().ok_or("nothing overflowed")?;
    /// assert_eq!((overflow.op, overflow.values, overflow.calls), ("exp", 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overflows(&self) -> impl Iterator<Item = &Overflow> {
        self.kernels.iter().flat_map(|kernel| kernel.overflows())
    }

    /// Copies what a segment reads from earlier ones into its ports.
    fn hand_over(&mut self, segment: usize) {
        let (earlier, later) = self.kernels.split_at_mut(segment);
        for (port, source) in self.plan.segments[segment].inputs.iter().enumerate() {
            match *source {
                Source::Segment { segment: from, output } => {
                    later[0].feed(port).copy_from_slice(bytemuck::cast_slice(earlier[from].output(output)));
                }
                Source::Feed(feed) => match self.ports[feed] {
                    Some((first, at)) if first < segment => {
                        later[0].feed(port).copy_from_slice(earlier[first].feed(at));
                    }
                    _ => {}
                },
            }
        }
    }

    /// The type of an output.
    pub fn output_type(&self, index: usize) -> Option<TensorType> {
        self.plan.outputs.get(index).map(|(ty, _)| *ty)
    }

    /// The values of an output, valid until the next run.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn output(&self, index: usize) -> &[f16] {
        assert!(index < self.plan.outputs.len(), "output {index} of {}", self.plan.outputs.len());
        match self.plan.outputs[index].1 {
            Source::Segment { segment, output } => self.kernels[segment].output(output),
            Source::Feed(_) => unreachable!("outputs are computed"),
        }
    }

    /// Copies an output in single precision.
    ///
    /// # Panics
    /// If there is no such output or `out` has another length.
    pub fn read(&self, index: usize, out: &mut [f32]) {
        self.output(index).convert_to_f32_slice(out);
    }

    /// The port of an input, to be written in place; `None` when no op reads it or it takes bytes.
    pub fn input_mut(&mut self, index: usize) -> Option<&mut [f16]> {
        let (segment, port) = (*self.ports.get(index)?)?;
        if self.plan.feeds[index].ty.dtype != DType::F16 {
            return None;
        }
        Some(bytemuck::cast_slice_mut(self.kernels[segment].feed(port)))
    }

    /// Runs once: inputs in the order in which they were made, outputs in single precision.
    pub fn run(&mut self, feeds: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        if feeds.len() != self.plan.feeds.len() {
            return Err(RunError::Count { want: self.plan.feeds.len(), got: feeds.len() });
        }
        for (index, tensor) in feeds.iter().enumerate() {
            let feed = Feed::of(tensor);
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

    /// The outputs in single precision.
    pub fn outputs(&self) -> Result<Vec<Tensor>, RunError> {
        let collect = |(index, (ty, _)): (usize, &(TensorType, Source))| {
            let need = ty.shape.count() * size_of::<f32>();
            let mut bytes = AlignedBytes::try_zeroed(need).ok_or(DeviceError::Memory { need })?;
            self.read(index, bytes.as_mut_slice());
            Ok(Tensor::new(DType::F32, ty.shape, Bytes::new(bytes))
                .expect("invariant: one value per element"))
        };
        self.plan.outputs.iter().enumerate().map(collect).collect()
    }
}

fn convert<T>(port: &mut [u8], values: &[T], f: impl Fn(&T) -> f16) {
    for (to, from) in bytemuck::cast_slice_mut::<u8, f16>(port).iter_mut().zip(values) {
        *to = f(from);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} ops, target {}, device {})", self.plan.n_ops, self.plan.target, self.device)
    }
}

/// Values for one input.
#[derive(Clone, Copy, Debug)]
pub enum Feed<'a> {
    /// Half precision, as it is.
    F16(&'a [f16]),
    /// Single precision, rounded.
    F32(&'a [f32]),
    /// Double precision, rounded once.
    F64(&'a [f64]),
    /// Bytes: as they are for an image port, converted for a half-precision one.
    U8(&'a [u8]),
}

impl<'a> Feed<'a> {
    fn of(tensor: &'a Tensor) -> Option<Feed<'a>> {
        match tensor.dtype() {
            DType::F16 => tensor.as_slice().map(Feed::F16),
            DType::F32 => tensor.as_slice().map(Feed::F32),
            DType::F64 => tensor.as_slice().map(Feed::F64),
            DType::U8 => Some(Feed::U8(tensor.bytes())),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Feed::F16(v) => v.len(),
            Feed::F32(v) => v.len(),
            Feed::F64(v) => v.len(),
            Feed::U8(v) => v.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Feed::F16(_) => DType::F16,
            Feed::F32(_) => DType::F32,
            Feed::F64(_) => DType::F64,
            Feed::U8(_) => DType::U8,
        }
    }
}
