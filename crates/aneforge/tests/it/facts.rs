//! What ops say of themselves is what they compute.

use crate::support::{IEEE, build, draw, engine, feed_tensors};
use aneforge::ir::form::{Facts, Form, Norm, Pooling};
use aneforge::ir::op::{Case, Grad, OPS};
use aneforge::ir::ops::pool::{AvgPool, MaxPool};
use aneforge::ir::precision::{Array, Precision};
use aneforge::{CompileOptions, DType, Graph, Session, Shape, TensorType, Var, compile};
use aneforge_tensor::{f16, round_f16};

/// Calls `check` with every case of every op that computes, its result's type and what it says of itself.
fn each(mut check: impl FnMut(&Case, &TensorType, Form, Facts, &str)) {
    for entry in OPS {
        for (i, case) in (entry.cases)().iter().enumerate() {
            let out = case.op.infer(&case.inputs).unwrap();
            let (form, facts) = (case.op.form(&case.inputs, &out), case.op.facts(&case.inputs, &out));
            check(case, &out, form, facts, &format!("{} case {i}", entry.info.name));
        }
    }
}

/// Operands drawn from a domain; bytes and truth values as what they are.
fn operands(case: &Case, domain: (f64, f64), seed: u64) -> Vec<Array> {
    let operand = |(i, ty): (usize, &TensorType)| {
        let values = draw(ty.shape, seed + i as u64, domain);
        match ty.dtype {
            DType::F16 => values,
            DType::Bool => Array::from_fn(ty.shape, |i| f64::from(u8::from(values.data[i] > 0.0))),
            _ => Array::from_fn(ty.shape, |i| values.data[i].abs().floor().min(255.0)),
        }
    };
    case.inputs.iter().enumerate().map(operand).collect()
}

fn eval(case: &Case, x: &[Array], out: &TensorType, precision: Precision) -> Array {
    case.op.eval(&x.iter().collect::<Vec<_>>(), out, precision)
}

#[test]
fn results_are_as_the_facts_say() {
    let domains = [(-4.0, 4.0), (0.0, 1.0), (-65504.0, 65504.0), (-1e-4, 1e-4)];
    let mut claims = 0;
    each(|case, out, _, facts, what| {
        for (seed, domain) in domains.into_iter().enumerate() {
            let x = operands(case, domain, seed as u64);
            let y = eval(case, &x, out, IEEE);
            let values = || y.data.iter().copied().filter(|v| !v.is_nan());
            assert!(!facts.never_negative || values().all(|v| v >= 0.0), "{what}: a result is negative");
            assert!(!facts.whole || values().all(|v| v.fract() == 0.0), "{what}: a result is no integer");
            let finite = y.data.iter().all(|v| v.is_finite());
            assert!(!facts.stays_finite || finite, "{what}: a result is not finite");
        }
        claims +=
            usize::from(facts.never_negative) + usize::from(facts.whole) + usize::from(facts.stays_finite);
    });
    assert!(claims > 200, "{claims} claims");
}

#[test]
fn ops_that_move_elements_say_that_results_stay_finite() {
    let mut unsaid = std::collections::BTreeSet::new();
    each(|case, out, form, facts, _| {
        if !matches!(form, Form::View | Form::Move(_) | Form::Compare(_)) {
            return;
        }
        let x = operands(case, (-65504.0, 65504.0), 7);
        let finite = eval(case, &x, out, IEEE).data.iter().all(|v| v.is_finite());
        if finite && !facts.stays_finite {
            unsaid.insert(case.op.name());
        }
    });
    assert!(unsaid.is_empty(), "{unsaid:?} move elements and do not say that results stay finite");
}

#[test]
fn inputs_without_a_gradient_are_those_in_which_results_are_flat() {
    each(|case, _, _, facts, what| {
        let built = build(case, true);
        let dy = Var::input(built.output.shape());
        let grads = case.op.vjp(&built.inputs, &built.output, &dy);
        for (i, grad) in grads.iter().enumerate() {
            let flat = matches!(grad, Grad::Zero(_));
            assert_eq!(facts.flat_in >> i & 1 == 1, flat, "{what}: input {i}");
        }
        assert_eq!(facts.flat_in >> grads.len(), 0, "{what}: there are {} inputs", grads.len());
    });
}

/// With ones everywhere, a result counts the products that it is a sum of; away from padding that is all of them.
#[test]
fn arithmetic_is_counted() {
    let mut counted = 0;
    each(|case, out, form, facts, what| {
        let sums = matches!(form, Form::Product(_) | Form::Conv(..) | Form::ConvTranspose(..));
        if facts.flops == 0.0 {
            assert!(!sums, "{what}: a product without arithmetic");
            return;
        }
        let ones =
            |(i, ty): (usize, &TensorType)| Array::from_fn(ty.shape, |_| if i < 2 { 1.0 } else { 0.0 });
        let x: Vec<Array> = case.inputs.iter().enumerate().map(ones).collect();
        let most = eval(case, &x, out, Precision::F64).data.into_iter().fold(0.0, f64::max);
        let count = 2.0 * most * out.shape.count() as f64;
        // Padding leaves taps without a pixel, and so do the steps of a transposed convolution.
        let all = match form {
            Form::Conv(params, _) => params.pad == [0; 4],
            Form::ConvTranspose(..) => false,
            _ => true,
        };
        assert!(count <= facts.flops, "{what}: {count} of {}", facts.flops);
        assert!(!all || count == facts.flops, "{what}: {count}, not {}", facts.flops);
        counted += 1;
    });
    assert!(counted >= 20, "{counted} cases");
}

/// Where a form names a function of elements, that function is what the op computes.
#[test]
fn functions_of_elements_are_the_ops_own() {
    let mut checked = 0;
    each(|case, out, form, _, what| {
        let x = operands(case, case.domain, 3);
        let y = eval(case, &x, out, IEEE);
        let same_shape = x.iter().all(|x| x.shape == out.shape);
        let want: Vec<f64> = match form {
            Form::Map(f) => x[0].data.iter().map(|&v| round(f.eval(v as f32))).collect(),
            Form::Zip(f) if same_shape => {
                let pairs = x[0].data.iter().zip(&x[1].data);
                pairs.map(|(&a, &b)| round(f.eval(a as f32, b as f32))).collect()
            }
            Form::Compare(f) if same_shape => {
                let pairs = x[0].data.iter().zip(&x[1].data);
                pairs.map(|(&a, &b)| f64::from(u8::from(f.eval(a as f32, b as f32)))).collect()
            }
            Form::View | Form::Cast => x[0].data.clone(),
            _ => return,
        };
        assert_eq!(y.data, want, "{what}");
        checked += 1;
    });
    assert!(checked > 150, "{checked} cases");
}

fn round(v: f32) -> f64 {
    round_f16(f64::from(v)).to_f64()
}

/// Softmax is one along its axis, and the mean of a window is between its least and its greatest.
#[test]
fn forms_carry_the_axes_and_windows_they_were_given() {
    each(|case, out, form, _, what| match form {
        Form::Normalise(Norm::Softmax(axis)) => {
            let y = eval(case, &operands(case, case.domain, 5), out, Precision::F64);
            let (size, stride) = (out.shape[axis], out.shape.strides()[axis]);
            let lane: f64 = (0..size).map(|k| y.data[k * stride]).sum();
            assert!((lane - 1.0).abs() < 1e-9, "{what}: {lane} along axis {axis}");
        }
        Form::Pool(window, pooling) => {
            let x = &case.inputs[0].shape;
            let extent = |axis: usize| x[2 + axis] + window.pad[2 * axis] + window.pad[2 * axis + 1];
            for axis in 0..2 {
                let (floor, k) = (extent(axis) - window.kernel[axis], window.stride[axis]);
                assert!((floor / k..=floor / k + 1).contains(&(out.shape[2 + axis] - 1)), "{what}");
            }
            let max = matches!(pooling, Pooling::Max);
            assert_eq!(max, case.op.name() == "max_pool", "{what}");
        }
        _ => {}
    });
}

/// Every small window, with every padding, is compiled to what the op is.
#[test]
fn pools_of_every_padding_compile_to_what_they_are() {
    let shape = Shape::new(&[1, 1, 5, 8]).unwrap();
    let feed = Array::from_fn(shape, |i| ((i * 7) % 23) as f64 - 11.0);
    let (x, mut results) = (Var::input(shape), Vec::new());
    for kernel in [[2, 2], [3, 3], [2, 3]] {
        for code in 0..kernel[0] * kernel[0] * kernel[1] * kernel[1] {
            let [k, l] = kernel;
            let pad = [code % k, code / k % k, code / (k * k) % l, code / (k * k * l)];
            let strides = [[1, 1], [2, 2], [3, 2]][code as usize % 3];
            for ceil_mode in [false, true] {
                results.push(Var::apply(MaxPool { kernel_sizes: kernel, strides, pad, ceil_mode }, &[&x]));
                for exclude_pad in [false, true] {
                    let op = AvgPool { kernel_sizes: kernel, strides, pad, ceil_mode, exclude_pad };
                    results.push(Var::apply(op, &[&x]));
                }
            }
        }
    }
    assert!(results.len() > 600);
    let defined = Graph::freeze(&results).unwrap();
    let values = defined.eval(std::slice::from_ref(&feed), IEEE);
    let plan = compile(&results, &CompileOptions::default()).unwrap();
    let mut session = Session::new(plan, engine(1)).unwrap();
    let got = session.run(&feed_tensors(&defined, std::slice::from_ref(&feed))).unwrap();
    for (i, (got, want)) in got.iter().zip(defined.outputs()).enumerate() {
        let want = &values[want.index()];
        let off = |(a, b): (&f16, &f64)| (a.to_f64() - b).abs() > 2e-3 * b.abs().max(1.0);
        assert!(!got.to_f16().iter().zip(&want.data).any(off), "{:?}", results[i].op());
    }
}
