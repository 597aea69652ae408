//! The vocabulary: every op whose spelling is known, as one table.
//!
//! The rows follow the reference's list of primitive ops, parameters in emitted order. The evidence of each row
//! is second hand: [`Evidence::SeenAccepted`] means that ANEForge 0.4.0 emits the op and its device tests pass.

use crate::program::DType;

/// What is known about an op's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Emitted by ANEForge 0.4.0 and accepted on device (reference).
    SeenAccepted,
    /// Stated by ANEForge's documentation, never emitted by it: unverified syntax.
    DocumentedOnly,
}

/// How a parameter is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A name of any value.
    Value,
    /// A name of a `const` with an inline literal. A scalar may also be an immediate: the compiler takes both.
    Const,
    /// An immediate in the call. A named `const` does as well: the compiler takes both.
    Immediate,
    /// A name of a `const` in the weights file.
    Weight,
    /// `(a, b, …)`, names of values.
    Tuple,
    /// A literal in the attribute bracket.
    Attribute,
}

/// The type a parameter must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// Of this element type; a tensor of any shape, or a scalar constant that is broadcast.
    Data(DType),
    /// A tensor of this element type, any shape.
    Tensor(DType),
    /// A scalar, not a tensor.
    Scalar(DType),
    /// A tensor of rank 1, any length.
    Vector(DType),
    /// A tensor of rank 1 and this length.
    Array(DType, u64),
    /// Any type.
    Any,
}

/// One parameter or attribute of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// The name in front of `=`; mandatory in the text.
    pub name: &'static str,
    /// How it is given.
    pub kind: Given,
    /// The type it must have.
    pub ty: ParamType,
    /// Whether the op must have it. What is not required is never emitted by ANEForge 0.4.0.
    pub required: bool,
    /// For a string, the values that the reference names; none means any.
    pub values: &'static [&'static str],
}

/// What an op's definition asks of its parameters beyond the type of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The rank of this parameter is from the first number to the second.
    Rank(&'static str, usize, usize),
    /// A weight that is not a constant takes dilations of 1.
    UndilatedValue,
    /// With `ceil_mode`, `pad` is the same on both sides of an axis.
    EvenPadding,
    /// `a` and `b` broadcast to the result's shape without the condition.
    Choices,
}

/// The type of an op's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultRule {
    /// The type of the parameter `x`.
    SameAsX,
    /// The shape of the parameter `x`, another element type.
    ShapeOfX,
    /// This element type; the shape is the numpy broadcast of all values.
    Broadcast(DType),
    /// A tensor of this element type; the shape is not checked.
    Tensor(DType),
    /// The type of the attribute `val`.
    Literal,
}

/// One op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpSpec {
    /// The name.
    pub name: &'static str,
    /// The parameters in the parentheses, in emitted order.
    pub params: &'static [ParamSpec],
    /// The attributes in the brackets, in emitted order, `name` among them.
    pub attrs: &'static [ParamSpec],
    /// The type of the result, of each for `split`.
    pub result: ResultRule,
    /// Whether an element of the result depends on one element of each value only: what the result of
    /// `constexpr_blockwise_shift_scale` may feed.
    pub elementwise: bool,
    /// What coremltools 9.0 defines beyond that.
    pub domain: &'static [Domain],
    /// Where the row comes from.
    pub evidence: Evidence,
}

impl OpSpec {
    /// The parameter with this name.
    pub fn param(&self, name: &str) -> Option<&'static ParamSpec> {
        self.params.iter().find(|p| p.name == name)
    }
}

/// The row of an op.
///
/// ```
/// let softmax = aneforge_mil::spec::find("softmax").unwrap();
/// assert_eq!(softmax.params[0].name, "axis");
/// ```
pub fn find(name: &str) -> Option<&'static OpSpec> {
    OPS.iter().find(|op| op.name == name)
}

/// Names of the hardware's netlist that the parser of MIL rejects (reference).
pub const NETLIST_ONLY: [&str; 9] = ["Rsqrt", "Inv", "Sqrt", "Log2", "Exp2", "Sign", "Erf", "Swish", "Sqr"];

/// Ops that ANEForge 0.4.0 reports as compiling, or running, in its vocabulary sweep without giving their
/// spelling (reference).
pub const WITHOUT_SPELLING: [&str; 20] = [
    "pad",
    "linear",
    "fill",
    "fill_like",
    "floor_div",
    "l2_pool",
    "range_1d",
    "quantize",
    "dequantize",
    "softplus_parametric",
    "resize",
    "slice_by_index",
    "layer_norm",
    "non_maximum_suppression",
    "batch_to_space",
    "space_to_batch",
    "topk",
    "constexpr_cast",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
];

const FP16: DType = DType::Fp16;
const INT: ParamType = ParamType::Scalar(DType::Int32);
const FLAG: ParamType = ParamType::Scalar(DType::Bool);
const TEXT: ParamType = ParamType::Scalar(DType::String);
const INTS: ParamType = ParamType::Vector(DType::Int32);
const INTS2: ParamType = ParamType::Array(DType::Int32, 2);
const INTS4: ParamType = ParamType::Array(DType::Int32, 4);

const fn param(name: &'static str, kind: Given, ty: ParamType) -> ParamSpec {
    ParamSpec { name, kind, ty, required: true, values: &[] }
}
const fn value(name: &'static str) -> ParamSpec {
    param(name, Given::Value, ParamType::Data(FP16))
}
const fn named(name: &'static str, ty: ParamType) -> ParamSpec {
    param(name, Given::Const, ty)
}
const fn text(name: &'static str, values: &'static [&'static str]) -> ParamSpec {
    ParamSpec { values, ..param(name, Given::Const, TEXT) }
}
const fn number(name: &'static str) -> ParamSpec {
    param(name, Given::Immediate, ParamType::Scalar(FP16))
}
const fn immediate(name: &'static str, dtype: DType) -> ParamSpec {
    param(name, Given::Immediate, ParamType::Scalar(dtype))
}
const fn per_channel(name: &'static str) -> ParamSpec {
    param(name, Given::Weight, ParamType::Vector(FP16))
}
const fn weight(name: &'static str, dtype: DType) -> ParamSpec {
    param(name, Given::Weight, ParamType::Tensor(dtype))
}
const fn attr(name: &'static str, ty: ParamType) -> ParamSpec {
    param(name, Given::Attribute, ty)
}

const X: ParamSpec = value("x");
const Y: ParamSpec = value("y");
const VALUES: ParamSpec = param("values", Given::Tuple, ParamType::Data(FP16));
const NAME: ParamSpec = attr("name", TEXT);
const AXIS: ParamSpec = named("axis", INT);
const AXES: ParamSpec = named("axes", INTS);
const KEEP_DIMS: ParamSpec = named("keep_dims", FLAG);
const ALPHA: ParamSpec = number("alpha");
const BETA: ParamSpec = number("beta");
const EPSILON: ParamSpec = number("epsilon");
const PAD: ParamSpec = named("pad", INTS4);
const PAD_TYPE: ParamSpec = text("pad_type", &["custom"]);
const STRIDES: ParamSpec = named("strides", INTS2);
const KERNEL: ParamSpec = named("kernel_sizes", INTS2);
const CEIL: ParamSpec = named("ceil_mode", FLAG);
const ALIGN: ParamSpec = named("align_corners", FLAG);
const TARGET_H: ParamSpec = named("target_size_height", INT);
const TARGET_W: ParamSpec = named("target_size_width", INT);
/// The bias of a convolution exists but ANEForge 0.4.0 always adds it in a statement of its own (reference).
const BIAS: ParamSpec =
    ParamSpec { required: false, ..param("bias", Given::Weight, ParamType::Vector(FP16)) };

const CONV: &[ParamSpec] = &[
    BIAS,
    named("dilations", INTS2),
    named("groups", INT),
    PAD,
    PAD_TYPE,
    STRIDES,
    param("weight", Given::Value, ParamType::Tensor(FP16)),
    X,
];

const fn op(name: &'static str, params: &'static [ParamSpec], result: ResultRule) -> OpSpec {
    let evidence = Evidence::SeenAccepted;
    OpSpec { name, params, attrs: &[NAME], result, elementwise: false, domain: &[], evidence }
}
const fn map(name: &'static str, params: &'static [ParamSpec], result: ResultRule) -> OpSpec {
    OpSpec { elementwise: true, ..op(name, params, result) }
}
const fn within(domain: &'static [Domain], op: OpSpec) -> OpSpec {
    OpSpec { domain, ..op }
}
const fn unary(name: &'static str) -> OpSpec {
    map(name, &[X], ResultRule::SameAsX)
}
const fn binary(name: &'static str) -> OpSpec {
    map(name, &[X, Y], ResultRule::Broadcast(FP16))
}
const fn compare(name: &'static str) -> OpSpec {
    map(name, &[X, Y], ResultRule::Broadcast(DType::Bool))
}
const fn alpha(name: &'static str) -> OpSpec {
    map(name, &[ALPHA, X], ResultRule::SameAsX)
}
const fn alpha_beta(name: &'static str) -> OpSpec {
    map(name, &[ALPHA, BETA, X], ResultRule::SameAsX)
}
const fn epsilon(name: &'static str) -> OpSpec {
    map(name, &[EPSILON, X], ResultRule::SameAsX)
}
const fn reduce(name: &'static str) -> OpSpec {
    op(name, &[AXES, KEEP_DIMS, X], DATA)
}
const SPATIAL: &[Domain] = &[Domain::Rank("x", 3, 5)];
const IMAGE: &[Domain] = &[Domain::Rank("x", 4, 4)];
const POOL: &[Domain] = &[Domain::Rank("x", 3, 5), Domain::EvenPadding];
const DATA: ResultRule = ResultRule::Tensor(FP16);
const SAME: ResultRule = ResultRule::SameAsX;

/// Every op whose spelling is known.
pub const OPS: &[OpSpec] = &[
    // Constants and weights.
    OpSpec {
        name: "const",
        params: &[],
        attrs: &[NAME, attr("val", ParamType::Any)],
        result: ResultRule::Literal,
        elementwise: false,
        domain: &[],
        evidence: Evidence::SeenAccepted,
    },
    OpSpec {
        name: "constexpr_affine_dequantize",
        params: &[],
        attrs: &[
            attr("axis", INT),
            NAME,
            attr("quantized_data", ParamType::Tensor(DType::Int8)),
            attr("scale", ParamType::Vector(FP16)),
            attr("zero_point", ParamType::Scalar(DType::Int8)),
        ],
        result: DATA,
        elementwise: false,
        domain: &[],
        evidence: Evidence::SeenAccepted,
    },
    op("constexpr_lut_to_dense", &[weight("indices", DType::Uint4), weight("lut", FP16)], DATA),
    op("constexpr_sparse_to_dense", &[per_channel("nonzero_data"), weight("mask", DType::Uint1)], DATA),
    op("constexpr_blockwise_shift_scale", &[weight("data", DType::Int8), weight("scale", FP16)], DATA),
    // Elementwise, one input.
    unary("relu"),
    unary("silu"),
    unary("sigmoid"),
    unary("tanh"),
    unary("exp"),
    unary("sqrt"),
    unary("abs"),
    unary("sin"),
    unary("cos"),
    unary("erf"),
    unary("relu6"),
    unary("softsign"),
    unary("atan"),
    unary("exp2"),
    unary("floor"),
    unary("ceil"),
    unary("sign"),
    unary("round"),
    unary("softplus"),
    map("logical_not", &[param("x", Given::Value, ParamType::Data(DType::Bool))], SAME),
    epsilon("log"),
    epsilon("rsqrt"),
    epsilon("inverse"),
    alpha("elu"),
    alpha("leaky_relu"),
    alpha("threshold"),
    alpha("thresholded_relu"),
    alpha_beta("clip"),
    alpha_beta("scaled_tanh"),
    alpha_beta("clamped_relu"),
    alpha_beta("sigmoid_hard"),
    alpha_beta("linear_activation"),
    map("gelu", &[X, text("mode", &["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])], SAME),
    within(SPATIAL, op("prelu", &[X, per_channel("alpha")], SAME)),
    // A cast to fp32 is documented, never emitted.
    map(
        "cast",
        &[text("dtype", &["fp16", "fp32"]), param("x", Given::Value, ParamType::Any)],
        ResultRule::ShapeOfX,
    ),
    // Elementwise, two and three inputs.
    binary("add"),
    binary("sub"),
    binary("mul"),
    binary("real_div"),
    binary("maximum"),
    binary("minimum"),
    binary("pow"),
    compare("less"),
    compare("less_equal"),
    compare("greater"),
    compare("greater_equal"),
    compare("equal"),
    compare("not_equal"),
    within(
        &[Domain::Choices],
        map(
            "select",
            &[param("cond", Given::Value, ParamType::Data(DType::Bool)), value("a"), value("b")],
            ResultRule::Broadcast(FP16),
        ),
    ),
    // Linear algebra and convolution.
    op("matmul", &[immediate("transpose_x", DType::Bool), immediate("transpose_y", DType::Bool), X, Y], DATA),
    within(&[Domain::Rank("x", 3, 5), Domain::UndilatedValue], op("conv", CONV, DATA)),
    within(SPATIAL, op("conv_transpose", CONV, DATA)),
    op("einsum", &[text("equation", &["nchw,nwhu->nchu"]), VALUES], DATA),
    // Pooling and normalisation.
    within(POOL, op("max_pool", &[CEIL, KERNEL, PAD, PAD_TYPE, STRIDES, X], DATA)),
    within(
        POOL,
        op(
            "avg_pool",
            &[CEIL, named("exclude_padding_from_average", FLAG), KERNEL, PAD, PAD_TYPE, STRIDES, X],
            DATA,
        ),
    ),
    within(
        SPATIAL,
        op(
            "batch_norm",
            &[
                per_channel("beta"),
                EPSILON,
                per_channel("gamma"),
                per_channel("mean"),
                per_channel("variance"),
                X,
            ],
            SAME,
        ),
    ),
    within(
        &[Domain::Rank("x", 3, 4)],
        op("instance_norm", &[per_channel("beta"), EPSILON, per_channel("gamma"), X], SAME),
    ),
    op("local_response_norm", &[ALPHA, BETA, number("k"), named("size", INT), X], SAME),
    op("softmax", &[AXIS, X], SAME),
    // Reductions.
    reduce("reduce_mean"),
    reduce("reduce_sum"),
    reduce("reduce_max"),
    reduce("reduce_min"),
    reduce("reduce_l1_norm"),
    reduce("reduce_l2_norm"),
    reduce("reduce_log_sum"),
    reduce("reduce_sum_square"),
    reduce("reduce_log_sum_exp"),
    // Shape and data movement.
    op("reshape", &[named("shape", INTS), X], DATA),
    op("transpose", &[named("perm", INTS), X], DATA),
    op("squeeze", &[AXES, X], DATA),
    op("expand_dims", &[AXES, X], DATA),
    op("flatten2d", &[AXIS, X], DATA),
    op("slice_by_size", &[named("begin", INTS), named("size", INTS), X], DATA),
    op("concat", &[AXIS, named("interleave", FLAG), VALUES], DATA),
    op("stack", &[AXIS, VALUES], DATA),
    op("split", &[AXIS, named("num_splits", INT), X], DATA),
    op("reverse", &[X, AXES], SAME),
    op("tile", &[X, named("reps", INTS)], DATA),
    within(IMAGE, op("space_to_depth", &[named("block_size", INT), X], DATA)),
    within(IMAGE, op("depth_to_space", &[named("block_size", INT), X], DATA)),
    within(IMAGE, op("pixel_shuffle", &[named("upscale_factor", INT), X], DATA)),
    op("pixel_unshuffle", &[named("downscale_factor", ParamType::Scalar(DType::Uint32)), X], DATA),
    op("crop", &[named("crop_height", INTS2), named("crop_width", INTS2), X], DATA),
    // Resize and warp. The scales are int32 for nearest and fp32 for bilinear.
    op(
        "upsample_nearest_neighbor",
        &[immediate("scale_factor_height", DType::Int32), immediate("scale_factor_width", DType::Int32), X],
        DATA,
    ),
    op(
        "upsample_bilinear",
        &[
            ALIGN,
            immediate("scale_factor_height", DType::Fp32),
            immediate("scale_factor_width", DType::Fp32),
            X,
        ],
        DATA,
    ),
    op("resize_nearest_neighbor", &[TARGET_H, TARGET_W, X], DATA),
    op(
        "resize_bilinear",
        &[text("sampling_mode", &["DEFAULT", "ALIGN_CORNERS"]), TARGET_H, TARGET_W, X],
        DATA,
    ),
    op(
        "affine",
        &[
            ALIGN,
            text("coordinates_mode", &["normalized_minus_one_to_one"]),
            named("output_height", INT),
            named("output_width", INT),
            text("padding_mode", &["constant"]),
            named("padding_value", ParamType::Scalar(FP16)),
            text("sampling_mode", &["bilinear"]),
            weight("transform_matrix", FP16),
            X,
        ],
        DATA,
    ),
    // Documented, not emitted.
    OpSpec {
        evidence: Evidence::DocumentedOnly,
        ..op("scaled_dot_product_attention", &[value("query"), value("key"), value("value")], DATA)
    },
];
