//! Memory that host and engine see, as slices.

use super::e5rt::RawBuffer;
use std::sync::Arc;

/// Memory that host and engine see. Ports of several programs may be bound to it, by its [handle](Buffer::handle).
pub struct Buffer {
    raw: Arc<RawBuffer>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: it is the only one that reads and writes its memory on the host; the engine does while a program runs, and whoever runs one
// sees to that by holding its buffers.
unsafe impl Send for Buffer {}
// SAFETY: as above; it is written through `&mut` only.
unsafe impl Sync for Buffer {}
/// What ports are bound by: the memory stays as long as one of these.
#[derive(Clone)]
pub struct BufferHandle {
    pub(super) raw: Arc<RawBuffer>,
    bytes: usize,
}

impl BufferHandle {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether both are of one memory.
    pub fn is(&self, other: &BufferHandle) -> bool {
        Arc::ptr_eq(&self.raw, &other.raw)
    }
}

impl Buffer {
    /// Memory of a buffer, at `pointer`, of which the first so many bytes are the caller's. It has been made with at least so many, and
    /// written.
    pub(super) fn new(raw: RawBuffer, pointer: *mut u8, bytes: usize) -> Buffer {
        Buffer { raw: Arc::new(raw), pointer, bytes }
    }

    /// What ports are bound by.
    pub fn handle(&self) -> BufferHandle {
        BufferHandle { raw: Arc::clone(&self.raw), bytes: self.bytes }
    }

    /// How many bytes it was asked to have.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it was made with at least so many bytes, all written, and lives as long as this.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}
