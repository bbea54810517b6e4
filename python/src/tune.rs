//! Measuring forms and schedules, with progress, and with Python's signals heeded: `KeyboardInterrupt` ends it.

use crate::error::{raise, refuse};
use crate::fork::{attach, detach};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tconvc::{Compiler, Error};

/// What was measured.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Tuning(Mutex<tconvc::Tuning>);

impl Tuning {
    fn lock(&self) -> MutexGuard<'_, tconvc::Tuning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub fn known(&self) -> tconvc::Tuning {
        self.lock().clone()
    }
}

#[pymethods]
impl Tuning {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(tconvc::Tuning::new()))
    }

    #[staticmethod]
    fn read(path: PathBuf) -> PyResult<Self> {
        tconvc::Tuning::read(path).map(|known| Self(Mutex::new(known))).map_err(|error| raise(&error))
    }

    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let known = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        Ok(Self(Mutex::new(known)))
    }

    fn to_json(&self) -> PyResult<String> {
        serde_json::to_string(&*self.lock()).map_err(|error| refuse(error.to_string()))
    }

    fn write(&self, path: PathBuf) -> PyResult<()> {
        self.known().write(path).map_err(|error| raise(&error))
    }

    fn count(&self) -> usize {
        self.lock().len()
    }
}

/// Runs the handlers of signals that have come.
fn heed_signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}

/// Measures what `tuning` does not know yet, and adds it, also what was found before an error. `observe` is called with the number
/// of layers done, that of all, and the name of the next.
pub fn tune(
    py: Python<'_>,
    model: &tconvc::Model,
    compiler: &Compiler,
    tuning: &Tuning,
    observe: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut known = tuning.known();
    let observe = observe.clone().unbind();
    // What Python raised: of a signal's handler, or of `observe`.
    let raised = Mutex::new(None);
    let keep = |result: PyResult<()>| {
        let mut raised = raised.lock().unwrap_or_else(PoisonError::into_inner);
        *raised = raised.take().or(result.err());
        raised.is_none()
    };
    let result = detach(py, || {
        compiler.tune_while(
            model,
            &mut known,
            |progress| {
                let told = (progress.done, progress.layers, &progress.layer);
                keep(attach(|py| observe.call1(py, told).map(drop)));
            },
            || keep(attach(heed_signals)),
        )
    });
    *tuning.lock() = known;
    match (raised.into_inner().unwrap_or_else(PoisonError::into_inner), result) {
        (Some(raised), _) => Err(raised),
        (None, Err(Error::Stopped) | Ok(())) => Ok(()),
        (None, Err(error)) => Err(raise(&error)),
    }
}
