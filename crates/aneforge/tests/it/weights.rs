//! Weights in every encoding, from the graph to the weight file and the host's packs.

use crate::support::{IEEE, assert_same, draw, engine, feed_tensors, random_weight, tensor, to_f64};
use aneforge::compile::compile_graph;
use aneforge::ir::ops::conv::Conv;
use aneforge::ir::ops::conv_transpose::ConvTranspose;
use aneforge::ir::precision::Array;
use aneforge::ir::{text, verify};
use aneforge::passes::legal;
use aneforge::portable::{pack_plan, pack_values, unpack_plan, unpack_values};
use aneforge::{
    CompileOptions, DType, Encoding, Graph, Numerics, Plan, Session, Shape, Target, Tensor, Var, Weight,
    compile, f16,
};
use aneforge_tensor::{Bytes, Int8Weight, Lut4Weight};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn plan_of(y: &Var) -> Plan {
    compile(std::slice::from_ref(y), &CompileOptions::default()).unwrap()
}

/// The encodings of a plan's constants that are not stored in full.
fn encodings(plan: &Plan) -> Vec<Encoding> {
    let constants = plan.segments.iter().flat_map(|segment| segment.graph.constants());
    constants.map(Weight::encoding).filter(|&encoding| encoding != Encoding::Dense).collect()
}

/// The graph of the plan's program, read back from its text and weight file.
fn read_back(plan: &Plan) -> Graph {
    let segment = &plan.segments[0];
    let (program, blob) = segment.mil().unwrap();
    let program = aneforge_mil::parse(&program.to_string()).unwrap();
    let bytes = Bytes::new(blob.write(&segment.graph, Vec::new()).unwrap());
    aneforge::import::mil::read(&program, &bytes).unwrap()
}

/// What holds for a value with encoded weights: it computes what it does with the weights in full, on the host too, fused or
/// not, and survives text, bytes and MIL with its weights as they were.
fn holds(y: &Var, kept: &[Encoding]) {
    let graph = Graph::freeze(std::slice::from_ref(y)).unwrap();
    verify::verify(&graph).unwrap();
    let feeds: Vec<Array> = graph
        .feed_types()
        .iter()
        .enumerate()
        .map(|(i, f)| draw(f.ty.shape, 77 + i as u64, (-1.0, 1.0)))
        .collect();
    let full = compile_graph(&in_full(&graph), &CompileOptions::default()).unwrap().segments[0].graph.clone();
    let want = full.eval(&feeds, IEEE)[full.outputs()[0].index()].clone();

    let plan = plan_of(y);
    assert_eq!(encodings(&plan), kept, "{plan}");
    for engine in [engine(2), engine(1).unfused()] {
        let mut session = Session::new(plan.clone(), engine.with_numerics(Numerics::Ieee)).unwrap();
        session.run(&feed_tensors(&graph, &feeds)).unwrap();
        assert_same(&to_f64(&session.output(0)), &want.data, "host");
    }
    let printed = text::print(&graph);
    let parsed = text::parse(&printed).unwrap();
    assert_eq!(parsed.constants(), graph.constants());
    assert_eq!(text::print(&parsed), printed);

    let back = unpack_plan(Bytes::new(pack_plan(&plan).unwrap()), &mut |_, fresh| fresh).unwrap();
    for (back, kept) in back.segments[0].graph.constants().iter().zip(plan.segments[0].graph.constants()) {
        // What is in full is in half precision in the bytes of a plan, as in weight files.
        assert_eq!(
            (back.encoding(), back.dtype(), back.to_f16()),
            (kept.encoding(), DType::F16, kept.to_f16())
        );
        assert!(back.dense().is_some() || back == kept);
    }
    let values =
        unpack_values(Bytes::new(pack_values(std::slice::from_ref(y)).unwrap()), &mut |_, fresh| fresh)
            .unwrap();
    assert_eq!(Graph::freeze(&values).unwrap().constants(), graph.constants());

    let read = read_back(&plan);
    assert_eq!(encodings(&plan_of(&read.thaw()[0])), kept, "read back");
    assert_same(&read.eval(&feeds, IEEE)[read.outputs()[0].index()].data, &want.data, "read back");
}

/// The graph with its weights in full.
fn in_full(graph: &Graph) -> Graph {
    let lines = text::print(graph);
    let nodes = lines.lines().filter(|line| !line.starts_with('@')).collect::<Vec<_>>().join("\n");
    text::parse_with(&nodes, graph.constants().iter().map(|weight| weight.to_dense().into()).collect())
        .unwrap()
}

const ENCODED: [Encoding; 4] = [Encoding::Int8, Encoding::Lut4, Encoding::Sparse, Encoding::Blockwise];

/// Whether every row of a weight fills whole bytes of indices.
fn rows_fill_bytes(dims: &[usize]) -> bool {
    dims[1..].iter().product::<usize>().is_multiple_of(2)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_layers(seed: u64, rows in 1usize..40, terms in 1usize..90, columns in 1usize..70, relu: bool) {
        for encoding in ENCODED {
            let weight = random_weight(encoding, &[columns, terms], seed);
            let stays = encoding != Encoding::Lut4 || rows_fill_bytes(&[columns, terms]);
            let bias = Var::constant(tensor(&draw(shape(&[columns]), seed, (-1.0, 1.0))));
            let y = Var::input(shape(&[rows, terms])).linear(&Var::constant(weight), Some(&bias));
            holds(&if relu { y.relu() } else { y }, &[encoding][..usize::from(stays)]);
        }
    }

    #[test]
    fn products_per_batch(seed: u64, batch in 1usize..4, rows in 1usize..20, terms in 1usize..40, columns in 1usize..40) {
        for encoding in ENCODED {
            let weight = random_weight(encoding, &[batch, terms, columns], seed);
            let stays = match encoding {
                Encoding::Int8 => true,
                Encoding::Lut4 => rows_fill_bytes(&[batch, terms, columns]),
                _ => false,
            };
            let y = Var::input(shape(&[batch, rows, terms])).bmm_weight(&Var::constant(weight));
            holds(&y, &[encoding][..usize::from(stays)]);
        }
    }

    #[test]
    fn convolutions(
        seed: u64,
        groups in 1usize..4,
        each in 1usize..7,
        outputs in 1usize..40,
        kernel in (1usize..4, 1usize..4),
        stride in 1i64..3,
    ) {
        let dims = [groups * outputs, each, kernel.0, kernel.1];
        for encoding in ENCODED {
            let stays = match encoding {
                Encoding::Lut4 => rows_fill_bytes(&dims),
                other => other != Encoding::Blockwise,
            };
            let weight = Var::constant(random_weight(encoding, &dims, seed));
            let op = Conv { strides: [stride, 1], pad: [1, 0, 2, 1], dilations: [1, 1], groups: groups as i64 };
            let y = Var::input(shape(&[2, groups * each, 6, 7])).conv(op, &weight, None);
            holds(&y.relu(), &[encoding][..usize::from(stays)]);
        }
    }
}

#[test]
fn other_operands_are_decoded() {
    for encoding in ENCODED {
        let matrix = Var::constant(random_weight(encoding, &[4, 6], 5));
        let x = Var::input(shape(&[4, 6]));
        holds(&(&x + &matrix), &[]);
        holds(&Var::input(shape(&[3, 4])).linear(&matrix.transpose(&[1, 0]), None), &[]);
        holds(&(x.sum(&[0, 1]) * &matrix), &[]);
        holds(&Var::concat(&[&matrix, &x], 0), &[]);
        holds(&Var::concat(&[&matrix.swap_last(), &Var::input(shape(&[1, 4]))], 0), &[]);
    }
    let kernel = Var::constant(random_weight(Encoding::Int8, &[4, 2, 3, 3], 6));
    let op = ConvTranspose { strides: [2, 1], pad: [0; 4], dilations: [1, 1], groups: 1 };
    holds(&Var::input(shape(&[1, 4, 5, 5])).conv_transpose(op, &kernel, None), &[]);
    let vector = |seed| Var::constant(random_weight(Encoding::Sparse, &[6], seed));
    holds(&Var::input(shape(&[4, 6])).layer_norm(&vector(1), &vector(2), 0.25), &[]);
    let slopes = Var::constant(random_weight(Encoding::Int8, &[3], 9));
    holds(&Var::input(shape(&[1, 3, 2, 2])).prelu(&slopes), &[]);
    holds(&Var::input(shape(&[3, 8])).linear(&Var::full(shape(&[3, 8]), 0.5), Some(&slopes)), &[]);
}

#[test]
fn views_of_a_weight_keep_its_encoding_where_that_goes_with_them() {
    let x = Var::input(shape(&[3, 12]));
    for (encoding, dims, kept) in [
        (Encoding::Int8, &[4, 3, 4][..], true),
        (Encoding::Int8, &[2, 24], false),
        (Encoding::Lut4, &[2, 24], true),
        (Encoding::Sparse, &[2, 24], true),
        (Encoding::Blockwise, &[4, 3, 4], false),
    ] {
        let mut weight = random_weight(encoding, dims, 4);
        if encoding == Encoding::Blockwise {
            weight = random_weight(encoding, &[2, 24], 4);
        }
        let y = x.linear(&Var::constant(weight).reshape(&[4, 12]), None);
        holds(&y, &[encoding][..usize::from(kept)]);
    }
}

#[test]
fn equal_weights_are_one_and_shared_bytes_are_read_once() {
    let weight = random_weight(Encoding::Int8, &[8, 8], 3);
    let x = Var::input(shape(&[2, 8]));
    let shared = Var::constant(weight.clone());
    let again = Var::constant(weight.clone());
    let graph = Graph::freeze(&[x.linear(&shared, None), x.linear(&again, None)]).unwrap();
    assert_eq!(graph.constants().len(), 1);
    let copy = text::parse(&text::print(&Graph::freeze(&[x.linear(&shared, None)]).unwrap())).unwrap();
    let copy = Var::constant(copy.constants()[0].clone());
    let dense = Var::constant(weight.to_dense());
    let y = x.linear(&shared, None) + x.linear(&copy, None) + x.linear(&dense, None);
    assert_eq!(plan_of(&y).segments[0].graph.constants().len(), 2);
}

#[test]
fn what_no_op_decodes_is_refused() {
    let refused = |source: &str| {
        let graph = text::parse(source).unwrap();
        legal::check(&graph, Target::default()).unwrap_err().to_string()
    };
    let weight = "@0 : fp16[2, 3] = int8 1 -2 3 4 -5 6; 0.5 0.25\n%0 = input(feed=0) : fp16[2, 3]\n\
                  %1 = const_array(index=0) : fp16[2, 3]\n";
    assert!(refused(&format!("{weight}%2 = add(%0, %1) : fp16[2, 3]\nreturn %2\n")).starts_with(
        "add: operand 1 is a weight [2, 3] stored as int8, which it does not take: the weight of a linear layer or \
         convolution may be encoded so, or a matrix per batch; decode it"
    ));
    let odd =
        weight.replace("int8 1 -2 3 4 -5 6; 0.5 0.25", "lut4 1 2 3; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
    assert!(
        refused(&format!("{odd}%2 = matmul(%0, %1) : fp16[2, 2]\nreturn %2\n"))
            .contains("a row of four-bit indices has an even length")
    );
    let infinite = weight.replace("0.25", "inf");
    assert!(
        refused(&format!("{infinite}%2 = matmul(%0, %1) : fp16[2, 2]\nreturn %2\n"))
            .starts_with("const_array: constant @0 [2, 3] has inf at element 3")
    );
}

#[test]
fn damaged_text_of_weights_is_an_error() {
    for (line, why) in [
        ("fp16[2, 3] = int8 1 2 3; 1 1", "codes of int8 weights have the shape [2, 3] here, got [3]"),
        ("fp16[2, 3] = int8 1 2 3 4 5 6", "int8 weights have 2 parts, set apart by `;`, found 1"),
        ("fp16[2, 3] = int8 1 2 3 4 5 300; 1 1", "`300` is no whole number from -128 to 127"),
        ("fp32[2, 3] = int8 1 2 3 4 5 6; 1 1", "encoded constants are fp16, found fp32"),
        ("fp16[2, 3] = sparse ; 1", "axis 0 of [0] has size 0"),
        ("fp16[1000000, 1000000] = sparse 1; 1", "mask of sparse weights have the shape [125000000000] here"),
        ("fp16[2, 3] = blockwise 1 2 3 4 5 6; 1 1 1 1", "rows of 3 codes do not divide into 2 blocks"),
        ("fp16[2, 3] = lut4 1 2 999999; 1", "`999999` is no whole number from 0 to 255"),
    ] {
        let error = text::parse(&format!("@0 : {line}\nreturn %0\n")).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

/// `softmax(x @ W^T + b)` over `[2, 4]` with `W[i][j] = (4i + j) / 8 - 0.5`, in an encoding.
fn golden(weight: impl Into<Weight>) -> Plan {
    let bias = Var::constant(Tensor::from_slice(shape(&[3]), &[0.25f32, -0.25, 1.0]).unwrap());
    plan_of(&Var::input(shape(&[2, 4])).linear(&Var::constant(weight), Some(&bias)).softmax(-1))
}

fn halves(dims: &[usize], values: impl IntoIterator<Item = f32>) -> Tensor {
    let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
    Tensor::from_slice(shape(dims), &values).unwrap()
}

/// Codes and scales of the golden weight in blocks of this length.
fn quantised(block: usize) -> (Tensor, Tensor) {
    let weight: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.5).collect();
    let scale = |values: &[f32]| values.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
    let scales: Vec<f32> = weight.chunks(block).map(scale).collect();
    let codes = weight.iter().enumerate().map(|(i, v)| (v / scales[i / block]).round_ties_even() as i8);
    let codes: Vec<i8> = codes.collect();
    (Tensor::from_slice(shape(&[3, 4]), &codes).unwrap(), halves(&[scales.len()], scales))
}

/// The reference's table of 16 for the golden weight: twenty steps of Lloyd's algorithm from its quantiles.
fn clustered() -> Lut4Weight {
    let weight: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.5).collect();
    let edge = |k: usize| {
        let at = k as f32 * 11.0 / 16.0;
        let (below, part) = (at.floor() as usize, at.fract());
        weight[below] + (weight[(below + 1).min(11)] - weight[below]) * part
    };
    let mut centres: Vec<f32> = (0..16).map(|k| (edge(k) + edge(k + 1)) / 2.0).collect();
    let nearest = |centres: &[f32], v: f32| {
        (0..16).fold(0, |best, k| if (centres[k] - v).abs() < (centres[best] - v).abs() { k } else { best })
    };
    for _ in 0..20 {
        let places: Vec<usize> = weight.iter().map(|&v| nearest(&centres, v)).collect();
        for (k, centre) in centres.iter_mut().enumerate() {
            let own: Vec<f32> =
                weight.iter().zip(&places).filter(|(_, p)| **p == k).map(|(v, _)| *v).collect();
            if !own.is_empty() {
                *centre = own.iter().sum::<f32>() / own.len() as f32;
            }
        }
    }
    let places: Vec<u8> = weight.iter().map(|&v| nearest(&centres, v) as u8).collect();
    let bytes: Vec<u8> = places.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
    let indices = Tensor::from_slice(shape(&[6]), &bytes).unwrap();
    Lut4Weight::new(shape(&[3, 4]), indices, halves(&[16], centres)).unwrap()
}

/// The weight files of the reference, and statements in its order.
#[test]
fn goldens() {
    let ((codes, scales), (block_codes, block_scales)) = (quantised(4), quantised(2));
    let values = [-0.375, -0.125, 0.125, 0.375, 0.625, 0.875];
    let mask = Tensor::from_slice(shape(&[2]), &[0xaau8, 0x0a]).unwrap();
    let of = |encoding, parts| Weight::assemble(encoding, shape(&[3, 4]), parts).unwrap();
    let int8 = "constexpr_affine_dequantize()[axis = int32(0), name = string(\"t1\"), quantized_data = \
                tensor<int8, [3, 4]>(BLOBFILE(path = string(\"@model_path/weights.bin\"), offset = uint64(64))), scale = \
                tensor<fp16, [3]>(BLOBFILE(path = string(\"@model_path/weights.bin\"), offset = uint64(140))), zero_point = \
                int8(0)];";
    for (weight, bytes, hash, offsets, statement) in [
        (of(Encoding::Int8, vec![codes, scales]), 280, "0e7c4b18168e6b1b", [64, 140, 210], int8),
        (
            clustered().into(),
            300,
            "087ec8b2b170fee9",
            [64, 134, 230],
            "tensor<fp16, [1, 1, 16, 1]> t1_lut = const()",
        ),
        (
            of(Encoding::Blockwise, vec![block_codes, block_scales]),
            286,
            "6dba793758bb00fa",
            [64, 140, 216],
            "t1_bw = constexpr_blockwise_shift_scale(data = t1_d, scale = t1_sc)",
        ),
        (
            of(Encoding::Sparse, vec![mask, halves(&[6], values)]),
            276,
            "d7a753e4038092a1",
            [64, 130, 206],
            "t1 = constexpr_sparse_to_dense(nonzero_data = t1_nz, mask = t1_mask)",
        ),
    ] {
        let plan = golden(weight.clone());
        let segment = &plan.segments[0];
        let blob = segment.mil().unwrap().1;
        let file = blob.write(&segment.graph, Vec::new()).unwrap();
        let found: String = Sha256::digest(&file).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let text = segment.text();
        assert_eq!((file.len(), found.as_str()), (bytes, hash), "{text}");
        assert_eq!(blob.layout.records().iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
        assert!(text.contains(statement), "{text}");
        let (encoding, stored) = (weight.encoding(), weight.stored_bytes());
        assert!(
            plan.to_string()
                .contains(&format!("2 weights in {bytes} bytes, 1 of them {encoding} in {stored}"))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a weight file holds, reading gives a graph or an error.
    #[test]
    fn damaged_weight_files_never_panic(changes in proptest::collection::vec((0usize..300, any::<u8>()), 1..4)) {
        for encoding in ENCODED {
            let plan = golden(random_weight(encoding, &[3, 4], 8));
            let segment = &plan.segments[0];
            let (program, blob) = segment.mil().unwrap();
            let mut bytes = blob.write(&segment.graph, Vec::new()).unwrap();
            for (at, byte) in &changes {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
            let _ = aneforge::import::mil::read(program, &Bytes::new(bytes));
        }
    }
}

#[test]
fn parts_of_weights_are_held_to_their_records() {
    let plan = golden(Int8Weight::new(quantised(4).0, quantised(4).1).unwrap());
    let segment = &plan.segments[0];
    let bytes = Bytes::new(segment.mil().unwrap().1.write(&segment.graph, Vec::new()).unwrap());
    let sparse = golden(random_weight(Encoding::Sparse, &[3, 4], 8));
    let sparse_bytes =
        Bytes::new(sparse.segments[0].mil().unwrap().1.write(&sparse.segments[0].graph, Vec::new()).unwrap());
    let error = |text: String, bytes: &Bytes| {
        let program = aneforge_mil::parse(&text).unwrap();
        aneforge::import::mil::read(&program, bytes).unwrap_err().to_string()
    };
    let text = segment.text();
    for (from, to, why) in [
        ("zero_point = int8(0)", "zero_point = int8(1)", "with another zero_point than 0 is not read yet"),
        ("axis = int32(0), name", "axis = int32(1), name", "with another axis than 0 is not read yet"),
        ("offset = uint64(140)", "offset = uint64(64)", "the record at 64 is int8, not fp16"),
        (
            "tensor<fp16, [3, 4]> t1 =",
            "tensor<fp16, [4, 4]> t1 =",
            "codes of int8 weights have the shape [4, 4] here",
        ),
    ] {
        assert!(text.contains(from), "{text}");
        let error = error(text.replace(from, to), &bytes);
        assert!(error.contains(why), "{error}");
    }
    let swapped = sparse.segments[0].text().replace("mask = t1_mask", "mask = t1_nz");
    assert!(error(swapped, &sparse_bytes).contains("`mask` of constexpr_sparse_to_dense is fp16, not uint1"));
    let text = sparse.segments[0].text();
    let (before, last) = text.rsplit_once("x = ").unwrap();
    let used = format!("{before}x = t1_mask{}", &last[last.find(')').unwrap()..]);
    let error = error(used, &sparse_bytes);
    assert!(error.contains("`t1_mask` is part of an encoded weight and no value"), "{error}");
}

#[test]
fn profiles_count_weights_as_they_are_stored() {
    let x = Var::input(shape(&[8, 16]));
    let codes = Tensor::from_slice(shape(&[4, 16]), &[1i8; 64]).unwrap();
    let scales = halves(&[4], [0.5; 4]);
    let dense = Var::constant(halves(&[4, 16], [0.5; 64]));
    let encoded = Var::constant(Int8Weight::new(codes, scales).unwrap());
    let bytes = |weight: &Var| {
        let mut session = Session::new(plan_of(&x.linear(weight, None)), engine(1)).unwrap();
        session.profile(1).unwrap().steps[0].step.bytes
    };
    let (read, written) = (8 * 16 * 2, 8 * 4 * 2);
    assert_eq!(bytes(&dense), read + 4 * 16 * 2 + written);
    assert_eq!(bytes(&encoded), read + 4 * 16 + 4 * 2 + written);
}
