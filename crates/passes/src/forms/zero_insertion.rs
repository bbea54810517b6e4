//! ConvTranspose as ZeroInsert and Conv, with the weights flipped and their channels swapped: at once where they are constant,
//! else by nodes.

use crate::error::Result;
use crate::patch;
use crate::weights::turned;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_ir::ops::{ConvTranspose, Reshape, Slice, Tile, Transpose, ZeroInsert};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// `y = Conv(ZeroInsert(x), flipped w, b, epilogue operands..)`.
pub(super) fn rewrite(
    graph: &mut Graph,
    node: NodeId,
    geometry: &DeconvGeometry,
    op: &ConvTranspose,
) -> Result<()> {
    let old = graph.node(node).clone();
    let (insert, conv) = ZeroInsert::from_geometry(geometry, op.epilogue.clone())?;
    let data = patch::add(graph, &format!("{}.zeros", old.name), insert, &[old.input(0)])?;
    let Some(weights) = old.input(1) else {
        return Err(tconvc_ir::Error::input(1, "W", "is required").into());
    };
    let weights = flipped(graph, &old.name, weights, geometry)?;
    let inputs: Vec<_> =
        [Some(data), Some(weights)].into_iter().chain(old.inputs().iter().skip(2).copied()).collect();
    patch::replace(graph, node, conv, &inputs)?;
    Ok(())
}

/// `[Cin, Cout/group, ..]` to `[Cout, Cin/group, ..]` with every spatial axis reversed.
fn flipped(graph: &mut Graph, name: &str, weights: ValueId, geometry: &DeconvGeometry) -> Result<ValueId> {
    let channels = geometry.channels();
    if let Some(weights) = graph.constant(weights) {
        let turned = turned(weights, channels.groups())?;
        return Ok(graph.add_constant(&format!("{name}.flipped"), turned));
    }
    if let Some(flipped) = flipped_quantised(graph, name, weights, channels.groups())? {
        return Ok(flipped);
    }
    let kernel: Vec<i64> = geometry.axes().iter().map(|axis| axis.kernel() as i64).collect();
    let axes = kernel.len() as i64;
    let reshape = |graph: &mut Graph, step: &str, value, head: &[usize]| -> Result<ValueId> {
        let shape: Vec<i64> =
            head.iter().map(|&extent| extent as i64).chain(kernel.iter().copied()).collect();
        let shape = patch::integers(graph, &format!("{name}.{step}.shape"), &shape);
        patch::add_on(graph, &format!("{name}.{step}"), Reshape { allow_zero: true }, &[value, shape])
    };
    let grouped = [channels.groups(), channels.input_per_group(), channels.output_per_group()];
    let split = reshape(graph, "split", weights, &grouped)?;
    let perm = [0, 2, 1].into_iter().chain(3..3 + kernel.len()).collect();
    let swapped = patch::add_on(graph, &format!("{name}.swapped"), Transpose { perm }, &[split])?;
    let joined = reshape(graph, "joined", swapped, &[channels.output(), channels.input_per_group()])?;
    let constants = [
        ("starts", vec![-1; kernel.len()]),
        ("ends", vec![i64::MIN; kernel.len()]),
        ("axes", (2..2 + axes).collect()),
        ("steps", vec![-1; kernel.len()]),
    ];
    let mut inputs = vec![joined];
    for (what, values) in constants {
        inputs.push(patch::integers(graph, &format!("{name}.flip.{what}"), &values));
    }
    patch::add_on(graph, &format!("{name}.flipped"), Slice, &inputs)
}

/// The same of quantised constants, in front of their DequantizeLinear: they keep their eight bits. `None` of other weights, and
/// where a scale's elements would not stay together.
fn flipped_quantised(
    graph: &mut Graph,
    name: &str,
    weights: ValueId,
    groups: usize,
) -> Result<Option<ValueId>> {
    let Some(maker) = graph.producer(weights).map(|id| graph.node(id).clone()) else { return Ok(None) };
    let Op::DequantizeLinear(mut op) = maker.op else { return Ok(None) };
    let constant = |index: usize| maker.inputs().get(index).copied().flatten().map(|id| graph.constant(id));
    let (Some(Some(tensor)), Some(Some(scale)), zero) = (constant(0), constant(1), constant(2)) else {
        return Ok(None);
    };
    if op.block_size != 0 || tensor.dtype().bits() < 8 || zero.is_some_and(|zero| zero.is_none()) {
        return Ok(None);
    }
    let mut lists: Vec<Tensor> = [Some(scale), zero.flatten()].into_iter().flatten().cloned().collect();
    if scale.len() > 1 {
        let rank = tensor.shape().len() as i64;
        match (if op.axis < 0 { op.axis + rank } else { op.axis }, groups) {
            (0, 1) => op.axis = 1,
            (1, _) => {
                op.axis = 0;
                // Each group has the same list.
                let times = Tensor::from_i64s(&[groups as i64]);
                for list in &mut lists {
                    *list = patch::eval(Tile, &[list, &times])?;
                }
            }
            _ => return Ok(None),
        }
    } else {
        // One for all is no list.
        for list in lists.iter_mut().filter(|list| list.len() == 1) {
            *list = list.reshaped([])?;
        }
    }
    let turned = turned(tensor, groups)?;
    let mut inputs = vec![graph.add_constant(&format!("{name}.quantised"), turned)];
    for (list, what) in lists.into_iter().zip(["scale", "zero"]) {
        inputs.push(graph.add_constant(&format!("{name}.{what}"), list));
    }
    Ok(Some(patch::add_on(graph, &format!("{name}.flipped"), op, &inputs)?))
}
