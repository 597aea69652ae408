//! Section 11 of the reference: byte counts and hashes of whole programs and weights files.

use aneforge_mil::{Arg, DType, Literal, Port, Program, Stmt, Type, program::Function};
use sha2::{Digest, Sha256};

/// The first eight bytes of the SHA-256, in hex.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Linear 4 -> 3 with a bias, then softmax. `weight` makes `t1_w`; the bias record is at `bias`.
fn program(weight: Vec<Stmt>, bias: u64) -> Program {
    let data = |name: &str| Port::new(name, Type::fp16([2, 3]));
    let mut body = weight;
    let (tx, ty) = (Literal::bool(false).into(), Literal::bool(true).into());
    let args: [(&str, Arg); 4] =
        [("transpose_x", tx), ("transpose_y", ty), ("x", "t0".into()), ("y", "t1_w".into())];
    body.push(Stmt::op(data("t1"), "matmul", args));
    body.push(Stmt::constant("t1_b", Type::fp16([1, 3]), Literal::blob(DType::Fp16, [1, 3], bias)));
    body.push(Stmt::op(data("t1_bb"), "add", [("x", "t1".into()), ("y", "t1_b".into())]));
    body.push(Stmt::constant("t2_ax", Type::Scalar(DType::Int32), Literal::int32(1)));
    body.push(Stmt::op(data("t2"), "softmax", [("axis", "t2_ax".into()), ("x", "t1_bb".into())]));
    Program::new(Function::main(vec![Port::new("t0", Type::fp16([2, 4]))], body, vec!["t2".into()]))
}

/// The const statement of a record.
fn record(name: &str, dtype: DType, shape: &[u64], offset: u64) -> Stmt {
    Stmt::constant(name, Type::tensor(dtype, shape), Literal::blob(dtype, shape, offset))
}

#[test]
fn fp16() {
    let text = program(vec![record("t1_w", DType::Fp16, &[3, 4], 64)], 152).to_string();
    let golden = r#"program(1.3)
[buildInfo = dict<string, string>({{"coremlc-component-MIL", "3520.4.1"}, {"coremlc-version", "3520.5.1"}})]
{
    func main<ios18>(tensor<fp16, [2, 4]> t0) {
        tensor<fp16, [3, 4]> t1_w = const()[name = string("t1_w"), val = tensor<fp16, [3, 4]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(64)))];
        tensor<fp16, [2, 3]> t1 = matmul(transpose_x = bool(false), transpose_y = bool(true), x = t0, y = t1_w)[name = string("t1")];
        tensor<fp16, [1, 3]> t1_b = const()[name = string("t1_b"), val = tensor<fp16, [1, 3]>(BLOBFILE(path = string("@model_path/weights.bin"), offset = uint64(152)))];
        tensor<fp16, [2, 3]> t1_bb = add(x = t1, y = t1_b)[name = string("t1_bb")];
        int32 t2_ax = const()[name = string("t2_ax"), val = int32(1)];
        tensor<fp16, [2, 3]> t2 = softmax(axis = t2_ax, x = t1_bb)[name = string("t2")];
    } -> (t2);
}
"#;
    assert_eq!(text, golden);
    assert_eq!((text.len(), hash(text.as_bytes()).as_str()), (906, "781635af435fb072"));
}
