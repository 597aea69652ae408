//! Examples of the user's own: what is read, and what is learned from.

pub mod idx;
pub mod images;
pub mod package;
pub mod pictures;
pub mod table;

use crate::exit::file;
use aneforge_tensor::random::word;
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The least share of its mean by which a number has to vary: half precision tells neighbours 1/1024 apart.
const RESOLVED: f64 = 512.0;
/// The least deviation whose inverse half precision holds.
const LEAST: f64 = 1.0 / 65504.0;

/// Examples, all of one shape.
pub struct Data {
    /// Where they are from.
    pub name: String,
    /// The extents of one.
    pub shape: Vec<usize>,
    /// What the numbers of an example are called, where they have names.
    pub features: Vec<String>,
    /// One example after the other.
    pub values: Vec<f32>,
    pub targets: Targets,
}

impl Data {
    /// Writes what classes are called, and the features, beside a program.
    pub fn write_labels(&self, program: &Path) -> Result<Option<PathBuf>> {
        let Targets::Classes { names, .. } = &self.targets else { return Ok(None) };
        let path = labels(program);
        let text = json!({ "labels": names, "features": self.features, "shape": self.shape });
        aneforge::artifact::replace(&path, |to| writeln!(to, "{text:#}"))?;
        Ok(Some(path))
    }
}

/// The file beside a program that says what classes are called.
pub fn labels(program: &Path) -> PathBuf {
    let mut path = program.to_path_buf().into_os_string();
    path.push(".labels.json");
    path.into()
}

/// What is to be learned of examples.
pub enum Targets {
    /// Which of several kinds each is.
    Classes { names: Vec<String>, of: Vec<usize> },
    /// A number of each.
    Numbers { name: String, of: Vec<f32> },
}

/// Which examples are trained on, and which are held out.
pub struct Split {
    pub trained: Vec<usize>,
    pub held_out: Vec<usize>,
}

impl Data {
    pub fn len(&self) -> usize {
        match &self.targets {
            Targets::Classes { of, .. } => of.len(),
            Targets::Numbers { of, .. } => of.len(),
        }
    }

    /// How many numbers an example has.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The numbers of one.
    pub fn example(&self, index: usize) -> &[f32] {
        &self.values[index * self.width()..][..self.width()]
    }

    /// How many numbers are predicted of each.
    pub fn outputs(&self) -> usize {
        match &self.targets {
            Targets::Classes { names, .. } => names.len(),
            Targets::Numbers { .. } => 1,
        }
    }

    /// Holds out this share, of each class where there are some, drawn by the seed.
    pub fn split(&self, share: f64, seed: u64) -> Result<Split> {
        let groups: Vec<Vec<usize>> = match &self.targets {
            Targets::Numbers { of, .. } => vec![(0..of.len()).collect()],
            Targets::Classes { names, of } => {
                let members = |class| (0..of.len()).filter(|&i| of[i] == class).collect();
                (0..names.len()).map(members).collect()
            }
        };
        let mut split = Split { trained: Vec::new(), held_out: Vec::new() };
        for mut group in groups {
            group.sort_by_key(|&index| word(seed, index as u64));
            let out = (group.len() as f64 * share).round() as usize;
            // What is only held out is not learned.
            let out = out.min(group.len().saturating_sub(1));
            split.held_out.extend(&group[..out]);
            split.trained.extend(&group[out..]);
        }
        split.held_out.sort_unstable();
        split.trained.sort_unstable();
        match share > 0.0 && split.held_out.is_empty() {
            true => Err(file(format!(
                "{}: {} examples are too few to hold {share} of them out; add some, or say `--held-out 0`",
                self.name,
                self.len()
            ))),
            false => Ok(split),
        }
    }

    /// The mean and the deviation over these examples: of each feature of a table, of each channel of images.
    pub fn moments(&self, examples: &[usize]) -> Vec<(f64, f64)> {
        let groups = self.shape[0];
        let each = self.width() / groups;
        let of = |group: usize| {
            moments(examples.iter().flat_map(|&i| &self.example(i)[group * each..][..each]).copied())
        };
        (0..groups).map(of).collect()
    }

    /// Whether half precision tells these examples apart, in which programs take and give numbers.
    pub fn check(&self, examples: &[usize]) -> Result<()> {
        let features = self.features.iter().zip(self.moments(examples));
        let target = match &self.targets {
            Targets::Classes { .. } => None,
            Targets::Numbers { name, of } => Some((name, moments(examples.iter().map(|&i| of[i])))),
        };
        for (column, (mean, deviation)) in features.chain(target) {
            if deviation > 0.0 && deviation < (mean.abs() / RESOLVED).max(LEAST) {
                return Err(file(format!(
                    "{}: `{column}` varies by {deviation:.3e} around {mean:.3e}, which half precision hardly tells apart; \
                     subtract what is common, or use a smaller unit",
                    self.name
                )));
            }
        }
        Ok(())
    }
}

/// The mean and the deviation.
pub fn moments(values: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The name of each class, sorted, and the class of each example.
pub fn classes(labels: Vec<String>) -> Targets {
    let mut names = labels.clone();
    // Numbers by their value, words by their letters.
    let number = |name: &String| name.parse::<f64>().ok();
    match names.iter().all(|name| number(name).is_some()) {
        true => names.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(a.cmp(b)).then(a.cmp(b))),
        false => names.sort(),
    }
    names.dedup();
    let find = |label: &String| names.iter().position(|name| name == label);
    let of = labels.iter().map(|label| find(label).expect("invariant: names are those of labels")).collect();
    Targets::Classes { names, of }
}
