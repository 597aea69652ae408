//! The ops, one file each or one per family. `ir/op.rs` holds the one list of them.

pub mod batch_norm;
pub mod binary;
pub mod cast;
pub mod compare;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod leaf;
pub mod matmul;
pub mod native;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod scalar;
pub mod select;
pub mod shape;
pub mod slice;
pub mod softmax;
pub mod unary;
