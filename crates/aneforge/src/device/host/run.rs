//! Running a host plan: slots of memory, and one kernel call per step. Nothing is allocated after loading,
//! but by ops that run as their scalar definition, and by convolutions with a computed weight.

use crate::device::host::layers;
use crate::device::host::overflow::Overflows;
use crate::device::host::packs::Packs;
use crate::device::host::plan::{Finish, HostPlan, Place, Step};
use crate::device::host::step::{Work, prepare};
use crate::device::{DeviceError, Kernel, Overflow};
use crate::ir::graph::Graph;
use crate::ir::numerics::Numerics;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use aneforge_kernels::threads::stopped;
use aneforge_kernels::{
    Bias, Epilogue, Kernels, Scratch, Stores, View, Watch, channel, conv, convert, gather, gemm, layout, map,
    pool, reduce, softmax,
};
use aneforge_tensor::{AlignedBytes, DType, Tensor, f16};

pub(super) struct HostKernel {
    pub(super) plan: HostPlan,
    pub(super) work: Vec<Work>,
    pub(super) memory: Memory,
    pub(super) scratch: Scratch,
    pub(super) kernels: Kernels,
    watch: Watch,
    pub(super) overflows: Overflows,
}

/// Everything a step may read or write.
pub(super) struct Memory {
    feeds: Vec<AlignedBytes>,
    constants: Vec<Option<Constant>>,
    slots: Vec<AlignedBytes>,
}

/// A constant in half precision: shared with the graph when it already is, converted when not.
enum Constant {
    Shared(Tensor),
    Owned(AlignedBytes),
}

impl Constant {
    fn new(tensor: &Tensor) -> Result<Constant, DeviceError> {
        if tensor.as_slice::<f16>().is_some() {
            return Ok(Constant::Shared(tensor.clone()));
        }
        let mut bytes = room(tensor.shape().count() * 2)?;
        tensor.read_f16(0, bytes.as_mut_slice());
        Ok(Constant::Owned(bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Constant::Shared(tensor) => tensor.bytes(),
            Constant::Owned(bytes) => bytes,
        }
    }
}

impl Memory {
    fn bytes(&self, place: Place, ty: TensorType) -> &[u8] {
        let all: &[u8] = match place {
            Place::Feed(i) => &self.feeds[i],
            Place::Slot(i) => &self.slots[i],
            Place::Constant(i) => {
                let constant = self.constants[i as usize].as_ref();
                constant.expect("invariant: constants that steps read are loaded").bytes()
            }
        };
        &all[..ty.bytes()]
    }

    pub(super) fn half(&self, place: Place, ty: TensorType) -> &[f16] {
        bytemuck::cast_slice(self.bytes(place, ty))
    }

    fn bias(&self, step: &Step) -> Option<&[f16]> {
        step.fused.bias.map(|place| match place {
            Place::Constant(i) => {
                let constant = self.constants[i as usize].as_ref();
                bytemuck::cast_slice(constant.expect("invariant: biases are loaded").bytes())
            }
            other => unreachable!("a fused bias is a constant, not {other}"),
        })
    }
}

impl HostKernel {
    /// Loads a plan: packs its weights and takes all the memory it will need.
    pub(super) fn new(
        graph: &Graph,
        plan: HostPlan,
        kernels: Kernels,
        packs: &Packs,
    ) -> Result<HostKernel, DeviceError> {
        let values = plan.feeds.iter().map(TensorType::bytes).chain(plan.slots.bytes.iter().copied());
        let values = values.fold(0usize, usize::saturating_add);
        promised(values)?;
        let work: Vec<Work> = plan.steps.iter().map(|step| prepare(step, graph, packs)).collect();
        let mut constants: Vec<Option<Constant>> = graph.constants().iter().map(|_| None).collect();
        let mut load = |place: Place| {
            if let Place::Constant(i) = place
                && constants[i as usize].is_none()
            {
                constants[i as usize] = Some(Constant::new(&graph.constants()[i as usize])?);
            }
            Ok(())
        };
        for (step, work) in plan.steps.iter().zip(&work) {
            let packed = matches!(work, Work::Gemm(_) | Work::Conv { .. } | Work::ConvTranspose(_));
            let read = if packed { &step.inputs[..1] } else { &step.inputs[..] };
            read.iter().try_for_each(|(place, _)| load(*place))?;
            step.fused.bias.into_iter().try_for_each(&mut load)?;
        }
        plan.outputs.iter().try_for_each(|(place, _)| load(*place))?;
        let working = plan.steps.iter().zip(&work).map(|(s, w)| w.scratch(s, &kernels)).max().unwrap_or(0);
        let need = values.saturating_add(working.saturating_mul(size_of::<f32>()));
        promised(need)?;
        let memory = Memory {
            feeds: plan.feeds.iter().map(|ty| room(ty.bytes())).collect::<Result<_, _>>()?,
            constants,
            slots: plan.slots.bytes.iter().map(|&bytes| room(bytes)).collect::<Result<_, _>>()?,
        };
        let scratch = Scratch::try_with_capacity(working).ok_or(DeviceError::Memory { need })?;
        let overflows = Overflows::new(graph);
        Ok(HostKernel { plan, work, memory, scratch, kernels, watch: Watch::default(), overflows })
    }
}

/// Needs below this are not compared with what the machine has.
const SMALL: usize = 1 << 28;

/// Whether so many bytes are there. Systems promise more in parts than as a whole, and more than they have; where this
/// one says what it has, that counts.
fn promised(need: usize) -> Result<(), DeviceError> {
    let available = || {
        let said = std::fs::read_to_string("/proc/meminfo").ok()?;
        let kibibytes = said.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        kibibytes.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
    };
    let reserved = Vec::<u8>::new().try_reserve_exact(need).is_ok();
    if !reserved || (need >= SMALL && available().is_some_and(|available| need > available)) {
        return Err(DeviceError::Memory { need });
    }
    Ok(())
}

fn room(bytes: usize) -> Result<AlignedBytes, DeviceError> {
    AlignedBytes::try_zeroed(bytes).ok_or(DeviceError::Memory { need: bytes })
}

impl Kernel for HostKernel {
    fn feed(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory.feeds[index]
    }

    fn output(&self, index: usize) -> &[f16] {
        let (place, ty) = self.plan.outputs[index];
        self.memory.half(place, ty)
    }

    fn execute(&mut self) -> Result<(), DeviceError> {
        if self.plan.flush_nan {
            for (feed, ty) in self.memory.feeds.iter_mut().zip(&self.plan.feeds) {
                if ty.dtype == DType::F16 {
                    map::sanitize(&self.kernels, feed.as_mut_slice());
                }
            }
        }
        for at in 0..self.plan.steps.len() {
            let (step, work) = (&self.plan.steps[at], &self.work[at]);
            // The output leaves its slot while the step runs; no operand shares it.
            let mut slot = std::mem::take(&mut self.memory.slots[step.output]);
            let out = &mut slot[..step.ty.bytes()];
            let call = Call { step, memory: &self.memory, kernels: &self.kernels, watch: &self.watch };
            call.run(work, &mut self.scratch, out);
            self.memory.slots[step.output] = slot;
            if stopped() {
                return Err(DeviceError::Stopped);
            }
            if self.watch.take() {
                self.look_into(at);
            }
        }
        Ok(())
    }

    fn overflows(&self) -> &[Overflow] {
        self.overflows.found()
    }

    fn describe(&self) -> String {
        self.plan.to_string()
    }
}

/// One step with what it may read.
pub(super) struct Call<'a> {
    pub(super) step: &'a Step,
    pub(super) memory: &'a Memory,
    pub(super) kernels: &'a Kernels,
    /// Told of infinities and NaN that the step stores.
    pub(super) watch: &'a Watch,
}

impl<'a> Call<'a> {
    fn half(&self, index: usize) -> &'a [f16] {
        let (place, ty) = self.step.inputs[index];
        self.memory.half(place, ty)
    }

    fn truth(&self, index: usize) -> &'a [u8] {
        let (place, ty) = self.step.inputs[index];
        self.memory.bytes(place, ty)
    }

    fn extents(&self, index: usize) -> &'a [usize] {
        self.step.inputs[index].1.shape.dims()
    }

    fn four(&self, index: usize) -> [usize; 4] {
        std::array::from_fn(|axis| self.extents(index)[axis])
    }

    fn image(&self) -> [usize; 4] {
        self.four(0)
    }

    /// Elements of an operand's channel.
    fn inner(&self) -> usize {
        self.extents(0)[2..].iter().product()
    }

    fn affine(&self) -> channel::Affine<'a> {
        channel::Affine { gamma: self.half(1), beta: self.half(2) }
    }

    fn view(&self, index: usize) -> View<'a, f16> {
        View::new(self.half(index), self.extents(index))
    }

    /// What follows a sum. Departures from IEEE 754 are part of it, so that fusing changes no bit.
    fn epilogue(&self, bias: impl FnOnce(&'a [f16]) -> Bias<'a>) -> Epilogue<'a> {
        Epilogue {
            bias: self.memory.bias(self.step).map_or(Bias::None, bias),
            activation: self.step.fused.activation,
            limit: self.step.finish.limit,
            flush_nan: self.step.finish.flush_nan,
            watch: Some(self.watch),
            ..Epilogue::default()
        }
    }

    fn stores(&self) -> Stores<'a> {
        let Finish { flush_nan, watched, .. } = self.step.finish;
        Stores { flush_nan, watch: watched.then_some(self.watch) }
    }

    pub(super) fn run(&self, work: &Work, scratch: &mut Scratch, out: &mut [u8]) {
        let k = self.kernels;
        let shape = self.step.ty.shape;
        match work {
            Work::Compare(c) => return map::compare(k, *c, self.view(0), self.view(1), shape.dims(), out),
            Work::Not => return map::logical_not(k, self.truth(0), out),
            Work::Definition(op) if self.step.ty.dtype == DType::Bool => {
                unreachable!("{} has a kernel", op.name())
            }
            _ => {}
        }
        let out: &mut [f16] = bytemuck::cast_slice_mut(out);
        match work {
            Work::Gemm(packed) => {
                let weights = &packed.weights;
                let epilogue = self.epilogue(Bias::Column);
                let rows = self.half(0).len() / weights.terms();
                return gemm::gemm(k, self.half(0), rows, weights, &epilogue, scratch, out);
            }
            Work::Bmm { .. } => {
                let epilogue = self.epilogue(Bias::Column);
                let shape = work.batch_shape().expect("invariant: matched a product");
                return gemm::bmm(k, self.half(0), self.half(1), &shape, &epilogue, scratch, out);
            }
            Work::Conv { weights, params } => return self.convolve(&weights.weights, params, scratch, out),
            Work::ConvTranspose(weights) => {
                let epilogue = self.epilogue(Bias::Row);
                return conv::conv_transpose2d(
                    k,
                    self.half(0),
                    self.four(0),
                    weights,
                    &epilogue,
                    scratch,
                    out,
                );
            }
            Work::Layer(layer) => {
                let second = self.step.inputs.get(1).map_or(&[][..], |_| self.half(1));
                layers::run(*layer, k, &[self.half(0), second], scratch, out);
            }
            Work::ValueConv { params, groups } => {
                let weights = conv::PackedConv::new(self.half(1), self.four(1), *groups);
                return self.convolve(&weights, params, scratch, out);
            }
            Work::Unary(function) => return map::unary(k, *function, self.half(0), self.stores(), out),
            Work::Binary(function) => {
                let (a, b) = (self.view(0), self.view(1));
                return map::binary(k, *function, a, b, shape.dims(), self.stores(), out);
            }
            other => self.simple(other, out),
        }
        if let Some(limit) = self.step.finish.limit {
            map::overflow_above(k, out, limit);
        }
        if self.step.finish.watched {
            map::store_again(k, self.stores(), out);
        }
    }

    fn convolve(
        &self,
        weights: &conv::PackedConv,
        params: &conv::ConvParams,
        scratch: &mut Scratch,
        out: &mut [f16],
    ) {
        let epilogue = self.epilogue(Bias::Row);
        conv::conv2d(self.kernels, self.half(0), self.four(0), weights, params, &epilogue, scratch, out);
    }

    fn simple(&self, work: &Work, out: &mut [f16]) {
        let k = self.kernels;
        let extents = self.step.ty.shape;
        let extents = extents.dims();
        match work {
            Work::Select => {
                let condition = View::new(self.truth(0), self.extents(0));
                map::select(k, condition, self.view(1), self.view(2), extents, out);
            }
            Work::MaxPool(window) => {
                pool::max_pool(k, self.half(0), self.image(), window, [extents[2], extents[3]], out);
            }
            Work::AvgPool(window, exclude) => {
                pool::avg_pool(
                    k,
                    self.half(0),
                    self.image(),
                    window,
                    *exclude,
                    [extents[2], extents[3]],
                    out,
                );
            }
            Work::Reduce(reduction, axes) => {
                reduce::reduce(k, *reduction, self.half(0), self.extents(0), *axes, out);
            }
            Work::Softmax(axis) => softmax::softmax(k, self.half(0), self.extents(0), *axis, out),
            Work::Prelu => channel::prelu(k, self.half(0), self.inner(), self.half(1), out),
            Work::BatchNorm(eps) => {
                let statistics = [self.half(3), self.half(4)];
                channel::batch_norm(k, self.half(0), self.inner(), self.affine(), statistics, *eps, out);
            }
            Work::InstanceNorm(eps) => {
                channel::instance_norm(k, self.half(0), self.inner(), self.affine(), *eps, out);
            }
            Work::Definition(op) => self.define(op, out),
            other => self.moved(other, out),
        }
    }

    /// Work that moves elements, or mixes neighbours.
    fn moved(&self, work: &Work, out: &mut [f16]) {
        let k = self.kernels;
        match work {
            Work::Transpose { extents, perm } => {
                layout::transpose(k, View::new(self.half(0), extents), perm, out);
            }
            Work::Gather(places) => gather::gather(k, self.view(0), places, out),
            Work::Bilinear([rows, columns]) => {
                let [_, _, h, w] = self.image();
                gather::bilinear(k, self.half(0), [h, w], rows, columns, out);
            }
            Work::Slice(begin) => {
                layout::slice(
                    k,
                    self.view(0),
                    begin,
                    self.step.ty.shape.dims(),
                    &[1; aneforge_tensor::MAX_RANK][..begin.len()],
                    out,
                );
            }
            Work::Concat(axis) => self.concat(*axis, out),
            Work::Reverse(axes) => layout::reverse(k, self.view(0), *axes, out),
            Work::Cast => match self.step.inputs[0].1.dtype {
                DType::U8 => convert::u8_to_f16(k, self.truth(0), out),
                _ => out.copy_from_slice(self.half(0)),
            },
            _ => unreachable!("the others have calls of their own"),
        }
    }

    fn concat(&self, axis: usize, out: &mut [f16]) {
        let inner: usize = self.step.ty.shape.dims()[axis..].iter().product();
        let mut start = 0;
        for index in 0..self.step.inputs.len() {
            let run: usize = self.extents(index)[axis..].iter().product();
            for (to, from) in out.chunks_exact_mut(inner).zip(self.half(index).chunks_exact(run)) {
                to[start..start + run].copy_from_slice(from);
            }
            start += run;
        }
    }

    fn define(&self, op: &crate::ir::op::Op, out: &mut [f16]) {
        let precision = Precision::F16(Numerics::Ieee);
        let array = |index: usize| {
            let ty = self.step.inputs[index].1;
            match ty.dtype {
                DType::F16 => Array::from_fn(ty.shape, |i| self.half(index)[i].to_f64()),
                _ => Array::from_fn(ty.shape, |i| f64::from(self.truth(index)[i])),
            }
        };
        let inputs: Vec<Array> = (0..self.step.inputs.len()).map(array).collect();
        let value = op.eval(&inputs.iter().collect::<Vec<_>>(), &self.step.ty, precision);
        for (out, v) in out.iter_mut().zip(value.data) {
            *out = f16::from_f64(v);
        }
    }
}
