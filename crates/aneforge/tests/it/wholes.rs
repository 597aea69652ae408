//! What one kernel computes as a whole: the same bits, and the same overflows, as node by node.

use crate::support::{draw, engine, tensor, twice};
use aneforge::device::host::{HostPlan, Isa, Step, Sums};
use aneforge::ir::precision::Array;
use aneforge::nn::{AttentionWeights, mha};
use aneforge::{CompileOptions, Family, Norms, Numerics, Shape, Tensor, Var, compile, f16};
use aneforge_tensor::random;
use proptest::prelude::*;
use std::sync::Arc;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

struct Draw {
    seed: u64,
    drawn: u64,
    feeds: Vec<Array>,
}

impl Draw {
    fn new(seed: u64) -> Draw {
        Draw { seed, drawn: 0, feeds: Vec::new() }
    }

    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        (random::word(self.seed, self.drawn) % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Of one magnitude each, and now and then with something special among them.
    fn values(&mut self, shape: Shape, magnitudes: &[f64]) -> Array {
        let (most, special) = (self.of(magnitudes), self.below(12));
        self.drawn += 1;
        let seed = self.seed ^ self.drawn << 32;
        let mut values = Array::from_fn(shape, |i| {
            let unit = 2.0 * f64::from(random::uniform(seed, i as u64)) - 1.0;
            f16::from_f64(most * unit).to_f64()
        });
        let at = self.below(shape.count());
        let special = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 65504.0, 0.0].get(special);
        values.data[at] = *special.unwrap_or(&values.data[at]);
        values
    }

    fn fed(&mut self, shape: Shape, magnitudes: &[f64]) -> Var {
        let values = self.values(shape, magnitudes);
        self.feeds.push(values);
        Var::input(shape)
    }

    /// A weight, which half of the time is fed.
    fn weight(&mut self, dims: &[usize]) -> Var {
        if self.below(2) == 0 {
            return self.fed(shape(dims), &[1.0, 100.0]);
        }
        self.constant(dims, &[1.0, 9.0])
    }

    fn constant(&mut self, dims: &[usize], magnitudes: &[f64; 2]) -> Var {
        let values = self.values(shape(dims), magnitudes);
        let finite = |v: &f64| if v.is_nan() { 0.0 } else { v.clamp(-magnitudes[1], magnitudes[1]) };
        let finite = Array { data: values.data.iter().map(finite).collect(), ..values };
        Var::constant(tensor(&finite))
    }

    fn tensors(&self) -> Vec<Tensor> {
        self.feeds.iter().map(tensor).collect()
    }
}

/// Norms of every kind, one after the other, with other readers of what lies between them now and then.
fn norms(draw: &mut Draw) -> Vec<Var> {
    let size = draw.of(&[1, 7, 32, 40, 70]);
    let dims = [&[6, size][..], &[2, 3, size], &[1, size, 1, 1], &[2, 6, 2, 5], &[size], &[2, 8, 4, 4]];
    let dims = dims[draw.below(6)];
    let (last, channels) = (dims[dims.len() - 1], dims.get(1).copied().unwrap_or(1));
    let mut x = draw.fed(shape(dims), &[1e-6, 1e-3, 1.0, 1.0, 30.0, 300.0, 60000.0]);
    let mut outputs = Vec::new();
    for _ in 0..1 + draw.below(3) {
        let eps = draw.of(&[1e-5, 1e-5, 0.0, 0.5]);
        let before = x.clone();
        x = match (draw.below(6), dims.len()) {
            (0, 4) => x.group_norm(
                &draw.weight(&[channels]),
                &draw.weight(&[channels]),
                1 + (channels + 1) % 2,
                eps,
            ),
            (1, 4) if dims[2] == 1 => {
                x.channel_layer_norm(&draw.weight(&[channels]), &draw.weight(&[channels]), eps)
            }
            (2, _) => x.rms_norm(&draw.weight(&[last]), eps),
            (3, _) => x.l2_norm(-1, eps),
            (4, 2..) => {
                // Factors along another axis than that of the rows, of one chain or another.
                let centred = &x - x.mean(&[-1]);
                let square = if draw.below(2) == 0 { centred.square() } else { &centred * &centred };
                let unit = &centred * square.mean(&[-1]).adds(eps.max(1e-3)).rsqrt(0.0);
                let along = |axis: usize| {
                    let mut factors = vec![1; dims.len()];
                    factors[axis] = dims[axis];
                    factors
                };
                let axis = draw.below(dims.len());
                let other = if draw.below(3) == 0 { draw.below(dims.len()) } else { axis };
                let (gamma, beta) = (draw.weight(&along(axis)), draw.weight(&along(other)));
                if draw.below(3) == 0 {
                    outputs.push(centred);
                }
                match draw.below(3) {
                    0 => gamma * unit + beta,
                    1 => beta - unit * gamma,
                    _ => beta + unit * gamma,
                }
            }
            _ => x.layer_norm(&draw.weight(&[last]), &draw.weight(&[last]), eps),
        };
        x = match draw.below(4) {
            0 => &x + &before,
            1 => x.tanh(),
            _ => x,
        };
        if draw.below(4) == 0 {
            outputs.push(x.clone());
        }
    }
    outputs.push(x);
    outputs
}

/// Attention of queries, keys and values, which lie and are masked in one way or another.
fn attention(draw: &mut Draw) -> Vec<Var> {
    let (heads, queries) = (draw.of(&[1, 2, 3]), draw.of(&[1, 5, 33, 80]));
    let keys = draw.of(&[queries, 1, 17]);
    let (width, values) = (draw.of(&[1, 8, 20]), draw.of(&[1, 8, 33]));
    let lead = draw.below(4);
    let operand = |draw: &mut Draw, rows: usize, size: usize, swapped: bool| {
        let magnitudes = [1.0, 1.0, 1e-4, 30.0, 300.0];
        if lead == 3 {
            // Heads of two sequences.
            let x = draw.fed(shape(&[2, rows, heads, size]), &magnitudes);
            return x.transpose(if swapped { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] });
        }
        let perm: &[i64] = if swapped { &[1, 2, 0] } else { &[1, 0, 2] };
        let apart = [heads, rows, size];
        let [a, b, c] = apart.map(|extent| extent as i64);
        let x = match draw.below(3) {
            0 => draw.fed(shape(&[rows, heads * size]), &magnitudes).reshape(&[b, a, c]).transpose(perm),
            1 => draw.fed(shape(&[rows, heads, size]), &magnitudes).transpose(perm),
            _ if swapped => draw.fed(shape(&apart), &magnitudes).swap_last(),
            _ => draw.fed(shape(&apart), &magnitudes),
        };
        let [p, q] = if swapped { [c, b] } else { [b, c] };
        match lead {
            0 => x.reshape(&[1, a, p, q]),
            1 => x.reshape(&[a, 1, p, q]),
            _ => x,
        }
    };
    let (q, k) = (operand(draw, queries, width, false), operand(draw, keys, width, true));
    let mut scores = q.matmul_value(&k);
    if draw.below(3) > 0 {
        scores = scores.muls(draw.of(&[0.125, 1.0, 40.0]));
    }
    let of = scores.shape();
    let lead_of = |all: bool| if all { of.dims()[..of.rank() - 2].to_vec() } else { vec![1; of.rank() - 2] };
    for _ in 0..draw.below(4) {
        let mut dims = lead_of(draw.below(2) == 0);
        dims.extend([draw.of(&[1, queries]), keys]);
        if draw.below(2) == 0 {
            // The same for some of the heads, or for some of the keys.
            let axis = draw.below(dims.len());
            dims[axis] = 1;
        }
        let mask = draw.fed(shape(&dims), &[1e4, 1e4, 65504.0]);
        scores = if draw.below(2) == 0 { scores + mask } else { mask + scores };
    }
    let v = match draw.below(4) {
        0 => operand(draw, values, keys, false).swap_last(),
        _ => operand(draw, keys, values, false),
    };
    let weights = scores.softmax(-1);
    let mixed = weights.matmul_value(&v);
    let merged = read_on(draw, &mixed);
    match draw.below(8) {
        0 => vec![merged, weights],
        1 => vec![merged, mixed],
        _ => vec![merged],
    }
}

/// Attention of projections: each by a product of its own, of one value or another, or as a part of a wider one.
fn projected(draw: &mut Draw) -> Vec<Var> {
    let (batch, rows) = (draw.of(&[&[][..], &[1], &[2]]), draw.of(&[1, 6, 20]));
    let (heads, size, terms) = (draw.of(&[1, 2, 3]), draw.of(&[1, 4, 9]), draw.of(&[1, 5, 40]));
    let columns = heads * size;
    let of = |last: usize| shape(&[batch, &[rows, last]].concat());
    let values = [draw.fed(of(terms), &[1.0, 1.0, 1000.0]), draw.fed(of(terms), &[1.0])];
    let biased = draw.below(3) > 0;
    let project = |draw: &mut Draw, x: &Var, columns: usize| {
        let weight = draw.constant(&[columns, terms], &[1.0, 1.0]);
        let bias = draw.constant(&[columns], &[1.0, 60000.0]);
        x.linear(&weight, biased.then_some(&bias))
    };
    let wide = project(draw, &values[0], 3 * columns);
    let mut parts = Vec::new();
    for at in 0..3 {
        let (begin, lead) = (vec![0; batch.len() + 1], of(columns));
        parts.push(match draw.below(8) {
            0 => wide.split(3, -1).swap_remove(at),
            1 => wide.slice_by_size(&[&begin[..], &[at * columns]].concat(), lead.dims()),
            2 => project(draw, &values[1], columns),
            3 => project(draw, &values[0], columns).relu(),
            _ => project(draw, &values[0], columns),
        });
    }
    let apart: Vec<i64> =
        [batch, &[rows, heads, size]].concat().iter().map(|&extent| extent as i64).collect();
    let (first, rank) = (batch.len() as i64, batch.len() as i64 + 3);
    let turned = |turn: [i64; 3]| (0..first).chain(turn.map(|axis| first + axis)).collect::<Vec<_>>();
    let turn = |x: &Var, to: [i64; 3]| x.reshape(&apart).transpose(&turned(to));
    let [q, k, v] = [turn(&parts[0], [1, 0, 2]), turn(&parts[1], [1, 2, 0]), turn(&parts[2], [1, 0, 2])];
    let mixed = q.matmul_value(&k).muls(0.25).softmax(-1).matmul_value(&v);
    assert_eq!(mixed.shape().rank() as i64, rank);
    let mut outputs = vec![mixed.transpose(&turned([1, 0, 2])).adds(1.0), values[0].relu(), values[1].relu()];
    match draw.below(6) {
        0 => outputs.push(parts[draw.below(3)].clone()),
        1 => outputs.push(parts[draw.below(3)].exp()),
        2 => outputs.push(wide.relu()),
        _ => {}
    }
    outputs
}

/// What reads the result of attention.
fn read_on(draw: &mut Draw, mixed: &Var) -> Var {
    let of = mixed.shape();
    let dims = of.dims();
    let turned = match dims.len() {
        4 => mixed.transpose(&[0, 2, 1, 3]),
        _ => mixed.transpose(&[1, 0, 2]),
    };
    match draw.below(6) {
        0 => mixed.clone(),
        1 => draw.fed(of, &[1.0]).matmul_value(&mixed.swap_last()),
        2 => {
            // Attention along another axis.
            let other = if draw.below(2) == 0 { turned.clone() } else { draw.fed(turned.shape(), &[1.0]) };
            let again = turned.matmul_value(&other.swap_last()).softmax(-1).matmul_value(&other);
            if draw.below(2) == 0 { again } else { again + turned }
        }
        _ if dims.len() == 4 => turned.tanh(),
        _ => turned.reshape(&[dims[1] as i64, (dims[0] * dims[2]) as i64]),
    }
}

/// Fused on every instruction set, and with fast sums, it is what it is node by node.
fn is_the_same_apart(outputs: &[Var], feeds: &[Tensor], norms: Norms) -> Result<(), TestCaseError> {
    let options = CompileOptions { norms, ..CompileOptions::default() };
    let plan = Arc::new(compile(outputs, &options).unwrap());
    for numerics in [Numerics::Ieee, Numerics::Ane(Family::A13), Numerics::Ane(Family::A16)] {
        let host = |threads| engine(threads).with_numerics(numerics);
        for sums in [Sums::Defined, Sums::Fast] {
            let want = twice(&plan, host(1).with_sums(sums).unfused(), feeds);
            for threads in [1, 3] {
                prop_assert_eq!(&twice(&plan, host(threads).with_sums(sums), feeds), &want);
            }
        }
        let want = twice(&plan, host(1).unfused(), feeds);
        for isa in Isa::available() {
            prop_assert_eq!(&twice(&plan, host(2).with_isa(isa).unwrap(), feeds), &want, "{:?}", isa);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms_are_the_same_as_node_by_node(seed in any::<u64>(), robust in any::<bool>()) {
        let mut draw = Draw::new(seed);
        let outputs = norms(&mut draw);
        let how = if robust { Norms::Robust } else { Norms::Plain };
        is_the_same_apart(&outputs, &draw.tensors(), how)?;
    }

    #[test]
    fn attention_is_the_same_as_node_by_node(seed in any::<u64>()) {
        let mut draw = Draw::new(seed);
        let outputs = attention(&mut draw);
        is_the_same_apart(&outputs, &draw.tensors(), Norms::Auto)?;
    }

    #[test]
    fn attention_of_projections_is_the_same_as_node_by_node(seed in any::<u64>()) {
        let mut draw = Draw::new(seed);
        let outputs = projected(&mut draw);
        is_the_same_apart(&outputs, &draw.tensors(), Norms::Auto)?;
    }
}

fn plan_of(outputs: &[Var]) -> HostPlan {
    let options = CompileOptions { norms: Norms::Plain, ..CompileOptions::default() };
    let plan = compile(outputs, &options).unwrap();
    engine(1).plan(&plan.segments[0], plan.target).unwrap()
}

/// The steps of a program, by the names of their ops.
fn steps(outputs: &[Var]) -> Vec<String> {
    plan_of(outputs).steps.iter().map(Step::name).collect()
}

/// What the networks are drawn for happens.
#[test]
fn what_is_drawn_is_computed_as_a_whole_and_also_is_not() {
    let count = |draw: fn(&mut Draw) -> Vec<Var>, name: &dyn Fn(&str) -> bool| {
        let drawn = (0..100).map(|seed| steps(&draw(&mut Draw::new(seed))));
        drawn.flatten().filter(|step| name(step)).count()
    };
    let norm = |step: &str| step.starts_with("reduce_mean+sub+");
    let length = |step: &str| step.starts_with("reduce_l2_norm+maximum+real_div");
    assert!(count(norms, &norm) > 30 && count(norms, &length) > 15);
    assert!(count(norms, &|step| step == "reduce_mean") > 5);
    let whole = |step: &str| step.contains("softmax+bmm");
    assert!(count(attention, &whole) > 20 && count(attention, &|step| step == "softmax") > 5);
    assert!(count(attention, &|step| step.contains("softmax+bmm+transpose")) > 10);
    let plans = || (0..100).map(|seed| plan_of(&projected(&mut Draw::new(seed))));
    let weights = |step: &Step| if step.op.name() == "matmul" { step.inputs.len() - 1 } else { 0 };
    let joined =
        |count: usize| plans().filter(|plan| plan.steps.iter().any(|step| weights(step) == count)).count();
    assert!(joined(2) > 10 && joined(3) > 3, "{} and {}", joined(2), joined(3));
    let slices = plans()
        .flat_map(|plan| plan.steps)
        .filter(|step| matches!(step.op.name(), "split" | "slice_by_size"));
    assert!(slices.count() < 30, "most are read where they lie");
}

/// A block of an encoder: three projections as one, attention, its projection, and norms, and no step more.
#[test]
fn a_block_of_an_encoder_has_few_steps() {
    let (s, d) = (9, 8);
    let mut seed = 0;
    let mut constant = |dims: &[usize]| {
        seed += 1;
        Var::constant(tensor(&draw(shape(dims), seed, (-1.0, 1.0))))
    };
    let [wq, wk, wv, wo] = [0; 4].map(|_| constant(&[d, d]));
    let [bq, bk, bv, bo] = [0; 4].map(|_| Some(constant(&[d])));
    let weights = AttentionWeights { wq, bq, wk, bk, wv, bv, wo, bo };
    let (gamma, beta) = (constant(&[d]), constant(&[d]));
    let (x, mask) = (Var::input(shape(&[s, d])), Var::input(shape(&[1, s, s])));
    let block = (&x + mha(&x, &weights, 2, Some(&mask))).layer_norm(&gamma, &beta, 1e-5);
    let attention = "bmm+muls+add+softmax+bmm+transpose";
    let norm = "reduce_mean+sub+mul+reduce_mean+adds+rsqrt+mul+mul+add";
    let want = ["matmul+add", attention, "matmul+add+add", norm];
    assert_eq!(steps(&[block]), want);
}
