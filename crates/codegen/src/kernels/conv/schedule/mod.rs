//! How a convolution is cut up, as plain values: loop order, blocking, the vector dimension, line buffers, and what each
//! costs. No code is made here.
//!
//! - [`direct`] decides tile shape, input tile and work items, by what [`tile_shape`] costs; [`neighbourhood`] has what could
//!   be decided instead.
//! - [`input_tile`] says where a copied part of the input lies; [`line_buffer`] has input tiles of which each adds to the one before.
//! - [`phases`] says which phases tiles compute together, and what these read.
//! - [`winograd`] and [`scatter`], with [`scatter_tiles`], do the same for these algorithms; [`tiling`] has what all of them share; [`work_items`] counts what threads share.

pub(crate) mod direct;
pub(crate) mod input_tile;
pub(crate) mod line_buffer;
mod neighbourhood;
pub(crate) mod phases;
pub(crate) mod scatter;
pub(crate) mod scatter_tiles;
pub(crate) mod tile_shape;
pub(crate) mod tiling;
pub(crate) mod winograd;
pub(crate) mod work_items;
