//! A network as read, and the options of its compilation.

use crate::compiled::Compiled;
use crate::error::{raise, refuse};
use crate::threads::Threads;
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tconvc::{Compiler, Form, PortInfo, Target};

/// Name, element type, extents (numbers or names; none when the rank is open) of an input or output, and whether it may be left
/// out.
pub type Port = (String, Option<String>, Option<Vec<String>>, bool);

/// As the Python half takes them.
pub fn ports(infos: &[PortInfo]) -> Vec<Port> {
    infos
        .iter()
        .map(|info| {
            let dtype = info.dtype.map(|dtype| dtype.name().to_owned());
            (info.name.clone(), dtype, info.shape.clone(), info.optional)
        })
        .collect()
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
    workspace_limit: Option<usize>,
}

impl Options {
    fn compiler(&self) -> PyResult<Compiler> {
        let form: Form = self.form.parse().map_err(|error: tconvc::OptionError| raise(&error.into()))?;
        let target = Target::parse(&self.target).map_err(|error| refuse(error.to_string()))?;
        let mut compiler =
            Compiler::new().form(form).target(target).threads(self.threads).fast_math(self.fast_math);
        if self.threads > 1 {
            compiler = compiler.executor(Arc::new(Threads::new(self.threads)));
        }
        for (name, shape) in &self.shapes {
            compiler = compiler.input_shape(name, shape.clone());
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
        py.detach(|| tconvc::Model::from_path(path)).map(Self).map_err(|error| raise(&error))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        py.detach(|| tconvc::Model::from_bytes(bytes)).map(Self).map_err(|error| raise(&error))
    }

    fn inputs(&self) -> Vec<Port> {
        ports(&self.0.inputs())
    }

    fn outputs(&self) -> Vec<Port> {
        ports(&self.0.outputs())
    }

    fn to_text(&self) -> String {
        self.0.to_text()
    }

    fn compile(&self, py: Python<'_>, options: Options) -> PyResult<Compiled> {
        let compiler = options.compiler()?;
        let compiled = py.detach(|| compiler.compile(&self.0)).map_err(|error| raise(&error))?;
        Ok(Compiled::new(compiled))
    }

    /// Text, and the same as JSON.
    fn explain(&self, py: Python<'_>, options: Options) -> PyResult<(String, String)> {
        let compiler = options.compiler()?;
        let found = py.detach(|| compiler.explain(&self.0)).map_err(|error| raise(&error))?;
        let json = serde_json::to_string(&found).map_err(|error| refuse(error.to_string()))?;
        Ok((found.to_string(), json))
    }

    fn export_onnx(&self, py: Python<'_>, options: Options) -> PyResult<Vec<u8>> {
        let compiler = options.compiler()?;
        let export = py.detach(|| compiler.export(&self.0)).map_err(|error| raise(&error))?;
        Ok(export.bytes().to_vec())
    }
}
