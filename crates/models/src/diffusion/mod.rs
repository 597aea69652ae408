//! Pictures from texts: Stable Diffusion 1 and 2 (Rombach et al., CVPR 2022) from a directory in the layout of `diffusers`.
//!
//! | module | holds |
//! |---|---|
//! | [`pipeline`] | a text to a picture |
//! | [`unet`], [`vae`], [`text`] | the three networks, each one program for each shape |
//! | [`guidance`] | what a text changes, without what rounding would take from it |
//! | [`scheduler`], [`schedule`] | samplers, and how much of latents is noise at each time |
//! | [`noise`] | normal noise from a seed |
//! | [`config`] | what the files beside the weights say |
//! | [`png`] | pictures with what they were drawn by |

mod component;
pub mod config;
mod error;
pub mod guidance;
mod layers;
pub mod noise;
pub mod pipeline;
mod pndm;
pub mod png;
pub mod schedule;
pub mod scheduler;
pub mod text;
mod tokenizer;
pub mod unet;
pub mod vae;

pub use component::{DiffusionOptions, Runtime};
pub use error::DiffusionError;
pub use guidance::Guided;
pub use pipeline::{Draw, Drawn, Pipeline};
pub use schedule::Schedule;
pub use scheduler::{Sampler, Steps};
pub use text::TextEncoder;
pub use unet::{Step, UNet};
pub use vae::VaeDecoder;
