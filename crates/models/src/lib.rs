//! Networks, and pretrained models from a directory or from the hub, written with [`aneforge`].
//!
//! | module | holds |
//! |---|---|
//! | [`diffusion`] | pictures from texts: Stable Diffusion 1 and 2 |
//! | [`encoder`] | sentence encoders: BERT, RoBERTa, DistilBERT, MPNet, ModernBERT, Nomic, GTE |
//! | [`reranker`] | rerankers: the same families with a head that scores pairs |
//! | [`resnet`] | residual networks |
//! | [`resolve`] | names to directories |
//! | [`vision`] | networks that look at pictures |
//! | [`weights`] | where the weights of all of them come from |
//! | [`programs`] | compiled programs by shape |
//!
//! Weights are tensors over mapped files; nothing is copied before a program is compiled. Everything here is
//! written in the users' own API.

mod cache;
pub mod diffusion;
pub mod encoder;
mod guard;
pub mod programs;
pub mod reranker;
pub mod resnet;
pub mod resolve;
mod transformer;
pub mod vision;
pub mod weights;

pub use encoder::{EncodeError, EncodeOptions, Encoder, EncoderOptions, LoadError, Pooling};
pub use reranker::{CrossEncoder, CrossEncoderOptions};
pub use weights::{WeightError, Weights};

/// The most bytes that a model's description or tokenizer may have: far more than any has.
const MOST_TEXT: u64 = 1 << 28;
