//! What this machine can do at most.

use crate::device::Roof;
use aneforge_kernels::{Kernels, roof};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Words that are read: more than caches hold.
const WORDS: usize = 8 << 20;
/// Multiply-adds of one try, some milliseconds' worth.
const WORK: u64 = 1 << 28;
/// Tries, of which the fastest counts.
const TRIES: u32 = 5;

/// Measures it with these kernels on their threads, in some tens of milliseconds; none where there is no memory to read.
pub(super) fn measure(kernels: &Kernels) -> Option<Roof> {
    let mut words = Vec::new();
    words.try_reserve_exact(WORDS).ok()?;
    // Pages that nobody has written are all one.
    words.resize(WORDS, 1);
    let flops = fastest(|| 2.0 * roof::multiply_adds(kernels, WORK) as f64);
    let bytes = fastest(|| {
        black_box(roof::read(kernels, &words));
        size_of_val(&words[..]) as f64
    });
    Some(Roof { flops, bytes })
}

/// The most per second that `work` says it did in one try.
fn fastest(work: impl Fn() -> f64) -> f64 {
    let once = |_| {
        let start = Instant::now();
        work() / start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
    };
    (0..TRIES).map(once).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_work_over_time() {
        let most = fastest(|| {
            std::thread::sleep(Duration::from_millis(2));
            1.0
        });
        assert!(most > 1.0 && most <= 500.0, "{most} in a second");
    }
}
