//! Messages: the op, the numbers, what to do, and the line.

use aneforge::grad::grad;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::conv_transpose::ConvTranspose;
use aneforge::ir::ops::native::CrossCorrelation;
use aneforge::ir::text;
use aneforge::{
    CompileOptions, DType, RunError, Session, Shape, Target, Tensor, TensorType, Var, compile, device,
};

fn input(dims: &[usize]) -> Var {
    Var::input(Shape::new(dims).unwrap())
}

fn constant(dims: &[usize], value: f32) -> Var {
    let shape = Shape::new(dims).unwrap();
    Var::constant(Tensor::from_slice(shape, &vec![value; shape.count()]).unwrap())
}

fn error(y: Var, target: &str) -> String {
    let options = CompileOptions { target: Target::named(target).unwrap(), ..CompileOptions::default() };
    compile(&[y], &options).unwrap_err().to_string()
}

/// The message without the line it ends with, which is checked to be in this file.
fn message(y: Var) -> String {
    let text = error(y, "h17s");
    let (message, at) = text.rsplit_once(" (at ").unwrap();
    assert!(at.starts_with("crates/aneforge/tests/it/errors.rs:") && at.ends_with(')'), "{text}");
    message.to_owned()
}

#[test]
fn the_callers_line_is_named() {
    let line = line!() + 1;
    let text = error(input(&[2, 3]).softmax(7), "h17s");
    assert_eq!(
        text,
        format!(
            "softmax: axis 7 is out of range for rank 2; valid axes are -2 to 1 \
             (at crates/aneforge/tests/it/errors.rs:{line})"
        )
    );
}

#[test]
fn the_first_mistake_comes_out() {
    let bad = input(&[2, 3]).linear(&constant(&[4, 5], 1.0), None);
    assert_eq!(
        message((bad.relu() + 1.0).softmax(9)),
        "matmul: inner sizes differ, 3 and 5; x is [2, 3], weight [4, 5] (as [N, K])"
    );
}

#[test]
fn shapes_and_types() {
    let x = input(&[2, 3]);
    assert_eq!(
        message(&x + input(&[4])),
        "add: shapes [2, 3] and [4] do not broadcast: axis sizes must be equal or 1, aligned from the right"
    );
    assert_eq!(message(x.reshape(&[7])), "reshape: [2, 3] has 6 elements, [7] has 7; they must be equal");
    assert_eq!(
        message(x.reshape(&[1, 1, 1, 1, 1, 1, 1, 1, 6])),
        "reshape: rank 9 is above the limit of 8; reshape to fewer axes"
    );
    assert_eq!(
        message(x.greater(&x).relu()),
        "relu: takes fp16, got bool; only select and logical_not take bool: select ones and zeros by it first, \
         in Python with astype(\"fp16\")"
    );
    let image = Var::input_of(TensorType { dtype: DType::U8, shape: Shape::new(&[1, 3, 4, 4]).unwrap() });
    assert_eq!(
        message(image.relu()),
        "relu: takes fp16, got uint8; convert the image with image_input or cast first"
    );
    assert_eq!(
        message(x.muls(1e6)),
        "muls: scalar 1000000 does not fit half precision (largest magnitude 65504); rescale first"
    );
    for (scalar, shown) in
        [(Var::from(7e4), "70000"), (Var::from(f32::NAN), "NaN"), (Var::full(x.shape(), 1e300), "1e300")]
    {
        assert_eq!(
            message(&x / scalar),
            format!(
                "constant: scalar {shown} does not fit half precision (largest magnitude 65504); rescale first"
            )
        );
    }
}

#[test]
fn limits_of_the_target() {
    let cut = |text: String| text.rsplit_once(" (at ").map(|(m, _)| m.to_owned()).unwrap();
    assert_eq!(
        cut(error(input(&[1, 20000]).relu(), "h13")),
        "input: axis 1 of [1, 20000] is above the 16384 that h13 (A13) allows; split it into parts"
    );
    assert_eq!(
        cut(error(input(&[1, 1, 2, 2]).affine(&constant(&[1, 6], 0.5), 2, 2, false), "h13")),
        "affine: needs A14 or newer; target h13 is A13. Compile for a newer target"
    );
    let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    assert_eq!(
        cut(error(input(&[1, 1, 1, 32]).conv(op, &constant(&[1, 1, 1, 14], 1.0), None), "h13")),
        "conv: kernel width 14 is above the 13 that h13 (A13) allows; use space_to_depth, or add the results of narrower kernels"
    );
    let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    assert_eq!(
        cut(error(input(&[1, 1, 1, 32]).conv(op, &constant(&[1, 1, 1, 16], 1.0), None), "h17s")),
        "conv: kernel width 16 is above 15; use space_to_depth or a product in the frequency domain"
    );
    let shapes: [&[usize]; 2] = [&[1, 1, 1, 32], &[1, 1, 1, 16]];
    let transposed = ConvTranspose { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    let transposed = Var::apply(transposed, &[&input(shapes[0]), &constant(shapes[1], 1.0)]);
    assert_eq!(cut(error(transposed, "h17s")), "conv_transpose: kernel width 16 is above 15");
    let correlated = Var::apply(CrossCorrelation {}, &[&input(&[3, 30]), &input(&[1, 16])]);
    assert_eq!(
        cut(error(correlated, "h17s")),
        "cross_correlation: template width 16 is above 15; correlate its halves and add them"
    );
    assert_eq!(
        cut(error(input(&[4]).relu(), "h11")),
        "program: target h11 is older than A13, which runs no MIL program; the oldest that does is h13"
    );
    assert!(
        Target::named("m7")
            .unwrap_err()
            .to_string()
            .starts_with("unknown target `m7`; known are m1 to m5 and h11")
    );
}

#[test]
fn weights_that_half_precision_cannot_hold() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e5, "100000.0")] {
        let mut values = vec![0.5f32; 12];
        values[7] = value;
        let weight = Var::constant(Tensor::from_slice(Shape::new(&[3, 4]).unwrap(), &values).unwrap());
        assert_eq!(
            message(input(&[1, 4]).linear(&weight, None)),
            format!(
                "const_array: constant @0 [3, 4] has {shown} at element 7, which half precision cannot hold; \
                 fix or rescale the weights"
            )
        );
    }
}

#[test]
fn programs_without_ports() {
    assert_eq!(
        message(constant(&[2], 1.0).relu()),
        "const_array: the program has no inputs; make one with input()".replace("const_array", "muls")
    );
    let x = input(&[2]);
    assert_eq!(message(x.greater(&x)), "greater: results are fp16; turn a bool into numbers with select");
    let nothing = compile(&[], &CompileOptions::default()).unwrap_err().to_string();
    assert!(nothing.starts_with("compile: nothing is returned; pass at least one value"), "{nothing}");
}

fn session(dims: &[usize]) -> Session {
    let plan = compile(&[input(dims).relu()], &CompileOptions::default()).unwrap();
    Session::new(plan, device::named("host").unwrap()).unwrap()
}

#[test]
fn feeds_are_checked() {
    let feed = |dims: &[usize]| {
        Tensor::from_slice(Shape::new(dims).unwrap(), &vec![1.0f32; dims.iter().product()]).unwrap()
    };
    let mut session = session(&[2, 3]);
    assert_eq!(session.run(&[]).unwrap_err().to_string(), "the model takes 1 input, got 0");
    assert_eq!(
        session.run(&[feed(&[3, 2])]).unwrap_err().to_string(),
        "input 0 must have shape [2, 3], got [3, 2]"
    );
    let shape = Shape::new(&[1, 1, 2, 2]).unwrap();
    let plan =
        compile(&[Var::image_input(shape, &[1.0 / 255.0], &[0.0])], &CompileOptions::default()).unwrap();
    let mut image = Session::new(plan, device::named("host").unwrap()).unwrap();
    let error = image.run(&[feed(&[1, 1, 2, 2])]).unwrap_err();
    assert!(matches!(error, RunError::DType { .. }));
    assert_eq!(error.to_string(), "input 0 is a uint8 port and takes integers from 0 to 255, got fp32");
}

#[test]
fn devices_that_are_not_there() {
    let error = device::named("ane").err().unwrap().to_string();
    assert!(error.starts_with("device `ane` is not available: "), "{error}");
    assert!(error.ends_with("run on `host`"), "{error}");
    let unknown = device::named("gpu").err().unwrap().to_string();
    assert_eq!(unknown, "unknown device `gpu`; known are `host` and `ane`");
}

#[test]
fn artifacts_name_the_path() {
    let plan = compile(&[input(&[2]).relu()], &CompileOptions::default()).unwrap();
    let error =
        aneforge::artifact::write(&plan, std::path::Path::new("/proc/nowhere")).unwrap_err().to_string();
    assert!(error.starts_with("cannot make folder /proc/nowhere: "), "{error}");
}

/// Every node that a value is made from.
fn nodes(y: &Var) -> Vec<Var> {
    let mut all = vec![y.clone()];
    for at in 0.. {
        match all.get(at).map(|var| var.inputs().to_vec()) {
            Some(inputs) => all.extend(inputs),
            None => return all,
        }
    }
    unreachable!()
}

#[test]
fn our_own_lines_are_not_named() {
    let x = input(&[1, 4, 8, 8]);
    let op = Conv { strides: [1, 1], pad: [1; 4], dilations: [1, 1], groups: 1 };
    let y = x.conv(op, &constant(&[4, 4, 3, 3], 0.1), None).softmax(1).layer_norm(
        &constant(&[8], 1.0),
        &constant(&[8], 0.0),
        1e-5,
    );
    let y = (&y * &y).sum(&[0, 1, 2, 3]);
    let dx = &grad(&y, &constant(&[1, 1, 1, 1], 1.0), std::slice::from_ref(&x)).unwrap()[0];
    for node in nodes(dx) {
        let at = node.caller().to_string();
        assert!(!at.contains("aneforge/src") || node.inputs().is_empty(), "{} at {at}", node.op().name());
    }
    let nothing = compile(&[], &CompileOptions::default()).unwrap_err().to_string();
    assert!(nothing.contains("(at crates/aneforge/tests/it/errors.rs:"), "{nothing}");
}

#[test]
fn text_that_is_no_graph_names_lines_it_has() {
    let of = |text: &str| aneforge::ir::text::parse(text).unwrap_err().to_string();
    assert_eq!(of(""), "graph text: nothing is returned; end with `return %N`");
    let input = "%0 = input(feed=0) : fp16[2]\n";
    assert_eq!(of(input), "graph text, line 1: nothing is returned; end with `return %N`");
    let declared = of(&format!("{input}%1 = relu(%0) : fp16[3]\n\nreturn %1\n"));
    assert!(declared.starts_with("graph text, line 2: %1 = relu: "), "{declared}");
    let cut = aneforge_mil::parse("program(1.3)\n\n").unwrap_err();
    assert_eq!((cut.line, cut.column), (1, 13));
}

#[test]
fn what_inputs_of_a_text_may_say() {
    let of = |inputs: &[&str]| {
        let line = |(at, input): (usize, &&str)| format!("%{at} = input({input}) : fp16[2]\n");
        let lines: String = inputs.iter().enumerate().map(line).collect();
        aneforge::ir::text::parse(&format!("{lines}return %0\n")).map_err(|e| e.to_string())
    };
    assert_eq!(of(&["feed=1, dtype=\"fp16\", role=\"state\"", "feed=0"]).unwrap().feeds()[0].0, 1);
    let number = "; number inputs from 0 on, each with a number of its own";
    let cases: [(&[&str], &str); 10] = [
        (
            &["feed=0, role=\"zzz\""],
            "1: input: role must be \"feed\", \"parameter\", \"state\" or \"cut\", got \"zzz\"",
        ),
        (&["feed=0, role=3"], "1: input: role must be \"feed\", \"parameter\", \"state\" or \"cut\", got 3"),
        (&["feed=3"], &format!("1: input: feed=3, and no input has feed=0{number}")),
        (&["feed=0", "feed=2"], &format!("2: input: feed=2, and no input has feed=1{number}")),
        (&["feed=0", "feed=0"], &format!("2: input: another input has feed=0{number}")),
        (&["feed=-1"], "1: input: feed must be a whole number from 0 on, got -1"),
        (&["feed=0.5"], "1: input: feed must be a whole number from 0 on, got 0.5"),
        (&[""], "1: input: `feed` is missing; number inputs from 0 on, such as `input(feed=0)`"),
        (&["feed=0, id=7"], "1: input has no attribute `id`"),
        (&["feed=0, feed=1"], "1: `feed` is given twice"),
    ];
    for (inputs, why) in cases {
        assert_eq!(of(inputs).unwrap_err(), format!("graph text, line {why}"), "{inputs:?}");
    }
    for wrong in ["name=3", "max_abs=\"a\"", "dtype=\"uint8\""] {
        let error = of(&[&format!("feed=0, {wrong}")]).unwrap_err();
        assert!(error.starts_with("graph text, line 1: "), "{error}");
    }
}

#[test]
fn the_longest_axis_is_checked_before_anything_is_emitted() {
    for target in ["h13", "h17s"] {
        let text = error(input(&[65_537, 3]).transpose(&[1, 0]), target);
        assert!(text.starts_with("input: axis 0 of [65537, 3] is above the 65536 that"), "{text}");
        assert!(error(input(&[3, 70_000]).transpose(&[1, 0]).relu(), target).contains("above the"));
    }
}

#[test]
fn a_reduction_over_no_axes_is_a_function_of_each_element() {
    let x = input(&[1, 2, 1, 2, 1]);
    let same = [x.sum(&[]), x.mean(&[]), x.amax(&[]), x.amin(&[]), x.reduce_log_sum_exp(&[])];
    let others = [x.l1_norm(&[]), x.reduce_l2_norm(&[]), x.sum_square(&[]), x.log_sum(&[])];
    let all: Vec<Var> = same.into_iter().chain(others).collect();
    let feed = Tensor::from_slice(x.shape(), &[1.0f32, 2.0, 0.5, 4.0]).unwrap();
    let host = device::named("host").unwrap();
    for chip in ["h13", "h17s"] {
        let options = CompileOptions { target: Target::named(chip).unwrap(), ..CompileOptions::default() };
        let mut session = Session::new(compile(&all, &options).unwrap(), &host).unwrap();
        let results = session.run(std::slice::from_ref(&feed)).unwrap();
        for same in &results[..7] {
            assert_eq!(same.to_f32(), feed.to_f32());
        }
        assert_eq!(results[7].to_f32(), [1.0, 4.0, 0.25, 16.0]);
        assert_eq!(results[8].to_f32()[..2], [0.0, 0.6933594]);
    }
}

/// What rules should have written otherwise is not emitted when they did not.
#[test]
fn what_mil_cannot_write_is_not_legal() {
    let graph = aneforge::Graph::freeze(&[input(&[2, 3]).sum(&[])]).unwrap();
    let error = aneforge::passes::legal::check(&graph, Target::default()).unwrap_err();
    assert_eq!(error.why, "axes is empty, which MIL cannot write");
}

#[test]
fn sizes_beyond_32_bits() {
    let x = input(&[1, 2, 5, 5]);
    let far = Conv { strides: [1 << 31, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    assert_eq!(
        message(x.conv(far, &constant(&[1, 2, 1, 1], 1.0), None)),
        "conv: strides is 2147483648; integers must fit 32 bits, as the engine's do"
    );
    assert_eq!(
        message(input(&[1 << 40])),
        "input: axis 0 of [1099511627776] is above 2147483647, the most that fits 32 bits"
    );
    let parts = input(&[4]).split(usize::MAX, 0);
    assert_eq!(parts.len(), 1 << 16);
    assert!(parts[0].check().unwrap_err().why.starts_with("num_splits is 9223372036854775807;"));
    let long = 1 << 30;
    let text = message(input(&[long, 1]) * input(&[1, long]));
    assert!(text.ends_with("has more elements than this machine can address"), "{text}");
}

#[test]
fn places_that_half_precision_cannot_count() {
    let wide = |n| input(&[1, n]);
    let why =
        "places among 4096 elements exceed 2048, up to which half precision counts; take those of parts";
    assert!(message(wide(4096).argmax(1)).starts_with(&format!("argmax: {why}")));
    assert!(message(input(&[4096, 1]).argmax(0)).starts_with(&format!("argmax: {why}")));
    assert!(message(wide(4096).sort(false, true)).starts_with(&format!("sort: {why}")));
    assert!(
        compile(&[wide(4096).sort(false, false), wide(4096).argmax(0)], &CompileOptions::default()).is_ok()
    );
    let mut rising = vec![0.0f32; 2049];
    rising[2048] = 1.0;
    let feed = Tensor::from_slice(Shape::new(&[1, 2049]).unwrap(), &rising).unwrap();
    let host = device::named("host").unwrap();
    for y in [wide(2049).argmax(1), wide(2049).sort(true, true)] {
        let plan = compile(&[y], &CompileOptions::default()).unwrap();
        let mut session = Session::new(plan, &host).unwrap();
        assert_eq!(session.run(std::slice::from_ref(&feed)).unwrap()[0].to_f32()[0], 2048.0);
    }
}

#[test]
fn a_bias_may_be_a_computed_vector() {
    let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    let bias = input(&[3]).relu();
    let y = Var::apply(op, &[&input(&[1, 2, 4, 4]), &constant(&[3, 2, 1, 1], 1.0), &bias]);
    assert!(compile(&[y], &CompileOptions::default()).is_ok());
    let x = input(&[1, 2, 4, 4]);
    let op = Conv { strides: [1, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    assert_eq!(
        message(x.conv(op, &constant(&[3, 2, 1, 1], 1.0), Some(&input(&[4])))),
        "conv: bias must be [3] or [1, 3, 1, 1], got [1, 4, 1, 1]"
    );
}

/// Through single precision the number would be the tie between 1 and what comes after it.
#[test]
fn numbers_in_text_round_once() {
    for constant in ["1.000488281250909", "lut4 0; 1.000488281250909 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"] {
        let text = format!("@0 : fp16[1] = {constant}\n%0 = const_array(index=0) : fp16[1]\nreturn %0\n");
        let graph = text::parse(&text).unwrap();
        assert_eq!(graph.constants()[0].to_f32(), [1.0 + 2f32.powi(-10)], "{constant}");
    }
}

#[test]
fn generated_text_is_bounded() {
    let error =
        text::parse("@0 : fp16[65536, 65536] = splat(1.0)\n%0 = const_array(index=0) : fp16[65536, 65536]")
            .unwrap_err();
    assert_eq!(
        error.to_string(),
        "graph text, line 1: 4294967296 elements are too many to generate from text"
    );
}
