//! `aneforge train`: a small network learns from a table or a folder of images.

mod findings;

use self::findings::Findings;
use crate::context::Context;
use crate::curve::{self, Row};
use crate::data::{Data, Split, Targets, images, labels, pictures, table};
use crate::exit::{caller, file, misuse};
use crate::learner::{Examiner, Kind, Network};
use crate::output::{self, grouped};
use aneforge::nn::{Noise, Scope};
use aneforge::optim::{Optimizer, Weights};
use aneforge::train::{Batches, Checkpoint, Options, Trainer};
use aneforge::{Device, Feed, Shape, Var, compile};
use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What follows the options in `aneforge help train`.
pub const JSON: &str = "\
JSON keys:
  data       examples, trained, held_out, shape, classes (null for numbers)
  network    kind, parameters
  device     name, description
  training   steps, seconds, steps_per_second (of this run), void (steps that changed nothing), curve: epoch, step, loss (the mean
             of the epoch, null where it is not finite), void, held_out (the share that is right or, of numbers, the root of the
             mean square by which they are off; null without any), lr, steps_per_second
  held_out   the last of these, null without any
  output     the program; labels: the file with the names of classes";

/// Train a small network on a table, a folder of images, or a set that `fetch` wrote
///
/// DATA is a table as CSV, whose last column or `--label` is to be learned, a folder with a folder of images (PNG,
/// JPEG, BMP) for each class, or a `.safetensors` file with `images` and `labels`, as `aneforge fetch` writes it. What is
/// learned becomes a program that `aneforge run` runs: it takes examples as they are, `[1, features]` or
/// `[1, channels, size, size]` with pixels from 0 to 255, and gives a probability per class, or the number. The names of
/// classes are written beside it, to `OUTPUT.labels.json`.
#[derive(clap::Args)]
pub struct Args {
    /// A CSV file, a folder of folders of images, or a file that `fetch` wrote
    #[arg(value_name = "DATA")]
    data: PathBuf,

    /// The program to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The network; by default `mlp` for a table and `cnn` for images
    #[arg(long, value_enum, value_name = "KIND")]
    network: Option<Kind>,

    /// Numbers in a hidden layer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    hidden: u16,

    /// How often all examples are gone through
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,

    /// Examples per step
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,

    /// The learning rate; by default 0.001, for sgd, momentum and nesterov 0.01, for lion 0.0003
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f64>,

    /// The rule by which weights follow gradients
    #[arg(long, value_enum, value_name = "RULE", default_value = "adam")]
    optimizer: Rule,

    /// Where weights are kept between steps
    #[arg(long, value_enum, value_name = "WHERE", default_value = "paired")]
    weights: Kept,

    /// The share of examples that is held out, to see what was learned
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, allow_negative_numbers = true)]
    held_out: f64,

    /// What weights, order and held-out examples are drawn by
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The column of a table to be learned, by its name
    #[arg(long, value_name = "NAME")]
    label: Option<String>,

    /// Learn a number instead of a class
    #[arg(long)]
    regression: bool,

    /// Pixels per row and column that images are brought to
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(4..=256))]
    size: u16,

    /// Take images without their colours
    #[arg(long)]
    grey: bool,

    /// Keep the training in this file after every epoch
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    /// Go on with the training in the checkpoint, bit for bit, up to as many epochs in all
    #[arg(long, requires = "checkpoint")]
    resume: bool,

    /// Write a row for each epoch to this CSV file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Add metrics of each epoch to a file in this folder, for TensorBoard
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,

    /// Draw loss and accuracy to this SVG file
    #[arg(long, value_name = "FILE")]
    curve: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Rule {
    Adam,
    /// With weights that shrink
    Adamw,
    Sgd,
    Momentum,
    Nesterov,
    Lion,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kept {
    /// In half precision
    Half,
    /// As sums of two halves
    Paired,
    /// In single precision on the host
    Masters,
}

impl Args {
    fn options(&self, context: &Context) -> Result<Options> {
        let (optimizer, lr) = match self.optimizer {
            Rule::Adam => (Optimizer::adam(), 1e-3),
            Rule::Adamw => (Optimizer::adamw(0.01), 1e-3),
            Rule::Sgd => (Optimizer::sgd(), 1e-2),
            Rule::Momentum => (Optimizer::momentum(0.9), 1e-2),
            Rule::Nesterov => (Optimizer::nesterov(0.9), 1e-2),
            Rule::Lion => (Optimizer::lion(0.01), 3e-4),
        };
        let weights = match self.weights {
            Kept::Half => Weights::Half,
            Kept::Paired => Weights::Paired,
            Kept::Masters => Weights::Masters,
        };
        let lr = self.lr.unwrap_or(lr);
        let options = Options { weights, compile: context.options(), ..Options::new(optimizer, lr) };
        options.check().map_err(caller)?;
        match (0.0..1.0).contains(&self.held_out) {
            true => Ok(options),
            false => {
                Err(misuse(format!("`--held-out` must be at least 0 and less than 1, got {}", self.held_out)))
            }
        }
    }

    /// Whether there are places for what is to be written, each its own, before anything is learned.
    fn places(&self) -> Result<()> {
        let others = [("--checkpoint", &self.checkpoint), ("--log", &self.log), ("--curve", &self.curve)];
        let others = others.into_iter().filter_map(|(what, path)| Some((what, path.as_ref()?)));
        let labels = labels(&self.output);
        let written = [("--output", &self.output), ("the names of classes", &labels)];
        let mut taken = vec![("DATA", self.data.canonicalize().unwrap_or_default())];
        for (what, path) in written.into_iter().chain(others) {
            if output::is_standard(path) {
                continue;
            }
            let shown = path.display();
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            if !parent.is_dir() {
                let parent = parent.display();
                return Err(file(format!("cannot write {shown}: there is no folder {parent}")));
            }
            if path.is_dir() {
                return Err(file(format!("cannot write {shown}: it is a folder; name a file in it")));
            }
            let place = match path.canonicalize() {
                Ok(place) => place,
                Err(_) => parent.canonicalize()?.join(path.file_name().unwrap_or_default()),
            };
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == place) {
                return Err(caller(format!("{other} and {what} are both {shown}; name another file")));
            }
            taken.push((what, place));
        }
        Ok(())
    }

    fn read(&self, context: &Context) -> Result<Data> {
        let _spinner = context.spinner("reading");
        let set = self.data.extension().is_some_and(|ending| ending == "safetensors");
        if set || self.data.is_dir() {
            if self.label.is_some() || self.regression {
                let what = if set { "set of images" } else { "folder" };
                return Err(misuse(format!(
                    "`--label` and `--regression` are for tables, and DATA is a {what}"
                )));
            }
            let folder = || images::read(&self.data, usize::from(self.size), self.grey);
            return if set { pictures::read(&self.data) } else { folder() };
        }
        if self.network == Some(Kind::Cnn) {
            return Err(misuse("`--network cnn` is for images, and DATA is a table"));
        }
        table::read(&self.data, self.label.as_deref(), self.regression)
    }

    fn kind(&self, data: &Data) -> Kind {
        self.network.unwrap_or(if data.shape.len() == 1 { Kind::Mlp } else { Kind::Cnn })
    }
}

/// A training, as far as it is.
struct Course<'a> {
    args: &'a Args,
    context: &'a Context,
    data: &'a Data,
    split: &'a Split,
    trainer: Trainer,
    network: &'a Network,
    x: Var,
    target: Var,
    examiner: Option<Examiner>,
    batches: Batches,
    rows: Vec<Row>,
    /// Steps and time of this run.
    done: (u64, Duration),
    /// Steps of this epoch that were void, and why the last one was.
    void: (u64, Option<String>),
}

/// Runs the command.
pub fn run(args: &Args, context: &Context, out: &mut dyn Write) -> Result<()> {
    let options = args.options(context)?;
    args.places()?;
    let device = context.device()?;
    let data = args.read(context)?;
    let split = data.split(args.held_out, args.seed)?;
    data.check(&split.trained)?;
    let (scope, kind) = (Scope::new(args.seed), args.kind(&data));
    let network = Network::new(kind, &data, &split.trained, usize::from(args.hidden), &scope)?;
    network.fits(&data, context.target)?;
    let mut course = Course::begin(args, context, &data, &split, &network, (&scope, options, &device))?;
    course.go()?;
    let weights = course.trainer.weights()?;
    let fixed = network.fixed(&scope, &weights);
    let plan = compile(&[fixed.answer(&fixed.input(1)?)], &context.options())?;
    plan.save(&args.output)?;
    let findings = Findings {
        args,
        data: &data,
        split: &split,
        device: &*device,
        rows: course.rows,
        done: course.done,
        why: course.void.1,
        kind,
        parameters: weights.iter().map(|(_, value)| value.shape().count()).sum(),
        labels: data.write_labels(&args.output)?,
    };
    findings.write(out)?;
    match context.json {
        true => output::print_json(out, &findings.json()),
        false => findings.print(out),
    }
}

fn measure(data: &Data) -> &'static str {
    if matches!(data.targets, Targets::Numbers { .. }) { "error" } else { "accuracy" }
}

impl<'a> Course<'a> {
    fn begin(
        args: &'a Args,
        context: &'a Context,
        data: &'a Data,
        split: &'a Split,
        network: &'a Network,
        (scope, options, device): (&Scope, Options, &Arc<dyn Device>),
    ) -> Result<Course<'a>> {
        let batch = usize::from(args.batch);
        let batches = Batches::new(split.trained.len(), batch, args.seed).ok_or_else(|| {
            let (name, count) = (&data.name, split.trained.len());
            caller(format!(
                "{name}: {count} examples to train on fill no batch of {batch}; use a smaller `--batch`"
            ))
        })?;
        let x = network.input(batch)?;
        let target = Var::input(Shape::new(&[batch, data.outputs()])?);
        let _spinner = context.spinner("compiling");
        let loss = network.loss(&x, &target);
        let trainer = Trainer::new(device.clone(), &loss, scope, &Noise::off(), options)?;
        let examiner = match split.held_out.is_empty() {
            true => None,
            false => Some(Examiner::new(&trainer, network, batch.min(split.held_out.len()))?),
        };
        let rows = Vec::new();
        let (done, void) = ((0, Duration::ZERO), (0, None));
        let mut course = Course {
            args,
            context,
            data,
            split,
            trainer,
            network,
            x,
            target,
            examiner,
            batches,
            rows,
            done,
            void,
        };
        if args.resume {
            course.resume()?;
        }
        Ok(course)
    }

    /// What a checkpoint must have been made with, to be gone on with.
    fn setting(&self) -> String {
        let (args, data) = (self.args, self.data);
        let mut hash = Sha256::new();
        data.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
        match &data.targets {
            Targets::Classes { names, of } => {
                hash.update(names.join("\n"));
                of.iter().for_each(|class| hash.update(class.to_le_bytes()));
            }
            Targets::Numbers { of, .. } => of.iter().for_each(|number| hash.update(number.to_le_bytes())),
        }
        let data = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (batch, seed, held_out) = (args.batch, args.seed, args.held_out);
        format!("batch {batch}, seed {seed}, held-out {held_out}, data {}", &data[..16])
    }

    /// Goes on from the checkpoint.
    fn resume(&mut self) -> Result<()> {
        let path = self.args.checkpoint.as_deref().context("invariant: it is required")?;
        let kept = Checkpoint::open(path)?;
        let note = |key: &str| {
            kept.note(key).ok_or_else(|| file(format!("{}: was not written by this command", path.display())))
        };
        let (written, own) = (note("setting")?, self.setting());
        if written != own {
            let path = path.display();
            return Err(file(format!(
                "{path}: is of other data or options: it has {written}, and this is {own}"
            )));
        }
        self.rows = serde_json::from_str(note("rows")?)
            .map_err(|error| file(format!("{}: {error}", path.display())))?;
        kept.restore(&mut self.trainer)?;
        let epochs = self.rows.len() as u64;
        if epochs > u64::from(self.args.epochs) {
            return Err(caller(format!(
                "{}: has {epochs} epochs, and `--epochs` asks for {}",
                path.display(),
                self.args.epochs
            )));
        }
        self.batches.seek(epochs * self.batches.per_epoch());
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        let Some(path) = &self.args.checkpoint else { return Ok(()) };
        let rows = serde_json::to_string(&self.rows)?;
        let notes = BTreeMap::from([("setting".to_owned(), self.setting()), ("rows".to_owned(), rows)]);
        Ok(Checkpoint::save(&self.trainer, &notes, path)?)
    }

    /// Trains until all epochs are done.
    fn go(&mut self) -> Result<()> {
        let (per_epoch, first) = (self.batches.per_epoch(), self.rows.len() as u64);
        let epochs = u64::from(self.args.epochs);
        let live = self.context.live((epochs - first) * per_epoch);
        let mut board = curve::board(self.args.tensorboard.as_deref())?;
        for epoch in first..epochs {
            let (begin, mut sum) = (Instant::now(), 0.0);
            for at in 1..=per_epoch {
                sum += f64::from(self.step()?);
                live.step((epoch - first) * per_epoch + at);
            }
            let took = begin.elapsed();
            self.done = (self.done.0 + per_epoch, self.done.1 + took);
            let held_out = match &mut self.examiner {
                Some(examiner) => Some(examiner.examine(self.data, &self.split.held_out)?),
                None => None,
            };
            let row = Row {
                epoch: epoch + 1,
                step: (epoch + 1) * per_epoch,
                loss: sum / per_epoch as f64,
                void: std::mem::take(&mut self.void.0),
                held_out,
                lr: self.trainer.lr(),
                steps_per_second: per_epoch as f64 / took.as_secs_f64().max(1e-9),
            };
            let held_out = held_out.map(|value| format!("  {} {value:.4}", measure(self.data)));
            let void = if row.void > 0 { format!("  {} void", grouped(row.void)) } else { String::new() };
            let held_out = held_out.unwrap_or_default();
            let text = format!("epoch {}  loss {:.4}{held_out}{void}", row.epoch, row.loss);
            live.say((epoch + 1 - first) * per_epoch, &text);
            curve::tell(board.as_mut(), &row, measure(self.data))?;
            self.rows.push(row);
            self.keep()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<f32> {
        let chosen = self.batches.next_batch().iter().map(|&at| self.split.trained[at]);
        let chosen: Vec<usize> = chosen.collect();
        let values: Vec<f32> = chosen.iter().flat_map(|&i| self.data.example(i)).copied().collect();
        let targets = self.network.targets(self.data, &chosen);
        let batch = [(&self.x, Feed::F32(&values)), (&self.target, Feed::F32(&targets))];
        let report = self.trainer.step(&batch)?;
        if let Some(why) = report.void() {
            self.void = (self.void.0 + 1, Some(why));
        }
        Ok(report.loss)
    }
}
