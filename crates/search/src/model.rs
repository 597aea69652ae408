//! What makes vectors of texts and of pictures.

use crate::error::SearchError;
use aneforge::device::Device;
use aneforge::target::Target;
use aneforge_models::encoder::Files;
use aneforge_models::resolve::HubOptions;
use aneforge_models::vision::{Clip, Network, Picture, Vision, VisionOptions};
use aneforge_models::{EncodeOptions, Encoder, EncoderOptions};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Passages of texts.
    Texts,
    /// Pictures.
    Pictures,
}

impl Kind {
    /// The endings of the files that folders are searched for.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Kind::Texts => &["txt", "md", "markdown", "rst", "adoc", "org", "tex"],
            Kind::Pictures => &["png", "jpg", "jpeg", "webp", "bmp"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Texts => "texts",
            Kind::Pictures => "pictures",
        })
    }
}

/// How a model is loaded.
#[derive(Clone, Default)]
pub struct ModelOptions {
    /// The chip to compile for.
    pub target: Target,
    /// The device to run on; by default that of the machine.
    pub device: Option<Arc<dyn Device>>,
    /// Where models are downloaded from.
    pub hub: HubOptions,
}

/// What precedes texts that look for others, by the names that models give it; and those that are found.
const QUESTIONS: [&str; 1] = ["query"];
const DOCUMENTS: [&str; 3] = ["document", "passage", "corpus"];

/// A model that makes vectors of unit length.
pub enum Model {
    /// Of texts.
    Texts(Box<Encoder>),
    /// Of pictures and of texts.
    Both(Box<Clip>),
    /// Of pictures.
    Pictures(Box<Vision>),
}

impl Model {
    /// Loads a model for texts or for pictures, by a directory, a file of weights or a hub id.
    pub fn open(name: &str, kind: Kind, options: ModelOptions) -> Result<Model, SearchError> {
        let ModelOptions { target, device, hub } = options;
        if kind == Kind::Texts {
            let options = EncoderOptions { target, device, hub, ..EncoderOptions::default() };
            return Ok(Model::Texts(Box::new(Encoder::load(name, options)?)));
        }
        let options = VisionOptions { target, device, hub, ..VisionOptions::default() };
        let network = Vision::load(name, options.clone())?;
        match network.network() {
            Network::Tower(_) => Ok(Model::Both(Box::new(Clip::load(name, options)?))),
            _ => Ok(Model::Pictures(Box::new(network))),
        }
    }

    /// The files that it was loaded from.
    pub fn files(&self) -> &Files {
        match self {
            Model::Texts(encoder) => encoder.files(),
            Model::Both(clip) => clip.vision().files(),
            Model::Pictures(vision) => vision.files(),
        }
    }

    /// What it is called.
    pub fn title(&self) -> String {
        match self {
            Model::Texts(encoder) => format!("an encoder of {} components", encoder.dim()),
            Model::Both(clip) => clip.vision().network().name(),
            Model::Pictures(vision) => vision.network().name(),
        }
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        match self {
            Model::Texts(encoder) => encoder.device(),
            Model::Both(clip) => clip.vision().device(),
            Model::Pictures(vision) => vision.device(),
        }
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        match self {
            Model::Texts(encoder) => encoder.target(),
            Model::Both(clip) => clip.vision().target(),
            Model::Pictures(vision) => vision.target(),
        }
    }

    /// The vector of a text that looks for others or for pictures.
    pub fn text(&mut self, text: &str) -> Result<Vec<f32>, SearchError> {
        match self {
            Model::Texts(encoder) => {
                let vectors = encode(encoder, &[text], &QUESTIONS, &mut || ControlFlow::Continue(()))?;
                Ok(vectors.into_iter().next().unwrap_or_default())
            }
            Model::Both(clip) => Ok(clip.texts(&[text])?.swap_remove(0)),
            Model::Pictures(vision) => Err(blind(vision.network().name(), "texts", "a picture")),
        }
    }

    /// The vector of a picture that looks for others.
    pub fn picture(&mut self, picture: &Picture) -> Result<Vec<f32>, SearchError> {
        let mut vectors = self.pictures(std::slice::from_ref(picture))?;
        Ok(vectors.swap_remove(0))
    }

    /// A vector for each passage of texts.
    pub(crate) fn passages(
        &mut self,
        texts: &[&str],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f32>>, SearchError> {
        match self {
            Model::Texts(encoder) => encode(encoder, texts, &DOCUMENTS, go_on),
            Model::Both(clip) => Ok(clip.texts(texts)?),
            Model::Pictures(vision) => Err(blind(vision.network().name(), "texts", "a picture")),
        }
    }

    /// A vector for each picture.
    pub(crate) fn pictures(&mut self, pictures: &[Picture]) -> Result<Vec<Vec<f32>>, SearchError> {
        match self {
            Model::Texts(encoder) => Err(blind(format!("{encoder:?}"), "pictures", "a text")),
            Model::Both(clip) => Ok(clip.pictures(pictures)?),
            Model::Pictures(vision) => {
                let mut vectors = vision.features(pictures)?;
                vectors.iter_mut().for_each(|vector| normalize(vector));
                Ok(vectors)
            }
        }
    }
}

fn blind(model: String, what: &'static str, other: &'static str) -> SearchError {
    SearchError::Blind { model, what, other }
}

/// A vector of each text behind the prompt of its kind, where the model has one.
fn encode(
    encoder: &mut Encoder,
    texts: &[&str],
    kinds: &[&str],
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Vec<f32>>, SearchError> {
    let prompts = &encoder.prompts().prompts;
    let prompt = kinds.iter().find_map(|kind| prompts.get(*kind)).cloned().unwrap_or_default();
    let texts: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
    Ok(encoder.encode_with(&texts, EncodeOptions::default(), &mut |_, _| go_on())?)
}

fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}
