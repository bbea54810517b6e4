//! Which opset a model is written for.

use super::since::since;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::onnx::attributes;
use crate::onnx::import::{CANONICAL_OPSET, changed_since};
use crate::onnx::subgraph::Contents;
use crate::ops::Op;

/// Oldest opset that is written.
pub(super) const OLDEST: i64 = 13;

/// The opset that the model was read in, or the first later one that has all of its operators. An operator that is passed through
/// and that a later opset changed keeps the model at its own.
pub(in super::super) fn choose(graph: &Graph) -> Result<i64> {
    let own = graph.opsets.get("").copied().unwrap_or(CANONICAL_OPSET);
    let mut needs = Needs::default();
    needs.visit(graph, own)?;
    let newest = needs.newest.as_ref().map_or(OLDEST, |(_, since)| *since);
    let opset = own.max(OLDEST).max(newest);
    match (needs.kept, needs.newest) {
        (Some(kept), _) if own < OLDEST => Err(Error::Unsupported(format!(
            "writing opset {own}, which node `{kept}` is kept as it was for; accepted are {OLDEST} and later"
        ))),
        (Some(kept), Some((newer, since))) if opset > own => Err(Error::Unsupported(format!(
            "node {newer} takes opset {since}, but node `{kept}` is kept as it was for opset {own}"
        ))),
        _ => Ok(opset),
    }
}

/// What the nodes of a graph ask of the opset.
#[derive(Default)]
struct Needs {
    /// Name and operator of the node that takes the newest one, and that one.
    newest: Option<(String, i64)>,
    /// A node that is passed through and would mean something else in a later one.
    kept: Option<String>,
}

impl Needs {
    fn visit(&mut self, graph: &Graph, own: i64) -> Result<()> {
        for id in graph.order()? {
            let node = graph.node(id);
            match &node.op {
                Op::Opaque(op) => match op.control() {
                    Ok(control) => {
                        for graph in control.graphs() {
                            self.visit(graph, own)?;
                        }
                    }
                    Err(_) => {
                        let encoded: Vec<_> = op
                            .attributes
                            .iter()
                            .map(|(name, value)| attributes::write(name, value))
                            .collect();
                        let inside = Contents::of(&encoded)?.operators;
                        let outside = op.domain.is_empty().then_some(&op.op_type);
                        if inside.iter().chain(outside).any(|op_type| changed_since(op_type, own)) {
                            self.kept.get_or_insert_with(|| node.name.clone());
                        }
                    }
                },
                op => {
                    let since = since(graph, node);
                    if self.newest.as_ref().is_none_or(|(_, newest)| since > *newest) {
                        self.newest = Some((format!("`{}` ({})", node.name, op.name()), since));
                    }
                }
            }
        }
        Ok(())
    }
}
