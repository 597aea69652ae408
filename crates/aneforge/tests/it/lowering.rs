//! What ops become on the way to a program, where one example each is not enough.

use crate::support::{Built, IEEE, build, engine, evaluate, numbers};
use aneforge::ir::op::{Case, OPS};
use aneforge::ir::precision::{Array, Precision};
use aneforge::passes::{POLYNOMIAL_ERROR, POLYNOMIAL_RANGE};
use aneforge::{
    CompileOptions, DType, Graph, Numerics, Session, Shape, Target, Tensor, Var, compile, device, f16, grad,
};
use aneforge_tensor::random::normal_tensor;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

/// Every half-precision number of magnitude up to `limit`, as rows.
fn all_up_to(limit: f64) -> Array {
    let mut values: Vec<f64> = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f64()).collect();
    values.retain(|v| v.abs() <= limit);
    values.resize(values.len().next_multiple_of(1024), 0.0);
    Array { shape: shape(&[values.len() / 1024, 1024]), data: values }
}

#[test]
fn polynomials_of_every_argument_are_within_their_bound() {
    let x = all_up_to(POLYNOMIAL_RANGE);
    assert!(x.data.len() > 48_000);
    let var = Var::input(x.shape);
    for (y, sine) in [(var.sin(), true), (var.cos(), false)] {
        let exact = |x: f64| if sine { x.sin() } else { x.cos() };
        for target in ["h13", "h14"] {
            let plan =
                compile(std::slice::from_ref(&y), &CompileOptions::target(Target::named(target).unwrap()));
            let legal = &plan.unwrap().segments[0].graph;
            assert!(legal.nodes().all(|(_, node)| !matches!(node.op.name(), "sin" | "cos")));
            let got = evaluate(legal, std::slice::from_ref(&x), IEEE);
            for (x, got) in x.data.iter().zip(&got.data) {
                let error = (got - exact(*x)).abs();
                assert!(error <= POLYNOMIAL_ERROR, "{} of {x} is {got}, off by {error}", y.op().name());
            }
        }
    }
}

#[test]
fn polynomials_stay_small_out_of_their_range() {
    let x = all_up_to(65504.0);
    let var = Var::input(x.shape);
    for y in [var.sin(), var.cos()] {
        let plan = compile(&[y], &CompileOptions::target(Target::named("h13").unwrap())).unwrap();
        let got = evaluate(&plan.segments[0].graph, std::slice::from_ref(&x), IEEE);
        assert!(got.data.iter().all(|v| v.abs() <= 1.01));
    }
}

fn each(check: impl Fn(&Case, &str)) {
    for entry in OPS {
        for (i, case) in (entry.cases)().iter().enumerate() {
            check(case, &format!("{} case {i}", entry.info.name));
        }
    }
}

/// Weights that are computed need another form, which rounds at other places.
#[test]
fn parameters_may_be_computed() {
    each(|case, what| {
        if case.constants_from >= case.inputs.len() || case.op.name() == "affine" {
            return;
        }
        let Built { output, feeds, .. } = build(case, true);
        let before = Graph::freeze(&[numbers(&output)]).unwrap();
        let plan = compile(&[numbers(&output)], &CompileOptions::default())
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let legal = &plan.segments[0].graph;
        let (want, got) = (evaluate(&before, &feeds, Precision::F64), evaluate(legal, &feeds, IEEE));
        let scale = want.data.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        for (want, got) in want.data.iter().zip(&got.data) {
            assert!((want - got).abs() <= 0.01 * scale, "{what}: {got}, exactly {want}");
        }
    });
}

#[test]
fn gradients_are_programs() {
    each(|case, what| {
        let Built { inputs, output, .. } = build(case, true);
        if output.ty().dtype != DType::F16 {
            return;
        }
        let dy = Var::input(output.shape());
        for input in inputs.iter().filter(|input| input.ty().dtype == DType::F16) {
            match grad::grad(&output, &dy, std::slice::from_ref(input)) {
                Err(grad::GradError::Independent { .. }) => {}
                Err(e) => panic!("{what}: {e}"),
                Ok(dx) => {
                    compile(&dx, &CompileOptions::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
            }
        }
    });
}

#[test]
fn an_input_given_twice_gets_the_cotangent_of_each_use_once() {
    let (x, g) = (Var::input(shape(&[2, 6])), Var::input(shape(&[6])));
    let dy = Var::input(x.shape());
    let twice = x.layer_norm(&g, &g, 1e-5);
    let apart = x.layer_norm(&g, &g.muls(1.0), 1e-5);
    let gradient = |y: &Var| {
        let dg = grad::grad(y, &dy, std::slice::from_ref(&g)).unwrap();
        let graph = Graph::freeze(&[dg[0].clone(), x.muls(1.0), g.muls(1.0), dy.muls(1.0)]).unwrap();
        let feeds = [(&x, 1), (&g, 2), (&dy, 3)]
            .map(|(v, seed)| Array::from_tensor(&normal_tensor(seed, v.shape(), 1.0), Precision::F64));
        graph.eval(&feeds, Precision::F64)[graph.outputs()[0].index()].data.clone()
    };
    assert_eq!(gradient(&twice), gradient(&apart));
}

/// 262,144 elements per group: a sum per axis in half precision would overflow.
#[test]
fn large_groups_are_normalised_without_overflow() {
    let dims = [1, 512, 128, 128];
    let x = Var::input(shape(&dims));
    let (one, zero) = (Var::full(shape(&[512]), 1.0), Var::full(shape(&[512]), 0.0));
    let plan = compile(&[x.group_norm(&one, &zero, 32, 1e-5)], &CompileOptions::default()).unwrap();
    let host = engine(2).with_numerics(Numerics::Ieee);
    let mut session = Session::new(plan, host).unwrap();
    let values: Vec<f16> = (0..shape(&dims).count()).map(|i| f16::from_f32([3.0, 5.0][i % 2])).collect();
    session.run(&[Tensor::from_slice(shape(&dims), &values).unwrap()]).unwrap();
    let output = session.output(0);
    let wrong = output.iter().enumerate().find(|(i, v)| v.to_f32() != [-1.0, 1.0][i % 2]);
    assert_eq!(wrong, None);
}

/// Once, the definition multiplied by the reciprocal of the sum, and was off by a unit now and then.
#[test]
fn softmax_divides_by_its_sum() {
    let x = Var::input(shape(&[3000, 2]));
    let feed = normal_tensor(5, x.shape(), 1.0);
    let plan = compile(&[x.softmax(-1)], &CompileOptions::default()).unwrap();
    let array = Array::from_tensor(&feed, IEEE);
    let want = evaluate(&plan.segments[0].graph, std::slice::from_ref(&array), IEEE);
    let host = engine(2).with_numerics(Numerics::Ieee);
    let mut session = Session::new(plan, host).unwrap();
    session.run(&[feed]).unwrap();
    assert!(session.output(0).iter().zip(&want.data).all(|(got, want)| got.to_f64() == *want));
}

/// One attribute stands behind both factors of an upsampling.
#[test]
fn factors_that_differ_are_not_read() {
    let x = Var::input(shape(&[1, 2, 3, 4]));
    let plan = compile(&[x.upsample_bilinear(2, true)], &CompileOptions::default()).unwrap();
    let text = plan.segments[0].text();
    let read = |text: &str| {
        let program = aneforge_mil::parse(text).unwrap();
        let weights = plan.segments[0].mil().unwrap().1.write(&plan.segments[0].graph, Vec::new()).unwrap();
        aneforge::import::mil::read(&program, &aneforge_tensor::Bytes::new(weights))
    };
    assert!(read(&text).is_ok());
    for (width, why) in [("3.0", "must equal its others"), ("2.5", "is not of the expected kind")] {
        let other = text.replace("width = fp32(2.0)", &format!("width = fp32({width})"));
        assert_ne!(other, text);
        assert!(read(&other).unwrap_err().to_string().contains(why));
    }
}

/// Weights of one shape keep their places, and splits of one value along two axes are two statements.
#[test]
fn what_is_emitted_reads_back_to_the_same_numbers() {
    let x = Var::input(shape(&[4, 4]));
    let weight = |power: i32| {
        let values: Vec<f32> = (0..16).map(|i| ((i as f32).powi(power) % 7.0 - 3.0) * 0.25).collect();
        Var::constant(Tensor::from_slice(shape(&[4, 4]), &values).unwrap())
    };
    let mixed = x.linear(&weight(1), None).linear(&weight(2), None);
    let (rows, columns) = (mixed.split(2, 0), mixed.split(2, 1));
    let y = rows[1].transpose(&[1, 0]) - &columns[0];
    let plan = compile(&[y], &CompileOptions::default()).unwrap();
    let (program, blob) = plan.segments[0].mil().unwrap();
    let weights = aneforge_tensor::Bytes::new(blob.write(&plan.segments[0].graph, Vec::new()).unwrap());
    let parsed = aneforge_mil::parse(&program.to_string()).unwrap();
    let read = aneforge::import::mil::read(&parsed, &weights).unwrap();
    let feed = Array::from_fn(shape(&[4, 4]), |i| (i * i % 11) as f64 - 4.0);
    let want = evaluate(&plan.segments[0].graph, std::slice::from_ref(&feed), IEEE);
    assert_eq!(evaluate(&read, std::slice::from_ref(&feed), IEEE), want);
    assert!(want.data.iter().any(|v| *v != 0.0));
}

#[test]
fn scalars_are_fed_and_returned_through_ports_with_an_axis() {
    let (x, k) = (Var::input(shape(&[2])), Var::input(Shape::SCALAR));
    let plan = compile(&[&x * &k, k.relu(), k.clone()], &CompileOptions::default()).unwrap();
    assert_eq!(plan.feeds[1].ty.shape, Shape::SCALAR);
    assert!(plan.outputs[1..].iter().all(|(ty, _)| ty.shape == Shape::SCALAR));
    let text = plan.segments[0].text();
    let head = text.lines().find(|line| line.contains("func main")).unwrap();
    assert!(!head.contains("[]") && head.contains("tensor<fp16, [1]>"), "{head}");
    let mut session = Session::new(plan, device::named("host").unwrap()).unwrap();
    let feeds =
        [Tensor::from_slice(shape(&[2]), &[1.0f32, 2.0]).unwrap(), Tensor::scalar(f16::from_f32(3.0))];
    let results = session.run(&feeds).unwrap();
    assert_eq!(
        [results[0].to_f32(), results[1].to_f32(), results[2].to_f32()].concat(),
        [3.0, 6.0, 3.0, 3.0]
    );
    let crossing = compile(&[k.scaled_elementwise(&k, "Add", 1.0)], &CompileOptions::default());
    let error = crossing.unwrap_err().to_string();
    assert!(error.contains("has no axes where it crosses between programs"), "{error}");
}
