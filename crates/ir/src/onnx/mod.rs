//! ONNX in and out.
//!
//! The way in: `wire` decodes messages of `proto` one at a time and within bounds; `import` orders the nodes, lifts the
//! spellings of older opsets to that of opset 21 (`import::upgrade`) and builds a [`Graph`] of typed operators. What is
//! not known stays [`crate::ops::Opaque`]. Nothing here infers shapes; the types that a file declares are kept as hints.

mod attributes;
mod export;
mod files;
mod import;
mod names;
mod proto;
mod subgraph;
mod tensors;
mod types;
mod wire;

use crate::attributes::Attributes;
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::Tensor;
use files::Files;
use prost::bytes::Bytes;
use std::path::Path;

/// Reads a model file. External data are looked for in its folder only.
///
/// # Errors
/// When the file cannot be read, is no ONNX model, or holds what this program does not accept; names the file, and the
/// node, attribute or tensor at fault.
pub fn read_path(path: impl AsRef<Path>) -> Result<Graph> {
    let path = path.as_ref();
    let bytes = files::load_model(path)?;
    let graph = Files::beside(path).and_then(|files| import::model(&bytes, &files));
    graph.map_err(|error| error.in_file(path))
}

/// Reads a model from memory. External data are refused.
///
/// # Errors
/// As [`read_path`], without the file's name.
pub fn read_bytes(bytes: &[u8]) -> Result<Graph> {
    import::model(&Bytes::copy_from_slice(bytes), &Files::none())
}

/// Reads the graph of an attribute, given as an encoded `AttributeProto`, of an operator of `opset`. What the graphs in
/// `attributes` read by name of the graph around them are inputs, behind its own.
pub(crate) fn read_subgraph(bytes: &[u8], attributes: &Attributes, opset: Option<i64>) -> Result<Graph> {
    let encoded: Vec<Bytes> = attributes.iter().map(|(name, value)| attributes::write(name, value)).collect();
    let captured = subgraph::Contents::of(&encoded)?.free;
    import::subgraph(&Bytes::copy_from_slice(bytes), &captured, opset)
}

/// Writes a model: opset 21, IR version 10, everything in one file. Operators of our own are spelled out in ONNX's.
///
/// The model's own opset is kept where a subgraph, which we pass through, is written for it.
///
/// # Errors
/// When the graph has a cycle, an operator cannot be spelled in ONNX, or the file would be larger than 2 GiB.
pub fn write(graph: &Graph) -> Result<Vec<u8>> {
    export::model(graph)
}

/// Reads a tensor file (an encoded `TensorProto`), such as the inputs and outputs of ONNX's backend tests: name and tensor.
///
/// # Errors
/// When the bytes are no tensor, or one that is too large.
pub fn read_tensor(bytes: &[u8]) -> Result<(String, Tensor)> {
    tensors::read(&Bytes::copy_from_slice(bytes), &Files::none())
}

/// Writes a tensor file (an encoded `TensorProto`).
pub fn write_tensor(name: &str, tensor: &Tensor) -> Vec<u8> {
    wire::encode(&tensors::to_proto(name, tensor)).into()
}
