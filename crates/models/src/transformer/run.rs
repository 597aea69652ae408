//! A transformer on a device: its programs, and texts through them.

use super::batches::{Batch, Batches, bucket};
use super::config::{Config, optional};
use super::layers::Transformer;
use super::tokens::{Reader, TextReader, TokenizerFile, Tokens};
use crate::encoder::{EncodeError, LoadError};
use crate::programs::Programs;
use crate::weights::Beyond;
use aneforge::Feed;
use aneforge::compile::compile;
use aneforge::device::{self, Device};
use aneforge::ir::ops::attention::HIDDEN;
use aneforge::passes::{CompileOptions, Norms};
use aneforge::plan::Plan;
use aneforge::session::{RunError, Session};
use aneforge::target::Target;
use aneforge_formats::Checkpoint;
use aneforge_tensor::f16;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Told how many texts of how many are done; may stop.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>;

/// A transformer that is ready to run.
pub(crate) struct Runner {
    pub(crate) model: Transformer,
    pub(crate) reader: Arc<TextReader>,
    pub(crate) target: Target,
    /// How norms are written: robustly where weights are tables of few values, with which values arise that plain norms overflow on.
    pub(crate) norms: Norms,
    pub(crate) device: Arc<dyn Device>,
    /// By texts and tokens.
    programs: Programs<(usize, usize)>,
    /// What was compiled, also for programs that are not loaded any more, by texts and tokens.
    plans: Vec<((usize, usize), Arc<Plan>)>,
}

/// Plans that are kept: more than one call needs, and each is some hundred kilobytes beside the weights, which all share.
const PLANS: usize = 64;
/// Programs that are kept on the host, where loading takes milliseconds and a program holds all that its layers give.
const ON_HOST: usize = 8;
/// Programs that are kept on the engine, which takes long to load them.
const ON_ENGINE: usize = 32;

/// How a transformer is loaded.
pub(crate) struct RunnerOptions {
    /// The most tokens, as asked for or as a file beside the tokenizer's says.
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) lowercase: bool,
    pub(crate) pairs: bool,
    pub(crate) int8: bool,
    pub(crate) target: Target,
    pub(crate) device: Option<Arc<dyn Device>>,
    pub(crate) programs: Option<usize>,
}

/// What `sentence_bert_config.json` says of texts.
#[derive(Deserialize, Default)]
pub(crate) struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    pub(crate) do_lower_case: bool,
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    /// A huge number where there is no limit.
    model_max_length: Option<f64>,
}

/// The most tokens of a text, where the files beside the tokenizer's say so.
pub(crate) fn longest(root: &Path, sentence: &SentenceConfig) -> Result<Option<usize>, LoadError> {
    let tokenizer: TokenizerConfig = optional(&root.join("tokenizer_config.json"))?.unwrap_or_default();
    let (file, name, most) = match sentence.max_seq_length {
        Some(most) => ("sentence_bert_config.json", "max_seq_length", Some(most as f64)),
        None => ("tokenizer_config.json", "model_max_length", tokenizer.model_max_length),
    };
    match most {
        Some(most) if most < 1.0 => {
            let why = format!("{name} is {most}; it must be at least 1");
            Err(LoadError::Config { path: root.join(file), why })
        }
        most => Ok(most.map(|most| most as usize)),
    }
}

impl Runner {
    /// Loads the transformer in a directory, and gives its `config.json` too. No weight is read yet.
    pub(crate) fn open(
        root: &Path,
        options: RunnerOptions,
    ) -> Result<(Runner, Map<String, Value>), LoadError> {
        let (config, file) = Config::read(&root.join("config.json"))?;
        let path = root.join("tokenizer.json");
        let tokenizer = TokenizerFile::open(&path)?;
        let positions = config.positions;
        let model = Transformer::new(Checkpoint::open(root)?, config, options.int8)?;
        let most = options.max_seq_length.or(tokenizer.most).unwrap_or(positions).min(positions);
        let reader = Arc::new(tokenizer.reader(&path, most, options.lowercase, options.pairs)?);
        let device = options.device.map_or_else(device::default, Ok)?;
        let usual = if device.name() == "host" { ON_HOST } else { ON_ENGINE };
        let (target, programs) = (options.target, Programs::new(options.programs.unwrap_or(usual)));
        Ok((Runner { model, reader, target, norms: Norms::Auto, device, programs, plans: Vec::new() }, file))
    }

    /// What makes tokens, for other threads.
    pub(crate) fn reader(&self) -> Reader {
        Reader { reader: Arc::clone(&self.reader), rows: self.model.vocabulary() }
    }

    /// The length of a state.
    pub(crate) fn dim(&self) -> usize {
        self.model.config.hidden
    }

    /// The program for one text of up to `tokens` tokens, compiled and loaded if it is not yet.
    pub(crate) fn program(&mut self, tokens: usize) -> Result<&mut Session, EncodeError> {
        let max = self.reader.most;
        self.program_for(1, bucket(tokens.min(max), max))
    }

    fn program_for(&mut self, batch: usize, length: usize) -> Result<&mut Session, EncodeError> {
        let Runner { model, target, norms, device, programs, plans, .. } = self;
        let shape = (batch, length);
        programs.get(shape, || {
            let known = plans.iter().find(|(known, _)| *known == shape).map(|(_, plan)| Arc::clone(plan));
            let plan = match known {
                Some(plan) => plan,
                None => {
                    let options = CompileOptions::target(*target).norms(*norms);
                    // The compiler knows constants by number; whoever wrote the file knows them by name.
                    let plan = compile(&[model.graph(batch, length)], &options)
                        .map_err(|e| bad_weight(model).unwrap_or(RunError::from(e).into()))?;
                    if plans.len() >= PLANS {
                        plans.remove(0);
                    }
                    plans.push((shape, Arc::new(plan)));
                    Arc::clone(&plans[plans.len() - 1].1)
                }
            };
            Ok(Session::new(plan, device)?)
        })
    }

    /// Gives the states of each, `[tokens, D]` without padding, with its place in `texts`. `progress` is told how many of
    /// how many are done, before the first and after each batch.
    pub(crate) fn states(
        &mut self,
        texts: &[&Tokens],
        progress: Progress<'_>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EncodeError> {
        let lengths: Vec<usize> = texts.iter().map(|tokens| tokens.ids.len()).collect();
        let mut done = 0;
        let mut room = Room::default();
        for batch in Batches::of(&lengths, self.reader.most).batches {
            report(progress, done, texts.len())?;
            let members: Vec<&Tokens> = batch.texts.iter().map(|&text| texts[text]).collect();
            self.run(&batch, &members, &mut room)?;
            let per_text = batch.length * self.dim();
            for ((&text, tokens), states) in
                batch.texts.iter().zip(&members).zip(room.states.chunks_exact(per_text))
            {
                each(text, &states[..tokens.ids.len() * self.dim()]);
            }
            done += batch.texts.len();
        }
        report(progress, done, texts.len())
    }

    /// Leaves the states of a batch in `room`, padding included.
    fn run(&mut self, batch: &Batch, texts: &[&Tokens], room: &mut Room) -> Result<(), EncodeError> {
        let (d, size, s) = (self.dim(), batch.size, batch.length);
        let Room { states, row } = room;
        states.resize(size * s * d, 0.0);
        let nothing = Tokens::default();
        for (at, out) in states.chunks_exact_mut(s * d).enumerate() {
            self.model.embed(texts.get(at).copied().unwrap_or(&nothing), row, out);
        }
        if states.iter().any(|v| !v.is_finite())
            && let Some(error) = bad_weight(&self.model)
        {
            return Err(error);
        }
        let session = self.program_for(size, s)?;
        session.set(0, Feed::F32(states), &[size * s, d])?;
        if let Some(mut mask) = session.input_mut(1) {
            for (at, row) in mask.chunks_exact_mut(s).enumerate() {
                // Of places without a text, all is seen, so that no softmax is of hidden keys alone.
                let seen = texts.get(at).map_or(s, |tokens| tokens.ids.len());
                row[..seen].fill(f16::ZERO);
                row[seen..].fill(f16::from_f64(HIDDEN));
            }
        }
        session.execute()?;
        session.read(0, states);
        Ok(())
    }
}

/// Memory that batches take one after the other.
#[derive(Default)]
struct Room {
    /// What the first layer takes, then what the last one gives.
    states: Vec<f32>,
    row: Vec<f32>,
}

/// The first weight that half precision cannot hold, by name.
pub(crate) fn bad_weight(model: &Transformer) -> Option<EncodeError> {
    let Beyond { directory, key, value, at } = model.weights.beyond_half()?;
    Some(EncodeError::Weight { directory, key, value, at })
}

fn report(progress: Progress<'_>, done: usize, total: usize) -> Result<(), EncodeError> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EncodeError::Stopped { done, total }),
    }
}
