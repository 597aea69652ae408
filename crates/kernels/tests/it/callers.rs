//! Threads that run programs at the same time, and pools that know of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use aneforge_kernels::callers::Callers;
use aneforge_kernels::threads::Pool;

/// How many workers a call has while so many others run a program.
fn workers(pool: &Pool, callers: &Callers, others: usize) -> usize {
    let (start, end) = (Barrier::new(others + 1), Barrier::new(others + 1));
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                let _running = callers.enter();
                start.wait();
                end.wait();
            });
        }
        start.wait();
        let _running = callers.enter();
        let (seen, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
        pool.run(&|_, workers| {
            seen.fetch_add(1, Ordering::Relaxed);
            told.store(workers, Ordering::Relaxed);
        });
        end.wait();
        assert_eq!(seen.load(Ordering::Relaxed), told.load(Ordering::Relaxed), "every worker runs once");
        seen.into_inner()
    })
}

#[test]
fn a_pool_helps_with_the_threads_that_have_no_program_to_run() {
    let callers = Callers::new(4);
    let pool = Pool::new(4).sharing(Arc::clone(&callers));
    for (others, want) in [(0, 4), (1, 3), (2, 2), (3, 1), (9, 1), (1, 3), (0, 4)] {
        assert_eq!(workers(&pool, &callers, others), want, "with {others} others");
    }
    // Who is alone has the threads that were asked for, also where there are fewer cores.
    let pool = Pool::new(6).sharing(Arc::clone(&callers));
    assert_eq!([workers(&pool, &callers, 0), workers(&pool, &callers, 1)], [6, 3]);
    assert_eq!(workers(&Pool::new(3), &callers, 3), 3, "a pool of its own");
}
