//! The memory of a loaded plan.

use crate::device::buffer::{Bytes, BytesMut};
use crate::device::host::plan::{Place, Step};
use crate::device::{Buffer, DeviceError, Memory as Room, Port};
use crate::ir::types::TensorType;
use aneforge_kernels::{Kernels, map};
use aneforge_tensor::{AlignedBytes, DType, Tensor, Weight, f16};
use smallvec::SmallVec;

/// Programs with at most so many ports allocate nothing when they run.
const INLINE: usize = 16;

/// A constant in half precision: shared with the graph when it already is, converted or decoded when not.
pub(super) enum Constant {
    Shared(Tensor),
    Owned(AlignedBytes),
}

impl Constant {
    pub(super) fn new(weight: &Weight) -> Result<Constant, DeviceError> {
        if let Some(tensor) = weight.dense().filter(|tensor| tensor.as_slice::<f16>().is_some()) {
            return Ok(Constant::Shared(tensor.clone()));
        }
        let mut bytes = room(weight.shape().count() * 2)?;
        weight.read_f16(0, bytes.as_mut_slice());
        Ok(Constant::Owned(bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Constant::Shared(tensor) => tensor.bytes(),
            Constant::Owned(bytes) => bytes,
        }
    }
}

/// What a program keeps between runs.
pub(super) struct Kept {
    /// Those that steps read.
    pub(super) constants: Vec<Option<Constant>>,
    pub(super) slots: Vec<AlignedBytes>,
    pub(super) ports: Ports,
}

/// The buffers of a program's ports.
pub(super) struct Ports {
    inputs: Vec<Bound>,
    outputs: Vec<Bound>,
    /// Every buffer once, by number, which is the order in which programs lock them: so no two wait for each other.
    distinct: Vec<Buffer>,
}

/// A port and what it is bound to.
struct Bound {
    ty: TensorType,
    buffer: Option<Buffer>,
    /// Which of the distinct buffers that is.
    at: usize,
    /// Where an output is written that other ports have the buffer of, and stays until the run is over.
    aside: Option<Box<dyn Room>>,
}

impl Ports {
    pub(super) fn new(inputs: &[TensorType], outputs: impl Iterator<Item = TensorType>) -> Ports {
        let bound = |ty| Bound { ty, buffer: None, at: usize::MAX, aside: None };
        let inputs = inputs.iter().copied().map(bound).collect();
        Ports { inputs, outputs: outputs.map(bound).collect(), distinct: Vec::new() }
    }

    fn all(&self) -> impl Iterator<Item = (Port, &Bound)> {
        let inputs = self.inputs.iter().enumerate().map(|(at, bound)| (Port::Input(at), bound));
        inputs.chain(self.outputs.iter().enumerate().map(|(at, bound)| (Port::Output(at), bound)))
    }

    pub(super) fn bind(&mut self, port: Port, buffer: &Buffer) -> Result<(), DeviceError> {
        let refuse = |why: String| Err(DeviceError::Bind { port, why });
        let Some((_, bound)) = self.all().find(|(known, _)| *known == port) else {
            return refuse(format!(
                "there are {} inputs and {} outputs",
                self.inputs.len(),
                self.outputs.len()
            ));
        };
        let (want, got) = (bound.ty, buffer.ty());
        if want.dtype != got.dtype || want.shape.count() != got.shape.count() {
            return refuse(format!("takes a buffer of {want}, got one of {got}"));
        }
        if !buffer.layout().is_row_major() {
            let strides = buffer.layout().strides();
            return refuse(format!("the host takes buffers without gaps, got one with strides {strides:?}"));
        }
        let twice = |(other, bound): (Port, &Bound)| {
            let same = bound.buffer.as_ref().is_some_and(|b| b.number() == buffer.number());
            same && other != port && matches!((other, port), (Port::Output(_), Port::Output(_)))
        };
        if self.all().any(twice) {
            return refuse("another output is written into this buffer; bind one of its own".into());
        }
        self.bound_mut(port).buffer = Some(buffer.clone());
        let sorted = self.sort();
        if sorted.is_err() {
            self.bound_mut(port).buffer = None;
        }
        sorted
    }

    fn bound_mut(&mut self, port: Port) -> &mut Bound {
        match port {
            Port::Input(at) => &mut self.inputs[at],
            Port::Output(at) => &mut self.outputs[at],
        }
    }

    /// Finds the distinct buffers anew.
    fn sort(&mut self) -> Result<(), DeviceError> {
        let mut distinct: Vec<Buffer> = self.all().filter_map(|(_, bound)| bound.buffer.clone()).collect();
        distinct.sort_by_key(Buffer::number);
        distinct.dedup_by_key(|buffer| buffer.number());
        let place = |bound: &mut Bound| {
            let Some(buffer) = &bound.buffer else { return };
            let found = distinct.binary_search_by_key(&buffer.number(), Buffer::number);
            bound.at = found.expect("invariant: it is among them");
        };
        self.inputs.iter_mut().chain(&mut self.outputs).for_each(place);
        self.distinct = distinct;
        for output in &mut self.outputs {
            let shared = output.buffer.is_some() && self.inputs.iter().any(|input| input.at == output.at);
            let aside = || Ok::<_, DeviceError>(Box::new(room(output.ty.bytes())?) as Box<dyn Room>);
            output.aside = shared.then(aside).transpose()?;
        }
        Ok(())
    }
}

/// Locks every buffer of the ports for a run. What may hold NaN that nobody cleaned is cleaned, if `clean` says how.
fn lock<'a>(
    inputs: &[Bound],
    outputs: &[Bound],
    distinct: &'a [Buffer],
    clean: Option<&Kernels>,
) -> Locks<'a> {
    let lock = |(at, buffer): (usize, &'a Buffer)| {
        let written = outputs.iter().any(|output| output.at == at);
        let fed = || inputs.iter().any(|input| input.at == at);
        let unclean = clean.filter(|_| buffer.ty().dtype == DType::F16 && !buffer.is_clean() && fed());
        if !written && unclean.is_none() {
            return Some(Lock::Shared(buffer.lock()));
        }
        let mut bytes = buffer.lock_mut();
        if let Some(kernels) = unclean {
            map::sanitize(kernels, bytemuck::cast_slice_mut(&mut bytes));
        }
        Some(Lock::Whole(bytes))
    };
    distinct.iter().enumerate().map(lock).collect()
}

/// Of the distinct buffers. One that a step writes into is absent meanwhile.
type Locks<'a> = SmallVec<[Option<Lock<'a>>; INLINE]>;

/// A buffer while a program runs on it.
enum Lock<'a> {
    Shared(Bytes<'a>),
    Whole(BytesMut<'a>),
}

impl Lock<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Lock::Shared(bytes) => bytes,
            Lock::Whole(bytes) => bytes,
        }
    }
}

/// Everything that a step may read or write, for one run.
pub(super) struct Memory<'a> {
    constants: &'a [Option<Constant>],
    slots: &'a mut [AlignedBytes],
    inputs: &'a [Bound],
    outputs: &'a mut [Bound],
    distinct: &'a [Buffer],
    locks: Locks<'a>,
}

/// Memory that a step writes into: it leaves its place meanwhile, which no operand of the step shares.
pub(super) enum Taken<'a> {
    Own(AlignedBytes),
    Aside(Box<dyn Room>),
    Buffer(BytesMut<'a>),
}

impl Taken<'_> {
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Taken::Own(bytes) => bytes,
            Taken::Aside(memory) => memory.bytes_mut(),
            Taken::Buffer(bytes) => bytes,
        }
    }
}

impl Kept {
    /// Everything for one run.
    pub(super) fn open(&mut self, clean: Option<&Kernels>) -> Result<Memory<'_>, DeviceError> {
        if let Some((port, _)) = self.ports.all().find(|(_, bound)| bound.buffer.is_none()) {
            return Err(DeviceError::Bind {
                port,
                why: "has no buffer; bind one before the first run".into(),
            });
        }
        let Ports { inputs, outputs, distinct } = &mut self.ports;
        let locks = lock(inputs, outputs, distinct, clean);
        Ok(Memory { constants: &self.constants, slots: &mut self.slots, inputs, outputs, distinct, locks })
    }
}

impl<'a> Memory<'a> {
    fn bytes(&self, place: Place, ty: TensorType) -> &[u8] {
        &self.whole(place)[..ty.bytes()]
    }

    /// All bytes of a place.
    pub(super) fn whole(&self, place: Place) -> &[u8] {
        match place {
            Place::Feed(at) => self.locked(self.inputs[at].at),
            Place::Output(at) => match &self.outputs[at].aside {
                Some(aside) => aside.bytes(),
                None => self.locked(self.outputs[at].at),
            },
            Place::Slot(at) => &self.slots[at],
            Place::Constant(at) => {
                let constant = self.constants[at as usize].as_ref();
                constant.expect("invariant: constants that steps read are loaded").bytes()
            }
        }
    }

    /// The bias that is part of a step.
    pub(super) fn bias(&self, step: &Step) -> Option<&[f16]> {
        step.fused.bias.map(|place| match place {
            Place::Constant(at) => {
                let constant = self.constants[at as usize].as_ref();
                bytemuck::cast_slice(constant.expect("invariant: biases are loaded").bytes())
            }
            other => unreachable!("a fused bias is a constant, not {other}"),
        })
    }

    fn locked(&self, at: usize) -> &[u8] {
        self.locks[at].as_ref().expect("invariant: no operand shares what a step writes").bytes()
    }

    /// Takes what a step writes.
    pub(super) fn take(&mut self, place: Place) -> Taken<'a> {
        match place {
            Place::Slot(at) => Taken::Own(std::mem::take(&mut self.slots[at])),
            Place::Output(at) => match self.outputs[at].aside.take() {
                Some(aside) => Taken::Aside(aside),
                None => match self.locks[self.outputs[at].at].take() {
                    Some(Lock::Whole(bytes)) => Taken::Buffer(bytes),
                    _ => unreachable!("outputs are locked to be written"),
                },
            },
            Place::Feed(_) | Place::Constant(_) => unreachable!("no step writes {place}"),
        }
    }

    /// Puts it back.
    pub(super) fn put(&mut self, place: Place, taken: Taken<'a>) {
        match (place, taken) {
            (Place::Slot(at), Taken::Own(bytes)) => self.slots[at] = bytes,
            (Place::Output(at), Taken::Aside(memory)) => self.outputs[at].aside = Some(memory),
            (Place::Output(at), Taken::Buffer(bytes)) => {
                self.locks[self.outputs[at].at] = Some(Lock::Whole(bytes));
            }
            (place, _) => unreachable!("no step writes {place}"),
        }
    }

    /// Brings the outputs to their buffers that are elsewhere: leaves, values that are returned twice, and what was
    /// written aside, which takes the place of the buffer's memory if it may. How many bytes were copied.
    pub(super) fn deliver(&mut self, outputs: &[(Place, TensorType)]) -> usize {
        let mut copied = 0;
        for (at, &(place, ty)) in outputs.iter().enumerate() {
            let own = Place::Output(at);
            if place != own {
                let mut taken = self.take(own);
                taken.bytes()[..ty.bytes()].copy_from_slice(self.bytes(place, ty));
                self.put(own, taken);
                copied += ty.bytes();
            }
        }
        for output in &mut *self.outputs {
            let (Some(aside), Some(Lock::Whole(buffer))) = (&mut output.aside, &mut self.locks[output.at])
            else {
                continue;
            };
            if self.distinct[output.at].moves() {
                buffer.exchange(aside);
            } else {
                let bytes = output.ty.bytes();
                buffer[..bytes].copy_from_slice(&aside.bytes()[..bytes]);
                copied += bytes;
            }
        }
        copied
    }
}

/// Needs below this are not compared with what the machine has.
const SMALL: usize = 1 << 28;

/// Whether so many bytes are not there. Systems promise more in parts than as a whole, and more than they have; where
/// this one says what it has, that counts.
fn lacking(need: usize, promised: bool, available: impl FnOnce() -> Option<usize>) -> bool {
    !promised || (need >= SMALL && available().is_some_and(|available| need > available))
}

/// An error unless so many bytes are there.
pub(super) fn promised(need: usize) -> Result<(), DeviceError> {
    let available = || {
        let said = std::fs::read_to_string("/proc/meminfo").ok()?;
        let kibibytes = said.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        kibibytes.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
    };
    let reserved = Vec::<u8>::new().try_reserve_exact(need).is_ok();
    if lacking(need, reserved, available) {
        return Err(DeviceError::Memory { need });
    }
    Ok(())
}

pub(super) fn room(bytes: usize) -> Result<AlignedBytes, DeviceError> {
    AlignedBytes::try_zeroed(bytes).ok_or(DeviceError::Memory { need: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::host::Host;
    use aneforge_tensor::Shape;

    #[test]
    fn large_needs_are_compared_with_what_there_is() {
        assert!(lacking(SMALL, true, || Some(SMALL - 1)));
        assert!(!lacking(SMALL, true, || Some(SMALL)) && !lacking(SMALL, true, || None));
        assert!(!lacking(1 << 20, true, || unreachable!("a small need is not compared")));
        assert!(lacking(1 << 20, false, || Some(SMALL)) && lacking(SMALL, false, || Some(SMALL)));
        assert_eq!(promised(usize::MAX), Err(DeviceError::Memory { need: usize::MAX }));
    }

    #[test]
    fn outputs_are_written_aside_where_an_input_has_their_buffer() {
        let ty = TensorType::f16(Shape::new(&[2]).unwrap());
        let [one, other] = [0, 1].map(|_| Host::new(1).allocate(ty).unwrap());
        let mut ports = Ports::new(&[ty], std::iter::once(ty));
        ports.bind(Port::Input(0), &one).unwrap();
        for (buffer, aside) in [(&other, false), (&one, true)] {
            ports.bind(Port::Output(0), buffer).unwrap();
            assert_eq!(ports.outputs[0].aside.is_some(), aside);
        }
    }
}
