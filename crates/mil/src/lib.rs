//! MIL, the text that the Neural Engine's compiler reads, as data.

pub mod blob;
mod lex;
mod number;
mod parse;
mod print;
pub mod program;
pub mod spec;
pub mod verify;
pub mod weights;

pub use blob::{
    BlobDType, BlobDirectory, BlobError, BlobFile, BlobLayout, BlobWriteError, BlobWriter, Placement, Record,
};
pub use parse::{ParseError, parse, parse_stmt};
pub use program::{
    Arg, DType, Function, Literal, LiteralError, Port, Program, Stmt, TensorValue, Type, WEIGHTS_PATH,
};
pub use verify::{VerifyError, verify};
