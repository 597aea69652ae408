//! What the machine can do at most: the measure of the routines' speed.

use bytemuck::Pod;

use crate::Kernels;
use crate::simd::{Lanes, Task, chunks, peak};

/// Bytes that one thread reads or copies at a time.
const GRAIN: usize = 256 << 10;

/// Does about `count` multiply-adds in registers on all threads and returns how many it did.
#[must_use]
pub fn multiply_adds(kernels: &Kernels, count: u64) -> u64 {
    let threads = kernels.pool.threads().min(256);
    let steps = count.div_ceil(peak::STEP * threads as u64);
    let mut results = [0.0; 256];
    chunks(&kernels.pool, &mut results[..threads], 1, |_, results| {
        results.iter_mut().for_each(|result| *result = peak::multiply_adds(kernels.simd, steps));
    });
    std::hint::black_box(results);
    steps * peak::STEP * threads as u64
}

/// Reads everything on all threads; the result depends on all of it.
#[must_use]
pub fn read(kernels: &Kernels, data: &[u64]) -> u64 {
    let parts = (data.len() * 8).div_ceil(GRAIN);
    let mut results = [0; 4096];
    let results = &mut results[..parts.clamp(1, 4096)];
    let size = data.len().div_ceil(results.len()).max(1);
    chunks(&kernels.pool, results, 1, |first, results| {
        for (index, result) in results.iter_mut().enumerate() {
            let start = ((first + index) * size).min(data.len());
            *result = kernels.simd.run(Read { data: &data[start..(start + size).min(data.len())] });
        }
    });
    results.iter().fold(0, |all, one| all ^ one)
}

struct Read<'a> {
    data: &'a [u64],
}

impl Task for Read<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<L: Lanes>(self) -> u64 {
        let mut lanes = [0; 64];
        let (blocks, rest) = self.data.as_chunks::<64>();
        for block in blocks {
            for (lane, value) in lanes.iter_mut().zip(block) {
                *lane ^= value;
            }
        }
        lanes.iter().chain(rest).fold(0, |all, one| all ^ one)
    }
}

/// Copies `source` to `target` on all threads.
///
/// # Panics
/// When the lengths differ.
pub fn copy<T: Pod + Send + Sync>(kernels: &Kernels, source: &[T], target: &mut [T]) {
    assert_eq!(source.len(), target.len(), "copy: lengths differ");
    chunks(&kernels.pool, target, GRAIN / size_of::<T>().max(1), |start, target| {
        target.copy_from_slice(&source[start..start + target.len()]);
    });
}
