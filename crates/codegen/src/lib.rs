//! Machine code of tconvc: tiles, loop nests, executable memory and the thread pool.
//!
//! No stability is promised here: applications depend on the `tconvc` crate.

pub mod exec;
pub mod lower;
pub mod pool;
pub mod target;
pub mod tile;
