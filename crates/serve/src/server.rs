//! A server from its settings to its end.

use crate::app::{App, Does, Peer, Served, router};
use crate::connection::Watched;
use crate::error::ServeError;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::models::{Model, Task};
use crate::queue::{Before, Queue, Run, Work};
use crate::vocabulary::Vocabulary;
use aneforge_models::encoder::Tokens;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// Connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long the head of a request may take, and a connection be idle.
const HEAD: Duration = Duration::from_secs(30);
/// Bodies that may be held at a time, in units of the largest.
const BODIES: u64 = 16;
/// Texts that run together: several full batches of the encoder, which sorts them by length.
const TEXTS: usize = 64;
/// Pictures that run together: those of one program.
const PICTURES: usize = 8;
/// Pictures that wait at most: they are as large as the network's input.
const MOST_PICTURES: usize = 256;

/// How a server works.
#[derive(Clone)]
pub struct Options {
    /// The address or the name of this machine to listen at.
    pub host: String,
    /// The port; 0 is any that is free.
    pub port: u16,
    /// Keys of which a request must bring one; none where everyone may ask.
    pub keys: Keys,
    /// The most bytes of a body.
    pub max_body: u64,
    /// The most texts or documents of a request.
    pub max_batch: usize,
    /// The most inputs that wait for a model.
    pub queue: usize,
    /// How long a body may take to arrive, and then an answer to be computed.
    pub timeout: Duration,
    /// How long requests are answered after the server was told to stop.
    pub grace: Duration,
    /// Whether texts for embeddings that are too long are cut where a request does not say; else they are refused.
    pub truncate: bool,
    /// What the token ids of clients stand for, if they are read.
    pub vocabulary: Option<Arc<Vocabulary>>,
    /// Whether the signals INT and TERM stop the server.
    pub signals: bool,
    /// Told of a model and the number of inputs of each of its batches, on the model's thread, before it runs.
    pub before_batch: Option<Before>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: 8000,
            keys: Keys::none(),
            max_body: 16 << 20,
            max_batch: 2048,
            queue: 8192,
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            truncate: false,
            vocabulary: None,
            signals: false,
            before_batch: None,
        }
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Answered,
    /// Some were not, within the time for it or as it was told to stop a second time.
    Cut,
}

/// What stops a server.
#[derive(Clone)]
pub struct Stopper(Arc<watch::Sender<u8>>);

impl Stopper {
    /// Takes no more connections and answers the requests that are there; the second time, ends at once.
    pub fn stop(&self) {
        self.0.send_modify(|times| *times = times.saturating_add(1));
    }

    /// Waits until it was told to stop so many times.
    async fn stopped(&self, times: u8) {
        let mut seen = self.0.subscribe();
        // The sender is held here, so that there is no error.
        let _ = seen.wait_for(|seen| *seen >= times).await;
    }
}

/// A server that listens.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    threads: Vec<JoinHandle<()>>,
    stopper: Stopper,
}

impl Server {
    /// Listens, and starts a thread for each model. Requests wait until [`run`](Server::run).
    pub fn bind(options: Options, models: Vec<Model>) -> Result<Server, ServeError> {
        check(&options, &models)?;
        let address = format!("{}:{}", options.host, options.port);
        let listen = |why| ServeError::Listen { address: address.clone(), why };
        let places: Vec<SocketAddr> = (options.host.trim_matches(['[', ']']), options.port)
            .to_socket_addrs()
            .map_err(listen)?
            .collect();
        let listener = TcpListener::bind(&places[..]).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        if !address.ip().is_loopback() && options.keys.is_empty() {
            tracing::warn!(
                "{address} can be reached from other machines, and no API key is needed; give --api-key-file"
            );
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().worker_threads(cores.clamp(2, 8)).max_blocking_threads(cores.clamp(2, 16) + 6);
        let runtime = builder.thread_name("aneforge-serve").build()?;
        let bodies =
            usize::try_from(options.max_body * BODIES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let mut app = App {
            models: Vec::new(),
            metrics: Metrics::default(),
            bodies: Arc::new(Semaphore::new(bodies)),
            pictures: Arc::new(Semaphore::new(2)),
            turns: Arc::new(Semaphore::new(cores.clamp(2, 16))),
            starting: Arc::new(AtomicUsize::new(models.len())),
            stopping: AtomicBool::new(false),
            since: SystemTime::now(),
            options,
        };
        let mut threads = Vec::new();
        for model in models {
            let (served, thread) = app.start(model)?;
            app.models.push(served);
            threads.push(thread);
        }
        let stopper = Stopper(Arc::new(watch::Sender::new(0)));
        Ok(Server { runtime, listener, address, app: Arc::new(app), threads, stopper })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Answers requests until it is stopped.
    pub fn run(self) -> Result<Ended, ServeError> {
        let Server { runtime, listener, app, threads, stopper, .. } = self;
        let ended = runtime.block_on(async {
            if app.options.signals {
                listen_for_signals(stopper.clone())?;
            }
            serve(listener, &app, &stopper).await
        })?;
        app.models.iter().for_each(|model| model.does.close());
        // Requests that are left hold what they wait for; they end with the process.
        runtime.shutdown_background();
        if ended == Ended::Answered {
            threads.into_iter().for_each(|thread| _ = thread.join());
        }
        Ok(ended)
    }
}

fn check(options: &Options, models: &[Model]) -> Result<(), ServeError> {
    let settings = |text: String| Err(ServeError::Settings(text));
    if models.is_empty() {
        return settings("there is no model to serve; name one with --model".into());
    }
    let mut names = HashSet::new();
    if let Some(twice) = models.iter().find(|model| !names.insert(&model.name)) {
        let name = &twice.name;
        return settings(format!("two models are called `{name}`; name one of them with --model NAME=DIR"));
    }
    let Options { max_batch, queue, .. } = options;
    if *max_batch == 0 || max_batch > queue {
        return settings(format!(
            "--max-batch {max_batch} is not between 1 and --queue {queue}, in which requests wait whole"
        ));
    }
    if options.max_body == 0 || options.timeout.is_zero() {
        return settings("--max-body and --timeout must be at least 1".into());
    }
    Ok(())
}

impl App {
    /// Starts a model's thread.
    fn start(&self, model: Model) -> io::Result<(Served, JoinHandle<()>)> {
        let Model { name, task } = model;
        let metrics = self.metrics.model(&name);
        let (does, thread) = match task {
            Task::Embeds(mut encoder) => {
                let (reader, dim) = (encoder.reader(), encoder.dim());
                let run: Run<Tokens, Vec<f32>> = Box::new(move |texts| {
                    encoder.encode_tokens(&texts.iter().collect::<Vec<_>>()).map_err(|why| why.to_string())
                });
                let first = reader.texts(&["ready"]).unwrap_or_default();
                let (queue, thread) = Queue::start(self.work(&name, &metrics, run, first, TEXTS))?;
                (Does::Embeds { reader, dim, queue }, thread)
            }
            Task::Reranks(mut reranker) => {
                let reader = reranker.reader();
                let run: Run<Tokens, f32> = Box::new(move |pairs| {
                    let pairs: Vec<&Tokens> = pairs.iter().collect();
                    let scores = reranker.predict_tokens(&pairs, &mut |_, _| ControlFlow::Continue(()));
                    let scores = scores.map_err(|why| why.to_string())?;
                    Ok(scores.into_iter().filter_map(|scores| scores.first().copied()).collect())
                });
                let first = reader.pairs(&[("ready", "ready")]).unwrap_or_default();
                let (queue, thread) = Queue::start(self.work(&name, &metrics, run, first, TEXTS))?;
                (Does::Reranks { reader, queue }, thread)
            }
            Task::Classifies(mut network) => {
                let processor = *network.processor();
                let (width, height) = network.size();
                let first = aneforge_models::vision::Picture::new(width, height, vec![0; 3 * width * height]);
                let run: Run<_, _> = Box::new(move |pictures: &[(_, usize)]| {
                    let given: Vec<_> = pictures.iter().map(|(picture, _)| picture).collect();
                    let logits = network.logits_of_prepared(&given).map_err(|why| why.to_string())?;
                    Ok(logits
                        .iter()
                        .zip(pictures)
                        .map(|(logits, (_, top))| network.ranked(logits, *top))
                        .collect())
                });
                let first = first.into_iter().map(|picture| (picture, 1)).collect();
                let mut work = self.work(&name, &metrics, run, first, PICTURES);
                work.most = work.most.min(MOST_PICTURES);
                let (queue, thread) = Queue::start(work)?;
                (Does::Classifies { processor, queue }, thread)
            }
        };
        Ok((Served { name, metrics, does }, thread))
    }

    fn work<I, O>(
        &self,
        name: &str,
        metrics: &Arc<crate::metrics::OfModel>,
        run: Run<I, O>,
        first: Vec<I>,
        together: usize,
    ) -> Work<I, O> {
        let starting = Arc::clone(&self.starting);
        Work {
            name: name.to_owned(),
            run,
            together,
            most: self.options.queue,
            metrics: Arc::clone(metrics),
            before: self.options.before_batch.clone(),
            first,
            ready: Box::new(move || _ = starting.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

fn listen_for_signals(stopper: Stopper) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopper.stop();
        }
    });
    Ok(())
}

/// Accepts connections until it is told to stop, and then waits for those that are there.
async fn serve(listener: TcpListener, app: &Arc<App>, stopper: &Stopper) -> io::Result<Ended> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (router, graceful) = (router(Arc::clone(app)), GracefulShutdown::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stopper.stopped(1) => break,
        };
        match accepted {
            Ok(((stream, peer), place)) => connect(stream, peer, router.clone(), app, &graceful, place),
            // There are no more files, or the client is gone again.
            Err(why) => {
                tracing::warn!("a connection was not accepted: {why}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    app.stopping.store(true, Ordering::Relaxed);
    drop(listener);
    tracing::info!("stopping: requests that are there are answered");
    Ok(tokio::select! {
        () = graceful.shutdown() => Ended::Answered,
        () = sleep(app.options.grace) => Ended::Cut,
        () = stopper.stopped(2) => Ended::Cut,
    })
}

/// Serves one connection, on a task of its own.
fn connect(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    app: &App,
    graceful: &GracefulShutdown,
    place: tokio::sync::OwnedSemaphorePermit,
) {
    // Answers are written whole, so that there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let (stream, watch) = Watched::new(stream, 2 * app.options.timeout + HEAD);
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        inner.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
    tokio::spawn(async move {
        tokio::select! {
            served = connection => if let Err(why) = served {
                tracing::debug!("{peer}: {why}");
            },
            () = watch.still() => tracing::debug!("{peer}: nothing moved for too long"),
        }
        drop(place);
    });
}
