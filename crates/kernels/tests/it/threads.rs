//! The pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aneforge_kernels::threads::{Executor, Pool, stoppable, stopped};

fn visits(pool: &Pool, items: usize, grain: usize) -> bool {
    let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
    pool.for_each(items, grain, &|item| {
        counts[item].fetch_add(1, Ordering::Relaxed);
    });
    counts.iter().all(|count| count.load(Ordering::Relaxed) == 1)
}

#[test]
fn every_item_is_visited_once() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for round in 0..300 {
            assert!(visits(&pool, round % 37, 1 + round % 3));
        }
    }
}

#[test]
fn every_worker_runs_once() {
    let pool = Pool::new(3);
    let seen = [const { AtomicUsize::new(0) }; 3];
    pool.run(&|worker, workers| {
        assert_eq!(workers, 3);
        seen[worker].fetch_add(1, Ordering::Relaxed);
    });
    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
}

#[test]
fn sleeping_workers_wake_up() {
    let pool = Pool::new(2);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(3));
        assert!(visits(&pool, 100, 1));
    }
}

/// Work that comes, or ends, in the moment in which a thread goes to sleep. What it guards against shows as a test that
/// never ends.
#[test]
fn no_thread_sleeps_through_its_work() {
    let pool = Pool::new(2);
    let spin = |turns: usize| (0..turns).for_each(|_| std::hint::spin_loop());
    for round in 0..40_000 {
        let (before, within) = (round * 37 % 4000, round * 53 % 4000);
        spin(before);
        pool.run(&|worker, _| spin(within * worker));
    }
}

#[test]
fn nested_work_runs_on_its_caller() {
    let pool = Pool::new(3);
    let total = AtomicUsize::new(0);
    pool.for_each(10, 1, &|_| {
        pool.run(&|worker, workers| assert_eq!((worker, workers), (0, 1)));
        pool.for_each(10, 1, &|_| {
            total.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 100);
}

#[test]
fn several_callers_share_a_pool() {
    let pool = Pool::new(2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert!(visits(&pool, 50, 2))));
        }
    });
}

#[test]
fn panics_come_out_and_the_pool_stays_usable() {
    let pool = Pool::new(2);
    for item in 0..20 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(20, 1, &|at| assert!(at != item, "item {at}"));
        }));
        assert!(caught.is_err());
        assert!(visits(&pool, 64, 1));
    }
}

/// Threads that are started for every piece of work, so many of the promised ones.
struct Scoped {
    promised: usize,
    calls: usize,
}

impl Executor for Scoped {
    fn threads(&self) -> usize {
        self.promised
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            for _ in 0..self.calls {
                scope.spawn(work);
            }
        });
    }
}

#[test]
fn a_program_can_lend_its_own_threads() {
    for calls in [0, 1, 3, 7] {
        let pool = Pool::on(Scoped { promised: 3, calls });
        assert_eq!(pool.threads(), 3);
        assert!((0..60).all(|items| visits(&pool, items, 1 + items % 3)));
        let seen = [const { AtomicUsize::new(0) }; 3];
        pool.run(&|worker, _| {
            seen[worker].fetch_add(1, Ordering::Relaxed);
            // Work inside of work borrows them too.
            assert!(visits(&pool, 5, 1));
        });
        assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1));
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(9, 1, &|item| assert_ne!(item, 4, "four"));
        }));
        assert!(result.is_err(), "the panic comes out");
        assert!(visits(&pool, 20, 1), "and the pool goes on");
    }
}

/// Says another number every time.
struct Fickle(AtomicUsize);

impl Executor for Fickle {
    fn threads(&self) -> usize {
        self.0.fetch_add(7, Ordering::Relaxed)
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        (0..40).for_each(|_| work());
    }
}

#[test]
fn the_number_of_lent_threads_is_asked_for_once() {
    let pool = Pool::on(Fickle(AtomicUsize::new(0)));
    assert_eq!((pool.threads(), pool.threads()), (1, 1));
    let pool = Pool::on(Fickle(AtomicUsize::new(2)));
    assert_eq!(pool.threads(), 2);
    pool.for_each_with_worker(50, 1, &|worker, _| assert!(worker < 2));
}

#[test]
fn loops_end_early_when_they_are_stopped() {
    for threads in [1, 2] {
        let (pool, stop, done) = (Pool::new(threads), Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        let work = || {
            pool.for_each(1000, 1, &|_| match done.fetch_add(1, Ordering::Relaxed) {
                0..10 => {}
                10 => stop.store(true, Ordering::Relaxed),
                _ => (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(drop),
            });
            stopped()
        };
        assert!(stoppable(&stop, work) && !stopped());
        // The other worker may have taken an item before it saw the flag.
        assert!((11..=12).contains(&done.load(Ordering::Relaxed)), "{done:?}");
        assert!(visits(&pool, 100, 1), "the next one is whole");
    }
}

#[test]
fn who_has_done_its_share_takes_from_others() {
    let (pool, done) = (Pool::new(2), AtomicUsize::new(0));
    let late = Instant::now() + Duration::from_secs(60);
    pool.for_each(8, 1, &|item| {
        while item == 0 && done.load(Ordering::Relaxed) < 7 {
            assert!(Instant::now() < late, "the share of a thread that is held up is left alone");
            std::thread::yield_now();
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(done.into_inner(), 8);
}
