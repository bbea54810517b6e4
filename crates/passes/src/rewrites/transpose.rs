//! Transpositions one after the other are one.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site};
use crate::patch;
use tconvc_ir::ops::Transpose as TransposeOp;
use tconvc_ir::{Graph, NodeId, Op, ValueId};

/// Composes transpositions; those that cancel leave one that moves nothing, which `noop` removes.
///
/// - Pattern: a Transpose of a Transpose.
/// - Guard: none.
/// - Cost: stays, and falls by the inner Transpose when nothing else reads it.
pub struct Transpose;

impl Rewrite for Transpose {
    type Found = (ValueId, Vec<usize>);

    fn about(&self) -> About {
        About {
            name: "transpose",
            summary: "compose transpositions",
            pattern: "Transpose(Transpose(x))",
            claim: "stays, or falls by the inner Transpose",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Self::Found> {
        let Op::Transpose(outer) = &graph.node(node).op else { return Err(Miss::Elsewhere) };
        let before = producer(graph, node, 0).or_elsewhere()?;
        let Op::Transpose(inner) = &graph.node(before).op else { return Err(Miss::Elsewhere) };
        let data = graph.node(before).input(0).or_elsewhere()?;
        let rank = graph.ty(data).rank().or_elsewhere()?;
        let (outer, inner) = (outer.axes(rank).or_elsewhere()?, inner.axes(rank).or_elsewhere()?);
        Ok((data, outer.into_iter().map(|axis| inner[axis]).collect()))
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, (data, perm): Self::Found) -> Result<Decision> {
        let before = producer(graph, node, 0);
        *graph.op_mut(node) = TransposeOp { perm: perm.clone() }.into();
        graph.set_input(node, 0, Some(data));
        patch::remove_unread(graph, before);
        Ok(Decision::only(format!("with the Transpose before it moves axes {perm:?}")))
    }
}
