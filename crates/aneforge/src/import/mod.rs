//! From files to graphs.

pub mod mil;
mod weights;
