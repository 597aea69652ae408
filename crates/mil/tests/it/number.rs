//! Numbers: how hexadecimal floating point is spelled, and every spelling that is accepted.

use aneforge_mil::{DType, Literal, Stmt, parse_stmt};
use half::f16;

fn parsed(literal: &str) -> Result<Literal, String> {
    let stmt = parse_stmt(&format!("fp16 k = const()[val = {literal}];")).map_err(|e| e.to_string())?;
    stmt.attr("val").cloned().ok_or_else(|| "no val".to_owned())
}

#[test]
fn hex_float_table() {
    let table = [
        (1.0, "0x1.0000000000000p+0"),
        (-10.0, "-0x1.4000000000000p+3"),
        (1024.0, "0x1.0000000000000p+10"),
        (65504.0, "0x1.ffc0000000000p+15"),
        (0.1, "0x1.9980000000000p-4"),
        (1.0 / 255.0, "0x1.0100000000000p-8"),
        (1e-5, "0x1.5000000000000p-17"),
        (6e-8, "0x1.0000000000000p-24"),
        (0.0, "0x0.0p+0"),
        (-0.0, "-0x0.0p+0"),
        (65519.999, "0x1.ffc0000000000p+15"),
    ];
    for (value, text) in table {
        assert_eq!(Literal::fp16(value).unwrap().to_string(), format!("fp16({text})"), "{value}");
    }
    for bad in [65520.0, -65520.0, f64::INFINITY, f64::NAN, 1e300] {
        assert!(Literal::fp16(bad).is_err(), "{bad}");
    }
}

#[test]
fn rounds_once() {
    // Just above a tie of fp16 but nearer to the tie than f32 can tell: rounding twice would give 1.
    let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(Literal::fp16(above), Ok(Literal::Fp16(f16::from_bits(0x3c01))));
    let below = 1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40);
    assert_eq!(Literal::fp16(below), Ok(Literal::Fp16(f16::from_bits(0x3c01))));
    // Nearest to the f32 beside a tie, from the side of the tie.
    let beside = 2f64.powi(-23) - 2f64.powi(-40);
    for tie in [1.0 + 2f64.powi(-11) + beside, 1.0 + 3.0 * 2f64.powi(-11) - beside] {
        assert_eq!(Literal::fp16(tie), Ok(Literal::Fp16(f16::from_bits(0x3c01))));
        assert_eq!(Literal::fp16(-tie), Ok(Literal::Fp16(f16::from_bits(0xbc01))));
    }
}

#[test]
fn integers_are_of_their_type() {
    for dtype in DType::ALL {
        let Some((low, high)) = dtype.int_range() else {
            assert!(Literal::int(dtype, 0).is_err(), "{dtype}");
            continue;
        };
        for value in [low, high] {
            assert_eq!(Literal::int(dtype, value), Ok(Literal::Int { dtype, value }));
        }
        for value in [low.checked_sub(1), high.checked_add(1)].into_iter().flatten() {
            assert!(Literal::int(dtype, value).is_err(), "{dtype} {value}");
        }
    }
}

#[test]
fn every_finite_fp16_survives() {
    for bits in (0..=u16::MAX).filter(|&b| f16::from_bits(b).is_finite()) {
        let literal = Literal::Fp16(f16::from_bits(bits));
        match parsed(&literal.to_string()) {
            Ok(Literal::Fp16(back)) => assert_eq!(back.to_bits(), bits),
            other => panic!("{literal}: {other:?}"),
        }
    }
}

#[test]
fn accepted_spellings() {
    let zero = Ok(Literal::Fp16(f16::ZERO));
    for text in ["fp16(0x0.0p+0)", "fp16(0x0p+0)", "fp16(0.0)", "fp16(0)", "fp16 ( 0e5 )"] {
        assert_eq!(parsed(text), zero, "{text}");
    }
    for text in ["fp16(0x1.8p-1)", "fp16(0.75)", "fp16(7.5e-1)", "fp16(0xCp-4)", "fp16(0x0.0000000000cp+40)"]
    {
        assert_eq!(parsed(text), Ok(Literal::Fp16(f16::from_f32(0.75))), "{text}");
    }
    assert_eq!(parsed("int32(-1)"), Ok(Literal::int32(-1)));
    assert_eq!(parsed("fp32(2.0)"), Ok(Literal::Fp32(2.0)));
    assert_eq!(parsed("fp32(0x1p+1)"), Ok(Literal::Fp32(2.0)));
    let nested = "tensor<fp16, [2, 2]>([[0x3c00, 0x4000], [0x4200, 0x4400]])";
    assert_eq!(parsed(nested).map(|l| l.to_string()), Ok(nested.to_owned()));
    let stmt = parse_stmt(r#"fp16 y = f(axis = const(int32(-1)))[];"#).unwrap();
    assert_eq!(stmt.arg("axis"), Some(&Literal::int32(-1).into()));
}

#[test]
fn refused_numbers() {
    let huge = format!("fp16(0x{}p+{})", "f".repeat(3000), "9".repeat(3000));
    let refused = [
        ("fp16(65520)", "expected a number within 65504 of zero, found `65520`"),
        ("fp16(inf)", "found `inf`"),
        ("fp16(0x3c00)", "found `0x3c00`"),
        ("fp16(1_0)", "expected `)`, found `_0`"),
        (huge.as_str(), "…`"),
        ("int8(128)", "expected a decimal int8, -128 to 127, found `128`"),
        ("int32(1.5)", "found `1.5`"),
        ("uint32(-1)", "found `-1`"),
        ("bool(maybe)", "expected `true` or `false`, found `maybe`"),
        ("tensor<fp16, [2]>([0x3c00])", "expected `,`, found `]`"),
        ("tensor<fp16, [1]>([0x3c00, 0x3c00])", "expected `]`, found `,`"),
        ("tensor<fp16, [0]>([0x3c00])", "expected `]`, found `0x3c00`"),
        ("tensor<fp16, [1]>([0x13c00])", "expected a 16-bit pattern like 0x3c00, found `0x13c00`"),
        ("tensor<bool, [1]>([true])", "expected `BLOBFILE`"),
        ("tensor<int9, [1]>([1])", "expected a type, found `int9`"),
    ];
    for (text, message) in refused {
        let error = parsed(text).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn strings_and_fp32_print_back() {
    for text in ["plain", "with \"quotes\"", "back\\slash", "two\nlines", "∑"] {
        let stmt = Stmt::constant("s", Literal::string(text).ty(), Literal::string(text));
        assert_eq!(parse_stmt(&stmt.to_string()).as_ref(), Ok(&stmt));
    }
    assert_eq!(Literal::string("a\n\"b\\").to_string(), r#"string("a\n\"b\\")"#);
    assert_eq!(Literal::fp32(2.0).unwrap().to_string(), "fp32(2.0)");
    assert_eq!(Literal::fp32(1e-7).unwrap().to_string(), "fp32(0.0000001)");
    assert!(Literal::fp32(f32::INFINITY).is_err());
}
