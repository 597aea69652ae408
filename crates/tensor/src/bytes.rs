use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

/// Bytes per block of [`AlignedBytes`]: a cache line, and the widest vector register.
const BLOCK: usize = 64;

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Block([u8; BLOCK]);

/// Zero-initialised bytes at a 64-byte boundary, of a fixed length.
#[derive(Clone, Default)]
pub struct AlignedBytes {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes { blocks: vec![Block([0; BLOCK]); len.div_ceil(BLOCK)], len }
    }

    /// `len` zero bytes, or `None` where there is no memory for them.
    pub fn try_zeroed(len: usize) -> Option<AlignedBytes> {
        // Asked for as zeros, large pieces of memory are not touched before they are used.
        let blocks = bytemuck::allocation::try_zeroed_slice_box(len.div_ceil(BLOCK)).ok()?;
        Some(AlignedBytes { blocks: blocks.into_vec(), len })
    }

    /// The bytes as elements of `T`.
    ///
    /// # Panics
    /// If the length is not a whole number of elements.
    pub fn as_slice<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self)
    }

    /// The bytes as mutable elements of `T`.
    ///
    /// # Panics
    /// If the length is not a whole number of elements.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self)
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.len]
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// What keeps bytes: always the same ones, at the same place.
pub trait Owner: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];

    /// They will hardly be read soon: memory that holds a copy of those in the range, and need not, may be given back.
    fn release(&self, _: Range<usize>) {}
}

/// An owner with nothing to give back.
struct Held<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> Owner for Held<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Immutable bytes that many tensors may share: owned, or a view into a mapped file.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        Bytes::owned(Held(owner))
    }

    /// All bytes of `owner`, which may give memory back.
    pub fn owned(owner: impl Owner + 'static) -> Bytes {
        let range = 0..owner.bytes().len();
        Bytes { owner: Arc::new(owner), range }
    }

    /// Says that these will hardly be read soon: those of a mapped file take no memory then, until they are read again.
    pub fn release(&self) {
        self.owner.release(self.range.clone());
    }

    /// A part of these bytes that shares their owner; `None` when it does not lie within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end)
            .then(|| Bytes { owner: self.owner.clone(), range: start..end })
    }

    /// Whether both are the same bytes of the same owner.
    pub fn same(&self, other: &Bytes) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner) && self.range == other.range
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}
