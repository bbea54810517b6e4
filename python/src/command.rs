//! The command `tconvc`, which comes with the package.

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs the command with these arguments, its own name first; gives the exit status.
#[pyfunction]
pub fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| tconvc_cli::run(arguments))
}
