//! The machine that code is generated for: the only description of a processor in the project.
//!
//! No stability is promised for this crate; depend on `tconvc`.

mod target;

pub use target::{Caches, Isa, Target, TargetError, X86Level};
