//! The ops, one file each or one per family. `ir/op.rs` holds the one list of them.

pub mod affine;
pub mod batch_norm;
pub mod binary;
pub mod blocks;
pub mod cast;
pub mod channel_norm;
pub mod compare;
pub mod concat;
pub mod conv;
pub mod conv_transpose;
pub mod crop;
pub mod dynamic_conv;
pub mod einsum;
pub mod image_norm;
pub mod leaf;
pub mod matmul;
pub mod native;
pub mod norm;
pub mod pool;
pub mod prelu;
pub mod reduce;
pub mod resize;
pub mod scalar;
pub mod select;
pub mod shape;
pub mod slice;
pub mod softmax;
pub mod tile;
pub mod unary;

use crate::ir::op::Op;

/// Whether every element of the result is one of the first operand's, or 0.
pub(crate) fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape(_)
            | Op::Squeeze(_)
            | Op::ExpandDims(_)
            | Op::Flatten2d(_)
            | Op::Transpose(_)
            | Op::SliceBySize(_)
            | Op::Split(_)
            | Op::Crop(_)
            | Op::Reverse(_)
            | Op::Tile(_)
            | Op::PixelShuffle(_)
            | Op::PixelUnshuffle(_)
            | Op::DepthToSpace(_)
            | Op::SpaceToDepth(_)
            | Op::Upsample(_)
            | Op::ResizeNearest(_)
    )
}
