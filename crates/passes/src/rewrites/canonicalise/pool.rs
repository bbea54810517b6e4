//! Pooling: auto_pad becomes explicit pads; ceil_mode goes where it changes nothing.

use super::Change;
use crate::matching::OrElsewhere;
use crate::pads;
use crate::pass::{Miss, Site, require};
use tconvc_ir::geometry::same_pads;
use tconvc_ir::ops::{Padding, Pool};
use tconvc_ir::{Graph, NodeId};

pub(super) fn pool(graph: &Graph, node: NodeId, op: &Pool) -> Site<Change> {
    let data = graph.node(node).input(0).or_elsewhere()?;
    let (shape, axes) = (graph.ty(data).known_shape(), op.kernel_shape.len());
    let at = |list: &[usize], axis: usize| list.get(axis).copied().unwrap_or(1);
    let padding = match (pads::split(&op.padding, axes), &shape) {
        (Some(pads), _) => pads::join(pads),
        (None, shape) => {
            require(
                shape.is_some() || op.strides.iter().all(|&stride| stride == 1),
                || "auto_pad with a stride depends on spatial extents, which are not known",
            )?;
            let lower = op.padding == Padding::SameLower;
            let pad = |axis: usize| {
                // With stride 1 the extent does not matter.
                let extent = shape.as_ref().map_or(Some(1), |shape| shape.get(axis + 2).copied())?;
                let (stride, dilation) = (at(&op.strides, axis), at(&op.dilations, axis));
                same_pads(extent, op.kernel_shape[axis], stride, dilation, lower).ok()
            };
            pads::join((0..axes).map(pad).collect::<Option<Vec<_>>>().or_elsewhere()?)
        }
    };
    let mut new = Pool {
        strides: pads::ones(&op.strides),
        dilations: pads::ones(&op.dilations),
        padding,
        // SAME_* speaks for the output extent alone.
        ceil_mode: op.ceil_mode && pads::split(&op.padding, axes).is_some(),
        ..op.clone()
    };
    if let (true, Some(shape)) = (new.ceil_mode, &shape) {
        let floor = Pool { ceil_mode: false, ..new.clone() };
        if floor.geometry(shape).is_ok_and(|floor| new.geometry(shape) == Ok(floor)) {
            new = floor;
        }
    }
    if new == *op {
        return Err(Miss::Elsewhere);
    }
    let what = pads::describe(&new.padding);
    Ok(Change::Respell(new.into(), what))
}
