//! Convolutions: auto_pad, output_shape and output_padding become explicit signed pads; kernel_shape is filled in; lists of
//! defaults become empty.

use super::Change;
use crate::matching::OrElsewhere;
use crate::pads;
use crate::pass::{Miss, Site, require};
use tconvc_ir::ops::{Conv, ConvTranspose, Padding};
use tconvc_ir::{Dim, Graph, NodeId};

/// What is known of data and weights: the extents of the kernel, and whole shapes where they are known.
struct Shapes {
    kernel: Vec<usize>,
    data_and_weights: Option<(Vec<usize>, Vec<usize>)>,
}

fn shapes(graph: &Graph, node: NodeId) -> Site<Shapes> {
    let it = graph.node(node);
    let (x, w) = (it.input(0).or_elsewhere()?, it.input(1).or_elsewhere()?);
    let weights = graph.ty(w).shape.as_ref().filter(|shape| (3..=5).contains(&shape.len())).or_elsewhere()?;
    let kernel: Option<Vec<usize>> = weights[2..].iter().map(Dim::known).collect();
    let kernel = kernel.ok_or_else(|| Miss::Refused("the extents of the kernel are not known".into()))?;
    let data_and_weights = graph.ty(x).known_shape().zip(graph.ty(w).known_shape());
    Ok(Shapes { kernel, data_and_weights })
}

fn respell<T: PartialEq + Into<tconvc_ir::Op>>(old: &T, new: T, padding: &Padding) -> Site<Change> {
    if *old == new {
        return Err(Miss::Elsewhere);
    }
    Ok(Change::Respell(new.into(), pads::describe(padding)))
}

pub(super) fn conv(graph: &Graph, node: NodeId, conv: &Conv) -> Site<Change> {
    let Shapes { kernel, data_and_weights } = shapes(graph, node)?;
    let written = pads::split(&conv.padding, kernel.len());
    let padding = match (written, data_and_weights) {
        (Some(pads), _) => pads::join(pads),
        (None, Some((x, w))) => {
            let geometry = conv.geometry(&x, &w).or_elsewhere()?;
            pads::join(geometry.axes().iter().map(|axis| [axis.pad(), axis.pad_end()]))
        }
        (None, None) => {
            // With stride 1 the pads are the reach less one, whatever the extents.
            require(
                conv.strides.iter().all(|&stride| stride == 1),
                || "auto_pad with a stride depends on spatial extents, which are not known",
            )?;
            let total = |axis: usize| {
                let dilation = conv.dilations.get(axis).copied().unwrap_or(1) as i64;
                (kernel[axis] as i64 - 1).saturating_mul(dilation)
            };
            let pads = (0..kernel.len()).map(|axis| {
                let (less, more) = (total(axis).div_euclid(2), total(axis) - total(axis).div_euclid(2));
                if conv.padding == Padding::SameLower { [more, less] } else { [less, more] }
            });
            pads::join(pads)
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
    let Shapes { kernel, data_and_weights } = shapes(graph, node)?;
    let axes = kernel.len();
    let padding = match (data_and_weights, pads::split(&conv.padding, axes)) {
        (Some((x, w)), _) => {
            let geometry = conv.geometry(&x, &w).or_elsewhere()?;
            pads::join(geometry.axes().iter().map(|axis| [axis.pad(), axis.pad_end()]))
        }
        (None, Some(pads)) => {
            require(
                conv.output_shape.is_empty(),
                || "output_shape depends on spatial extents, which are not known",
            )?;
            let extra = |axis: usize| conv.output_padding.get(axis).copied().unwrap_or(0) as i64;
            pads::join(
                pads.iter().enumerate().map(|(axis, &[begin, end])| [begin, end.saturating_sub(extra(axis))]),
            )
        }
        (None, None) => {
            require(
                conv.output_shape.is_empty(),
                || "output_shape depends on spatial extents, which are not known",
            )?;
            // The output is the input times the stride, so what is cropped is reach - stride, whatever the extents.
            let at = |list: &[usize], axis: usize, default| list.get(axis).copied().unwrap_or(default) as i64;
            let pads = (0..axes).map(|axis| {
                let reach =
                    (kernel[axis] as i64 - 1).saturating_mul(at(&conv.dilations, axis, 1)).saturating_add(1);
                let extra = at(&conv.output_padding, axis, 0);
                let total = reach.saturating_add(extra).saturating_sub(at(&conv.strides, axis, 1));
                let (less, more) = (total.div_euclid(2), total - total.div_euclid(2));
                let [begin, end] =
                    if conv.padding == Padding::SameLower { [more, less] } else { [less, more] };
                [begin, end - extra]
            });
            pads::join(pads)
        }
    };
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
