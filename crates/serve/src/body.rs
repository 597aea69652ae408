//! Bodies of requests, within limits of size, time and memory.

use crate::app::App;
use crate::error::Fault;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

/// A body, and its share of the memory for bodies while it is held.
pub(crate) struct Held {
    pub bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

/// The first bytes that are made room for, whatever a request says of its length.
const FIRST: usize = 1 << 16;
/// Bytes of a refused body that are read, and for how long: who is cut off while sending does not see the answer.
const DRAINED: u64 = 1 << 25;
const DRAINING: Duration = Duration::from_secs(2);

/// The type of a body, without its parameters, in small letters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body of a request that must be JSON. Other types are refused: a page of another site may send those without asking.
pub(crate) async fn json(app: &App, request: Request) -> Result<Held, Fault> {
    match content_type(request.headers()).as_str() {
        "application/json" => read(app, request).await,
        other => {
            let other = other.to_owned();
            drain(request.into_body()).await;
            let message =
                format!("the body is `{other}`; send JSON, with the header `Content-Type: application/json`");
            Err(Fault::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

/// The body of a request, whatever it is.
pub(crate) async fn read(app: &App, request: Request) -> Result<Held, Fault> {
    let headers = request.headers();
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("the body is encoded as {encoding:?}; send it as it is");
        return Err(Fault::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let most = app.options.max_body;
    let mut body = request.into_body();
    if announced.is_some_and(|length| length > most) {
        return Err(large(app, body).await);
    }
    let room = announced.unwrap_or(0).min(FIRST as u64);
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or(FIRST));
    let mut share = part(app, 0)?;
    let end = Instant::now() + app.options.timeout;
    loop {
        let frame = timeout_at(end, body.frame()).await.map_err(|_| {
            let seconds = app.options.timeout.as_secs_f64();
            let message = format!("the body was not there within {seconds} seconds; send it faster, or less");
            Fault::refused(StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let Some(frame) = frame else { return Ok(Held { bytes, _share: share }) };
        let frame = frame.map_err(|why| Fault::invalid(format!("the body cannot be read: {why}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > most {
            drop(bytes);
            return Err(large(app, body).await);
        }
        match part(app, data.len()) {
            Ok(more) => share.merge(more),
            Err(full) => {
                drop((bytes, share));
                drain(body).await;
                return Err(full);
            }
        }
        bytes.extend_from_slice(&data);
    }
}

/// So many bytes of the memory for bodies.
fn part(app: &App, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
    let full = || {
        Fault::unavailable("the bodies of other requests take all the memory there is for them; try again", 1)
    };
    let bytes = u32::try_from(bytes).map_err(|_| full())?;
    Arc::clone(&app.bodies).try_acquire_many_owned(bytes).map_err(|_| full())
}

async fn large(app: &App, body: Body) -> Fault {
    drain(body).await;
    let message = format!("the body has more than {} bytes; send less at a time", app.options.max_body);
    Fault::refused(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// Reads what is refused, within limits, and keeps nothing of it.
pub(crate) async fn drain(mut body: Body) {
    let all = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = timeout(DRAINING, all).await;
}
