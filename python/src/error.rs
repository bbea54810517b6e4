//! Errors of the library as Python exceptions with fields.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(_native, TconvcError, PyException, "A model, an option or an array is at fault.");

/// An exception with the message of the error, and the node, operator and attribute it happened at, where there are any.
pub fn raise(error: &tconvc::Error) -> PyErr {
    Python::attach(|py| {
        let raised = TconvcError::new_err(error.to_string());
        let place = error.place();
        let value = raised.value(py);
        let fields = [("node", place.node), ("operator", place.operator), ("attribute", place.attribute)];
        for (name, field) in fields {
            if let Err(error) = value.setattr(name, field) {
                return error;
            }
        }
        raised
    })
}

/// An exception for what the caller got wrong.
pub fn refuse(message: impl Into<String>) -> PyErr {
    raise(&tconvc::Error::Arguments(message.into()))
}
