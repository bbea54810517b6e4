//! Spellings of opset 21 that this program writes differently: one way for each thing.

use super::lift::Lift;
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Names of operators of our own, which no file may use.
const OWN: &[&str] = &[
    "Clamp",
    "GeluTanh",
    "FakeQuantize",
    "ZeroInsert",
    "PhaseConv",
    "Interleave",
    "ColumnGemm",
    "OverlapAdd",
];

/// Attributes of our own.
const OWN_ATTRIBUTES: &[&str] = &["epilogue", "exact", "flatten"];

/// Refuses what only looks like an operator of ours.
pub(super) fn check_foreign(op_type: &str, attributes: &Attributes) -> Result<()> {
    if OWN.contains(&op_type) {
        return Err(Error::Unsupported(format!("operator `{op_type}`, which ONNX does not have")));
    }
    match OWN_ATTRIBUTES.iter().find(|name| attributes.contains(name)) {
        Some(name) => Err(Error::attribute(*name, "is not known to ONNX")),
        None => Ok(()),
    }
}

/// Brings a node of opset 21 into our form.
pub(super) fn normalise(lift: &mut Lift<'_>) -> Result<()> {
    match lift.node.op_type.as_str() {
        "Clip" => clip(lift),
        "Gelu" => gelu(lift),
        "Resize" => {
            resize(lift);
            Ok(())
        }
        "SwiGLU" => swiglu(lift),
        // ONNX Runtime has it in ONNX's own domain.
        "SimplifiedLayerNormalization" => {
            "RMSNormalization".clone_into(&mut lift.node.op_type);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A gate by its own sigmoid, times the other half (opset 28).
fn swiglu(lift: &mut Lift<'_>) -> Result<()> {
    let mut attributes = Attributes::new();
    if let Some(alpha) = lift.node.attributes.float("alpha")? {
        attributes.set("alpha", alpha);
    }
    let gate = lift.emit("Swish", attributes, &[lift.input(0)])?;
    "Mul".clone_into(&mut lift.node.op_type);
    lift.set_input(0, Some(gate));
    Ok(())
}

/// Clip with constant bounds is `Clamp`.
fn clip(lift: &mut Lift<'_>) -> Result<()> {
    let mut bounds = [f32::NEG_INFINITY, f32::INFINITY];
    for (index, bound) in bounds.iter_mut().enumerate() {
        if lift.input(index + 1).is_none() {
            continue;
        }
        match lift.constant_input(index + 1) {
            Some(tensor) if tensor.len() == 1 && matches!(tensor.dtype(), DType::F32 | DType::F16) => {
                *bound = tensor.to_f64s()?[0] as f32;
            }
            _ => return Ok(()),
        }
    }
    let [min, max] = bounds;
    if !min.is_nan() && !max.is_nan() {
        "Clamp".clone_into(&mut lift.node.op_type);
        lift.node.inputs.truncate(1);
        lift.node.attributes.set("min", min);
        lift.node.attributes.set("max", max);
    }
    Ok(())
}

/// Its two approximations are two operators.
fn gelu(lift: &mut Lift<'_>) -> Result<()> {
    match lift.node.attributes.string("approximate")?.as_deref() {
        None | Some("none") => Ok(()),
        Some("tanh") => {
            "GeluTanh".clone_into(&mut lift.node.op_type);
            Ok(())
        }
        Some(other) => Err(Error::attribute("approximate", format!("`{other}` is not one of none, tanh"))),
    }
}

/// Exporters give empty tensors for inputs that are absent.
fn resize(lift: &mut Lift<'_>) {
    for index in 1..lift.node.inputs.len() {
        let default = lift.input(index).and_then(|id| lift.graph.default_of(id));
        if lift.constant_input(index).or(default).is_some_and(Tensor::is_empty) {
            lift.set_input(index, None);
        }
    }
}
