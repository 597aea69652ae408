//! Layers of the engine that MIL cannot spell. Each is a program of its own, and a graph is cut there.
//!
//! Every fact about a layer is from the reference's account of the documents that ANEForge 0.4.0 writes and
//! runs on device; nothing here has run on silicon by this project. Where the account leaves the rounding
//! inside a layer open, it is defined by the chain of ops that computes the same, so that choosing one or
//! the other changes no bit.

pub mod geometry;
pub mod normalize;
pub mod points;
pub mod rank;
pub mod rearrange;
pub mod scaled;
pub mod sdpa;
pub mod view;

pub use geometry::{CostVolume, CrossCorrelation, CrossProduct};
pub use normalize::{Lrn, MinmaxNorm};
pub use points::{Fps, RadiusSearch};
pub use rank::{Argmax, Sort, Topk};
pub use rearrange::{BatchToSpace, ChannelToSpace, SpaceToBatch, SpaceToChannel};
pub use scaled::ScaledElementwise;
pub use sdpa::Sdpa;
pub use view::{DynamicSlice, Flatten, InputView};

use crate::ir::graph::Graph;
use crate::ir::op::{Decompose, Grad, Op};
use crate::ir::ops::norm::{distinct, pulled_back};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{RESULT, Symbol};

/// The scalar definition of a layer that is defined by the ops it is written with.
pub(crate) fn written(op: impl Into<Op>, write: Decompose, x: &[&Array], p: Precision) -> Array {
    let inputs: Vec<Var> = x.iter().map(|a| Var::input(a.shape)).collect();
    let graph = Graph::freeze(&[write(&op.into(), &inputs)]);
    let graph = graph.expect("invariant: inferred inputs decompose");
    let feeds: Vec<Array> = x.iter().map(|&a| a.clone()).collect();
    graph.eval(&feeds, p).swap_remove(graph.outputs()[0].index())
}

/// The gradients of the ops that a layer is written with.
pub(crate) fn through(op: impl Into<Op>, write: Decompose, x: &[Var], dy: &Var) -> Vec<Grad> {
    let leaves = distinct(x);
    pulled_back(&write(&op.into(), &leaves), dy, &leaves)
}

/// The result of a layer, as it lies on the engine.
fn result(extents: [usize; 4]) -> Symbol {
    Symbol::dense(RESULT, extents)
}

/// A row of `n` elements.
const fn row(n: usize) -> [usize; 4] {
    [1, 1, 1, n]
}

/// An image of one batch, `[1, C, H, W]`, or why `ty` is none.
fn one_image(ty: &TensorType) -> Result<[usize; 4], String> {
    let extents = image(ty)?;
    match extents[0] {
        1 => Ok(extents),
        n => Err(format!("takes one image at a time, got a batch of {n}; slice the batch and concat")),
    }
}

/// An image, `[N, C, H, W]`, or why `ty` is none.
fn image(ty: &TensorType) -> Result<[usize; 4], String> {
    crate::ir::ops::unary::half_only(ty)?;
    let dims = ty.shape.dims();
    dims.try_into().map_err(|_| format!("x must be [N, C, H, W], got {}", ty.shape))
}

/// A matrix, or why `ty` is none.
fn matrix(name: &str, ty: &TensorType) -> Result<[usize; 2], String> {
    crate::ir::ops::unary::half_only(ty)?;
    let dims = ty.shape.dims();
    dims.try_into().map_err(|_| format!("{name} must have two axes, got {}", ty.shape))
}

/// The type with these extents.
fn of(extents: &[usize]) -> Result<TensorType, String> {
    Ok(TensorType::f16(aneforge_tensor::Shape::new(extents).map_err(|e| e.to_string())?))
}
