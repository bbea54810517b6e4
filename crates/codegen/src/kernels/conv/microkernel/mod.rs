//! The tiles that convolutions are made of, one kind a file, written in the tile IR.
//!
//! - [`width`] has lanes along the width, [`pixels`] along the channels or the phases.
//! - [`scatter`] adds patches; [`winograd`] transforms inputs and outputs.
//! - [`packing`] copies input tiles; [`post_ops`] is what is done to a result before it is stored.

pub(crate) mod packing;
pub(crate) mod pixels;
pub(crate) mod post_ops;
pub(crate) mod scatter;
pub(crate) mod width;
pub(crate) mod winograd;
