//! aneforge
pub mod grad;
#[macro_use]
pub mod ir;
pub use aneforge_tensor::{DType, Shape, Tensor, f16};
pub use ir::graph::Graph;
pub use ir::types::TensorType;
pub use ir::var::Var;
pub mod passes;
pub mod rewrite;
pub mod target;
