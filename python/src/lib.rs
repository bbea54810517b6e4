//! The native half of the Python package: models, compiled models and sessions over plain bytes. Arrays, names and types are
//! the business of the Python half, which hands down each array as its bytes, its shape and the name of its element type.

mod arrays;
mod compiled;
mod error;
mod model;
mod threads;

use pyo3::prelude::*;

/// The version of the package.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Processors that this process may use, within the quota of its control group.
#[pyfunction]
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// For the child of a fork to call, before anything else.
#[pyfunction]
fn count_fork() {
    threads::count_fork();
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", VERSION)?;
    module.add("TconvcError", module.py().get_type::<error::TconvcError>())?;
    module.add_function(wrap_pyfunction!(available_threads, module)?)?;
    module.add_function(wrap_pyfunction!(count_fork, module)?)?;
    module.add_class::<model::Model>()?;
    module.add_class::<compiled::Compiled>()?;
    module.add_class::<compiled::Session>()?;
    Ok(())
}
