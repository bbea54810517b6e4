//! What holds before and after every pass: graph outputs keep name, type and shape; the graph is well formed.

use tconvc_ir::{DType, Dim, Graph, ValueId};

/// Names and types of a graph's inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq)]
struct Port {
    name: String,
    dtype: Option<DType>,
    shape: Option<Vec<Dim>>,
}

impl Signature {
    /// The signature of a graph.
    pub fn of(graph: &Graph) -> Self {
        let ports = |ids: &[ValueId]| -> Vec<Port> {
            let port = |&id: &ValueId| {
                let value = graph.value(id);
                Port { name: value.name.clone(), dtype: value.ty.dtype, shape: value.ty.shape.clone() }
            };
            ids.iter().map(port).collect()
        };
        Self { inputs: ports(graph.inputs()), outputs: ports(graph.outputs()) }
    }

    /// Checks that `graph` still has this signature. More may be known of a shape than before, never less and never
    /// something else.
    ///
    /// # Errors
    /// Says what changed.
    pub fn check(&self, graph: &Graph) -> Result<(), String> {
        let now = Self::of(graph);
        for (what, before, after) in
            [("input", &self.inputs, &now.inputs), ("output", &self.outputs, &now.outputs)]
        {
            if before.len() != after.len() {
                return Err(format!("it had {} {what}s and has {}", before.len(), after.len()));
            }
            for (old, new) in before.iter().zip(after) {
                if old.name != new.name {
                    return Err(format!("{what} `{}` became `{}`", old.name, new.name));
                }
                if old.dtype.is_some() && old.dtype != new.dtype {
                    return Err(format!("{what} `{}` changed its type", old.name));
                }
                if !shape_agrees(old.shape.as_deref(), new.shape.as_deref()) {
                    return Err(format!(
                        "{what} `{}` changed its shape from {:?} to {:?}",
                        old.name, old.shape, new.shape
                    ));
                }
            }
        }
        Ok(())
    }
}

fn shape_agrees(old: Option<&[Dim]>, new: Option<&[Dim]>) -> bool {
    match (old, new) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => {
            old.len() == new.len()
                && old.iter().zip(new).all(|(old, new)| old.is_unknown() || old.equals(new) != Some(false))
        }
    }
}
