//! How many programs run at once: no more than there are cores, and each in its turn.

use crate::process::PerProcess;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// Seats for threads that run a program. Who finds all of them taken sleeps until one is handed over, first come, first
/// served.
///
/// A [`Pool`](crate::threads::Pool) that shares seats helps a caller with as many threads as seats are free, so that pools
/// and callers together keep about as many threads running as there are seats.
#[derive(Debug)]
pub struct Seats {
    count: usize,
    state: PerProcess<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A copy of the number in `queue`, for those who only look.
    taken: AtomicUsize,
    /// Seats that were handed over. Those who wait are numbered; number `n` may go on once there were more than `n`.
    handed: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    taken: usize,
    waiting: VecDeque<Thread>,
    /// Threads that have waited so far.
    numbered: usize,
}

/// A taken seat.
#[derive(Debug)]
pub struct Seat<'a>(&'a State);

impl Seats {
    /// So many seats, at least one.
    #[must_use]
    pub fn new(count: usize) -> Arc<Seats> {
        Arc::new(Seats { count: count.max(1), state: PerProcess::default() })
    }

    /// Takes a seat, or waits for one. Who has one must not wait for somebody who may be waiting for one.
    #[must_use]
    pub fn take(&self) -> Seat<'_> {
        let state = self.state.get(|_| State::default());
        let mut queue = state.queue();
        if queue.taken < self.count {
            queue.taken += 1;
            state.taken.store(queue.taken, Ordering::Relaxed);
            return Seat(state);
        }
        let number = queue.numbered;
        queue.numbered = number.wrapping_add(1);
        queue.waiting.push_back(std::thread::current());
        drop(queue);
        // Numbers differ by less than half of all, also where they have wrapped around.
        while state.handed.load(Ordering::Acquire).wrapping_sub(number.wrapping_add(1)) > usize::MAX / 2 {
            std::thread::park();
        }
        Seat(state)
    }

    /// How many threads wait for a seat.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.get(|_| State::default()).queue().waiting.len()
    }

    /// How many of `helpers` threads may help a caller: all while nobody else has a seat, then as many as seats are free.
    #[must_use]
    pub fn helpers(&self, helpers: usize) -> usize {
        match self.state.get(|_| State::default()).taken.load(Ordering::Relaxed) {
            0 | 1 => helpers,
            taken => helpers.min(self.count.saturating_sub(taken)),
        }
    }
}

impl State {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let state = self.0;
        let mut queue = state.queue();
        let Some(next) = queue.waiting.pop_front() else {
            queue.taken -= 1;
            return state.taken.store(queue.taken, Ordering::Relaxed);
        };
        state.handed.fetch_add(1, Ordering::Release);
        drop(queue);
        next.unpark();
    }
}
