//! Every invariant of the verifier, each broken once in a text that was good.

use aneforge_mil::program::Function;
use aneforge_mil::{
    BlobDType, BlobLayout, DType, Literal, Port, Program, Stmt, TensorValue, Type, parse, verify,
};
use half::f16;

/// One parameter of each kind, and a line of each group of ops.
const GOOD: &str = r#"program(1.3)
[buildInfo = dict<string, string>({{"coremlc-component-MIL", "3520.4.1"}, {"coremlc-version", "3520.5.1"}})]
{
    func main<ios18>(tensor<fp16, [2, 4]> a, tensor<uint8, [2, 4]> img) {
        tensor<fp16, [3, 4]> w = const()[name = string("w"), val = tensor<fp16, [3, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(64)))];
        tensor<fp16, [2, 3]> y = matmul(transpose_x = bool(false), transpose_y = bool(true), x = a, y = w)[name = string("y")];
        int32 ax = const()[name = string("ax"), val = int32(1)];
        tensor<int32, [1]> axs = const()[name = string("axs"), val = tensor<int32, [1]>([1])];
        bool yes = const()[name = string("yes"), val = bool(true)];
        bool no = const()[name = string("no"), val = bool(false)];
        string half = const()[name = string("half"), val = string("fp16")];
        tensor<fp16, [2, 4]> c = cast(dtype = half, x = img)[name = string("c")];
        tensor<fp16, [2, 1]> r = reduce_sum(axes = axs, keep_dims = yes, x = c)[name = string("r")];
        tensor<fp16, [2, 3]> d = add(x = y, y = r)[name = string("d")];
        tensor<bool, [2, 3]> m = less(x = y, y = r)[name = string("m")];
        tensor<fp16, [2, 3]> s = select(cond = m, a = d, b = y)[name = string("s")];
        tensor<fp16, [2, 6]> k = concat(axis = ax, interleave = no, values = (s, d))[name = string("k")];
        tensor<fp16, [2, 3]> k0, tensor<fp16, [2, 3]> k1 = split(axis = ax, num_splits = int32(2), x = k)[name = string("k_split")];
    } -> (k0, k1);
}
"#;

/// Weights in all encodings, with the records they refer to.
const COMPRESSED: &str = r#"program(1.3)
[buildInfo = dict<string, string>({})]
{
    func main<ios18>(tensor<fp16, [2, 4]> a) {
        tensor<fp16, [4, 4]> q = constexpr_affine_dequantize()[axis = int32(0), name = string("q"), quantized_data = tensor<int8, [4, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(64))), scale = tensor<fp16, [4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(144))), zero_point = int8(0)];
        tensor<uint4, [4, 4]> li = const()[name = string("li"), val = tensor<uint4, [4, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(216)))];
        tensor<fp16, [1, 1, 16, 1]> lt = const()[name = string("lt"), val = tensor<fp16, [1, 1, 16, 1]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(288)))];
        tensor<fp16, [4, 4]> l = constexpr_lut_to_dense(indices = li, lut = lt)[name = string("l")];
        tensor<uint1, [4, 4]> sm = const()[name = string("sm"), val = tensor<uint1, [4, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(384)))];
        tensor<fp16, [3]> sn = const()[name = string("sn"), val = tensor<fp16, [3]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(450)))];
        tensor<fp16, [4, 4]> s = constexpr_sparse_to_dense(nonzero_data = sn, mask = sm)[name = string("s")];
        tensor<int8, [4, 4]> bd = const()[name = string("bd"), val = tensor<int8, [4, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(520)))];
        tensor<fp16, [4, 2]> bs = const()[name = string("bs"), val = tensor<fp16, [4, 2]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(600)))];
        tensor<fp16, [4, 4]> bw = constexpr_blockwise_shift_scale(data = bd, scale = bs)[name = string("bw")];
        fp16 bz = const()[name = string("bz"), val = fp16(0x0.0p+0)];
        tensor<fp16, [4, 4]> b = add(x = bw, y = bz)[name = string("b")];
        tensor<fp16, [2, 4]> y0 = matmul(transpose_x = bool(false), transpose_y = bool(true), x = a, y = q)[name = string("y0")];
        tensor<fp16, [2, 4]> y1 = matmul(transpose_x = bool(false), transpose_y = bool(true), x = y0, y = l)[name = string("y1")];
        tensor<fp16, [2, 4]> y2 = matmul(transpose_x = bool(false), transpose_y = bool(true), x = y1, y = s)[name = string("y2")];
        tensor<fp16, [2, 4]> y3 = matmul(transpose_x = bool(false), transpose_y = bool(true), x = y2, y = b)[name = string("y3")];
    } -> (y3);
}
"#;

fn records() -> BlobLayout {
    let mut layout = BlobLayout::default();
    let (f, i) = (BlobDType::Fp16, BlobDType::Int8);
    for (dtype, len) in
        [(i, 16), (f, 8), (BlobDType::Uint4, 8), (f, 32), (BlobDType::Uint1, 2), (f, 6), (i, 16), (f, 16)]
    {
        layout.push(dtype, len);
    }
    layout
}

fn faults(text: &str, blobs: Option<&BlobLayout>) -> Vec<String> {
    let program = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let errors = verify(&program, blobs.map(BlobLayout::directory)).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

/// The first fault after `from` became `to` once.
fn broken(good: &str, from: &str, to: &str, blobs: Option<&BlobLayout>) -> String {
    assert!(good.contains(from), "{from}");
    let faults = faults(&good.replacen(from, to, 1), blobs);
    faults.first().cloned().unwrap_or_else(|| panic!("no fault: {from} -> {to}"))
}

#[test]
fn good_programs() {
    assert_eq!(faults(GOOD, None), [""; 0]);
    assert_eq!(faults(COMPRESSED, None), [""; 0]);
    assert_eq!(faults(COMPRESSED, Some(&records())), [""; 0]);
}

/// What op definitions ask of several parameters together.
const DEFINED: &str = r#"program(1.3)
[buildInfo = dict<string, string>({})]
{
    func main<ios18>(tensor<fp16, [1, 2, 6, 6]> a, tensor<fp16, [2, 2, 3, 3]> v) {
        tensor<int32, [2]> two = const()[name = string("two"), val = tensor<int32, [2]>([1, 1])];
        tensor<int32, [4]> pad = const()[name = string("pad"), val = tensor<int32, [4]>([1, 1, 1, 1])];
        string custom = const()[name = string("custom"), val = string("custom")];
        tensor<fp16, [1, 2, 6, 6]> c = conv(dilations = two, groups = int32(1), pad = pad, pad_type = custom, strides = two, weight = v, x = a)[name = string("c")];
        tensor<fp16, [1, 2, 8, 8]> p = max_pool(ceil_mode = bool(true), kernel_sizes = two, pad = pad, pad_type = custom, strides = two, x = c)[name = string("p")];
        tensor<bool, [1, 2, 8, 8]> m = less(x = p, y = p)[name = string("m")];
        tensor<fp16, [1, 2, 8, 8]> s = select(cond = m, a = p, b = p)[name = string("s")];
    } -> (s);
}
"#;

#[test]
fn definitions_of_ops() {
    assert_eq!(faults(DEFINED, None), [""; 0]);
    let cases = [
        ("[2]>([1, 1])", "[2]>([2, 1])", "conv.dilations is [2, 1]; a weight that is computed takes 1 only"),
        (
            "([1, 1, 1, 1])",
            "([1, 0, 1, 1])",
            "max_pool.pad is [1, 0, 1, 1]; with ceil_mode both sides of an axis are padded alike",
        ),
        ("tensor<fp16, [1, 2, 6, 6]> a", "tensor<fp16, [6, 6]> a", "conv.x has rank 2; 3 to 5 is possible"),
        (
            "tensor<fp16, [1, 2, 6, 6]> a",
            "tensor<fp16, []> a",
            "a parameter is a tensor of fp16 or uint8 with",
        ),
    ];
    for (from, to, message) in cases {
        let error = broken(DEFINED, from, to, None);
        assert!(error.starts_with(message), "{error}");
    }
    let narrow = DEFINED.replace(
        "tensor<fp16, [1, 2, 8, 8]> s = select(cond = m, a = p, b = p)",
        "fp16 k = const()[name = string(\"k\"), val = fp16(0x0.0p+0)];\n        \
         tensor<fp16, [1, 2, 8, 8]> s = select(cond = m, a = k, b = k)",
    );
    assert!(faults(&narrow, None)[0].starts_with("select.a and b do not have the result's extents together"));
}

/// A program of one `relu`, of a parameter with this name and these extents.
fn relu(name: &str, shape: &[u64]) -> Program {
    let ty = Type::fp16(shape.to_vec());
    let stmt = Stmt::op(Port::new("y", ty.clone()), "relu", [("x", name.into())]);
    Program::new(Function::main(vec![Port::new(name, ty)], vec![stmt], vec!["y".into()]))
}

#[test]
fn names_are_words_and_ranks_have_a_limit() {
    assert_eq!(verify(&relu("_x1", &[1, 1, 1, 1, 65536]), None), Ok(()));
    for name in ["", "1x", "a b", "é", "fp16"] {
        let error = verify(&relu(name, &[1]), None).unwrap_err()[0].to_string();
        assert!(error.starts_with(&format!("`{name}` is not a name")), "{error}");
    }
}

#[test]
fn functions_ports_and_names() {
    let cases = [
        ("main", "other", "the runtime keeps only the function `main`"),
        ("ios18", "ios17", "opset `ios17` is not `ios18`"),
        (
            "tensor<uint8, [2, 4]> img",
            "tensor<int32, [2, 4]> img",
            "a parameter is a tensor of fp16 or uint8",
        ),
        (
            "tensor<fp16, [2, 4]> a",
            "fp16 a",
            "a parameter is a tensor of fp16 or uint8 with at least one axis, not fp16",
        ),
        ("-> (k0, k1)", "-> (a)", "output `a` is a parameter, which crashes the compiler"),
        ("-> (k0, k1)", "-> ()", "the function returns nothing"),
        ("-> (k0, k1)", "-> (k0, k0)", "output `k0` is returned twice"),
        ("-> (k0, k1)", "-> (nope)", "output: `nope` is not defined before its use"),
        (
            "-> (k0, k1)",
            "-> (m)",
            "an output is a tensor of fp16 with at least one axis, not tensor<bool, [2, 3]>",
        ),
        ("-> (k0, k1)", "-> (ax)", "an output is a tensor of fp16 with at least one axis, not int32"),
        (" img)", " tensor)", "`tensor` is not a name"),
        ("uint8, [2, 4]> img)", "uint8, [2, 4]> a)", "`a` is defined twice"),
        (
            "bool no = const()[name = string(\"no\")",
            "bool yes = const()[name = string(\"yes\")",
            "`yes` is defined twice",
        ),
        ("[2, 4]> a,", "[1, 1, 1, 1, 2, 4]> a,", "rank 6 is over the limit, 5"),
        ("[2, 4]> a,", "[65537, 4]> a,", "axis 0 has size 65537; 1 to 65536 is possible"),
        ("[2, 4]> a,", "[2, 0]> a,", "axis 1 has size 0; 1 to 65536 is possible"),
    ];
    for (from, to, message) in cases {
        let error = broken(GOOD, from, to, None);
        assert!(error.starts_with(message), "{error}");
    }
    let empty = Program::new(Function::main(vec![Port::new("x", Type::fp16([1]))], vec![], vec!["x".into()]));
    let errors = verify(&empty, None).unwrap_err();
    assert!(errors[0].to_string().starts_with("the body is empty, which crashes the compiler"));
    let two = Program { functions: vec![], ..empty };
    assert_eq!(
        verify(&two, None).unwrap_err()[0].to_string(),
        "a program has exactly one function, `main`; found 0\nin `main`: program"
    );
}

/// From, to, and the fault.
const STATEMENTS: &[(&str, &str, &str)] = &[
    ("= less(", "= lesser(", "op `lesser` is unknown\nin `m`"),
    ("= add(", "= floor_div(", "op `floor_div` is unknown: it is documented to compile, but"),
    ("= add(", "= Sqr(", "op `Sqr` is unknown: it is a layer of the netlist"),
    ("add(x = y, y = r)", "add(x = y, z = r)", "add.z is not a parameter or attribute of the op"),
    ("add(x = y, y = r)", "add(x = y)", "add.y is missing"),
    ("add(x = y, y = r)", "add(x = y, x = y, y = r)", "add.x is given twice"),
    ("add(x = y, y = r)", "add(x = y, y = later)", "add.y: `later` is not defined before its use"),
    ("add(x = y, y = r)", "add(x = y, y = fp16(1.0))", "add.y must be the name of a value"),
    ("add(x = y, y = r)", "add(x = y, y = ax)", "add.y must be fp16, not int32"),
    ("add(x = y, y = r)", "add(x = y, y = c)", "shapes do not broadcast: tensor<fp16, [2, 3]> and"),
    ("[name = string(\"d\")]", "[]", "add.name is missing"),
    ("[name = string(\"d\")]", "[name = string(\"dd\")]", "the `name` attribute is `dd`; expected d"),
    ("[name = string(\"d\")]", "[name = string(\"d\"), axis = int32(1)]", "add.axis is not a parameter"),
    (
        "tensor<fp16, [2, 3]> d =",
        "tensor<fp16, [2, 4]> d =",
        "the result has type tensor<fp16, [2, 4]>; expected",
    ),
    (
        "tensor<bool, [2, 3]> m =",
        "tensor<fp16, [2, 3]> m =",
        "the result has type tensor<fp16, [2, 3]>; expected tensor<bool",
    ),
    ("tensor<fp16, [2, 1]> r =", "fp16 r =", "the result has type fp16; expected a tensor of fp16"),
    ("int32 ax = const()", "int32 ax = const(val = int32(1))", "const.val is not a parameter"),
    ("int32 ax", "uint32 ax", "the result has type uint32; expected int32"),
    (
        "axis = ax, interleave",
        "axis = axs, interleave",
        "concat.axis must be a scalar int32, not tensor<int32, [1]>",
    ),
    (
        "axis = ax, interleave",
        "axis = bool(true), interleave",
        "concat.axis must be a scalar int32, not bool",
    ),
    (
        "axes = axs",
        "axes = tensor<int32, [1]>([1])",
        "reduce_sum.axes must be a scalar literal or the name of a const",
    ),
    ("values = (s, d)", "values = s", "concat.values must be a tuple of names"),
    ("values = (s, d)", "values = ()", "concat.values must be a tuple of names"),
    ("interleave = no", "interleave = yes", "concat.interleave is true; possible: false"),
    ("keep_dims = yes", "keep_dims = no", "reduce_sum.keep_dims is false; possible: true"),
    ("string(\"fp16\")", "string(\"int32\")", "cast.dtype is int32; possible: fp16, fp32"),
    (
        "string(\"fp16\")",
        "string(\"fp32\")",
        "the result has type tensor<fp16, [2, 4]>; expected tensor<fp32, [2, 4]>",
    ),
    ("int32(2)", "int32(3)", "num_splits is 3, but 2 results are declared"),
    ("[2, 3]> k1", "[2, 4]> k1", "the result has type tensor<fp16, [2, 4]>; expected tensor<fp16, [2, 3]>"),
    ("k_split", "k", "the `name` attribute is `k`; expected a base name and _split"),
    ("[2, 3]> d =", "[2, 3]> d, tensor<fp16, [2, 3]> dd =", "`add` has 2 results instead of 1; only `split`"),
];

#[test]
fn statements() {
    for (from, to, message) in STATEMENTS {
        let error = broken(GOOD, from, to, None);
        assert!(error.starts_with(message), "{from} -> {to}\n{error}");
    }
    assert_eq!(
        broken(GOOD, "add(x = y, y = r)", "add(x = y)", None),
        "add.y is missing\nin `d`: tensor<fp16, [2, 3]> d = add(x = y)[name = string(\"d\")];"
    );
}

#[test]
fn literals() {
    let inf = f16::INFINITY;
    let tensor = |dtype, value| Literal::Tensor { dtype, shape: vec![2], value };
    let cases = [
        (Literal::Fp16(inf), "inf is not a number that fp16 can spell"),
        (Literal::Fp32(f32::NAN), "NaN is not a number that fp32 can spell"),
        (Literal::Int { dtype: DType::Int8, value: 128 }, "128 is not a value of type int8"),
        (Literal::string("a\"b"), "the string \"a\\\"b\" needs an escape"),
        (Literal::string("a\\b"), "the string \"a\\\\b\" needs an escape"),
        (Literal::string("a\nb"), "the string \"a\\nb\" needs an escape"),
        (
            tensor(DType::Int32, TensorValue::Ints(vec![1])),
            "1 elements are written inline for tensor<int32, [2]>",
        ),
        (tensor(DType::Uint4, TensorValue::Ints(vec![1, 16])), "16 is not a value of type uint4"),
        (tensor(DType::Fp16, TensorValue::Fp16Bits(vec![0; 3])), "3 elements are written inline"),
        (tensor(DType::Fp16, TensorValue::Fp16Bits(vec![0, inf.to_bits()])), "inf is not a number"),
        (tensor(DType::Int8, TensorValue::Fp16Bits(vec![0; 2])), "the elements of tensor<int8, [2]> cannot"),
        (Literal::blob(DType::Bool, [2], 64), "the elements of tensor<bool, [2]> cannot be given this way"),
        (
            tensor(DType::Fp16, TensorValue::Blob { path: "/etc/x".into(), offset: 64 }),
            "weights are read from `@model_path/weights.bin`, not from `/etc/x`",
        ),
    ];
    for (literal, message) in cases {
        let constant = Stmt::constant("k", literal.ty(), literal);
        let relu = Stmt::op(Port::new("y", Type::fp16([1])), "relu", [("x", "x".into())]);
        let x = Port::new("x", Type::fp16([1]));
        let program = Program::new(Function::main(vec![x], vec![constant, relu], vec!["y".into()]));
        let error = verify(&program, None).unwrap_err()[0].to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// From, to, and the fault.
const WEIGHTS: &[(&str, &str, &str)] = &[
    ("uint64(144)", "uint64(145)", "the weights file has no record with its descriptor at 145"),
    ("uint64(144)", "uint64(64)", "the record at 64 holds 16 bytes of int8, which is not tensor<fp16, [4]>"),
    (
        "uint64(144)",
        "uint64(600)",
        "the record at 600 holds 16 bytes of fp16, which is not tensor<fp16, [4]>",
    ),
    ("axis = int32(0)", "axis = int32(1)", "constexpr_affine_dequantize.axis is 1; possible: 0"),
    (
        "zero_point = int8(0)",
        "zero_point = int8(3)",
        "constexpr_affine_dequantize.zero_point is 3; possible: 0",
    ),
    (
        "tensor<fp16, [4, 4]> q",
        "tensor<fp16, [2, 8]> q",
        "constexpr_affine_dequantize.quantized_data has shape [4, 4]",
    ),
    (
        "tensor<fp16, [4, 4]> l",
        "tensor<fp16, [2, 8]> l",
        "constexpr_lut_to_dense.indices has shape [4, 4]; for",
    ),
    (
        "tensor<fp16, [4, 4]> s",
        "tensor<fp16, [2, 8]> s",
        "constexpr_sparse_to_dense.mask has shape [4, 4]; for",
    ),
    (
        "mask = sm",
        "mask = li",
        "constexpr_sparse_to_dense.mask must be a tensor of uint1, not tensor<uint4, [4, 4]>",
    ),
    ("scale = bs", "scale = sn", "scales of shape [3] do not fit tensor<fp16, [4, 4]>"),
    ("data = bd", "data = a", "constexpr_blockwise_shift_scale.data must be a tensor of int8"),
    ("indices = li", "indices = uint4(1)", "constexpr_lut_to_dense.indices must be the name of a const"),
    (
        "x = y2, y = b)",
        "x = y2, y = bw)",
        "`bw` is the result of constexpr_blockwise_shift_scale, which cannot feed matmul.y; it can feed elementwise",
    ),
    (
        "x = a, y = q)",
        "x = q, y = a)",
        "`q` is the result of constexpr_affine_dequantize, which cannot feed matmul.x; it can feed matmul.y and conv.weight",
    ),
    (
        "add(x = bw, y = bz)",
        "add(x = l, y = bz)",
        "`l` is the result of constexpr_lut_to_dense, which cannot feed add.x",
    ),
    ("-> (y3)", "-> (s)", "`s` is the result of constexpr_sparse_to_dense, which cannot feed an output"),
];

#[test]
fn records_and_compressed_weights() {
    for (from, to, message) in WEIGHTS {
        let error = broken(COMPRESSED, from, to, Some(&records()));
        assert!(error.starts_with(message), "{from} -> {to}\n{error}");
    }
}

/// A lookup table has two axes more than its weight, so it may have more than a tensor of the engine.
#[test]
fn lookup_table_has_the_rank_of_the_weight_and_two() {
    let flat = COMPRESSED.replace("[1, 1, 16, 1]", "[1, 16, 1]");
    let message = "constexpr_lut_to_dense.lut has shape [1, 16, 1]; for a weight of type tensor<fp16, [4, 4]> it must be [1, 1, 16, 1]";
    assert!(faults(&flat, Some(&records()))[0].starts_with(message));
    let conv = r#"program(1.3)
[buildInfo = dict<string, string>({})]
{
    func main<ios18>(tensor<fp16, [1, 2, 4, 4]> a) {
        tensor<uint4, [3, 2, 1, 1]> i = const()[name = string("i"), val = tensor<uint4, [3, 2, 1, 1]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(64)))];
        tensor<fp16, [1, 1, 1, 1, 16, 1]> t = const()[name = string("t"), val = tensor<fp16, [1, 1, 1, 1, 16, 1]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(131)))];
        tensor<fp16, [3, 2, 1, 1]> w = constexpr_lut_to_dense(indices = i, lut = t)[name = string("w")];
        string p = const()[name = string("p"), val = string("custom")];
        tensor<int32, [2]> one = const()[name = string("one"), val = tensor<int32, [2]>([1, 1])];
        tensor<int32, [4]> pad = const()[name = string("pad"), val = tensor<int32, [4]>([0, 0, 0, 0])];
        tensor<fp16, [1, 3, 4, 4]> y = conv(dilations = one, groups = int32(1), pad = pad, pad_type = p, strides = one, weight = w, x = a)[name = string("y")];
    } -> (y);
}
"#;
    assert_eq!(faults(conv, None), [""; 0]);
    // A weight that is not computed may be dilated.
    let two = r#"tensor<int32, [2]> two = const()[name = string("two"), val = tensor<int32, [2]>([2, 2])];"#;
    let dilated =
        conv.replace("string p", &format!("{two} string p")).replace("dilations = one", "dilations = two");
    assert_eq!(faults(&dilated, None), [""; 0]);
    let error = broken(conv, "\"custom\"", "\"same\"", None);
    assert!(error.starts_with("conv.pad_type is same; possible: custom"), "{error}");
}

/// The limit of axes does not hold for what only feeds a `constexpr_*` op.
#[test]
fn non_zeros_may_be_many() {
    let many =
        COMPRESSED.replace("[4, 4]> sm", "[400, 400]> sm").replace("uint1, [4, 4]>(", "uint1, [400, 400]>(");
    let many =
        many.replace("tensor<fp16, [3]>", "tensor<fp16, [70000]>").replace("[4, 4]> s =", "[400, 400]> s =");
    assert_eq!(faults(&many, None), [""; 0]);
    let too_many = many.replace("70000", "170000");
    assert!(
        faults(&too_many, None)[0].starts_with("170000 non-zeros are more than tensor<fp16, [400, 400]> has")
    );
}
