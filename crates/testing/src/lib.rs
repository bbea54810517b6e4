//! What the tests of several crates share: random graphs, comparison of results, and the runner of file tests.
//! Only ever a dev-dependency.

mod compare;
pub mod filetest;
mod graphs;

pub use compare::{check_close, check_same_meaning, inputs};
pub use graphs::{graphs, symbolic_graphs};
