//! Graph rewrites, cost model and memory plan of tconvc.
//!
//! A pass is a value with a name, a pattern, a guard that says why it refuses, and a claim about cost; each lives in a
//! file of its own under `rewrites` or `forms`, and [`pipeline`] lists them in the order in which they run. What they
//! decide is data, in a [`Journal`]. Passes never touch the bytes of tensors: they put operators on constants, and constant
//! folding evaluates these. The laws that every pass keeps are in this crate's README.
//!
//! No stability is promised for this crate; depend on `tconvc`.

mod check;
pub mod compat;
pub mod cost;
pub mod cut;
mod error;
mod forms;
mod inside;
mod journal;
mod limits;
pub mod matching;
mod options;
pub mod pads;
mod pass;
pub mod patch;
pub mod pipeline;
pub mod plan;
pub mod rewrites;
mod weights;

pub use check::Signature;
pub use error::{Error, Result};
pub use forms::ChooseForm;
pub use journal::{Candidate, Decision, Entry, Journal, Verdict};
pub use limits::Limits;
pub use options::{Compat, Form, Options, StopAfter};
pub use pass::{About, Context, Miss, Pass, Rewrite, Site, require};
pub use pipeline::optimise;
