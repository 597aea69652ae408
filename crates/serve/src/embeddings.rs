//! `POST /v1/embeddings`, in the form of OpenAI's.

use crate::app::{App, Does, Wanted, answered, blocking, rendered};
use crate::body;
use crate::error::Fault;
use crate::input::{Input, MOST_BYTES, Truncate, longest};
use crate::vocabulary::NoText;
use aneforge_models::encoder::{Reader, Tokens};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<u64>,
    truncate: Option<Truncate>,
}

/// How vectors are written.
#[derive(Clone, Copy)]
enum Format {
    Float,
    Base64,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens that were read.
#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    pub fn of(tokens: usize) -> Usage {
        Usage { prompt_tokens: tokens, total_tokens: tokens }
    }
}

/// Texts that are read before it is looked whether someone still waits for them.
pub(crate) const PART: usize = 32;

/// What a request comes to, once it has been read.
struct Prepared {
    model: usize,
    tokens: Vec<Tokens>,
    format: Format,
    dimensions: usize,
}

pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let held = body::json(&app, request).await?;
    let of = Arc::clone(&app);
    let bytes = held.bytes;
    let Prepared { model, tokens, format, dimensions } =
        blocking(&app, bytes.len(), move |wanted| prepare(&of, &bytes, wanted)).await?;
    let served = &app.models[model];
    let Does::Embeds { queue, .. } = &served.does else { unreachable!("chosen by what it does") };
    let count = tokens.iter().map(|tokens| tokens.ids().len()).sum();
    let vectors = answered(&app, served, queue.submit(by_length(tokens)), count).await?;
    rendered(|| {
        let data = vectors.into_iter().enumerate().map(|(index, vector)| {
            let vector = shortened(vector, dimensions)?;
            let embedding = match format {
                Format::Float => Written::Float(vector),
                Format::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    Written::Base64(STANDARD.encode(bytes))
                }
            };
            Ok(Embedding { object: "embedding", index, embedding })
        });
        let data = data.collect::<Result<_, Fault>>()?;
        Ok(Answer { object: "list", data, model: &served.name, usage: Usage::of(count) })
    })
}

fn prepare(app: &App, body: &[u8], wanted: &Wanted) -> Result<Prepared, Fault> {
    let asked: Asked = parsed(body)?;
    let (model, served) = app.model(asked.model.as_deref(), "embeddings")?;
    let Does::Embeds { reader, dim, .. } = &served.does else { unreachable!("chosen by what it does") };
    let format = match asked.encoding_format.as_deref() {
        None | Some("float") => Format::Float,
        Some("base64") => Format::Base64,
        Some(other) => {
            let message = format!("encoding_format is `{}`; `float` and `base64` are known", shown(other));
            return Err(Fault::invalid(message).param("encoding_format"));
        }
    };
    let dimensions = match asked.dimensions {
        None => *dim,
        Some(some) => {
            usize::try_from(some).ok().filter(|some| (1..=*dim).contains(some)).ok_or_else(|| {
                let message = format!(
                    "dimensions is {some}; `{}` has vectors of {dim}, of which 1 to {dim} can be had",
                    served.name
                );
                Fault::invalid(message).param("dimensions")
            })?
        }
    };
    let (count, most) = (asked.input.len(), app.options.max_batch);
    if count == 0 || count > most {
        let message = format!("input has {count} texts; 1 to {most} are taken at a time");
        return Err(Fault::invalid(message).param("input"));
    }
    let texts = texts(app, asked.input, body.len())?;
    if let Some(at) = texts.iter().position(String::is_empty) {
        return Err(Fault::invalid(format!("input {at} is an empty text; leave it out")).param("input"));
    }
    if let Some(at) = longest(&texts) {
        let message = format!(
            "input {at} has more than {MOST_BYTES} bytes, the most that is read of a text; send less"
        );
        return Err(Fault::invalid(message).param("input"));
    }
    let cut = asked.truncate.map_or(app.options.truncate, |Truncate(cut)| cut);
    Ok(Prepared { model, tokens: read(reader, &texts, cut, wanted)?, format, dimensions })
}

/// Texts as they were given, or those that ids stand for.
fn texts(app: &App, input: Input, bytes: usize) -> Result<Vec<String>, Fault> {
    let ids = match input {
        Input::Texts(texts) => return Ok(texts),
        Input::Ids(ids) => ids,
        Input::Many(_) => unreachable!("more than are taken"),
    };
    let Some(vocabulary) = &app.options.vocabulary else {
        let message = "input has token ids, which are another tokenizer's; send texts (LangChain: OpenAIEmbeddings(..., \
                       check_embedding_ctx_length=False)), or start the server with --token-ids cl100k_base.tiktoken";
        return Err(Fault::invalid(message).param("input").code("token_ids"));
    };
    // A token is as long as its id at least, but for those of many blanks.
    let mut most = bytes.saturating_mul(4).max(1 << 16);
    let text = |ids: Vec<u32>| {
        let text = vocabulary.text(&ids, most).map_err(|why| {
            let message = match why {
                NoText::Unknown(id) => {
                    format!("input has the token id {id}, which the server's vocabulary has not")
                }
                NoText::Long(_) => "input stands for far more text than it has bytes; send texts".into(),
            };
            Fault::invalid(message).param("input")
        })?;
        most = most.saturating_sub(text.len());
        Ok(text)
    };
    ids.into_iter().map(text).collect()
}

fn read(reader: &Reader, texts: &[String], cut: bool, wanted: &Wanted) -> Result<Vec<Tokens>, Fault> {
    let mut all = Vec::with_capacity(texts.len());
    for part in texts.chunks(PART) {
        wanted.check()?;
        let tokens = reader.texts(part)?;
        if let Some(at) = tokens.iter().position(Tokens::is_cut).filter(|_| !cut) {
            let (at, most) = (all.len() + at, reader.most());
            let message = format!(
                "input {at} has more than {most} tokens, the most that this model takes; send shorter texts, or `\"truncate\": true`"
            );
            return Err(Fault::invalid(message).param("input").code("context_length_exceeded"));
        }
        all.extend(tokens);
    }
    Ok(all)
}

/// The first components of a unit vector, of unit length again.
fn shortened(mut vector: Vec<f32>, dimensions: usize) -> Result<Vec<f32>, Fault> {
    if dimensions < vector.len() {
        vector.truncate(dimensions);
        let length = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    // JSON has no such numbers.
    match vector.iter().all(|value| value.is_finite()) {
        true => Ok(vector),
        false => Err(Fault::internal(
            "the model gave a vector with an infinity or NaN; diagnose it with `aneforge diagnose`",
        )),
    }
}

/// Inputs with their places, so that those of one length are neighbours, the longest last.
pub(crate) fn by_length(tokens: Vec<Tokens>) -> Vec<(usize, Tokens)> {
    let mut inputs: Vec<(usize, Tokens)> = tokens.into_iter().enumerate().collect();
    inputs.sort_by_key(|(_, tokens)| tokens.ids().len());
    inputs
}

/// A body as what was asked for.
pub(crate) fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|why| Fault::invalid(format!("the body cannot be read: {why}")))
}

/// The beginning of what a request said, for messages.
pub(crate) fn shown(text: &str) -> &str {
    match text.char_indices().nth(60) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
