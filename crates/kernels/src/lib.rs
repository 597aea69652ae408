//! Numeric routines of the host engine, over plain slices.
//!
//! Activations are row-major [`half::f16`] slices (NCHW for images; convolutions also take NHWC), arithmetic is `f32`, and every result is
//! stored once with round-to-nearest-even. A routine that sums does it in the one order that [`order`] defines
//! on logical indices; every instruction set, blocking and thread count gives the same bits for finite values. Who asks
//! for [`Sums::Fast`] gets products in the order that is fastest on the processor's class.
//!
//! Routines that stand for several ops round where those ops would: [`Epilogue`], [`norm`], [`attention`]. Weights may
//! stay compressed, see [`gemm::PackedB`].
//!
//! A [`Kernels`] value says how to run: which instruction set and which threads. Nothing here reads a global or
//! an environment variable, and with a [`Scratch`] reserved beforehand no routine allocates.

mod bring;
mod context;
mod scratch;
mod simd;

pub mod attention;
pub mod callers;
pub mod channel;
pub mod compensate;
pub mod conv;
pub mod convert;
pub mod gather;
pub mod gemm;
pub mod layers;
pub mod layout;
pub mod map;
pub mod math;
pub mod norm;
pub mod order;
pub mod pool;
pub mod process;
pub mod reduce;
pub mod roof;
pub mod softmax;
pub mod sums;
pub mod threads;
pub mod warp;

mod broadcast;
mod epilogue;
mod stores;
mod strided;

pub use broadcast::View;
pub use context::{Isa, Kernels, Sums};
pub use epilogue::{Bias, Epilogue, Residual};
pub use half::f16;
pub use scratch::Scratch;
pub use stores::{Stores, Watch};
pub use strided::Layout;
