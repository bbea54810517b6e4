//! The native half of the Python package: models, compiled models and sessions over NumPy's arrays. What other arrays there are,
//! how things print, and whose interface is imitated is the business of the Python half.

mod arrays;
mod check;
mod command;
mod compiled;
mod error;
mod fork;
mod model;
mod threads;
mod tune;

use pyo3::prelude::*;

/// The version of the package.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Processors that this process may use, within the quota of its control group.
#[pyfunction]
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Nothing here relies on the interpreter's lock: what changes is behind locks of its own.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", VERSION)?;
    module.add_function(wrap_pyfunction!(available_threads, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::address_read, module)?)?;
    module.add_function(wrap_pyfunction!(command::command, module)?)?;
    module.add_function(wrap_pyfunction!(fork::before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(fork::after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(fork::after_fork_in_child, module)?)?;
    module.add_class::<model::Model>()?;
    module.add_class::<compiled::Compiled>()?;
    module.add_class::<compiled::Session>()?;
    module.add_class::<tune::Tuning>()?;
    Ok(())
}
