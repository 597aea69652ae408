//! What all requests share: models, limits, keys and counts; and the table of endpoints.

use crate::error::Fault;
use crate::metrics::{Metrics, OfModel};
use crate::queue::{Answer, Full, Queue};
use crate::server::Options;
use crate::{about, body, classify, embeddings, rerank};
use aneforge_models::encoder::{Reader, Tokens};
use aneforge_models::vision::{Class, Picture, Processor};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// What all requests share.
pub(crate) struct App {
    pub options: Options,
    pub models: Vec<Served>,
    pub metrics: Metrics,
    /// Bytes that bodies may still take.
    pub bodies: Arc<Semaphore>,
    /// Pictures that may be decoded at once.
    pub pictures: Arc<Semaphore>,
    /// Large bodies that may be read at once.
    pub turns: Arc<Semaphore>,
    /// Models that have not run yet.
    pub starting: Arc<AtomicUsize>,
    pub stopping: AtomicBool,
    pub since: SystemTime,
}

/// A model that answers.
pub(crate) struct Served {
    pub name: String,
    pub metrics: Arc<OfModel>,
    pub does: Does,
}

/// What a model answers, and what waits for it.
pub(crate) enum Does {
    Embeds {
        reader: Reader,
        dim: usize,
        queue: Queue<Tokens, Vec<f32>>,
    },
    Reranks {
        reader: Reader,
        queue: Queue<Tokens, f32>,
    },
    /// Pictures come with the number of classes that are wanted.
    Classifies {
        processor: Processor,
        queue: Queue<(Picture, usize), Vec<Class>>,
    },
}

impl Does {
    pub fn name(&self) -> &'static str {
        match self {
            Does::Embeds { .. } => "embeddings",
            Does::Reranks { .. } => "rerank",
            Does::Classifies { .. } => "classify",
        }
    }

    pub fn close(&self) {
        match self {
            Does::Embeds { queue, .. } => queue.close(),
            Does::Reranks { queue, .. } => queue.close(),
            Does::Classifies { queue, .. } => queue.close(),
        }
    }
}

/// Whose connection a request came by.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// Every path, as the metrics name it.
const ENDPOINTS: [&str; 9] = [
    "/",
    "/health",
    "/health/ready",
    "/metrics",
    "/v1/models",
    "/v1/models/{name}",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
];
const CLASSIFY: &str = "/v1/classify";
/// Those that need no key: what a load balancer asks, and a page that holds nothing.
const OPEN: [&str; 3] = ["/", "/health", "/health/ready"];
/// What other paths are counted as.
const OTHER: &str = "other";
/// The status that is counted where the client went away before the answer.
const GONE: u16 = 499;

/// The table of endpoints.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(about::page))
        .route("/health", get(about::health))
        .route("/health/ready", get(about::ready))
        .route("/metrics", get(about::metrics))
        .route("/v1/models", get(about::models))
        .route("/v1/models/{name}", get(about::model))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/rerank", post(rerank::jina))
        .route("/v2/rerank", post(rerank::cohere))
        .route(CLASSIFY, post(classify::classify))
        .fallback(|| async {
            Fault::refused(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; `/v1/models` lists what is served",
            )
        })
        .method_not_allowed_fallback(|method: Method| async move {
            let message = format!("{method} is not what this path takes; the header `Allow` says what is");
            Fault::refused(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// A request while it runs: counted and logged when it is over, however that comes.
struct Running {
    app: Arc<App>,
    endpoint: &'static str,
    method: Method,
    peer: Option<SocketAddr>,
    start: Instant,
    status: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.app.metrics.ended(self.endpoint, self.status, took);
        let (method, endpoint, status) = (&self.method, self.endpoint, self.status);
        let peer = self.peer.map_or_else(String::new, |peer| format!(" from {peer}"));
        tracing::info!("{method} {endpoint} {status} in {:.1} ms{peer}", took.as_secs_f64() * 1e3);
    }
}

/// What surrounds every request: the key, counts, and a line of the log.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let known = ENDPOINTS.iter().chain([&CLASSIFY]).find(|endpoint| **endpoint == path);
    let endpoint = known.copied().unwrap_or(OTHER);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    app.metrics.began();
    let (of, method, start) = (Arc::clone(&app), request.method().clone(), Instant::now());
    let mut running = Running { app: of, endpoint, method, peer, start, status: GONE };
    let mut response = match app.admitted(endpoint, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(fault) => {
            body::drain(request.into_body()).await;
            fault.into_response()
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    running.status = response.status().as_u16();
    response
}

impl App {
    /// Whether a request brings a key, where it needs one.
    fn admitted(&self, endpoint: &str, headers: &HeaderMap) -> Result<(), Fault> {
        if self.options.keys.is_empty() || OPEN.contains(&endpoint) {
            return Ok(());
        }
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return Err(Fault::unauthorized(
                "an API key is needed; send the header `Authorization: Bearer KEY`",
            ));
        };
        let given = given.as_bytes();
        let key = match given.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(Fault::unauthorized("the header `Authorization` has no `Bearer KEY`")),
        };
        match self.options.keys.has(key) {
            true => Ok(()),
            false => Err(Fault::unauthorized("the API key is none of those that this server knows")),
        }
    }

    /// The model of this name, or the only one that does this, and its place.
    pub fn model(&self, name: Option<&str>, does: &str) -> Result<(usize, &Served), Fault> {
        let able = || self.models.iter().enumerate().filter(|(_, model)| model.does.name() == does);
        let names = able().map(|(_, model)| format!("`{}`", model.name)).collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            let mut all = able();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(none(&format!("no model here does {does}"))),
                _ => Err(Fault::invalid(format!("there are several models for {does}; name one of {names}"))
                    .param("model")),
            };
        };
        match self.models.iter().enumerate().find(|(_, model)| model.name == name) {
            Some((at, model)) if model.does.name() == does => Ok((at, model)),
            Some((_, model)) => {
                let message = format!("`{name}` does {}, not {does}", model.does.name());
                let others = if names.is_empty() { String::new() } else { format!("; name one of {names}") };
                Err(Fault::invalid(message + &others).param("model"))
            }
            None => {
                let name = embeddings::shown(name);
                let others = if names.is_empty() {
                    "no model here does it".to_owned()
                } else {
                    format!("for {does} there is {names}")
                };
                Err(none(&format!("there is no model `{name}`; {others}")))
            }
        }
    }
}

fn none(message: &str) -> Fault {
    Fault::refused(StatusCode::NOT_FOUND, message).param("model").code("model_not_found")
}

/// Whether someone still waits for what is done.
#[derive(Clone, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// An error where nobody waits any more, which nobody sees.
    pub fn check(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Fault::unavailable("nobody waits for this", 1)),
        }
    }
}

/// Says that nobody waits any more once it is dropped.
struct Waits(Wanted);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Bodies that are read without waiting for their turn.
const SMALL: usize = 1 << 16;

/// Does what takes a while where it holds up no other request: what is large takes turns, so that there are threads for what is
/// small, and ends soon where nobody waits any more.
pub(crate) async fn blocking<T: Send + 'static>(
    app: &App,
    bytes: usize,
    work: impl FnOnce(&Wanted) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let waits = Waits(Wanted::default());
    let wanted = waits.0.clone();
    let done = async {
        let turn = match bytes > SMALL {
            false => None,
            true => Arc::clone(&app.turns).acquire_owned().await.ok(),
        };
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            wanted.check()?;
            work(&wanted)
        });
        done.await.unwrap_or_else(|_| Err(Fault::internal("the request could not be read; please report it")))
    };
    let done = timeout(app.options.timeout, done).await.map_err(|_| late(app));
    drop(waits);
    done?
}

fn late(app: &App) -> Fault {
    Fault::late(app.options.timeout.as_secs())
}

/// Waits for the results of a request of so many tokens.
pub(crate) async fn answered<O>(
    app: &App,
    served: &Served,
    submitted: Result<oneshot::Receiver<Answer<O>>, Full>,
    tokens: usize,
) -> Result<Vec<O>, Fault> {
    let receiver = submitted.map_err(|Full { waiting, most }| {
        let name = &served.name;
        let message = format!("{waiting} inputs wait for `{name}`, and {most} are the most; try again later");
        Fault::busy(message, served.metrics.seconds_for(waiting))
    })?;
    match timeout(app.options.timeout, receiver).await {
        Err(_) => Err(late(app)),
        Ok(Err(_)) => Err(Fault::unavailable("the server stops", 1)),
        Ok(Ok(Err(why))) => Err(Fault::internal(why)),
        Ok(Ok(Ok(results))) => {
            served.metrics.took(tokens);
            Ok(results)
        }
    }
}

/// An answer as JSON.
pub(crate) fn rendered<T: Serialize>(answer: impl FnOnce() -> Result<T, Fault>) -> Result<Response, Fault> {
    let text = serde_json::to_vec(&answer()?).map_err(|why| Fault::internal(why.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
