//! The passes that rewrite a graph before forms are chosen, one a file.

mod dce;

pub use dce::DeadCode;
