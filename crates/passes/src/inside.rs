//! Graphs inside of operators (`If`, `Loop`): rewritten by the same pipeline, with what is known of the values that they read.
//! The operators around are interpreted, so that only files for other runtimes, and explanations, are made of this.

use crate::error::Result;
use crate::journal::{Entry, Journal};
use crate::options::Options;
use crate::pipeline::optimise;
use tconvc_ir::ops::{Control, InputInfo};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Elements of a captured constant up to which a graph gets a copy of its own: extents may follow from it.
const SMALL: usize = 64;

/// Rewrites the graphs inside of a graph's operators. What was decided in them is noted under the operator's name and that of
/// its attribute.
///
/// # Errors
/// As [`optimise`].
pub(crate) fn rewrite(graph: &mut Graph, options: &Options, journal: &mut Journal) -> Result<()> {
    for id in graph.order()? {
        let Op::Opaque(op) = &graph.node(id).op else { continue };
        let Ok(control) = op.control() else { continue };
        match typed(graph, id, control) {
            Ok(graphs) => within(graph, id, graphs, options, journal)?,
            Err(error) => {
                let (name, op) = (graph.node(id).name.clone(), op.op_type.clone());
                journal.refuse("inside", &name, &op, error.to_string());
            }
        }
    }
    Ok(())
}

/// The graphs of a node with types.
fn typed(graph: &Graph, id: NodeId, control: &Control) -> Result<Vec<(&'static str, Graph)>> {
    let inputs: Vec<Option<InputInfo<'_>>> = graph
        .node(id)
        .inputs()
        .iter()
        .map(|input| {
            input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
        })
        .collect();
    Ok(control.typed_graphs(&inputs)?)
}

fn within(
    graph: &mut Graph,
    id: NodeId,
    mut graphs: Vec<(&'static str, Graph)>,
    options: &Options,
    journal: &mut Journal,
) -> Result<()> {
    let node = graph.node(id).clone();
    let Op::Opaque(op) = &node.op else { return Ok(()) };
    let own = node.inputs().len().saturating_sub(op.captures);
    let captured: Vec<(ValueId, String)> =
        node.inputs()[own..].iter().flatten().map(|&id| (id, graph.value(id).name.clone())).collect();
    for (attribute, inner) in &mut graphs {
        let first = inner.inputs().len().saturating_sub(captured.len());
        let places: Vec<ValueId> = inner.inputs()[first..].to_vec();
        for (place, (outer, _)) in places.into_iter().zip(&captured) {
            if let Some(tensor) = graph.constant(*outer).filter(|tensor| is_wanted(inner, place, tensor)) {
                inner.replace_input(place, tensor.clone());
            }
        }
        let made = optimise(inner, options)?;
        for entry in made.entries() {
            let name = format!("{}/{attribute}/{}", node.name, entry.node);
            journal.note(Entry { node: name, ..entry.clone() });
        }
    }
    if !options.portable {
        return Ok(());
    }
    let names: Vec<String> = captured.iter().map(|(_, name)| name.clone()).collect();
    let (op, read) = op.with_graphs(&graphs, &names)?;
    let kept = read.iter().filter_map(|name| captured.iter().find(|(_, known)| known == name));
    let inputs: Vec<Option<ValueId>> =
        node.inputs()[..own].iter().copied().chain(kept.map(|(id, _)| Some(*id))).collect();
    graph.remove_node(id);
    graph.add_node_defining(&node.name, op, &inputs, node.outputs())?;
    graph.remove_unused_values();
    Ok(())
}

/// True for a constant of the graph around that the rewrites inside ask for: weights of a transposed convolution, and what is
/// small.
fn is_wanted(inner: &Graph, place: ValueId, tensor: &Tensor) -> bool {
    let weighs = |(user, _): &(NodeId, usize)| matches!(inner.node(*user).op, Op::ConvTranspose(_));
    tensor.len() <= SMALL || inner.users(place).iter().any(weighs)
}
