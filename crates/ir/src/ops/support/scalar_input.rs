//! Inputs that hold one number: lengths, steps, axes.

use crate::error::{Error, Result};
use crate::ops::InputInfo;
use crate::tensor::Tensor;

/// The only number of an integer tensor.
pub(in crate::ops) fn one_i64(tensor: &Tensor, index: usize, name: &'static str) -> Result<i64> {
    let values = tensor.to_i64s().map_err(|error| Error::input(index, name, error.to_string()))?;
    match values.as_slice() {
        &[value] => Ok(value),
        values => Err(Error::input(index, name, format!("expected one number, found {}", values.len()))),
    }
}

/// The only number of a tensor of any number type.
pub(in crate::ops) fn one_f64(tensor: &Tensor, index: usize, name: &'static str) -> Result<f64> {
    let values = tensor.to_f64s().map_err(|error| Error::input(index, name, error.to_string()))?;
    match values.as_slice() {
        &[value] => Ok(value),
        values => Err(Error::input(index, name, format!("expected one number, found {}", values.len()))),
    }
}

/// The only number of an integer input, when it is known.
pub(in crate::ops) fn known_one(
    input: Option<InputInfo<'_>>,
    index: usize,
    name: &'static str,
) -> Result<Option<i64>> {
    let Some(input) = input else { return Ok(None) };
    if let Some(tensor) = input.constant {
        return one_i64(tensor, index, name).map(Some);
    }
    match input.extents {
        Some([extent]) => Ok(extent.known_i64()),
        _ => Ok(None),
    }
}

/// A length of at least `least` that an input states.
pub(in crate::ops) fn length(value: i64, least: i64, index: usize, name: &'static str) -> Result<usize> {
    usize::try_from(value)
        .ok()
        .filter(|_| value >= least && value <= i64::from(i32::MAX))
        .ok_or_else(|| Error::input(index, name, format!("expected {least} to {}, found {value}", i32::MAX)))
}
