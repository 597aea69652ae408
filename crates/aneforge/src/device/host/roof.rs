//! What this machine can do at most.

use crate::device::Roof;
use aneforge_kernels::{Kernels, roof};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Words that are read: more than caches hold.
const WORDS: usize = 8 << 20;
/// Multiply-adds of one try, some milliseconds' worth.
const WORK: u64 = 1 << 28;
/// Tries, of which the fastest counts.
const TRIES: u32 = 5;

/// Measures it, once per process: what one engine's threads can do others of as many can do too.
pub(super) fn measure(kernels: &Kernels) -> Roof {
    static KNOWN: OnceLock<Roof> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let words = vec![1; WORDS];
        let fastest = |work: &dyn Fn() -> f64| {
            let once = || {
                let start = Instant::now();
                work() / start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
            };
            (0..TRIES).map(|_| once()).fold(0.0, f64::max)
        };
        let flops = fastest(&|| 2.0 * roof::multiply_adds(kernels, WORK) as f64);
        let bytes = fastest(&|| {
            black_box(roof::read(kernels, &words));
            size_of_val(&words[..]) as f64
        });
        Roof { flops, bytes }
    })
}
