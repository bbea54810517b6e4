//! Operators on quantised tensors: the operator on real numbers between `DequantizeLinear` and `QuantizeLinear`, which the
//! compiler joins again where it computes in integers.

use super::Lowering;
use super::convolution::take;
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::ValueId;

fn none() -> Attributes {
    Attributes::new()
}

/// The real numbers of the quantised input at `index`, whose scale and zero point follow.
fn real(lower: &mut Lowering<'_, '_>, index: usize, name: &'static str) -> Result<ValueId> {
    let (x, scale) = (lower.required(index, name)?, lower.required(index + 1, "scale")?);
    lower.emit("DequantizeLinear", none(), &[Some(x), Some(scale), lower.input(index + 2)])
}

/// The last node: quantised with the scale at `index` and the zero point behind it, to the type of the first input where that
/// is absent.
fn finish(lower: &mut Lowering<'_, '_>, value: ValueId, index: usize) -> Result<()> {
    let scale = lower.required(index, "scale of the result")?;
    let zero_point = lower.input(index + 1);
    let mut attributes = none();
    if zero_point.is_none() {
        let first = lower.required(0, "A")?;
        attributes.set("output_dtype", lower.dtype(first)?);
    }
    lower.finish("QuantizeLinear", attributes, &[Some(value), Some(scale), zero_point])
}

fn binary(lower: &mut Lowering<'_, '_>, op_type: &str) -> Result<()> {
    let (a, b) = (real(lower, 0, "A")?, real(lower, 3, "B")?);
    let result = lower.emit(op_type, none(), &[Some(a), Some(b)])?;
    finish(lower, result, 6)
}

pub(super) fn add(lower: &mut Lowering<'_, '_>) -> Result<()> {
    binary(lower, "Add")
}

pub(super) fn mul(lower: &mut Lowering<'_, '_>) -> Result<()> {
    binary(lower, "Mul")
}

fn unary(lower: &mut Lowering<'_, '_>, op_type: &str, attributes: Attributes) -> Result<()> {
    let x = real(lower, 0, "X")?;
    let result = lower.emit(op_type, attributes, &[Some(x)])?;
    finish(lower, result, 3)
}

pub(super) fn leaky_relu(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let alpha = lower.float("alpha", 0.01)?;
    unary(lower, "LeakyRelu", none().with("alpha", alpha))
}

pub(super) fn sigmoid(lower: &mut Lowering<'_, '_>) -> Result<()> {
    unary(lower, "Sigmoid", none())
}

/// Since opset 13 along one axis; before that, over all axes from one on, which `opset` tells.
pub(super) fn softmax(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let opset = lower.int("opset", 13)?;
    let mut attributes = none();
    if let Some(axis) = lower.lift.node.attributes.int("axis")? {
        attributes.set("axis", axis);
    }
    if opset < 13 {
        if !attributes.contains("axis") {
            attributes.set("axis", 1);
        }
        attributes.set("flatten", true);
    }
    unary(lower, "Softmax", attributes)
}

/// The result and its scale come first, then three inputs for each part.
pub(super) fn concat(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let axis = lower.lift.node.attributes.int("axis")?;
    let axis = axis.ok_or_else(|| Error::attribute("axis", "is required"))?;
    let count = lower.lift.node.inputs.len();
    let mut parts = vec![];
    for index in (2..count).step_by(3) {
        parts.push(Some(real(lower, index, "X")?));
    }
    let whole = lower.emit("Concat", none().with("axis", axis), &parts)?;
    let (scale, zero_point) = (lower.required(0, "Y_scale")?, lower.required(1, "Y_zero_point")?);
    lower.finish("QuantizeLinear", none(), &[Some(whole), Some(scale), Some(zero_point)])
}

/// A pooling over channels first or last.
fn pool(lower: &mut Lowering<'_, '_>, op_type: &str, attributes: Attributes) -> Result<()> {
    let last = lower.flag("channels_last")?;
    let mut x = real(lower, 0, "X")?;
    let rank = lower.rank(x)? as i64;
    if last {
        let perm = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        x = lower.transpose(x, perm)?;
    }
    let mut result = lower.emit(op_type, attributes, &[Some(x)])?;
    if last {
        let perm = [0].into_iter().chain(2..rank).chain([1]).collect();
        result = lower.transpose(result, perm)?;
    }
    finish(lower, result, 3)
}

pub(super) fn average_pool(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let names =
        ["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"];
    let attributes = take(lower, &names);
    pool(lower, "AveragePool", attributes)
}

pub(super) fn global_average_pool(lower: &mut Lowering<'_, '_>) -> Result<()> {
    pool(lower, "GlobalAveragePool", none())
}

/// ONNX's own, perhaps with channels last.
pub(super) fn conv(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let last = lower.flag("channels_last")?;
    let attributes = take(lower, &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"]);
    let mut inputs = lower.lift.node.inputs.clone();
    if !last {
        return lower.finish("QLinearConv", attributes, &inputs);
    }
    let x = lower.required(0, "x")?;
    let rank = lower.rank(x)? as i64;
    inputs[0] = Some(lower.transpose(x, [0, rank - 1].into_iter().chain(1..rank - 1).collect())?);
    let result = lower.emit("QLinearConv", attributes, &inputs)?;
    let perm: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
    lower.finish("Transpose", none().with("perm", perm), &[Some(result)])
}

/// `A, B` and their scales and zero points, a bias of 32 bits, the scale of the result. Without the latter the result is real.
pub(super) fn gemm(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let alpha = lower.float("alpha", 1.0)?;
    let [a_turned, b_turned] = [lower.flag("transA")?, lower.flag("transB")?];
    let a = real(lower, 0, "A")?;
    let (b, b_scale) = (lower.required(3, "B")?, lower.required(4, "b_scale")?);
    let along = none().with("axis", i64::from(!b_turned));
    let b = lower.emit("DequantizeLinear", along, &[Some(b), Some(b_scale), lower.input(5)])?;
    let bias = match lower.input(6) {
        None => None,
        Some(bias) => {
            // Its scale is that of the product.
            let a_scale = lower.required(1, "a_scale")?;
            let scale = lower.emit("Mul", none(), &[Some(a_scale), Some(b_scale)])?;
            let bias = lower.emit("Cast", none().with("to", DType::F32), &[Some(bias)])?;
            Some(lower.emit("Mul", none(), &[Some(bias), Some(scale)])?)
        }
    };
    let attributes =
        none().with("alpha", alpha).with("beta", alpha).with("transA", a_turned).with("transB", b_turned);
    if lower.input(7).is_none() {
        return lower.finish("Gemm", attributes, &[Some(a), Some(b), bias]);
    }
    let result = lower.emit("Gemm", attributes, &[Some(a), Some(b), bias])?;
    finish(lower, result, 7)
}

/// The product of integers as real numbers, with a bias.
fn scaled_product(
    lower: &mut Lowering<'_, '_>,
    a: [ValueId; 2],
    b: [ValueId; 2],
    zero_points: [Option<ValueId>; 2],
    bias: Option<ValueId>,
) -> Result<()> {
    let inputs = [Some(a[0]), Some(b[0]), zero_points[0], zero_points[1]];
    let product = lower.emit("MatMulInteger", none(), &inputs)?;
    let scale = lower.emit("Mul", none(), &[Some(a[1]), Some(b[1])])?;
    let real = lower.emit("Cast", none().with("to", lower.dtype(scale)?), &[Some(product)])?;
    match bias {
        None => lower.finish("Mul", none(), &[Some(real), Some(scale)]),
        Some(bias) => {
            let real = lower.emit("Mul", none(), &[Some(real), Some(scale)])?;
            lower.finish("Add", none(), &[Some(real), Some(bias)])
        }
    }
}

/// `A, B, a_scale, b_scale, a_zero_point?, b_zero_point?, bias?`.
pub(super) fn matmul_integer(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let (a, b) = (lower.required(0, "A")?, lower.required(1, "B")?);
    let (a_scale, b_scale) = (lower.required(2, "a_scale")?, lower.required(3, "b_scale")?);
    let (zero_points, bias) = ([lower.input(4), lower.input(5)], lower.input(6));
    scaled_product(lower, [a, a_scale], [b, b_scale], zero_points, bias)
}

/// `A` real, `B, b_scale, b_zero_point?, bias?`: A is quantised to its own range.
pub(super) fn dynamic_matmul(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let (a, b) = (lower.required(0, "A")?, lower.required(1, "B")?);
    let b_scale = lower.required(2, "b_scale")?;
    let quantised = lower.emit_many("DynamicQuantizeLinear", none(), &[Some(a)], 3)?;
    let (zero_points, bias) = ([Some(quantised[2]), lower.input(3)], lower.input(4));
    scaled_product(lower, [quantised[0], quantised[1]], [b, b_scale], zero_points, bias)
}

/// Weights are real numbers again, and data stay so: the runtime quantises data to their range at each step, which loses what
/// is kept here.
pub(super) fn dynamic_lstm(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let names = [
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "hidden_size",
        "input_forget",
    ];
    let attributes = take(lower, &names);
    let x = lower.required(0, "X")?;
    let mut table = |index: usize, scale: usize, name: &'static str| {
        let (w, factor) = (lower.required(index, name)?, lower.required(scale, "scale")?);
        let zero_point = lower.input(scale + 1);
        // A scale for each direction and, perhaps, each column.
        let mut parts = vec![];
        for value in [Some(factor), zero_point] {
            parts.push(match value {
                None => None,
                Some(value) => {
                    let axis = lower.ints("axis", &[1]);
                    let shaped = lower.emit("Unsqueeze", none(), &[Some(value), Some(axis)])?;
                    Some(if lower.rank(value)? == 1 {
                        let axis = lower.ints("axis", &[2]);
                        lower.emit("Unsqueeze", none(), &[Some(shaped), Some(axis)])?
                    } else {
                        shaped
                    })
                }
            });
        }
        let to = none().with("to", DType::F32);
        let mut real = lower.emit("Cast", to.clone(), &[Some(w)])?;
        if let Some(zero_point) = parts[1] {
            let zero_point = lower.emit("Cast", to, &[Some(zero_point)])?;
            real = lower.emit("Sub", none(), &[Some(real), Some(zero_point)])?;
        }
        let real = lower.emit("Mul", none(), &[Some(real), parts[0]])?;
        // [directions, inputs, 4 * hidden] here.
        lower.transpose(real, vec![0, 2, 1])
    };
    let (w, r) = (table(1, 8, "W")?, table(2, 10, "R")?);
    let rest = (3..8).map(|index| lower.input(index)).collect::<Vec<_>>();
    let inputs = [&[Some(x), Some(w), Some(r)], rest.as_slice()].concat();
    lower.finish("LSTM", attributes, &inputs)
}
