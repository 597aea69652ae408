//! A training on disk: what is needed to go on as if it had not stopped, bit for bit.

use super::{Options, Scaling, Trainer};
use crate::artifact::{StateError, load_values, save_values};
use crate::device::Feed;
use crate::{RunError, State};
use aneforge_tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// A training could not be kept, or not be gone on with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be written, or read. The environment's fault, or the file's.
    #[error(transparent)]
    File(#[from] StateError),
    /// It is no checkpoint of this training. The file's fault.
    #[error("{file}: {why}; it is a checkpoint of another network or of other options")]
    Other {
        /// The file.
        file: String,
        /// What does not fit.
        why: String,
    },
    /// It fits, but a training that goes on from it would go on otherwise than it began. The caller's fault.
    #[error(
        "{file}: the {what} was {was} when it was written, and is {is} now; take the same, or say that it is meant"
    )]
    Course {
        /// The file.
        file: String,
        /// What is another.
        what: String,
        /// When it was written.
        was: String,
        /// Now.
        is: String,
    },
    /// The device failed.
    #[error(transparent)]
    Run(Box<RunError>),
}

/// What checkpoints say they are.
const FORMAT: (&str, &str) = ("format", "aneforge training 1");
/// Before the names of counters.
const COUNTER: &str = "counter.";
/// Before the names of notes.
const NOTE: &str = "note.";
/// Before what steps go by that changes nothing that is kept.
const COURSE: &str = "course.";

/// What everything that is kept depends on: by name, and as texts.
fn nature(trainer: &Trainer) -> [(&'static str, String); 3] {
    let scale = match trainer.options().scaling {
        Scaling::Fixed(scale) => scale.to_string(),
        Scaling::Dynamic { .. } => "one that changes".into(),
    };
    let optimizer = trainer.options().optimizer.to_string();
    [("optimizer", optimizer), ("scale", scale), ("network", trainer.network.clone())]
}

/// What the steps to come depend on beside that.
fn course(options: &Options) -> [(&'static str, String); 4] {
    let patience = match options.scaling {
        Scaling::Fixed(_) => "none".into(),
        Scaling::Dynamic { patience, .. } => patience.to_string(),
    };
    let clip = options.clip.map_or_else(|| "none".into(), |clip| clip.to_string());
    [
        ("schedule", options.schedule.to_string()),
        ("accumulate", options.accumulate.to_string()),
        ("clip", clip),
        ("patience", patience),
    ]
}

/// A checkpoint that was read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    file: String,
    values: Vec<(String, Tensor)>,
    notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Writes all that `trainer` keeps, and notes of the caller, such as how many batches have been handed out. The file is
    /// replaced as a whole, and on the disk when this returns.
    pub fn save(
        trainer: &Trainer,
        notes: &BTreeMap<String, String>,
        path: &Path,
    ) -> Result<(), CheckpointError> {
        let values = trainer.kept_values().map_err(|e| CheckpointError::Run(Box::new(e)))?;
        let mut all = BTreeMap::from([(FORMAT.0.to_owned(), FORMAT.1.to_owned())]);
        let counters =
            trainer.counters().map(|(name, value)| (format!("{COUNTER}{name}"), value.to_string()));
        all.extend(counters);
        all.extend(nature(trainer).map(|(name, text)| (name.to_owned(), text)));
        all.extend(course(trainer.options()).map(|(name, text)| (format!("{COURSE}{name}"), text)));
        all.extend(notes.iter().map(|(key, note)| (format!("{NOTE}{key}"), note.clone())));
        Ok(save_values(&values, &all, path)?)
    }

    /// Reads one. What was changed since it was written is refused.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let (values, notes) = load_values(path)?;
        let file = path.display().to_string();
        if notes.get(FORMAT.0).map(String::as_str) != Some(FORMAT.1) {
            let why = "it does not say that it is one".into();
            return Err(CheckpointError::Other { file, why });
        }
        Ok(Checkpoint { file, values: values.into_iter().collect(), notes })
    }

    /// A note of the caller's.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(&format!("{NOTE}{key}")).map(String::as_str)
    }

    /// The weights and everything else that it holds, by name.
    pub fn values(&self) -> &[(String, Tensor)] {
        &self.values
    }

    /// Gives `trainer` all of it or, where something does not fit, nothing. That its steps go on as they would have is part of it: the
    /// same schedule, as many batches per step.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<(), CheckpointError> {
        self.check(trainer)?;
        for (what, is) in course(trainer.options()) {
            self.compared(what, &is, self.notes.get(&format!("{COURSE}{what}")))?;
        }
        self.restore_anyway(trainer)
    }

    /// That a note of the caller's is this one, where there is one.
    pub fn same(&self, key: &str, is: &str) -> Result<(), CheckpointError> {
        self.compared(key, is, self.notes.get(&format!("{NOTE}{key}")))
    }

    fn compared(&self, what: &str, is: &str, was: Option<&String>) -> Result<(), CheckpointError> {
        match was {
            Some(was) if was != is => Err(CheckpointError::Course {
                file: self.file.clone(),
                what: what.into(),
                was: was.clone(),
                is: is.into(),
            }),
            _ => Ok(()),
        }
    }

    /// That it is of this network, with this optimizer and this kind of scale.
    pub fn check(&self, trainer: &Trainer) -> Result<(), CheckpointError> {
        for (what, is) in nature(trainer) {
            let why = match (what, self.notes.get(what)) {
                (_, Some(was)) if *was == is => continue,
                ("network", _) => "it is of another network".into(),
                (_, Some(was)) => format!("its {what} is {was}, and this one {is}"),
                (_, None) => format!("it does not say its {what}"),
            };
            return Err(CheckpointError::Other { file: self.file.clone(), why });
        }
        Ok(())
    }

    /// The same as [`Checkpoint::restore`], where another course is meant.
    pub fn restore_anyway(&self, trainer: &mut Trainer) -> Result<(), CheckpointError> {
        self.check(trainer)?;
        let other = |why: String| CheckpointError::Other { file: self.file.clone(), why };
        let mut counters = [0; 5];
        for ((name, _), counter) in trainer.counters().iter().zip(&mut counters) {
            let note = self.notes.get(&format!("{COUNTER}{name}")).and_then(|note| note.parse().ok());
            *counter = note.ok_or_else(|| other(format!("it has no number for `{name}`")))?;
        }
        trainer.restore_values(&self.values).map_err(other)?;
        trainer.set_counters(counters);
        Ok(())
    }
}

impl Trainer {
    /// Everything that is kept, by name; single precision where the host keeps it.
    fn kept_values(&self) -> Result<Vec<(String, Tensor)>, RunError> {
        let mut all = Vec::new();
        for kept in &self.kept {
            for (name, state) in kept.named() {
                all.push((name.to_owned(), state.read()?));
            }
            for (name, values) in kept.on_host(&self.options) {
                let shape = kept.parameter.var.shape();
                all.push((name, Tensor::from_slice(shape, values).expect("invariant: one per element")));
            }
        }
        for (name, state) in self.shared() {
            all.push((name.to_owned(), state.read()?));
        }
        Ok(all)
    }

    /// Gives everything that is kept these values, of [`Trainer::kept_values`]: all of it or none.
    fn restore_values(&mut self, values: &[(String, Tensor)]) -> Result<(), String> {
        let before = self.kept_values().map_err(|e| e.to_string())?;
        for (name, value) in &before {
            let Some((_, given)) = values.iter().find(|(other, _)| other == name) else {
                return Err(format!("it has no `{name}`"));
            };
            if given.shape() != value.shape() || given.dtype() != value.dtype() {
                let (want, got) = (value.shape(), given.shape());
                return Err(format!("`{name}` is {}{want}, got {}{got}", value.dtype(), given.dtype()));
            }
        }
        if let Some((name, _)) = values.iter().find(|(name, _)| before.iter().all(|(own, _)| own != name)) {
            return Err(format!("it has `{name}`, which this training does not keep"));
        }
        let find = |name: &str| {
            let found = values.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| value.to_f32()).expect("invariant: all names were looked up")
        };
        let write =
            |(name, state): (&str, &State)| state.write(Feed::F32(&find(name))).map_err(|e| e.to_string());
        let options = self.options.clone();
        for kept in &mut self.kept {
            kept.named().try_for_each(write)?;
            for (name, values) in kept.on_host_mut(&options) {
                values.copy_from_slice(&find(&name));
            }
            kept.publish().map_err(|e| e.to_string())?;
        }
        self.shared().try_for_each(write)
    }

    /// State that belongs to no parameter that is trained, by name.
    fn shared(&self) -> impl Iterator<Item = (&str, &State)> {
        let frozen = self.frozen.iter().map(|(parameter, state)| (parameter.name.as_str(), state));
        self.states.iter().map(|state| (state.name(), state)).chain(frozen)
    }

    /// Numbers that belong to what is kept.
    fn counters(&self) -> [(&'static str, u64); 5] {
        [
            ("updates", self.updates),
            ("batches", self.batches as u64),
            ("skipped", self.skipped),
            ("held", u64::from(self.held)),
            ("scale", self.scale as u64),
        ]
    }

    fn set_counters(&mut self, [updates, batches, skipped, held, scale]: [u64; 5]) {
        (self.updates, self.batches, self.skipped) = (updates, batches as usize, skipped);
        (self.held, self.scale) = (held as u32, scale as f64);
    }
}
