//! Channels as blocks of pixels, and back: a row each.
//!
//! The two pairs differ in how the channels of a block are ordered. `pixel_shuffle` is channel-major: those
//! of one result channel lie together. `depth_to_space` is block-major: those of one place in the block do.

use crate::ir::form::{Facts, Form, Move};
use crate::ir::op::{Arg, Case, Grad, Lit, Mil, Operator, Spelling, Tolerance};
use crate::ir::ops::conv::four;
use crate::ir::ops::unary::half_only;
use crate::ir::precision::{Array, Precision};
use crate::ir::types::TensorType;
use crate::ir::var::Var;
use aneforge_tensor::Shape;

/// A rearrangement as a transposition of six axes.
struct Moves {
    /// What the axes of `x` are split into.
    extents: [usize; 6],
    /// Which of them each axis of the result is, before they are joined.
    perm: [usize; 6],
}

/// How a block's channels are ordered, and which way an op goes.
#[derive(Clone, Copy)]
struct Layout {
    channel_major: bool,
    to_space: bool,
}

impl Layout {
    fn infer(self, x: &TensorType, block: i64) -> Result<TensorType, String> {
        half_only(x)?;
        if x.shape.rank() != 4 {
            return Err(format!("x must be [N, C, H, W], got {}", x.shape));
        }
        let b = usize::try_from(block).ok().filter(|&b| b >= 1 && b.checked_mul(b).is_some());
        let b = b.ok_or_else(|| format!("the block size must be at least 1, got {block}"))?;
        let [n, c, h, w] = four(x.shape);
        let dims = match self.to_space {
            true if c % (b * b) == 0 => [n, c / (b * b), h * b, w * b],
            true => return Err(format!("{c} channels do not divide into blocks of {b} by {b}")),
            false if h % b == 0 && w % b == 0 => [n, c * b * b, h / b, w / b],
            false => return Err(format!("{h} by {w} pixels do not divide into blocks of {b} by {b}")),
        };
        Ok(TensorType::f16(Shape::new(&dims).map_err(|e| e.to_string())?))
    }

    fn moves(self, x: Shape, block: i64) -> Moves {
        let b = block as usize;
        let [n, c, h, w] = four(x);
        match (self.to_space, self.channel_major) {
            (true, true) => Moves { extents: [n, c / (b * b), b, b, h, w], perm: [0, 1, 4, 2, 5, 3] },
            (true, false) => Moves { extents: [n, b, b, c / (b * b), h, w], perm: [0, 3, 4, 1, 5, 2] },
            (false, true) => Moves { extents: [n, c, h / b, b, w / b, b], perm: [0, 1, 3, 5, 2, 4] },
            (false, false) => Moves { extents: [n, c, h / b, b, w / b, b], perm: [0, 3, 5, 1, 2, 4] },
        }
    }

    fn eval(self, x: &Array, out: &TensorType, block: i64) -> Array {
        let Moves { extents, perm } = self.moves(x.shape, block);
        let mut strides = [1; 6];
        (0..5).rev().for_each(|axis| strides[axis] = strides[axis + 1] * extents[axis + 1]);
        Array::from_fn(out.shape, |mut i| {
            let mut at = 0;
            for &axis in perm.iter().rev() {
                at += i % extents[axis] * strides[axis];
                i /= extents[axis];
            }
            x.data[at]
        })
    }
}

macro_rules! blocks {
    ($( $(#[doc = $doc:literal])* $Op:ident $method:ident $name:literal { $attr:ident $arg:literal $lit:ident }
        channel_major $channel_major:literal, to_space $to_space:literal, back $back:ident,
        on $(($x:expr, $block:expr))*; )*) => { $(
        op! { $(#[doc = $doc])* pub struct $Op = $name("x") {
            /// Rows and columns of a block.
            $attr: i64,
        } }

        impl $Op {
            const LAYOUT: Layout = Layout { channel_major: $channel_major, to_space: $to_space };
        }

        impl Operator for $Op {
            fn infer(&self, x: &[TensorType]) -> Result<TensorType, String> {
                Self::LAYOUT.infer(&x[0], self.$attr)
            }
            fn form(&self, x: &[TensorType], _: &TensorType) -> Form {
                let Moves { extents, perm } = Self::LAYOUT.moves(x[0].shape, self.$attr);
                Form::Move(Move::Transpose { extents: extents.into(), perm: perm.into() })
            }
            fn facts(&self, _: &[TensorType], _: &TensorType) -> Facts {
                Facts::MOVED
            }
            fn eval(&self, x: &[&Array], out: &TensorType, _: Precision) -> Array {
                Self::LAYOUT.eval(x[0], out, self.$attr)
            }
            fn vjp(&self, _: &[Var], _: &Var, dy: &Var) -> Vec<Grad> {
                vec![Grad::To(dy.$back(self.$attr as usize))]
            }
            fn mil() -> Mil {
                Mil::Stmt(Spelling {
                    op: $name,
                    args: &[($arg, Arg::Named(stringify!($attr), Lit::$lit)), ("x", Arg::In(0))],
                })
            }
            fn cases() -> Vec<Case> {
                let on = |x: &[usize], block: i64| {
                    Case::new($Op { $attr: block }, &[x], (-4.0, 4.0), Tolerance::EXACT)
                };
                vec![$(on(&$x, $block)),*]
            }
        }

        impl Var {
            $(#[doc = $doc])*
            #[track_caller]
            pub fn $method(&self, block: usize) -> Var {
                Var::apply($Op { $attr: i64::try_from(block).unwrap_or(i64::MAX) }, &[self])
            }
        }
    )* };
}

blocks! {
    /// Channels to pixels, channel-major: `y[n, c, h*r + i, w*r + j] = x[n, c*r*r + i*r + j, h, w]`.
    /// In Python, `af.pixel_shuffle(x, 2)`.
    PixelShuffle pixel_shuffle "pixel_shuffle" { r "upscale_factor" Int32 }
        channel_major true, to_space true, back pixel_unshuffle,
        on ([1, 8, 2, 3], 2) ([2, 9, 1, 2], 3) ([1, 3, 2, 2], 1);
    /// Pixels to channels, channel-major: `y[n, c*r*r + i*r + j, h, w] = x[n, c, h*r + i, w*r + j]`.
    /// In Python, `af.pixel_unshuffle(x, 2)`.
    PixelUnshuffle pixel_unshuffle "pixel_unshuffle" { r "downscale_factor" Uint32 }
        channel_major true, to_space false, back pixel_shuffle,
        on ([1, 2, 4, 6], 2) ([2, 1, 3, 6], 3) ([1, 3, 2, 2], 1);
    /// Channels to pixels, block-major: `y[n, c, h*b + i, w*b + j] = x[n, (i*b + j)*C + c, h, w]` with `C`
    /// channels in the result.
    /// In Python, `af.depth_to_space(x, 2)`.
    DepthToSpace depth_to_space "depth_to_space" { block_size "block_size" Int32 }
        channel_major false, to_space true, back space_to_depth,
        on ([1, 8, 2, 3], 2) ([2, 18, 1, 2], 3) ([1, 4, 1, 1], 2);
    /// Pixels to channels, block-major: `y[n, (i*b + j)*C + c, h, w] = x[n, c, h*b + i, w*b + j]` with `C`
    /// channels in `x`.
    /// In Python, `af.space_to_depth(x, 2)`.
    SpaceToDepth space_to_depth "space_to_depth" { block_size "block_size" Int32 }
        channel_major false, to_space false, back depth_to_space,
        on ([1, 2, 4, 6], 2) ([2, 2, 3, 6], 3) ([1, 1, 2, 2], 2);
}
