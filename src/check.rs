//! Comparing results: with the reference interpreter's, or with stored ones.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::{Outputs, Tensor};
use tconvc_ir::{DType, TensorView, interp};

/// How far a float may be from the expected one. Integers and booleans must be equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Share of the expected value.
    pub relative: f64,
    /// A number of its own.
    pub absolute: f64,
    /// Share of the largest expected magnitude of the whole output.
    pub of_maximum: f64,
}

impl Tolerance {
    /// For whole networks: 1e-3 of the value and 2e-4 of the output's maximum.
    pub const NETWORK: Self = Self { relative: 1e-3, absolute: 0.0, of_maximum: 2e-4 };
    /// ONNX's own for its backend tests.
    pub const BACKEND: Self = Self { relative: 1e-3, absolute: 1e-7, of_maximum: 0.0 };
}

/// Compares a result with what is expected; gives the largest absolute difference.
///
/// # Errors
/// Says how they differ: in type, in shape, or at which element by how much.
pub fn compare(got: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<f64, String> {
    if got.dtype() != expected.dtype() || got.shape() != expected.shape() {
        return Err(format!(
            "{}{:?} is expected, {}{:?} came out",
            expected.dtype(),
            expected.shape(),
            got.dtype(),
            got.shape()
        ));
    }
    if !expected.dtype().is_float() && expected.dtype() != DType::Bool && !expected.dtype().is_integer() {
        return if got == expected { Ok(0.0) } else { Err("the bytes differ".into()) };
    }
    let exact = !expected.dtype().is_float();
    let (a, b) = (got.to_f64s().map_err(|e| e.to_string())?, expected.to_f64s().map_err(|e| e.to_string())?);
    let maximum = b.iter().filter(|value| value.is_finite()).fold(0f64, |top, value| top.max(value.abs()));
    let mut largest = 0f64;
    for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
        let allowed = if exact {
            0.0
        } else {
            tolerance.relative * b.abs() + tolerance.absolute + tolerance.of_maximum * maximum
        };
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed;
        if !same {
            return Err(format!("element {i} is {a}, expected is {b} (allowed difference {allowed:.3e})"));
        }
        if a.is_finite() && b.is_finite() {
            largest = largest.max((a - b).abs());
        }
    }
    Ok(largest)
}

impl Model {
    /// Runs the model by the definitions of its operators: exact and slow, for checking.
    ///
    /// # Errors
    /// When inputs are missing or do not fit, or an operator is not known.
    pub fn interpret<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    ) -> Result<Outputs> {
        let inputs: Vec<(&str, Tensor)> = inputs
            .into_iter()
            .map(|(name, view)| {
                Ok((
                    name,
                    Tensor::from_shared(
                        view.dtype(),
                        view.shape().to_vec(),
                        std::sync::Arc::new(view.bytes().to_vec()),
                        0,
                    )?,
                ))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Outputs::new(interp::run(self.graph(), &inputs)?))
    }
}
