//! What a host links to run a compiled network: the program, the session with its workspace, executors and a thread pool.
//!
//! No compiler is in here. No stability is promised for this crate; depend on `tconvc`.

pub mod code;
pub mod error;
pub mod executor;
pub mod memory;
pub mod program;
pub mod session;
pub mod subgraphs;
mod sync;
pub mod thread_pool;
