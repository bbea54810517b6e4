//! Convolutions with what follows them, with channels last, and with pads that are an input.

use super::Lowering;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::ValueId;

const CONVOLUTION: [&str; 6] = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// Takes attributes of these names out.
pub(super) fn take(lower: &mut Lowering<'_, '_>, names: &[&str]) -> Attributes {
    let mut taken = Attributes::new();
    for name in names {
        if let Some(value) = lower.lift.node.attributes.take(name) {
            taken.set(name, value);
        }
    }
    taken
}

/// An activation by its name and parameters, as the last node; nothing is `Identity`.
pub(super) fn finish_activation(lower: &mut Lowering<'_, '_>, value: ValueId) -> Result<()> {
    let name = lower.lift.node.attributes.string("activation")?.unwrap_or_default();
    let parameters = lower.lift.node.attributes.floats("activation_params")?.unwrap_or_default();
    let parameter = |index: usize, default: f32| parameters.get(index).copied().unwrap_or(default);
    let attributes = match name.as_str() {
        "" => return lower.finish("Identity", Attributes::new(), &[Some(value)]),
        "Relu" | "Tanh" | "Sigmoid" | "HardSwish" | "Gelu" => Attributes::new(),
        "LeakyRelu" => Attributes::new().with("alpha", parameter(0, 0.01)),
        "HardSigmoid" => Attributes::new().with("alpha", parameter(0, 0.2)).with("beta", parameter(1, 0.5)),
        "Clip" => {
            let attributes = Attributes::new()
                .with("min", parameter(0, f32::NEG_INFINITY))
                .with("max", parameter(1, f32::INFINITY));
            return lower.finish("Clamp", attributes, &[Some(value)]);
        }
        other => {
            return Err(Error::Unsupported(format!(
                "attribute `activation`: `{other}`; accepted are Relu, LeakyRelu, Tanh, Sigmoid, Clip, HardSigmoid, \
                 HardSwish, Gelu"
            )));
        }
    };
    lower.finish(&name, attributes, &[Some(value)])
}

/// A convolution, then the sum with Z, then an activation.
pub(super) fn fused_conv(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(4)?;
    let attributes = take(lower, &CONVOLUTION);
    let inputs = [lower.required(0, "X").map(Some)?, lower.required(1, "W").map(Some)?, lower.input(2)];
    let conv = lower.emit("Conv", attributes, &inputs)?;
    let sum = lower.plus(conv, lower.input(3))?;
    finish_activation(lower, sum)
}

const TO_FIRST: [i64; 4] = [0, 3, 1, 2];
const TO_LAST: [i64; 4] = [0, 2, 3, 1];

/// As [`fused_conv`], with channels last.
pub(super) fn nhwc_conv(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(4)?;
    let attributes = take(lower, &CONVOLUTION);
    let x = lower.required(0, "X")?;
    let x = lower.transpose(x, TO_FIRST.to_vec())?;
    let weights = lower.required(1, "W")?;
    let conv = lower.emit("Conv", attributes, &[Some(x), Some(weights), lower.input(2)])?;
    let last = lower.transpose(conv, TO_LAST.to_vec())?;
    let sum = lower.plus(last, lower.input(3))?;
    finish_activation(lower, sum)
}

pub(super) fn nhwc_max_pool(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let attributes = take(lower, &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"]);
    let x = lower.required(0, "x")?;
    let x = lower.transpose(x, TO_FIRST.to_vec())?;
    let pooled = lower.emit("MaxPool", attributes, &[Some(x)])?;
    lower.finish("Transpose", Attributes::new().with("perm", TO_LAST.to_vec()), &[Some(pooled)])
}

/// Pads that are an input, which has to be constant.
pub(super) fn transpose_with_pads(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let mut attributes = take(
        lower,
        &["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "strides"],
    );
    if lower.input(2).is_some() {
        attributes.set("pads", lower.constant_input(2, "Pads")?.to_i64s()?);
    }
    let (x, w) = (lower.required(0, "X")?, lower.required(1, "W")?);
    let bias = lower.input(3);
    lower.finish("ConvTranspose", attributes, &[Some(x), Some(w), bias])
}
