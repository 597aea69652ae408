//! Attention is one op for its users, and the nodes of the reference for whatever counts, shows or lowers it.

use aneforge::ir::attr::Real;
use aneforge::ir::op::Mil;
use aneforge::ir::ops::attention::Attention;
use aneforge::ir::text;
use aneforge::nn::{self, AttentionWeights, cross_attention, mha, mha_in_parts, sdpa};
use aneforge::rewrite::reduce_sum_to_matmul;
use aneforge::target::cost::package::estimate;
use aneforge::target::layers::written_out;
use aneforge::{CompileOptions, Graph, Routes, Shape, Tensor, Var, compile, grad};
use aneforge_tensor::random::normal_tensor;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn input(dims: &[usize]) -> Var {
    Var::input(shape(dims))
}

fn freeze(outputs: &[Var]) -> Graph {
    Graph::freeze(outputs).unwrap()
}

fn names(graph: &Graph) -> Vec<&'static str> {
    graph.nodes().map(|(_, node)| node.op.name()).collect()
}

/// `softmax(q k^T * scale + mask) v` in parts of `size` queries, with the methods that users write.
fn chain(q: &Var, k: &Var, v: &Var, scale: f64, mask: Option<&Var>, size: usize) -> Var {
    let axis = q.shape().rank() - 2;
    let queries = q.shape()[axis];
    let keys = k.swap_last();
    let part = |from: usize| {
        let to = (from + size).min(queries);
        let cut = |x: &Var| if size < queries { x.narrow(x.shape().rank() - 2, from, to) } else { x.clone() };
        let scores = cut(q).matmul_value(&keys).muls(scale);
        mask.map_or(scores.clone(), |mask| scores + cut(mask)).softmax(-1).matmul_value(v)
    };
    let parts: Vec<Var> = (0..queries).step_by(size).map(part).collect();
    if let [only] = &parts[..] {
        only.clone()
    } else {
        Var::concat(&parts.iter().collect::<Vec<_>>(), axis as i64)
    }
}

fn weights() -> AttentionWeights {
    let w = |seed| {
        Var::leaf(aneforge::TensorType::f16(shape(&[8, 8])), aneforge::ir::ops::leaf::Role::Parameter)
            .muls(f64::from(seed))
    };
    let b = |seed| Some(Var::constant(normal_tensor(seed, shape(&[8]), 0.3)));
    AttentionWeights { wq: w(1), bq: b(5), wk: w(2), bk: None, wv: w(3), bv: b(7), wo: w(4), bo: None }
}

fn by_hand(x: &Var, w: &AttentionWeights, mask: Option<&Var>, size: usize) -> Var {
    let rows = x.shape()[0] as i64;
    let heads =
        |w: &Var, b: &Option<Var>| x.linear(w, b.as_ref()).reshape(&[rows, 2, 4]).transpose(&[1, 0, 2]);
    let (q, k, v) = (heads(&w.wq, &w.bq), heads(&w.wk, &w.bk), heads(&w.wv, &w.bv));
    chain(&q, &k, &v, 0.5, mask, size).transpose(&[1, 0, 2]).reshape(&[rows, 8]).linear(&w.wo, None)
}

/// A result with its gradients, which share what was computed on the way.
fn trained(y: &Var, wrt: &[Var]) -> Vec<Var> {
    let dy = y.muls(2.0);
    let grads = grad::grad(y, &dy, wrt).unwrap();
    [vec![y.clone()], grads].concat()
}

/// Both compile to the same program, and count and cost the same.
fn same(got: &[Var], want: &[Var]) {
    let plan = |y: &[Var]| compile(y, &CompileOptions::default()).unwrap();
    let (a, b) = (plan(got), plan(want));
    assert_eq!(a.n_ops, b.n_ops);
    let texts = |plan: &aneforge::Plan| -> Vec<String> {
        plan.segments.iter().map(|s| text::print(&s.graph)).collect()
    };
    assert_eq!(texts(&a), texts(&b));
    assert_eq!(names(&written_out(&freeze(got))), names(&freeze(want)));
    assert_eq!(estimate(&freeze(got), false), estimate(&freeze(want), false));
}

#[test]
fn layers_lower_to_the_chain_that_users_would_write() {
    let w = weights();
    let (x, mask) = (input(&[6, 8]), input(&[2, 6, 6]));
    same(&[mha(&x, &w, 2, Some(&mask))], &[by_hand(&x, &w, Some(&mask), 6)]);
    let flat = input(&[6, 6]);
    same(&[mha_in_parts(&x, &w, 2, Some(&flat), 4)], &[by_hand(&x, &w, Some(&flat), 2)]);
    let long = input(&[800, 8]);
    same(&[mha(&long, &w, 2, None)], &[by_hand(&long, &w, None, 400)]);
    assert_eq!(compile(&[mha(&x, &w, 2, None)], &CompileOptions::default()).unwrap().n_ops, 17 + 4);
}

#[test]
fn training_counts_what_the_gradient_shares_once() {
    for parts in [1, 3] {
        let w = weights();
        let (x, mask) = (input(&[6, 8]), input(&[6, 6]));
        let wrt = [w.wq.clone(), w.wk.clone(), w.wv.clone(), w.wo.clone(), x.clone()];
        let got = trained(&mha_in_parts(&x, &w, 2, Some(&mask), parts), &wrt);
        same(&got, &trained(&by_hand(&x, &w, Some(&mask), 6_usize.div_ceil(parts)), &wrt));
    }
}

#[test]
fn few_keys_are_attended_to_at_once() {
    let count = |s, t| {
        let y = cross_attention(&input(&[s, 8]), &input(&[t, 8]), &weights(), 2);
        names(&written_out(&freeze(&[y]))).iter().filter(|name| **name == "softmax").count()
    };
    assert_eq!([count(800, 512), count(800, 511), count(767, 600)], [2, 1, 1]);
}

/// What becomes of attention `[1, 2, queries, 4]` to `keys` keys.
fn segments(queries: usize, keys: usize, causal: bool, routes: Routes) -> Vec<&'static str> {
    let (q, k) = (input(&[1, 2, queries, 4]), input(&[1, 2, keys, 4]));
    let y = sdpa(&q, &k, &k, &nn::Attention { causal, ..Default::default() });
    let plan = compile(&[y], &CompileOptions::default().routes(routes)).unwrap();
    plan.segments.iter().flat_map(|s| names(&s.graph)).filter(|n| matches!(*n, "sdpa" | "softmax")).collect()
}

#[test]
fn the_layer_is_used_where_it_is_wanted_and_reliable() {
    let reliable = |queries, keys| segments(queries, keys, false, Routes::Native) == ["sdpa"];
    assert!(reliable(511, 511) && reliable(511, 2048) && reliable(2048, 511));
    assert!(!reliable(512, 512) && !reliable(511, 2049) && !reliable(2049, 4));
    assert_eq!(segments(2049, 4, false, Routes::Native), ["softmax"; 4]);
    assert_eq!(segments(5, 5, true, Routes::WrittenOut), ["sdpa"]);
    assert_eq!(segments(5, 5, false, Routes::WrittenOut), ["softmax"]);
    assert_eq!(segments(512, 512, true, Routes::WrittenOut), ["softmax"]);

    let wanted = Attention { scale: Real(0.5), causal: false, parts: 1, layer: true };
    let batch = input(&[2, 1, 5, 4]);
    let plan =
        compile(&[Var::apply(wanted, &[&batch; 3])], &CompileOptions::default().routes(Routes::Native));
    assert_eq!(plan.unwrap().segments.len(), 1, "the layer takes one batch only");
}

#[test]
fn a_layer_beyond_its_range_is_refused_by_name() {
    let source = "%0 = input(feed=0) : fp16[1, 1, 512, 4]\n%1 = sdpa(%0, %0, %0, scale=0.5, causal=true) : fp16[1, 1, 512, 4]\nreturn %1\n";
    let graph = text::parse(source).unwrap();
    let error = aneforge::compile::compile_graph(&graph, &CompileOptions::default()).unwrap_err().to_string();
    let want = "sdpa: 512 queries and 512 keys are beyond the layer's reliable range (shorter below 512, longer at most 2048)";
    assert!(error.starts_with(want), "{error}");
}

#[test]
fn places_of_sums_are_counted_with_attention_written_out() {
    let x = input(&[1, 2, 5, 4]);
    let summed = |x: &Var| x.sum(&[3]) + x;
    let y = sdpa(&x, &x, &summed(&x), &nn::Attention { causal: false, ..Default::default() });
    let y = summed(&mha_like(&y));
    let sums = |y: &Var| -> Vec<usize> {
        let graph = written_out(&freeze(std::slice::from_ref(y)));
        graph.nodes().filter(|(_, n)| n.op.name() == "reduce_sum").map(|(id, _)| id.index()).collect()
    };
    let places = sums(&y);
    assert_eq!(places.len(), 2);
    for (index, &place) in places.iter().enumerate() {
        let left = sums(&reduce_sum_to_matmul(&y, Some(place)));
        assert_eq!(left.len(), 1, "sum {index}");
    }
    assert!(sums(&reduce_sum_to_matmul(&y, None)).is_empty());
    let again = reduce_sum_to_matmul(&y, Some(places[1] + 1));
    assert_eq!(again.id(), y.id(), "nothing was there");
    let mistaken = mha_like(&input(&[3]));
    assert_eq!(reduce_sum_to_matmul(&mistaken, None).check(), mistaken.check());
}

/// Attention that no layer is wanted for.
fn mha_like(x: &Var) -> Var {
    Var::apply(Attention { scale: Real(0.5), causal: false, parts: 2, layer: false }, &[x, x, x])
}

#[test]
fn mistakes_are_named() {
    let why = |dims: &[&[usize]], op: Attention| {
        let inputs: Vec<Var> = dims.iter().map(|dims| input(dims)).collect();
        Var::apply(op, &inputs.iter().collect::<Vec<_>>()).check().unwrap_err().to_string()
    };
    let op = Attention { scale: Real(1.0), causal: false, parts: 1, layer: false };
    let causal = Attention { causal: true, ..op.clone() };
    let none = Attention { parts: 0, ..op.clone() };
    let square: &[usize] = &[4, 4];
    for (dims, op, want) in [
        (&[square, square, square][..], none, "parts must be from 1 to 4096, got 0"),
        (&[&[4], square, square], op.clone(), "must be [..., length, features], got [4]"),
        (&[&[4, 3], square, square], op.clone(), "inner sizes differ, 3 and 4"),
        (&[square, square, &[3, 4]], op.clone(), "inner sizes differ, 4 and 3"),
        (&[&[3, 4], square, square], causal, "as many queries as keys, got 3 and 4"),
        (
            &[square, square, square, &[3, 4]],
            op.clone(),
            "mask must broadcast to the scores [4, 4], got [3, 4]",
        ),
        (
            &[square, square, square, &[2, 4, 4]],
            op,
            "mask must broadcast to the scores [4, 4], got [2, 4, 4]",
        ),
    ] {
        let error = why(dims, op);
        assert!(error.starts_with("attention: ") && error.contains(want), "{error}");
    }
}

/// Parts are the whole to the bit, under every mask that broadcasts.
#[test]
fn parts_change_no_bit() {
    use crate::support::{IEEE, draw, evaluate};
    let queries = 9;
    for (causal, mask) in
        [(true, None), (false, Some(&[2, 9, 9][..])), (true, Some(&[1, 9])), (false, Some(&[9]))]
    {
        let dims: Vec<&[usize]> = [&[2, 9, 4][..]; 3].into_iter().chain(mask).collect();
        let inputs: Vec<Var> = dims.iter().map(|dims| input(dims)).collect();
        let feeds: Vec<_> = (0..).zip(&dims).map(|(i, dims)| draw(shape(dims), i, (-2.0, 2.0))).collect();
        let run = |parts| {
            let op = Attention { scale: Real(0.5), causal, parts, layer: false };
            let y = Var::apply(op, &inputs.iter().collect::<Vec<_>>());
            evaluate(&freeze(&[y]), &feeds, IEEE)
        };
        let whole = run(1);
        for parts in [2, 3, queries, 40] {
            assert_eq!(run(parts), whole, "{parts} parts, mask {mask:?}");
        }
    }
}

#[test]
fn no_composed_op_is_left_by_the_first_pass() {
    let x = Tensor::from_slice(shape(&[2, 2]), &[1.0f32; 4]).unwrap();
    let y = mha_like(&(input(&[2, 2]) + Var::constant(x)));
    let traces = aneforge::passes::run(&freeze(&[y]), &CompileOptions::default()).unwrap();
    assert_eq!(traces[0].stage, "route");
    assert!(traces[0].events.iter().any(|e| e.rule == "write_out" && e.node.starts_with("attention (at ")));
    assert!(!traces[0].graph.nodes().any(|(_, n)| matches!(n.op.mil(), Mil::Composed(_))));
}
