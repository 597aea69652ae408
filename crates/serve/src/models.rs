//! Which models are served: from a directory to what answers requests.

use crate::error::ServeError;
use aneforge::device::Device;
use aneforge::passes::{Compression, Form};
use aneforge::target::Target;
use aneforge_models::resolve::{HubOptions, Reads, resolve};
use aneforge_models::vision::{Vision, VisionOptions};
use aneforge_models::{CrossEncoder, CrossEncoderOptions, Encoder, EncoderOptions, LoadError};
use std::path::Path;
use std::sync::Arc;

/// Programs of an encoder that are kept, one for each length and number of texts: more than one caller has at a time.
const PROGRAMS: usize = 32;

/// How models are loaded.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine.
    pub device: Option<Arc<dyn Device>>,
    /// In which form weights are stored; by default as they are. Of models of texts, int8 alone.
    pub compression: Option<Compression>,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

/// A model with the name that requests call it by.
pub struct Model {
    pub(crate) name: String,
    pub(crate) task: Task,
}

/// What a model does.
pub(crate) enum Task {
    Embeds(Box<Encoder>),
    Reranks(Box<CrossEncoder>),
    Classifies(Box<Vision>),
}

impl Model {
    /// Loads a model: `given` is a directory, a file of weights or a hub id, and may begin with `NAME=`. Else its name is the last
    /// part of that. What it does is told by its files: without a tokenizer it looks at pictures; with a head that scores
    /// pairs it reranks; else it embeds.
    pub fn load(given: &str, options: &LoadOptions) -> Result<Model, ServeError> {
        let (name, place) = named(given)?;
        let unserved = |why: String| ServeError::Unserved { name: name.clone(), why };
        let texts = |why| ServeError::Texts { name: name.clone(), why: Box::new(why) };
        if Path::new(&place).is_file() || !has_tokenizer(&place, options).map_err(texts)? {
            let network = pictures(&place, options)
                .map_err(|why| ServeError::Pictures { name: name.clone(), why: Box::new(why) })?;
            if network.network().classes() == 0 {
                let network = network.network().name();
                return Err(unserved(format!(
                    "{network} has no classes, and no endpoint gives features; name another"
                )));
            }
            return Ok(Model { name, task: Task::Classifies(Box::new(network)) });
        }
        let int8 = match options.compression.map(|compression| compression.form) {
            None => false,
            Some(Form::Int8) => true,
            Some(_) => {
                let why = "weights of models of texts are stored in half precision or as int8; give --compress int8";
                return Err(unserved(why.into()));
            }
        };
        let LoadOptions { target, device, hub, .. } = options.clone();
        let as_reranker = CrossEncoderOptions { int8, target, device, hub, ..CrossEncoderOptions::default() };
        match CrossEncoder::load(&place, as_reranker) {
            Ok(reranker) if reranker.labels() == 1 => {
                Ok(Model { name, task: Task::Reranks(Box::new(reranker)) })
            }
            Ok(reranker) => {
                let labels = reranker.labels();
                Err(unserved(format!(
                    "it has {labels} labels, and ranks need one; name a reranker or an encoder"
                )))
            }
            Err(LoadError::NoHead(_)) => {
                let LoadOptions { target, device, hub, .. } = options.clone();
                let as_encoder = EncoderOptions {
                    int8,
                    target,
                    device,
                    hub,
                    programs: Some(PROGRAMS),
                    ..EncoderOptions::default()
                };
                let encoder = Encoder::load(&place, as_encoder).map_err(texts)?;
                Ok(Model { name, task: Task::Embeds(Box::new(encoder)) })
            }
            Err(why) => Err(texts(why)),
        }
    }

    /// What requests call it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does: `embeddings`, `rerank` or `classify`.
    pub fn does(&self) -> &'static str {
        match self.task {
            Task::Embeds(_) => "embeddings",
            Task::Reranks(_) => "rerank",
            Task::Classifies(_) => "classify",
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}, {})", self.name, self.does())
    }
}

/// A model's name, and where it is.
fn named(given: &str) -> Result<(String, String), ServeError> {
    let (name, place) = match given.split_once('=') {
        Some((name, place)) if !name.contains('/') => (name.to_owned(), place),
        _ => {
            let path = Path::new(given);
            // `.` and `..` have no names of their own.
            let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let part = if path.is_file() { whole.file_stem() } else { whole.file_name() };
            (part.unwrap_or_default().to_string_lossy().into_owned(), given)
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match (name.is_empty() || !name.chars().all(plain), place.is_empty()) {
        (false, false) => Ok((name, place.to_owned())),
        (_, true) => Err(ServeError::Settings(format!("--model {given} names no directory; give NAME=DIR"))),
        (true, _) => Err(ServeError::Settings(format!(
            "--model {given}: `{name}` cannot be a name, which has letters, digits, `-`, `_`, `.` and `:`; give NAME=DIR"
        ))),
    }
}

/// Whether a model reads texts. A hub id is downloaded for it, without a tokenizer where the repository has none.
fn has_tokenizer(place: &str, options: &LoadOptions) -> Result<bool, LoadError> {
    let directory = resolve(place, Reads::Pictures, &options.hub)?;
    Ok(directory.join("tokenizer.json").exists())
}

fn pictures(place: &str, options: &LoadOptions) -> Result<Vision, aneforge_models::vision::VisionError> {
    let LoadOptions { target, device, compression, hub } = options.clone();
    Vision::load(place, VisionOptions { target, device, compression, hub, processor: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_or_the_last_part() {
        let of = |given: &str| named(given).map_err(|error| error.to_string());
        let pair = |name: &str, place: &str| Ok((name.to_owned(), place.to_owned()));
        assert_eq!(of("/no/such/minilm"), pair("minilm", "/no/such/minilm"));
        assert_eq!(of("/no/such/minilm/"), pair("minilm", "/no/such/minilm/"));
        assert_eq!(of("org/name"), pair("name", "org/name"));
        assert_eq!(of("small=/a=b/c"), pair("small", "/a=b/c"));
        assert_eq!(of("/a=b/c"), pair("c", "/a=b/c"));
        assert_eq!(of(".").unwrap().0, "serve");
        for (given, said) in
            [("x=", "names no directory"), ("=dir", "`` cannot be a name"), ("a b=dir", "`a b`")]
        {
            assert!(of(given).unwrap_err().contains(said), "{given}");
        }
    }
}
