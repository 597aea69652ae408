//! What waits for a model, and the one thread that runs it.
//!
//! A request is some inputs. The thread takes inputs of all requests that wait, a few of each in turns, runs them together
//! and answers each request that has all of its results. While a batch runs, the next one gathers: no timer decides.

use crate::metrics::OfModel;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tokio::sync::oneshot;

/// Inputs that one request has in a batch before others are looked at.
const TURN: usize = 8;

/// Results of a request, or why there are none.
pub(crate) type Answer<O> = Result<Vec<O>, String>;
/// What runs inputs together: a result for each, in their order.
pub(crate) type Run<I, O> = Box<dyn FnMut(&[I]) -> Answer<O> + Send>;
/// Told of a model and of the inputs of a batch before it runs.
pub type Before = Arc<dyn Fn(&str, usize) + Send + Sync>;

/// The queue was full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub waiting: usize,
    pub most: usize,
}

/// How a model's thread works.
pub(crate) struct Work<I, O> {
    pub name: String,
    pub run: Run<I, O>,
    /// The most inputs of a batch.
    pub together: usize,
    /// The most inputs that wait.
    pub most: usize,
    pub metrics: Arc<OfModel>,
    pub before: Option<Before>,
    /// What runs before anything else, so that the first request need not wait for what is made once.
    pub first: Vec<I>,
    /// Called when that has run, if it could.
    pub ready: Box<dyn FnOnce() + Send>,
}

struct Request<I, O> {
    /// Inputs with their places, of which the last is taken first.
    inputs: Vec<(usize, I)>,
    done: Vec<Option<O>>,
    left: usize,
    /// Gone once there is an answer.
    reply: Option<oneshot::Sender<Answer<O>>>,
}

impl<I, O> Request<I, O> {
    /// Whether nobody waits for its results, or not any more.
    fn is_over(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&mut self, answer: Answer<O>) {
        if let Some(reply) = self.reply.take() {
            // Whoever went away needs no answer.
            let _ = reply.send(answer);
        }
    }
}

struct Waiting<I, O> {
    came: VecDeque<Request<I, O>>,
    /// Inputs that no batch has taken, those of requests that the thread holds among them.
    inputs: usize,
    closed: bool,
}

struct Shared<I, O> {
    waiting: Mutex<Waiting<I, O>>,
    changed: Condvar,
    most: usize,
    metrics: Arc<OfModel>,
}

/// What waits for one model.
pub(crate) struct Queue<I, O>(Arc<Shared<I, O>>);

impl<I: Send + 'static, O: Send + 'static> Queue<I, O> {
    /// Starts the thread of a model.
    pub fn start(work: Work<I, O>) -> std::io::Result<(Queue<I, O>, JoinHandle<()>)> {
        let waiting = Mutex::new(Waiting { came: VecDeque::new(), inputs: 0, closed: false });
        let (most, metrics) = (work.most, Arc::clone(&work.metrics));
        let shared = Arc::new(Shared { waiting, changed: Condvar::new(), most, metrics });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name(work.name.clone()).spawn(move || of_thread.work(work))?;
        Ok((Queue(shared), thread))
    }

    /// Puts a request behind the others. Inputs of one size should be neighbours: those that run together are.
    pub fn submit(&self, inputs: Vec<(usize, I)>) -> Result<oneshot::Receiver<Answer<O>>, Full> {
        let (reply, receiver) = oneshot::channel();
        let left = inputs.len();
        let mut waiting = self.0.lock();
        if waiting.closed || waiting.inputs.saturating_add(left) > self.0.most {
            self.0.metrics.refused();
            return Err(Full { waiting: waiting.inputs, most: self.0.most });
        }
        waiting.inputs += left;
        let done = (0..left).map(|_| None).collect();
        waiting.came.push_back(Request { inputs, done, left, reply: Some(reply) });
        self.0.metrics.waiting(waiting.inputs);
        drop(waiting);
        self.0.changed.notify_one();
        Ok(receiver)
    }

    /// Takes no more requests. The thread answers those that it has, and ends.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl<I, O> Shared<I, O> {
    fn lock(&self) -> MutexGuard<'_, Waiting<I, O>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, work: Work<I, O>) {
        let Work { name, mut run, together, metrics, before, first, ready, .. } = work;
        let mut call = |inputs: &[I], before: Option<&Before>| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                if let Some(before) = before {
                    before(&name, inputs.len());
                }
                run(inputs)
            }));
            let answer = caught.unwrap_or_else(|panic| {
                let said =
                    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
                Err(format!(
                    "the model's thread panicked, {}; please report it",
                    said.unwrap_or("and said nothing")
                ))
            });
            answer.inspect_err(|why| tracing::error!("model `{name}`: {why}"))
        };
        // A model that cannot run its first input says why in the log, and is never ready.
        if first.is_empty() || call(&first, None).is_ok() {
            ready();
        }
        drop(first);
        let mut held = Vec::new();
        while self.gather(&mut held) {
            let (places, inputs) = self.take(&mut held, together);
            if inputs.is_empty() {
                continue;
            }
            let start = Instant::now();
            let answer = call(&inputs, before.as_ref());
            metrics.ran(inputs.len(), start.elapsed());
            give(&mut held, places, answer);
            self.forget(&mut held);
        }
    }

    /// Waits for requests and takes hold of them; false where there are none and will be none.
    fn gather(&self, held: &mut Vec<Request<I, O>>) -> bool {
        let mut waiting = self.lock();
        while held.is_empty() && waiting.came.is_empty() && !waiting.closed {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        held.extend(waiting.came.drain(..));
        !held.is_empty()
    }

    /// Inputs of the requests, in turns, and for each the request and the place in it.
    fn take(&self, held: &mut Vec<Request<I, O>>, together: usize) -> (Vec<(usize, usize)>, Vec<I>) {
        self.forget(held);
        let (mut places, mut inputs) = (Vec::new(), Vec::new());
        loop {
            let before = inputs.len();
            for (at, request) in held.iter_mut().enumerate() {
                for _ in 0..TURN.min(together - inputs.len()) {
                    let Some((place, input)) = request.inputs.pop() else { break };
                    places.push((at, place));
                    inputs.push(input);
                }
            }
            if inputs.len() == before {
                break;
            }
        }
        self.fewer(inputs.len());
        (places, inputs)
    }

    /// Lets go of requests that are over; what is left of their inputs does not run.
    fn forget(&self, held: &mut Vec<Request<I, O>>) {
        let mut dropped = 0;
        held.retain(|request| {
            dropped += if request.is_over() { request.inputs.len() } else { 0 };
            !request.is_over()
        });
        if dropped > 0 {
            self.metrics.left(dropped);
            self.fewer(dropped);
        }
    }

    fn fewer(&self, inputs: usize) {
        let mut waiting = self.lock();
        waiting.inputs = waiting.inputs.saturating_sub(inputs);
        self.metrics.waiting(waiting.inputs);
    }
}

/// Gives results to their requests, and answers those that have all.
fn give<I, O>(held: &mut [Request<I, O>], places: Vec<(usize, usize)>, answer: Answer<O>) {
    let results = match answer {
        Ok(results) if results.len() == places.len() => results,
        other => {
            let why =
                other.err().unwrap_or_else(|| "the model gave too few results; please report it".into());
            places.into_iter().for_each(|(at, _)| held[at].answer(Err(why.clone())));
            return;
        }
    };
    for ((at, place), result) in places.into_iter().zip(results) {
        let request = &mut held[at];
        request.done[place] = Some(result);
        request.left -= 1;
        if request.left == 0 {
            let results = std::mem::take(&mut request.done);
            request.answer(Ok(results.into_iter().flatten().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_model_is_ready_once_it_has_run() {
        for runs in [true, false] {
            let ready = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&ready);
            let work = Work {
                name: "m".into(),
                run: Box::new(move |inputs: &[u8]| if runs { Ok(inputs.to_vec()) } else { Err("no".into()) }),
                together: 8,
                most: 8,
                metrics: Metrics::default().model("m"),
                before: None,
                first: vec![1],
                ready: Box::new(move || told.store(true, Ordering::Relaxed)),
            };
            let (queue, thread) = Queue::start(work).unwrap();
            queue.close();
            thread.join().unwrap();
            assert_eq!(ready.load(Ordering::Relaxed), runs);
        }
    }
}
