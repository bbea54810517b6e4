//! Operators that we do not know: kept as they came, so that ONNX in, ONNX out loses nothing.

use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::ValueType;
use crate::tensor::Tensor;

/// An operator that we do not know, with its attributes as they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Opaque {
    /// ONNX domain; empty for ONNX's own.
    pub domain: String,
    /// Name in that domain.
    pub op_type: String,
    /// Attributes as they came.
    pub attributes: Attributes,
    /// Trailing inputs that are not the node's own: values of the graph that a subgraph in its attributes reads by name.
    pub captures: usize,
}

impl Operator for Opaque {
    fn name(&self) -> &str {
        &self.op_type
    }

    fn attributes(&self) -> Attributes {
        self.attributes.clone()
    }

    fn infer(&self, _inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        Ok(vec![ValueType::default(); outputs])
    }

    fn eval(&self, _inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        Err(Error::Unsupported(format!("operator {domain}::{}", self.op_type)))
    }
}
