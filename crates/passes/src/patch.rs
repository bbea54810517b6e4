//! Small changes of a graph: adding nodes whose types follow from their operator, and putting another maker behind a value.

use crate::error::Result;
use crate::matching::{keeps_name, sole_output};
use tconvc_ir::ops::InputInfo;
use tconvc_ir::{DType, Element, Graph, NodeId, Op, Tensor, ValueId, ValueType, dispatch_numeric};

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

/// True when [`bypass`] can be done: the only output of `node` can be had from `value` without it. A graph output, and what
/// a subgraph reads, keeps its name: there the maker of `value` has to take the name over, which it cannot when `value`
/// has to keep its own, or is a graph input.
pub fn can_bypass(graph: &Graph, node: NodeId, value: ValueId) -> bool {
    let Some(output) = sole_output(graph, node) else { return false };
    output != value
        && (!keeps_name(graph, output) || (graph.producer(value).is_some() && !keeps_name(graph, value)))
}

/// Removes a node whose only output is the same as `value`. See [`can_bypass`].
///
/// # Errors
/// When it cannot be done.
pub fn bypass(graph: &mut Graph, node: NodeId, value: ValueId) -> Result<()> {
    let refuse = |graph: &Graph| {
        let name = &graph.value(value).name;
        tconvc_ir::Error::Graph(format!("`{name}` cannot take the place of what a node gives"))
    };
    let (true, Some(output)) = (can_bypass(graph, node, value), sole_output(graph, node)) else {
        return Err(refuse(graph).into());
    };
    let keeps = keeps_name(graph, output);
    graph.remove_node(node);
    if !keeps {
        graph.replace_uses(output, value);
        return Ok(graph.remove_value(output)?);
    }
    let Some(maker) = graph.producer(value) else { return Err(refuse(graph).into()) };
    graph.replace_uses(value, output);
    redirect(graph, maker, value, output)
}

/// Makes node `maker` define `new`, which nothing defines, where it defined `old`, which nothing reads any more and which
/// goes.
fn redirect(graph: &mut Graph, maker: NodeId, old: ValueId, new: ValueId) -> Result<()> {
    let Some(node) = graph.remove_node(maker) else { return Ok(()) };
    let outputs: Vec<_> =
        node.outputs().iter().map(|&id| if id == Some(old) { Some(new) } else { id }).collect();
    graph.add_node_defining(&node.name, node.op.clone(), node.inputs(), &outputs)?;
    Ok(graph.remove_value(old)?)
}

/// Makes a node have its first output only.
///
/// # Errors
/// When another is read.
pub fn keep_first_output(graph: &mut Graph, node: NodeId) -> Result<()> {
    let Some(old) = graph.remove_node(node) else { return Ok(()) };
    graph.add_node_defining(&old.name, old.op.clone(), old.inputs(), &old.outputs()[..1])?;
    for &output in old.outputs()[1..].iter().flatten() {
        graph.remove_value(output)?;
    }
    Ok(())
}

/// Takes `user`, the only reader of what `maker` gives, out of the graph: `maker` gives what `user` gave. The caller has
/// changed `maker` so that it does the work of both.
///
/// # Errors
/// When `user` is not the only reader, or either has not one output.
pub fn absorb(graph: &mut Graph, maker: NodeId, user: NodeId) -> Result<()> {
    let both = sole_output(graph, maker).zip(sole_output(graph, user));
    let private = both.is_some_and(|(value, _)| graph.users(value).iter().all(|&(reader, _)| reader == user));
    let (true, Some((value, output))) = (private && user != maker, both) else {
        return Err(
            tconvc_ir::Error::Graph("a node with other readers cannot take its reader in".into()).into()
        );
    };
    graph.remove_node(user);
    redirect(graph, maker, value, output)
}

/// Removes those of the nodes whose outputs nothing reads, also when it is only each other that read them.
pub fn remove_unread(graph: &mut Graph, nodes: impl IntoIterator<Item = NodeId>) {
    let mut left: Vec<NodeId> = nodes.into_iter().collect();
    loop {
        let unread = |&node: &NodeId| {
            let mut outputs = graph.node(node).outputs().iter().flatten();
            outputs.all(|&id| !graph.is_output(id) && graph.users(id).is_empty())
        };
        let Some(position) = left.iter().position(unread) else { return };
        let Some(node) = graph.remove_node(left.swap_remove(position)) else { continue };
        for &output in node.outputs().iter().flatten() {
            // Nothing makes or reads it any more.
            let removed = graph.remove_value(output);
            debug_assert!(removed.is_ok());
        }
    }
}

/// The result of an operator on tensors: constant folding, done at once. This is how passes compute with weights.
///
/// # Errors
/// When the operator does not take them.
pub fn eval(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Tensor> {
    let op = op.into();
    let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
    let results = op.eval(&inputs, 1)?;
    let none = || tconvc_ir::Error::Graph(format!("{} gave no tensor", op.name()));
    Ok(results.into_iter().next().ok_or_else(none)?)
}

/// One number of any element type, of rank 0.
///
/// # Errors
/// When the element type is not one of numbers.
pub fn number(dtype: DType, value: f64) -> Result<Tensor> {
    let scalar = |dtype| -> tconvc_ir::Result<Tensor> {
        dispatch_numeric!(dtype, T => Ok(Tensor::scalar(<T as Element>::from_f64(value))))
    };
    Ok(scalar(dtype)?)
}

/// Makes `node` read another constant at `position`. When nothing else reads the old one, the new one takes its name over.
///
/// # Errors
/// When there are two values of that name, which cannot be.
pub fn swap_constant(graph: &mut Graph, node: NodeId, position: usize, new: ValueId) -> Result<()> {
    let old = graph.node(node).input(position);
    graph.set_input(node, position, Some(new));
    if let Some(old) = old.filter(|&old| old != new) {
        let name = graph.value(old).name.clone();
        if graph.remove_value(old).is_ok() {
            graph.rename_value(new, &name)?;
        }
    }
    Ok(())
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
