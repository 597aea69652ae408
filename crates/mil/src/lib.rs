//! MIL, the text that the Neural Engine's compiler reads, as data.

mod print;
pub mod program;

pub use program::{
    Arg, DType, Function, Literal, LiteralError, Port, Program, Stmt, TensorValue, Type, WEIGHTS_PATH,
};
