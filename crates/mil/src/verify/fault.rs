//! What can be wrong with a program, in words.

use thiserror::Error;

use super::{MAX_DIM, MAX_RANK};
use crate::blob::BlobDType;
use crate::program::{DType, Type, WEIGHTS_PATH};
use crate::spec::{Given, NETLIST_ONLY, ParamType, WITHOUT_SPELLING};

/// Characters of a line that an error repeats.
const LINE_LEN: usize = 400;

/// One violation, and the line at fault.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{fault}\nin `{subject}`: {line}")]
pub struct VerifyError {
    /// The first result of the statement, or the parameter, output or function.
    pub subject: String,
    /// The line as printed, shortened if it is very long.
    pub line: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl VerifyError {
    pub(super) fn new(subject: &str, line: &str, fault: Fault) -> Self {
        let dots = if line.chars().nth(LINE_LEN).is_some() { "…" } else { "" };
        let line = line.chars().take(LINE_LEN).collect::<String>() + dots;
        Self { subject: subject.to_owned(), line, fault }
    }
}

/// What is wrong. The numbers are the invariants of [the module](super).
#[derive(Clone, Debug, PartialEq, Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum Fault {
    /// 1.
    #[error("a program has exactly one function, `main`; found {count}")]
    Functions { count: usize },
    /// 1.
    #[error("the runtime keeps only the function `main`; rename it")]
    Main,
    /// 1.
    #[error("opset `{found}` is not `ios18`")]
    Opset { found: String },
    /// 2.
    #[error("a parameter is a tensor of fp16 or uint8 with at least one axis, not {ty}")]
    PortType { ty: Type },
    /// 3.
    #[error("the body is empty, which crashes the compiler; multiply by 1 to return a parameter")]
    EmptyBody,
    /// 3.
    #[error("output `{name}` is a parameter, which crashes the compiler; multiply it by 1 first")]
    OutputIsParam { name: String },
    /// 4.
    #[error("the function returns nothing")]
    NoOutput,
    /// 4.
    #[error("output `{name}` is returned twice; each output is a port of its own")]
    OutputAgain { name: String },
    /// 4.
    #[error("an output is a tensor of fp16 with at least one axis, not {ty}")]
    OutputType { ty: Type },
    /// 5.
    #[error("`{name}` is not a name; use letters, digits and `_`, no leading digit, no type")]
    Name { name: String },
    /// 6.
    #[error("`{name}` is defined twice")]
    Redefined { name: String },
    /// 6.
    #[error("{place}: `{name}` is not defined before its use")]
    Undefined { place: String, name: String },
    /// 7.
    #[error("rank {rank} is over the limit, {MAX_RANK}")]
    Rank { rank: usize },
    /// 7.
    #[error("axis {axis} has size {dim}; 1 to {MAX_DIM} is possible")]
    Dim { axis: usize, dim: u64 },
    /// 8.
    #[error("op `{op}` is unknown{hint}")]
    Op { op: String, hint: &'static str },
    /// 8.
    #[error("{place} is not a parameter or attribute of the op")]
    Unknown { place: String },
    /// 8.
    #[error("{place} is given twice")]
    Twice { place: String },
    /// 8.
    #[error("{place} is missing")]
    Missing { place: String },
    /// 9.
    #[error("{place} must be {}", kind_words(*kind))]
    Form { place: String, kind: Given },
    /// 9.
    #[error("{place} must be {}; `{name}` is not", kind_words(*kind))]
    NotConst { place: String, name: String, kind: Given },
    /// 9.
    #[error("{place} must be {}, not {found}", type_words(*expected))]
    ParamType { place: String, expected: ParamType, found: Type },
    /// 9, 12 and 16.
    #[error("{place} is {found}; possible: {allowed}")]
    Value { place: String, found: String, allowed: String },
    /// 10.
    #[error("`{op}` has {found} results instead of 1; only `split` has more")]
    Results { op: String, found: usize },
    /// 10.
    #[error("the `name` attribute is `{found}`; expected {expected}")]
    NameAttr { expected: String, found: String },
    /// 10.
    #[error("num_splits is {num_splits}, but {found} results are declared")]
    SplitCount { num_splits: i64, found: usize },
    /// 11.
    #[error("the result has type {found}; expected {expected}")]
    ResultType { expected: String, found: Type },
    /// 11.
    #[error("shapes do not broadcast: {}", type_list(types))]
    Broadcast { types: Vec<Type> },
    /// 21.
    #[error("{place} {why}")]
    Domain { place: String, why: String },
    /// 13.
    #[error("{value} is not a number that {dtype} can spell")]
    NotFinite { value: f64, dtype: DType },
    /// 13.
    #[error("{value} is not a value of type {dtype}")]
    IntRange { value: i64, dtype: DType },
    /// 13.
    #[error("{found} elements are written inline for {ty}")]
    Count { ty: Type, found: usize },
    /// 13 and 15.
    #[error("the elements of {ty} cannot be given this way")]
    Payload { ty: Type },
    /// 14.
    #[error("the string {found:?} needs an escape, which no compiler is known to read")]
    Escape { found: String },
    /// 15.
    #[error("weights are read from `{WEIGHTS_PATH}`, not from `{found}`")]
    Path { found: String },
    /// 15.
    #[error("the weights file has no record with its descriptor at {offset}")]
    NoRecord { offset: u64 },
    /// 15.
    #[error("the record at {offset} holds {len} bytes of {}, which is not {ty}", dtype.name())]
    Record { offset: u64, ty: Type, dtype: BlobDType, len: u64 },
    /// 16 to 18.
    #[error("{place} has shape {found:?}; for a weight of type {weight} it must be {expected:?}")]
    PartShape { place: String, expected: Vec<u64>, found: Vec<u64>, weight: Type },
    /// 18.
    #[error("{nonzeros} non-zeros are more than {weight} has elements")]
    NonZeros { nonzeros: u64, weight: Type },
    /// 19.
    #[error(
        "scales of shape {scale:?} do not fit {weight}; expected [O, nblocks], rows that divide into the blocks, and rank 2 or 3"
    )]
    Blocks { scale: Vec<u64>, weight: Type },
    /// 20.
    #[error("`{name}` is the result of {op}, which cannot feed {use_}; it can feed {allowed}")]
    Route { name: String, op: String, use_: String, allowed: &'static str },
}

impl Fault {
    /// An op that is not in the table, with what is known about its name.
    pub(super) fn op(op: &str) -> Self {
        let hint = if WITHOUT_SPELLING.contains(&op) {
            ": it is documented to compile, but its spelling is not known"
        } else if NETLIST_ONLY.contains(&op) {
            ": it is a layer of the netlist, which the parser of MIL rejects"
        } else {
            ""
        };
        Fault::Op { op: op.to_owned(), hint }
    }
}

fn kind_words(kind: Given) -> &'static str {
    match kind {
        Given::Value => "the name of a value",
        Given::Const | Given::Immediate => "a scalar literal or the name of a const with an inline literal",
        Given::Weight => "the name of a const",
        Given::Tuple => "a tuple of names",
        Given::Attribute => "a literal in the brackets",
    }
}

fn type_words(ty: ParamType) -> String {
    match ty {
        ParamType::Data(dtype) => format!("{dtype}"),
        ParamType::Tensor(dtype) => format!("a tensor of {dtype}"),
        ParamType::Scalar(dtype) => format!("a scalar {dtype}"),
        ParamType::Vector(dtype) => format!("a tensor of {dtype} of rank 1"),
        ParamType::Array(dtype, len) => format!("{}", Type::tensor(dtype, [len])),
        ParamType::Any => "of any type".to_owned(),
    }
}

fn type_list(types: &[Type]) -> String {
    types.iter().map(Type::to_string).collect::<Vec<_>>().join(" and ")
}
