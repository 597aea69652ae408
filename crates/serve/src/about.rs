//! What says how the server is, and the page to try it.

use crate::app::{App, Does, Served, rendered};
use crate::error::Fault;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

/// The page: one file that asks for nothing but this server.
const PAGE: &str = include_str!("page.html");

/// What the page may do: run its own script and style, and ask this server. Nothing that is put into it runs.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside =
            PAGE.split(&format!("<{tag}>")).nth(1).and_then(|rest| rest.split(&format!("</{tag}>")).next());
        STANDARD.encode(Sha256::digest(inside.unwrap_or_default()))
    };
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
         img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

/// The process lives.
pub(crate) async fn health() -> Result<Response, Fault> {
    rendered(|| Ok(json!({ "status": "ok" })))
}

/// Whether requests are answered at once: every model has run, and nothing stops.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let status = match (app.stopping.load(Ordering::Relaxed), app.starting.load(Ordering::Relaxed)) {
        (true, _) => "stopping",
        (_, 0) => "ready",
        _ => "starting",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "status": status }).to_string();
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text()).into_response()
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    let data: Vec<Value> = app.models.iter().map(|model| described(&app, model)).collect();
    rendered(|| Ok(json!({ "object": "list", "data": data })))
}

pub(crate) async fn model(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Fault> {
    // What is no UTF-8 is no name.
    let found = name.ok().and_then(|Path(name)| app.models.iter().find(|model| model.name == name));
    let Some(model) = found else {
        let message = "there is no model of this name; `/v1/models` lists those there are";
        return Err(Fault::refused(StatusCode::NOT_FOUND, message).param("model").code("model_not_found"));
    };
    rendered(|| Ok(described(&app, model)))
}

fn described(app: &App, model: &Served) -> Value {
    let created = app.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut value = json!({
        "id": model.name, "object": "model", "created": created, "owned_by": "aneforge", "task": model.does.name()
    });
    match &model.does {
        Does::Embeds { reader, dim, .. } => {
            value["dimensions"] = json!(dim);
            value["max_tokens"] = json!(reader.most());
        }
        Does::Reranks { reader, .. } => value["max_tokens"] = json!(reader.most()),
        Does::Classifies { .. } => {}
    }
    value
}
