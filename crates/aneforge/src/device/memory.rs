//! Where buffers have their memory from.

use aneforge_tensor::AlignedBytes;
use std::any::Any;
use std::sync::Arc;

/// Memory that this process can read and write, wherever it comes from. It does not move while it lives.
pub trait Memory: Send + Sync {
    /// What it holds.
    fn bytes(&self) -> &[u8];
    /// The same, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// What the device that has made it knows it by.
    fn known_as(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    /// What the device that has made it hands over where a program runs.
    fn lent(&mut self) -> Option<&mut (dyn Any + Send + Sync)> {
        None
    }
}

impl Memory for AlignedBytes {
    fn bytes(&self) -> &[u8] {
        self
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}
