//! A MIL program as data.
//!
//! The types say what the text can say and no more; what a program must satisfy beyond its grammar is the
//! business of [`mod@crate::verify`]. Nothing here knows how a program is spelled: that is `print`.

use half::f16;
use thiserror::Error;

/// The version of the text, `program(1.3)`. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const PROGRAM_VERSION: &str = "1.3";

/// The pairs of the `buildInfo` attribute.
///
/// Emitted by ANEForge 0.4.0 and accepted on device (reference). The values follow the compiler of the host;
/// these are documented as right for macOS 26.5 on an M5 Pro.
pub const BUILD_INFO: [(&str, &str); 2] =
    [("coremlc-component-MIL", "3520.4.1"), ("coremlc-version", "3520.5.1")];

/// The opset tag of every function. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const OPSET: &str = "ios18";

/// The function that the runtime keeps. Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const MAIN: &str = "main";

/// The path token of the weights: `@model_path` is the directory that holds the text.
///
/// Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const WEIGHTS_PATH: &str = "@model_path/weights.bin";

/// A whole MIL text: build information and functions.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Key and value pairs of the `buildInfo` dictionary, in order.
    pub build_info: Vec<(String, String)>,
    /// The functions; the runtime keeps only `main`.
    pub functions: Vec<Function>,
}

impl Program {
    /// A program of one function, with the documented [`BUILD_INFO`].
    pub fn new(function: Function) -> Self {
        let build_info = BUILD_INFO.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Self { build_info, functions: vec![function] }
    }
}

/// A function: typed parameters, statements in order, and the names it returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// The name, [`MAIN`] for the one that runs.
    pub name: String,
    /// The opset tag between angle brackets, [`OPSET`].
    pub opset: String,
    /// The input ports, in the order the runtime sees them.
    pub params: Vec<Port>,
    /// The statements; each may use only names defined before it.
    pub body: Vec<Stmt>,
    /// The output ports: names of results of the body.
    pub returns: Vec<String>,
}

impl Function {
    /// The function [`MAIN`] in opset [`OPSET`].
    pub fn main(params: Vec<Port>, body: Vec<Stmt>, returns: Vec<String>) -> Self {
        Self { name: MAIN.to_owned(), opset: OPSET.to_owned(), params, body, returns }
    }
}

/// A name with its type: a parameter of a function or a result of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The name, unique in its function.
    pub name: String,
    /// The type.
    pub ty: Type,
}

impl Port {
    /// A port from its parts.
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self { name: name.into(), ty }
    }
}

/// The element types that the text can spell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the types.
pub enum DType {
    Fp16,
    Fp32,
    Int8,
    Int16,
    Int32,
    Uint1,
    Uint4,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Bool,
    String,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 13] = [
        DType::Fp16,
        DType::Fp32,
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Uint1,
        DType::Uint4,
        DType::Uint8,
        DType::Uint16,
        DType::Uint32,
        DType::Uint64,
        DType::Bool,
        DType::String,
    ];

    /// The spelling in the text.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Fp16 => "fp16",
            DType::Fp32 => "fp32",
            DType::Int8 => "int8",
            DType::Int16 => "int16",
            DType::Int32 => "int32",
            DType::Uint1 => "uint1",
            DType::Uint4 => "uint4",
            DType::Uint8 => "uint8",
            DType::Uint16 => "uint16",
            DType::Uint32 => "uint32",
            DType::Uint64 => "uint64",
            DType::Bool => "bool",
            DType::String => "string",
        }
    }

    /// The element type with this spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The smallest and the largest value of an integer literal; `None` for what is not an integer.
    ///
    /// `uint64` stops at [`i64::MAX`], because a [`Literal::Int`] holds an `i64`.
    pub const fn int_range(self) -> Option<(i64, i64)> {
        match self {
            DType::Int8 => Some((-128, 127)),
            DType::Int16 => Some((-32768, 32767)),
            DType::Int32 => Some((-2_147_483_648, 2_147_483_647)),
            DType::Uint1 => Some((0, 1)),
            DType::Uint4 => Some((0, 15)),
            DType::Uint8 => Some((0, 255)),
            DType::Uint16 => Some((0, 65535)),
            DType::Uint32 => Some((0, 4_294_967_295)),
            DType::Uint64 => Some((0, i64::MAX)),
            DType::Fp16 | DType::Fp32 | DType::Bool | DType::String => None,
        }
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A bare element type: the type of a named scalar constant, `int32`.
    Scalar(DType),
    /// A tensor. Rank 0, `tensor<fp16, []>`, is not the same type as the scalar `fp16`.
    Tensor {
        /// The element type.
        dtype: DType,
        /// The size of each axis, outermost first.
        shape: Vec<u64>,
    },
}

impl Type {
    /// A tensor type.
    pub fn tensor(dtype: DType, shape: impl Into<Vec<u64>>) -> Self {
        Type::Tensor { dtype, shape: shape.into() }
    }

    /// The type of every data tensor: `tensor<fp16, shape>`.
    pub fn fp16(shape: impl Into<Vec<u64>>) -> Self {
        Self::tensor(DType::Fp16, shape)
    }

    /// The element type.
    pub const fn dtype(&self) -> DType {
        match self {
            Type::Scalar(dtype) | Type::Tensor { dtype, .. } => *dtype,
        }
    }

    /// The size of each axis; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        match self {
            Type::Scalar(_) => &[],
            Type::Tensor { shape, .. } => shape,
        }
    }

    /// The number of elements, `None` when it does not fit.
    pub fn numel(&self) -> Option<u64> {
        self.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d))
    }
}

/// One statement: `results = op(args)[attrs];`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stmt {
    /// The declared results; more than one only for `split`.
    pub results: Vec<Port>,
    /// The name of the op.
    pub op: String,
    /// The call arguments, by name, in order.
    pub args: Vec<(String, Arg)>,
    /// The attributes in brackets, in order; `name` is always among them.
    pub attrs: Vec<(String, Literal)>,
}

impl Stmt {
    /// `ty name = const()[name = string("name"), val = value];`
    pub fn constant(name: impl Into<String>, ty: Type, value: Literal) -> Self {
        let name = name.into();
        let attrs = vec![("name".to_owned(), Literal::string(name.as_str())), ("val".to_owned(), value)];
        Self { results: vec![Port { name, ty }], op: "const".to_owned(), args: Vec::new(), attrs }
    }

    /// A statement with one result, whose `name` attribute is the name of the result.
    ///
    /// ```
    /// use aneforge_mil::{Port, Stmt, Type};
    /// let relu = Stmt::op(Port::new("t1", Type::fp16([2, 8])), "relu", [("x", "t0".into())]);
    /// assert_eq!(relu.to_string(), r#"tensor<fp16, [2, 8]> t1 = relu(x = t0)[name = string("t1")];"#);
    /// ```
    pub fn op<K: Into<String>>(
        result: Port,
        op: impl Into<String>,
        args: impl IntoIterator<Item = (K, Arg)>,
    ) -> Self {
        let attrs = vec![("name".to_owned(), Literal::string(result.name.as_str()))];
        let args = args.into_iter().map(|(k, a)| (k.into(), a)).collect();
        Self { results: vec![result], op: op.into(), args, attrs }
    }

    /// The one statement with many results: `part, part, … = split(…)[name = string("base_split")];`
    pub fn split<K: Into<String>>(
        parts: Vec<Port>,
        base: &str,
        args: impl IntoIterator<Item = (K, Arg)>,
    ) -> Self {
        let attrs = vec![("name".to_owned(), Literal::string(format!("{base}{SPLIT_SUFFIX}")))];
        let args = args.into_iter().map(|(k, a)| (k.into(), a)).collect();
        Self { results: parts, op: "split".to_owned(), args, attrs }
    }

    /// The call argument with this name.
    pub fn arg(&self, name: &str) -> Option<&Arg> {
        self.args.iter().find(|(k, _)| k == name).map(|(_, a)| a)
    }

    /// The attribute with this name.
    pub fn attr(&self, name: &str) -> Option<&Literal> {
        self.attrs.iter().find(|(k, _)| k == name).map(|(_, a)| a)
    }
}

/// What the `name` attribute of a `split` ends with.
///
/// Emitted by ANEForge 0.4.0 and accepted on device (reference).
pub const SPLIT_SUFFIX: &str = "_split";

/// What stands behind `name =` in a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A value or a named constant.
    Name(String),
    /// An immediate.
    Literal(Literal),
    /// `(a, b, …)`, only for the parameter `values`.
    Tuple(Vec<String>),
}

impl Arg {
    /// A tuple of names.
    pub fn tuple<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Arg::Tuple(names.into_iter().map(Into::into).collect())
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Arg::Name(name) => std::slice::from_ref(name),
            Arg::Tuple(names) => names.as_slice(),
            Arg::Literal(_) => &[],
        };
        names.iter().map(String::as_str)
    }
}

impl From<&str> for Arg {
    fn from(name: &str) -> Self {
        Arg::Name(name.to_owned())
    }
}

impl From<String> for Arg {
    fn from(name: String) -> Self {
        Arg::Name(name)
    }
}

impl From<Literal> for Arg {
    fn from(value: Literal) -> Self {
        Arg::Literal(value)
    }
}

/// A typed literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `fp16(0x1.8000000000000p-1)`.
    Fp16(f16),
    /// `fp32(2.0)`.
    Fp32(f32),
    /// `int32(3)`, `int8(0)`, `uint32(2)`, …
    Int {
        /// An integer type.
        dtype: DType,
        /// The value, in [`DType::int_range`].
        value: i64,
    },
    /// `bool(true)`.
    Bool(bool),
    /// `string("custom")`.
    String(String),
    /// `tensor<dtype, shape>(value)`.
    Tensor {
        /// The element type.
        dtype: DType,
        /// The size of each axis.
        shape: Vec<u64>,
        /// The elements, or where they are.
        value: TensorValue,
    },
}

/// The elements of a tensor literal.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorValue {
    /// A flat list of integers in row-major order.
    Ints(Vec<i64>),
    /// Bit patterns of fp16 elements in row-major order, printed as nested lists.
    ///
    /// Documented by the reference, never produced by its emitter: treat as unverified syntax.
    Fp16Bits(Vec<u16>),
    /// A record of the weights file.
    Blob {
        /// The path of the file, [`WEIGHTS_PATH`].
        path: String,
        /// The position of the record's 64-byte descriptor (not of its payload).
        offset: u64,
    },
}

/// Why a literal cannot be written.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum LiteralError {
    /// The number is NaN, or infinite in the type; the text has no spelling for either.
    #[error("{value} has no {} spelling; the largest magnitude is {max}", dtype.name())]
    NotFinite {
        /// The number that was given.
        value: f64,
        /// The type it was to have.
        dtype: DType,
        /// The largest finite number of the type.
        max: f64,
    },
    /// The integer is outside its type, or the type is not an integer.
    #[error("{value} is not a value of type {}", dtype.name())]
    IntRange {
        /// The number that was given.
        value: i64,
        /// The type it was to have.
        dtype: DType,
    },
}

impl Literal {
    /// An fp16 scalar: `value` rounded once, to nearest, ties to even.
    ///
    /// # Errors
    /// NaN, and magnitudes of 65520 and more, which round to infinity.
    ///
    /// ```
    /// use aneforge_mil::Literal;
    /// assert_eq!(Literal::fp16(0.1).unwrap().to_string(), "fp16(0x1.9980000000000p-4)");
    /// assert!(Literal::fp16(65520.0).is_err());
    /// ```
    pub fn fp16(value: f64) -> Result<Self, LiteralError> {
        let rounded = round_to_f16(value);
        if !rounded.is_finite() {
            return Err(LiteralError::NotFinite { value, dtype: DType::Fp16, max: f16::MAX.to_f64() });
        }
        Ok(Literal::Fp16(rounded))
    }

    /// An fp32 scalar.
    ///
    /// # Errors
    /// NaN and infinity.
    pub fn fp32(value: f32) -> Result<Self, LiteralError> {
        if !value.is_finite() {
            let (value, max) = (f64::from(value), f64::from(f32::MAX));
            return Err(LiteralError::NotFinite { value, dtype: DType::Fp32, max });
        }
        Ok(Literal::Fp32(value))
    }

    /// An integer scalar of any integer type.
    ///
    /// # Errors
    /// A value outside [`DType::int_range`].
    pub fn int(dtype: DType, value: i64) -> Result<Self, LiteralError> {
        match dtype.int_range() {
            Some((low, high)) if (low..=high).contains(&value) => Ok(Literal::Int { dtype, value }),
            _ => Err(LiteralError::IntRange { value, dtype }),
        }
    }

    /// `int8(value)`.
    pub fn int8(value: i8) -> Self {
        Literal::Int { dtype: DType::Int8, value: value.into() }
    }

    /// `int32(value)`.
    pub fn int32(value: i32) -> Self {
        Literal::Int { dtype: DType::Int32, value: value.into() }
    }

    /// `uint32(value)`.
    pub fn uint32(value: u32) -> Self {
        Literal::Int { dtype: DType::Uint32, value: value.into() }
    }

    /// `tensor<int32, [n]>([…])`.
    pub fn ints(values: &[i32]) -> Self {
        let shape = vec![values.len() as u64];
        let value = TensorValue::Ints(values.iter().map(|&v| v.into()).collect());
        Literal::Tensor { dtype: DType::Int32, shape, value }
    }

    /// `bool(value)`.
    pub fn bool(value: bool) -> Self {
        Literal::Bool(value)
    }

    /// `string("value")`.
    pub fn string(value: impl Into<String>) -> Self {
        Literal::String(value.into())
    }

    /// A tensor whose elements are the record of [`WEIGHTS_PATH`] with its descriptor at `offset`.
    pub fn blob(dtype: DType, shape: impl Into<Vec<u64>>, offset: u64) -> Self {
        let value = TensorValue::Blob { path: WEIGHTS_PATH.to_owned(), offset };
        Literal::Tensor { dtype, shape: shape.into(), value }
    }

    /// The type in front of the payload.
    pub fn ty(&self) -> Type {
        match self {
            Literal::Fp16(_) => Type::Scalar(DType::Fp16),
            Literal::Fp32(_) => Type::Scalar(DType::Fp32),
            Literal::Int { dtype, .. } => Type::Scalar(*dtype),
            Literal::Bool(_) => Type::Scalar(DType::Bool),
            Literal::String(_) => Type::Scalar(DType::String),
            Literal::Tensor { dtype, shape, .. } => Type::Tensor { dtype: *dtype, shape: shape.clone() },
        }
    }
}

/// Rounds to fp16 once.
///
/// `f16::from_f64` goes through f32 on some processors and so rounds twice. Here the way through f32 is
/// harmless: an inexact f32 is moved to its odd neighbour, which is never a tie of fp16.
pub(crate) fn round_to_f16(value: f64) -> f16 {
    let near = value as f32;
    let wide = f64::from(near);
    if wide == value || near.is_nan() || near.to_bits() & 1 == 1 {
        return f16::from_f32(near);
    }
    // Even and inexact: the neighbour on the side of `value` is the odd one.
    let away = wide.abs() < value.abs();
    let bits = near.to_bits();
    f16::from_f32(f32::from_bits(if away { bits + 1 } else { bits.saturating_sub(1) }))
}
