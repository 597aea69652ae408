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
//! Nothing falls back silently: what cannot run where it was asked to is an error that names the op, the numbers and the
//! way out; [`error`] says whose fault it is.
//!
//! # From values to results
//!
//! **Values.** A [`Var`] is one node of a graph that nobody has to hold. Inputs are [`Var::input`], weights
//! [`Var::constant`]; operators and methods make the rest, one per op of [`ir::ops`]. A mistake stays in the value with your
//! line, and comes out when the graph is frozen. [`nn`] has attention and gated units, [`paired`] numbers with twice the digits;
//! both are ordinary functions over values. [`grad`] makes the gradient, which is a graph as well.
//!
//! ```
//! use aneforge::{Shape, Var, grad};
//! let x = Var::input(Shape::new(&[3])?);
//! let loss = (&x * &x).sum(&[0]);
//! let seed = Var::full(loss.shape(), 1.0);
//! let gradients = grad::grad(&loss, &seed, &[x.clone()])?;
//! assert_eq!(gradients[0].check()?.shape, x.shape());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Judging.** [`Graph::freeze`] gathers what some values need. Before anything is compiled, [`risk`] says where a graph may
//! lose precision or overflow, [`passes::preflight()`] what a family of chips makes of it, and [`target::cost`] how long it
//! may take. [`ir::text`] prints a graph and reads it back, and [`import`] reads a program that was compiled.
//!
//! **Compiling.** [`compile()`] takes values and [`CompileOptions`] to a [`Plan`], and touches no file and no device. The
//! [`Target`] is the chip it is for; what that cannot run is an error here, on every machine. [`passes`] is the pipeline as a
//! table, and [`rewrite`] what its rules are written in; [`emit`] and [`netplist`] write down the legal graph that it ends
//! with. [`plan`] is plain data, with a printer.
//!
//! **Running.** A [`Session`] is a plan on a [`Device`]: the host, or the engine. It keeps its buffers from call to call. The
//! host's arithmetic is a row of [`ir::numerics`], the target's own by default; [`Session::overflows`] names the nodes that left
//! the range of half precision.
//!
//! **Keeping.** [`Plan::save`] and [`Plan::load`] keep a program as one file, which an executable may also contain
//! ([`Plan::from_static`]). [`artifact`] writes plans as sets of files for the engine, and every other output, and has a
//! [`Cache`](artifact::Cache) of programs; [`portable`] turns graphs and plans into bytes for another process.
//!
//! **Choosing.** [`tune`](mod@tune) measures ways to compile a graph and remembers the best. [`pacing`] gives the engine's compiler
//! the rest that it needs after a failure.
//!
//! Whole models and pretrained weights are in the crate `aneforge-models`.

#[macro_use]
pub mod ir;
pub mod artifact;
pub mod calibrate;
pub mod compile;
pub mod device;
pub mod diagnose;
pub mod doctor;
pub mod emit;
pub mod error;
pub mod explain;
pub mod grad;
pub mod import;
pub mod netplist;
pub mod nn;
pub mod optim;
pub mod pacing;
pub mod paired;
pub mod passes;
pub mod plan;
pub mod portable;
pub mod profile;
pub mod quantize;
pub mod rewrite;
pub mod risk;
pub mod session;
pub mod target;
pub mod train;
pub mod tune;

pub use aneforge_tensor::{DType, Encoding, Shape, Tensor, Weight, f16};
pub use calibrate::{calibrate, calibrate_all};
pub use compile::{CompileError, compile, compile_calibrated, compile_graph};
pub use device::host::HostOptions;
pub use device::{Buffer, Device, DeviceError, Feed};
pub use error::Kind;
pub use ir::graph::Graph;
pub use ir::numerics::{Family, Numerics};
pub use ir::types::TensorType;
pub use ir::var::{BuildError, Var};
pub use passes::{CompileOptions, Norms, Routes};
pub use plan::Plan;
pub use profile::Profile;
pub use session::{RunError, Session, State};
pub use target::Target;
