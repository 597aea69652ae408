//! What an op is: its declaration, the trait its file implements, and the closed enum over all of them.

pub use crate::ir::case::{Case, Tolerance};
pub use crate::ir::info::{AttrInfo, Axes, Info};

use crate::ir::attr::Attr;
use crate::ir::form::{Facts, Form};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::Layer;
use aneforge_tensor::Shape;
use std::fmt::Debug;
use std::hash::Hash;

/// The part of an op that the `op!` declaration writes.
pub trait Declared: Sized {
    /// Name, inputs, attributes, documentation.
    const INFO: Info;
    /// The attributes' values, in declared order.
    fn attrs(&self) -> Vec<(&'static str, Attr)>;
    /// The op with these attributes, and defaults for the rest.
    fn from_attrs(get: &dyn Fn(&str) -> Option<Attr>) -> Result<Self, String>;
}

/// The gradient that reaches one input.
pub enum Grad {
    /// This cotangent, of the input's type.
    To(Var),
    /// None: the op does not vary with this input, or is piecewise constant in it. The text says which.
    Zero(&'static str),
    /// There is a gradient but no rule for it. The text says what to do instead.
    Missing(&'static str),
}

/// How an op reaches MIL. It never depends on the target.
pub enum Mil {
    /// Not a statement: a port or a constant.
    Leaf,
    /// One statement.
    Stmt(Spelling),
    /// One statement when it has exactly this many inputs; otherwise rewritten by the function.
    StmtWith(Spelling, usize, Decompose),
    /// Rewritten away before emission.
    Decompose(Decompose),
    /// Rewritten by a rule of legalization of its own: there is no statement that computes it as it is defined.
    Legalized,
    /// One node for several that the reference has: passes begin by putting those in its place, and so does whatever
    /// counts or shows nodes.
    Composed(Composed),
    /// A layer of the engine that MIL cannot spell: a program of its own, at which the graph is cut.
    Native(Native),
}

/// An op that stands for several nodes, as a table row.
#[derive(Clone, Copy)]
pub struct Composed {
    /// The nodes.
    pub write: Decompose,
    /// The native layer that may stand in their place, if one is wanted and takes such inputs.
    pub layer: fn(&Op, &[TensorType]) -> Option<Op>,
}

/// A native layer as a table row.
#[derive(Clone, Copy)]
pub struct Native {
    /// The layer for inputs of these types.
    pub layer: fn(&Op, &[TensorType]) -> Layer,
    /// The same values to the bit, written with ops of MIL: what the host runs, and what `route` may choose.
    pub written: Option<Decompose>,
    /// Whether compiling may put `written` in its place, which saves the cut.
    pub route: fn(&Op, &[TensorType]) -> bool,
}

impl Native {
    /// A layer that is always a program of its own.
    pub const fn only(layer: fn(&Op, &[TensorType]) -> Layer) -> Native {
        Native { layer, written: None, route: |_, _| false }
    }
}

/// Writes an op with other ops.
pub type Decompose = fn(&Op, &[Var]) -> Var;

/// A MIL statement as a table row: emission fills it in, reading matches against it.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// The statement's op.
    pub op: &'static str,
    /// Its arguments in the order they are emitted.
    pub args: &'static [(&'static str, Arg)],
}

/// Where a statement's argument comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The op's input with this index.
    In(usize),
    /// All inputs, as a tuple.
    All,
    /// An attribute through a named constant of this type.
    Named(&'static str, Lit),
    /// An attribute as a literal in the call.
    Inline(&'static str, Lit),
    /// A fixed value through a named constant.
    NamedFixed(Fixed),
    /// A fixed literal in the call.
    InlineFixed(Fixed),
}

impl Arg {
    /// The attribute it is written from.
    pub fn attr(&self) -> Option<&'static str> {
        match *self {
            Arg::Named(attr, _) | Arg::Inline(attr, _) => Some(attr),
            Arg::In(_) | Arg::All | Arg::NamedFixed(_) | Arg::InlineFixed(_) => None,
        }
    }
}

/// The literal type an attribute is written as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lit {
    /// `int32`.
    Int32,
    /// `uint32`.
    Uint32,
    /// `tensor<int32, [n]>`.
    Ints,
    /// `fp16`.
    Fp16,
    /// `fp32`, of an integer.
    Fp32,
    /// `bool`.
    Bool,
    /// `string`.
    Str,
    /// `string`, one for false and one for true.
    Switch(&'static str, &'static str),
}

/// A literal that is the same in every statement of an op.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fixed {
    /// `bool`.
    Bool(bool),
    /// `string`.
    Str(&'static str),
    /// `fp16`.
    Fp16(f64),
}

/// Everything the project knows about one operation. No method has a default: an op that lacks one does
/// not compile.
pub trait Operator: Declared + Clone + Debug + PartialEq + Eq + Hash + Into<Op> {
    /// The result's type, or a sentence that says what is wrong with the inputs and what to do.
    fn infer(&self, x: &[TensorType]) -> Result<TensorType, String>;
    /// What the op does to operands of these types, whose result has this one.
    fn form(&self, x: &[TensorType], out: &TensorType) -> Form;
    /// What is known of its results.
    fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts;
    /// The scalar definition, in the precision asked for. Inputs have been inferred.
    fn eval(&self, x: &[&Array], out: &TensorType, precision: Precision) -> Array;
    /// The cotangent of each input, written with the methods that users write.
    fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad>;
    /// How the op reaches MIL.
    fn mil() -> Mil;
    /// Worked examples.
    fn cases() -> Vec<Case>;
}

/// Declares an op once: its documentation, name, inputs, and attributes with types and defaults.
///
/// ```text
/// op! {
///     /// Exponentials along one axis, scaled to sum to one.
///     pub struct Softmax = "softmax"("x") {
///         /// The axis normalised over; negative counts from the last.
///         axis: i64 as axes = -1,
///     }
/// }
/// // expands to
/// #[derive(Clone, Debug, PartialEq, Eq, Hash)]
/// pub struct Softmax { pub axis: i64 }
/// impl Declared for Softmax { /* INFO, attrs, from_attrs */ }
/// ```
macro_rules! op {
    (
        $(#[doc = $doc:literal])*
        pub struct $Op:ident = $name:literal $(as $method:ident)? ($($input:literal $(as $shown:literal)?),*) {
            $( $(#[doc = $attr_doc:literal])* $attr:ident : $ty:ty $(as $axes:ident)? $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $Op { $( $(#[doc = $attr_doc])* pub $attr: $ty ),* }

        impl $crate::ir::op::Declared for $Op {
            const INFO: $crate::ir::op::Info = $crate::ir::op::Info {
                name: $name,
                method: op!(@method $name $($method)?),
                inputs: &[$($input),*],
                shown: &[$(op!(@shown $input $($shown)?)),*],
                attrs: &[$($crate::ir::op::AttrInfo {
                    name: stringify!($attr),
                    ty: <$ty as $crate::ir::attr::AttrValue>::TYPE,
                    default: op!(@text $($default)?),
                    doc: concat!($($attr_doc, "\n"),*),
                    axes: op!(@axes $($axes)?),
                }),*],
                doc: concat!($($doc, "\n"),*),
            };
            fn attrs(&self) -> Vec<(&'static str, $crate::ir::attr::Attr)> {
                vec![$((stringify!($attr), $crate::ir::attr::AttrValue::to_attr(&self.$attr))),*]
            }
            #[allow(unused_variables, reason = "ops without attributes ask for none")]
            fn from_attrs(get: &dyn Fn(&str) -> Option<$crate::ir::attr::Attr>) -> Result<Self, String> {
                Ok($Op { $($attr: match get(stringify!($attr)) {
                    Some(attr) => <$ty as $crate::ir::attr::AttrValue>::from_attr(&attr).ok_or_else(|| {
                        format!("attribute {} must be {}, got {attr}", stringify!($attr), <$ty as $crate::ir::attr::AttrValue>::TYPE)
                    })?,
                    None => op!(@default $attr $($default)?),
                }),* })
            }
        }
    };
    (@method $name:literal) => { $name };
    (@method $name:literal $method:ident) => { stringify!($method) };
    (@shown $input:literal) => { $input };
    (@shown $input:literal $shown:literal) => { $shown };
    (@axes) => { None };
    (@axes axes) => { Some($crate::ir::op::Axes::Operand) };
    (@axes new_axes) => { Some($crate::ir::op::Axes::Result) };
    (@text) => { None };
    (@text $default:expr) => { Some(stringify!($default)) };
    (@default $attr:ident) => { return Err(format!("attribute {} is missing", stringify!($attr))) };
    (@default $attr:ident $default:expr) => { $default };
}

/// One row of the op list, without an instance: for docs, readers and the conformance suite.
pub struct Entry {
    /// The declaration.
    pub info: Info,
    /// How the op reaches MIL.
    pub mil: fn() -> Mil,
    /// Worked examples.
    pub cases: fn() -> Vec<Case>,
    /// The op with these attributes.
    pub from_attrs: FromAttrs,
}

impl Entry {
    /// The attributes' values of an op for which only the required ones are given; nothing if there is no such
    /// op.
    pub fn defaults(&self) -> Option<Vec<(&'static str, Attr)>> {
        let example = (self.cases)().first().map(|case| case.op.attrs()).unwrap_or_default();
        let get = |name: &str| {
            let attr = self.info.attrs.iter().find(|a| a.name == name && a.default.is_none())?;
            // Leaves have no cases.
            let any = match attr.ty {
                "int" => Attr::Int(0),
                _ => Attr::Ints(vec![1]),
            };
            Some(example.iter().find(|(n, _)| *n == name).map_or(any, |(_, value)| value.clone()))
        };
        (self.from_attrs)(&get).ok().map(|op| op.attrs())
    }

    /// The default of an attribute as graph text spells it; none if it is required.
    pub fn default_of(&self, attr: &AttrInfo) -> Option<String> {
        let declared = attr.default?;
        let found = self.defaults().into_iter().flatten().find(|(name, _)| *name == attr.name);
        Some(found.map_or_else(|| declared.to_owned(), |(_, value)| value.to_string()))
    }
}

/// Makes an op from a look-up of attributes by name.
pub type FromAttrs = fn(&dyn Fn(&str) -> Option<Attr>) -> Result<Op, String>;

macro_rules! ops {
    ($($module:ident :: $Op:ident),* $(,)?) => {
        $(use crate::ir::ops::$module::$Op;)*
        /// An operation with its attributes: a closed set, one variant per op file or family row.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Op { $(#[allow(missing_docs, reason = "the op's own page")] $Op($Op)),* }
        $(impl From<$Op> for Op { fn from(op: $Op) -> Op { Op::$Op(op) } })*
        impl Op {
            /// The declaration.
            pub fn info(&self) -> &'static Info {
                match self { $(Op::$Op(_) => &const { <$Op as Declared>::INFO }),* }
            }
            /// The attributes' values.
            pub fn attrs(&self) -> Vec<(&'static str, Attr)> {
                match self { $(Op::$Op(op) => op.attrs()),* }
            }
            /// See [`Operator::mil`].
            pub fn mil(&self) -> Mil {
                match self { $(Op::$Op(_) => <$Op as Operator>::mil()),* }
            }
            /// See [`Operator::vjp`].
            pub fn vjp(&self, x: &[Var], y: &Var, dy: &Var) -> Vec<Grad> {
                match self { $(Op::$Op(op) => op.vjp(x, y, dy)),* }
            }
            /// See [`Operator::form`].
            pub fn form(&self, x: &[TensorType], out: &TensorType) -> Form {
                match self { $(Op::$Op(op) => op.form(x, out)),* }
            }
            /// See [`Operator::facts`].
            pub fn facts(&self, x: &[TensorType], out: &TensorType) -> Facts {
                match self { $(Op::$Op(op) => op.facts(x, out)),* }
            }
            /// See [`Operator::eval`].
            pub fn eval(&self, x: &[&Array], out: &TensorType, precision: Precision) -> Array {
                match self { $(Op::$Op(op) => op.eval(x, out, precision)),* }
            }
            fn infer_unchecked(&self, x: &[TensorType]) -> Result<TensorType, String> {
                match self { $(Op::$Op(op) => op.infer(x)),* }
            }
        }
        /// Every op, in the order of the reference pages.
        pub static OPS: &[Entry] = &[$(Entry {
            info: <$Op as Declared>::INFO,
            mil: <$Op as Operator>::mil,
            cases: <$Op as Operator>::cases,
            from_attrs: |get| <$Op as Declared>::from_attrs(get).map(Op::from),
        }),*];
    };
}

impl Op {
    /// The result's type for inputs of these types.
    pub fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
        let (least, most) = self.info().arity();
        if x.len() < least || x.len() > most {
            return Err(format!("takes the inputs ({}), got {}", self.info().inputs.join(", "), x.len()));
        }
        self.countable()?;
        x.iter().try_for_each(|ty| addressable(ty.shape))?;
        let ty = self.infer_unchecked(x)?;
        addressable(ty.shape)?;
        Ok(ty)
    }

    /// Integer attributes, and with [`addressable`] extents, have 32 bits: sums and products of two of either
    /// fit the 64 bits that inference computes in. Leaves count their identities further.
    fn countable(&self) -> Result<(), String> {
        if matches!(self, Op::Input(_) | Op::Constant(_)) {
            return Ok(());
        }
        match self.attrs().iter().find_map(|(name, attr)| Some((name, attr.beyond_32_bits()?))) {
            Some((name, value)) => {
                Err(format!("{name} is {value}; integers must fit 32 bits, as the engine's do"))
            }
            None => Ok(()),
        }
    }

    /// The op's name.
    pub fn name(&self) -> &'static str {
        self.info().name
    }
}

/// Whether extents have 32 bits, and elements can be counted.
fn addressable(shape: Shape) -> Result<(), String> {
    let checked = Shape::new(shape.dims()).map_err(|e| e.to_string())?;
    match checked.dims().iter().position(|&d| i32::try_from(d).is_err()) {
        Some(axis) => {
            Err(format!("axis {axis} of {shape} is above {}, the most that fits 32 bits", i32::MAX))
        }
        None => Ok(()),
    }
}

/// The row of the op called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    OPS.iter().find(|entry| entry.info.name == name)
}

ops! {
    leaf::Input, leaf::Constant,
    unary::Relu, unary::Gelu, unary::Silu, unary::Sigmoid, unary::Tanh, unary::Exp, unary::Exp2,
    unary::Sqrt, unary::Abs, unary::Square, unary::Sin, unary::Cos, unary::Atan, unary::Erf,
    unary::Relu6, unary::Softsign, unary::Softplus, unary::NativeSoftplus,
    unary::Floor, unary::Ceil, unary::Round, unary::NativeRound, unary::Sign,
    scalar::Muls, scalar::Adds, scalar::Log, scalar::Rsqrt, scalar::Inverse, scalar::Elu,
    scalar::LeakyRelu, scalar::Threshold, scalar::ThresholdedRelu, scalar::Clip, scalar::ScaledTanh,
    scalar::ClampedRelu, scalar::SigmoidHard, scalar::LinearActivation,
    binary::Add, binary::Sub, binary::Mul, binary::RealDiv, binary::Maximum, binary::Minimum, binary::Pow,
    compare::Greater, compare::Less, compare::Equal, compare::NotEqual, compare::LessEqual,
    compare::GreaterEqual, select::LogicalNot, select::Select,
    prelu::Prelu, matmul::Matmul, matmul::Bmm, bmm_w::BmmW, bmm_w::RowProduct, attention::Attention,
    conv::Conv, dynamic_conv::DynamicConv, conv_transpose::ConvTranspose,
    pool::MaxPool, pool::AvgPool,
    reduce::ReduceMean, reduce::ReduceSum, reduce::ReduceMax, reduce::ReduceMin, reduce::ReduceL1Norm,
    reduce::ReduceL2Norm, reduce::ReduceLogSum, reduce::ReduceSumSquare, reduce::ReduceLogSumExp,
    softmax::Softmax, norm::LayerNorm, norm::RmsNorm, norm::L2Norm,
    channel_norm::ChannelLayerNorm, channel_norm::GroupNorm, batch_norm::BatchNorm,
    image_norm::InstanceNorm, image_norm::LocalResponseNorm,
    shape::Reshape, shape::Transpose, shape::Squeeze, shape::ExpandDims, shape::Flatten2d,
    slice::SliceBySize, crop::Crop, slice::Split, concat::Concat, concat::Stack, concat::Reverse,
    tile::Tile, blocks::PixelShuffle, blocks::PixelUnshuffle, blocks::DepthToSpace, blocks::SpaceToDepth,
    resize::Upsample, resize::UpsampleBilinear, resize::ResizeNearest, resize::ResizeBilinear,
    affine::Affine, cast::Cast,
    native::Sdpa, native::Argmax, native::Topk, native::Sort,
    native::CrossProduct, native::CrossCorrelation, native::CostVolume,
    native::Fps, native::RadiusSearch, native::MinmaxNorm, native::Lrn,
    native::SpaceToChannel, native::ChannelToSpace,
    native::SpaceToBatch, native::BatchToSpace,
    native::Flatten, native::InputView, native::DynamicSlice,
    native::ScaledElementwise,
}
