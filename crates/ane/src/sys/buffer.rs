//! Memory that host and engine see, as slices.

use super::e5rt::RawBuffer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a buffer and its handles share.
pub(super) struct Shared {
    pub(super) raw: RawBuffer,
    /// The run that its owner has last handed it over for.
    lent: AtomicU64,
}

/// Memory that host and engine see. Ports of several programs may be bound to it, by its [handle](Buffer::handle).
///
/// It is the only one that reads and writes its memory on the host, and whoever runs a program hands it over meanwhile: so nobody
/// reads what the engine is writing.
pub struct Buffer {
    shared: Arc<Shared>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: it is the only one that reads and writes its memory on the host; the engine does while a program runs, which takes every buffer
// that its ports are bound to by `&mut`, or by value, until it is done.
unsafe impl Send for Buffer {}
// SAFETY: as above; it is written through `&mut` only.
unsafe impl Sync for Buffer {}

/// What ports are bound by: the memory stays as long as one of these.
#[derive(Clone)]
pub struct BufferHandle {
    pub(super) shared: Arc<Shared>,
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
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether its buffer is handed over for this run.
    #[inline]
    pub(crate) fn is_lent(&self, run: u64) -> bool {
        self.shared.lent.load(Ordering::Relaxed) == run
    }
}

impl Buffer {
    /// Memory of a buffer, at `pointer`, of which the first so many bytes are the caller's. It has been made with at least so many, and
    /// written.
    pub(super) fn new(raw: RawBuffer, pointer: *mut u8, bytes: usize) -> Buffer {
        Buffer { shared: Arc::new(Shared { raw, lent: AtomicU64::new(0) }), pointer, bytes }
    }

    /// What ports are bound by.
    pub fn handle(&self) -> BufferHandle {
        BufferHandle { shared: Arc::clone(&self.shared), bytes: self.bytes }
    }

    /// Hands it over for a run, whose number no other has.
    #[inline]
    pub(crate) fn lend(&mut self, run: u64) {
        self.shared.lent.store(run, Ordering::Relaxed);
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
