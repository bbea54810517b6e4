//! Machine code of tconvc: kernels, loop nests, packed weights, and the modules that collect their functions.
//!
//! No stability is promised here: applications depend on the `tconvc` crate.

pub mod artifact;
mod builder;
pub mod compile;
/// What kernels cost, for the choice of a form.
pub mod costs {
    pub use crate::kernels::{Decided, KernelCosts};
}
pub mod declined;
pub mod error;
mod kernels;
pub mod module;
pub mod options;
mod packing;
mod partition;
mod tasks;
