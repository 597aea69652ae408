//! The step as a graph: gradients, what keeps them right in half precision, and what becomes of everything that is kept.

use super::{Options, Scaling};
use crate::grad::{GradError, Gradients, Rules, gradients_by};
use crate::ir::op::Op;
use crate::ir::ops::leaf::Role;
use crate::ir::types::TensorType;
use crate::ir::var::{BuildError, Var};
use crate::nn::{Loss, Noise, Parameter};
use crate::optim::{LARGEST, Outcome, Rates, Scale, Step, Weights, added, blended, clip_by_norm, joined};
use crate::{Graph, Shape};

/// The largest number that a gradient may have: the one before the end, where what overflowed may also stand.
const LARGEST_GRADIENT: f64 = 65472.0;

/// What a weight or a slot may be after a step: less than the largest number by more than the roundings of a step.
const LARGEST_MOVED: f64 = 65248.0;

/// The largest scale: the greatest power of two in half precision.
const MOST_SCALE: f64 = 32768.0;

/// A leaf that is kept from step to step, and what it is in the next one.
pub(super) type Carry = (Var, Var);

/// Leaves of one parameter.
#[derive(Clone, Debug)]
pub(super) struct Leaves {
    pub weight: Var,
    /// What rounding took from the weight, where that is kept.
    pub low: Option<Var>,
    /// What the rule keeps.
    pub slots: Vec<Var>,
    /// Its average over steps, as a pair.
    pub average: Option<[Var; 2]>,
    /// The sum of gradients of several batches, where a step has several or is in two parts.
    pub sum: Option<Var>,
}

/// Leaves of the whole step.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub rate: Var,
    pub decay: Option<Var>,
    /// The scale, and how many steps it has held.
    pub scale: Option<[Var; 2]>,
    /// 1 where a batch adds to the sums, 0 where it begins them.
    pub adds: Option<Var>,
}

fn one() -> Shape {
    Shape::new(&[1]).expect("invariant: one axis")
}

fn state(name: &str, shape: Shape) -> Var {
    Var::described_leaf(TensorType::f16(shape), Role::State, f64::INFINITY, name)
}

impl Leaves {
    pub fn new(parameter: &Parameter, options: &Options) -> Leaves {
        let shape = parameter.var.shape();
        let named = |what: &str| state(&format!("{}:{what}", parameter.name), shape);
        let on_device = options.weights != Weights::Masters;
        let slots = if on_device { options.optimizer.slots() } else { &[] };
        Leaves {
            weight: parameter.var.clone(),
            low: (options.weights == Weights::Paired).then(|| named("low")),
            slots: slots.iter().map(|name| named(name)).collect(),
            average: (on_device && options.average.is_some())
                .then(|| [named("average"), named("average.low")]),
            sum: options.in_parts().then(|| named("sum")),
        }
    }

    /// All that is kept beside the weight.
    pub fn kept(&self) -> impl Iterator<Item = &Var> {
        self.low.iter().chain(&self.slots).chain(self.average.iter().flatten()).chain(&self.sum)
    }
}

impl Control {
    pub fn new(options: &Options) -> Control {
        let feed = |name: &str| Var::named_input(TensorType::f16(one()), name);
        let decays = options.optimizer.weight_decay != 0.0 && !options.optimizer.coupled;
        let scaled = matches!(options.scaling, Scaling::Dynamic { .. });
        let named = |name: &str| state(name, one());
        Control {
            rate: feed("train.rate"),
            decay: decays.then(|| feed("train.decay")),
            scale: scaled.then(|| ["train.scale", "train.held"].map(named)),
            adds: options.in_parts().then(|| feed("train.adds")),
        }
    }

    /// The inputs that the trainer feeds, by their leaves' numbers.
    pub fn fed(&self) -> [Option<u64>; 3] {
        let number = |var: &Var| match var.op() {
            Op::Input(leaf) => leaf.id,
            _ => unreachable!("these are leaves"),
        };
        [Some(&self.rate), self.decay.as_ref(), self.adds.as_ref()].map(|var| var.map(number))
    }

    fn scale(&self, options: &Options) -> Scale {
        match (&self.scale, options.scaling) {
            (Some([scale, ..]), _) => Scale::Value(scale.clone()),
            (None, Scaling::Fixed(scale) | Scaling::Dynamic { initial: scale, .. }) => Scale::Fixed(scale),
        }
    }
}

/// A step, or a part of one.
pub(super) struct Part {
    pub outputs: Vec<Var>,
    pub carries: Vec<Carry>,
}

/// A step in one program or two.
pub(super) struct Parts {
    pub step: Part,
    /// What the gradients of the first one do to everything that is kept, where that is a program of its own.
    pub update: Option<Part>,
    /// The places of parameters that the loss does not depend on.
    pub unreached: Vec<usize>,
}

impl Part {
    pub fn graph(&self) -> Result<Graph, BuildError> {
        let pairs: Vec<(&Var, &Var)> = self.carries.iter().map(|(leaf, next)| (leaf, next)).collect();
        Graph::carrying(&self.outputs, &pairs)
    }
}

/// Everything that a step is made from.
pub(super) struct Builder<'a> {
    pub options: &'a Options,
    pub leaves: &'a [Leaves],
    pub control: &'a Control,
}

impl Builder<'_> {
    /// The programs of a step.
    pub fn parts(&self, loss: &Loss, noise: &Noise, rules: &mut Rules<'_>) -> Result<Parts, GradError> {
        let weights: Vec<Var> = self.leaves.iter().map(|leaves| leaves.weight.clone()).collect();
        let (root, seed) = loss.seed(&self.control.scale(self.options));
        let Gradients { values, unreached } = gradients_by(&root, &seed, &weights, &weights, rules)?;
        let loss = &loss.value;
        let (step, update) = match (self.options.weights, self.options.in_parts()) {
            (Weights::Masters, _) => (self.handed_over(loss, &values, noise), None),
            (_, false) => (self.whole(loss, &values, noise), None),
            (_, true) => {
                let sums: Vec<Var> = self.leaves.iter().filter_map(|leaves| leaves.sum.clone()).collect();
                (self.gather(loss, &values, noise), Some(self.update(&sums)))
            }
        };
        Ok(Parts { step, update, unreached })
    }

    /// Loss, gradients and update in one program: the loss, and for each parameter whether its gradient is finite.
    fn whole(&self, loss: &Var, gradients: &[Var], noise: &Noise) -> Part {
        let mut part = self.update(gradients);
        part.outputs.insert(0, loss.reshape(&[1]));
        part.carries.extend(noise.clock());
        part
    }

    /// Loss and gradients, which are added to sums.
    fn gather(&self, loss: &Var, gradients: &[Var], noise: &Noise) -> Part {
        let adds = self.control.adds.as_ref().expect("invariant: a step in parts has it");
        let adds = adds.greater(&Var::scalar(0.5));
        let share = 1.0 / self.options.accumulate as f64;
        let sum = |(leaves, gradient): (&Leaves, &Var)| {
            let sum = leaves.sum.clone().expect("invariant: a step in parts has sums");
            let gradient = if share == 1.0 { gradient.clone() } else { gradient.muls(share) };
            carry(&sum, adds.select(&(&sum + &gradient), &gradient))
        };
        let mut carries: Vec<Carry> = self.leaves.iter().zip(gradients).map(sum).collect();
        carries.extend(noise.clock());
        Part { outputs: vec![loss.reshape(&[1])], carries }
    }

    /// Gradients as results, for weights that the host keeps.
    fn handed_over(&self, loss: &Var, gradients: &[Var], noise: &Noise) -> Part {
        let mut outputs = vec![loss.reshape(&[1])];
        outputs.extend(gradients.iter().cloned());
        Part { outputs, carries: noise.clock().into_iter().collect() }
    }

    /// What becomes of everything that is kept: for each parameter whether its gradient is finite, and whether all that is kept of
    /// it stays so, and the length of all gradients where it is limited.
    fn update(&self, gradients: &[Var]) -> Part {
        let scale = self.control.scale(self.options);
        let sizes = Sizes::of(self.leaves, gradients);
        let numbers = flags(&sizes.gradients, LARGEST_GRADIENT);
        let (fits, slots) = self.fits(&sizes, &all(&numbers), &scale);
        let good = all(&joined(&[numbers.clone(), fits.clone()]));
        let gate = good.select(&Var::scalar(1.0), &Var::scalar(0.0));
        // Zeros where the step is void: also an infinity times 0 would be none.
        let mut gradients: Vec<Var> = gradients.iter().map(|g| g.clip(-LARGEST, LARGEST) * &gate).collect();
        let mut length = None;
        if let Some(most) = self.options.clip {
            let (shorter, long) = clip_by_norm(&gradients, most, &scale);
            gradients = shorter;
            length = Some(long);
        }
        let room = slots.map(|slots| all(&flags(&slots, LARGEST_MOVED / 2.0)));
        let (outcome, mut carries) = self.outcome(&good, &scale, room);
        let (rate, decay) = (self.control.rate.clone(), self.control.decay.clone());
        let rates = Rates { rate, decay, scale, outcome: Some(outcome) };
        let moved = |(leaves, gradient)| self.moved(leaves, gradient, &rates, &good);
        carries.extend(self.leaves.iter().zip(&gradients).flat_map(moved));
        let outputs = [numbers, fits].into_iter().chain(length).collect();
        Part { outputs, carries }
    }

    /// For each parameter whether all that is kept of it stays in half precision in a step of `finite` gradients, and the most that
    /// its slots are then. That goes by the greatest elements: what is no more than they are becomes no more than they do.
    fn fits(&self, sizes: &Sizes, finite: &Var, scale: &Scale) -> (Var, Option<Var>) {
        let (rate, decay) = (self.control.rate.clone(), self.control.decay.clone());
        let rates = Rates { rate, decay, scale: scale.clone(), outcome: None };
        let slots = vec![sizes.slots.clone(); self.options.optimizer.slots().len()];
        let Step { change, slots } =
            self.options.optimizer.most(&sizes.weights, &sizes.gradients, &slots, &rates);
        let mut fits = flags(&(&sizes.weights + &change), LARGEST_MOVED);
        if let Some(ways) = &sizes.ways {
            fits = fits.minimum(&flags(&(ways + change), LARGEST_MOVED));
        }
        let slots = slots.into_iter().reduce(|a, b| a.maximum(&b));
        if let Some(slots) = &slots {
            fits = fits.minimum(&flags(slots, LARGEST_MOVED));
        }
        (finite.select(&fits, &Var::scalar(1.0)), slots)
    }

    /// What one parameter becomes, with all that is kept of it; the weight is the last.
    fn moved(&self, leaves: &Leaves, gradient: &Var, rates: &Rates, good: &Var) -> Vec<Carry> {
        let step = self.options.optimizer.step(&leaves.weight, gradient, &leaves.slots, rates);
        let mut carries: Vec<Carry> =
            leaves.slots.iter().zip(step.slots).map(|(leaf, next)| carry(leaf, next)).collect();
        let weight = match &leaves.low {
            None => &leaves.weight - step.change,
            Some(low) => {
                let [weight, lost] = added(&leaves.weight, low, &step.change.muls(-1.0));
                carries.push(carry(low, lost));
                weight
            }
        };
        if let (Some([high, low]), Some(keep)) = (&leaves.average, self.options.average) {
            let moves = good.select(&Var::scalar(1.0 - keep), &Var::scalar(0.0));
            let [new, lost] = blended(high, low, &weight, &moves);
            carries.extend([carry(high, new), carry(low, lost)]);
        }
        carries.push(carry(&leaves.weight, weight));
        carries
    }

    /// The scale is halved after a void step, and doubled after many others, once there is `room` for what goes with it.
    fn outcome(&self, good: &Var, scale: &Scale, room: Option<Var>) -> (Outcome, Vec<Carry>) {
        let (Some([scale, held]), Scaling::Dynamic { patience, .. }) =
            (&self.control.scale, self.options.scaling)
        else {
            return (Outcome { good: good.clone(), scale: scale.clone(), ratio: None }, Vec::new());
        };
        let (zero, patience) = (Var::scalar(0.0), f64::from(patience));
        let counted = held.adds(1.0).minimum(&Var::scalar(patience));
        let full = flags(&counted.muls(-1.0), -patience);
        let full = room.map_or_else(|| full.clone(), |room| room.select(&full, &zero));
        let full = full.greater(&Var::scalar(0.5));
        let up = full.select(&scale.muls(2.0), scale).minimum(&Var::scalar(MOST_SCALE));
        let down = scale.muls(0.5).maximum(&Var::scalar(1.0));
        let next = good.select(&up, &down);
        let counted = good.select(&full.select(&zero, &counted), &zero);
        let outcome =
            Outcome { good: good.clone(), scale: Scale::Value(next.clone()), ratio: Some(&next / scale) };
        (outcome, vec![(held.clone(), counted), (scale.clone(), next)])
    }
}

/// The greatest magnitudes of each parameter's elements and their averages, of its gradient's, of its slots', and of the ways from
/// averages to weights.
struct Sizes {
    weights: Var,
    ways: Option<Var>,
    gradients: Var,
    slots: Var,
}

impl Sizes {
    fn of(leaves: &[Leaves], gradients: &[Var]) -> Sizes {
        let of = |values: &dyn Fn(&Leaves) -> Vec<Var>| {
            let sizes: Vec<Var> = leaves.iter().map(|leaves| largest(&values(leaves))).collect();
            joined(&sizes)
        };
        let average = |leaves: &Leaves| leaves.average.as_ref().map(|[high, _]| high.clone());
        let weights = of(&|leaves| average(leaves).into_iter().chain([leaves.weight.clone()]).collect());
        let ways = of(&|leaves| average(leaves).iter().map(|high| &leaves.weight - high).collect());
        let ways = leaves.iter().any(|leaves| leaves.average.is_some()).then_some(ways);
        let gradients: Vec<Var> = gradients.iter().map(largest_or_end).collect();
        Sizes { weights, ways, gradients: joined(&gradients), slots: of(&|leaves| leaves.slots.clone()) }
    }
}

/// What a leaf becomes. Numbers of one element lend an axis to what has none.
fn carry(leaf: &Var, next: Var) -> Carry {
    let next = if next.shape() == leaf.shape() { next } else { next.reshape_to(leaf.shape()) };
    (leaf.clone(), next)
}

/// The greatest magnitude in all of these, of one element; 0 of none.
fn largest(values: &[Var]) -> Var {
    let sizes = values.iter().map(Var::abs).reduce(|a, b| a.maximum(&b));
    sizes.map_or_else(|| Var::full(one(), 0.0), |sizes| greatest(&sizes))
}

/// The same of one array, the largest number where an element is that or not finite. They are compared one by one: no comparison
/// holds with NaN, which an extreme of a whole array need not see.
fn largest_or_end(values: &Var) -> Var {
    let (size, end) = (values.abs(), Var::scalar(LARGEST));
    greatest(&size.less(&end).select(&size, &end))
}

fn greatest(sizes: &Var) -> Var {
    let axes: Vec<i64> = (0..sizes.shape().rank() as i64).collect();
    sizes.amax(&axes).reshape(&[1])
}

/// 1 where a value is at most this, else 0.
fn flags(values: &Var, most: f64) -> Var {
    values.less_equal(&Var::scalar(most)).select(&Var::scalar(1.0), &Var::scalar(0.0))
}

/// Whether all of these are 1.
fn all(flags: &Var) -> Var {
    flags.amin(&[0]).greater(&Var::scalar(0.5))
}
