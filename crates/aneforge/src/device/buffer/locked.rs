//! The bytes of a buffer while it is locked.

use crate::device::memory::Memory;
use std::ops::{Deref, DerefMut};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

/// The bytes of a buffer.
pub(crate) struct Bytes<'a>(pub(super) RwLockReadGuard<'a, Box<dyn Memory>>);

impl Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The bytes of a buffer, to be written.
pub(crate) struct BytesMut<'a>(pub(super) RwLockWriteGuard<'a, Box<dyn Memory>>);

impl BytesMut<'_> {
    /// Gives the buffer other memory of the same size, and takes what it had. Only one that [moves](Buffer::moves).
    pub(crate) fn exchange(&mut self, memory: &mut Box<dyn Memory>) {
        std::mem::swap(&mut *self.0, memory);
    }

    /// What the device that has made the memory hands over where a program runs.
    pub(crate) fn lent<T: 'static>(&mut self) -> Option<&mut T> {
        self.0.lent()?.downcast_mut()
    }
}

impl Deref for BytesMut<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for BytesMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}
