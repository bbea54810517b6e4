//! The passes that rewrite a graph before forms are chosen, one a file.

mod affine;
mod batch_norm;
mod branch;
mod canonicalise;
mod crop;
mod cse;
mod dce;
mod epilogue;
mod fold;
mod gemm;
mod noop;
mod pad;
mod recognise;
mod reshape;
mod resize_conv;
mod transpose;
mod widen;
mod zero_stuffing;

pub use affine::Affine;
pub use batch_norm::BatchNorm;
pub use branch::Branch;
pub use canonicalise::Canonicalise;
pub use crop::Crop;
pub use cse::CommonSubexpressions;
pub use dce::DeadCode;
pub use epilogue::Epilogue;
pub use fold::{Fold, GROWTH, MAX_MACS, SMALL_BYTES};
pub use gemm::Gemm;
pub use noop::Noop;
pub use pad::PadIntoConv;
pub use recognise::Recognise;
pub use reshape::Reshape;
pub use resize_conv::ResizeConv;
pub use transpose::Transpose;
pub use widen::Widen;
pub use zero_stuffing::ZeroStuffing;
