//! Weights that are chosen by what they are multiplied with.

use crate::support::{IEEE, draw, engine, tensor, to_f64};
use aneforge::calibrate::calibrate;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::leaf::Role;
use aneforge::passes::{Compression, Form};
use aneforge::portable::{pack_plan, unpack_plan};
use aneforge::{
    CompileOptions, Encoding, Graph, Plan, RunError, Session, Shape, Tensor, TensorType, Var,
    compile_calibrated, compile_graph,
};
use aneforge_tensor::Bytes;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn constant(seed: u64, dims: &[usize]) -> Var {
    Var::constant(tensor(&draw(shape(dims), seed, (-1.0, 1.0))))
}

fn options(form: Form) -> CompileOptions {
    CompileOptions::default().compression(Compression::new(form).tolerance(1.0))
}

/// Sets of inputs for the feeds of a graph.
fn sets(graph: &Graph, count: u64) -> Vec<Vec<Tensor>> {
    let feeds = graph.feed_types();
    let fed = feeds.iter().filter(|feed| feed.role == Role::Feed);
    let shapes: Vec<Shape> = fed.map(|feed| feed.ty.shape).collect();
    let set = |seed: u64| shapes.iter().map(|&s| tensor(&draw(s, 40 + seed, (-0.5, 1.0)))).collect();
    (0..count).map(set).collect()
}

fn compiled(graph: &Graph, form: Form, sets: &[Vec<Tensor>]) -> Plan {
    let calibration = calibrate(&engine(2), graph, &options(form), sets).unwrap();
    compile_calibrated(graph, &options(form), &calibration).unwrap()
}

/// What a plan of one weight returns, over all sets, from what the plan without compression does: the relative error.
fn error_of_results(graph: &Graph, plan: &Plan, sets: &[Vec<Tensor>]) -> f64 {
    let full = compile_graph(graph, &CompileOptions::default()).unwrap();
    let (mut off, mut all) = (0.0, 0.0);
    for set in sets {
        // Without the rounding of results, which would count too.
        let of = |plan: &Plan| {
            let legal = &plan.segments[0].graph;
            let feeds: Vec<_> =
                set.iter().map(|t| aneforge::ir::precision::Array::from_tensor(t, IEEE)).collect();
            let values = legal.eval(&feeds, aneforge::ir::precision::Precision::F64);
            values[legal.outputs()[0].index()].data.clone()
        };
        for (got, want) in of(plan).iter().zip(of(&full)) {
            off += (got - want).powi(2);
            all += want * want;
        }
    }
    (off / all).sqrt()
}

/// Linear layers, and convolutions with steps, edges, gaps and groups, each with one weight that reads an input.
fn layers() -> Vec<(&'static str, Var)> {
    let conv = |strides, pad, dilations, groups, image: &[usize], kernel: &[usize]| {
        Var::input(shape(image)).conv(Conv { strides, pad, dilations, groups }, &constant(3, kernel), None)
    };
    vec![
        ("linear", Var::input(shape(&[5, 12])).linear(&constant(1, &[6, 12]), None)),
        ("batches", Var::input(shape(&[2, 3, 8])).linear(&constant(2, &[4, 8]), None)),
        ("conv", conv([1, 1], [0; 4], [1, 1], 1, &[1, 4, 5, 6], &[6, 4, 3, 2])),
        ("steps", conv([2, 3], [1, 0, 2, 1], [1, 1], 1, &[2, 3, 8, 9], &[5, 3, 3, 2])),
        ("gaps", conv([1, 2], [2, 2, 1, 1], [2, 1], 2, &[1, 4, 9, 7], &[6, 2, 3, 3])),
        ("depthwise", conv([1, 1], [1; 4], [1, 1], 6, &[1, 6, 6, 6], &[6, 1, 2, 2])),
    ]
}

#[test]
fn the_error_that_is_told_is_that_of_the_results() {
    for (name, layer) in layers() {
        let graph = Graph::freeze(&[layer]).unwrap();
        let sets = sets(&graph, 3);
        for (form, encoding) in [(Form::Int8, Encoding::Int8), (Form::Int4, Encoding::Lut4)] {
            let plan = compiled(&graph, form, &sets);
            let report = &plan.weights[0];
            assert_eq!(report.encoding, encoding, "{name}: {report}");
            let (said, got) = (report.calibrated.unwrap(), error_of_results(&graph, &plan, &sets));
            assert!((said - got).abs() <= 1e-3 * got, "{name}: {said}, but results are off by {got}");
            let plain = compile_graph(&graph, &options(form)).unwrap();
            let plain = error_of_results(&graph, &plain, &sets);
            assert!(got <= plain * (1.0 + 1e-6), "{name}: {got}, {plain} without");
        }
    }
}

#[test]
fn weights_behind_others_are_calibrated_with_what_reaches_them() {
    let x = Var::input(shape(&[16, 12])).linear(&constant(1, &[24, 12]), None).relu();
    let graph = Graph::freeze(&[x.linear(&constant(2, &[8, 24]), None)]).unwrap();
    let sets = sets(&graph, 4);
    let (plan, again) = (compiled(&graph, Form::Int4, &sets), compiled(&graph, Form::Int4, &sets));
    assert_eq!(plan.weights, again.weights);
    assert_eq!(plan.segments[0].graph, again.segments[0].graph);
    let plain = compile_graph(&graph, &options(Form::Int4)).unwrap();
    assert!(plan.weights.iter().all(|w| w.calibrated.is_some()) && plain.weights[0].calibrated.is_none());
    let [ours, theirs] = [&plan, &plain].map(|plan| error_of_results(&graph, plan, &sets));
    assert!(ours < 0.9 * theirs, "{ours}, {theirs} without");
    // What is packed is what was chosen, and runs the same.
    let back = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, fresh| fresh).unwrap();
    assert_eq!(back.weights, plan.weights);
    let run = |plan: Plan| to_f64(&Session::new(plan, engine(1)).unwrap().run(&sets[0]).unwrap()[0].to_f16());
    assert_eq!(run(plan), run(back));
}

/// A weight whose rows have lengths in these proportions, one after the other.
fn uneven(dims: &[usize], proportions: &[f32]) -> Var {
    let mut values = draw(shape(dims), 5, (-1.0, 1.0)).data;
    let run = values.len() / dims[0];
    for (row, values) in values.chunks_mut(run).enumerate() {
        values.iter_mut().for_each(|v| *v *= f64::from(proportions[row % proportions.len()]));
    }
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    Var::constant(Tensor::from_slice(shape(dims), &values).unwrap())
}

#[test]
fn scales_of_rows_stand_behind_their_op_where_products_are_nearer_so() {
    let rows = [1.0, 0.01, 0.3, 0.06];
    let conv = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 2 };
    let bias = constant(8, &[8]);
    let layers = [
        (Var::input(shape(&[2, 3, 12])).linear(&uneven(&[8, 12], &rows), Some(&bias)), vec![1, 1, 8]),
        (
            Var::input(shape(&[1, 4, 7, 7])).conv(conv, &uneven(&[8, 2, 3, 3], &rows), Some(&bias)).relu(),
            vec![1, 8, 1, 1],
        ),
    ];
    for (layer, dims) in layers {
        let graph = Graph::freeze(&[layer]).unwrap();
        let sets = sets(&graph, 40);
        let calibration = calibrate(&engine(1), &graph, &options(Form::Int4), &sets).unwrap();
        let plan = |scales| {
            let compression = Compression::new(Form::Int4).tolerance(1.0).scales(scales);
            compile_calibrated(&graph, &CompileOptions::default().compression(compression), &calibration)
                .unwrap()
        };
        let (with, without) = (plan(true), plan(false));
        let [one, other] = [&with.weights[0], &without.weights[0]];
        assert!(one.scaled && !other.scaled && one.bytes == other.bytes + 2 * 8, "{one}, {other}");
        assert!(one.to_string().contains("lut4 and scales of rows") && one.to_json()["scaled"] == true);
        assert!(one.calibrated < other.calibrated && one.error < other.error, "{one}, {other}");
        let legal = &with.segments[0].graph;
        let scales = legal.constants().iter().find(|c| c.shape() == shape(&dims)).unwrap();
        assert!(scales.to_f32().iter().all(|s| s.log2().fract() == 0.0 && *s <= 1.0), "{scales:?}");
        let muls = |plan: &Plan| plan.segments[0].graph.nodes().filter(|(_, n)| n.op.name() == "mul").count();
        assert_eq!((muls(&with), muls(&without)), (1, 0));
        // Their difference is that of the products, as biases and functions after them are the same.
        let [ours, theirs] = [&with, &without].map(|plan| error_of_results(&graph, plan, &sets));
        assert!(ours < theirs, "{ours} and {theirs}");
        let back = unpack_plan(Bytes::new(pack_plan(&with).unwrap()), &mut |_, fresh| fresh).unwrap();
        assert_eq!(back.weights, with.weights);
    }
}

#[test]
fn rows_of_one_length_keep_their_scales() {
    let even = Var::input(shape(&[5, 12])).linear(&uneven(&[8, 12], &[1.0, 1.1]), None);
    let graph = Graph::freeze(&[even]).unwrap();
    let sets = sets(&graph, 20);
    let plan = compiled(&graph, Form::Int4, &sets);
    assert!(!plan.weights[0].scaled && plan.segments[0].graph.len() == graph.len(), "{}", plan.weights[0]);
    // Without a calibration nobody knows which products are nearer.
    let uneven = Var::input(shape(&[5, 12])).linear(&uneven(&[8, 12], &[1.0, 0.01]), None);
    let graph = Graph::freeze(&[uneven]).unwrap();
    assert!(!compile_graph(&graph, &options(Form::Int4)).unwrap().weights[0].scaled);
    let bytes = compiled(&graph, Form::Int8, &sets);
    assert!(!bytes.weights[0].scaled && bytes.segments[0].graph.len() == graph.len());
}

#[test]
fn the_tolerance_is_one_of_products() {
    let graph = Graph::freeze(&[layers().remove(0).1]).unwrap();
    let sets = sets(&graph, 8);
    let error = compiled(&graph, Form::Int4, &sets).weights[0].calibrated.unwrap();
    let calibration = calibrate(&engine(1), &graph, &options(Form::Int4), &sets).unwrap();
    for (tolerance, want) in [(error * 1.001, Encoding::Lut4), (error * 0.999, Encoding::Int8)] {
        let options =
            CompileOptions::default().compression(Compression::new(Form::Int4).tolerance(tolerance));
        let plan = compile_calibrated(&graph, &options, &calibration).unwrap();
        assert_eq!(plan.weights[0].encoding, want, "{tolerance}");
    }
}

#[test]
fn what_is_not_calibrated_says_why() {
    let batched = Var::input(shape(&[2, 3, 4])).bmm_weight(&constant(6, &[2, 4, 6]));
    let graph = Graph::freeze(&[batched]).unwrap();
    let report = compiled(&graph, Form::Int8, &sets(&graph, 1)).weights.remove(0);
    assert_eq!((report.encoding, report.calibrated), (Encoding::Int8, None));
    assert_eq!(report.why, "not calibrated: it is no weight of a linear layer or convolution");
    let graph = Graph::freeze(&[layers().remove(0).1]).unwrap();
    let zeros = vec![vec![Tensor::from_slice(shape(&[5, 12]), &[0.0f32; 60]).unwrap()]];
    let report = compiled(&graph, Form::Int8, &zeros).weights.remove(0);
    assert!(report.why.starts_with("not calibrated: nothing but zeros was seen"), "{report}");
}

#[test]
fn wrong_inputs_are_refused() {
    let state = Var::leaf(TensorType::f16(shape(&[5, 12])), Role::State);
    let sum = Var::input(shape(&[5, 12])) + &state;
    let graph = Graph::carrying(&[sum.linear(&constant(1, &[6, 12]), None)], &[(&state, &sum)]).unwrap();
    let good = sets(&graph, 3);
    assert_eq!(good[0].len(), 1, "state is no input");
    let few = compiled(&graph, Form::Int8, &good[..2]).weights.remove(0);
    assert!(few.calibrated.is_some() && few.why.starts_with("only 10 rows"), "{few}");
    let plan = compiled(&graph, Form::Int8, &good);
    assert!(plan.weights[0].why.is_empty() && plan.carries.len() == 1);
    let refused =
        |sets: &[Vec<Tensor>]| calibrate(&engine(1), &graph, &options(Form::Int8), sets).unwrap_err();
    assert_eq!(refused(&[vec![]]), RunError::Count { want: 1, got: 0 });
    let wrong = vec![tensor(&draw(shape(&[5, 11]), 1, (0.0, 1.0)))];
    assert!(matches!(refused(&[wrong]), RunError::Shape { index: 0, .. }));
}
