//! `POST /v1/classify`: what is on a picture.

use crate::app::{App, Does, answered, blocking, rendered};
use crate::body;
use crate::embeddings::parsed;
use crate::error::Fault;
use aneforge_models::vision::{Class, Picture, PictureError, Processor};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// Bytes that a decoded picture may have: 89 million pixels.
const MOST_BYTES: u64 = 1 << 28;
/// Classes that are given where a request does not say.
const TOP: u64 = 5;

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    image: String,
    top_k: Option<u64>,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    model: &'a str,
    data: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    index: usize,
    label: String,
    probability: f32,
}

pub(crate) async fn classify(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let kind = body::content_type(request.headers());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (held, asked, file) = if kind.starts_with("image/") || kind == "application/octet-stream" {
        let mut held = body::read(&app, request).await?;
        let file = std::mem::take(&mut held.bytes);
        (held, of_query(&query)?, file)
    } else {
        let mut held = body::json(&app, request).await?;
        let bytes = std::mem::take(&mut held.bytes);
        let (asked, file) = blocking(&app, bytes.len(), move |_| of_json(&bytes)).await?;
        (held, asked, file)
    };
    let (at, served) = app.model(asked.0.as_deref(), "classify")?;
    let Does::Classifies { queue, processor } = &served.does else { unreachable!("chosen by what it does") };
    let turn = turn(&app).await?;
    let processor = *processor;
    let picture = blocking(&app, 0, move |_| {
        let picture = prepared(&file, &processor);
        drop(turn);
        picture
    });
    let picture = picture.await?;
    let top = usize::try_from(asked.1).unwrap_or(usize::MAX);
    let classes = answered(&app, &app.models[at], queue.submit(vec![(0, (picture, top))]), 0).await?;
    drop(held);
    rendered(|| {
        let classes = classes.into_iter().flatten();
        let row = |Class { index, label, probability }| match probability.is_finite() {
            true => Ok(Row { index, label, probability }),
            false => Err(Fault::internal(
                "the model gave a probability that is NaN; diagnose it with `aneforge diagnose`",
            )),
        };
        Ok(Answer { object: "list", model: &served.name, data: classes.map(row).collect::<Result<_, _>>()? })
    })
}

/// Waits until a picture may be decoded: few are at a time, as each may take much memory.
async fn turn(app: &App) -> Result<OwnedSemaphorePermit, Fault> {
    match timeout(app.options.timeout, Arc::clone(&app.pictures).acquire_owned()).await {
        Ok(turn) => turn.map_err(|_| Fault::unavailable("the server stops", 1)),
        Err(_) => Err(Fault::late(app.options.timeout.as_secs())),
    }
}

/// A model, and how many classes.
type Wanted = (Option<String>, u64);

fn wanted(model: Option<String>, top: Option<u64>) -> Result<Wanted, Fault> {
    match top {
        Some(0) => Err(Fault::invalid("top_k is 0; ask for one class at least").param("top_k")),
        top => Ok((model, top.unwrap_or(TOP))),
    }
}

fn of_json(body: &[u8]) -> Result<(Wanted, Vec<u8>), Fault> {
    let Asked { model, image, top_k } = parsed(body)?;
    // `data:image/png;base64,...`, or what follows there alone.
    let text = match image.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").map(|(_, text)| text).unwrap_or_default(),
        None => &image,
    };
    let file = STANDARD.decode(text.trim()).ok().filter(|file| !file.is_empty()).ok_or_else(|| {
        let message = "image is neither base64 nor a data URL with base64; encode the bytes of a file, or send them as the body with `Content-Type: image/...`";
        Fault::invalid(message).param("image")
    })?;
    Ok((wanted(model, top_k)?, file))
}

/// `top_k` and `model` behind the path; names need no escapes.
fn of_query(query: &str) -> Result<Wanted, Fault> {
    let (mut model, mut top) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("model", name)) => model = Some(name.to_owned()),
            Some(("top_k", text)) => {
                top =
                    Some(text.parse().map_err(|_| {
                        Fault::invalid("top_k is no number; give one from 1 on").param("top_k")
                    })?);
            }
            _ => return Err(Fault::invalid("behind the path, `model` and `top_k` are known")),
        }
    }
    wanted(model, top)
}

fn prepared(file: &[u8], processor: &Processor) -> Result<Picture, Fault> {
    let picture = Picture::decode_within("image", file, MOST_BYTES).map_err(|why| {
        let status = match why {
            PictureError::Large { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Fault::refused(status, why.to_string()).param("image")
    })?;
    Ok(picture.prepared(processor))
}
