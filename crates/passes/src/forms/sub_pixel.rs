//! ConvTranspose as PhaseConv and Interleave.

use crate::error::Result;
use crate::patch;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_ir::ops::{ConvTranspose, Interleave, PhaseConv};
use tconvc_ir::{Graph, NodeId};

/// `y = Interleave(PhaseConv(x, w, b), epilogue operands..)`.
pub(super) fn rewrite(
    graph: &mut Graph,
    node: NodeId,
    geometry: &DeconvGeometry,
    op: &ConvTranspose,
) -> Result<()> {
    let old = graph.node(node).clone();
    let (own, operands) = old.inputs().split_at(old.inputs().len().min(3));
    let phases = patch::add(graph, &format!("{}.phases", old.name), PhaseConv::from_geometry(geometry), own)?;
    let inputs: Vec<_> = [Some(phases)].iter().chain(operands).copied().collect();
    patch::replace(graph, node, Interleave::from_geometry(geometry, op.epilogue.clone()), &inputs)?;
    Ok(())
}
