//! Zeros put around the data of a convolution are pads of the convolution.

use super::crop::padded;
use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, scalar};
use crate::options::Options;
use crate::pads;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Border, Padding};
use tconvc_ir::{Graph, NodeId, Op, ValueId};

/// Takes a Pad into the convolution behind it.
///
/// - Pattern: a Conv or ConvTranspose that reads what a Pad gives.
/// - Guard: the Pad adds zeros to spatial axes only and crops nothing; the convolution's own pads are explicit and not
///   negative where something is added.
/// - Cost: falls by the padded tensor when nothing else reads it. A transposed convolution no longer multiplies the zeros.
pub struct PadIntoConv;

/// What the convolution reads instead, with which pads.
pub struct Found {
    data: ValueId,
    padding: Padding,
}

impl Rewrite for PadIntoConv {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "pad",
            summary: "take zeros put around a convolution's data into its pads",
            pattern: "Conv or ConvTranspose behind Pad",
            claim: "falls by the padded tensor",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        if !matches!(graph.node(node).op, Op::Conv(_) | Op::ConvTranspose(_)) {
            return Err(Miss::Elsewhere);
        }
        let before = producer(graph, node, 0).or_elsewhere()?;
        let Op::Pad(pad) = graph.node(before).op else { return Err(Miss::Elsewhere) };
        let name = &graph.node(before).name;
        let data = graph.node(before).input(0).or_elsewhere()?;
        let shape = graph.ty(data).known_shape();
        let shape = shape.ok_or_else(|| Miss::Refused(format!("the extents before {name} are not known")))?;
        require(pad.border == Border::Constant, || format!("{name} continues the data, not with zeros"))?;
        if let Some(value) = graph.node(before).input(2) {
            require(scalar(graph, value) == Some(0.0), || format!("{name} does not pad with zeros"))?;
        }
        let (cropped, added) = padded(graph, before, pad, &shape)?;
        require(cropped.iter().flatten().all(|&crop| crop == 0), || format!("{name} crops as well"))?;
        require(added[..2].iter().flatten().all(|&pad| pad == 0), || {
            format!("{name} pads batch or channels, not only spatial axes")
        })?;
        let (added, axes) = (&added[2..], shape.len() - 2);
        let explicit = |pads: Option<Vec<[i64; 2]>>| {
            pads.ok_or_else(|| Miss::Refused("its own pads are not explicit".into()))
        };
        let padding = match &graph.node(node).op {
            Op::Conv(op) => {
                let own = explicit(pads::split(&op.padding, axes))?;
                let crops =
                    own.iter().zip(added).any(|(own, added)| (0..2).any(|i| own[i] < 0 && added[i] > 0));
                require(!crops, || "its own pads crop what is added")?;
                pads::join(own.iter().zip(added).map(|(own, added)| [own[0] + added[0], own[1] + added[1]]))
            }
            Op::ConvTranspose(op) => {
                let own = explicit(pads::explicit(op, axes))?;
                // A zero input adds nothing: it moves the output by a stride, which is a pad of minus a stride.
                let stride = |axis: usize| op.strides.get(axis).copied().unwrap_or(1) as i64;
                let pad = |(axis, (own, added)): (usize, (&[i64; 2], &[i64; 2]))| {
                    let moved = |i: usize| own[i].saturating_sub(added[i].saturating_mul(stride(axis)));
                    [moved(0), moved(1)]
                };
                pads::join(own.iter().zip(added).enumerate().map(pad))
            }
            _ => return Err(Miss::Elsewhere),
        };
        Ok(Found { data, padding })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, Found { data, padding }: Found) -> Result<Decision> {
        let before = producer(graph, node, 0);
        let name = before.map_or_else(String::new, |before| graph.node(before).name.clone());
        match graph.op_mut(node) {
            Op::Conv(op) => op.padding = padding,
            Op::ConvTranspose(op) => op.padding = padding,
            _ => {}
        }
        graph.set_input(node, 0, Some(data));
        patch::remove_unread(graph, before);
        Ok(Decision::only(format!("takes {name} into its pads")))
    }
}
