//! Rules of threads: places for programs, one asynchronous run at a time, calls that hang, and waiting for an end.
//!
//! These are all that threads share without a lock of the caller's; each is checked over every order in which threads can meet, by
//! `cargo test -p aneforge-ane --features loom`.

#[cfg(feature = "loom")]
use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
use std::sync::PoisonError;
#[cfg(not(feature = "loom"))]
use std::sync::{Condvar, Mutex, MutexGuard, atomic};

use atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So many places, taken and given back.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    limit: usize,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Places {
        Places { taken: AtomicUsize::new(0), limit }
    }

    /// Takes one, or says how many are taken.
    pub(crate) fn take(&self) -> Result<(), usize> {
        let next = |taken: usize| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).map(|_| ())
    }

    pub(crate) fn give(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// Something that one has at a time.
#[derive(Debug)]
pub(crate) struct Turn(AtomicBool);

impl Turn {
    pub(crate) fn new() -> Turn {
        Turn(AtomicBool::new(false))
    }

    /// Takes it, if nobody has it.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn give(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The calls of one program, of which one runs at a time, and whether it was given up.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Odd while a call runs.
    count: AtomicU64,
    given_up: AtomicBool,
}

impl Calls {
    pub(crate) fn new() -> Calls {
        Calls { count: AtomicU64::new(0), given_up: AtomicBool::new(false) }
    }

    #[inline]
    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    /// The call that runs, if one does: no other has its number.
    pub(crate) fn running(&self) -> Option<u64> {
        let count = self.count.load(Ordering::Acquire);
        (count % 2 == 1).then_some(count)
    }

    /// Nothing that comes back from now on is believed.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// Whether something has ended, and how it is waited for.
#[derive(Debug)]
pub(crate) struct Completion {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Completion {
    pub(crate) fn new() -> Completion {
        Completion { done: Mutex::new(false), changed: Condvar::new() }
    }

    fn done(&self) -> MutexGuard<'_, bool> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, done: bool) {
        *self.done() = done;
        self.changed.notify_all();
    }

    /// Waits; whether it ended in time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        let mut done = self.done();
        while !*done {
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(done, left);
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(all(test, feature = "loom"))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    #[test]
    fn a_place_is_never_taken_twice_and_never_lost() {
        loom::model(|| {
            let places = Arc::new(Places::new(1));
            let within = Arc::new(AtomicU32::new(0));
            let work = |places: Arc<Places>, within: Arc<AtomicU32>| {
                move || {
                    let taken = places.take();
                    if taken.is_ok() {
                        assert_eq!(within.fetch_add(1, Ordering::Relaxed), 0, "two have the only place");
                        within.fetch_sub(1, Ordering::Relaxed);
                        places.give();
                    }
                    taken
                }
            };
            let other = thread::spawn(work(places.clone(), within.clone()));
            let (own, other) = (work(places.clone(), within)(), other.join().unwrap());
            assert!(own.is_ok() || other.is_ok(), "somebody gets it");
            assert_eq!(places.taken(), 0);
        });
    }

    #[test]
    fn what_one_turn_wrote_the_next_one_sees() {
        loom::model(|| {
            let turn = Arc::new(Turn::new());
            let value = Arc::new(loom::cell::UnsafeCell::new(0u32));
            let work = |turn: Arc<Turn>, value: Arc<loom::cell::UnsafeCell<u32>>| {
                move || {
                    let taken = turn.take();
                    if taken {
                        // Loom fails where two could be here at once, or one not see what the other wrote.
                        value.with_mut(|_| ());
                        turn.give();
                    }
                    taken
                }
            };
            let other = thread::spawn(work(turn.clone(), value.clone()));
            let own = work(turn.clone(), value)();
            assert!(own | other.join().unwrap());
            assert!(turn.take(), "it was given back");
        });
    }

    #[test]
    fn an_end_that_is_waited_for_is_never_missed() {
        loom::model(|| {
            let (completion, result) = (Arc::new(Completion::new()), Arc::new(AtomicU32::new(0)));
            let (to, value) = (completion.clone(), result.clone());
            let other = thread::spawn(move || {
                value.store(7, Ordering::Relaxed);
                to.set(true);
            });
            assert!(completion.wait(Duration::from_secs(3600)));
            assert_eq!(result.load(Ordering::Relaxed), 7, "and what was done before it is seen");
            other.join().unwrap();
        });
    }

    #[test]
    fn a_call_that_ends_is_never_taken_for_the_next() {
        loom::model(|| {
            let calls = Arc::new(Calls::new());
            let looked = calls.clone();
            let watchdog = thread::spawn(move || {
                let (first, second) = (looked.running(), looked.running());
                if first.is_some() && first == second {
                    looked.give_up();
                }
                (first, second)
            });
            let mut believed = 0;
            for _ in 0..2 {
                calls.begin();
                calls.end();
                believed += u32::from(!calls.given_up());
            }
            let (first, second) = watchdog.join().unwrap();
            if first.is_none() || first != second {
                assert_eq!(believed, 2, "a call that was not seen twice was given up");
            }
            assert!(!calls.given_up() || first == second);
        });
    }
}
