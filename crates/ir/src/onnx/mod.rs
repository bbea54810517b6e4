//! ONNX in and out.
//!
//! The way in: `wire` decodes messages of `proto` one at a time and within bounds; `import` orders the nodes, lifts the
//! spellings of older opsets to that of opset 21 (`import::upgrade`) and builds a [`Graph`] of typed operators. What is
//! not known stays [`crate::ops::Opaque`]. Nothing here infers shapes; the types that a file declares are kept as hints.

mod attributes;
mod export;
mod files;
mod foreign;
mod import;
mod names;
mod proto;
mod raw;
mod subgraph;
mod tensors;
mod types;
mod wire;

use crate::attributes::Attributes;
use crate::budget;
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
    let _budget = budget::current_or_default();
    let path = path.as_ref();
    let bytes = files::load_model(path)?;
    let graph = foreign::refuse(&bytes)
        .and_then(|()| Files::beside(path))
        .and_then(|files| import::model(&bytes, &files));
    graph.map_err(|error| error.in_file(path))
}

/// Reads a model from memory. External data are refused.
///
/// # Errors
/// As [`read_path`], without the file's name.
pub fn read_bytes(bytes: &[u8]) -> Result<Graph> {
    let _budget = budget::current_or_default();
    budget::grow(bytes.len());
    foreign::refuse(bytes)?;
    import::model(&Bytes::copy_from_slice(bytes), &Files::none())
}

/// Reads the graph of an attribute, given as an encoded `AttributeProto` in the spelling of opset 21. What the graphs in
/// `attributes` read by name of the graph around them are inputs, behind its own.
pub(crate) fn read_subgraph(bytes: &[u8], attributes: &Attributes) -> Result<Graph> {
    let captured = captured(attributes)?;
    import::canonical_subgraph(&Bytes::copy_from_slice(bytes), &captured)
}

/// Names that the graphs in attributes read of the graph around them, in the order of a node's captured inputs.
pub(crate) fn captured(attributes: &Attributes) -> Result<Vec<String>> {
    let encoded: Vec<Bytes> = attributes.iter().map(|(name, value)| attributes::write(name, value)).collect();
    Ok(subgraph::Contents::of(&encoded)?.free)
}

/// An encoded `AttributeProto` that holds a graph. Its last inputs are what it reads of the graph around it, under the names
/// `captured`.
pub(crate) fn write_subgraph(name: &str, graph: &Graph, captured: &[String]) -> Result<Vec<u8>> {
    export::subgraph(name, graph, captured)
}

/// Writes a model: IR version 10 or later, everything in one file, and the opset that it was read in, or the first later one
/// that has all of its operators. Operators of our own are spelled out in ONNX's. What was written is read again and
/// checked.
///
/// # Errors
/// When the graph has a cycle, an operator cannot be spelled in ONNX or in the opset of one that is passed through, or the file
/// would be larger than 2 GiB.
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
