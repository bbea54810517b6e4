//! Winograd's minimal filtering for stride-1 convolutions and for the phases of a sub-pixel convolution.
//!
//! `m` outputs under `r` neighbouring taps take `m + r - 1` products instead of `m * r` along each axis: `y = A^T [(G g) * (B^T d)]`,
//! with constant matrices. Transformed weights are made once; a block of tiles is transformed into scratch memory, multiplied
//! by the weights of a tile of output channels in one matrix product for each product term, and transformed back into
//! rows of the output. Sums are rounded otherwise than by the definition: docs/winograd.md has the bound.
//!
//! - [`points`] makes the matrices.
//! - [`schedule`] decides whether, and in which tiles.
//! - [`transform`] writes the transforms of data as tiles.
//! - [`weights`] transforms the weights.
//! - [`nest`] puts these together, and writes the loops around it all.

mod nest;
mod points;
mod schedule;
mod transform;
mod weights;

pub(super) use nest::build;
pub(super) use schedule::{GAIN, Schedule};
