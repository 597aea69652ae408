//! What is known of every op of MIL on every family: which the engine computes, how, and which not at all.
//!
//! The rows are about raw MIL ops, not about the ops of this library: `resize` on M1 needs another route in
//! MIL, while this library's resizing ops are gated by [`floor`](super::floor). Evidence: the catalog of
//! ANEForge 0.4.0, derived from the vendor compiler's tables and its authors' sweeps on M1, M2 Pro and M5 Pro
//! (arXiv 2606.17090); two rows are those of arXiv 2606.22283, where the chips that were measured say otherwise:
//! `non_maximum_suppression` never runs on the engine, and `constexpr_sparse_to_dense` is read as it is from M1 on. Nothing here has run on silicon by this project.

use super::Family;

/// How a family runs an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// As itself.
    Native,
    /// By another route: folded, decomposed, or as a native layer.
    Bridge,
    /// Not at all.
    Walled,
}

impl Status {
    /// Its name: `native`, `bridge` or `walled`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Native => "native",
            Status::Bridge => "bridge",
            Status::Walled => "walled",
        }
    }

    /// The status of this name.
    pub fn named(name: &str) -> Option<Status> {
        [Status::Native, Status::Bridge, Status::Walled].into_iter().find(|s| s.name() == name)
    }
}

/// By which of the compiler's means an op is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A table of an activation or special function.
    Lut,
    /// An element-by-element template.
    Elementwise,
    /// An element-by-element template with immediate operands.
    Immediate,
    /// A template, or a backend that was not resolved.
    Template,
    /// The convolution unit.
    Convolution,
    /// The pooling template.
    Pool,
    /// Pooling through a table.
    PoolLut,
    /// The compiler maps it, but no case was seen that it generates code for.
    Unproven,
    /// The compiler has none.
    Unsupported,
    /// Recorded by hand.
    Curated,
    /// Not recorded.
    Unrecorded,
}

use Class::{
    Convolution, Curated, Elementwise, Immediate, Lut, Pool, PoolLut, Template, Unproven, Unrecorded,
    Unsupported,
};

impl Class {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Lut => "function table",
            Elementwise => "elementwise template",
            Immediate => "elementwise template with immediates",
            Template => "template",
            Convolution => "convolution unit",
            Pool => "pooling template",
            PoolLut => "pooling function table",
            Unproven => "mapped, no code generation seen",
            Unsupported => "unsupported",
            Curated => "curated",
            Unrecorded => "",
        }
    }
}

/// One op of MIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MilOp {
    /// Its name.
    pub name: &'static str,
    /// What kind of op it is.
    pub category: &'static str,
    /// `n`ative, `b`ridge or `w`alled on A13, A14, A15 and A16.
    statuses: &'static str,
    /// The compiler's kernel, where it was recorded.
    pub kernel: &'static str,
    /// How it is computed.
    pub class: Class,
    /// What else is known.
    pub note: &'static str,
}

impl MilOp {
    /// How a family runs it; nothing runs before A13.
    pub fn status(&self, family: Family) -> Status {
        let place = match family {
            Family::Older => return Status::Walled,
            Family::A13 => 0,
            Family::A14 => 1,
            Family::A15 => 2,
            Family::A16 => 3,
        };
        match self.statuses.as_bytes()[place] {
            b'n' => Status::Native,
            b'b' => Status::Bridge,
            _ => Status::Walled,
        }
    }

    /// The first family that computes it as itself.
    pub fn first_native(&self) -> Option<Family> {
        let families = [Family::A13, Family::A14, Family::A15, Family::A16];
        families.into_iter().find(|&f| self.status(f) == Status::Native)
    }
}

const fn op(
    name: &'static str,
    category: &'static str,
    statuses: &'static str,
    kernel: &'static str,
    class: Class,
    note: &'static str,
) -> MilOp {
    MilOp { name, category, statuses, kernel, class, note }
}

/// The op called `name`.
pub fn find(name: &str) -> Option<&'static MilOp> {
    CATALOG.iter().find(|op| op.name == name)
}

/// Every op.
#[rustfmt::skip]
pub static CATALOG: &[MilOp] = &[
    // Activations (incl. LUT)
    op("ceil", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("clamped_relu", "Activations (incl. LUT)", "nnnn", "ClampedRelu", Lut, ""),
    op("clip", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("elu", "Activations (incl. LUT)", "nnnn", "Elu", Lut, ""),
    op("erf", "Activations (incl. LUT)", "nnnn", "SimpleActivation", Lut, ""),
    op("exp", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("exp2", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("floor", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("gelu", "Activations (incl. LUT)", "nnnn", "Gelu", Lut, "function table: within 0.0059 on M1"),
    op("leaky_relu", "Activations (incl. LUT)", "nnnn", "LeakyRelu", Lut, ""),
    op("log", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("prelu", "Activations (incl. LUT)", "nnnn", "PRelu", Lut, "per-channel; rank >= 3"),
    op("relu", "Activations (incl. LUT)", "nnnn", "SimpleActivation", Elementwise, ""),
    op("relu6", "Activations (incl. LUT)", "nnnn", "", Unrecorded, ""),
    op("round", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("scaled_tanh", "Activations (incl. LUT)", "nnnn", "ScaledTanh", Lut, ""),
    op("sigmoid", "Activations (incl. LUT)", "nnnn", "SimpleActivation", Lut, ""),
    op("sigmoid_hard", "Activations (incl. LUT)", "nnnn", "SigmoidHard", Lut, ""),
    op("sign", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("silu", "Activations (incl. LUT)", "nnnn", "SimpleActivation", Lut, ""),
    op("softmax", "Activations (incl. LUT)", "nnnn", "Softmax", Lut, ""),
    op("softplus", "Activations (incl. LUT)", "nnnn", "Softplus", Lut, ""),
    op("softplus_parametric", "Activations (incl. LUT)", "nnnn", "Softplus", Lut, ""),
    op("softsign", "Activations (incl. LUT)", "nnnn", "Softsign", Lut, ""),
    op("tanh", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("threshold", "Activations (incl. LUT)", "nnnn", "ElementWise", Lut, ""),
    op("thresholded_relu", "Activations (incl. LUT)", "nnnn", "ThresholdedRelu", Lut, ""),
    // Comparison / logical
    op("equal", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("greater", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("greater_equal", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("less", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("less_equal", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("logical_and", "Comparison / logical", "wwww", "Unsupported", Unsupported, "use min/mul"),
    op("logical_not", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("logical_or", "Comparison / logical", "wwww", "Unsupported", Unsupported, "use max"),
    op("logical_xor", "Comparison / logical", "wwww", "Unsupported", Unsupported, "use not_equal"),
    op("not_equal", "Comparison / logical", "nnnn", "ElementWise", Elementwise, ""),
    op("select", "Comparison / logical", "nnnn", "Select", Template, "where"),
    // Control flow
    op("call", "Control flow", "bbbb", "Call", Unproven, "inlined"),
    op("cond", "Control flow", "bbbb", "", Unrecorded, "flatten on host"),
    op("while_loop", "Control flow", "bbbb", "", Unrecorded, "unroll on host"),
    // Conv / MatMul / Pooling
    op("avg_pool", "Conv / MatMul / Pooling", "nnnn", "Pool", Pool, "windows of 128 compile on M1; the compiler's table has 29 there, 31 from A14 on"),
    op("conv", "Conv / MatMul / Pooling", "nnnn", "Conv", Convolution, "M1 kernels <= 29x29 (13x13 fp16); M5 <= 32x32; 3-D from A13"),
    op("conv_transpose", "Conv / MatMul / Pooling", "nnnn", "Conv", Convolution, "with stride, the smaller kernel limits apply on that axis"),
    op("einsum", "Conv / MatMul / Pooling", "nnnn", "Einsum", Template, "becomes matmul/transpose"),
    op("l2_pool", "Conv / MatMul / Pooling", "nnnn", "Pool", PoolLut, "1024-entry LUT"),
    op("linear", "Conv / MatMul / Pooling", "nnnn", "Linear", Convolution, "folds to conv when weight <= 2 MB"),
    op("linear_activation", "Conv / MatMul / Pooling", "nnnn", "LinearActivation", Template, ""),
    op("matmul", "Conv / MatMul / Pooling", "nnnn", "Matmul", Convolution, "conv tensor caps apply"),
    op("max_pool", "Conv / MatMul / Pooling", "nnnn", "Pool", Pool, ""),
    op("ne_bypass", "Conv / MatMul / Pooling", "bbbb", "NEBypass", Unproven, "private unit"),
    op("ne_conv", "Conv / MatMul / Pooling", "nnnn", "NEConv", Convolution, "private unit"),
    op("ne_matmul", "Conv / MatMul / Pooling", "nnnn", "NEMatMul", Convolution, "private unit"),
    op("ne_pool", "Conv / MatMul / Pooling", "nnnn", "NEPool", Pool, "private unit, codegen unproven"),
    op("pe_elementwise", "Conv / MatMul / Pooling", "nnnn", "PEElementWise", Elementwise, "private unit"),
    op("pe_goc", "Conv / MatMul / Pooling", "bbbb", "PEGOC", Unproven, "compiler-internal"),
    op("pe_pool", "Conv / MatMul / Pooling", "nnnn", "PEPool", Pool, "private unit"),
    op("scaled_dot_product_attention", "Conv / MatMul / Pooling", "nnnn", "SDPA", Lut, "matmul+softmax, not texture-gated"),
    // Detection / sampling
    op("argsort", "Detection / sampling", "wnnn", "Sort", Template, "sort family"),
    op("list_gather", "Detection / sampling", "wwww", "Unsupported", Unsupported, "list op"),
    op("list_length", "Detection / sampling", "wwww", "Unsupported", Unsupported, ""),
    op("list_read", "Detection / sampling", "wwww", "Unsupported", Unsupported, ""),
    op("list_scatter", "Detection / sampling", "wwww", "Unsupported", Unsupported, ""),
    op("list_write", "Detection / sampling", "wwww", "Unsupported", Unsupported, ""),
    op("make_list", "Detection / sampling", "wwww", "Unsupported", Unsupported, ""),
    op("non_maximum_suppression", "Detection / sampling", "bbbb", "NonMaximumSuppression", Template, "needs a processor or GPU beside the engine"),
    op("random_bernoulli", "Detection / sampling", "wwww", "Unsupported", Unsupported, "host RNG"),
    op("random_categorical", "Detection / sampling", "wwww", "Unsupported", Unsupported, "host RNG"),
    op("random_normal", "Detection / sampling", "wwww", "Unsupported", Unsupported, "host RNG"),
    op("random_uniform", "Detection / sampling", "bbnn", "RandomUniform", Template, "HAL 0x4a9; host RNG below A15"),
    op("topk", "Detection / sampling", "wnnn", "TopK", Template, "validator passes on M1, codegen rejects"),
    // Elementwise arithmetic
    op("abs", "Elementwise arithmetic", "nnnn", "ElementWise", Elementwise, ""),
    op("add", "Elementwise arithmetic", "nnnn", "ElementWise", Immediate, ""),
    op("cumsum", "Elementwise arithmetic", "nnnn", "CumSum", Curated, "native op unimplemented; reached by triangular matmul"),
    op("floor_div", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, "LUT-assisted"),
    op("inverse", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, "reciprocal LUT"),
    op("maximum", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, ""),
    op("minimum", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, ""),
    op("mod", "Elementwise arithmetic", "wwww", "Unsupported", Unsupported, "host"),
    op("mul", "Elementwise arithmetic", "nnnn", "ElementWise", Immediate, ""),
    op("pow", "Elementwise arithmetic", "nnnn", "ElementWise", Elementwise, "x**y"),
    op("real_div", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, "general divide A13+"),
    op("rsqrt", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, ""),
    op("sqrt", "Elementwise arithmetic", "nnnn", "ElementWise", Lut, "native A13+"),
    op("square", "Elementwise arithmetic", "nnnn", "ElementWise", Elementwise, ""),
    op("sub", "Elementwise arithmetic", "nnnn", "ElementWise", Immediate, "constant operand: negate it, then add"),
    // Image / resize / texture
    op("affine", "Image / resize / texture", "wnnn", "Affine", Template, "texture engine"),
    op("crop_resize", "Image / resize / texture", "wnnn", "CropResize", Template, "texture engine"),
    op("degamma", "Image / resize / texture", "bbbb", "DeGamma", Unproven, "ISP"),
    op("gamma", "Image / resize / texture", "bbbb", "Gamma", Unproven, "ISP"),
    op("pixel_buffer_to_tensor", "Image / resize / texture", "bbbb", "PixelBufferToTensor", Unproven, "needs entitlement; use uint8 image port"),
    op("resample", "Image / resize / texture", "wnnn", "Resample", Template, "texture; depth 1, channels 1–2"),
    op("resize", "Image / resize / texture", "bnnn", "Resize", Convolution, "M1 software fallback, different rounding, some modes abort"),
    op("resize_bilinear", "Image / resize / texture", "bnnn", "ResizeBilinear", Convolution, "M1 software"),
    op("resize_nearest_neighbor", "Image / resize / texture", "bnnn", "ResizeNearestNeighbor", Convolution, "M1 software"),
    op("tensor_to_pixel_buffer", "Image / resize / texture", "bbbb", "TensorToPixelBuffer", Unproven, "compiler-internal"),
    op("upsample_bilinear", "Image / resize / texture", "bnnn", "UpsampleBilinear", Convolution, "M1 software"),
    op("upsample_nearest_neighbor", "Image / resize / texture", "bnnn", "UpsampleNearestNeighbor", Convolution, "M1 software"),
    // Normalization
    op("batch_norm", "Normalization", "nnnn", "BatchNorm", Template, "folds to affine; native stats A13+"),
    op("instance_norm", "Normalization", "nnnn", "InstanceNorm", Template, ""),
    op("l2_norm", "Normalization", "nnnn", "", Unrecorded, "all non-batch dims"),
    op("layer_norm", "Normalization", "nnnn", "LayerNorm", Template, ""),
    op("local_response_norm", "Normalization", "nnnn", "LRNorm", Lut, ""),
    // Quantization / dtype
    op("cast", "Quantization / dtype", "nnnn", "Cast", Template, "fp16<->fp32/bool on M1; to int32 walled on M1"),
    op("const", "Quantization / dtype", "bbbb", "ConstOps", Unproven, "folded"),
    op("constexpr_affine_dequantize", "Quantization / dtype", "bbbb", "ConstOps", Unproven, "folded const"),
    op("constexpr_blockwise_shift_scale", "Quantization / dtype", "bbnn", "ConstOps", Unproven, "A15+ gate"),
    op("constexpr_cast", "Quantization / dtype", "wwww", "Unsupported", Unsupported, "catalog says unsupported; sweep ran it"),
    op("constexpr_lut_to_dense", "Quantization / dtype", "nnnn", "ConstOps", Unproven, "streams from A13"),
    op("constexpr_lut_to_sparse", "Quantization / dtype", "bbbb", "ConstOps", Unproven, "A15+ stream"),
    op("constexpr_sparse_blockwise_shift_scale", "Quantization / dtype", "bbnn", "ConstOps", Unproven, "A15+"),
    op("constexpr_sparse_to_dense", "Quantization / dtype", "nnnn", "ConstOps", Unproven, "streams from A13, measured on M1"),
    op("dequantize", "Quantization / dtype", "nnnn", "Dequantize", Template, ""),
    op("quantize", "Quantization / dtype", "nnnn", "Quantize", Template, ""),
    // Recurrent
    op("gru", "Recurrent", "wwww", "Unsupported", Unsupported, "unroll"),
    op("lstm", "Recurrent", "wwww", "Unsupported", Unsupported, "unroll"),
    op("rnn", "Recurrent", "wwww", "Unsupported", Unsupported, "unroll"),
    // Reductions
    op("reduce_argmax", "Reductions", "nnnn", "ReduceArg", Template, "per-axis"),
    op("reduce_argmin", "Reductions", "bbnn", "ReduceArg", Template, "HAL 0x4f2"),
    op("reduce_l1_norm", "Reductions", "nnnn", "Reduce", Elementwise, ""),
    op("reduce_l2_norm", "Reductions", "nnnn", "Reduce", Elementwise, ""),
    op("reduce_log_sum", "Reductions", "nnnn", "Reduce", Lut, ""),
    op("reduce_log_sum_exp", "Reductions", "nnnn", "Reduce", Lut, ""),
    op("reduce_max", "Reductions", "nnnn", "Reduce", Elementwise, ""),
    op("reduce_mean", "Reductions", "nnnn", "Reduce", Elementwise, ""),
    op("reduce_min", "Reductions", "nnnn", "Reduce", Elementwise, ""),
    op("reduce_prod", "Reductions", "wwww", "Unsupported", Unsupported, "exp-sum-log"),
    op("reduce_sum", "Reductions", "nnnn", "Reduce", Elementwise, "transpose route at >= 192 (>= 384 A15+)"),
    op("reduce_sum_square", "Reductions", "nnnn", "Reduce", Elementwise, "the compiler's flag is from A14 on; nothing differs on M1, M2 Pro, M5 Pro"),
    // Special / math
    op("acos", "Special / math", "wwww", "Unsupported", Unsupported, ""),
    op("acosh", "Special / math", "wwww", "Unsupported", Unsupported, ""),
    op("asin", "Special / math", "wwww", "Unsupported", Unsupported, "host"),
    op("asinh", "Special / math", "wwww", "Unsupported", Unsupported, ""),
    op("atan", "Special / math", "nnnn", "ElementWise", Lut, "only trig native on M1"),
    op("atanh", "Special / math", "wwww", "Unsupported", Unsupported, ""),
    op("cos", "Special / math", "bbnn", "ElementWise", Lut, "polynomial below A15"),
    op("cosh", "Special / math", "wwww", "Unsupported", Unsupported, "host"),
    op("cost_volume", "Special / math", "bbbb", "CostVolume", Unproven, "bridge works on M1"),
    op("cross_product", "Special / math", "bbbb", "CrossProduct", Unproven, "bridge works on M1"),
    op("matrix_decomposition", "Special / math", "bbbb", "MatrixDecomposition", Unproven, "no codegen seen"),
    op("sin", "Special / math", "bbnn", "ElementWise", Lut, "polynomial below A15"),
    op("sinh", "Special / math", "wwww", "Unsupported", Unsupported, "host"),
    op("tan", "Special / math", "wwww", "Unsupported", Unsupported, "host"),
    // Stateful (state / buffers)
    op("circular_buffer_to_tensor", "Stateful (state / buffers)", "bbbb", "CircularBufferToTensor", Unproven, "ring reader"),
    op("read_state", "Stateful (state / buffers)", "nnnn", "ReadState", Template, "rejected on M1; later families only claim it"),
    op("tensor_buffer_to_tensor", "Stateful (state / buffers)", "bbbb", "TensorBufferToTensor", Unproven, "streaming mover"),
    op("tensor_to_circular_buffer", "Stateful (state / buffers)", "bbbb", "TensorToCircularBuffer", Unproven, "ring writer"),
    op("tensor_to_tensor_buffer", "Stateful (state / buffers)", "bbbb", "TensorToTensorBuffer", Unproven, ""),
    op("write_state", "Stateful (state / buffers)", "nnnn", "WriteState", Template, "rejected on M1; later families only claim it"),
    // Structural / shape
    op("band_part", "Structural / shape", "wwww", "Unsupported", Unsupported, "host mask"),
    op("batch_to_space", "Structural / shape", "nnnn", "BatchToSpace", Template, ""),
    op("concat", "Structural / shape", "nnnn", "Concat", Template, ""),
    op("crop", "Structural / shape", "nnnn", "Crop", Template, "not the texture crop_resize"),
    op("depth_to_space", "Structural / shape", "nnnn", "DepthToSpace", Convolution, ""),
    op("expand_dims", "Structural / shape", "nnnn", "ExpandDims", Template, ""),
    op("fill", "Structural / shape", "nnnn", "Fill", Template, ""),
    op("fill_like", "Structural / shape", "nnnn", "FillLike", Template, ""),
    op("flatten2d", "Structural / shape", "nnnn", "", Unrecorded, ""),
    op("gather", "Structural / shape", "nnnn", "Gather", Template, "software, narrow envelope on M1"),
    op("gather_along_axis", "Structural / shape", "nnnn", "GatherAlongAxis", Template, "same envelope"),
    op("gather_nd", "Structural / shape", "bnnn", "GatherND", Template, "M1: batch 1, depth 1, 3 index channels"),
    op("identity", "Structural / shape", "nnnn", "Cast", Template, "alias of cast"),
    op("non_zero", "Structural / shape", "wwww", "Unsupported", Unsupported, "data-dependent shape"),
    op("one_hot", "Structural / shape", "wwww", "Unsupported", Unsupported, "host"),
    op("pad", "Structural / shape", "nnnn", "Pad", Convolution, "reflect/symmetric texture-gated on M1"),
    op("pixel_shuffle", "Structural / shape", "nnnn", "PixelShuffle", Convolution, ""),
    op("pixel_unshuffle", "Structural / shape", "nnnn", "PixelUnshuffle", Template, ""),
    op("range_1d", "Structural / shape", "bbbb", "", Unrecorded, "walled on M1 in raw MIL; bake it"),
    op("reshape", "Structural / shape", "nnnn", "Reshape", Template, ""),
    op("reshape_like", "Structural / shape", "nnnn", "ReshapeLike", Template, ""),
    op("reverse", "Structural / shape", "nnnn", "Reverse", Convolution, ""),
    op("reverse_sequence", "Structural / shape", "wwww", "Unsupported", Unsupported, "host"),
    op("scatter", "Structural / shape", "wwww", "Unsupported", Unsupported, "host"),
    op("scatter_along_axis", "Structural / shape", "wwww", "Unsupported", Unsupported, ""),
    op("scatter_nd", "Structural / shape", "wwww", "Unsupported", Unsupported, ""),
    op("shape", "Structural / shape", "wwww", "Unsupported", Unsupported, "static shapes only"),
    op("slice_by_index", "Structural / shape", "bbbb", "SliceByIndex", Unproven, "folds into descriptor"),
    op("slice_by_size", "Structural / shape", "nnnn", "SliceBySize", Template, "values clamp where it starts past 0 on the last axis, on A13 and A14"),
    op("slice_update", "Structural / shape", "nnnn", "SliceUpdate", Template, ""),
    op("sliding_windows", "Structural / shape", "wwww", "NotImplemented", Unsupported, "host"),
    op("space_to_batch", "Structural / shape", "nnnn", "SpaceToBatch", Template, "factor must be 2, 3, 4 or 8; at most 4096 or 65536 batches"),
    op("space_to_depth", "Structural / shape", "nnnn", "SpaceToDepth", Convolution, ""),
    op("split", "Structural / shape", "nnnn", "Split", Template, ""),
    op("squeeze", "Structural / shape", "nnnn", "Squeeze", Template, ""),
    op("stack", "Structural / shape", "nnnn", "Stack", Template, ""),
    op("tile", "Structural / shape", "nnnn", "Tile", Template, "factors 2,3,4,8"),
    op("transpose", "Structural / shape", "nnnn", "Transpose", Template, "extent cap"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn count(family: Family, status: Status) -> usize {
        CATALOG.iter().filter(|op| op.status(family) == status).count()
    }

    /// The totals that the reference gives per family, but for A15 and A16: they have 131, 21 and 35 with
    /// `non_maximum_suppression`, which does not run on the engine. On A13 and A14 the two rows that differ cancel.
    #[test]
    fn totals_are_the_references() {
        assert_eq!(CATALOG.len(), 187);
        let totals = |f| [Status::Native, Status::Bridge, Status::Walled].map(|s| count(f, s));
        assert_eq!(totals(Family::A13), [113, 34, 40]);
        assert_eq!(totals(Family::A14), [124, 28, 35]);
        assert_eq!(totals(Family::A15), [130, 22, 35]);
        assert_eq!(totals(Family::A16), [130, 22, 35]);
        assert_eq!(CATALOG.iter().filter(|op| op.first_native().is_none()).count(), 57);
        let first = |f| CATALOG.iter().filter(|op| op.first_native() == Some(f)).count();
        assert_eq!([first(Family::A14), first(Family::A15)], [11, 6]);
    }

    /// How many ops there are of each pattern, and in each category. The reference has 21 `bbbb` and 7 `bbnn`: see the module's
    /// two rows.
    #[test]
    fn patterns_and_categories_are_the_references() {
        let patterns = [("nnnn", 113), ("wwww", 35), ("bbbb", 22), ("bbnn", 6), ("bnnn", 6), ("wnnn", 5)];
        for (pattern, want) in patterns {
            assert_eq!(CATALOG.iter().filter(|op| op.statuses == pattern).count(), want, "{pattern}");
        }
        let categories = [
            ("Activations (incl. LUT)", 27),
            ("Comparison / logical", 11),
            ("Control flow", 3),
            ("Conv / MatMul / Pooling", 17),
            ("Detection / sampling", 13),
            ("Elementwise arithmetic", 15),
            ("Image / resize / texture", 12),
            ("Normalization", 5),
            ("Quantization / dtype", 11),
            ("Recurrent", 3),
            ("Reductions", 12),
            ("Special / math", 14),
            ("Stateful (state / buffers)", 6),
            ("Structural / shape", 38),
        ];
        for (category, want) in categories {
            assert_eq!(CATALOG.iter().filter(|op| op.category == category).count(), want, "{category}");
        }
    }

    #[test]
    fn names_are_unique_and_nothing_is_lost_on_newer_families() {
        let mut names: Vec<&str> = CATALOG.iter().map(|op| op.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOG.len());
        for op in CATALOG {
            let natives: Vec<bool> = [Family::A13, Family::A14, Family::A15, Family::A16]
                .map(|f| op.status(f) == Status::Native)
                .to_vec();
            assert!(natives.is_sorted(), "{}", op.name);
        }
    }
}
