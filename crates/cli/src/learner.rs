//! A small network that learns from examples of the user's own.

use crate::data::{Data, Targets, moments};
use crate::exit::caller;
use aneforge::nn::{Conv2d, Linear, Loss, Scope, mse, one_hot, softmax_cross_entropy};
use aneforge::train::Trainer;
use aneforge::{Feed, Session, Shape, Target, Tensor, Var};
use anyhow::{Context, Result};

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Two hidden layers
    Mlp,
    /// Two convolutions with pools, and a hidden layer; for images
    Cnn,
}

/// Channels of the convolutions.
const CHANNELS: [usize; 2] = [16, 32];

/// A network, and the numbers by which it makes examples alike and predictions what the user has.
#[derive(Clone)]
pub struct Network {
    conv: Vec<Conv2d>,
    fc: Vec<Linear>,
    /// Subtracted from an example, and multiplied with it.
    mean: Var,
    scale: Var,
    /// What a predicted number is multiplied with, and what is added.
    back: Option<(f64, f64)>,
    shape: Vec<usize>,
    /// Numbers of an example before the first hidden layer.
    inputs: usize,
}

impl Network {
    /// A network for such examples, whose moments are those of what it is trained on.
    pub fn new(kind: Kind, data: &Data, trained: &[usize], hidden: usize, scope: &Scope) -> Result<Network> {
        let own = data.moments(trained);
        let mut extents = vec![1; data.shape.len() + 1];
        extents[1] = own.len();
        let row = |value: &dyn Fn(&(f64, f64)) -> f64| -> Result<Var> {
            let values: Vec<f32> = own.iter().map(|moment| value(moment) as f32).collect();
            Ok(Var::constant(Tensor::from_slice(Shape::new(&extents)?, &values)?))
        };
        let (mean, scale) = (row(&|moment| moment.0)?, row(&|moment| inverse(moment.1))?);
        let (mut conv, mut inputs) = (Vec::new(), data.width());
        if kind == Kind::Cnn {
            let mut channels = data.shape[0];
            for (at, next) in CHANNELS.into_iter().enumerate() {
                conv.push(Conv2d::new(&scope.at(format!("conv{}", at + 1)), channels, next, 3));
                channels = next;
            }
            let side = |extent: usize| extent / (1 << CHANNELS.len());
            inputs = channels * side(data.shape[1]) * side(data.shape[2]);
        }
        let sizes = match kind {
            Kind::Mlp => vec![inputs, hidden, hidden, data.outputs()],
            Kind::Cnn => vec![inputs, hidden, data.outputs()],
        };
        let layer =
            |(at, pair): (usize, &[usize])| Linear::new(&scope.at(format!("fc{}", at + 1)), pair[0], pair[1]);
        let fc = sizes.windows(2).enumerate().map(layer).collect();
        let back = match &data.targets {
            Targets::Classes { .. } => None,
            Targets::Numbers { of, .. } => Some(moments(trained.iter().map(|&i| of[i])))
                .map(|(mean, deviation)| (mean, if deviation > 0.0 { deviation } else { 1.0 })),
        };
        Ok(Network { conv, fc, mean, scale, back, shape: data.shape.clone(), inputs })
    }

    /// Whether a program for the target has room for an example, and pools leave something of it.
    pub fn fits(&self, data: &Data, target: Target) -> Result<()> {
        let (most, numbers) = (target.family().limits().tensor_dim, self.inputs.max(data.outputs()));
        let name = &data.name;
        if self.inputs == 0 {
            let [.., rows, columns] = self.shape[..] else { unreachable!("images have rows and columns") };
            return Err(caller(format!(
                "{name}: images of {rows} by {columns} are too small for two pools; use `--network mlp`"
            )));
        }
        if numbers > most {
            let less = if self.shape.len() == 1 { "leave columns out" } else { "use a smaller `--size`" };
            return Err(caller(format!(
                "{name}: a layer of this network takes {numbers} numbers, and {target} allows {most}; {less}"
            )));
        }
        Ok(())
    }

    /// Examples as they are given.
    pub fn input(&self, batch: usize) -> Result<Var> {
        let extents: Vec<usize> = [batch].into_iter().chain(self.shape.iter().copied()).collect();
        Ok(Var::named_input(aneforge::TensorType::f16(Shape::new(&extents)?), "x"))
    }

    /// A number per class, or one of about 1.
    pub fn raw(&self, x: &Var) -> Var {
        let x = (x - &self.mean) * &self.scale;
        let x = self.conv.iter().fold(x, |x, layer| layer.forward(&x).relu().max_pool(2, 2, 0));
        let rows = x.shape()[0] as i64;
        let (last, hidden) = self.fc.split_last().expect("invariant: there are layers");
        let x = hidden.iter().fold(x.reshape(&[rows, -1]), |x, layer| layer.forward(&x).relu());
        last.forward(&x)
    }

    /// What users want: a probability per class, or the number.
    pub fn answer(&self, x: &Var) -> Var {
        let raw = self.raw(x);
        match self.back {
            None => raw.softmax(-1),
            Some((mean, deviation)) => raw.muls(deviation).adds(mean),
        }
    }

    /// What is to become small.
    pub fn loss(&self, x: &Var, target: &Var) -> Loss {
        match self.back {
            None => softmax_cross_entropy(&self.raw(x), target),
            Some(_) => mse(&self.raw(x), target).into(),
        }
    }

    /// What the loss compares with, of these examples.
    pub fn targets(&self, data: &Data, examples: &[usize]) -> Vec<f32> {
        match (&data.targets, self.back) {
            (Targets::Numbers { of, .. }, Some((mean, deviation))) => {
                examples.iter().map(|&i| ((f64::from(of[i]) - mean) / deviation) as f32).collect()
            }
            (Targets::Classes { of, names }, _) => {
                let labels: Vec<usize> = examples.iter().map(|&i| of[i]).collect();
                one_hot(&labels, names.len(), 0.0)
            }
            (Targets::Numbers { .. }, None) => unreachable!("numbers have a spread"),
        }
    }

    /// The same network with these weights in the program: parameters of `scope`, by name.
    pub fn fixed(&self, scope: &Scope, weights: &[(String, Tensor)]) -> Network {
        let mut fixed = self.clone();
        let parameters = scope.parameters();
        let conv = fixed.conv.iter_mut().map(|layer| (&mut layer.weight, &mut layer.bias));
        let fc = fixed.fc.iter_mut().map(|layer| (&mut layer.weight, &mut layer.bias));
        let leaves = conv.chain(fc).flat_map(|(weight, bias)| [Some(weight), bias.as_mut()]).flatten();
        for leaf in leaves {
            let parameter = parameters.iter().find(|parameter| parameter.var.id() == leaf.id());
            let name = &parameter.expect("invariant: weights are parameters").name;
            let value = weights.iter().find(|(other, _)| other == name);
            *leaf = Var::constant(value.expect("invariant: all have values").1.clone());
        }
        fixed
    }
}

/// One over a deviation; what never changes stays as it is.
fn inverse(deviation: f64) -> f64 {
    if deviation > 0.0 { 1.0 / deviation } else { 1.0 }
}

/// A program that answers with the weights as they are, for as many examples as it takes at once.
pub struct Examiner {
    session: Session,
    feed: usize,
    batch: usize,
}

impl Examiner {
    pub fn new(trainer: &Trainer, network: &Network, batch: usize) -> Result<Examiner> {
        let answer = network.answer(&network.input(batch)?);
        let session = trainer.evaluator(&[answer], false)?;
        let feed = session.plan().feeds.iter().position(|feed| !feed.role.is_kept());
        Ok(Examiner { session, feed: feed.context("invariant: it takes examples")?, batch })
    }

    /// How good the answers to these examples are: the share that is right, or the root of the mean square by which numbers are
    /// off.
    pub fn examine(&mut self, data: &Data, examples: &[usize]) -> Result<f64> {
        let (mut sum, outputs) = (0.0, data.outputs());
        let mut answers = vec![0.0; self.batch * outputs];
        let dims: Vec<usize> = [self.batch].into_iter().chain(data.shape.iter().copied()).collect();
        for chunk in examples.chunks(self.batch) {
            // The last one is filled with its first example, whose answers are not looked at.
            let filled = chunk.iter().chain(std::iter::repeat(&chunk[0])).take(self.batch);
            let values: Vec<f32> = filled.flat_map(|&i| data.example(i)).copied().collect();
            self.session.set(self.feed, Feed::F32(&values), &dims)?;
            self.session.execute()?;
            self.session.read(0, &mut answers);
            sum += chunk
                .iter()
                .zip(answers.chunks_exact(outputs))
                .map(|(&i, row)| score(data, i, row))
                .sum::<f64>();
        }
        let mean = sum / examples.len().max(1) as f64;
        Ok(if matches!(data.targets, Targets::Numbers { .. }) { mean.sqrt() } else { mean })
    }
}

fn score(data: &Data, example: usize, answer: &[f32]) -> f64 {
    match &data.targets {
        Targets::Classes { of, .. } => f64::from(u8::from(crate::lesson::best(answer) == of[example])),
        Targets::Numbers { of, .. } => f64::from(answer[0] - of[example]).powi(2),
    }
}
