//! Graphs, geometry, ONNX in and out, text form and reference interpreter of tconvc.
//!
//! No stability is promised for this crate; depend on `tconvc`.

pub mod attributes;
pub mod budget;
pub mod dim;
mod dtype;
mod error;
pub mod geometry;
pub mod graph;
pub mod infer;
pub mod interp;
pub mod onnx;
pub mod ops;
mod packed;
mod pages;
pub mod resize_axis;
pub mod signature;
mod strings;
mod tensor;
pub mod text;
mod value_type;
pub mod verify;
mod view;

pub use attributes::{AttributeValue, Attributes};
pub use dim::{Bindings, Dim};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use graph::{Definition, Graph, Node, NodeId, Value, ValueId};
pub use half::{bf16, f16};
pub use ops::{Op, Operator};
pub use packed::PowerRounding;
pub use pages::{HUGE_PAGE, LARGE_BYTES, Pages};
pub use tensor::{MAX_TENSOR_BYTES, SharedBytes, Tensor, element_count};
pub use value_type::ValueType;
pub use view::{TensorView, TensorViewMut};
