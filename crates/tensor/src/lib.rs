//! Shapes, element types and shared tensors: what every other crate of aneforge hands around.
//!
//! A [`Tensor`] is an element type, a [`Shape`] of at most [`MAX_RANK`] axes, and shared, immutable
//! bytes that may be owned or borrowed from a mapped file. A [`Weight`] is a tensor too, or one stored in fewer
//! bytes. Neither has operations: arithmetic lives in
//! `aneforge-kernels`, graphs in `aneforge`. This crate is a leaf and depends on nothing of ours.

mod bytes;
mod dtype;
pub mod npy;
pub mod random;
mod shape;
mod tensor;
pub mod weight;

pub use bytes::{AlignedBytes, Bytes, Owner};
pub use dtype::DType;
pub use half::f16;
pub use shape::{MAX_RANK, Shape, ShapeError};
pub use tensor::{Element, Tensor, TensorError, round_f16};
pub use weight::{BlockwiseWeight, Encoding, Int8Weight, Lut4Weight, SparseWeight, Weight, WeightError};
