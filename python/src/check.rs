//! What a model computes by the definitions of its operators, and how far a result is from it.

use crate::arrays::{Input, array_of};
use crate::error::{raise, refuse};
use crate::fork::detach;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tconvc::{DType, Tensor, Tolerance, compare};

/// Name and array of each output.
type Named<'py> = Vec<(String, Bound<'py, PyAny>)>;

/// Runs the definitions of a model's operators.
pub fn interpret<'py>(model: &tconvc::Model, inputs: &Bound<'py, PyDict>) -> PyResult<Named<'py>> {
    let py = inputs.py();
    let inputs = read(inputs)?;
    let views = inputs.iter().map(Input::view).collect::<PyResult<Vec<_>>>()?;
    let outputs = detach(py, || model.interpret(views)).map_err(|error| raise(&error))?;
    outputs.iter().map(|(name, tensor)| Ok((name.to_owned(), array_of(py, tensor)?))).collect()
}

/// Compares an output with what is expected of it, as `tconvc verify` does: the largest difference, or what is wrong.
pub fn differs<'py>(
    model: &tconvc::Model,
    name: &Bound<'py, PyString>,
    found: &Bound<'py, PyAny>,
    expected: &Bound<'py, PyAny>,
) -> PyResult<(Option<f64>, Option<String>)> {
    let [found, expected] =
        [Input::new(name.clone(), found)?, Input::new(name.clone(), expected)?].map(|input| {
            let tensor = input.view()?.1.to_tensor();
            tensor.map_err(|error| raise(&error.into()))
        });
    let tolerance = model.tolerance(name.to_str()?, Tolerance::NETWORK);
    Ok(match compare(&found?, &expected?, tolerance) {
        Ok(agreement) => (Some(agreement.largest), None),
        Err(problem) => (None, Some(problem)),
    })
}

/// Random elements, the same for the same seed.
pub fn seeded<'py>(
    py: Python<'py>,
    dtype: &str,
    shape: Vec<usize>,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let dtype = DType::from_name(dtype).ok_or_else(|| refuse(format!("`{dtype}` is no element type")))?;
    let tensor = Tensor::seeded(dtype, shape, seed).map_err(|error| raise(&error.into()))?;
    array_of(py, &tensor)
}

fn read<'py>(inputs: &Bound<'py, PyDict>) -> PyResult<Vec<Input<'py>>> {
    let read = inputs.iter().map(|(name, value)| {
        let name = name.cast_into::<PyString>().map_err(|_| refuse("names of inputs are strings"))?;
        Input::new(name, &value)
    });
    read.collect()
}
