//! `POST /v1/rerank` in the form of Jina's, and `POST /v2/rerank` in that of Cohere's.

use crate::app::{App, Does, Wanted, answered, blocking, rendered};
use crate::body;
use crate::embeddings::{PART, Usage, by_length, parsed};
use crate::error::Fault;
use crate::input::{Documents, MOST_BYTES, Truncate, longest};
use aneforge_models::encoder::{Reader, Tokens};
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    query: String,
    documents: Documents,
    top_n: Option<u64>,
    return_documents: Option<bool>,
    truncate: Option<Truncate>,
    max_tokens_per_doc: Option<u64>,
    #[serde(default)]
    raw_scores: bool,
}

/// Whose form the answer has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Jina,
    Cohere,
}

#[derive(Serialize)]
struct Row<'a> {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text<'a>>,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Jina { model: &'a str, object: &'static str, usage: Usage, results: Vec<Row<'a>> },
    Cohere { id: String, results: Vec<Row<'a>>, meta: Value },
}

struct Prepared {
    model: usize,
    tokens: Vec<Tokens>,
    /// Those that are given back, or none.
    documents: Option<Vec<String>>,
    most: usize,
    raw: bool,
}

pub(crate) async fn jina(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    rerank(&app, request, Form::Jina).await
}

pub(crate) async fn cohere(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    rerank(&app, request, Form::Cohere).await
}

async fn rerank(app: &Arc<App>, request: Request, form: Form) -> Result<Response, Fault> {
    let held = body::json(app, request).await?;
    let (of, bytes) = (Arc::clone(app), held.bytes);
    let asked = blocking(app, bytes.len(), move |wanted| prepare(&of, &bytes, form, wanted)).await?;
    let served = &app.models[asked.model];
    let Does::Reranks { queue, .. } = &served.does else { unreachable!("chosen by what it does") };
    let count = asked.tokens.iter().map(|tokens| tokens.ids().len()).sum();
    let scores = answered(app, served, queue.submit(by_length(asked.tokens)), count).await?;
    if !scores.iter().all(|score| score.is_finite()) {
        return Err(Fault::internal(
            "the model gave a score that is an infinity or NaN; diagnose it with `aneforge diagnose`",
        ));
    }
    rendered(|| {
        let mut ranked: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let row = |(index, score): (usize, f32)| Row {
            index,
            relevance_score: if asked.raw { f64::from(score) } else { 1.0 / (1.0 + f64::from(-score).exp()) },
            document: asked.documents.as_ref().map(|documents| Text { text: &documents[index] }),
        };
        let results = ranked.into_iter().take(asked.most).map(row).collect();
        Ok(match form {
            Form::Jina => {
                Answer::Jina { model: &served.name, object: "list", usage: Usage::of(count), results }
            }
            Form::Cohere => {
                static NEXT: AtomicU64 = AtomicU64::new(0);
                let meta = json!({ "api_version": { "version": "2" }, "tokens": { "input_tokens": count } });
                Answer::Cohere {
                    id: format!("rerank-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
                    results,
                    meta,
                }
            }
        })
    })
}

fn prepare(app: &App, body: &[u8], form: Form, wanted: &Wanted) -> Result<Prepared, Fault> {
    let asked: Asked = parsed(body)?;
    let (model, served) = app.model(asked.model.as_deref(), "rerank")?;
    let Does::Reranks { reader, .. } = &served.does else { unreachable!("chosen by what it does") };
    let (count, most) = (asked.documents.count, app.options.max_batch);
    if count == 0 || count > most {
        let message = format!("there are {count} documents; 1 to {most} are taken at a time");
        return Err(Fault::invalid(message).param("documents"));
    }
    if asked.query.is_empty() {
        return Err(Fault::invalid("the query is empty; say what is looked for").param("query"));
    }
    if asked.top_n == Some(0) {
        return Err(Fault::invalid("top_n is 0; ask for one document at least").param("top_n"));
    }
    if let Some(at) = longest(&asked.documents.texts) {
        let message = format!(
            "document {at} has more than {MOST_BYTES} bytes, the most that is read of a text; send less"
        );
        return Err(Fault::invalid(message).param("documents"));
    }
    if longest(&[&asked.query]).is_some() {
        let message =
            format!("the query has more than {MOST_BYTES} bytes, the most that is read of a text; send less");
        return Err(Fault::invalid(message).param("query"));
    }
    let longest = reader.most();
    if asked.max_tokens_per_doc.is_some_and(|tokens| tokens < longest as u64) {
        let message = format!(
            "max_tokens_per_doc is less than the {longest} tokens that this model takes; leave it out, or send shorter documents"
        );
        return Err(Fault::invalid(message).param("max_tokens_per_doc"));
    }
    let texts = asked.documents.texts;
    let cut = asked.truncate.is_none_or(|Truncate(cut)| cut);
    let tokens = read(reader, &asked.query, &texts, cut, wanted)?;
    let given_back = asked.return_documents.unwrap_or(form == Form::Jina);
    let top = asked.top_n.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
    Ok(Prepared { model, tokens, documents: given_back.then_some(texts), most: top, raw: asked.raw_scores })
}

fn read(
    reader: &Reader,
    query: &str,
    documents: &[String],
    cut: bool,
    wanted: &Wanted,
) -> Result<Vec<Tokens>, Fault> {
    let longest = reader.most();
    // By itself first: it is read once for each document, and must be short for that.
    if reader.texts(&[query])?.iter().any(Tokens::is_cut) {
        let message = format!(
            "the query has more than {longest} tokens, the most that this model takes with a document; send a shorter one"
        );
        return Err(Fault::invalid(message).param("query").code("context_length_exceeded"));
    }
    let mut all = Vec::with_capacity(documents.len());
    for part in documents.chunks(PART) {
        wanted.check()?;
        let pairs: Vec<(&str, &str)> = part.iter().map(|document| (query, document.as_str())).collect();
        let tokens = reader.pairs(&pairs)?;
        if let Some(at) = tokens.iter().position(Tokens::is_cut).filter(|_| !cut) {
            let at = all.len() + at;
            let message = format!(
                "document {at} has with the query more than {longest} tokens, the most that this model takes; send shorter ones, or no `truncate`"
            );
            return Err(Fault::invalid(message).param("documents").code("context_length_exceeded"));
        }
        all.extend(tokens);
    }
    Ok(all)
}
