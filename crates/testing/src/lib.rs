//! What the tests of several crates share: random graphs, comparison of results, the runner of file tests, and
//! ONNX models built field by field and damaged.
//! Only ever a dev-dependency.

mod compare;
pub mod filetest;
mod graphs;
pub mod onnx_build;

pub use compare::{check_close, check_same_meaning, inputs};
pub use graphs::{graphs, symbolic_graphs};
