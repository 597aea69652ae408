//! Random well-typed graphs, and what must hold for each of them.

use crate::support::{
    IEEE, assert_same, draw, engine, feed_tensors, random_weight, run_segments, tensor, to_f64,
};
use aneforge::diagnose::{diagnose, diagnose_plan};
use aneforge::ir::op::{OPS, Op};
use aneforge::ir::ops::binary::{Add, Maximum, Mul, Sub};
use aneforge::ir::ops::concat::{Concat, Reverse};
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::pool::{AvgPool, MaxPool};
use aneforge::ir::ops::reduce::{ReduceMax, ReduceMean, ReduceSum};
use aneforge::ir::ops::slice::Split;
use aneforge::ir::precision::{Array, Precision};
use aneforge::ir::{text, verify};
use aneforge::plan::{Span, assign_slots};
use aneforge::target::layers::written_out;
use aneforge::target::{Family, WIDEST_KERNEL};
use aneforge::{
    CompileOptions, DType, Encoding, Graph, Numerics, Session, Shape, Target, TensorType, Var, compile, nn,
    passes,
};
use aneforge_mil::verify::MAX_RANK;
use aneforge_tensor::random;
use proptest::prelude::*;

struct Generator {
    seed: u64,
    drawn: u64,
    pool: Vec<Var>,
    feeds: Vec<Array>,
}

impl Generator {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        (random::word(self.seed, self.drawn) % n.max(1) as u64) as usize
    }

    fn pick(&mut self) -> Var {
        let at = self.below(self.pool.len());
        self.pool[at].clone()
    }

    fn shape(&mut self, most: usize) -> Shape {
        let rank = 1 + self.below(4);
        let dims: Vec<usize> = (0..rank).map(|_| 1 + self.below(most)).collect();
        Shape::new(&dims).unwrap()
    }

    fn feed(&mut self) {
        let shape = self.shape(5);
        self.feeds.push(draw(shape, self.seed ^ self.feeds.len() as u64, (-1.5, 1.5)));
        self.pool.push(Var::input(shape));
    }

    fn constant(&mut self, dims: &[usize]) -> Var {
        let seed = self.seed.wrapping_add(self.drawn);
        Var::constant(tensor(&draw(Shape::new(dims).unwrap(), seed, (-1.0, 1.0))))
    }

    /// A weight, stored in any way that goes with its extents.
    fn weight(&mut self, dims: &[usize]) -> Var {
        let encoding = Encoding::ALL[self.below(Encoding::ALL.len())];
        Var::constant(random_weight(encoding, dims, self.seed.wrapping_add(self.drawn)))
    }

    /// Ops of one input that keep its type and need no attributes.
    fn unary(&mut self, x: &Var) -> Var {
        let bounded: Vec<Op> = OPS
            .iter()
            .filter(|e| e.info.inputs == ["x"] && e.info.attrs.iter().all(|a| a.default.is_some()))
            .filter_map(|e| (e.from_attrs)(&|_| None).ok())
            .filter(|op| op.infer(&[x.ty()]) == Ok(x.ty()))
            .filter(|op| {
                !matches!(op.name(), "exp" | "exp2" | "square" | "inverse" | "rsqrt" | "log" | "sqrt")
            })
            .collect();
        let at = self.below(bounded.len());
        Var::apply(bounded[at].clone(), &[x])
    }

    fn binary(&mut self, x: &Var) -> Var {
        let y = match self.below(3) {
            0 => self.pick(),
            1 => self.weight(x.shape().dims()),
            _ => Var::from(0.75),
        };
        let ops: [Op; 4] = [Add {}.into(), Sub {}.into(), Mul {}.into(), Maximum {}.into()];
        let op = ops[self.below(4)].clone();
        let y = if x.shape().broadcast(y.shape()).is_ok() { y } else { x.clone() };
        Var::apply(op, &[x, &y])
    }

    fn layout(&mut self, x: &Var) -> Var {
        let rank = x.shape().rank() as i64;
        let axis = self.below(rank as usize) as i64;
        match self.below(12) {
            0 => {
                let shift = axis;
                x.transpose(&(0..rank).map(|a| (a + shift) % rank).collect::<Vec<_>>())
            }
            1 => x.reshape(&[-1, x.shape()[rank as usize - 1] as i64]),
            2 => {
                let begin: Vec<usize> = x.shape().dims().iter().map(|d| d / 3).collect();
                let size: Vec<usize> = x.shape().dims().iter().zip(&begin).map(|(d, b)| d - b).collect();
                x.slice_by_size(&begin, &size)
            }
            3 => Var::apply(Concat { axis }, &[x, x]),
            4 => Var::apply(Reverse { axes: vec![axis] }, &[x]),
            5 => Var::stack(&[x, x], axis),
            6 => {
                let reps: Vec<usize> = (0..rank).map(|_| 1 + self.below(2) * self.below(3)).collect();
                x.tile(&reps)
            }
            7 => self.image(x),
            // Of values that others may read too.
            8 | 9 => {
                let (one, other) = (self.unary(x), self.product(x));
                let alike = |y: &Var| {
                    let (a, b) = (x.shape(), y.shape());
                    a.rank() == b.rank() && (0..a.rank()).all(|i| i as i64 == axis || a[i] == b[i])
                };
                let parts: Vec<&Var> = [x, &one, &other].into_iter().filter(|part| alike(part)).collect();
                Var::apply(Concat { axis }, &parts[usize::from(self.below(2) == 0 && parts.len() > 2)..])
            }
            // Halves that meet again.
            10 if x.shape()[axis as usize].is_multiple_of(2) => {
                let [a, b] = [0, 1].map(|index| Var::apply(Split { num_splits: 2, axis, index }, &[x]));
                if self.below(2) == 0 {
                    &a.sigmoid() * &b
                } else {
                    Var::apply(Concat { axis }, &[&b, &a.relu()])
                }
            }
            _ => {
                let size = x.shape()[axis as usize] as i64;
                let index = self.below(size as usize) as i64;
                Var::apply(Split { num_splits: size, axis, index }, &[x])
            }
        }
    }

    /// `x` as an image through an op that moves or mixes its pixels.
    fn image(&mut self, x: &Var) -> Var {
        let rank = x.shape().rank();
        let pixels = x.shape()[rank - 1] as i64;
        let x = x.reshape(&[1, -1, 1, pixels]);
        let x = Var::concat(&[&x, &x], 2);
        let channels = x.shape()[1];
        match self.below(10) {
            0 => x.upsample(1 + self.below(3)),
            1 => x.upsample_bilinear(2, self.below(2) == 0),
            2 => x.resize_nearest_neighbor(3, 1 + self.below(6)),
            3 => x.resize_bilinear(1 + self.below(4), 5, self.below(2) == 0),
            4 => Var::concat(&[&x; 4], 1).pixel_shuffle(2),
            5 => Var::concat(&[&x; 4], 1).depth_to_space(2),
            6 => x.upsample(2).pixel_unshuffle(2),
            7 => x.upsample(2).space_to_depth(2),
            8 => x.crop(self.below(2), 0, 0, self.below(pixels as usize)),
            _ => x.affine(&self.constant(&[1, 6]), 2, 3, channels.is_multiple_of(2)),
        }
    }

    /// An image or a sequence through an op with parameters per channel, or per batch.
    fn channelwise(&mut self, x: &Var) -> Var {
        let (rank, columns) = (x.shape().rank(), x.shape()[x.shape().rank() - 1]);
        let x = if rank == 4 { x.clone() } else { x.reshape(&[1, columns as i64, 1, -1]) };
        let c = x.shape()[1];
        let [gamma, beta] = [self.constant(&[c]), self.constant(&[c])];
        match self.below(8) {
            0 => x.prelu(&gamma),
            1 => x.instance_norm(&gamma, &beta, 0.25),
            2 => x.batch_norm(&gamma, &beta, &beta, &gamma.square(), 0.25),
            3 => x.group_norm(&gamma, &beta, c, 0.25),
            4 if x.shape()[2] == 1 => x.channel_layer_norm(&gamma, &beta, 0.25),
            5 => x.local_response_norm(1 + self.below(4), 0.5, 0.75, 1.0),
            6 => {
                let b = self.constant(&[x.shape()[0], x.shape()[3], x.shape()[2], 3]);
                x.row_product(&b)
            }
            _ => {
                let flat = x.reshape(&[x.shape()[0] as i64, c as i64, -1]);
                let weight = self.weight(&[x.shape()[0], flat.shape()[2], 2]);
                flat.bmm_weight(&weight)
            }
        }
    }

    fn reduction(&mut self, x: &Var) -> Var {
        let axes = vec![self.below(x.shape().rank()) as i64];
        let op: Op = match self.below(3) {
            0 => ReduceMean { axes }.into(),
            1 => ReduceMax { axes }.into(),
            _ => ReduceSum { axes }.into(),
        };
        Var::apply(op, &[x])
    }

    fn product(&mut self, x: &Var) -> Var {
        let columns = x.shape()[x.shape().rank() - 1];
        if x.shape().rank() == 4 && self.below(2) == 0 {
            let [c, h, w] = [1, 2, 3].map(|a| x.shape()[a]);
            return match self.below(4) {
                3 => {
                    let weight = x.narrow(0, 0, 1).narrow(3, 0, w.min(WIDEST_KERNEL));
                    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
                    x.narrow(0, 0, 1).conv(op, &weight, None)
                }
                0 => {
                    let weight = self.weight(&[3, c, 2.min(h), 2.min(w)]);
                    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
                    x.conv(op, &weight, None)
                }
                1 => Var::apply(
                    MaxPool { kernel_sizes: [2, 2], strides: [1, 1], pad: [1; 4], ceil_mode: false },
                    &[x],
                ),
                _ => Var::apply(
                    AvgPool {
                        kernel_sizes: [2, 2],
                        strides: [2, 1],
                        pad: [1; 4],
                        ceil_mode: true,
                        exclude_pad: true,
                    },
                    &[x],
                ),
            };
        }
        if x.shape().rank() >= 2 && self.below(3) == 0 {
            return x.matmul_value(&x.swap_last());
        }
        let n = 1 + self.below(5);
        let (weight, bias) = (self.weight(&[n, columns]), self.weight(&[n]));
        x.linear(&weight, (self.below(2) == 0).then_some(&bias))
    }

    /// A native layer, at which the graph is cut.
    fn layer(&mut self, x: &Var) -> Var {
        let (dims, count) = (x.shape(), x.shape().count());
        let chosen = self.below(6);
        match dims.dims() {
            [_, w] => match chosen {
                0 => x.argmax(self.below(2) as i64),
                1 => x.topk(1 + self.below((*w).min(2)), self.below(2) == 0),
                2 if count % 3 == 0 => x.reshape(&[-1, 3]).fps((count / 3).min(2)),
                3 if count % 3 == 0 => x.reshape(&[-1, 3]).radius_search(&x.reshape(&[-1, 3]), 0.75),
                _ => x.sort(self.below(2) == 0, self.below(2) == 0),
            },
            [_, _, _] if chosen < 3 => x.flatten(),
            [1, _, h, _] => match chosen {
                0 => x.minmax_norm("Height", 0.25),
                1 => x.lrn(0.5, 0.75, 1.0),
                2 => nn::sdpa(x, x, x, &nn::Attention { causal: true, ..Default::default() }),
                3 => nn::sdpa(x, x, x, &nn::Attention::default()),
                4 => x.space_to_batch(*h, 1),
                _ => x.space_to_channel(1),
            },
            _ if chosen < 3 => x.scaled_elementwise(x, "Max", 0.5),
            _ => x.input_view(count / 3, count - count / 3),
        }
    }

    fn step(&mut self) {
        let x = self.pick();
        if x.shape().rank() == 0 || x.shape().count() > 600 {
            return;
        }
        let y = match self.below(12) {
            0 | 1 => self.unary(&x),
            2 | 3 => self.binary(&x),
            4 | 5 => self.layout(&x),
            6 => self.reduction(&x),
            7 => self.product(&x),
            8 => self.image(&x),
            9 => self.channelwise(&x),
            10 => self.layer(&x),
            _ => {
                let other = self.unary(&x);
                x.greater(&Var::from(0.25)).select(&other, &x)
            }
        };
        // The engine has five axes. Values stay near one, so that no sum overflows and every order rounds alike.
        if y.check().is_ok_and(|ty| ty.dtype == DType::F16 && (1..=MAX_RANK).contains(&ty.shape.rank())) {
            self.pool.push(y.clip(-2.0, 2.0));
        }
    }
}

/// A random graph of up to `steps` ops with one to three outputs, and what to feed it.
pub fn generate(seed: u64, steps: usize) -> (Vec<Var>, Vec<Array>) {
    let mut generator = Generator { seed, drawn: 0, pool: Vec::new(), feeds: Vec::new() };
    generator.feed();
    generator.feed();
    (0..steps).for_each(|_| generator.step());
    let outputs: Vec<Var> = (0..1 + generator.below(3)).map(|_| generator.pick()).collect();
    // Every leaf is used, so that feeds and leaves agree.
    let mut first = outputs[0].clone();
    for leaf in &generator.pool[..2] {
        let all: Vec<i64> = (0..leaf.shape().rank() as i64).collect();
        let unit = leaf.mean(&all).reshape(&[]).clip(-0.5, 0.5);
        first = first + unit;
    }
    let outputs = std::iter::once(first).chain(outputs.into_iter().skip(1)).collect();
    (outputs, generator.feeds)
}

/// Whether a small change of the inputs makes a small change of the result.
fn is_continuous(op: &Op) -> bool {
    let jumps = [
        "floor",
        "ceil",
        "round",
        "native_round",
        "sign",
        "thresholded_relu",
        "greater",
        "argmax",
        "sort",
        "fps",
        "radius_search",
    ];
    !jumps.contains(&op.name())
}

pub fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The default target takes what compiles for it; for others there is something to say of every node.
fn judged(graph: &Graph) {
    for family in Family::ALL {
        let report = passes::preflight(graph, family);
        let sorted = report.native.len() + report.decompose.len() + report.reject.len();
        assert!((1..=written_out(graph).len()).contains(&sorted), "{sorted} nodes");
        assert!(report.ok() || family != Target::default().family(), "{report:?}");
        for notice in family.representative().iter().flat_map(|&target| passes::notices(graph, target)) {
            assert!(!notice.why.is_empty() && family.runs_mil());
        }
        let lines = passes::cross_chip(graph, [family, Family::A13]);
        assert!(lines.is_empty() || family > Family::A14, "{lines:?}");
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn random_graphs_survive_everything(seed in any::<u64>(), steps in 1usize..40) {
        let (outputs, feeds) = generate(seed, steps);
        let graph = Graph::freeze(&outputs).unwrap();
        verify::verify(&graph).unwrap();

        let printed = text::print(&graph);
        prop_assert_eq!(text::print(&text::parse(&printed).unwrap()), printed);

        let values = graph.eval(&feeds, IEEE);
        prop_assume!(values.iter().all(|v| v.data.iter().all(|x| x.is_finite())));

        let traces = passes::run(&graph, &CompileOptions::default()).unwrap();
        for trace in traces.iter().filter(|t| t.stage != "legalize") {
            let got = trace.graph.eval(&feeds, IEEE);
            for (a, b) in graph.outputs().iter().zip(trace.graph.outputs()) {
                assert_same(&got[b.index()].data, &values[a.index()].data, trace.stage);
            }
        }

        judged(&graph);
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        let legal = &plan.traces.last().unwrap().graph;
        let want = legal.eval(&feeds, IEEE);
        for engine in [engine(2), engine(1).unfused()] {
            let mut session = Session::new(plan.clone(), engine.with_numerics(Numerics::Ieee)).unwrap();
            session.run(&feed_tensors(&graph, &feeds)).unwrap();
            for (i, output) in legal.outputs().iter().enumerate() {
                assert_same(&to_f64(&session.output(i)), &want[output.index()].data, "host");
            }
        }

        // In double precision a legal graph is the graph as written, but for constants that it rounds to half
        // precision and the split of softplus; a jump would make a large difference of a small one.
        if graph.nodes().all(|(_, node)| is_continuous(&node.op)) {
            let (before, after) = (graph.eval(&feeds, Precision::F64), legal.eval(&feeds, Precision::F64));
            for (a, b) in graph.outputs().iter().zip(legal.outputs()) {
                for (x, y) in before[a.index()].data.iter().zip(&after[b.index()].data) {
                    prop_assert!((x - y).abs() <= 5e-3, "{x} as written, {y} as legalised");
                }
            }
        }

        let results = run_segments(&plan, &feeds, IEEE);
        for (output, (_, source)) in legal.outputs().iter().zip(&plan.outputs) {
            assert_same(&results.of(*source).data, &want[output.index()].data, "cut into segments");
        }
        for (i, segment) in plan.segments.iter().enumerate() {
            let Some((program, blob)) = segment.mil() else { continue };
            let bytes = blob.write(&segment.graph, Vec::new()).unwrap();
            let program = aneforge_mil::parse(&program.to_string()).unwrap();
            let read = aneforge::import::mil::read(&program, &aneforge_tensor::Bytes::new(bytes)).unwrap();
            let inputs: Vec<Array> = segment.inputs.iter().map(|s| results.of(*s).clone()).collect();
            let values = read.eval(&inputs, IEEE);
            for (output, want) in read.outputs().iter().zip(&results.segments[i]) {
                assert_same(&values[output.index()].data, &want.data, "read back");
            }
        }
    }

    /// A diagnosis computes what a session does, for every family, and what it says can be read; large values are fed, too.
    #[test]
    fn random_graphs_are_diagnosed(seed in any::<u64>(), steps in 1usize..25, scale in 0usize..3, chip in 0usize..4) {
        let (outputs, feeds) = generate(seed, steps);
        let graph = Graph::freeze(&outputs).unwrap();
        let factor = [1.0, 100.0, 30_000.0][scale];
        let scaled = feeds.iter().map(|feed| Array { data: feed.data.iter().map(|v| v * factor).collect(), ..feed.clone() });
        let feeds = feed_tensors(&graph, &scaled.collect::<Vec<_>>());
        let target = Target::named(["h13", "h14", "h15", "h17s"][chip]).unwrap();
        let options = CompileOptions::target(target);
        let Ok(plan) = compile(&outputs, &options) else { return Ok(()) };
        let found = diagnose(&engine(2), &graph, &options, &feeds, 1e-2).unwrap();
        let mut session = Session::new(plan.clone(), engine(1)).unwrap();
        session.run(&feeds).unwrap();
        let alone = diagnose_plan(&engine(1), &plan, &feeds, 1e-2).unwrap();
        for (output, (got, other)) in found.results().into_iter().zip(alone.results()).enumerate() {
            let bits = |values: &[aneforge::f16]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&got), bits(&session.output(output)));
            prop_assert_eq!(bits(&other), bits(&got));
        }
        prop_assert!(found.is_safe() || found.first().is_some() || found.outputs.iter().any(|e| *e > 1e-2));
        prop_assert!(found.to_json().to_string().len() > found.to_string().len() / 4 && found.to_html().ends_with("</html>\n"));
    }

    #[test]
    fn slots_never_overlap(lives in proptest::collection::vec((0usize..40, 0usize..10, 1usize..1000), 1..60)) {
        let mut lives = lives;
        lives.sort_unstable();
        let spans: Vec<Span> =
            lives.iter().map(|&(first, length, bytes)| Span { bytes, first, last: first + length }).collect();
        let slots = assign_slots(&spans);
        for (i, a) in spans.iter().enumerate() {
            prop_assert!(slots.bytes[slots.of[i]] >= a.bytes);
            for (j, b) in spans.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                prop_assert!(!together || slots.of[i] != slots.of[j], "{:?} and {:?} share a slot", a, b);
            }
        }
    }

    #[test]
    fn random_text_never_panics(text in "[@%a-z0-9_=(),:\\[\\]. \"\n-]{0,200}") {
        let _ = text::parse(&text);
    }

    #[test]
    fn mutated_text_never_panics(seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in 32u8..127) {
        let (outputs, _) = generate(seed, 12);
        let mut text = text::print(&Graph::freeze(&outputs).unwrap()).into_bytes();
        let index = at.index(text.len());
        text[index] = byte;
        if let Ok(text) = String::from_utf8(text) {
            let _ = text::parse(&text);
        }
    }

    #[test]
    fn mutated_programs_never_panic(seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in 32u8..127) {
        let (outputs, _) = generate(seed, 8);
        let plan = compile(&outputs, &CompileOptions::default()).unwrap();
        let Some(segment) = plan.segments.iter().find(|s| s.mil().is_some()) else { return Ok(()) };
        let (program, blob) = segment.mil().unwrap();
        let mut weights = blob.write(&segment.graph, Vec::new()).unwrap();
        let damaged = at.index(weights.len());
        weights[damaged] ^= byte;
        let mut text = program.to_string().into_bytes();
        let index = at.index(text.len());
        text[index] = byte;
        if let Some(program) = String::from_utf8(text).ok().and_then(|t| aneforge_mil::parse(&t).ok()) {
            let _ = aneforge::import::mil::read(&program, &aneforge_tensor::Bytes::new(weights));
        }
    }
}

#[test]
fn deep_graphs_neither_freeze_nor_drop_by_recursion() {
    let x = Var::input_of(TensorType::f16(Shape::new(&[2]).unwrap()));
    let mut y = x.clone();
    for _ in 0..200_000 {
        y = y.relu();
    }
    let graph = Graph::freeze(&[y.clone()]).unwrap();
    assert_eq!(graph.len(), 200_001);
    drop(y);
}
