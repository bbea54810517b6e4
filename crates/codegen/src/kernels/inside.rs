//! Nodes in the graphs that `If`, `Loop` and `Scan` hold: all of them are interpreted, which is said of each.

use super::interpreted;
use super::refusal::{Estimate, Reason, Refusal};
use tconvc_ir::ops::{Control, InputInfo};
use tconvc_ir::{Graph, Node, NodeId, Op};

/// Of how many runs of an If one branch is taken, for all that is known.
const SHARE_OF_A_BRANCH: f64 = 0.5;

/// The nodes inside of a node, with the time that they take in a run of it; none where it holds no graphs.
pub(super) fn estimates(graph: &Graph, id: NodeId) -> Vec<Estimate> {
    let node = graph.node(id);
    of_node(graph, node, &node.name)
}

/// Nanoseconds of all of these.
pub(super) fn total_ns(inside: &[Estimate]) -> f64 {
    inside.iter().map(|estimate| estimate.nanoseconds).sum()
}

/// `path` leads to the node: `outer/body/inner`.
fn of_node(graph: &Graph, node: &Node, path: &str) -> Vec<Estimate> {
    let Op::Opaque(op) = &node.op else { return vec![] };
    let Ok(control) = op.control() else { return vec![] };
    let info = |&input: &Option<_>| {
        input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
    };
    let inputs: Vec<Option<InputInfo<'_>>> = node.inputs().iter().map(info).collect();
    let times = match control {
        Control::If { .. } => SHARE_OF_A_BRANCH,
        Control::Loop { .. } | Control::Scan(_) => control.trip_count(&inputs).unwrap_or(1) as f64,
    };
    let graphs = control.typed_graphs(&inputs);
    let graphs = graphs.unwrap_or_else(|_| {
        control.named_graphs().into_iter().map(|(name, graph)| (name, graph.clone())).collect()
    });
    let reason = Reason::Inside { path: path.to_owned(), op: node.op.name().to_owned() }.to_string();
    graphs
        .iter()
        .flat_map(|(name, inner)| of_graph(inner, &format!("{path}/{name}"), &reason, times))
        .collect()
}

/// The nodes of a graph that runs so often.
fn of_graph(graph: &Graph, path: &str, reason: &str, times: f64) -> Vec<Estimate> {
    let of_node = |id: NodeId| {
        let (node, name) = (graph.node(id), format!("{path}/{}", graph.node(id).name));
        let mut inside = of_node(graph, node, &name);
        for estimate in &mut inside {
            estimate.scale(times);
        }
        let op = node.op.name().to_owned();
        let refusal = Refusal { node: name.clone(), op, family: "no family", reason: reason.to_owned() };
        let nanoseconds = times * interpreted::node_cost_ns(graph, id) + total_ns(&inside);
        Estimate { node: name, nanoseconds, refusal: Some(refusal), steps: 0, inside }
    };
    graph.order().unwrap_or_default().into_iter().map(of_node).collect()
}
