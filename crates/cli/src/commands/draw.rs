//! `aneforge draw`: a picture of a text.

use crate::context::Context;
use crate::output;
use aneforge_models::diffusion::{DiffusionOptions, Draw, Drawn, Pipeline, Sampler, png};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// What follows the options in `aneforge help draw`.
pub const JSON: &str = "\
JSON keys:
  model, target, device   what was loaded, compiled for and run on
  prompt, negative        what should be on the picture, and what should not
  steps, guidance, seed, sampler, eta, width, height
                          how it was drawn
  forwards                how often the U-Net ran
  seconds                 how long it took, with compiling
  output                  where the picture is";

/// Draw a picture of a text, with pretrained weights of Stable Diffusion
///
/// The file says in its texts what it was drawn by. With the same seed, steps and sampler, diffusers draws the same picture on a CPU, up
/// to what half precision changes. Nothing is downloaded, and no picture is looked at by a filter.
#[derive(clap::Args)]
pub struct Args {
    /// What should be on the picture
    #[arg(value_name = "PROMPT")]
    prompt: String,

    /// Directory of a pipeline in the layout of diffusers: Stable Diffusion 1 or 2, with safetensors or .bin, which is read and never run
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,

    /// Where the picture goes, as PNG; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// What should not be on the picture
    #[arg(long, value_name = "PROMPT", default_value = "")]
    negative: String,

    /// Steps of the sampler
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    steps: usize,

    /// By how much what the text changes is multiplied; up to 1 there is no guidance, and half the work
    #[arg(long, value_name = "X", default_value_t = 7.5, allow_negative_numbers = true)]
    guidance: f64,

    /// Where the noise comes from
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32))]
    seed: u32,

    /// Columns and rows of the picture, such as 512x512; by default as the model is trained
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(usize, usize)>,

    /// The sampler; by default the one that the model comes with
    #[arg(long, value_name = "NAME", value_parser = sampler())]
    sampler: Option<Sampler>,

    /// How much new noise each step of ddim adds, from 0 to 1
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    eta: f64,
}

fn sampler() -> impl TypedValueParser<Value = Sampler> {
    let named = |name: String| Sampler::named(&name).expect("invariant: one of those that are listed");
    PossibleValuesParser::new(Sampler::ALL.map(Sampler::name)).map(named)
}

/// Two numbers with an `x` between them; one for both.
fn size(word: &str) -> Result<(usize, usize), String> {
    let number =
        |part: &str| part.trim().parse::<usize>().map_err(|_| format!("{word} is no size such as 512x512"));
    match word.split_once(['x', 'X']) {
        Some((width, height)) => Ok((number(width)?, number(height)?)),
        None => Ok((number(word)?, number(word)?)),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let began = Instant::now();
    check(args, context)?;
    let options = DiffusionOptions { compile: context.options(), device: Some(context.device()?) };
    let mut pipeline = Pipeline::load(&args.model, options)?;
    let (bar, mut forwards) = (context.bar("drawing", args.steps), 0);
    let drawn = pipeline.draw(&args.draw(), &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        forwards = total;
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let file = args.file(&drawn)?;
    output::save(&args.output, out, |to| to.write_all(&file))?;
    if output::is_standard(&args.output) {
        return Ok(());
    }
    let (width, height, sampler) = (drawn.picture.width(), drawn.picture.height(), drawn.sampler.name());
    let (shown, seconds) = (args.output.display(), began.elapsed().as_secs_f64());
    if context.json {
        let value = json!({
            "model": args.model.display().to_string(),
            "target": pipeline.target().name(),
            "device": pipeline.device().title(),
            "prompt": args.prompt,
            "negative": args.negative,
            "steps": args.steps,
            "guidance": args.guidance,
            "seed": args.seed,
            "sampler": sampler,
            "eta": args.eta,
            "width": width,
            "height": height,
            "forwards": forwards,
            "seconds": seconds,
            "output": shown.to_string(),
        });
        return output::print_json(out, &value);
    }
    let seed = args.seed;
    Ok(writeln!(
        out,
        "{shown}: {width} x {height} pixels, {forwards} forwards with {sampler}, seed {seed}, in {seconds:.1} s"
    )?)
}

/// What is wrong with the output is said before the work, and not after it.
fn check(args: &Args, context: &Context) -> Result<()> {
    if context.json && output::is_standard(&args.output) {
        return Err(crate::exit::misuse("-o - and --json both print to standard output; name a file"));
    }
    match args.output.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        None => Ok(()),
        Some(folder) => {
            let folder = folder.display();
            Err(crate::exit::file(format!("there is no folder `{folder}` for the picture; make it first")))
        }
    }
}

impl Args {
    fn draw(&self) -> Draw {
        Draw {
            negative: self.negative.clone(),
            steps: self.steps,
            guidance: self.guidance,
            seed: self.seed.into(),
            size: self.size,
            sampler: self.sampler,
            eta: self.eta,
            ..Draw::new(&self.prompt)
        }
    }

    /// The picture as PNG, with what it was drawn by.
    fn file(&self, drawn: &Drawn) -> Result<Vec<u8>> {
        let (width, height, sampler) = (drawn.picture.width(), drawn.picture.height(), drawn.sampler.name());
        let Args { steps, guidance, seed, eta, .. } = self;
        let settings = format!(
            "steps {steps}, guidance {guidance}, seed {seed}, sampler {sampler}, eta {eta}, size {width}x{height}"
        );
        let (model, software) =
            (self.model.display().to_string(), format!("aneforge {}", env!("CARGO_PKG_VERSION")));
        let texts = [
            ("Software", &software[..]),
            ("prompt", &self.prompt),
            ("negative", &self.negative),
            ("settings", &settings),
            ("model", &model),
        ];
        Ok(png::encode(&drawn.picture, &texts)?)
    }
}
