//! What is wrong with the parts of a weight.

use super::Encoding;
use crate::{DType, Shape, Tensor};

/// Why parts do not make a weight. The caller's or the file's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// There are more or fewer parts than the encoding has.
    #[error("{encoding} weights have {want} parts, got {got}")]
    Parts {
        /// The encoding asked for.
        encoding: Encoding,
        /// Parts that it has.
        want: usize,
        /// Parts that were given.
        got: usize,
    },
    /// A part is of another element type.
    #[error("{part} of {encoding} weights are {want}, got {got}")]
    Type {
        /// The encoding asked for.
        encoding: Encoding,
        /// The part.
        part: &'static str,
        /// What it is made of.
        want: DType,
        /// What was given.
        got: DType,
    },
    /// A part has more or fewer elements than the weight's shape wants.
    #[error("{part} of {encoding} weights have the shape {} here, got {}", shapes[0], shapes[1])]
    Elements {
        /// The encoding asked for.
        encoding: Encoding,
        /// The part.
        part: &'static str,
        /// The shape that it must have, and the one that was given.
        shapes: Box<[Shape; 2]>,
    },
    /// The weight has axes that the encoding does not go with.
    #[error("{encoding} weights have {want}, got {shape}")]
    Axes {
        /// The encoding asked for.
        encoding: Encoding,
        /// The axes that it goes with.
        want: &'static str,
        /// The weight's shape.
        shape: Shape,
    },
    /// Rows do not divide into the blocks that there are scales for.
    #[error("rows of {columns} codes do not divide into {blocks} blocks")]
    Blocks {
        /// Codes of a row.
        columns: usize,
        /// Scales of a row.
        blocks: usize,
    },
    /// A scale of a block is negative: what is added to its values in a program would change the sign of their zeros.
    #[error("scales of blockwise weights are not negative, got {value} at {at}")]
    Negative {
        /// Its place.
        at: usize,
        /// The scale.
        value: String,
    },
    /// The set bits of a mask are not as many as there are values, or lie behind the last element.
    #[error("the mask sets {set} bits for {values} values, {beyond} of them behind the last element")]
    Mask {
        /// Set bits.
        set: usize,
        /// Values.
        values: usize,
        /// Set bits that belong to no element.
        beyond: usize,
    },
    /// The encoding does not go with another shape.
    #[error("{encoding} weights of shape {} do not stay encoded as {}", shapes[0], shapes[1])]
    Reshape {
        /// The encoding.
        encoding: Encoding,
        /// The weight's shape, and the one asked for.
        shapes: Box<[Shape; 2]>,
    },
}

/// A part in the shape that it must have.
pub(super) fn shaped(
    encoding: Encoding,
    part: &'static str,
    tensor: &Tensor,
    shape: Shape,
) -> Result<Tensor, WeightError> {
    let wanted = encoding.parts().iter().find(|(name, _)| *name == part).and_then(|(_, dtype)| *dtype);
    let (want, got) = (wanted.expect("invariant: encoded parts have a type"), tensor.dtype());
    if want != got {
        return Err(WeightError::Type { encoding, part, want, got });
    }
    let shapes = [shape, tensor.shape()];
    let fails = |_| WeightError::Elements { encoding, part, shapes: Box::new(shapes) };
    tensor.reshape(shape).map_err(fails)
}
