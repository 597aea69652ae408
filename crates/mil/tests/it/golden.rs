//! Section 11 of the reference: byte counts and hashes of whole programs and weights files.

use aneforge_mil::{
    Arg, BlobDType, BlobFile, BlobLayout, BlobWriter, DType, Literal, Port, Program, Stmt, Type, parse,
    program::Function, verify, weights::pack_uint1,
};
use half::f16;
use sha2::{Digest, Sha256};

/// The first eight bytes of the SHA-256, in hex.
fn hash(bytes: &[u8]) -> String {
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

/// A constexpr statement over named constants.
fn constexpr(result: &str, op: &str, args: [(&str, &str); 2]) -> Stmt {
    let args = args.map(|(k, v)| (k, Arg::from(v)));
    Stmt::op(Port::new(result, Type::fp16([3, 4])), op, args)
}

/// `W[i][j] = (4i + j) / 8 - 0.5`, 3 by 4.
fn weight() -> Vec<f32> {
    (0u8..12).map(|i| f32::from(i) / 8.0 - 0.5).collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

/// Symmetric int8 in blocks of `block`: data and scales.
fn quantised(block: usize) -> (Vec<u8>, Vec<u8>) {
    let weight = weight();
    let scales: Vec<f32> =
        weight.chunks(block).map(|b| b.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0).collect();
    let rows = weight.chunks(block).zip(&scales);
    let data = rows.flat_map(|(b, s)| b.iter().map(move |v| (v / s).round_ties_even() as i8 as u8)).collect();
    (data, halves(&scales))
}

/// The weights file of these payloads and the bias, and the offsets of its records.
fn file(payloads: &[(BlobDType, Vec<u8>)]) -> (Vec<u8>, Vec<u64>) {
    let bias = (BlobDType::Fp16, halves(&[0.25, -0.25, 1.0]));
    let payloads: Vec<_> = payloads.iter().chain([&bias]).collect();
    let mut layout = BlobLayout::default();
    let offsets = payloads.iter().map(|(dtype, bytes)| layout.push(*dtype, bytes.len() as u64)).collect();
    let len = layout.file_len();
    let mut writer = BlobWriter::new(Vec::new(), layout).expect("a header");
    for (_, bytes) in payloads {
        writer.record(bytes).expect("the planned length");
    }
    let bytes = writer.finish().expect("all records");
    assert_eq!(bytes.len() as u64, len);
    (bytes, offsets)
}

/// One row of the table: text length and hash, file length and hash. The program verifies against its file and
/// survives a trip through text.
fn row(program: &Program, bytes: &[u8], text: (usize, &str), bin: (usize, &str)) {
    let blobs = BlobFile::parse(bytes).expect("a weights file");
    verify(program, Some(blobs.directory())).expect("a valid program");
    assert_eq!(parse(&program.to_string()).as_ref(), Ok(program));
    // The emitter spells the zero of the blockwise bridge in another way than its hex-float rule.
    let printed = program.to_string().replace("fp16(0x0.0p+0)", "fp16(0x0p+0)");
    assert_eq!((printed.len(), hash(printed.as_bytes()).as_str()), text);
    assert_eq!((bytes.len(), hash(bytes).as_str()), bin);
}

#[test]
fn int8() {
    let (data, scale) = quantised(4);
    let (bytes, offsets) = file(&[(BlobDType::Int8, data), (BlobDType::Fp16, scale)]);
    assert_eq!(offsets, [64, 140, 210]);
    let mut w = Stmt::op::<&str>(Port::new("t1_w", Type::fp16([3, 4])), "constexpr_affine_dequantize", []);
    w.attrs.insert(0, ("axis".into(), Literal::int32(0)));
    w.attrs.push(("quantized_data".into(), Literal::blob(DType::Int8, [3, 4], 64)));
    w.attrs.push(("scale".into(), Literal::blob(DType::Fp16, [3], 140)));
    w.attrs.push(("zero_point".into(), Literal::int8(0)));
    row(&program(vec![w], 210), &bytes, (1079, "6c164aad17f45a66"), (280, "0e7c4b18168e6b1b"));
}

#[test]
fn blockwise() {
    let (data, scale) = quantised(2);
    let (bytes, offsets) = file(&[(BlobDType::Int8, data), (BlobDType::Fp16, scale)]);
    assert_eq!(offsets, [64, 140, 216]);
    let w = vec![
        record("t1_w_d", DType::Int8, &[3, 4], 64),
        record("t1_w_sc", DType::Fp16, &[3, 2], 140),
        constexpr("t1_w_bw", "constexpr_blockwise_shift_scale", [("data", "t1_w_d"), ("scale", "t1_w_sc")]),
        Stmt::constant("t1_w_bz", Type::Scalar(DType::Fp16), Literal::fp16(0.0).unwrap()),
        constexpr("t1_w", "add", [("x", "t1_w_bw"), ("y", "t1_w_bz")]),
    ];
    row(&program(w, 216), &bytes, (1384, "82371dab3a8b62e9"), (286, "6dba793758bb00fa"));
}

#[test]
fn sparse() {
    let sparse: Vec<f32> =
        weight().iter().enumerate().map(|(i, &v)| if i % 2 == 0 { 0.0 } else { v }).collect();
    let mask = pack_uint1(&sparse.iter().map(|&v| v != 0.0).collect::<Vec<_>>());
    let nonzeros: Vec<f32> = sparse.into_iter().filter(|&v| v != 0.0).collect();
    let (bytes, offsets) = file(&[(BlobDType::Uint1, mask), (BlobDType::Fp16, halves(&nonzeros))]);
    assert_eq!(offsets, [64, 130, 206]);
    let w = vec![
        record("t1_w_mask", DType::Uint1, &[3, 4], 64),
        record("t1_w_nz", DType::Fp16, &[6], 130),
        constexpr("t1_w", "constexpr_sparse_to_dense", [("nonzero_data", "t1_w_nz"), ("mask", "t1_w_mask")]),
    ];
    row(&program(w, 206), &bytes, (1216, "7d9e0c206f0e3ca8"), (276, "d7a753e4038092a1"));
}

/// The text only: the payload needs the clustering, which is not of this crate.
#[test]
fn int4_text() {
    let (bytes, offsets) = file(&[(BlobDType::Uint4, vec![0; 6]), (BlobDType::Fp16, vec![0; 32])]);
    assert_eq!((offsets, bytes.len()), (vec![64, 134, 230], 300));
    let w = vec![
        record("t1_w_idx", DType::Uint4, &[3, 4], 64),
        record("t1_w_lut", DType::Fp16, &[1, 1, 16, 1], 134),
        constexpr("t1_w", "constexpr_lut_to_dense", [("indices", "t1_w_idx"), ("lut", "t1_w_lut")]),
    ];
    let text = program(w, 230).to_string();
    assert_eq!((text.len(), hash(text.as_bytes()).as_str()), (1227, "7d742269c03187ca"));
}

#[test]
fn fp16() {
    let program = program(vec![record("t1_w", DType::Fp16, &[3, 4], 64)], 152);
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
    assert_eq!(program.to_string(), golden);
    let (bytes, offsets) = file(&[(BlobDType::Fp16, halves(&weight()))]);
    assert_eq!(offsets, [64, 152]);
    row(&program, &bytes, (906, "781635af435fb072"), (222, "e023bfbd69f8405c"));
}
