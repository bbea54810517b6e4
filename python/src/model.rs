//! A network as read, and the options of its compilation.

use crate::check;
use crate::compiled::Compiled;
use crate::error::{raise, refuse};
use crate::fork::detach;
use crate::threads::Threads;
use crate::tune::{Tuning, tune};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tconvc::{Compiler, Form, PortInfo, Target};

/// Name, element type, extents (numbers or names; none when the rank is open) of an input or output, and whether it may be left
/// out.
pub type Port = (String, Option<String>, Option<Vec<String>>, bool);

/// As the Python half takes them.
pub fn ports(infos: &[PortInfo]) -> Vec<Port> {
    let port = |info: &PortInfo| {
        let dtype = info.dtype.map(|dtype| dtype.name().to_owned());
        (info.name.clone(), dtype, info.shape.clone(), info.optional)
    };
    infos.iter().map(port).collect()
}

/// A network as read.
#[pyclass(frozen, module = "tconvc._native")]
pub struct Model(tconvc::Model);

/// What a network is compiled for; see `tconvc.Model.compile`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Options {
    shapes: BTreeMap<String, Vec<usize>>,
    threads: usize,
    form: String,
    target: String,
    fast_math: bool,
    deny_interpreted: bool,
    workspace_limit: Option<usize>,
    tuning: Option<Py<Tuning>>,
}

impl Options {
    fn into_compiler(self) -> PyResult<Compiler> {
        let form: Form = self.form.parse().map_err(|error: tconvc::OptionError| refuse(error.to_string()))?;
        let target = Target::parse(&self.target).map_err(|error| refuse(error.to_string()))?;
        let mut compiler = Compiler::new()
            .form(form)
            .target(target)
            .threads(self.threads)
            .fast_math(self.fast_math)
            .deny_interpreted(self.deny_interpreted);
        if self.threads > 1 {
            compiler = compiler.executor(Threads::of(self.threads));
        }
        for (name, shape) in self.shapes {
            compiler = compiler.input_shape(&name, shape);
        }
        if let Some(tuning) = &self.tuning {
            compiler = compiler.tuning(&tuning.get().known());
        }
        Ok(match self.workspace_limit {
            Some(bytes) => compiler.workspace_limit(bytes),
            None => compiler,
        })
    }
}

#[pymethods]
impl Model {
    #[staticmethod]
    fn from_path(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detach(py, || tconvc::Model::from_path(path)).map(Self).map_err(|error| raise(&error))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        detach(py, || tconvc::Model::from_bytes(bytes)).map(Self).map_err(|error| raise(&error))
    }

    fn inputs(&self) -> Vec<Port> {
        ports(&self.0.inputs())
    }

    fn outputs(&self) -> Vec<Port> {
        ports(&self.0.outputs())
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.0.metadata().clone()
    }

    fn to_text(&self, py: Python<'_>) -> String {
        detach(py, || self.0.to_text())
    }

    fn to_onnx<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detach(py, || self.0.to_onnx()).map_err(|error| raise(&error))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn compile(&self, py: Python<'_>, options: Options) -> PyResult<Compiled> {
        let compiler = options.into_compiler()?;
        let compiled = detach(py, || compiler.compile(&self.0)).map_err(|error| raise(&error))?;
        Ok(Compiled::new(py, compiled))
    }

    fn tune(
        &self,
        py: Python<'_>,
        options: Options,
        tuning: &Bound<'_, Tuning>,
        observe: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        tune(py, &self.0, &options.into_compiler()?, tuning.get(), observe)
    }

    /// Text, and the same as JSON.
    fn explain(&self, py: Python<'_>, options: Options) -> PyResult<(String, String)> {
        let compiler = options.into_compiler()?;
        let found = detach(py, || compiler.explain(&self.0)).map_err(|error| raise(&error))?;
        let json = serde_json::to_string(&found).map_err(|error| refuse(error.to_string()))?;
        Ok((found.to_string(), json))
    }

    /// The file, and what is to be said about it.
    fn export_onnx<'py>(
        &self,
        py: Python<'py>,
        options: Options,
    ) -> PyResult<(Bound<'py, PyBytes>, Vec<String>)> {
        let compiler = options.into_compiler()?;
        let export = detach(py, || compiler.export(&self.0)).map_err(|error| raise(&error))?;
        Ok((PyBytes::new(py, export.bytes()), export.warnings().to_vec()))
    }

    fn interpret<'py>(&self, inputs: &Bound<'py, PyDict>) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
        check::interpret(&self.0, inputs)
    }

    fn differs<'py>(
        &self,
        name: &Bound<'py, PyString>,
        found: &Bound<'py, PyAny>,
        expected: &Bound<'py, PyAny>,
    ) -> PyResult<(Option<f64>, Option<String>)> {
        check::differs(&self.0, name, found, expected)
    }

    #[staticmethod]
    fn seeded<'py>(
        py: Python<'py>,
        dtype: &str,
        shape: Vec<usize>,
        seed: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        check::seeded(py, dtype, shape, seed)
    }
}
