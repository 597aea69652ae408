//! Elementwise functions: of one operand, of two with broadcasting, comparisons and selection; and chains of them.

mod binary;
mod chain;
mod plain;
mod unary;

pub use binary::{Binary, Compare, binary, compare, logical_not, select};
pub use chain::{Argument, Chain, Data, DataMut, Function, Link};
pub use plain::{HALVES, look_up, zip_with};
pub(crate) use unary::map_slice;
pub use unary::{Unary, overflow_above, sanitize, store_again, unary, unary_in_place};

/// Elements that one thread computes at a time.
const GRAIN: usize = 1 << 14;
/// Elements that are converted to `f32` at a time.
const BLOCK: usize = 256;
