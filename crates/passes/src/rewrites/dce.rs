//! Dead code: nodes whose outputs nothing reads, and values that nothing needs.

use crate::error::Result;
use crate::journal::Decision;
use crate::pass::{About, Context, Pass};
use tconvc_ir::Graph;

/// Removes what no graph output depends on.
///
/// - Pattern: a node none of whose outputs is read or is a graph output; a constant or undefined value without a reader.
/// - Guard: none; no operator has effects. Optional outputs of a node that stays are not dropped.
/// - Cost: falls by that of the nodes removed.
pub struct DeadCode;

impl Pass for DeadCode {
    fn about(&self) -> About {
        About {
            name: "dce",
            summary: "remove nodes and values that no graph output depends on",
            pattern: "a node whose outputs nothing reads",
            claim: "falls by the nodes removed",
        }
    }

    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
        let values = graph.values().count();
        let mut changed = false;
        // Users come after makers, so one sweep from the end finds whole dead chains.
        for node in graph.order()?.into_iter().rev() {
            if context.exhausted() {
                break;
            }
            let live = |&id: &tconvc_ir::ValueId| graph.is_output(id) || !graph.users(id).is_empty();
            if graph.node(node).outputs().iter().flatten().any(live) {
                continue;
            }
            if let Some(node) = graph.remove_node(node) {
                context.applied("dce", &node.name, node.op.name(), Decision::only("removed"));
                changed = true;
            }
        }
        graph.remove_unused_values();
        Ok(changed || graph.values().count() != values)
    }
}
