//! The first opset that has what is written for a node: by its operator, its attributes and inputs, and its element types.

use super::opset::OLDEST;
use crate::attributes::{AttributeValue, Attributes};
use crate::dtype::DType;
use crate::graph::{Graph, Node};
use crate::ops::{EpilogueStep, Op, Operator, Unary};

/// The first opset in which what we write for a node means what we mean.
pub(super) fn since(graph: &Graph, node: &Node) -> i64 {
    let op = &node.op;
    let attributes = op.attributes();
    let mut least = OLDEST.max(by_spelling(graph, node, &attributes)).max(by_types(graph, node, op.name()));
    for step in op.epilogue().iter().flat_map(|(epilogue, _)| &epilogue.steps) {
        if let EpilogueStep::Unary(unary) = step {
            least = least.max(of_unary(unary));
        }
    }
    least
}

/// What is newer than the opset that is written is spelled out.
fn of_unary(unary: &Unary) -> i64 {
    match unary {
        Unary::HardSwish | Unary::Mish | Unary::Gelu | Unary::GeluTanh => OLDEST,
        other => of_name(other.name()),
    }
}

/// Operators that are newer than the oldest opset that is written.
pub(super) fn of_name(name: &str) -> i64 {
    match name {
        "HardSwish" | "Trilu" => 14,
        "Bernoulli" | "CastLike" | "Optional" | "OptionalGetElement" | "OptionalHasElement" => 15,
        "GridSample" => 16,
        "BlackmanWindow" | "DFT" | "HammingWindow" | "HannWindow" | "LayerNormalization"
        | "MelWeightMatrix" | "STFT" | "SequenceMap" => 17,
        "BitwiseAnd" | "BitwiseNot" | "BitwiseOr" | "BitwiseXor" | "CenterCropPad" | "Col2Im"
        | "GroupNormalization" | "Mish" | "OverlapAdd" => 18,
        "DeformConv" => 19,
        "AffineGrid" | "Gelu" | "GeluTanh" | "ImageDecoder" | "RegexFullMatch" | "StringConcat"
        | "StringSplit" => 20,
        "Attention" | "RMSNormalization" | "RotaryEmbedding" => 23,
        "TensorScatter" => 24,
        "BitCast" | "CumProd" => 26,
        "CausalConvWithState" | "LinearAttention" => 27,
        "SwiGLU" => 28,
        _ => OLDEST,
    }
}

fn by_spelling(graph: &Graph, node: &Node, attributes: &Attributes) -> i64 {
    let has = |names: &[&str]| names.iter().any(|name| attributes.contains(name));
    let when = |condition: bool, opset: i64| if condition { opset } else { OLDEST };
    let name = node.op.name();
    let more = match name {
        "Attention" => {
            when(has(&["left_window_size", "right_window_size"]), 25).max(when(node.input(6).is_some(), 24))
        }
        "AveragePool" | "LpPool" | "MaxPool" => {
            let by_attribute = match name {
                "AveragePool" => when(has(&["dilations"]), 19),
                "LpPool" => when(has(&["dilations", "ceil_mode"]), 18),
                _ => OLDEST,
            };
            // Before, checkers counted windows that lie in the padding alone.
            by_attribute.max(when(ends_in_padding(graph, node, attributes), 22))
        }
        "BatchNormalization" => when(has(&["training_mode"]), 14).max(when(mixed(graph, node), 15)),
        "Cast" | "CastLike" => when(has(&["saturate"]), 19).max(when(has(&["round_mode"]), 24)),
        // Its axis was an attribute, which nothing here writes.
        "DFT" => 20,
        "DequantizeLinear" => when(has(&["block_size"]), 21).max(when(has(&["output_dtype"]), 23)),
        "GRU" | "LSTM" | "RNN" => when(has(&["layout"]), 14),
        "GridSample" => when(node.input(0).and_then(|id| graph.ty(id).rank()) != Some(4), 20),
        // Before, scale and bias had a number a group.
        "GroupNormalization" => 21,
        "Pad" => when(node.input(3).is_some(), 18).max(when(text(attributes, "mode") == "wrap", 19)),
        "QuantizeLinear" => when(has(&["saturate"]), 19)
            .max(when(has(&["block_size", "output_dtype"]), 21))
            .max(when(has(&["precision"]), 23)),
        "Range" => when(has(&["stash_type"]), 27),
        "Reshape" => when(has(&["allowzero"]), 14),
        "Resize" => when(has(&["antialias", "axes", "keep_aspect_ratio_policy"]), 18)
            .max(when(text(attributes, "coordinate_transformation_mode") == "half_pixel_symmetric", 19)),
        "RoiAlign" => when(text(attributes, "coordinate_transformation_mode") != "output_half_pixel", 16),
        "ScatterElements" | "ScatterND" => match text(attributes, "reduction") {
            "" | "none" => OLDEST,
            "add" | "mul" => 16,
            _ => 18,
        },
        "Shape" => when(has(&["start", "end"]), 15),
        "SpaceToDepth" => when(has(&["mode"]), 28),
        "Split" => when(node.input(1).is_none() && !parts_are_equal(graph, node), 18),
        name if is_axes_reduction(name) => when(
            (node.input(1).is_some() && graph.constant_of(node, 1).is_none())
                || has(&["noop_with_empty_axes"]),
            18,
        ),
        _ => OLDEST,
    };
    match &node.op {
        Op::Unary(unary) => more.max(of_unary(unary)),
        _ => more.max(of_name(name)),
    }
}

/// Reductions whose axes were an attribute before opset 18.
pub(super) fn is_axes_reduction(name: &str) -> bool {
    name.starts_with("Reduce") && name != "ReduceSum"
}

/// True where the parts of a Split without sizes are equal, as they all were before opset 18, or may be.
fn parts_are_equal(graph: &Graph, node: &Node) -> bool {
    let attributes = node.op.attributes();
    let Some(shape) = node.input(0).and_then(|id| graph.ty(id).shape.clone()) else { return true };
    let axis = int(&attributes, "axis").unwrap_or(0);
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let extent = usize::try_from(axis).ok().and_then(|axis| shape.get(axis)).and_then(crate::dim::Dim::known);
    extent.is_none_or(|extent| extent % node.outputs().len().max(1) == 0)
}

/// True where the last window of a pooling that rounds up begins behind the data.
fn ends_in_padding(graph: &Graph, node: &Node, attributes: &Attributes) -> bool {
    if int(attributes, "ceil_mode").unwrap_or(0) == 0 {
        return false;
    }
    let Some(shape) = node.input(0).and_then(|id| graph.ty(id).shape.clone()) else { return false };
    let (kernel, pads) = (ints(attributes, "kernel_shape"), ints(attributes, "pads"));
    let (strides, dilations) = (ints(attributes, "strides"), ints(attributes, "dilations"));
    (0..kernel.len()).any(|i| {
        let Some(extent) = shape.get(i + 2).and_then(crate::dim::Dim::known_i64) else { return false };
        let at = |list: &[i64], index: usize, default: i64| list.get(index).copied().unwrap_or(default);
        let (begin, end) = (at(&pads, i, 0), at(&pads, i + kernel.len(), 0));
        let (stride, reach) =
            (at(&strides, i, 1).max(1), at(&dilations, i, 1).saturating_mul(kernel[i] - 1) + 1);
        let free = extent.saturating_add(begin).saturating_add(end).saturating_sub(reach);
        let last = (free + stride - 1).div_euclid(stride).saturating_mul(stride);
        last >= extent.saturating_add(begin)
    })
}

/// True where the parameters of a normalisation are of another type than the data.
fn mixed(graph: &Graph, node: &Node) -> bool {
    let types = node.inputs().iter().flatten().filter_map(|&id| graph.ty(id).dtype);
    let types: Vec<DType> = types.collect();
    types.iter().any(|dtype| *dtype != types[0])
}

/// What element types ask for, which operators learned to take one after the other.
fn by_types(graph: &Graph, node: &Node, name: &str) -> i64 {
    let values = node.inputs().iter().chain(node.outputs()).flatten();
    let first = node.input(0).and_then(|id| graph.ty(id).dtype);
    let asked = values.filter_map(|&id| graph.ty(id).dtype).map(|dtype| match dtype.onnx_code() {
        // bfloat16
        16 => with_bf16(name),
        // float8, and what holds four and two bits
        17..=20 => match name {
            "Flatten" | "Pad" | "Squeeze" | "Transpose" | "Unsqueeze" | "QLinearMatMul" => 21,
            "Dropout" => 22,
            _ => 19,
        },
        21 | 22 => 21,
        23 => 23,
        24 => 24,
        25 | 26 => 25,
        27.. => 28,
        _ => OLDEST,
    });
    let most = asked.max().unwrap_or(OLDEST);
    let is = |codes: &[i32]| first.is_some_and(|dtype| codes.contains(&dtype.onnx_code()));
    most.max(match name {
        // Integers of 8 and 16 bits.
        "Add" | "Sub" | "Mul" | "Div" if is(&[2, 3, 4, 5]) => 14,
        "Relu" if is(&[3, 5, 6, 7]) => 14,
        "BitShift" if is(&[3, 5, 6, 7]) => 28,
        "CumSum" if is(&[10]) => 14,
        "Equal" if is(&[8]) => 19,
        "ReduceMax" | "ReduceMin" if is(&[9]) => 20,
        "QuantizeLinear" if is(&[10]) => 19,
        "QuantizeLinear" if has_type(graph, node, 2, &[4, 5]) => 21,
        "DequantizeLinear" if is(&[4, 5]) => 21,
        "DequantizeLinear" if has_type(graph, node, 1, &[10]) => 19,
        "IsInf" if is(&[10, 16]) => 20,
        _ => OLDEST,
    })
}

fn has_type(graph: &Graph, node: &Node, index: usize, codes: &[i32]) -> bool {
    let dtype = node.input(index).and_then(|id| graph.ty(id).dtype);
    dtype.is_some_and(|dtype| codes.contains(&dtype.onnx_code()))
}

/// The first opset in which an operator takes bfloat16.
fn with_bf16(name: &str) -> i64 {
    match name {
        "BatchNormalization" | "CumSum" | "Identity" => 14,
        "Pow" => 15,
        "GreaterOrEqual" | "If" | "LeakyRelu" | "LessOrEqual" | "Loop" | "PRelu" | "Scan" | "Where" => 16,
        "DequantizeLinear" | "QuantizeLinear" => 19,
        "ConstantOfShape" | "IsInf" => 20,
        "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "AveragePool"
        | "Bernoulli"
        | "Conv"
        | "ConvTranspose"
        | "Cos"
        | "Cosh"
        | "DeformConv"
        | "Det"
        | "Elu"
        | "EyeLike"
        | "GRU"
        | "GlobalAveragePool"
        | "GlobalLpPool"
        | "GlobalMaxPool"
        | "GridSample"
        | "HardSigmoid"
        | "HardSwish"
        | "InstanceNormalization"
        | "LSTM"
        | "LpNormalization"
        | "LpPool"
        | "MaxPool"
        | "MaxUnpool"
        | "Mish"
        | "Multinomial"
        | "PhaseConv"
        | "RNN"
        | "RandomNormal"
        | "RandomNormalLike"
        | "RandomUniform"
        | "RandomUniformLike"
        | "RoiAlign"
        | "Round"
        | "Selu"
        | "Sin"
        | "Sinh"
        | "Softplus"
        | "Softsign"
        | "Tan"
        | "ThresholdedRelu" => 22,
        "SplitToSequence" | "TopK" => 24,
        "Range" => 27,
        "Celu" | "Compress" | "Einsum" | "OneHot" | "ReverseSequence" | "Unique" => 28,
        _ => OLDEST,
    }
}

fn int(attributes: &Attributes, name: &str) -> Option<i64> {
    match attributes.get(name) {
        Some(AttributeValue::Int(value)) => Some(*value),
        _ => None,
    }
}

fn ints(attributes: &Attributes, name: &str) -> Vec<i64> {
    match attributes.get(name) {
        Some(AttributeValue::Ints(values)) => values.clone(),
        _ => vec![],
    }
}

fn text<'a>(attributes: &'a Attributes, name: &str) -> &'a str {
    match attributes.get(name) {
        Some(AttributeValue::String(text)) => text,
        _ => "",
    }
}

/// Puts a node of opset 21 into the spelling of an older one, where that differs and [`since`] allows it: its attributes, and how
/// many of its inputs stay inputs.
pub(super) fn spell(graph: &Graph, node: &Node, opset: i64, attributes: &mut Attributes) -> usize {
    let name = node.op.name();
    let inputs = node.inputs().len();
    if opset < 18 && name == "Split" {
        attributes.take("num_outputs");
    }
    if opset < 20 && name == "GridSample" {
        match text(attributes, "mode") {
            "cubic" => attributes.set("mode", "bicubic"),
            "linear" => attributes.set("mode", "bilinear"),
            _ => {}
        }
    }
    if opset < 18
        && is_axes_reduction(name)
        && let Some(axes) = graph.constant_of(node, 1).and_then(|axes| axes.to_i64s().ok())
    {
        if !axes.is_empty() {
            attributes.set("axes", axes);
        }
        return 1;
    }
    inputs
}
