//! The buffers of a program's ports, locked together while it runs.

use super::buffer::BytesMut;
use super::{Buffer, DeviceError, Port};
use smallvec::SmallVec;

/// Ports that are locked without an allocation.
const INLINE: usize = 16;

/// Buffers of ports, of which each is locked once while a program runs.
#[derive(Default)]
pub(crate) struct Bound {
    pub(crate) inputs: Vec<Option<Buffer>>,
    pub(crate) outputs: Vec<Option<Buffer>>,
    /// By number, which is the order in which programs lock them.
    distinct: Vec<Buffer>,
}

impl Bound {
    pub(crate) fn new(inputs: usize, outputs: usize) -> Bound {
        Bound { inputs: vec![None; inputs], outputs: vec![None; outputs], distinct: Vec::new() }
    }

    /// Takes note of a buffer.
    pub(crate) fn set(&mut self, port: Port, buffer: &Buffer) {
        match port {
            Port::Input(at) => self.inputs[at] = Some(buffer.clone()),
            Port::Output(at) => self.outputs[at] = Some(buffer.clone()),
        }
        self.distinct = self.inputs.iter().chain(&self.outputs).flatten().cloned().collect();
        self.distinct.sort_by_key(Buffer::number);
        self.distinct.dedup_by_key(|buffer| buffer.number());
    }

    /// Holds every buffer.
    pub(crate) fn lock(&self) -> SmallVec<[BytesMut<'_>; INLINE]> {
        self.distinct.iter().map(Buffer::lock_mut).collect()
    }

    /// Where a port's buffer is among those that are locked.
    pub(crate) fn place(&self, port: Port) -> Result<usize, DeviceError> {
        let buffer = match port {
            Port::Input(at) => &self.inputs[at],
            Port::Output(at) => &self.outputs[at],
        };
        let unbound = || DeviceError::Bind { port, why: "no buffer is bound to it".into() };
        let number = buffer.as_ref().ok_or_else(unbound)?.number();
        Ok(self
            .distinct
            .binary_search_by_key(&number, Buffer::number)
            .expect("invariant: bound buffers are listed"))
    }
}
