//! Errors of the library as Python exceptions with fields.

use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(tconvc._errors, TconvcError);
import_exception!(tconvc._errors, ArgumentError);

/// An exception with the message of the error, and the node, operator and attribute it happened at, where there are any.
pub fn raise(error: &tconvc::Error) -> PyErr {
    Python::attach(|py| {
        let message = error.to_string();
        let raised = match error {
            tconvc::Error::Arguments(_) => ArgumentError::new_err(message),
            _ => TconvcError::new_err(message),
        };
        let place = error.place();
        let value = raised.value(py);
        let fields = [("node", place.node), ("operator", place.operator), ("attribute", place.attribute)];
        for (name, field) in fields {
            if let Some(field) = field
                && let Err(error) = value.setattr(name, field)
            {
                return error;
            }
        }
        raised
    })
}

/// An exception for what the caller got wrong.
pub fn refuse(message: impl Into<String>) -> PyErr {
    ArgumentError::new_err(message.into())
}
