//! A fork-join pool whose threads spin for a while before they sleep.
#![expect(unsafe_code, reason = "worker threads run a closure that borrows from the caller's stack")]

use crate::callers::Callers;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Polls before a thread that waits goes to sleep: some tens of microseconds. Sleeping also gives the scheduler an
/// occasion to part two threads that it put on one core.
const SPINS: u32 = 1500;

type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Job<'a> {
    body: &'a Body<'a>,
    /// Workers that take part; those behind them only say that they have seen the job.
    workers: usize,
}

struct Shared {
    /// Counts the jobs; a worker that sees a new value runs `job`.
    epoch: AtomicUsize,
    /// The current job, or null to stop.
    job: AtomicPtr<Job<'static>>,
    /// Workers that have not finished the current job.
    remaining: AtomicUsize,
    /// Held by the thread whose job the workers run.
    busy: AtomicBool,
    asleep: Vec<AtomicBool>,
    /// The caller, where it sleeps until `remaining` is zero.
    caller: Mutex<Option<Thread>>,
    caller_asleep: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `work`, which ends early once `stop` is set: parallel loops that the calling thread runs leave out what is left
/// of them, and whoever finds [`stopped`] true afterwards must not use what they computed.
pub fn stoppable<T>(stop: &Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<AtomicBool>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            STOP.set(self.0.take());
        }
    }
    let _outer = Restore(STOP.replace(Some(Arc::clone(stop))));
    work()
}

/// Whether the work that the calling thread does for [`stoppable`] is to end.
#[must_use]
pub fn stopped() -> bool {
    STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)))
}

/// Threads of a program that has its own, for a [`Pool`] to work on.
pub trait Executor: Send + Sync {
    /// How many calls run at once. Asked for once, by [`Pool::on`], which takes 0 for 1.
    fn threads(&self) -> usize;
    /// Calls `work` up to [`Executor::threads`] times, each on a thread of its own where there is one, and returns when
    /// the calls have returned. A call takes a share of the work; what is left when this returns, the thread that
    /// wanted the work does itself.
    fn run(&self, work: &(dyn Fn() + Sync));
}

/// A pool of threads for short parallel loops. The calling thread takes part as worker 0.
///
/// A pool serves one caller at a time: work that arrives while it is busy, from another thread or from inside
/// its own work, runs on its calling thread alone. A pool that [knows of other callers](Pool::sharing) helps with fewer threads, or
/// none, while others run programs of their own. A panic in the work comes out of the call. Dropping the pool
/// joins its threads. A process that was forked from the pool's gets threads of its own when it first has work for them.
/// [`Pool::on`] makes a pool that starts no threads; it hands every piece of work on, also one that
/// arrives while another is done or from inside of one.
pub struct Pool {
    crew: Crew,
    /// The caller's threads, and how many.
    executor: Option<(Box<dyn Executor>, usize)>,
    callers: Option<Arc<Callers>>,
}

/// The threads of one process.
struct Crew {
    process: u32,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Takes over in a process that was forked from this one: `fork` copies memory, but of all threads only the
    /// one that calls it.
    heir: OnceLock<Box<Crew>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool that works on the threads of `executor`, at most [`Executor::threads`] of them at a time.
    #[must_use]
    pub fn on(executor: impl Executor + 'static) -> Pool {
        let threads = executor.threads().max(1);
        Pool { crew: Crew::new(1), executor: Some((Box::new(executor), threads)), callers: None }
    }

    /// A pool of `threads` threads, the caller included: `new(1)` starts none. Where the system refuses to
    /// start a thread, the pool is smaller.
    #[must_use]
    pub fn new(threads: usize) -> Pool {
        Pool { crew: Crew::new(threads), executor: None, callers: None }
    }

    /// The same pool, which knows of these callers. A pool on threads of the caller's does not ask.
    #[must_use]
    pub fn sharing(self, callers: Arc<Callers>) -> Pool {
        let callers = self.executor.is_none().then_some(callers);
        Pool { callers, ..self }
    }

    /// The callers that it knows of.
    #[must_use]
    pub fn callers(&self) -> Option<&Callers> {
        self.callers.as_deref()
    }

    /// The number of threads, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.executor.as_ref().map_or_else(|| self.crew.threads(), |&(_, threads)| threads)
    }

    /// Calls `body(worker, workers)` once for every worker below `workers`, which is [`Pool::threads`], or 1
    /// when the pool is busy, or as many as [`Callers::helpers`] leaves. At any time at most one thread runs as a given
    /// worker of a call.
    pub fn run(&self, body: &(dyn Fn(usize, usize) + Sync)) {
        match &self.executor {
            Some((executor, threads)) => run_on(&**executor, *threads, body),
            None => self.crew.run(body, self.callers()),
        }
    }

    /// Calls `body(item)` once for every item below `items`; threads take `grain` items at a time. At most
    /// `grain` items do not touch the pool.
    pub fn for_each(&self, items: usize, grain: usize, body: &(dyn Fn(usize) + Sync)) {
        self.for_each_with_worker(items, grain, &|_, item| body(item));
    }

    /// Like [`Pool::for_each`], with the worker that runs the item, below [`Pool::threads`].
    pub fn for_each_with_worker(&self, items: usize, grain: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let grain = grain.max(1);
        let stop = STOP.with_borrow(Clone::clone);
        let goes_on = || stop.as_ref().is_none_or(|stop| !stop.load(Ordering::Relaxed));
        if items <= grain || self.threads() == 1 {
            return (0..items).take_while(|_| goes_on()).for_each(|item| body(0, item));
        }
        let shares = Shares { chunks: items.div_ceil(grain), taken: [const { AtomicUsize::new(0) }; SHARES] };
        self.run(&|worker, workers| {
            let mut chunks = shares.chunks(worker, workers);
            while goes_on() {
                let Some(chunk) = chunks.next() else { break };
                let start = chunk * grain;
                (start..items.min(start + grain)).for_each(|item| body(worker, item));
            }
        });
    }
}

/// Most shares that work is divided into.
const SHARES: usize = 64;

/// Work in equal shares of neighbouring chunks, one for each worker: so the same thread writes what it will read of the
/// next array that is divided in the same way, and two threads rarely write to one cache line. Who has done its own share
/// takes from others'.
struct Shares {
    chunks: usize,
    /// Chunks that were taken of each.
    taken: [AtomicUsize; SHARES],
}

impl Shares {
    /// The chunks that this worker takes.
    fn chunks(&self, worker: usize, workers: usize) -> impl Iterator<Item = usize> {
        let shares = workers.min(SHARES);
        let first = move |share: usize| self.chunks * share / shares;
        (0..shares).map(move |step| (worker + step) % shares).flat_map(move |share| {
            let (start, end) = (first(share), first(share + 1));
            let taken = &self.taken[share];
            std::iter::from_fn(move || Some(start + taken.fetch_add(1, Ordering::Relaxed)))
                .take_while(move |&chunk| chunk < end)
        })
    }
}

impl Crew {
    fn new(threads: usize) -> Crew {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            remaining: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            asleep: (1..threads.max(1)).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            caller_asleep: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut workers = Vec::with_capacity(threads);
        for index in 1..threads {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("kernels-{index}"));
            match builder.spawn(move || work(&shared, index)) {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        Crew { process: std::process::id(), shared, workers, heir: OnceLock::new() }
    }

    /// The caller included.
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Whether the threads are those of another process, from which this one was forked.
    fn is_lost(&self) -> bool {
        self.process != std::process::id()
    }

    fn heir(&self) -> &Crew {
        self.heir.get_or_init(|| Box::new(Crew::new(self.threads())))
    }

    fn run(&self, body: &Body<'_>, callers: Option<&Callers>) {
        if let Some(heir) = self.heir.get() {
            return heir.run(body, callers);
        }
        let all = self.workers.len();
        let workers = 1 + callers.map_or(all, |callers| callers.helpers(all));
        if workers == 1 {
            return body(0, 1);
        }
        let shared = &*self.shared;
        if shared.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // What was under way when this process was forked stays so for ever.
            return if self.is_lost() { self.heir().run(body, callers) } else { body(0, 1) };
        }
        let job = Job { body, workers };
        shared.remaining.store(all, Ordering::Relaxed);
        shared.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        self.wake();
        let mut own = catch_unwind(AssertUnwindSafe(|| body(0, workers)));
        if !self.await_workers() {
            let theirs = || (1..workers).for_each(|worker| body(worker, workers));
            own = own.and(catch_unwind(AssertUnwindSafe(theirs)));
            self.heir();
        }
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.store(false, Ordering::Release);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        if let Some(payload) = theirs {
            resume_unwind(payload);
        }
    }

    /// Returns when the workers are done, or says that there are none any more. Asking for the process takes as
    /// long as a short job, so only those who wait long do.
    fn await_workers(&self) -> bool {
        let shared = &*self.shared;
        for _ in 0..SPINS {
            if shared.remaining.load(Ordering::Acquire) == 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        if self.is_lost() {
            return false;
        }
        *shared.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
        sleep_while(&shared.caller_asleep, || shared.remaining.load(Ordering::Acquire) != 0);
        true
    }

    fn wake(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep) {
            if asleep.load(Ordering::Relaxed) {
                worker.thread().unpark();
            }
        }
    }
}

/// Calls `body` once for every worker, on the threads of `executor` as far as it calls.
fn run_on(executor: &dyn Executor, workers: usize, body: &Body<'_>) {
    let next = AtomicUsize::new(0);
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    let turn = || {
        let worker = next.fetch_add(1, Ordering::Relaxed);
        if worker >= workers {
            return false;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(worker, workers))) {
            panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
        true
    };
    executor.run(&|| {
        turn();
    });
    while turn() {}
    if let Some(payload) = panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(payload);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if self.is_lost() {
            // The threads are another process's; not even their handles mean anything here.
            return std::mem::forget(std::mem::take(&mut self.workers));
        }
        self.shared.job.store(ptr::null_mut(), Ordering::Relaxed);
        self.wake();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work, so there is nothing to hand on.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut epoch = 0;
    loop {
        await_epoch(shared, index, epoch);
        epoch = epoch.wrapping_add(1);
        let job = shared.job.load(Ordering::Relaxed);
        if job.is_null() {
            return;
        }
        // SAFETY: `Pool::run` published this job before the epoch that `await_epoch` saw, and it lives until
        // `remaining`, which this worker lowers below, is zero.
        let &Job { body, workers } = unsafe { &*job };
        if index < workers
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(index, workers)))
        {
            shared.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
        if shared.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.wake_caller();
        }
    }
}

impl Shared {
    /// Wakes the caller, if it sleeps. Who was the last of a job may get here when the caller waits for the next one already: that
    /// one wakes too early, sleeps again, and must be there for the last of its own job. So it is not taken out.
    fn wake_caller(&self) {
        fence(Ordering::SeqCst);
        if self.caller_asleep.load(Ordering::Acquire) {
            let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
            caller.as_ref().inspect(|caller| caller.unpark());
        }
    }
}

/// Returns when the epoch is no longer `seen`.
fn await_epoch(shared: &Shared, index: usize, seen: usize) {
    for _ in 0..SPINS {
        if shared.epoch.load(Ordering::Acquire) != seen {
            return;
        }
        std::hint::spin_loop();
    }
    sleep_while(&shared.asleep[index - 1], || shared.epoch.load(Ordering::Acquire) == seen);
}

/// Sleeps until `waits` is false. Who makes it so calls [`fence`], looks at `asleep` and wakes this thread.
///
/// Each side writes its own flag and then reads the other's, so one of the two must see the other. Fences order that,
/// and not sequentially consistent loads and stores, which would do on every processor: an emulated aarch64 on x86
/// (qemu 7.2) lets a `ldar` pass the `stlr` before it, here in one of twenty tries, and threads would sleep for ever.
fn sleep_while(asleep: &AtomicBool, waits: impl Fn() -> bool) {
    // With what was written before: who sees the flag sees whom to wake.
    asleep.store(true, Ordering::Release);
    fence(Ordering::SeqCst);
    while waits() {
        std::thread::park();
    }
    asleep.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_caller_that_wakes_too_early_is_woken_again() {
        let crew = Arc::new(Crew::new(1));
        crew.shared.remaining.store(1, Ordering::Relaxed);
        let (done, ended) = mpsc::channel();
        let waiting = Arc::clone(&crew);
        std::thread::spawn(move || done.send(waiting.await_workers()));
        while !crew.shared.caller_asleep.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        // The last worker of the job before, which looks for a sleeper only now.
        crew.shared.wake_caller();
        assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "the job is not done");
        crew.shared.remaining.store(0, Ordering::Release);
        crew.shared.wake_caller();
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
