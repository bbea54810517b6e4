//! Machine code of tconvc: kernels, loop nests, packed weights, and the modules that collect their functions.
//!
//! No stability is promised here: applications depend on the `tconvc` crate.

pub mod artifact;
mod builder;
pub mod compile;
pub mod error;
mod kernels;
pub mod module;
pub mod options;
mod packing;
mod split;
mod tasks;
