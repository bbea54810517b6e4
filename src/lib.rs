//! A compiler for neural networks that up-sample.
//!
//! tconvc reads an ONNX model, rewrites every transposed convolution (`ConvTranspose`) into the cheapest of three
//! equivalent forms, and compiles the network for its shapes into machine code that runs inside the caller's process.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tconvc::{Compiler, Form, Model, Target, Tensor};
//!
//! let model = Model::from_path("models/fsrcnn_x3.onnx")?;
//! let compiled = Compiler::new()
//!     .target(Target::host())
//!     .form(Form::Auto)
//!     .threads(1)
//!     .input_shape("low", [1, 1, 32, 32])
//!     .compile(&model)?;
//!
//! let low = Tensor::from_vec([1, 1, 32, 32], vec![0.5f32; 32 * 32])?;
//! let outputs = compiled.run([("low", low.view())])?;
//! assert_eq!(outputs[0].shape(), [1, 1, 96, 96]);
//! println!("{}", compiled.report());
//! # Ok(())
//! # }
//! ```
//!
//! A host with threads of its own, or with several models that shall share some, hands in an [`Executor`]:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use tconvc::{Compiler, Model, ThreadPool};
//!
//! let pool = Arc::new(ThreadPool::new(2)?);
//! let model = Model::from_path("models/fsrcnn_x3.onnx")?;
//! let compiled = Compiler::new().executor(pool.clone()).compile(&model)?;
//! let mut session = compiled.session();
//! let mut other = compiled.session().with_executor(Arc::new(ThreadPool::new(2)?));
//! # Ok(())
//! # }
//! ```
//!
//! Shapes that a model leaves open can be given with [`Compiler::input_shape`], or left to the calls: code is then made
//! for each shape when it is first used, and kept.

mod cache;
mod check;
mod compiled;
mod compiler;
mod dot;
mod error;
mod explain;
mod export;
mod given;
mod inside;
mod interpreted;
mod limits;
mod model;
mod report;
mod session;
mod stages;
mod threads;
mod tune;

pub use check::{Agreement, Tolerance, compare};
pub use compiled::{CompiledModel, Outputs};
pub use compiler::{Compiler, Rewritten};
pub use error::{Error, Place};
pub use explain::{Explanation, LayerExplanation};
pub use export::Export;
pub use interpreted::InterpretedStep;
pub use limits::default_limits;
pub use model::{Model, PortInfo};
pub use report::{LayerReport, Report, StepReport};
pub use session::{OutputPorts, Session};
pub use tconvc_codegen::compile::Refusal;
pub use tconvc_ir::budget::{Budget, CancelToken, Charge, Entered, Exceeded, Limit, Limits};
pub use tconvc_ir::onnx::read_tensor;
pub use tconvc_ir::{DType, Element, Tensor, TensorView, TensorViewMut};
pub use tconvc_machine::Target;
pub use tconvc_passes::{Compat, Error as OptionError, Form, Journal};
pub use tconvc_runtime::executor::{Executor, Serial};
pub use tconvc_runtime::thread_pool::ThreadPool;
pub use tune::{TuneProgress, Tuning};

/// The example in the README, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The example in the account of `--tune`.
#[cfg(doctest)]
#[doc = include_str!("../docs/tuning.md")]
struct Measuring;
