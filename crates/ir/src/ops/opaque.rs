//! Operators that we do not know, and those that hold graphs: kept as they came, so that ONNX in, ONNX out loses nothing.

use super::control::Control;
use super::{InputInfo, Operator};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::onnx;
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::sync::Arc;

/// An operator with its attributes as they came.
#[derive(Debug, Clone)]
pub struct Opaque {
    /// ONNX domain; empty for ONNX's own.
    pub domain: String,
    /// Name in that domain.
    pub op_type: String,
    /// Attributes as they came.
    pub attributes: Attributes,
    /// Trailing inputs that are not the node's own: values of the graph that a subgraph in its attributes reads by name.
    pub captures: usize,
    /// What it means, where we know that, or why we do not.
    control: Result<Option<Arc<Control>>>,
}

impl Opaque {
    /// An operator. The graphs of one that we know stand in the spelling of opset 21.
    pub fn new(
        domain: impl Into<String>,
        op_type: impl Into<String>,
        attributes: Attributes,
        captures: usize,
    ) -> Self {
        let (domain, op_type) = (domain.into(), op_type.into());
        let control = if domain.is_empty() {
            Control::read(&op_type, &attributes, captures).map(|control| control.map(Arc::new))
        } else {
            Ok(None)
        };
        Self { domain, op_type, attributes, captures, control }
    }

    /// An operator whose graphs cannot be read, for that reason.
    pub fn unread(
        domain: impl Into<String>,
        op_type: impl Into<String>,
        attributes: Attributes,
        captures: usize,
        problem: Error,
    ) -> Self {
        let (domain, op_type) = (domain.into(), op_type.into());
        Self { domain, op_type, attributes, captures, control: Err(problem) }
    }

    /// The operator with other graphs in the place of those it has, of which the last inputs are what they capture, under the
    /// names `captured`; and which of these are still read, in the order of the captured inputs that it has then.
    ///
    /// # Errors
    /// When a graph cannot be written in ONNX's words.
    pub fn with_graphs(&self, graphs: &[(&str, Graph)], captured: &[String]) -> Result<(Self, Vec<String>)> {
        let mut attributes = self.attributes.clone();
        for (name, graph) in graphs {
            attributes.set(name, AttributeValue::Opaque(onnx::write_subgraph(name, graph, captured)?));
        }
        let read = onnx::captured(&attributes)?;
        Ok((Self::new(&self.domain, &self.op_type, attributes, read.len()), read))
    }

    /// What it means, for an `If` or a `Loop`.
    ///
    /// # Errors
    /// When a graph in it is malformed, or nothing is known of the operator.
    pub fn control(&self) -> Result<&Control> {
        match &self.control {
            Ok(Some(control)) => Ok(control),
            Ok(None) => {
                let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
                Err(Error::Unsupported(format!("the operator {domain}::{} is not supported", self.op_type)))
            }
            Err(error) => Err(error.clone()),
        }
    }
}

/// What it means follows from the rest.
impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        (&self.domain, &self.op_type, self.captures) == (&other.domain, &other.op_type, other.captures)
            && self.attributes == other.attributes
    }
}

impl Operator for Opaque {
    fn name(&self) -> &str {
        &self.op_type
    }

    fn attributes(&self) -> Attributes {
        self.attributes.clone()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        match &self.control {
            Ok(Some(control)) => control.infer(inputs, outputs),
            _ => Ok(vec![ValueType::default(); outputs]),
        }
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        self.control()?.eval(inputs)
    }
}
