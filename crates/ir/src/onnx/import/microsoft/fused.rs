//! Activations with a bias, and normalisations of sums.

use super::Lowering;
use crate::attributes::Attributes;
use crate::error::Result;
use crate::graph::ValueId;
use crate::tensor::Tensor;

fn none() -> Attributes {
    Attributes::new()
}

/// ONNX has it under the same name.
pub(super) fn same(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let _ = lower.required(0, "X")?;
    Ok(())
}

/// `X + bias + skip`.
pub(super) fn bias_add(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let (x, bias) = (lower.required(0, "X")?, lower.required(1, "bias")?);
    let sum = lower.plus(x, Some(bias))?;
    let skip = lower.required(2, "skip")?;
    lower.finish("Add", none(), &[Some(sum), Some(skip)])
}

/// `Gelu(A + B)`.
pub(super) fn bias_gelu(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let (x, bias) = (lower.required(0, "A")?, lower.required(1, "B")?);
    let sum = lower.plus(x, Some(bias))?;
    lower.finish("Gelu", none(), &[Some(sum)])
}

/// The first half of the last axis, behind the bias, times the Gelu of the second one.
pub(super) fn bias_split_gelu(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let (x, bias) = (lower.required(0, "X")?, lower.required(1, "bias")?);
    let sum = lower.plus(x, Some(bias))?;
    let attributes = none().with("axis", -1).with("num_outputs", 2);
    let halves = lower.emit_many("Split", attributes, &[Some(sum)], 2)?;
    let gate = lower.emit("Gelu", none(), &[Some(halves[1])])?;
    lower.finish("Mul", none(), &[Some(halves[0]), Some(gate)])
}

/// The approximation by a tanh, of the sum with a bias.
pub(super) fn fast_gelu(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let x = lower.required(0, "X")?;
    let sum = lower.plus(x, lower.input(1))?;
    lower.finish("GeluTanh", none(), &[Some(sum)])
}

/// `x * sigmoid(alpha x)`.
pub(super) fn quick_gelu(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let x = lower.required(0, "X")?;
    let alpha = lower.float("alpha", 1.702)?;
    lower.finish("Swish", none().with("alpha", alpha), &[Some(x)])
}

/// `LayerNormalization` without the mean.
pub(super) fn simplified_layer_normalization(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.outputs_at_most(1)?;
    let (x, scale) = (lower.required(0, "X")?, lower.required(1, "scale")?);
    let attributes = none()
        .with("axis", lower.int("axis", -1)?)
        .with("epsilon", lower.float("epsilon", 1e-5)?)
        .with("stash_type", lower.int("stash_type", 1)?);
    lower.finish("RMSNormalization", attributes, &[Some(x), Some(scale)])
}

/// The sum of an input, another one and a bias; the fourth output is that sum.
fn skip_sum(lower: &mut Lowering<'_, '_>, bias: usize) -> Result<ValueId> {
    let (x, skip) = (lower.required(0, "input")?, lower.required(1, "skip")?);
    let sum = lower.plus(x, Some(skip))?;
    let sum = lower.plus(sum, lower.input(bias))?;
    lower.define(3, "Identity", &[Some(sum)])?;
    lower.outputs_at_most(1)?;
    Ok(sum)
}

/// `LayerNormalization(input + skip + bias)` along the last axis.
pub(super) fn skip_layer_normalization(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(5)?;
    let sum = skip_sum(lower, 4)?;
    let attributes = none().with("epsilon", lower.float("epsilon", 1e-5)?);
    let (gamma, beta) = (lower.required(2, "gamma")?, lower.input(3));
    lower.finish("LayerNormalization", attributes, &[Some(sum), Some(gamma), beta])
}

/// As [`skip_layer_normalization`], without the mean.
pub(super) fn skip_simplified(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(4)?;
    let sum = skip_sum(lower, 3)?;
    let attributes = none().with("epsilon", lower.float("epsilon", 1e-5)?);
    let gamma = lower.required(2, "gamma")?;
    lower.finish("RMSNormalization", attributes, &[Some(sum), Some(gamma)])
}

/// `input_ids, segment_ids?, word, position, segment?, gamma, beta, mask?, position_ids?`: the normalised sum of embeddings.
pub(super) fn embed_layer_normalization(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let ids = lower.required(0, "input_ids")?;
    let (words, places) = (lower.required(2, "word_embedding")?, lower.required(3, "position_embedding")?);
    let word = lower.emit("Gather", none(), &[Some(words), Some(ids)])?;
    let place = match lower.input(8) {
        Some(given) => lower.emit("Gather", none(), &[Some(places), Some(given)])?,
        None => {
            let length = lower.emit("Shape", none().with("start", 1).with("end", 2), &[Some(ids)])?;
            let (zero, axis) = (lower.ints("zero", &[0]), lower.ints("axis", &[0]));
            lower.emit("Slice", none(), &[Some(places), Some(zero), Some(length), Some(axis)])?
        }
    };
    let mut sum = lower.plus(word, Some(place))?;
    if let (Some(segments), Some(table)) = (lower.input(1), lower.input(4)) {
        let segment = lower.emit("Gather", none(), &[Some(table), Some(segments)])?;
        sum = lower.plus(sum, Some(segment))?;
    }
    lower.define(2, "Identity", &[Some(sum)])?;
    if lower.lift.output_used(1) {
        // How many places of each sample are filled; without a mask the runtime says none.
        let count = match lower.input(7) {
            Some(mask) => {
                let axis = lower.ints("mask_axis", &[1]);
                lower.emit("ReduceSum", none().with("keepdims", 0), &[Some(mask), Some(axis)])?
            }
            None => {
                let batch = lower.emit("Shape", none().with("end", 1), &[Some(ids)])?;
                let zero = none().with("value", Tensor::from_vec([1], vec![0i32])?);
                lower.emit("ConstantOfShape", zero, &[Some(batch)])?
            }
        };
        lower.define(1, "Identity", &[Some(count)])?;
    }
    lower.only("mask_index_type", 0)?;
    lower.outputs_at_most(1)?;
    let attributes = none().with("epsilon", lower.float("epsilon", 1e-12)?);
    let (gamma, beta) = (lower.required(5, "gamma")?, lower.required(6, "beta")?);
    lower.finish("LayerNormalization", attributes, &[Some(sum), Some(gamma), Some(beta)])
}

/// Groups of channels that stand last, and perhaps a Swish.
pub(super) fn group_norm(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let x = lower.required(0, "X")?;
    let (gamma, beta) = (lower.required(1, "gamma")?, lower.required(2, "beta")?);
    let groups = lower.int("groups", 0)?;
    let epsilon = lower.float("epsilon", 1e-5)?;
    let swish = lower.flag("activation")?;
    let last = lower.lift.node.attributes.flag("channels_last", true)?;
    let first = if last { lower.transpose(x, vec![0, 3, 1, 2])? } else { x };
    let attributes = none().with("num_groups", groups).with("epsilon", epsilon);
    let mut y = lower.emit("GroupNormalization", attributes, &[Some(first), Some(gamma), Some(beta)])?;
    if swish {
        y = lower.emit("Swish", none(), &[Some(y)])?;
    }
    if last {
        lower.finish("Transpose", none().with("perm", vec![0i64, 2, 3, 1]), &[Some(y)])
    } else {
        lower.finish("Identity", none(), &[Some(y)])
    }
}
