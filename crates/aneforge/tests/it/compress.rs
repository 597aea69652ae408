//! Weights that compiling stores in fewer bytes.

use crate::support::{IEEE, assert_same, draw, engine, feed_tensors, tensor, to_f64};
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::conv_transpose::ConvTranspose;
use aneforge::passes::{Compression, Form};
use aneforge::portable::{pack_plan, unpack_plan};
use aneforge::quantize::relative_error;
use aneforge::{
    CompileOptions, Encoding, Graph, Numerics, Plan, Session, Shape, Target, Tensor, Var, compile,
};
use aneforge_tensor::{Bytes, random};

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// A weight of which only each `every`th value is not zero.
fn weight(seed: u64, dims: &[usize], every: u64) -> Var {
    let value = |i| if i % every == 0 { random::normal(seed, i) * 0.3 } else { 0.0 };
    let values: Vec<f32> = (0..shape(dims).count() as u64).map(value).collect();
    Var::constant(Tensor::from_slice(shape(dims), &values).unwrap())
}

/// Linear layers, one of them mostly of zeros and one of odd rows, matrices per batch, and a weight that is an operand too.
fn matrices() -> Vec<Var> {
    let x = Var::input(shape(&[6, 16])).linear(&weight(1, &[8, 16], 1), None);
    let x = x.relu().linear(&weight(2, &[9, 8], 3), None);
    let odd = x.linear(&weight(3, &[4, 9], 1), Some(&weight(4, &[4], 1)));
    let shared = weight(5, &[4, 4], 1);
    let shared = odd.linear(&shared, None).matmul_value(&shared);
    let batched = Var::input(shape(&[2, 3, 4])).bmm_weight(&weight(6, &[2, 4, 6], 1));
    vec![shared, batched]
}

fn images() -> Vec<Var> {
    let (strides, pad, dilations, groups) = ([1, 1], [0; 4], [1, 1], 1);
    let op = Conv { strides, pad, dilations, groups };
    let x = Var::input(shape(&[1, 8, 5, 5])).conv(op, &weight(7, &[12, 8, 1, 1], 1), None);
    vec![x.conv_transpose(
        ConvTranspose { strides, pad, dilations, groups },
        &weight(8, &[12, 3, 2, 2], 1),
        None,
    )]
}

fn compiled(outputs: &[Var], target: &str, compression: Compression) -> Plan {
    let options = CompileOptions::target(Target::named(target).unwrap()).compression(compression);
    compile(outputs, &options).unwrap()
}

/// What the weights are stored as, in order, and what the program says of them.
fn stored(outputs: &[Var], target: &str, compression: Compression) -> Vec<Encoding> {
    let plan = compiled(outputs, target, compression);
    let full = compile(outputs, &CompileOptions::target(Target::named(target).unwrap())).unwrap();
    assert_eq!(full.weights, []);
    // The host computes with what the stored weights stand for.
    let graph = Graph::freeze(outputs).unwrap();
    let feeds: Vec<_> = graph.feed_types().iter().map(|feed| draw(feed.ty.shape, 9, (-1.0, 1.0))).collect();
    let legal = &plan.segments[0].graph;
    let want = legal.eval(&feeds, IEEE);
    for host in [engine(2), engine(1).unfused()] {
        let mut session = Session::new(plan.clone(), host.with_numerics(Numerics::Ieee)).unwrap();
        session.run(&feed_tensors(&graph, &feeds)).unwrap();
        for (at, &output) in legal.outputs().iter().enumerate() {
            assert_same(&to_f64(&session.output(at)), &want[output.index()].data, "host");
        }
    }
    let full = full.segments[0].graph.constants();
    for report in &plan.weights {
        let stored = plan.segments[0].graph.constants().iter().zip(full).find(|(stored, full)| {
            (stored.encoding(), stored.shape()) == (report.encoding, report.shape)
                && stored.shape() == full.shape()
        });
        let (stored, full) = stored.unwrap();
        assert_eq!((report.bytes, report.dense_bytes), (stored.stored_bytes(), 2 * full.shape().count()));
        assert_eq!(report.error, relative_error(full, stored), "{report}");
        assert_eq!(report.why.is_empty(), report.encoding == first(compression.form), "{report}");
    }
    let back = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, fresh| fresh).unwrap();
    assert_eq!(back.weights, plan.weights);
    assert_eq!(back.segments[0].text(), plan.segments[0].text());
    plan.weights.iter().map(|report| report.encoding).collect()
}

fn first(form: Form) -> Encoding {
    match form {
        Form::Int8 => Encoding::Int8,
        Form::Int4 => Encoding::Lut4,
        Form::Blockwise => Encoding::Blockwise,
        Form::Sparse | Form::Auto => Encoding::Sparse,
    }
}

#[test]
fn weights_are_stored_in_the_first_form_that_they_fit() {
    use Encoding::{Blockwise, Dense, Int8, Lut4, Sparse};
    // In the order of the constants: the linear layers, the shared weight, the matrices per batch.
    let cases = [
        (Form::Int8, 0.05, [Int8, Int8, Int8, Dense, Int8]),
        (Form::Int4, 0.05, [Int8, Int8, Int8, Dense, Int8]),
        (Form::Int4, 0.5, [Lut4, Lut4, Int8, Dense, Lut4]),
        (Form::Sparse, 0.05, [Dense, Sparse, Dense, Dense, Dense]),
        (Form::Blockwise, 0.05, [Blockwise, Blockwise, Blockwise, Dense, Dense]),
        (Form::Blockwise, 0.0, [Dense; 5]),
    ];
    for (form, tolerance, want) in cases {
        let compression = Compression::new(form).tolerance(tolerance).block(4);
        let found = stored(&matrices(), "h16", compression);
        assert_eq!(found, want, "{form:?}, {tolerance}");
    }
    let auto = Compression::new(Form::Auto);
    assert_eq!(stored(&matrices(), "h13", auto)[..3], [Dense, Sparse, Dense]);
    assert_eq!(stored(&matrices(), "h14", auto)[..3], [Int8, Sparse, Int8]);
    let why = |target: &str| {
        let options = CompileOptions::target(Target::named(target).unwrap()).compression(auto);
        compile(&matrices(), &options).unwrap().weights[0].why.clone()
    };
    assert!(why("h13").ends_with("; not int8: A13 expands it when a program loads"), "{}", why("h13"));
    assert!(!why("h14").contains("not int8"), "{}", why("h14"));
}

#[test]
fn convolutions_take_every_form_but_blocks() {
    for (form, want) in [
        (Form::Int8, Encoding::Int8),
        (Form::Int4, Encoding::Lut4),
        (Form::Sparse, Encoding::Dense),
        (Form::Blockwise, Encoding::Dense),
    ] {
        // A transposed convolution takes none.
        assert_eq!(stored(&images(), "h15", Compression::new(form).tolerance(0.5)), [want, Encoding::Dense]);
    }
}

#[test]
fn weights_that_come_encoded_stay_as_they_are() {
    let encoded = aneforge::quantize::int8(&tensor(&draw(shape(&[4, 8]), 1, (-1.0, 1.0))).into()).unwrap();
    let y = Var::input(shape(&[2, 8])).linear(&Var::constant(encoded), None);
    let plan = compiled(&[y], "h16", Compression::new(Form::Sparse));
    assert_eq!((plan.weights[0].encoding, &plan.weights[0].why[..]), (Encoding::Int8, "it came so"));
}

#[test]
fn forms_have_names() {
    for (name, form) in Form::NAMED {
        assert_eq!(Form::named(&format!(" {} ", name.to_uppercase())), Some(form));
    }
    assert_eq!(Form::named("int2"), None);
}
