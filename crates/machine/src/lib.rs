//! The machine that code is generated for: the only description of a processor in the project.
//!
//! - [`Target`] is what a caller names: architecture, level, platform, caches.
//! - [`VectorIsa`] and [`CallingConvention`] are tables of what a tile may use; nobody else asks which instruction set it is.
//! - [`Caches`] as they are read from the machine, or assumed.
//! - [`memory_bytes`] is what this process may have.
//! - [`Rates`] are what things take, in plain numbers.
//!
//! No stability is promised for this crate; depend on `tconvc`.

mod budgets;
mod caches;
mod convention;
mod detect;
mod isa;
mod memory;
mod rates;
mod target;

pub use caches::{Cache, Caches};
pub use convention::CallingConvention;
pub use isa::{Isa, Lowering, MemoryOperands, VectorIsa};
pub use memory::memory_bytes;
pub use rates::{Calls, Elementwise, Memory, Moves, Rates, Threads, Transforms};
pub use target::{Target, TargetError, X86Level};
