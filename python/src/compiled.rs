//! A compiled network, shared between Python threads, and the sessions that run it.

use crate::arrays::{Input, Output};
use crate::error::{raise, refuse};
use crate::model::{Port, ports};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use std::sync::{Mutex, PoisonError};
use tconvc::{DType, TensorView};

/// An input by name.
type Named<'py> = (String, Input<'py>);

/// A compiled network.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Compiled {
    model: tconvc::CompiledModel,
    /// Sessions that wait for the next call.
    idle: Mutex<Vec<tconvc::Session>>,
}

impl Compiled {
    pub fn new(model: tconvc::CompiledModel) -> Self {
        Self { model, idle: Mutex::default() }
    }

    /// Lends a session to one call.
    fn with_session<T>(&self, call: impl FnOnce(&mut tconvc::Session) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = idle().pop();
        let mut session = lent.unwrap_or_else(|| self.model.session());
        let result = call(&mut session);
        idle().push(session);
        result
    }
}

#[pymethods]
impl Compiled {
    fn inputs(&self) -> Vec<Port> {
        ports(self.model.inputs())
    }

    fn outputs(&self) -> Vec<Port> {
        ports(self.model.outputs())
    }

    fn is_static(&self) -> bool {
        self.model.is_static()
    }

    /// Text, and the same as JSON.
    fn report(&self) -> PyResult<(String, String)> {
        let report = self.model.report();
        let json = serde_json::to_string(&report).map_err(|error| refuse(error.to_string()))?;
        Ok((report.to_string(), json))
    }

    fn run<'py>(&self, inputs: Vec<Named<'py>>, allocate: &Bound<'py, PyAny>) -> PyResult<Made<'py>> {
        self.with_session(|session| run(&self.model, session, &inputs, allocate))
    }

    fn run_into(&self, py: Python<'_>, inputs: Vec<Named<'_>>, outputs: Vec<Output<'_>>) -> PyResult<()> {
        self.with_session(|session| run_into(py, &self.model, session, &inputs, outputs))
    }

    fn session(&self) -> Session {
        Session { model: self.model.clone(), session: Mutex::new(self.model.session()) }
    }
}

/// Workspace and threads of its own.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Session {
    model: tconvc::CompiledModel,
    session: Mutex<tconvc::Session>,
}

impl Session {
    fn with_session<T>(&self, py: Python<'_>, call: impl FnOnce(&mut tconvc::Session) -> T) -> T {
        // Another thread may hold the session and wait for the interpreter.
        call(&mut self.session.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Session {
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Named<'py>>,
        allocate: &Bound<'py, PyAny>,
    ) -> PyResult<Made<'py>> {
        self.with_session(py, |session| run(&self.model, session, &inputs, allocate))
    }

    fn run_into(&self, py: Python<'_>, inputs: Vec<Named<'_>>, outputs: Vec<Output<'_>>) -> PyResult<()> {
        self.with_session(py, |session| run_into(py, &self.model, session, &inputs, outputs))
    }
}

/// Outputs in the model's order, in memory of `allocate(element type, extents)`, which gives an array and its bytes.
type Made<'py> = Vec<Bound<'py, PyAny>>;

fn views<'a>(model: &'a tconvc::CompiledModel, inputs: &'a [Named<'_>]) -> PyResult<Vec<TensorView<'a>>> {
    let named = inputs.iter().map(|(name, input)| Ok((name.as_str(), input.view()?)));
    model.order(named.collect::<PyResult<Vec<_>>>()?).map_err(|error| raise(&error))
}

fn run<'py>(
    model: &tconvc::CompiledModel,
    session: &mut tconvc::Session,
    inputs: &[Named<'py>],
    allocate: &Bound<'py, PyAny>,
) -> PyResult<Made<'py>> {
    let py = allocate.py();
    let views = views(model, inputs)?;
    let allocate = |dtype: DType, shape: &[usize]| -> PyResult<(Bound<'py, PyAny>, Output<'py>)> {
        allocate.call1((dtype.name(), shape.to_vec()))?.extract()
    };
    let ports = py.detach(|| session.output_ports(&views)).map_err(|error| raise(&error))?;
    let Some(ports) = ports else {
        // Only a run tells the extents.
        let outputs = py.detach(|| session.run(&views)).map_err(|error| raise(&error))?;
        let copied = outputs.iter().map(|(_, tensor)| {
            let (array, mut memory) = allocate(tensor.dtype(), tensor.shape())?;
            memory.view()?.bytes_mut().copy_from_slice(tensor.bytes());
            Ok(array)
        });
        return copied.collect();
    };
    let made = ports.iter().map(|(dtype, shape)| allocate(*dtype, shape)).collect::<PyResult<Vec<_>>>()?;
    let (arrays, mut memory): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let mut outputs = memory.iter_mut().map(Output::view).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| session.run_into(&views, &mut outputs)).map_err(|error| raise(&error))?;
    Ok(arrays)
}

fn run_into(
    py: Python<'_>,
    model: &tconvc::CompiledModel,
    session: &mut tconvc::Session,
    inputs: &[Named<'_>],
    mut outputs: Vec<Output<'_>>,
) -> PyResult<()> {
    let views = views(model, inputs)?;
    let mut outputs = outputs.iter_mut().map(Output::view).collect::<PyResult<Vec<_>>>()?;
    py.detach(|| session.run_into(&views, &mut outputs)).map_err(|error| raise(&error))
}
