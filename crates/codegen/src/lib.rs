//! Machine code of tconvc: tiles, loop nests, executable memory and the thread pool.
//!
//! No stability is promised here: applications depend on the `tconvc` crate.

pub mod ahead;
mod builder;
pub mod compile;
pub mod error;
pub mod exec;
mod jobs;
mod kernels;
pub mod lower;
pub mod memory;
mod packing;
pub mod pool;
pub mod program;
pub mod session;
mod split;
mod start;
pub mod target;
pub mod tile;
