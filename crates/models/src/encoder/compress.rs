//! Weights of an encoder in fewer bytes, chosen by what they are multiplied with.

use super::{EncodeError, Encoder};
use crate::transformer::run::bad_weight;
use crate::transformer::tokens::{Input, Tokens};
use aneforge::calibrate::calibrate_all;
use aneforge::device::host::{HostOptions, Sums, shared_with};
use aneforge::passes::{self, CompileOptions, Compression, Form, Norms};
use aneforge::{Graph, RunError, Tensor, Weight};
use aneforge_tensor::Shape;
use std::collections::{BTreeMap, HashMap};

/// The most lengths of texts that calibration compiles a program for; texts of other lengths are cut to the next shorter.
const LENGTHS: usize = 64;

impl Encoder {
    /// Stores the weights of the layers so, and remembers how.
    pub(super) fn compress(&mut self, compression: Compression, texts: &[String]) -> Result<(), EncodeError> {
        if matches!(compression.form, Form::Int4 | Form::Auto) {
            self.runner.norms = Norms::Robust;
        }
        let options = CompileOptions::target(self.runner.target).norms(self.runner.norms);
        let failed = |error| EncodeError::from(RunError::Compile(aneforge::CompileError::from(error)));
        let graph = |s: usize| {
            let frozen = Graph::freeze(&[self.runner.model.graph(1, s)]).map_err(passes::PassError::from);
            frozen.map_err(failed)
        };
        let calibration = match texts {
            [] => None,
            texts => {
                let mut graphs = Vec::new();
                for (s, sets) in self.sets(texts)? {
                    graphs.push((graph(s)?, sets));
                }
                // The same bits on every machine.
                let host =
                    shared_with(&HostOptions::default().sums(Sums::Defined)).map_err(RunError::from)?;
                Some(calibrate_all(&host, &options, &graphs)?)
            }
        };
        let weightless = |error| bad_weight(&self.runner.model).unwrap_or_else(|| failed(error));
        // What is stored takes the place of the weight, which leaves none for scales.
        let compression = compression.scales(false);
        let traces = passes::run(&graph(1)?, &options).map_err(weightless)?;
        let legal = &traces.last().expect("invariant: the pipeline has stages").graph;
        let (stored, reports) =
            passes::compress(legal, compression, options.target, calibration.as_ref()).map_err(weightless)?;
        let pairs = legal.constants().iter().zip(stored.constants());
        let by_identity: HashMap<_, &Weight> =
            pairs.map(|(full, stored)| (full.identity(), stored)).collect();
        self.runner
            .model
            .replace(&|weight| by_identity.get(&weight.identity()).map(|&stored| stored.clone()));
        self.weights = reports;
        let name =
            Form::NAMED.iter().find(|(_, form)| *form == compression.form).map_or("", |(name, _)| name);
        let how = if texts.is_empty() { "" } else { "calibrated " };
        self.stored = format!("{how}{name} weights");
        Ok(())
    }

    /// What the layers are fed for these texts, by the number of tokens. None is padded, as padding is not what the weights are
    /// for.
    fn sets(&self, texts: &[String]) -> Result<BTreeMap<usize, Vec<Vec<Tensor>>>, EncodeError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text)).collect();
        let read = self.runner.reader.read(&inputs, self.runner.model.vocabulary(), false)?;
        let tokens: Vec<Tokens> = read.into_iter().map(|(_, tokens)| tokens).collect();
        let mut lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len().max(1)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let step = lengths.len().div_ceil(LENGTHS);
        let lengths: Vec<usize> = lengths.into_iter().step_by(step.max(1)).collect();
        let mut sets: BTreeMap<usize, Vec<Vec<Tensor>>> = BTreeMap::new();
        let d = self.dim();
        for tokens in &tokens {
            let s = *lengths.iter().rfind(|&&s| s <= tokens.ids.len().max(1)).unwrap_or(&lengths[0]);
            let mut h = vec![0.0f32; s * d];
            self.runner.model.embed(tokens, &mut Vec::new(), &mut h);
            let made = |dims: &[usize], values: &[f32]| {
                let shape = Shape::new(dims).expect("invariant: a text has tokens");
                Tensor::from_slice(shape, values).expect("invariant: one value per element")
            };
            let mask = vec![0.0f32; s];
            sets.entry(s).or_default().push(vec![made(&[s, d], &h), made(&[1, 1, 1, s], &mask)]);
        }
        Ok(sets)
    }
}
