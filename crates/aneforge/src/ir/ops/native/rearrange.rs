//! Blocks of pixels to channels or to the batch, and back.
//!
//! The channel order is block-major, as TensorFlow's: all channels of one place of the block lie together.
//! `pixel_shuffle` is channel-major.

use crate::ir::form::{Facts, Form};
use crate::ir::op::{Case, Decompose, Grad, Mil, Native, Op, Operator, Tolerance};
use crate::ir::ops::native::{image, of, one_image, result, written};
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_mil::netplist::{Layer, Symbol, Value};

/// Sides of blocks that the layers are known to take; others are written with transposes.
///
/// Evidence: the compiler's table of factors in arXiv 2606.22283 aB, every chip (decompiled).
const FACTORS: [i64; 5] = [1, 2, 3, 4, 8];

macro_rules! rearrange {
    ($( $(#[doc = $doc:literal])* $Op:ident $method:ident $name:literal $kind:literal
        { $( $(#[doc = $attr_doc:literal])* $attr:ident ),* };
        block = |$b:ident| $block:expr; infer = |$op:ident, $x:ident| $infer:expr; write = $write:expr;
        inverse = $inverse:ident; cases = [$($shape:expr => $case:expr),*]; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x") { $( $(#[doc = $attr_doc])* $attr: i64 ),* } }

        impl Operator for $Op {
            fn infer(&self, types: &[TensorType]) -> Result<TensorType, String> {
                let block: [i64; 2] = {
                    let $b = self;
                    $block
                };
                let ($op, $x) = (self, &types[0]);
                if block.iter().any(|&size| size < 1) {
                    return Err(format!("block sizes must be at least 1, got {block:?}"));
                }
                $infer
            }
            fn form(&self, _: &[TensorType], _: &TensorType) -> Form {
                Form::Opaque("blocks rearranged in several transposes, for want of axes")
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts::MOVED
            }
            fn eval(&self, x: &[&Array], _: &TensorType, p: Precision) -> Array {
                written(self.clone(), $write, x, p)
            }
            fn vjp(&self, _: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
                vec![Grad::To(Var::apply($inverse { $($attr: self.$attr),* }, &[dy]))]
            }
            fn mil() -> Mil {
                let layer = |op: &Op, x: &[TensorType]| {
                    let Op::$Op($b) = op else { unreachable!("called on its own op") };
                    let block: [i64; 2] = $block;
                    let out = $b.infer(x).expect("invariant: inferred");
                    let lie = |ty: &TensorType| std::array::from_fn(|axis| ty.shape[axis]);
                    // X is the width and Y the height.
                    let params =
                        [("FactorX", block[1].into()), ("FactorY", block[0].into()), ("FactorZ", Value::Int(1))];
                    Layer::new($kind, params, [Symbol::dense("x", lie(&x[0]))], result(lie(&out)))
                };
                let route = |op: &Op, _: &[TensorType]| {
                    let Op::$Op($b) = op else { unreachable!("called on its own op") };
                    let block: [i64; 2] = $block;
                    !block.iter().all(|size| FACTORS.contains(size))
                };
                Mil::Native(Native { layer, written: Some($write), route })
            }
            fn cases() -> Vec<Case> {
                vec![$(Case::new($case, &[&$shape], (-4.0, 4.0), Tolerance::EXACT)),*]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, $($attr: usize),*) -> Var {
                Var::apply($Op { $($attr: $attr as i64),* }, &[self])
            }
        }
    )* };
}

/// `extents` times or by the block, with a sentence when it does not divide.
fn divided(what: &str, extent: usize, by: i64) -> Result<usize, String> {
    let by = by as usize;
    if extent.is_multiple_of(by) {
        return Ok(extent / by);
    }
    Err(format!("{what} of {extent} does not divide into blocks of {by}; pad or crop it first"))
}

fn times(extent: usize, by: i64) -> usize {
    extent.saturating_mul(by as usize)
}

/// The steps of a rearrangement: reshapes and transposes of at most five axes.
fn steps(x: &Var, steps: &[(&[usize], &[i64])], out: &[usize]) -> Var {
    let wide = |dims: &[usize]| dims.iter().map(|&d| d as i64).collect::<Vec<_>>();
    let moved = steps.iter().fold(x.clone(), |v, (dims, perm)| v.reshape(&wide(dims)).transpose(perm));
    moved.reshape(&wide(out))
}

fn extents(x: &Var) -> [usize; 4] {
    std::array::from_fn(|axis| x.shape()[axis])
}

const TO_CHANNEL: Decompose = |op, x| {
    let Op::SpaceToChannel(SpaceToChannel { r }) = op else { unreachable!("called on its own op") };
    let ([_, c, h, w], r) = (extents(&x[0]), *r as usize);
    steps(&x[0], &[(&[c, h / r, r, w / r, r], &[2, 4, 0, 1, 3])], &[1, c * r * r, h / r, w / r])
};
const FROM_CHANNEL: Decompose = |op, x| {
    let Op::ChannelToSpace(ChannelToSpace { r }) = op else { unreachable!("called on its own op") };
    let ([_, c, h, w], r) = (extents(&x[0]), *r as usize);
    let c = c / (r * r);
    steps(&x[0], &[(&[r, r, c, h, w], &[2, 3, 0, 4, 1])], &[1, c, h * r, w * r])
};
const TO_BATCH: Decompose = |op, x| {
    let Op::SpaceToBatch(SpaceToBatch { bh, bw }) = op else { unreachable!("called on its own op") };
    let ([n, c, h, w], bh, bw) = (extents(&x[0]), *bh as usize, *bw as usize);
    let (rows, columns) = (h / bh, w / bw);
    // Places of a row leave it first, then places of a column, so that no step has six axes.
    steps(
        &x[0],
        &[(&[n, c * h, columns, bw], &[0, 3, 1, 2]), (&[n, bw, c * rows, bh, columns], &[0, 3, 1, 2, 4])],
        &[n * bh * bw, c, rows, columns],
    )
};
const FROM_BATCH: Decompose = |op, x| {
    let Op::BatchToSpace(BatchToSpace { bh, bw }) = op else { unreachable!("called on its own op") };
    let ([b, c, h, w], bh, bw) = (extents(&x[0]), *bh as usize, *bw as usize);
    let n = b / (bh * bw);
    steps(
        &x[0],
        &[(&[n, bh, bw, c * h, w], &[0, 2, 3, 1, 4]), (&[n, bw, c * h * bh, w], &[0, 2, 3, 1])],
        &[n, c, h * bh, w * bw],
    )
};

rearrange! {
    /// Each block of `r` by `r` pixels becomes channels.
    ///
    /// `x` is `[1, C, H, W]`; the result is `[1, C*r*r, H/r, W/r]`, with channel `(i*r + j)*C + c` from row `i`
    /// and column `j` of the block. Elements move as they are.
    SpaceToChannel space_to_channel "space_to_channel" "SpaceToChannel" {
        /// Rows and columns of a block.
        r
    };
    block = |op| [op.r, op.r];
    infer = |op, x| {
        let [n, c, h, w] = one_image(x)?;
        of(&[n, times(times(c, op.r), op.r), divided("height", h, op.r)?, divided("width", w, op.r)?])
    };
    write = TO_CHANNEL; inverse = ChannelToSpace;
    cases = [
        [1, 3, 4, 6] => SpaceToChannel { r: 2 },
        [1, 2, 6, 3] => SpaceToChannel { r: 3 },
        [1, 4, 2, 2] => SpaceToChannel { r: 1 }
    ];

    /// Channels become blocks of `r` by `r` pixels: the inverse of `space_to_channel`.
    ///
    /// `x` is `[1, C*r*r, H, W]`; the result is `[1, C, H*r, W*r]`. Elements move as they are.
    ChannelToSpace channel_to_space "channel_to_space" "ChannelToSpace" {
        /// Rows and columns of a block.
        r
    };
    block = |op| [op.r, op.r];
    infer = |op, x| {
        let [n, c, h, w] = one_image(x)?;
        let cells = op.r.checked_mul(op.r).ok_or("block is too large")?;
        of(&[n, divided("number of channels", c, cells)?, times(h, op.r), times(w, op.r)])
    };
    write = FROM_CHANNEL; inverse = SpaceToChannel;
    cases = [
        [1, 8, 2, 3] => ChannelToSpace { r: 2 },
        [1, 9, 1, 2] => ChannelToSpace { r: 3 },
        [1, 2, 3, 3] => ChannelToSpace { r: 1 }
    ];

    /// Each place of the blocks of `bh` by `bw` pixels becomes an image of its own.
    ///
    /// `x` is `[N, C, H, W]`; the result is `[N*bh*bw, C, H/bh, W/bw]`, with image `(n*bh + i)*bw + j` from row
    /// `i` and column `j` of every block. Elements move as they are.
    SpaceToBatch space_to_batch "space_to_batch" "SpaceToBatch" {
        /// Rows of a block.
        bh,
        /// Columns of a block.
        bw
    };
    block = |op| [op.bh, op.bw];
    infer = |op, x| {
        let [n, c, h, w] = image(x)?;
        let images = times(times(n, op.bh), op.bw);
        of(&[images, c, divided("height", h, op.bh)?, divided("width", w, op.bw)?])
    };
    write = TO_BATCH; inverse = BatchToSpace;
    cases = [
        [1, 2, 4, 6] => SpaceToBatch { bh: 2, bw: 3 },
        [2, 3, 4, 2] => SpaceToBatch { bh: 2, bw: 1 },
        [1, 1, 3, 4] => SpaceToBatch { bh: 3, bw: 2 }
    ];

    /// Images become the places of blocks of `bh` by `bw` pixels: the inverse of `space_to_batch`.
    ///
    /// `x` is `[N*bh*bw, C, H, W]`; the result is `[N, C, H*bh, W*bw]`. Elements move as they are.
    BatchToSpace batch_to_space "batch_to_space" "BatchToSpace" {
        /// Rows of a block.
        bh,
        /// Columns of a block.
        bw
    };
    block = |op| [op.bh, op.bw];
    infer = |op, x| {
        let [n, c, h, w] = image(x)?;
        let cells = op.bh.checked_mul(op.bw).ok_or("block is too large")?;
        of(&[divided("batch", n, cells)?, c, times(h, op.bh), times(w, op.bw)])
    };
    write = FROM_BATCH; inverse = SpaceToBatch;
    cases = [
        [6, 2, 2, 2] => BatchToSpace { bh: 2, bw: 3 },
        [4, 3, 2, 2] => BatchToSpace { bh: 2, bw: 1 },
        [6, 1, 1, 2] => BatchToSpace { bh: 3, bw: 2 }
    ];
}
