//! Elementwise operators and softmax where our spelling is not ONNX's.

use super::chain::{Chain, attribute};
use crate::attributes::{AttributeValue, Attributes};
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::ops::{Operator, Unary};
use crate::tensor::Tensor;

/// An elementwise operator of one input, alone.
pub(super) fn unary(mut chain: Chain<'_, '_>, op: Unary) -> Result<()> {
    let dtype = chain.ty(0).dtype;
    apply(&mut chain, op, dtype.unwrap_or(DType::F32), true)?;
    chain.end();
    Ok(())
}

/// Adds the steps of an operator on the value so far, whose elements are of that type.
pub(super) fn apply(chain: &mut Chain<'_, '_>, op: Unary, dtype: DType, main: bool) -> Result<()> {
    let (op_type, attributes, further) = match op {
        Unary::Clamp { min, max } => {
            let bounds = [bound(chain, "min", min, dtype)?, bound(chain, "max", max, dtype)?];
            ("Clip", Attributes::new(), bounds.to_vec())
        }
        Unary::GeluTanh => ("Gelu", attribute("approximate", "tanh"), vec![]),
        // ONNX has it since opset 24.
        Unary::Swish { alpha } => {
            let x = chain.value();
            if alpha != 1.0 {
                let alpha = chain.constant("alpha", &scalar(f64::from(alpha), dtype)?);
                chain.then("Mul", Attributes::new(), &[alpha]);
            }
            chain.then("Sigmoid", Attributes::new(), &[]);
            ("Mul", Attributes::new(), vec![x])
        }
        other => (other.name(), Operator::attributes(&other), vec![]),
    };
    let further = &further[..further.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)];
    if main {
        chain.main(op_type, attributes, further);
    } else {
        chain.then(op_type, attributes, further);
    }
    Ok(())
}

/// A bound of `Clip`, as an input; nothing where there is none.
fn bound(chain: &mut Chain<'_, '_>, name: &str, value: f32, dtype: DType) -> Result<String> {
    if value.is_infinite() && (value < 0.0) == (name == "min") {
        return Ok(String::new());
    }
    // Integers between the bounds are those between the bounds rounded inwards.
    let value = f64::from(value);
    let value = if dtype.is_float() {
        value
    } else if name == "min" {
        value.ceil()
    } else {
        value.floor()
    };
    Ok(chain.constant(name, &scalar(value, dtype)?))
}

fn scalar(value: f64, dtype: DType) -> Result<Tensor> {
    dispatch_numeric!(dtype, T => Ok(Tensor::scalar(T::from_f64(value))))
}

/// A softmax over all axes from one on is one over the last axis of a matrix.
pub(super) fn softmax(mut chain: Chain<'_, '_>, op_type: &'static str, mut attributes: Attributes) {
    let flatten = attributes.take("flatten").is_some();
    let axis = match attributes.get("axis") {
        Some(&AttributeValue::Int(axis)) => axis,
        _ => i64::from(flatten) * 2 - 1,
    };
    let ty = chain.ty(0);
    let last = axis == -1 || ty.rank().is_some_and(|rank| axis == rank as i64 - 1);
    if !flatten {
        chain.main(op_type, attributes, &[]);
    } else if last {
        chain.main(op_type, Attributes::new(), &[]);
    } else {
        let x = chain.value();
        let shape = chain.aside("Shape", Attributes::new(), &[x]);
        chain.then("Flatten", attribute("axis", axis), &[]);
        chain.main(op_type, Attributes::new(), &[]);
        chain.then("Reshape", Attributes::new(), &[shape]);
    }
    chain.end();
}
