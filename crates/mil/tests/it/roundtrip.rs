//! `parse(print(p)) == p` for programs of every form, and texts that nobody vouches for.

use aneforge_mil::program::Function;
use aneforge_mil::{Arg, DType, Literal, Port, Program, Stmt, TensorValue, Type, parse, verify};
use half::f16;
use proptest::prelude::*;

const GOLDEN: &str = r#"program(1.3)
[buildInfo = dict<string, string>({{"coremlc-component-MIL", "3520.4.1"}, {"coremlc-version", "3520.5.1"}})]
{
    func main<ios18>(tensor<fp16, [2, 4]> t0, tensor<uint8, [1, 3]> t1) {
        tensor<fp16, [3, 4]> w = const()[name = string("w"), val = tensor<fp16, [3, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(64)))];
        tensor<fp16, [2, 3]> y = matmul(transpose_x = bool(false), transpose_y = bool(true), x = t0, y = w)[name = string("y")];
        tensor<fp16, [1, 2]> k = const()[name = string("k"), val = tensor<fp16, [1, 2]>([[0x3c00, 0x4000]])];
        tensor<fp16, [4, 3]> z = concat(axis = int32(0), interleave = bool(false), values = (y, y))[name = string("z")];
        tensor<fp16, [4, 3]> e = elu(alpha = fp16(0x1.8000000000000p-1), x = z)[name = string("e")];
    } -> (e, y);
}
"#;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_]{0,6}"
}

fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

fn ty() -> impl Strategy<Value = Type> {
    let shape = prop::collection::vec(prop_oneof![1u64..10, any::<u64>()], 0..6);
    prop_oneof![dtype().prop_map(Type::Scalar), (dtype(), shape).prop_map(|(d, s)| Type::tensor(d, s))]
}

fn bits(shape: Vec<u64>) -> impl Strategy<Value = Literal> {
    let numel = shape.iter().product::<u64>() as usize;
    prop::collection::vec(any::<u16>(), numel).prop_map(move |bits| Literal::Tensor {
        dtype: DType::Fp16,
        shape: shape.clone(),
        value: TensorValue::Fp16Bits(bits),
    })
}

fn ints(dtype: DType) -> impl Strategy<Value = Literal> {
    let (low, high) = dtype.int_range().expect("an integer type");
    prop::collection::vec(low..=high, 0..5).prop_map(move |values| Literal::Tensor {
        dtype,
        shape: vec![values.len() as u64],
        value: TensorValue::Ints(values),
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    let integer =
        prop::sample::select(DType::ALL.into_iter().filter(|d| d.int_range().is_some()).collect::<Vec<_>>());
    let int = integer.clone().prop_flat_map(|dtype| {
        let (low, high) = dtype.int_range().expect("an integer type");
        (low..=high).prop_map(move |value| Literal::Int { dtype, value })
    });
    prop_oneof![
        any::<u16>()
            .prop_map(f16::from_bits)
            .prop_filter("finite", |h| h.is_finite())
            .prop_map(Literal::Fp16),
        any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(Literal::Fp32),
        any::<bool>().prop_map(Literal::Bool),
        any::<String>().prop_map(Literal::String),
        int,
        integer.prop_flat_map(ints),
        prop::collection::vec(1u64..4, 0..4).prop_flat_map(bits),
        (dtype(), any::<String>(), any::<u64>()).prop_map(|(dtype, path, offset)| Literal::Tensor {
            dtype,
            shape: vec![2, 3],
            value: TensorValue::Blob { path, offset },
        }),
    ]
}

fn stmt() -> impl Strategy<Value = Stmt> {
    let arg = prop_oneof![
        name().prop_map(Arg::Name),
        literal().prop_map(Arg::Literal),
        prop::collection::vec(name(), 0..3).prop_map(Arg::Tuple)
    ];
    let port = (name(), ty()).prop_map(|(name, ty)| Port { name, ty });
    let results = prop::collection::vec(port, 1..3);
    let args = prop::collection::vec((name(), arg), 0..4);
    let attrs = prop::collection::vec((name(), literal()), 0..3);
    (results, name(), args, attrs).prop_map(|(results, op, args, attrs)| Stmt { results, op, args, attrs })
}

fn program() -> impl Strategy<Value = Program> {
    let params = prop::collection::vec((name(), ty()).prop_map(|(n, t)| Port::new(n, t)), 0..3);
    let function =
        (name(), name(), params, prop::collection::vec(stmt(), 0..5), prop::collection::vec(name(), 0..3))
            .prop_map(|(name, opset, params, body, returns)| Function { name, opset, params, body, returns });
    let pairs = prop::collection::vec((any::<String>(), any::<String>()), 0..3);
    (pairs, prop::collection::vec(function, 0..3))
        .prop_map(|(build_info, functions)| Program { build_info, functions })
}

#[test]
fn golden_is_stable() {
    let program = parse(GOLDEN).unwrap();
    assert_eq!(program.to_string(), GOLDEN);
    assert_eq!(verify(&program, None), Ok(()));
}

/// Where, what was found and what was expected.
#[test]
fn errors_have_a_place() {
    let swap = |from: &str, to: &str| parse(&GOLDEN.replacen(from, to, 1)).unwrap_err().to_string();
    assert_eq!(swap("1.3", "1.4"), "line 1, column 9: expected `1.3`, found `1.4`");
    assert_eq!(swap("func", "fonc"), "line 4, column 5: expected `func`, found `fonc`");
    assert_eq!(swap("\"w\"), val", "w), val"), "line 5, column 56: expected a string, found `w`");
    assert_eq!(swap("x = t0, y", "x @ t0, y"), "line 6, column 96: expected a token of MIL, found '@'");
    assert_eq!(
        swap("(e, y);\n}\n", "(e, y);\n"),
        "line 10, column 17: expected `func`, found the end of the text"
    );
    assert_eq!(
        swap("dict", &"d".repeat(99)),
        format!("line 2, column 14: expected `dict`, found `{}…`", "d".repeat(40))
    );
    assert_eq!(
        swap("string(\"w\")", r#"string("w\q")"#),
        r#"line 5, column 58: expected an escape, one of \" \\ \n, found a backslash and 'q'"#
    );
}

#[test]
fn nothing_follows_the_end() {
    let after = parse(&format!("{GOLDEN}func")).unwrap_err().to_string();
    assert!(after.contains("expected the end of the text, found `func`"), "{after}");
    let stmt = "fp16 k = const()[name = string(\"k\"), val = fp16(0x1p0)];";
    assert!(aneforge_mil::parse_stmt(stmt).is_ok());
    assert!(aneforge_mil::parse_stmt(&format!("{stmt} fp16")).is_err());
}

/// A sign belongs to a number at its start and behind an exponent's letter; elsewhere it is no token.
#[test]
fn signs_within_numbers() {
    let number = |text: &str| parse(&GOLDEN.replacen("0x1.8000000000000p-1", text, 1));
    assert!(number("-0x1.8p-1").is_ok() && number("0x1.8p+1").is_ok() && number("-1.5e-1").is_ok());
    for text in ["0x1.8-1p1", "1.5-1", "0x1.8p-1-1", "1e-1+1", "1.5+1", "0x1+8p1"] {
        let error = number(text).unwrap_err().to_string();
        let whole = format!("found `{text}`");
        assert!(!error.contains(&whole), "{text} is read as one token: {error}");
    }
}

/// Long and deep texts cost memory and time in proportion, and no stack.
#[test]
fn deep_text() {
    let deep =
        |open: &str| format!("{}{}", &GOLDEN[..GOLDEN.find("[[0x3c00").unwrap()], open.repeat(200_000));
    for open in ["[", "(", "{", "const(", "tensor<fp16, [", "\"", "\\", "-", "0x", "é"] {
        assert!(parse(&deep(open)).is_err());
    }
    let dims = "1, ".repeat(100_000);
    let nest = "[".repeat(100_001);
    let text = format!("k = const()[val = tensor<fp16, [{dims}1]>({nest}0x3c00");
    assert!(aneforge_mil::parse_stmt(&format!("fp16 {text}")).is_err());
}

proptest! {
    #[test]
    fn print_then_parse(program in program()) {
        let text = program.to_string();
        let back = parse(&text);
        prop_assert_eq!(back.as_ref(), Ok(&program), "{}", text);
        // Arbitrary programs have faults; finding them must not panic.
        let _ = verify(&program, None);
    }

    #[test]
    fn random_text(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    /// Tokens in any order get deeper into the grammar than characters do.
    #[test]
    fn random_tokens(tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..60), at in 0usize..600) {
        let at = GOLDEN.char_indices().map(|(i, _)| i).nth(at).unwrap_or(0);
        let _ = parse(&format!("{}{}", &GOLDEN[..at], tokens.join(" ")));
        let _ = aneforge_mil::parse_stmt(&tokens.concat());
    }

    #[test]
    fn mutated_golden(
        changes in prop::collection::vec((0usize..GOLDEN.len(), 0usize..4, any::<u8>()), 1..5),
    ) {
        let mut bytes = GOLDEN.as_bytes().to_vec();
        for (at, kind, value) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match kind {
                0 => bytes[at] = value,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, value % 128),
                _ => { let copy = bytes[at..].iter().copied().take(usize::from(value)).collect::<Vec<_>>(); bytes.splice(at..at, copy); }
            }
        }
        if let Ok(program) = parse(&String::from_utf8_lossy(&bytes)) {
            let _ = verify(&program, None);
            prop_assert_eq!(parse(&program.to_string()), Ok(program));
        }
    }
}

const TOKENS: [&str; 40] = [
    "program",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    ",",
    ";",
    "=",
    "->",
    "1.3",
    "tensor",
    "fp16",
    "int32",
    "bool",
    "string",
    "uint4",
    "const",
    "BLOBFILE",
    "path",
    "offset",
    "uint64",
    "name",
    "val",
    "x",
    "\"s\"",
    "0",
    "-1",
    "0x3c00",
    "0x1.8p-1",
    "true",
    "99999999999999999999",
    "main",
    "ios18",
    "func",
    "dict",
    "buildInfo",
];
