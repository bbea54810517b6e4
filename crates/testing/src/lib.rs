//! What the tests of several crates share: random graphs, comparison of results, the runner of file tests, ONNX models built
//! field by field and damaged, named layers, memory between pages that must not be touched, and processes that may end at those.
//! Only ever a dev-dependency.

mod child;
mod compare;
pub mod filetest;
mod graphs;
#[cfg(unix)]
mod guarded;
pub mod layers;
pub mod onnx_build;

pub use child::{Cases, in_child};
pub use compare::{check_close, check_same_meaning, inputs};
pub use graphs::{graphs, symbolic_graphs};
#[cfg(unix)]
pub use guarded::{Edge, Guarded};
