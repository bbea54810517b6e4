//! What the tests of several crates share: random graphs, comparison of results, the runner of file tests, ONNX models built
//! field by field and damaged, named layers, memory between pages that must not be touched, processes that may end at those
//! or from which the system takes something, and the machine that tests make code for.
//! Only ever a dev-dependency.

mod child;
mod compare;
#[cfg(target_os = "linux")]
pub mod confined;
pub mod filetest;
mod graphs;
#[cfg(unix)]
mod guarded;
pub mod layers;
pub mod onnx_build;
mod products;
mod target;

pub use child::{Cases, in_child};
pub use compare::{check_close, check_same_meaning, inputs};
pub use graphs::{graphs, symbolic_graphs};
#[cfg(unix)]
pub use guarded::{Edge, Guarded};
pub use products::add_products;
pub use target::{every_target, is_run, target, target_name, targets};
