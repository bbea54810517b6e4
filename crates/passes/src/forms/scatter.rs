//! ConvTranspose as ColumnGemm and OverlapAdd.

use crate::error::Result;
use crate::patch;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_ir::ops::{ColumnGemm, ConvTranspose, OverlapAdd};
use tconvc_ir::{Graph, NodeId};

/// `y = OverlapAdd(ColumnGemm(x, w), b, epilogue operands..)`.
pub(super) fn rewrite(
    graph: &mut Graph,
    node: NodeId,
    geometry: &DeconvGeometry,
    op: &ConvTranspose,
) -> Result<()> {
    let old = graph.node(node).clone();
    let (own, operands) = old.inputs().split_at(old.inputs().len().min(2));
    let columns =
        patch::add(graph, &format!("{}.columns", old.name), ColumnGemm::from_geometry(geometry), own)?;
    let inputs: Vec<_> = [Some(columns)].iter().chain(operands).copied().collect();
    patch::replace(graph, node, OverlapAdd::from_geometry(geometry, op.epilogue.clone()), &inputs)?;
    Ok(())
}
