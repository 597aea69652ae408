//! MIL as data: the program text that the Neural Engine's compiler reads, and the weights file beside it.
//!
//! A compiled model is two files. `model.mil` is a text of typed single-assignment statements; `weights.bin` is a
//! container of raw records that the text refers to by position. This crate holds both as plain data, knows how
//! they are spelled, and knows what a compiler takes. It knows nothing of graphs, devices or the file system, and
//! depends on nothing of ours, so it is usable alone.
//!
//! | module | is |
//! |---|---|
//! | [`program`] | the data: [`Program`], [`Stmt`], [`Literal`], … |
//! | `print` | `Display` for all of it. There is one printer and one style; nothing else writes MIL |
//! | `lex`, `number`, `parse` | [`parse()`]: text to data, for text that nobody vouches for |
//! | [`spec`] | the vocabulary as one table, with the evidence for each row |
//! | [`mod@verify`] | the list of what a program must satisfy, and [`verify()`], which checks it |
//! | [`blob`] | the weights file: [`BlobLayout`] plans it, [`BlobWriter`] streams it, [`BlobFile`] reads it |
//! | [`weights`] | payloads of elements smaller than a byte |
//! | [`netplist`] | native layers, which MIL cannot spell: property lists with their weight files |
//!
//! # A round
//!
//! Emission plans the weights, writes the program around the offsets, verifies the two against each other, and
//! only then moves bytes:
//!
//! ```
//! use aneforge_mil::program::Function;
//! use aneforge_mil::{
//!     BlobDType, BlobLayout, BlobWriter, DType, Literal, Port, Program, Stmt, Type, parse, verify,
//! };
//!
//! let mut layout = BlobLayout::default();
//! let offset = layout.push(BlobDType::Fp16, 2 * 3 * 4);
//!
//! let weight = Literal::blob(DType::Fp16, [3, 4], offset);
//! let body = vec![
//!     Stmt::constant("w", weight.ty(), weight),
//!     Stmt::op(
//!         Port::new("y", Type::fp16([2, 3])),
//!         "matmul",
//!         [
//!             ("transpose_x", Literal::bool(false).into()),
//!             ("transpose_y", Literal::bool(true).into()),
//!             ("x", "x".into()),
//!             ("y", "w".into()),
//!         ],
//!     ),
//! ];
//! let x = Port::new("x", Type::fp16([2, 4]));
//! let program = Program::new(Function::main(vec![x], body, vec!["y".into()]));
//! verify(&program, Some(layout.directory())).expect("the emitter is right");
//!
//! let text = program.to_string();
//! assert_eq!(parse(&text)?, program);
//!
//! let mut file = BlobWriter::new(Vec::new(), layout)?;
//! file.record(&[0; 24])?;
//! assert_eq!(file.finish()?.len(), 64 + 64 + 24);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - `parse(print(p)) == p` for every program the printer can spell: words as names, finite numbers, inline elements
//!   that fill their shape. [`verify()`] refuses the others.
//! - [`parse()`] and [`BlobFile::parse`] never panic, do not recurse, and use memory in proportion to their input.
//! - The text and the weights file are byte for byte those of ANEForge 0.4.0 where the program is the same: the
//!   tests hold them to the hashes that the reference gives. The one exception is a zero, which it spells in three
//!   ways and we in one.
//!
//! # Evidence
//!
//! Every fact about a compiler or an engine is a named constant, a row of the table or an invariant of the
//! verifier, and says where it is from. "Emitted by ANEForge 0.4.0 and accepted on device (reference)" means that
//! the device tests of that package cover it, not that this crate was tried on a device.

pub mod blob;
mod lex;
pub mod netplist;
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
pub use verify::{Fault, VerifyError, verify};
