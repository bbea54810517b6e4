//! Convolutions over windows: a window of input rows is packed into scratch memory (or read where it lies), and tiles run
//! over it: of channels by vectors along the width, all x-phases at once, or of pixels by vectors of channels or of x-phases.
//!
//! - [`schedule`] decides tile shape, window, and units of work, by what [`shapes`] cost; [`others`] has what could be decided
//!   instead.
//! - [`tile`] writes the micro-kernel with lanes along the width, [`pixels`] the one with lanes along the channels or the
//!   phases.
//! - [`super::window`] has the copies into scratch memory, with zeros where the input ends.
//! - [`rolling`] has windows that tiles of the one before copy, [`copying`] their code.
//! - [`phases`] says which phases tiles compute together, and what these read.
//! - [`nest`] puts these together; [`emit`] writes the loops around it all.

mod copying;
mod emit;
mod nest;
mod others;
mod phases;
mod pixels;
mod rolling;
mod schedule;
mod shapes;
mod tile;

pub(super) use nest::build;
pub(super) use schedule::{Schedule, Store, direct_cycles};
pub(super) use tile::{Position, Row, Segment, Span, TileSpec, build as build_tile};
