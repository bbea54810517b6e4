//! The cost model: multiply-adds and bytes of nodes and graphs, and predicted times of the three forms.

mod algorithms;
mod deconv;
mod machine;
mod roofline;

pub use algorithms::{AlgorithmCost, AlgorithmCosts, AtPeak};
pub use deconv::{FormCost, form_costs};
pub use machine::Machine;
pub use roofline::step_cost;

use serde::Serialize;
use std::fmt;
use tconvc_ir::ops::{InputInfo, Opaque};
use tconvc_ir::{Graph, Node, NodeId, Op, ValueType};

/// Modelled cost of a node, a form or a graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Predicted microseconds, where a model of the time exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_us: Option<f64>,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MACs, {} bytes", self.macs, self.bytes)?;
        self.predicted_us.map_or(Ok(()), |time| write!(f, ", {time:.1} us"))
    }
}

/// Cost of a node whose shapes are known; what is not known counts nothing.
pub fn node_cost(graph: &Graph, node: NodeId) -> Cost {
    let node = graph.node(node);
    if let Op::Opaque(op) = &node.op {
        return branch_cost(graph, node, op).unwrap_or_default();
    }
    let shape = |index| node.input(index).and_then(|id| graph.ty(id).known_shape());
    let macs = match (&node.op, shape(0), shape(1)) {
        (Op::Conv(conv), Some(x), Some(w)) => conv.geometry(&x, &w).map_or(0, |geometry| geometry.macs()),
        (Op::ConvTranspose(conv), Some(x), Some(w)) => {
            conv.geometry(&x, &w).map_or(0, |geometry| geometry.phase_macs())
        }
        _ => 0,
    };
    // What is read twice is read once.
    let operands: std::collections::BTreeSet<_> =
        node.inputs().iter().chain(node.outputs()).flatten().collect();
    // Lists of axes, extents and pads are read when the program is made, not when it runs.
    let moved =
        operands.into_iter().filter(|&&id| graph.constant(id).is_none_or(|tensor| tensor.dtype().is_float()));
    let bytes: u64 = moved.map(|&id| type_bytes(graph.ty(id))).sum();
    // A normalisation is the multiplication and the addition that it becomes.
    let sweeps = if matches!(node.op, Op::BatchNormalization(_)) { 2 } else { 1 };
    Cost { macs, bytes: bytes * sweeps, predicted_us: None }
}

/// Cost of an If: its dearer branch, and what that gives moved into the outputs. Nothing for other operators that are kept as
/// they came.
fn branch_cost(graph: &Graph, node: &Node, op: &Opaque) -> Option<Cost> {
    let info = |id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None };
    let captured: Vec<_> = node.inputs().get(1..)?.iter().map(|input| input.map(info)).collect();
    let mut dearer = Cost::default();
    for condition in [true, false] {
        // A branch that does not fit the data is never taken.
        let Ok(branch) = op.control().ok()?.branch(condition, &captured) else { continue };
        let branch = branch?;
        let cost = graph_cost(&branch);
        let moved: u64 = branch.outputs().iter().map(|&id| 2 * type_bytes(branch.ty(id))).sum();
        dearer.macs = dearer.macs.max(cost.macs);
        dearer.bytes = dearer.bytes.max(cost.bytes.saturating_add(moved));
    }
    Some(dearer)
}

/// Bytes of a value; nothing where its type is open.
fn type_bytes(ty: &ValueType) -> u64 {
    let count = ty.known_shape().map_or(0, |shape| shape.iter().product());
    ty.dtype.and_then(|dtype| dtype.bytes_for(count)).unwrap_or(0) as u64
}

/// Sum over the nodes of a graph. Nodes on constants alone cost nothing: they are folded before the program runs.
pub fn graph_cost(graph: &Graph) -> Cost {
    let mut sum = Cost::default();
    let mut constant: std::collections::HashSet<_> =
        graph.values().filter(|(id, _)| graph.constant(*id).is_some()).map(|(id, _)| id).collect();
    for node in graph.order().unwrap_or_default() {
        let inputs = graph.node(node).inputs();
        if !inputs.is_empty() && inputs.iter().flatten().all(|id| constant.contains(id)) {
            constant.extend(graph.node(node).outputs().iter().flatten());
            continue;
        }
        let cost = node_cost(graph, node);
        sum.macs = sum.macs.saturating_add(cost.macs);
        sum.bytes = sum.bytes.saturating_add(cost.bytes);
    }
    sum
}
