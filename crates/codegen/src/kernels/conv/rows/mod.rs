//! Convolutions with lanes along the width: a window of input rows is packed into scratch memory (or read where it lies),
//! and tiles of `M` channels by `N` vectors, all x-phases at once, run over it.
//!
//! - [`schedule`] decides tile shape, window, and units of work.
//! - [`tile`] writes the micro-kernel.
//! - [`pack`] writes the copies into scratch memory, with zeros where the input ends.
//! - [`weights`] orders the weights as the micro-kernel reads them.
//! - [`nest`] writes the loops around it all.

mod nest;
mod pack;
mod schedule;
mod tile;
mod weights;

pub(super) use nest::{Job, build};
