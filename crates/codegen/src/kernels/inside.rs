//! Nodes in the graphs that `If`, `Loop` and `Scan` hold: what they take, and which of them are interpreted. Their code is made when
//! they run; what it will be is found out as for any other graph, where the shapes of what goes in are known.

use super::refusal::Estimate;
use super::survey;
use tconvc_ir::ops::{Control, InputInfo};
use tconvc_ir::{Graph, NodeId, Op};
use tconvc_machine::Target;
use tconvc_passes::cut::cut;
use tconvc_passes::plan::plan;
use tconvc_passes::{Limits, Options, optimise};

/// Of how many runs of an If one branch is taken, for all that is known.
const SHARE_OF_A_BRANCH: f64 = 0.5;

/// What is known of the nodes inside of a node.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Nanoseconds that all of them take in a run of the node.
    pub nanoseconds: f64,
    /// Those that are interpreted.
    pub interpreted: Vec<Estimate>,
}

/// The nodes inside of a node; nothing where it holds no graphs.
pub(super) fn of_node(graph: &Graph, id: NodeId, target: &Target) -> Inside {
    let node = graph.node(id);
    let Op::Opaque(op) = &node.op else { return Inside::default() };
    let Ok(control) = op.control() else { return Inside::default() };
    let info = |&input: &Option<_>| {
        input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
    };
    let inputs: Vec<Option<InputInfo<'_>>> = node.inputs().iter().map(info).collect();
    let times = match control {
        Control::If { .. } => SHARE_OF_A_BRANCH,
        Control::Loop { .. } | Control::Scan(_) => control.trip_count(&inputs).unwrap_or(1) as f64,
    };
    let mut all = Inside::default();
    for (name, inner) in control.typed_graphs(&inputs).unwrap_or_default() {
        let path = format!("{}/{name}", node.name);
        for mut estimate in of_graph(inner, target).unwrap_or_default() {
            estimate.scale(times);
            all.nanoseconds += estimate.nanoseconds;
            if estimate.refusal.is_some() {
                estimate.put_under(&path);
                all.interpreted.push(estimate);
            }
        }
    }
    all
}

/// The steps of a graph; nothing where shapes are not known, or it is at fault.
fn of_graph(mut graph: Graph, target: &Target) -> Option<Vec<Estimate>> {
    let is_known = |graph: &Graph| graph.inputs().iter().all(|&id| graph.ty(id).known_shape().is_some());
    if !is_known(&graph) {
        return None;
    }
    optimise(&mut graph, &Options { check: false, ..Options::default() }).ok()?;
    let parts = cut(&graph).ok()?;
    let before = parts.as_ref().map_or(&graph, |parts| &parts.before);
    let plan = plan(before, &Limits::default()).ok()?;
    let mut steps: Vec<Estimate> = plan.steps.iter().flat_map(|step| survey(before, target, step)).collect();
    steps.extend(parts.iter().flat_map(|parts| Estimate::of_data(&parts.middle, target)));
    Some(steps)
}
