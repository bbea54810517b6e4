//! Operators that give what they are given: same type, same shape, same elements.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, same_shape, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::Resize;
use tconvc_ir::resize_axis::Coordinates;
use tconvc_ir::{Graph, NodeId, Op, ValueId};

/// Removes operators that do nothing.
///
/// - Pattern: Identity, Dropout outside of training, Cast to the same type, Slice of everything, Pad by nothing, Expand and Reshape to the same shape, Tile by one, Transpose that moves
///   nothing, Concat of one input.
/// - Guard: the shapes are known to be equal; the name of a graph output can go to another maker.
/// - Cost: falls by the operator.
pub struct Noop;

impl Rewrite for Noop {
    type Found = ValueId;

    fn about(&self) -> About {
        About {
            name: "noop",
            summary: "remove operators that give what they are given",
            pattern: "Identity, Dropout, Cast, Slice, Pad, Expand, Tile, Transpose, Resize, Concat without effect",
            claim: "falls by the operator",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<ValueId> {
        let it = graph.node(node);
        let (data, output) = (it.input(0).or_elsewhere()?, sole_output(graph, node).or_elsewhere()?);
        let list = |index: usize| graph.constant_input(node, index).and_then(|list| list.to_i64s().ok());
        let all = |index: usize, value: i64| list(index).is_some_and(|list| list.iter().all(|&x| x == value));
        let nothing = match &it.op {
            // The same extent without a step is the same elements.
            Op::Slice(_) => it.input(4).is_none() || all(4, 1),
            Op::Pad(_) => all(1, 0),
            Op::Expand(_) | Op::Reshape(_) => true,
            Op::Tile(_) => all(1, 1),
            Op::Identity(_) => true,
            Op::ZeroInsert(op) => {
                let pads = op.begin.iter().chain(&op.end);
                op.strides.iter().all(|&stride| stride == 1) && pads.into_iter().all(|&pad| pad == 0)
            }
            Op::Cast(_) | Op::CastLike(_) => {
                graph.ty(data).dtype.is_some_and(|dtype| graph.ty(output).dtype == Some(dtype))
            }
            // Without training_mode, or with a constant false.
            Op::Dropout(_) => {
                let training =
                    it.input(2).map(|id| graph.constant(id).and_then(|tensor| tensor.to_f64s().ok()));
                training
                    .is_none_or(|training| training.is_some_and(|values| values.iter().all(|&x| x == 0.0)))
            }
            Op::Transpose(op) => {
                let perm = graph.ty(data).rank().and_then(|rank| op.axes(rank).ok()).or_elsewhere()?;
                perm.iter().enumerate().all(|(i, &axis)| i == axis)
            }
            Op::Resize(op) => unscaled(graph, node, op),
            Op::Concat(_) => it.inputs().len() == 1,
            _ => false,
        };
        if !nothing || !(same_shape(graph, data, output) || matches!(it.op, Op::Identity(_))) {
            return Err(Miss::Elsewhere);
        }
        require(patch::can_bypass(graph, node, data), || {
            format!(
                "`{}` is an output of the graph, and so is `{}` or an input",
                graph.value(output).name,
                graph.value(data).name
            )
        })?;
        Ok(data)
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, data: ValueId) -> Result<Decision> {
        patch::bypass(graph, node, data)?;
        Ok(Decision::only("does nothing: removed"))
    }
}

/// Every output lies on the input of the same index.
fn unscaled(graph: &Graph, node: NodeId, op: &Resize) -> bool {
    let scales = graph.node(node).input(2).map(|id| graph.constant(id).and_then(|list| list.to_f64s().ok()));
    // The last two lie elsewhere even at a scale of 1.
    !matches!(op.coordinates, Coordinates::TfCropAndResize | Coordinates::TfHalfPixelForNn)
        && match scales {
            // Extents that are the same were asked for, or scales that may be of 1.1 and rounded.
            None => true,
            Some(scales) => scales.is_some_and(|scales| scales.iter().all(|&scale| scale == 1.0)),
        }
}
