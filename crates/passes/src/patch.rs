//! Small changes of a graph: adding nodes whose types follow from their operator, and putting another maker behind a value.

use crate::error::Result;
use tconvc_ir::ops::InputInfo;
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId, ValueType};

/// Types of the outputs of an operator on these inputs.
///
/// # Errors
/// When the inputs do not fit the operator.
pub fn infer(graph: &Graph, op: &Op, inputs: &[Option<ValueId>], outputs: usize) -> Result<Vec<ValueType>> {
    let infos: Vec<_> = inputs
        .iter()
        .map(|input| {
            input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
        })
        .collect();
    Ok(op.infer(&infos, outputs)?)
}

/// Adds a node with one new output, named and typed.
///
/// # Errors
/// When the inputs do not fit the operator.
pub fn add(graph: &mut Graph, name: &str, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<ValueId> {
    let op = op.into();
    let types = infer(graph, &op, inputs, 1).map_err(|error| at(error, name, &op))?;
    let (_, outputs) = graph.add_node(name, op, inputs, types)?;
    outputs.first().copied().ok_or_else(|| {
        tconvc_ir::Error::Graph(format!("node `{name}` was to have one output and has none")).into()
    })
}

/// Adds a node on values that are all present; see [`add`].
///
/// # Errors
/// As [`add`].
pub fn add_on(graph: &mut Graph, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
    let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
    add(graph, name, op, &inputs)
}

/// Puts another operator in the place of `node`: same outputs, same name, new inputs.
///
/// # Errors
/// When an input does not exist.
pub fn replace(
    graph: &mut Graph,
    node: NodeId,
    op: impl Into<Op>,
    inputs: &[Option<ValueId>],
) -> Result<NodeId> {
    let Some(old) = graph.remove_node(node) else {
        return Err(tconvc_ir::Error::Graph("a node to replace is not there".into()).into());
    };
    Ok(graph.add_node_defining(&old.name, op, inputs, old.outputs())?)
}

/// Makes everything that reads the only output of `node` read `value` instead, and removes the node. False, with nothing
/// changed, when the output is a graph output: its name must stay with what makes it.
pub fn bypass(graph: &mut Graph, node: NodeId, value: ValueId) -> bool {
    let Some(output) = crate::matching::sole_output(graph, node) else { return false };
    if graph.is_output(output) {
        return false;
    }
    graph.replace_uses(output, value);
    graph.remove_node(node);
    // Nothing reads it and nothing makes it: it can always go.
    graph.remove_value(output).is_ok()
}

/// Adds a constant vector of 64-bit integers, as shapes and axes are.
pub fn integers(graph: &mut Graph, name: &str, values: &[i64]) -> ValueId {
    graph.add_constant(name, Tensor::from_i64s(values))
}

fn at(error: crate::Error, name: &str, op: &Op) -> crate::Error {
    match error {
        crate::Error::Ir(error) => error.at(name, op.name()).into(),
        other => other,
    }
}
