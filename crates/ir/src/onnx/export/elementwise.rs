//! Elementwise operators and softmax where our spelling is not ONNX's.

use super::chain::{Chain, attribute};
use super::since::of_name;
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
        Unary::HardSwish | Unary::Mish | Unary::Gelu | Unary::GeluTanh
            if chain.opset() < of_name(op.name()) =>
        {
            return spelled_out(chain, op, dtype, main);
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
        Unary::FakeQuantize { scale, low, high } => {
            let scale = chain.constant("scale", &scalar(f64::from(scale), dtype)?);
            chain.then("Div", Attributes::new(), std::slice::from_ref(&scale));
            chain.then("Round", Attributes::new(), &[]);
            let bounds = [bound(chain, "low", low, dtype)?, bound(chain, "high", high, dtype)?];
            chain.then("Clip", Attributes::new(), &bounds);
            ("Mul", Attributes::new(), vec![scale])
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

/// In the words of opsets that do not have the operator, as exporters spell it there.
fn spelled_out(chain: &mut Chain<'_, '_>, op: Unary, dtype: DType, main: bool) -> Result<()> {
    let x = chain.value();
    let number = |chain: &mut Chain<'_, '_>, what: &str, value: f64| -> Result<String> {
        Ok(chain.constant(what, &scalar(value, dtype)?))
    };
    match op {
        Unary::HardSwish => {
            let steps = attribute("alpha", 1.0f32 / 6.0).with("beta", 0.5f32);
            chain.then("HardSigmoid", steps, &[]);
        }
        Unary::Mish => {
            chain.then("Softplus", Attributes::new(), &[]);
            chain.then("Tanh", Attributes::new(), &[]);
        }
        _ => {
            // The argument of erf or tanh; half of one more than that is the factor.
            if op == Unary::Gelu {
                let root = number(chain, "root", std::f64::consts::FRAC_1_SQRT_2)?;
                chain.then("Mul", Attributes::new(), &[root]);
                chain.then("Erf", Attributes::new(), &[]);
            } else {
                let (cubic, root) = (0.044_715, (2.0 / std::f64::consts::PI).sqrt());
                chain.then("Mul", Attributes::new(), std::slice::from_ref(&x));
                let cubic = number(chain, "cubic", cubic)?;
                chain.then("Mul", Attributes::new(), &[cubic]);
                let one = number(chain, "one", 1.0)?;
                chain.then("Add", Attributes::new(), &[one]);
                chain.then("Mul", Attributes::new(), std::slice::from_ref(&x));
                let root = number(chain, "root", root)?;
                chain.then("Mul", Attributes::new(), &[root]);
                chain.then("Tanh", Attributes::new(), &[]);
            }
            let one = number(chain, "one", 1.0)?;
            chain.then("Add", Attributes::new(), &[one]);
            let half = number(chain, "half", 0.5)?;
            chain.then("Mul", Attributes::new(), &[half]);
        }
    }
    if main {
        chain.main("Mul", Attributes::new(), &[x]);
    } else {
        chain.then("Mul", Attributes::new(), &[x]);
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
