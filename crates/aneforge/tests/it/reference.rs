//! Held to the reference's own text and weights: equal but for the names of variables.

use aneforge::ir::op::{Mil, OPS, find};
use aneforge::{CompileOptions, Shape, Tensor, Var, compile};
use std::collections::HashMap;

/// The program the reference prints for `softmax(x @ W^T + b)` over `[2, 4]`.
const GOLDEN: &str = r#"program(1.3)
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

/// Names variables `v0`, `v1` ... in the order in which they first occur.
fn renamed(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if end == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let digits = word.trim_start_matches('t').split('_').next().unwrap_or_default();
        let variable =
            word.starts_with('t') && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if variable {
            let next = names.len();
            out += &format!("v{}", names.entry(word.to_owned()).or_insert(next));
        } else {
            out += word;
        }
        rest = after;
    }
    out
}

#[test]
fn text_and_weights_of_a_linear_layer() {
    let shape = |dims: &[usize]| Shape::new(dims).unwrap();
    let weight: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.5).collect();
    let weight = Var::constant(Tensor::from_slice(shape(&[3, 4]), &weight).unwrap());
    let bias = Var::constant(Tensor::from_slice(shape(&[3]), &[0.25f32, -0.25, 1.0]).unwrap());
    let y = Var::input(shape(&[2, 4])).linear(&weight, Some(&bias)).softmax(-1);
    let plan = compile(&[y], &CompileOptions::default()).unwrap();
    let segment = &plan.segments[0];
    assert_eq!(renamed(&segment.text()), renamed(GOLDEN));
    let bytes = segment.mil().unwrap().1.write(&segment.graph, Vec::new()).unwrap();
    assert_eq!(bytes.len(), 222);
    let mut want = vec![0u8; 222];
    want[..8].copy_from_slice(&[2, 0, 0, 0, 2, 0, 0, 0]);
    let record =
        |length: u8, data: u8| [0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, data];
    want[64..81].copy_from_slice(&record(24, 128));
    want[152..169].copy_from_slice(&record(6, 216));
    // -0.5 ... 0.875 by eighths, then the bias, little-endian.
    let halves: [u16; 12] =
        [0xb800, 0xb600, 0xb400, 0xb000, 0, 0x3000, 0x3400, 0x3600, 0x3800, 0x3900, 0x3a00, 0x3b00];
    for (i, half) in halves.iter().enumerate() {
        want[128 + 2 * i..130 + 2 * i].copy_from_slice(&half.to_le_bytes());
    }
    want[216..].copy_from_slice(&[0x00, 0x34, 0x00, 0xb4, 0x00, 0x3c]);
    assert_eq!(bytes, want);
}

/// Names of ANEForge 0.4.0's graph nodes: what its emitter has a rule for.
const FUSED: &str = "\
    relu silu sigmoid tanh exp sqrt abs sin cos erf relu6 softsign atan exp2 floor ceil sign round softplus \
    gelu square logical_not log rsqrt inverse elu leaky_relu clip threshold thresholded_relu scaled_tanh \
    clamped_relu sigmoid_hard linear_activation prelu add sub mul real_div maximum minimum pow muls adds \
    greater less equal not_equal less_equal greater_equal select matmul bmm bmm_w einsum conv dynamic_conv \
    conv_transpose max_pool avg_pool reduce_mean reduce_sum reduce_max reduce_min reduce_l1_norm \
    reduce_log_sum reduce_sum_square reduce_log_sum_exp softmax l2_norm rms_norm layer_norm \
    channel_layer_norm group_norm batch_norm instance_norm local_response_norm reshape transpose squeeze \
    expand_dims flatten2d slice_by_size concat stack split reverse tile cast upsample pixel_shuffle \
    pixel_unshuffle space_to_depth depth_to_space crop resize_nearest_neighbor resize_bilinear \
    upsample_bilinear affine const_array";

/// The nodes at which it cuts the graph.
const BRIDGES: &str = "\
    sdpa argmax topk sort cross_product cross_correlation cost_volume fps radius_search minmax_norm lrn \
    space_to_channel channel_to_space space_to_batch batch_to_space flatten input_view dynamic_slice \
    scaled_elementwise";

#[test]
fn every_node_of_the_reference_is_an_op() {
    let (fused, bridges): (Vec<&str>, Vec<&str>) =
        (FUSED.split_whitespace().collect(), BRIDGES.split_whitespace().collect());
    assert_eq!((fused.len(), bridges.len()), (100, 19));
    let native = |name: &str| match find(name) {
        Some(entry) => matches!((entry.mil)(), Mil::Native(_)),
        None => panic!("there is no op {name}"),
    };
    assert!(fused.iter().all(|name| !native(name)));
    assert!(bridges.iter().all(|name| native(name)));
    assert_eq!(OPS.iter().filter(|e| matches!((e.mil)(), Mil::Native(_))).count(), bridges.len());
}
