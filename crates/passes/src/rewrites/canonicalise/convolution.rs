//! Convolutions: auto_pad, output_shape and output_padding become explicit signed pads; kernel_shape is filled in; lists of
//! defaults become empty.

use super::Change;
use crate::matching::OrElsewhere;
use crate::pads;
use crate::pass::{Miss, Site, require};
use tconvc_ir::ops::{Conv, ConvTranspose, Epilogue, Padding};
use tconvc_ir::{Dim, Graph, NodeId};

/// An extent for axes whose own is not known and does not matter.
const STAND_IN: usize = 1 << 16;

/// Spatial extents of data and kernel; those of the data as far as known.
fn spatial(graph: &Graph, node: NodeId) -> Site<(Vec<Option<usize>>, Vec<usize>)> {
    let it = graph.node(node);
    let (x, w) = (it.input(0).or_elsewhere()?, it.input(1).or_elsewhere()?);
    let weights = graph.ty(w).shape.as_ref().filter(|shape| (3..=5).contains(&shape.len())).or_elsewhere()?;
    let kernel: Option<Vec<usize>> = weights[2..].iter().map(Dim::known).collect();
    let kernel = kernel.ok_or_else(|| Miss::Refused("the extents of the kernel are not known".into()))?;
    let data = match &graph.ty(x).shape {
        None => vec![None; kernel.len()],
        Some(shape) if shape.len() == weights.len() => shape[2..].iter().map(Dim::known).collect(),
        // Shape inference names the fault.
        Some(_) => return Err(Miss::Elsewhere),
    };
    Ok((data, kernel))
}

/// Element `axis` of a list with a value an axis, as a list for that axis alone; empty stays empty.
fn only<T: Clone>(list: &[T], axis: usize) -> Vec<T> {
    list.get(axis).cloned().into_iter().collect()
}

/// Pads of one axis alone.
fn only_pads(padding: &Padding, axis: usize) -> Padding {
    match padding {
        Padding::Explicit { begin, end } => {
            Padding::Explicit { begin: only(begin, axis), end: only(end, axis) }
        }
        other => other.clone(),
    }
}

/// The extent to compute pads with.
fn extent(known: Option<usize>, matters: bool, why: &str) -> Site<usize> {
    require(known.is_some() || !matters, || {
        format!("{why} depends on spatial extents, which are not known")
    })?;
    Ok(known.unwrap_or(STAND_IN))
}

fn respell<T: PartialEq + Into<tconvc_ir::Op>>(old: &T, new: T, padding: &Padding) -> Site<Change> {
    if *old == new {
        return Err(Miss::Elsewhere);
    }
    Ok(Change::Respell(new.into(), pads::describe(padding)))
}

pub(super) fn conv(graph: &Graph, node: NodeId, conv: &Conv) -> Site<Change> {
    let (data, kernel) = spatial(graph, node)?;
    let padding = match pads::split(&conv.padding, kernel.len()) {
        Some(pads) => pads::join(pads),
        None => {
            let pads = |axis: usize| {
                let alone = Conv {
                    kernel_shape: vec![],
                    strides: only(&conv.strides, axis),
                    dilations: only(&conv.dilations, axis),
                    group: 1,
                    padding: conv.padding.clone(),
                    epilogue: Epilogue::default(),
                    exact: conv.exact,
                };
                let matters = alone.strides.iter().any(|&stride| stride != 1);
                let extent = extent(data[axis], matters, "auto_pad with a stride")?;
                let geometry = alone.geometry(&[1, 1, extent], &[1, 1, kernel[axis]]).or_elsewhere()?;
                Ok([geometry.axes()[0].pad(), geometry.axes()[0].pad_end()])
            };
            pads::join((0..kernel.len()).map(pads).collect::<Site<Vec<_>>>()?)
        }
    };
    let new = Conv {
        kernel_shape: kernel,
        strides: pads::ones(&conv.strides),
        dilations: pads::ones(&conv.dilations),
        padding: padding.clone(),
        ..conv.clone()
    };
    respell(conv, new, &padding)
}

pub(super) fn conv_transpose(graph: &Graph, node: NodeId, conv: &ConvTranspose) -> Site<Change> {
    let (data, kernel) = spatial(graph, node)?;
    // ONNX Runtime's tools write batch and channels into output_shape as well.
    let wanted = match conv.output_shape.len() {
        length if length == kernel.len() + 2 => &conv.output_shape[2..],
        _ => &conv.output_shape[..],
    };
    let pads = |axis: usize| {
        let alone = ConvTranspose {
            kernel_shape: vec![],
            strides: only(&conv.strides, axis),
            dilations: only(&conv.dilations, axis),
            group: 1,
            padding: only_pads(&conv.padding, axis),
            output_padding: only(&conv.output_padding, axis),
            output_shape: only(wanted, axis),
            epilogue: Epilogue::default(),
        };
        // With SAME, the output is the input times the stride: what is cropped is the same for every extent.
        let extent = extent(data[axis], !wanted.is_empty(), "output_shape")?;
        let geometry = alone.geometry(&[1, 1, extent], &[1, 1, kernel[axis]]).or_elsewhere()?;
        Ok([geometry.axes()[0].pad(), geometry.axes()[0].pad_end()])
    };
    let padding = pads::join((0..kernel.len()).map(pads).collect::<Site<Vec<_>>>()?);
    let new = ConvTranspose {
        kernel_shape: kernel,
        strides: pads::ones(&conv.strides),
        dilations: pads::ones(&conv.dilations),
        padding: padding.clone(),
        output_padding: vec![],
        output_shape: vec![],
        ..conv.clone()
    };
    respell(conv, new, &padding)
}
