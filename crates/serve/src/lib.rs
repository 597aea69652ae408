//! Pretrained models over HTTP: embeddings in OpenAI's form, ranks in those of Jina and Cohere, and classes of pictures.
//!
//! | module | holds |
//! |---|---|
//! | `server` | settings, connections, and how a server ends |
//! | `app` | the table of endpoints, and what surrounds every request |
//! | `embeddings`, `rerank`, `classify`, `about` | one endpoint each, or those that say how the server is |
//! | `models` | from a directory to a model that is served |
//! | `queue` | what waits for a model, and the thread that runs it |
//! | `body`, `input`, `connection` | what comes from outside, within limits |
//! | `keys`, `vocabulary`, `metrics`, `error` | who may ask, token ids, counts, errors |
//!
//! A model belongs to one thread. Requests are read on others, wait in the model's queue, and run together with those of other
//! clients ([`Options`] has the limits).
//!
//! ```no_run
//! use aneforge_serve::{LoadOptions, Model, Options, Server};
//!
//! let model = Model::load("path/to/all-MiniLM-L6-v2", &LoadOptions::default())?;
//! let server = Server::bind(Options::default(), vec![model])?;
//! println!("http://{}", server.address());
//! server.run()?;
//! # Ok::<(), aneforge_serve::ServeError>(())
//! ```

mod about;
mod app;
mod body;
mod classify;
mod connection;
mod embeddings;
mod error;
mod input;
mod keys;
mod metrics;
mod models;
mod queue;
mod rerank;
mod server;
mod vocabulary;

pub use error::ServeError;
pub use keys::Keys;
pub use models::{LoadOptions, Model};
pub use queue::Before;
pub use server::{Ended, Options, Server, Stopper};
pub use vocabulary::Vocabulary;
