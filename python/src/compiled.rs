//! A compiled network, shared between Python threads, and the sessions that run it.

use crate::arrays::{Input, Output, array_of, disjoint, is_plain};
use crate::error::{raise, refuse};
use crate::fork::detach;
use crate::model::{Port, ports};
use crate::threads::Threads;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::sync::{Arc, Mutex, PoisonError};
use tconvc::{DType, Executor};

/// Names of inputs and outputs, in the model's order, as Python's strings.
struct Names {
    inputs: Vec<Py<PyString>>,
    outputs: Vec<Py<PyString>>,
}

/// A compiled network and workspaces for it. A call takes one that is idle, or a new one.
struct Runner {
    model: tconvc::CompiledModel,
    names: Arc<Names>,
    /// Threads of its own; none where it takes those of the compiled network.
    executor: Option<Arc<dyn Executor>>,
    idle: Mutex<Vec<tconvc::Session>>,
}

impl Runner {
    fn with_session<T>(&self, call: impl FnOnce(&mut tconvc::Session) -> PyResult<T>) -> PyResult<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = idle().pop();
        let mut session = lent.unwrap_or_else(|| match &self.executor {
            None => self.model.session(),
            Some(executor) => self.model.session().with_executor(Arc::clone(executor)),
        });
        let result = call(&mut session);
        idle().push(session);
        result
    }

    /// Arrays in the model's order, or by name; one output comes alone, several as a tuple.
    fn call<'py>(
        &self,
        arrays: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = arrays.py();
        let names = &self.names.inputs;
        if arrays.len() > names.len() {
            return Err(refuse(format!("the model has {} inputs, {} are given", names.len(), arrays.len())));
        }
        let by_place = names.iter().zip(arrays.iter()).map(|(name, value)| (name.bind(py).clone(), value));
        let by_name = named.into_iter().flat_map(PyDictMethods::iter);
        let mut inputs = Vec::with_capacity(names.len());
        for (name, value) in by_place {
            inputs.push(Input::new(name, &value)?);
        }
        for (name, value) in by_name {
            inputs.push(Input::new(name.cast_into()?, &value)?);
        }
        let mut outputs = self.run(py, &inputs, None)?;
        match outputs.len() {
            1 => Ok(outputs.swap_remove(0)),
            _ => Ok(PyTuple::new(py, outputs)?.into_any()),
        }
    }

    /// Inputs by name; outputs in the model's order, those in `out` written there.
    fn run_named<'py>(
        &self,
        inputs: &Bound<'py, PyDict>,
        out: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let read = inputs.iter().map(|(name, value)| {
            let name = name.cast_into::<PyString>().map_err(|_| refuse("names of inputs are strings"))?;
            Input::new(name, &value)
        });
        self.run(inputs.py(), &read.collect::<PyResult<Vec<_>>>()?, out)
    }

    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: &[Input<'py>],
        out: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let given = out.map(|out| self.given(out)).transpose()?;
        let mut given = given.into_iter().flatten().chain(std::iter::repeat_with(|| None));
        let views = inputs.iter().map(Input::view).collect::<PyResult<Vec<_>>>()?;
        let has_text = views.iter().any(|(_, view)| view.dtype() == DType::String);
        let views = self.model.order(views).map_err(|error| raise(&error))?;
        self.with_session(|session| {
            let ports = detach(py, || session.output_ports(&views)).map_err(|error| raise(&error))?;
            let ports = ports.filter(|ports| !has_text && ports.iter().all(|(dtype, _)| is_plain(*dtype)));
            let Some(ports) = ports else {
                // Only a run tells the extents, or NumPy has no such elements.
                let made = detach(py, || session.run(&views)).map_err(|error| raise(&error))?;
                let made = made.iter().zip(given).map(|((name, tensor), given)| match given {
                    None => array_of(py, tensor),
                    Some(mut given) => given.fill(name, tensor).map(|()| given.into_object()),
                });
                return made.collect();
            };
            let mut outputs = Vec::with_capacity(ports.len());
            for (dtype, shape) in &ports {
                outputs.push(match given.next().flatten() {
                    Some(given) => given,
                    None => Output::new(py, *dtype, shape)?,
                });
            }
            if out.is_some() {
                disjoint(inputs, &outputs)?;
            }
            let mut memory = outputs.iter_mut().map(Output::view).collect::<PyResult<Vec<_>>>()?;
            detach(py, || session.run_into(&views, &mut memory)).map_err(|error| raise(&error))?;
            drop(memory);
            Ok(outputs.into_iter().map(Output::into_object).collect())
        })
    }

    /// The caller's memory, by output.
    fn given<'py>(&self, out: &Bound<'py, PyDict>) -> PyResult<Vec<Option<Output<'py>>>> {
        let names = &self.names.outputs;
        let mut given: Vec<Option<Output<'py>>> = names.iter().map(|_| None).collect();
        for (name, value) in out.iter() {
            let name = name.cast_into::<PyString>().map_err(|_| refuse("names of outputs are strings"))?;
            let name = name.to_str()?;
            let ports = self.model.outputs();
            let Some(index) = ports.iter().position(|port| port.name == name) else {
                let known: Vec<_> = ports.iter().map(|port| format!("`{}`", port.name)).collect();
                return Err(refuse(format!(
                    "the model has no output `{name}`; its outputs are {}",
                    known.join(", ")
                )));
            };
            given[index] = Some(Output::given(name, &value)?);
        }
        Ok(given)
    }
}

/// A compiled network.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Compiled(Runner);

impl Compiled {
    pub fn new(py: Python<'_>, model: tconvc::CompiledModel) -> Self {
        let strings = |ports: &[tconvc::PortInfo]| {
            ports.iter().map(|port| PyString::new(py, &port.name).unbind()).collect()
        };
        let names = Arc::new(Names { inputs: strings(model.inputs()), outputs: strings(model.outputs()) });
        Self(Runner { model, names, executor: None, idle: Mutex::default() })
    }
}

#[pymethods]
impl Compiled {
    fn inputs(&self) -> Vec<Port> {
        ports(self.0.model.inputs())
    }

    fn outputs(&self) -> Vec<Port> {
        ports(self.0.model.outputs())
    }

    fn is_static(&self) -> bool {
        self.0.model.is_static()
    }

    fn programs(&self) -> usize {
        self.0.model.programs()
    }

    /// Text, and the same as JSON.
    fn report(&self, py: Python<'_>) -> PyResult<(String, String)> {
        let report = detach(py, || self.0.model.report());
        let json = serde_json::to_string(&report).map_err(|error| refuse(error.to_string()))?;
        Ok((report.to_string(), json))
    }

    fn call<'py>(
        &self,
        arrays: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.call(arrays, named)
    }

    fn run<'py>(
        &self,
        inputs: &Bound<'py, PyDict>,
        out: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.0.run_named(inputs, out)
    }

    fn session(&self, threads: Option<usize>) -> Session {
        Session(Runner {
            model: self.0.model.clone(),
            names: Arc::clone(&self.0.names),
            executor: threads.map(Threads::of),
            idle: Mutex::new(vec![]),
        })
    }
}

/// A workspace of its own.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Session(Runner);

#[pymethods]
impl Session {
    fn call<'py>(
        &self,
        arrays: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.call(arrays, named)
    }

    fn run<'py>(
        &self,
        inputs: &Bound<'py, PyDict>,
        out: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.0.run_named(inputs, out)
    }
}
