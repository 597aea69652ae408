//! Seats, and pools that share them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aneforge_kernels::seats::Seats;
use aneforge_kernels::threads::Pool;

#[test]
fn no_more_have_a_seat_than_there_are() {
    let (seats, seated, most) = (Seats::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let _seat = seats.take();
                    most.fetch_max(seated.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    seated.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(most.into_inner(), 3);
    assert_eq!(seats.helpers(7), 7, "all seats are free again");
}

#[test]
fn who_comes_first_is_served_first() {
    let (seats, order) = (Seats::new(1), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let first = seats.take();
        for number in 0..8 {
            let before = seats.waiting();
            let (seats, order) = (&seats, &order);
            scope.spawn(move || {
                let _seat = seats.take();
                order.lock().unwrap().push(number);
            });
            let late = Instant::now() + Duration::from_secs(20);
            while seats.waiting() == before {
                assert!(Instant::now() < late, "thread {number} does not wait");
                thread::yield_now();
            }
        }
        drop(first);
    });
    assert_eq!(order.into_inner().unwrap(), (0..8).collect::<Vec<_>>());
}

/// How many workers a call has while so many others have a seat.
fn workers(pool: &Pool, seats: &Seats, others: usize) -> usize {
    let (start, end) = (Barrier::new(others + 1), Barrier::new(others + 1));
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                let _seat = seats.take();
                start.wait();
                end.wait();
            });
        }
        start.wait();
        let _seat = seats.take();
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
    let seats = Seats::new(4);
    let pool = Pool::new(4).sharing(Arc::clone(&seats));
    for (others, want) in [(0, 4), (1, 3), (2, 2), (3, 1), (1, 3), (0, 4)] {
        assert_eq!(workers(&pool, &seats, others), want, "with {others} others");
    }
    // Who is alone has the threads that were asked for, also where there are fewer cores.
    let pool = Pool::new(6).sharing(Arc::clone(&seats));
    assert_eq!([workers(&pool, &seats, 0), workers(&pool, &seats, 1)], [6, 3]);
    assert_eq!(workers(&Pool::new(3), &seats, 3), 3, "a pool of its own");
}
