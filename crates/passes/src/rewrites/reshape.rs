//! Chains of operators that only change the shape become one Reshape.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site};
use crate::patch;
use tconvc_ir::ops::Reshape as ReshapeOp;
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Merges reshapes.
///
/// - Pattern: a Reshape of a Reshape; a Transpose that moves only axes of extent 1.
/// - Guard: the list of extents is constant and copies none (canonical); extents are known for a Transpose.
/// - Cost: stays, and falls by the inner Reshape when nothing else reads it.
pub struct Reshape;

/// What the node becomes.
pub enum Found {
    /// Reads this value instead.
    Read(ValueId),
    /// A Reshape of its data to these extents.
    To(ValueId, Vec<i64>),
}

impl Rewrite for Reshape {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "reshape",
            summary: "merge reshapes of reshapes; a Transpose of unit axes is a Reshape",
            pattern: "Reshape(Reshape(x)); Transpose that moves only axes of extent 1",
            claim: "stays, or falls by the inner Reshape",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        match &graph.node(node).op {
            Op::Reshape(op) => {
                let list =
                    graph.constant_input(node, 1).and_then(|list| list.to_i64s().ok()).or_elsewhere()?;
                let inner = producer(graph, node, 0).or_elsewhere()?;
                // A 0 copies an extent of what is there now.
                if !matches!(graph.node(inner).op, Op::Reshape(_)) || (list.contains(&0) && !op.allow_zero) {
                    return Err(Miss::Elsewhere);
                }
                Ok(Found::Read(graph.node(inner).input(0).or_elsewhere()?))
            }
            Op::Transpose(op) => {
                let data = graph.node(node).input(0).or_elsewhere()?;
                let shape = graph.ty(data).known_shape().or_elsewhere()?;
                let perm = op.axes(shape.len()).or_elsewhere()?;
                let moved: Vec<usize> = perm.iter().copied().filter(|&axis| shape[axis] != 1).collect();
                let still = perm.iter().enumerate().all(|(i, &axis)| i == axis);
                if !moved.is_sorted() || still || shape.contains(&0) {
                    return Err(Miss::Elsewhere);
                }
                Ok(Found::To(data, perm.iter().map(|&axis| shape[axis] as i64).collect()))
            }
            _ => Err(Miss::Elsewhere),
        }
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        match found {
            Found::Read(value) => {
                let inner = producer(graph, node, 0);
                graph.set_input(node, 0, Some(value));
                patch::remove_unread(graph, inner);
                Ok(Decision::only("takes the place of the Reshape before it"))
            }
            Found::To(data, extents) => {
                let name =
                    sole_output(graph, node).map_or_else(String::new, |id| graph.value(id).name.clone());
                let list = graph.add_constant(&format!("{name}.shape"), Tensor::from_i64s(&extents));
                patch::replace(graph, node, ReshapeOp { allow_zero: false }, &[Some(data), Some(list)])?;
                Ok(Decision::only(format!("is Reshape to {extents:?}")))
            }
        }
    }
}
