//! The loops around tiles: what a layer consists of, and the functions that call its tiles.
//!
//! - [`direct`] puts a direct convolution together, [`direct_loops`] writes its loops, [`line_buffer`] those of line
//!   buffers; [`input_tile`] has the copies into scratch memory, with zeros where the input ends.
//! - [`winograd`], with the loops of [`winograd_loops`], and [`scatter`] put these algorithms together; [`bounds`] has what all of
//!   them share.

mod bounds;
pub(crate) mod direct;
pub(crate) mod direct_loops;
pub(crate) mod input_tile;
mod line_buffer;
pub(crate) mod scatter;
pub(crate) mod winograd;
mod winograd_loops;
