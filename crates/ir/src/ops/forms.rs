//! Operators of our own that spell the three forms of a transposed convolution. One form a file; each file's types have
//! a meaning of their own, so that a rewritten graph can be read, run by the reference interpreter, and exported.
//!
//! | form | nodes |
//! |---|---|
//! | zero-insertion | [`ZeroInsert`] -> [`Conv`](super::Conv) with flipped weights |
//! | sub-pixel | [`PhaseConv`] -> [`Interleave`] |
//! | scatter | [`ColumnGemm`] -> [`OverlapAdd`] |
//!
//! Each is made from a checked [`DeconvGeometry`](crate::geometry::DeconvGeometry) by `from_geometry`, and gives it back
//! for concrete shapes: code generation takes all its loop bounds from there. Pads are those of
//! [`DeconvAxis`](crate::geometry::DeconvAxis): cropped from the full output, negative where they extend it.

mod scatter;
mod sub_pixel;
mod zero_insert;

pub use scatter::{ColumnGemm, OverlapAdd};
pub use sub_pixel::{Interleave, PhaseConv};
pub use zero_insert::ZeroInsert;
