//! Convolutions over windows: a window of input rows is packed into scratch memory (or read where it lies), and tiles run
//! over it: of channels by vectors along the width, all x-phases at once, or of pixels by vectors of channels.
//!
//! - [`schedule`] decides tile shape, window, and units of work.
//! - [`tile`] writes the micro-kernel with lanes along the width, [`channels`] the one with lanes along the channels.
//! - [`super::window`] has the copies into scratch memory, with zeros where the input ends.
//! - [`nest`] puts these together; [`emit`] writes the loops around it all.

mod channels;
mod emit;
mod nest;
mod schedule;
mod tile;

pub(super) use nest::build;
pub(super) use schedule::direct_cycles;
pub(super) use tile::{Position, TileSpec, build as build_tile};
