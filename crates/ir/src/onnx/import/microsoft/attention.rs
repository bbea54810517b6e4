//! Attention as ONNX Runtime fuses it: with the projections of its inputs, or behind them.

use super::Lowering;
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::ValueId;

fn none() -> Attributes {
    Attributes::new()
}

/// Attributes of ONNX's operator that both have.
fn common(lower: &mut Lowering<'_, '_>) -> Result<Attributes> {
    let heads = lower.lift.node.attributes.int("num_heads")?;
    let heads = heads.ok_or_else(|| Error::attribute("num_heads", "is required"))?;
    let mut attributes = none().with("q_num_heads", heads).with("kv_num_heads", heads);
    // Zero stands for the default.
    if let Some(scale) = lower.lift.node.attributes.float("scale")?.filter(|&scale| scale != 0.0) {
        attributes.set("scale", scale);
    }
    if lower.flag("unidirectional")? {
        attributes.set("is_causal", true);
    }
    // What hidden scores become is so small that the softmax makes nothing of it.
    lower.lift.node.attributes.float("mask_filter_value")?;
    Ok(attributes)
}

/// A mask `[N, keys]` of numbers that are not 0 where there is something, joined with a bias of the scores.
fn mask(
    lower: &mut Lowering<'_, '_>,
    given: Option<ValueId>,
    bias: Option<ValueId>,
) -> Result<Option<ValueId>> {
    let Some(given) = given else { return Ok(bias) };
    if lower.rank(given)? != 2 {
        return Err(Error::Unsupported(format!(
            "a mask of {} axes; accepted is [batch, keys]",
            lower.rank(given)?
        )));
    }
    let seen = lower.emit("Cast", none().with("to", DType::Bool), &[Some(given)])?;
    let axes = lower.ints("mask_axes", &[1, 2]);
    let seen = lower.emit("Unsqueeze", none(), &[Some(seen), Some(axes)])?;
    let Some(bias) = bias else { return Ok(Some(seen)) };
    let hidden = lower.number("hidden", f64::NEG_INFINITY, bias)?;
    Ok(Some(lower.emit("Where", none(), &[Some(seen), Some(bias), Some(hidden)])?))
}

/// `input [N, length, in], weights [in, q + k + v], bias?, mask_index?, past?, attention_bias?`.
pub(super) fn attention(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.outputs_at_most(1)?;
    lower.only("do_rotary", 0)?;
    lower.only("past_present_share_buffer", 0)?;
    lower.int("rotary_embedding_dim", 0)?;
    if lower.input(4).is_some() || lower.input(6).is_some() {
        return Err(Error::Unsupported("inputs `past` and `past_sequence_length`".into()));
    }
    let attributes = common(lower)?;
    let (x, weights) = (lower.required(0, "input")?, lower.required(1, "weights")?);
    let sizes = lower.lift.node.attributes.ints("qkv_hidden_sizes")?.filter(|sizes| !sizes.is_empty());
    let product = lower.emit("MatMul", none(), &[Some(x), Some(weights)])?;
    let all = lower.plus(product, lower.input(2))?;
    let parts = match sizes {
        Some(sizes) if sizes.len() == 3 => {
            let sizes = lower.ints("sizes", &sizes);
            lower.emit_many("Split", none().with("axis", -1), &[Some(all), Some(sizes)], 3)?
        }
        Some(sizes) => {
            return Err(Error::attribute(
                "qkv_hidden_sizes",
                format!("expected three numbers, found {sizes:?}"),
            ));
        }
        None => lower.emit_many("Split", none().with("axis", -1).with("num_outputs", 3), &[Some(all)], 3)?,
    };
    let mask = mask(lower, lower.input(3), lower.input(5))?;
    lower.finish("Attention", attributes, &[Some(parts[0]), Some(parts[1]), Some(parts[2]), mask])
}

/// `query [N, length, hidden], key?, value?, bias?, key_padding_mask?, attention_bias?, past_key?, past_value?`.
pub(super) fn multi_head(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(8)?;
    lower.outputs_at_most(3)?;
    let attributes = common(lower)?;
    let mut parts = [lower.required(0, "query")?, lower.required(0, "query")?, lower.required(0, "query")?];
    let packed = "queries, keys and values in one tensor";
    for (index, name) in [(1, "key"), (2, "value")] {
        let given = lower.input(index);
        parts[index] =
            given.ok_or_else(|| Error::Unsupported(format!("input {index} ({name}) is absent: {packed}")))?;
    }
    if lower.rank(parts[0])? != 3 || lower.rank(parts[1])? > 4 {
        return Err(Error::Unsupported(format!("{packed}; accepted are [N, length, hidden]")));
    }
    if let Some(bias) = lower.input(3) {
        let widths = parts.map(|part| lower.ty(part).shape.as_ref().and_then(|shape| shape.last()?.known()));
        let [Some(q), Some(k), Some(v)] = widths else {
            return Err(Error::Unsupported("a bias, where the last extents are not known".into()));
        };
        let sizes = lower.ints("sizes", &[q as i64, k as i64, v as i64]);
        let biases = lower.emit_many("Split", none().with("axis", 0), &[Some(bias), Some(sizes)], 3)?;
        for (part, bias) in parts.iter_mut().zip(biases) {
            *part = lower.plus(*part, Some(bias))?;
        }
    }
    // Keys and values of an encoder come with their heads apart, and with no bias.
    if lower.rank(parts[1])? == 4 {
        for part in &mut parts[1..] {
            let flat = lower.transpose(*part, vec![0, 2, 1, 3])?;
            let shape = lower.ints("flat", &[0, 0, -1]);
            *part = lower.emit("Reshape", none(), &[Some(flat), Some(shape)])?;
        }
    }
    let mask = mask(lower, lower.input(4), lower.input(5))?;
    let [q, k, v] = parts.map(Some);
    let past = [lower.input(6), lower.input(7)];
    lower.finish("Attention", attributes, &[q, k, v, mask, past[0], past[1]])
}

/// ONNX's own, whose positions come last.
pub(super) fn rotary(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let mut attributes = none();
    for name in ["interleaved", "num_heads", "rotary_embedding_dim"] {
        attributes.set(name, lower.int(name, 0)?);
    }
    lower.only("is_packed_batching", 0)?;
    if lower.float("scale", 1.0)? != 1.0 {
        return Err(Error::Unsupported("attribute `scale` other than 1".into()));
    }
    let (x, places) = (lower.required(0, "input")?, lower.required(1, "position_ids")?);
    if lower.rank(places)? != 2 {
        return Err(Error::Unsupported("position_ids that are one offset; accepted is [N, length]".into()));
    }
    let (cos, sin) = (lower.required(2, "cos_cache")?, lower.required(3, "sin_cache")?);
    lower.finish("RotaryEmbedding", attributes, &[Some(x), Some(cos), Some(sin), Some(places)])
}
