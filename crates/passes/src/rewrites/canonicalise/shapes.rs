//! Operators that only change the shape: all are a Reshape to a constant list of extents, as far as these are known.

use super::Change;
use crate::matching::{OrElsewhere, sole_output};
use crate::pass::{Miss, Site, require};
use tconvc_ir::ops::Reshape;
use tconvc_ir::{Dim, Graph, NodeId, Op, Tensor};

/// Flatten, Squeeze, Unsqueeze, and Reshape by another list.
pub(super) fn reshape(graph: &Graph, node: NodeId) -> Site<Change> {
    let it = graph.node(node);
    let (data, output) = (it.input(0).or_elsewhere()?, sole_output(graph, node).or_elsewhere()?);
    let shape = graph.ty(output).shape.as_ref().or_elsewhere()?;
    let extents: Vec<Option<i64>> = shape.iter().map(Dim::known_i64).collect();
    require(extents.iter().filter(|extent| extent.is_none()).count() <= 1, || {
        format!("more than one extent of its result {} is not known", graph.ty(output))
    })?;
    // That what goes has an extent of 1 is more than a Reshape says.
    let kept = |dim: &&Dim| dim.known() != Some(1);
    let squeezed = matches!(it.op, Op::Squeeze(_))
        && graph.ty(data).shape.as_ref().is_none_or(|dims| dims.iter().filter(kept).count() > shape.len());
    require(!squeezed, || "extents that it takes away are not known")?;
    // A 0 would mean something else, and beside a 0 a -1 is not defined.
    require(!extents.contains(&Some(0)), || "its result has no elements")?;
    let list = Tensor::from_i64s(&extents.into_iter().map(|extent| extent.unwrap_or(-1)).collect::<Vec<_>>());
    let canonical = Op::from(Reshape { allow_zero: false });
    if it.op == canonical && graph.constant_input(node, 1) == Some(&list) {
        return Err(Miss::Elsewhere);
    }
    let what = format!("is Reshape to {}", graph.ty(output));
    Ok(Change::WithList { op: canonical, data, list, what })
}
