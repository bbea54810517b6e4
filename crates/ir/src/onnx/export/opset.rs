//! Which opset a model is written for.

use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::onnx::import::CANONICAL_OPSET;
use crate::ops::Op;

/// Oldest opset that is written.
const OLDEST: i64 = 13;

/// The canonical opset, or the one that a subgraph passed through is written for.
pub(super) fn choose(graph: &Graph) -> Result<i64> {
    let opset = graph.opsets.get("").copied().unwrap_or(CANONICAL_OPSET);
    let newest = newest_operator(graph)?;
    if opset >= CANONICAL_OPSET {
        return Ok(opset.max(newest.map_or(0, |(_, since)| since)));
    }
    let foreign = graph.order()?.into_iter().map(|id| graph.node(id));
    let foreign = foreign.filter(|node| matches!(&node.op, Op::Opaque(op) if op.domain.is_empty()));
    let foreign: Vec<&str> = foreign.map(|node| node.name.as_str()).take(1).collect();
    let Some(keeps) = foreign.first() else {
        return Ok(newest.map_or(0, |(_, since)| since).max(CANONICAL_OPSET));
    };
    if opset < OLDEST {
        return Err(Error::Unsupported(format!(
            "writing opset {opset}, which node `{keeps}` is kept as it was for; accepted are {OLDEST} and later"
        )));
    }
    match newest {
        Some((node, since)) if since > opset => Err(Error::Unsupported(format!(
            "node `{}` ({}) takes opset {since}, but node `{keeps}` is kept as it was for opset {opset}",
            node.name,
            node.op.name()
        ))),
        _ => Ok(opset),
    }
}

/// The node whose spelling needs the newest opset.
fn newest_operator(graph: &Graph) -> Result<Option<(&Node, i64)>> {
    let nodes = graph.order()?.into_iter().map(|id| graph.node(id));
    let nodes = nodes.filter(|node| !matches!(node.op, Op::Opaque(_)));
    Ok(nodes.map(|node| (node, since(node))).max_by_key(|(_, since)| *since))
}

/// The first opset in which what we write for a node means what we mean.
fn since(node: &Node) -> i64 {
    let attributes = node.op.attributes();
    let has = |names: &[&str]| names.iter().any(|name| attributes.contains(name));
    match node.op.name() {
        "Reshape" if has(&["allowzero"]) => 14,
        "HardSwish" | "Trilu" | "CumSum" | "GRU" | "LSTM" | "RNN" => 14,
        "BatchNormalization" => 15,
        "Shape" if has(&["start", "end"]) => 15,
        "ScatterElements" | "ScatterND" if has(&["reduction"]) => 18,
        "LayerNormalization" => 17,
        // Before, checkers counted windows that lie in the padding alone.
        "AveragePool" | "LpPool" | "MaxPool" if has(&["ceil_mode"]) => 22,
        "BitwiseAnd" | "BitwiseNot" | "BitwiseOr" | "BitwiseXor" | "CenterCropPad" | "Col2Im" | "LpPool"
        | "Mish" | "OverlapAdd" => 18,
        "Pad" if node.input(3).is_some() => 18,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSumSquare"
            if node.input(1).is_some() || has(&["noop_with_empty_axes"]) =>
        {
            18
        }
        "Split" if node.input(1).is_none() => 18,
        "Resize" if has(&["antialias", "axes", "keep_aspect_ratio_policy"]) => 18,
        "Resize" if text(&attributes, "coordinate_transformation_mode") == "half_pixel_symmetric" => 19,
        "AveragePool" if has(&["dilations"]) => 19,
        "Gelu" | "GeluTanh" | "GridSample" | "DFT" => 20,
        "GroupNormalization" => 21,
        "STFT" | "HannWindow" | "HammingWindow" | "BlackmanWindow" | "MelWeightMatrix" => 17,
        "DeformConv" => 19,
        "RoiAlign" => 16,
        "Attention" if has(&["left_window_size", "right_window_size"]) => 25,
        "Attention" if node.input(6).is_some() => 24,
        "Attention" | "RMSNormalization" | "RotaryEmbedding" => 23,
        "TensorScatter" => 24,
        "Cast" | "CastLike" if has(&["round_mode"]) => 24,
        "BitCast" | "CumProd" => 26,
        "CausalConvWithState" | "LinearAttention" => 27,
        "SpaceToDepth" if has(&["mode"]) => 28,
        _ => OLDEST,
    }
}

fn text<'a>(attributes: &'a Attributes, name: &str) -> &'a str {
    match attributes.get(name) {
        Some(AttributeValue::String(text)) => text,
        _ => "",
    }
}
