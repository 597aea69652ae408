//! Random networks of images: however their values lie, the host computes what the ops define.

use crate::support::{IEEE, assert_same, draw, engine, feed_tensors, tensor, to_f64};
use aneforge::device::host::{Host, Operand, Order};
use aneforge::ir::ops::concat::{Concat, Reverse};
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::pool::{AvgPool, MaxPool};
use aneforge::{CompileOptions, Graph, Numerics, Session, Shape, Var, compile};
use aneforge_tensor::random;
use proptest::prelude::*;
use std::collections::BTreeSet;

struct Images {
    seed: u64,
    drawn: u64,
    values: Vec<Var>,
}

impl Images {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        (random::word(self.seed, self.drawn) % n.max(1) as u64) as usize
    }

    fn constant(&mut self, dims: &[usize], scale: f64) -> Var {
        let seed = self.seed.wrapping_add(self.drawn);
        self.drawn += 1;
        Var::constant(tensor(&draw(Shape::new(dims).unwrap(), seed, (-scale, scale))))
    }

    fn pick(&mut self) -> Var {
        let at = self.below(self.values.len());
        self.values[at].clone()
    }

    fn conv(&mut self, x: &Var) -> Var {
        let [c, h, w] = [1, 2, 3].map(|axis| x.shape()[axis]);
        let kernel = [h, w].map(|size| 1 + self.below(3.min(size)));
        let outputs = [4, c, 9, 33][self.below(4)];
        let groups = if outputs == c && self.below(2) == 0 { c } else { 1 };
        let pad = [0; 4].map(|_| self.below(3) as i64);
        let stride = 1 + self.below(2) as i64;
        let weight = self.constant(&[outputs, c / groups, kernel[0], kernel[1]], 0.3);
        let bias = (self.below(2) == 0).then(|| self.constant(&[outputs], 0.3));
        let op = Conv { strides: [stride; 2], pad, dilations: [1, 1], groups: groups as i64 };
        x.conv(op, &weight, bias.as_ref())
    }

    fn pool(&mut self, x: &Var) -> Var {
        let (kernel_sizes, strides, pad) = ([2, 3], [1 + self.below(2) as i64, 1], [1, 1, 0, 1]);
        match self.below(3) {
            0 => Var::apply(MaxPool { kernel_sizes, strides, pad, ceil_mode: false }, &[x]),
            1 => Var::apply(AvgPool { kernel_sizes, strides, pad, ceil_mode: true, exclude_pad: true }, &[x]),
            _ => {
                Var::apply(AvgPool { kernel_sizes, strides, pad, ceil_mode: false, exclude_pad: false }, &[x])
            }
        }
    }

    /// With another value of the same shape, if there is one.
    fn met(&mut self, x: &Var) -> Var {
        let alike: Vec<Var> = self.values.iter().filter(|v| v.shape() == x.shape()).cloned().collect();
        let other = alike[self.below(alike.len())].clone();
        match self.below(5) {
            0 => x + &other,
            1 | 2 => {
                let weight = self.constant(&[x.shape()[1], x.shape()[1], 3, 3], 0.2);
                let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
                other + x.conv(op, &weight, None)
            }
            3 => x.greater(&other).select(x, &other),
            _ => self.together(x),
        }
    }

    /// Values of as many pixels put together, whatever else reads them.
    fn together(&mut self, x: &Var) -> Var {
        let pixels = |v: &Var| [0, 2, 3].map(|axis| v.shape()[axis]);
        let alike = |v: &&Var| v.shape().rank() == 4 && pixels(v) == pixels(x);
        let alike: Vec<Var> = self.values.iter().filter(alike).cloned().collect();
        let mut parts: Vec<Var> =
            (0..2 + self.below(2)).map(|_| alike[self.below(alike.len())].clone()).collect();
        match self.below(4) {
            0 => parts.push(self.constant(x.shape().dims(), 1.0)),
            1 => parts[0] = x.relu(),
            // What no other reads.
            2 => {
                let weight = self.constant(&[5, x.shape()[1], 1, 1], 0.3);
                parts[1] = x.conv(
                    Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 },
                    &weight,
                    None,
                );
            }
            _ => {}
        }
        let together = Var::apply(Concat { axis: 1 }, &parts.iter().collect::<Vec<_>>());
        if self.below(3) > 0 || together.shape().count() > 1000 {
            return together;
        }
        self.values.push(together.clone());
        Var::apply(Concat { axis: 1 }, &[&together, &self.smoothed(x)])
    }

    /// As many windows as pixels.
    fn smoothed(&mut self, x: &Var) -> Var {
        let (kernel_sizes, strides, pad) = ([3, 3], [1, 1], [1; 4]);
        match self.below(2) {
            0 => Var::apply(MaxPool { kernel_sizes, strides, pad, ceil_mode: false }, &[x]),
            _ => {
                Var::apply(AvgPool { kernel_sizes, strides, pad, ceil_mode: false, exclude_pad: true }, &[x])
            }
        }
    }

    /// Some channels of a value, those that are left, and what is computed of those, together again.
    fn parted(&mut self, x: &Var) -> Var {
        let [n, c, h, w] = [0, 1, 2, 3].map(|axis| x.shape()[axis]);
        if c == 1 {
            return self.together(x);
        }
        let cut = 1 + self.below(c - 1);
        let part = |from: usize, to: usize| x.slice_by_size(&[0, from, 0, 0], &[n, to - from, h, w]);
        let (first, second) = (part(0, cut), part(cut, c));
        let weight = self.constant(&[3, c - cut, 3, 3], 0.2);
        let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
        let computed = match self.below(5) {
            0 => second.relu(),
            4 => second.softmax(1),
            1 => self.smoothed(&second),
            _ => second.conv(op, &weight, None),
        };
        self.values.push(first.clone());
        let meets = computed.check().is_ok_and(|ty| ty.shape.dims()[2..] == [h, w]);
        match self.below(5) {
            0 => computed,
            1 if meets => Var::apply(Concat { axis: 1 }, &[&first, &second, &computed]),
            2 if meets => Var::apply(Concat { axis: 1 }, &[&computed, &first]),
            3 if cut * 2 == c => &first * &second.sigmoid(),
            _ => Var::apply(Concat { axis: 1 }, &[&second.relu(), &first]),
        }
    }

    fn along(&mut self, x: &Var) -> Var {
        let [c, h, w] = [1, 2, 3].map(|axis| x.shape()[axis]);
        match self.below(13) {
            0 => x.relu(),
            1 => x * &self.constant(&[1, c, 1, 1], 1.0),
            2 => x * &self.constant(&[c, h, w], 1.0),
            3 => x * &self.constant(&[h, w], 1.0),
            4 => x.softmax([1, 2, 3][self.below(3)]),
            5 => Var::apply(Reverse { axes: vec![1 + self.below(3) as i64] }, &[x]),
            6 => x.slice_by_size(&[0, c / 2, h / 2, w / 3], &[x.shape()[0], c - c / 2, h - h / 2, w - w / 3]),
            7 => x.prelu(&self.constant(&[c], 1.0)),
            8 => {
                let [gamma, beta] = [self.constant(&[c], 1.0), self.constant(&[c], 1.0)];
                x.batch_norm(&gamma, &beta, &beta, &gamma.square(), 0.25)
            }
            9 => x * &x.mean(&[2, 3]).sigmoid(),
            10 | 11 => self.parted(x),
            _ => x + &x.mean(&[[1, 2, 3][self.below(3)]]),
        }
    }

    /// Where rows are wanted.
    fn rows(&mut self, x: &Var) -> Var {
        let [c, h, w] = [1, 2, 3].map(|axis| x.shape()[axis]);
        match self.below(6) {
            0 => x.transpose(&[0, 1, 3, 2]),
            1 => x.reshape(&[-1, c as i64, w as i64, h as i64]),
            2 => x.upsample(2),
            3 => x.mean(&[1, 3]) + x,
            // Side by side along an axis that an image has only then.
            4 => {
                let plane = x.mean(&[0, 1]).reshape(&[1, h as i64, w as i64]).relu();
                Var::stack(&[&plane, &(&plane * 0.5)], 2)
            }
            _ => x.instance_norm(&self.constant(&[c], 1.0), &self.constant(&[c], 1.0), 0.25),
        }
    }

    fn step(&mut self) {
        let x = self.pick();
        let y = match self.below(10) {
            0..=3 => self.conv(&x),
            4 => {
                let x = if self.below(2) == 0 { self.conv(&x) } else { x };
                let y = self.pool(&x);
                if y.check().is_ok() && self.below(2) == 0 { self.conv(&y) } else { y }
            }
            5 | 6 => self.met(&x),
            7 | 8 => self.along(&x),
            _ => self.rows(&x),
        };
        if y.check().is_ok_and(|ty| (1..3000).contains(&ty.shape.count())) {
            // Now and then as it is, so that something can be added to it; small, so that no sum overflows.
            let y = if self.below(3) == 0 { y * 0.25 } else { y.clip(-2.0, 2.0) };
            self.values.push(y);
        }
    }
}

/// Up to three outputs, the last of which is the last value.
fn network(seed: u64, steps: usize) -> (Vec<Var>, Shape) {
    let mut images = Images { seed, drawn: 0, values: Vec::new() };
    let channels = [1, 3, 8][images.below(3)];
    let shape = [1 + images.below(2), channels, 1 + images.below(7), 1 + images.below(7)];
    let shape = Shape::new(&shape).unwrap();
    images.values.push(Var::input(shape));
    (0..steps).for_each(|_| images.step());
    let mut outputs: Vec<Var> = (0..images.below(3)).map(|_| images.pick()).collect();
    outputs.extend(images.values.last().cloned());
    // Every output is computed, and of the feed.
    let unit = images.values[0].mean(&[0, 1, 2, 3]).reshape(&[]).clip(-0.5, 0.5);
    (outputs.iter().map(|output| output + &unit).collect(), shape)
}

fn session(outputs: &[Var], host: Host) -> Session {
    Session::new(compile(outputs, &CompileOptions::default()).unwrap(), host).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn images_are_the_same_wherever_their_elements_lie(seed in any::<u64>(), steps in 1usize..24) {
        let (outputs, shape) = network(seed, steps);
        let feeds = [draw(shape, seed, (-1.5, 1.5))];
        let graph = Graph::freeze(&outputs).unwrap();
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        let legal = &plan.traces.last().unwrap().graph;
        let want = legal.eval(&feeds, IEEE);
        prop_assume!(want.iter().all(|v| v.data.iter().all(|x| x.is_finite())));
        for host in [engine(2), engine(1), engine(1).unfused()] {
            for numerics in [Numerics::Ieee, Numerics::Ane(plan.target.family())] {
                let mut session = session(&outputs, host.clone().with_numerics(numerics));
                // Once more, as slots hold what the last run left there.
                for _ in 0..2 {
                    session.run(&feed_tensors(&graph, &feeds)).unwrap();
                    for (i, output) in legal.outputs().iter().enumerate() {
                        assert_same(&to_f64(&session.output(i)), &want[output.index()].data, "host");
                    }
                }
                assert_eq!(session.overflows().next(), None);
            }
        }
    }
}

/// What the networks are drawn for happens.
#[test]
fn random_networks_have_images_of_every_kind() {
    let (mut seen, mut read, mut written) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..600 {
        let (outputs, _) = network(seed, 20);
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        for step in engine(1).plan(&plan.segments[0], plan.target).unwrap().steps {
            let order = match step.output.order {
                Order::RowMajor => "rows",
                Order::Pixels { halo: [0, 0, 0, 0], .. } => "pixels",
                Order::Pixels { .. } => "pixels with zeros around them",
            };
            let ops = std::iter::once(step.op.name()).chain(step.fused.links.iter().map(|link| link.op));
            seen.extend(ops.map(|op| (op, order, step.fused.residual.is_some())));
            let is_part = |operand: &Operand| operand.to_string().contains('[');
            read.extend(step.inputs.iter().filter(|operand| is_part(operand)).map(|_| step.op.name()));
            written.extend(is_part(&step.output).then(|| step.op.name()));
        }
    }
    for wanted in [
        ("conv", "rows", false),
        ("conv", "rows", true),
        ("conv", "pixels", false),
        ("conv", "pixels", true),
        ("conv", "pixels with zeros around them", false),
        ("conv", "pixels with zeros around them", true),
        ("max_pool", "rows", false),
        ("max_pool", "pixels", false),
        ("max_pool", "pixels with zeros around them", false),
        ("avg_pool", "pixels", false),
        ("concat", "pixels", false),
        ("select", "pixels", false),
        ("softmax", "pixels", false),
        ("reduce_mean", "pixels", false),
        ("prelu", "pixels", false),
        ("batch_norm", "pixels", false),
        ("slice_by_size", "pixels", false),
    ] {
        assert!(seen.contains(&wanted), "{wanted:?}");
    }
    for wanted in ["conv", "avg_pool", "clip", "concat", "mul", "relu"] {
        assert!(read.contains(wanted), "{wanted} reads parts: {read:?}");
    }
    for wanted in ["conv", "max_pool", "avg_pool", "clip", "concat", "relu"] {
        assert!(written.contains(wanted), "{wanted} writes parts: {written:?}");
    }
}

/// A convolution that pads, of some channels of images that are one column wide: what is beside a pixel is not where its
/// next channel is.
#[test]
fn channels_of_single_columns_have_zeros_beside_them() {
    let x = Var::input(Shape::new(&[1, 3, 5, 1]).unwrap());
    let mut images = Images { seed: 7, drawn: 0, values: Vec::new() };
    let first = images.constant(&[9, 3, 2, 1], 0.3);
    let second = images.constant(&[6, 6, 1, 3], 0.3);
    let op = |pad| Conv { strides: [1, 1], pad, dilations: [1, 1], groups: 1 };
    let part = x.conv(op([0, 0, 0, 0]), &first, None).slice_by_size(&[0, 2, 0, 0], &[1, 6, 4, 1]);
    let outputs = [part.conv(op([0, 0, 1, 1]), &second, None).amax(&[2, 3])];
    let feeds = [draw(x.shape(), 3, (-1.5, 1.5))];
    let graph = Graph::freeze(&outputs).unwrap();
    let plan = compile(&outputs, &CompileOptions::default()).unwrap();
    let legal = &plan.traces.last().unwrap().graph;
    let want = legal.eval(&feeds, IEEE);
    let mut session = session(&outputs, engine(1).with_numerics(Numerics::Ieee));
    session.run(&feed_tensors(&graph, &feeds)).unwrap();
    assert_same(&to_f64(&session.output(0)), &want[legal.outputs()[0].index()].data, "host");
}
