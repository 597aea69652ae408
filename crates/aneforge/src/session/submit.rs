//! Calls that go on while their caller does something else.

use super::{RunError, Session};
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a call that was submitted comes to: the session, and how it went.
pub type Done = (Session, Result<(), RunError>);

#[derive(Default)]
struct State {
    done: Option<Done>,
    /// Whether that was handed out.
    taken: bool,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the call goes on.
    fn is_running(&self) -> bool {
        self.done.is_none() && !self.taken
    }

    /// What it came to, once.
    fn take(&mut self) -> Option<Done> {
        assert!(!self.taken, "a call that was submitted has given its result as a future; there is no other");
        let done = self.done.take();
        self.taken = done.is_some();
        done
    }
}

/// A call that goes on. It has the session meanwhile, and gives it back when it is done, once: by [`Running::wait`], or as a future,
/// which is not to be polled again after that, nor waited for.
/// Dropping it lets the call end, and drops the session then.
///
/// ```
/// use aneforge::{CompileOptions, Session, Shape, Var, compile, device};
/// let plan = compile(&[Var::input(Shape::new(&[4])?).adds(1.0)], &CompileOptions::default())?;
/// let (one, two) = (Session::new(plan.clone(), device::named("host")?)?, Session::new(plan, device::named("host")?)?);
/// let running = [one.submit(), two.submit()];
/// for running in running {
///     let (session, done) = running.wait();
///     done?;
///     assert_eq!(session.output(0)[0].to_f32(), 1.0);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it has the session"]
pub struct Running(Arc<Shared>);

impl Running {
    /// Waits until the call is done.
    ///
    /// # Panics
    /// If it has given its result as a future.
    pub fn wait(self) -> Done {
        let waited = self.0.changed.wait_while(self.0.state(), |state| state.is_running());
        let done = waited.unwrap_or_else(PoisonError::into_inner).take();
        done.expect("invariant: waited for")
    }

    /// Waits until the call is done, at most so long; itself, if it is not.
    ///
    /// # Panics
    /// If it has given its result as a future.
    pub fn wait_for(self, limit: Duration) -> Result<Done, Running> {
        let waited = self.0.changed.wait_timeout_while(self.0.state(), limit, |state| state.is_running());
        let done = waited.unwrap_or_else(PoisonError::into_inner).0.take();
        done.ok_or(self)
    }

    /// Whether the call is done.
    pub fn is_done(&self) -> bool {
        !self.0.state().is_running()
    }
}

impl Future for Running {
    type Output = Done;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let mut state = self.0.state();
        match state.take() {
            Some(done) => Poll::Ready(done),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that have nothing to do.
static IDLE: Mutex<Vec<Sender<Job>>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Sender<Job>>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job` on a thread that has nothing to do, or on a new one.
fn on_a_thread(mut job: Job) {
    loop {
        let Some(thread) = idle().pop() else { break };
        match thread.send(job) {
            Ok(()) => return,
            // Threads end with the process that began them, which a forked one is not.
            Err(returned) => job = returned.0,
        }
    }
    std::thread::spawn(move || {
        job();
        loop {
            let (to, from) = channel::<Job>();
            idle().push(to);
            match from.recv() {
                Ok(job) => job(),
                Err(_) => return,
            }
        }
    });
}

impl Session {
    /// Begins a call with what the ports hold, on another thread, and comes back at once: so the caller prepares what is next, or
    /// reads what was last, while the engine runs. A device runs one program at a time; it is the host's work that overlaps.
    pub fn submit(mut self) -> Running {
        let shared = Arc::new(Shared::default());
        let to = Arc::clone(&shared);
        on_a_thread(Box::new(move || {
            let done = self.execute();
            let mut state = to.state();
            state.done = Some((self, done));
            let waker = state.waker.take();
            drop(state);
            to.changed.notify_all();
            waker.into_iter().for_each(Waker::wake);
        }));
        Running(shared)
    }
}
