//! A [`Graph`] becomes a model in ONNX's words. This file writes the model around the nodes.

mod chain;
mod check;
mod convolution;
mod elementwise;
mod forms;
mod opset;
mod since;
mod writer;

use super::attributes;
use super::import::DOC_STRING;
use super::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use super::subgraph::Contents;
use super::wire::put_header;
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::ops::{Op, Operator};
use chain::Chain;
use forms::{scatter, sub_pixel, weights, zero_insert};
pub(super) use opset::choose as choose_opset;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use writer::Writer;

/// Largest file that a protocol buffer can be.
const MAX_FILE_BYTES: usize = i32::MAX as usize;

/// Version of the file format that goes with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}

/// Writes a model.
pub(super) fn model(graph: &Graph) -> Result<Vec<u8>> {
    check_size(graph)?;
    let opset = opset::choose(graph)?;
    let order = graph.order()?;
    let mut writer = Writer::new(graph, &order, opset)?;
    write_nodes(&mut writer, &order)?;
    let graph_bytes = writer.into_bytes()?;

    let mut opsets = graph.opsets.clone();
    opsets.insert(String::new(), opset);
    // Not every file imports what it uses.
    import_domains(graph, &mut opsets)?;
    let metadata = graph.metadata.iter().filter(|(key, _)| *key != DOC_STRING);
    let model = ModelProto {
        ir_version: ir_version(opset),
        producer_name: "tconvc".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: graph.metadata.get(DOC_STRING).cloned().unwrap_or_default(),
        graph: None,
        opset_import: opsets
            .into_iter()
            .map(|(domain, version)| OperatorSetIdProto { domain, version })
            .collect(),
        metadata_props: metadata
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        functions: vec![],
    };
    let mut out = model.encode_to_vec();
    put_header(&mut out, 7, graph_bytes.len());
    out.extend_from_slice(&graph_bytes);
    if out.len() > MAX_FILE_BYTES {
        return Err(too_large(out.len()));
    }
    // Bytes are shared, so that looking at them takes no memory to speak of.
    let written = Bytes::from(out);
    check::model(&written)?;
    Ok(written.into())
}

/// Imports the first version of domains that are used and not imported.
fn import_domains(graph: &Graph, opsets: &mut BTreeMap<String, i64>) -> Result<()> {
    for node in graph.nodes() {
        let Op::Opaque(op) = &node.op else { continue };
        opsets.entry(op.domain.clone()).or_insert(1);
        match op.control() {
            Ok(control) => {
                for graph in control.graphs() {
                    import_domains(graph, opsets)?;
                }
            }
            Err(_) => {
                let encoded: Vec<Bytes> =
                    op.attributes.iter().map(|(name, value)| attributes::write(name, value)).collect();
                for (domain, _) in Contents::of(&encoded)?.foreign {
                    opsets.entry(domain).or_insert(1);
                }
            }
        }
    }
    Ok(())
}

/// Writes the encoded attribute of a graph; see [`super::write_subgraph`].
pub(super) fn subgraph(name: &str, graph: &Graph, captured: &[String]) -> Result<Vec<u8>> {
    Ok(writer::subgraph(name, graph, captured)?.into())
}

fn write_nodes(writer: &mut Writer<'_>, order: &[NodeId]) -> Result<()> {
    for &id in order {
        let node = writer.graph().node(id);
        write_node(writer, id).map_err(|error| error.at(&node.name, node.op.name()))?;
    }
    Ok(())
}

/// Refuses early what would not fit into a file.
fn check_size(graph: &Graph) -> Result<()> {
    let sizes = graph.values().filter_map(|(id, _)| Some(graph.constant(id)?.bytes().len()));
    let total = sizes.fold(0usize, usize::saturating_add);
    if total > MAX_FILE_BYTES { Err(too_large(total)) } else { Ok(()) }
}

fn too_large(bytes: usize) -> Error {
    Error::Unsupported(format!(
        "an ONNX file of {bytes} bytes; accepted are {MAX_FILE_BYTES}, the most that a protocol buffer can hold \
         (weights in a file of their own are read, but not written)"
    ))
}

/// Writes one node, by as many of ONNX's as it takes.
fn write_node(writer: &mut Writer<'_>, id: NodeId) -> Result<()> {
    let graph = writer.graph();
    let node = graph.node(id);
    match &node.op {
        Op::Opaque(op) => return writer.opaque(node, op),
        Op::DequantizeLinear(_) if weights::is_rearranged(graph, id) => {}
        Op::BatchNormalization(op) if op.training_mode => writer.with_outputs(node, 3),
        Op::Unary(op) => elementwise::unary(Chain::new(writer, node)?, *op)?,
        Op::Softmax(op) => elementwise::softmax(Chain::new(writer, node)?, op.kind.name(), op.attributes()),
        Op::Conv(op) => convolution::conv(Chain::new(writer, node)?, op.attributes(), &op.epilogue)?,
        Op::ConvTranspose(op) => {
            convolution::conv_transpose(Chain::new(writer, node)?, op.attributes(), &op.epilogue)?;
        }
        Op::ZeroInsert(op) => zero_insert::zero_insert(Chain::new(writer, node)?, op),
        Op::PhaseConv(op) => sub_pixel::phase_conv(Chain::new(writer, node)?, op)?,
        Op::Interleave(op) => sub_pixel::interleave(Chain::new(writer, node)?, op)?,
        Op::ColumnGemm(op) => scatter::column_gemm(Chain::new(writer, node)?, op)?,
        Op::OverlapAdd(op) => scatter::overlap_add(Chain::new(writer, node)?, op)?,
        op => writer.plain(node, "", op.name(), &op.attributes()),
    }
    Ok(())
}

/// Takes a list of integers out of attributes that are known to be well-formed.
fn take_ints(attributes: &mut Attributes, name: &str) -> Vec<i64> {
    match attributes.take(name) {
        Some(AttributeValue::Ints(values)) => values,
        _ => vec![],
    }
}
