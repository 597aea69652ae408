//! Chains of elementwise nodes: the same bits, and the same overflows, as node by node.

use crate::support::{draw, engine, tensor, twice};
use aneforge::ir::precision::Array;
use aneforge::{CompileOptions, Family, Numerics, Shape, Var, compile};
use aneforge_tensor::random;
use proptest::prelude::*;
use std::sync::Arc;

/// So large that chains of it take several blocks.
const SHAPE: [usize; 3] = [3, 41, 50];

struct Chains {
    seed: u64,
    drawn: u64,
    values: Vec<Var>,
}

impl Chains {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        (random::word(self.seed, self.drawn) % n as u64) as usize
    }

    /// One of the latest values, or any.
    fn pick(&mut self) -> Var {
        let late = if self.below(3) == 0 { self.values.len() } else { self.values.len().min(3) };
        let back = self.below(late);
        self.values[self.values.len() - 1 - back].clone()
    }

    fn constant(&mut self) -> Var {
        let dims = [&[50][..], &[41, 1], &[3, 1, 1], &SHAPE, &[]][self.below(5)];
        self.drawn += 1;
        Var::constant(tensor(&draw(Shape::new(dims).unwrap(), self.seed ^ self.drawn, (-2.0, 2.0))))
    }

    fn step(&mut self) {
        let (x, y) = (self.pick(), self.pick());
        let y = if self.below(2) == 0 { self.constant() } else { y };
        let z = match self.below(16) {
            0 => x.exp(),
            1 => x.square(),
            2 => x.sigmoid(),
            3 => x.log(1e-3),
            4 => x.rsqrt(1e-3),
            5 => x.clip(-3.0, 3.0),
            6 => &x + &y,
            7 => &x - &y,
            8 => &x * &y,
            9 => x.real_div(&y),
            10 => x.greater(&y).select(&x, &y),
            11 => x.less(&y).logical_not().select(&Var::from(0.5), &x),
            // What is no part of a chain.
            12 => x.softmax(-1),
            13 => &x - &x.mean(&[1]),
            14 => &x + &x.reshape(&[1, 3, 41, 50]).tanh().reshape(&[3, 41, 50]),
            _ => x.reverse(&[2]),
        };
        // What broadcasts may have become smaller or larger.
        if z.check().is_ok_and(|ty| ty.shape.dims() == SHAPE) {
            self.values.push(z);
        }
    }
}

fn network(seed: u64, steps: usize) -> Vec<Var> {
    let mut chains = Chains { seed, drawn: 0, values: vec![Var::input(Shape::new(&SHAPE).unwrap())] };
    (0..steps).for_each(|_| chains.step());
    let mut outputs: Vec<Var> = (0..chains.below(2)).map(|_| chains.pick()).collect();
    outputs.extend(chains.values.last().cloned());
    let fed = &chains.values[0] * 0.0;
    outputs.iter().map(|output| output + &fed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_are_the_same_as_node_by_node(seed in any::<u64>(), steps in 1usize..30) {
        let outputs = network(seed, steps);
        let plan = Arc::new(compile(&outputs, &CompileOptions::default()).unwrap());
        let values: Array = draw(Shape::new(&SHAPE).unwrap(), seed, (-1.5, 1.5));
        let feed = [tensor(&values)];
        for numerics in [Numerics::Ieee, Numerics::Ane(Family::A16)] {
            let host = |threads| engine(threads).with_numerics(numerics);
            let want = twice(&plan, host(1).unfused(), &feed);
            for threads in [1, 3] {
                prop_assert_eq!(&twice(&plan, host(threads), &feed), &want);
            }
        }
    }
}

/// What the networks are drawn for happens.
#[test]
fn random_networks_have_long_chains_and_chains_in_place() {
    let (mut longest, mut in_place, mut operands) = (0, 0, 0);
    for seed in 0..50 {
        let plan = compile(&network(seed, 20), &CompileOptions::default()).unwrap();
        for step in engine(1).plan(&plan.segments[0], plan.target).unwrap().steps {
            longest = longest.max(step.fused.links.len());
            operands = operands.max(step.inputs.len());
            in_place += usize::from(step.in_place.is_some() && step.fused.links.len() > 1);
        }
    }
    assert!(longest >= 8 && in_place >= 10 && operands >= 5, "{longest}, {in_place}, {operands}");
}

/// However long a chain, and however much of it waits for its end, each thread works on few blocks.
#[test]
fn chains_have_an_end() {
    let x = Var::input(Shape::new(&[4]).unwrap());
    let waiting: Vec<Var> = (1..=200).map(|i| &x * &Var::from(i as f32 / 256.0)).collect();
    let sum = waiting.iter().skip(1).fold(waiting[0].clone(), |sum, value| &sum + value);
    let plan = compile(&[sum], &CompileOptions::default()).unwrap();
    let host = engine(1).plan(&plan.segments[0], plan.target).unwrap();
    let nodes = |step: &aneforge::device::host::Step| step.fused.links.len();
    assert_eq!(host.steps.iter().map(nodes).sum::<usize>(), 399);
    assert!(host.steps.len() < 200 && host.steps.iter().all(|step| nodes(step) <= 64), "{host}");
    assert!(host.to_string().contains("together they are too long"), "{host}");
}

/// A chain reads no more operands than it can list, however many are added.
#[test]
fn chains_read_few_operands() {
    let shape = Shape::new(&[2, 4]).unwrap();
    let inputs: Vec<Var> = (0..40).map(|_| Var::input(shape)).collect();
    let sum = inputs.iter().skip(1).fold(inputs[0].clone(), |sum, value| &sum + value);
    let plan = compile(&[sum], &CompileOptions::default()).unwrap();
    let host = engine(1).plan(&plan.segments[0], plan.target).unwrap();
    let read: Vec<usize> = host.steps.iter().map(|step| step.inputs.len()).collect();
    assert_eq!(read, [10, 16, 16], "{host}");
}

/// So many links, and no more, have room in the cache.
#[test]
fn chains_have_few_links() {
    let x = Var::input(Shape::new(&[2, 4]).unwrap());
    let far = (0..100).fold(x, |x, _| x.tanh());
    let plan = compile(&[far], &CompileOptions::default()).unwrap();
    let host = engine(1).plan(&plan.segments[0], plan.target).unwrap();
    let links: Vec<usize> = host.steps.iter().map(|step| step.fused.links.len()).collect();
    assert_eq!(links, [36, 64], "{host}");
}
