//! Program Apple's Neural Engine directly, or run the same programs anywhere.
//!
//! A lazy tensor graph of [`Var`]s is compiled by [`compile()`] into one fused MIL program plus one weight
//! file: a [`Plan`]. A [`Session`] runs the plan on a [`device`]: the engine itself, or the host engine,
//! which computes the same legal graph on this machine's processor with the engine's numerics.
//!
//! ```
//! use aneforge::{CompileOptions, Session, Shape, Tensor, Var, compile, device};
//!
//! let x = Var::input(Shape::new(&[1, 4])?);
//! let weight = Tensor::from_slice(Shape::new(&[2, 4])?, &[1.0f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])?;
//! let y = x.linear(&Var::constant(weight), None).softmax(-1);
//!
//! let plan = compile(&[y], &CompileOptions::default())?;
//! let mut session = Session::new(plan, device::named("host")?)?;
//! let feed = Tensor::from_slice(Shape::new(&[1, 4])?, &[1.0f32, 2.0, 3.0, 1.0])?;
//! assert_eq!(session.run(&[feed])?[0].to_f32(), [0.5, 0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing falls back silently: what cannot run where it was asked to is an error that names the op.
//! The modules below are in the order in which they may depend on each other.

#[macro_use]
pub mod ir;
pub mod artifact;
pub mod compile;
pub mod device;
pub mod emit;
pub mod error;
pub mod grad;
pub mod import;
pub mod netplist;
pub mod nn;
pub mod pacing;
pub mod paired;
pub mod passes;
pub mod plan;
pub mod portable;
pub mod rewrite;
pub mod risk;
pub mod session;
pub mod target;
pub mod tune;

pub use aneforge_tensor::{DType, Shape, Tensor, f16};
pub use compile::{CompileError, compile};
pub use device::host::HostOptions;
pub use device::{Buffer, Device, DeviceError, Feed};
pub use error::Kind;
pub use ir::graph::Graph;
pub use ir::numerics::{Family, Numerics};
pub use ir::types::TensorType;
pub use ir::var::{BuildError, Var};
pub use passes::{CompileOptions, Norms, Routes};
pub use plan::Plan;
pub use session::{RunError, Session};
pub use target::Target;
