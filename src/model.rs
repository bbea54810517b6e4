//! A network as it was read.

use crate::error::Result;
use crate::limits::default_budget;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use tconvc_ir::budget::Budget;
use tconvc_ir::{DType, Graph, ValueId};

/// A network, read from ONNX.
#[derive(Clone)]
pub struct Model {
    graph: Graph,
    budget: Budget,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Name in the model.
    pub name: String,
    /// Element type, when the model says.
    pub dtype: Option<DType>,
    /// Extents as text: numbers, or the model's symbols; `None` when the rank is open.
    pub shape: Option<Vec<String>>,
    /// True for an input that may be left out: the model holds what counts then.
    pub optional: bool,
}

impl Model {
    /// Reads an ONNX file. Weights in external files are mapped, and must lie in the model's folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no model that this program understands, or asks for more than
    /// [`default_limits`](crate::default_limits) allow.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_with(path, &default_budget())
    }

    /// Reads an ONNX model from memory. Weights in external files are refused.
    ///
    /// # Errors
    /// As [`Model::from_path`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read_bytes_with(bytes, &default_budget())
    }

    /// As [`Model::from_path`], within a budget of the caller's, in which [`Model::interpret`] stays, too.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tconvc::{Budget, Compiler, Limits, Model};
    ///
    /// // 256 MiB for all of it, and ten seconds for each call.
    /// let limits = Limits::default().with_memory(256 << 20).with_time(Duration::from_secs(10));
    /// let budget = Budget::new(limits);
    /// let model = Model::read_with("models/fsrcnn_x3.onnx", &budget)?;
    /// let compiler = Compiler::new().budget(&budget).input_shape("low", [1, 1, 32, 32]);
    /// let compiled = compiler.compile(&model)?;
    /// let stop = compiler.cancel_token(); // for another thread
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn read_with(path: impl AsRef<Path>, budget: &Budget) -> Result<Self> {
        let _budget = budget.enter();
        Ok(Self { graph: tconvc_ir::onnx::read_path(path)?, budget: budget.clone() })
    }

    /// As [`Model::from_bytes`], within a budget of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn read_bytes_with(bytes: &[u8], budget: &Budget) -> Result<Self> {
        let _budget = budget.enter();
        Ok(Self { graph: tconvc_ir::onnx::read_bytes(bytes)?, budget: budget.clone() })
    }

    /// What it was read within.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Inputs, in order, those included that may be left out.
    pub fn inputs(&self) -> Vec<PortInfo> {
        self.ports(self.graph.inputs())
    }

    /// Outputs, in order.
    pub fn outputs(&self) -> Vec<PortInfo> {
        self.ports(self.graph.outputs())
    }

    fn ports(&self, values: &[ValueId]) -> Vec<PortInfo> {
        let port = |&id: &ValueId| {
            let value = self.graph.value(id);
            let shape = value.ty.shape.as_ref().map(|shape| shape.iter().map(ToString::to_string).collect());
            PortInfo {
                name: value.name.clone(),
                dtype: value.ty.dtype,
                shape,
                optional: self.graph.default_of(id).is_some(),
            }
        };
        values.iter().map(port).collect()
    }

    /// Name of the graph.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// What the model says of itself: its `metadata_props`, and its description as `doc_string`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.graph.metadata
    }

    /// The model as it was read, as an ONNX file that holds all weights, for the same model to be read somewhere else.
    ///
    /// # Errors
    /// When it holds something that ONNX cannot say.
    pub fn to_onnx(&self) -> Result<Vec<u8>> {
        Ok(tconvc_ir::onnx::write(&self.graph)?)
    }

    /// The graph as text, as it was read.
    pub fn to_text(&self) -> String {
        tconvc_ir::text::print(&self.graph)
    }

    /// The graph, for tools that look inside; its crate promises no stability.
    #[doc(hidden)]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A model of a graph, for tools; see [`Model::graph`].
    #[doc(hidden)]
    pub fn from_graph(graph: Graph) -> Self {
        Self { graph, budget: default_budget() }
    }
}

impl fmt::Display for PortInfo {
    /// `` `x` f32[1, 3, H, W] ``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype.map_or("?", DType::name);
        match &self.shape {
            Some(shape) => write!(f, "`{}` {dtype}[{}]", self.name, shape.join(", ")),
            None => write!(f, "`{}` {dtype}[..]", self.name),
        }
    }
}
