//! A text to a picture.

use super::component::{DiffusionOptions, Runtime};
use super::config::Described;
use super::error::DiffusionError;
use super::noise::Noise;
use super::schedule::Schedule;
use super::scheduler::{Sampler, Steps};
use super::text::TextEncoder;
use super::unet::{Step, UNet};
use super::vae::VaeDecoder;
use crate::vision::Picture;
use aneforge::device::Device;
use aneforge::target::Target;
use serde_json::Value;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The most pixels to a side.
const MOST: usize = 2048;

/// What is to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// What should be on the picture.
    pub prompt: String,
    /// What should not.
    pub negative: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// By how much what the text changes is multiplied; up to 1 there is no guidance, and half the work.
    pub guidance: f64,
    /// Where the noise comes from. The lower 32 bits count.
    pub seed: u64,
    /// Columns and rows of the picture; by default those that the model is trained with.
    pub size: Option<(usize, usize)>,
    /// The sampler; by default the one that the model comes with.
    pub sampler: Option<Sampler>,
    /// How much new noise each step of DDIM adds, from 0 to 1.
    pub eta: f64,
}

impl Draw {
    /// The picture of a text, as is usual: 50 steps, and guidance by 7.5.
    pub fn new(prompt: &str) -> Draw {
        let (prompt, negative) = (prompt.to_owned(), String::new());
        Draw { prompt, negative, steps: 50, guidance: 7.5, seed: 0, size: None, sampler: None, eta: 0.0 }
    }
}

/// What was drawn.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The picture.
    pub picture: Picture,
    /// What it was decoded from, `[C, h, w]`, as the U-Net has it.
    pub latents: Vec<f64>,
    /// The sampler.
    pub sampler: Sampler,
}

/// A pretrained model that draws.
///
/// ```no_run
/// use aneforge_models::diffusion::{DiffusionOptions, Draw, Pipeline};
/// use std::ops::ControlFlow;
///
/// let mut pipeline = Pipeline::load("stable-diffusion-v1-5".as_ref(), DiffusionOptions::default())?;
/// let drawn = pipeline.draw(&Draw::new("a lighthouse at dusk"), &mut |_, _| ControlFlow::Continue(()))?;
/// assert_eq!((drawn.picture.width(), drawn.picture.height()), (512, 512));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pipeline {
    place: PathBuf,
    /// What says what is noise.
    pub unet: UNet,
    /// What makes pictures of latents.
    pub vae: VaeDecoder,
    /// What reads texts.
    pub text: TextEncoder,
}

impl Pipeline {
    /// Loads a directory with `model_index.json`, as `save_pretrained` of `diffusers` writes it. Nothing is compiled yet.
    pub fn load(directory: &Path, options: DiffusionOptions) -> Result<Pipeline, DiffusionError> {
        let runtime = Runtime::new(options)?;
        let index = directory.join("model_index.json");
        if !index.is_file() {
            let why = "it has no model_index.json; name the directory of a diffusers pipeline, which its `save_pretrained` writes or \
                       `hf download ID --local-dir DIR` brings";
            return Err(DiffusionError::Directory { path: directory.to_owned(), why: why.into() });
        }
        let index = Described::read(index)?;
        index.only(&[("_class_name", "StableDiffusionPipeline".into())])?;
        for (part, class) in
            [("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL"), ("text_encoder", "CLIPTextModel")]
        {
            match &index.get(part)[1] {
                Value::Null => {}
                given if given == class => {}
                given => return Err(index.fail(format!("{part} is {given}, and only {class} is supported"))),
            }
        }
        let text =
            TextEncoder::load(&directory.join("text_encoder"), &directory.join("tokenizer"), &runtime)?;
        let unet = UNet::load(&directory.join("unet"), &runtime)?;
        let vae = VaeDecoder::load(&directory.join("vae"), &runtime)?;
        let (channels, states) = (unet.config().channels, unet.config().context);
        if vae.config().latent != channels || text.config().width != states {
            return Err(index.fail(format!(
                "the U-Net takes latents of {channels} channels and states of {states} components, the VAE has {} channels and the text \
                 encoder {} components; the parts belong to different models",
                vae.config().latent,
                text.config().width
            )));
        }
        Ok(Pipeline { place: directory.to_owned(), unet, vae, text })
    }

    /// Draws. `progress` is told how many steps of how many are done, before the first and after each, and may stop.
    pub fn draw(
        &mut self,
        draw: &Draw,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Drawn, DiffusionError> {
        let [height, width] = self.size(draw)?;
        if !(0.0..=1000.0).contains(&draw.guidance) {
            return Err(DiffusionError::Asked(format!(
                "guidance is {}; it must be from 0 to 1000",
                draw.guidance
            )));
        }
        let schedule = self.schedule(draw.sampler)?;
        let mut steps = Steps::new(&schedule, schedule.sampler, draw.steps, draw.eta)?;
        let guides = draw.guidance > 1.0;
        let texts: &[&str] = if guides { &[&draw.negative, &draw.prompt] } else { &[&draw.prompt] };
        let total = steps.times().len();
        report(progress, 0, total)?;
        let states = self.text.run(texts)?;
        let mut noise = Noise::new(draw.seed);
        let dims = [1, self.unet.config().channels, height, width];
        let scale = steps.initial_scale();
        let mut latents: Vec<f64> = noise.draw(dims.iter().product()).iter().map(|v| v * scale).collect();
        for at in 0..total {
            let time = steps.times()[at];
            let given: Vec<f32> = steps.input(at, &latents).iter().map(|v| *v as f32).collect();
            let step = Step { latents: &given, dims, time, states: &states };
            let made = match guides {
                true => self.unet.guide(&step)?.by(draw.guidance),
                false => self.unet.run(&step)?.iter().map(|v| f64::from(*v)).collect(),
            };
            latents = steps.step(at, &made, &latents, &mut |count| noise.draw(count));
            report(progress, at + 1, total)?;
        }
        let single: Vec<f32> = latents.iter().map(|v| *v as f32).collect();
        let picture = self.vae.picture(&single, [height, width])?;
        Ok(Drawn { picture, latents, sampler: schedule.sampler })
    }

    /// Rows and columns of the latents.
    fn size(&self, draw: &Draw) -> Result<[usize; 2], DiffusionError> {
        let (config, factor) = (self.unet.config(), self.vae.config().factor());
        let (width, height) = draw.size.unwrap_or((config.sample * factor, config.sample * factor));
        let multiple = factor * config.step();
        let fits = |extent: usize| extent > 0 && extent <= MOST && extent.is_multiple_of(multiple);
        match fits(width) && fits(height) {
            true => Ok([height / factor, width / factor]),
            false => Err(DiffusionError::Asked(format!(
                "a picture of {width} by {height} pixels; both must be multiples of {multiple} up to {MOST}"
            ))),
        }
    }

    /// How much of latents is noise at each time, for this sampler or for the model's own.
    pub fn schedule(&self, sampler: Option<Sampler>) -> Result<Schedule, DiffusionError> {
        Schedule::read(&self.place.join("scheduler").join("scheduler_config.json"), sampler)
    }

    /// The directory that it was loaded from.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The chip it is compiled for.
    pub fn target(&self) -> Target {
        self.unet.runtime().options.target
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        &*self.unet.runtime().device
    }
}

fn report(
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    done: usize,
    total: usize,
) -> Result<(), DiffusionError> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DiffusionError::Stopped { done, total }),
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = self.unet.config().sample * self.vae.config().factor();
        write!(
            f,
            "Diffusion({}, {side} x {side} pixels, target {}, device {})",
            self.place.display(),
            self.target(),
            self.device().title()
        )
    }
}
