//! What is cut off the result of a transposed convolution is not computed: a Slice, or a Pad by less than nothing, behind
//! it goes into its pads.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, sole_output};
use crate::options::Options;
use crate::pads;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Border, EpilogueStep, Pad, Slice};
use tconvc_ir::{Graph, NodeId, Op, Tensor};

/// Takes crops into a ConvTranspose.
///
/// - Pattern: a Slice or a Pad with negative pads that reads what a ConvTranspose gives.
/// - Guard: nothing else reads it; steps are 1 and only spatial axes are cut; all numbers and extents are known; no
///   residual is added before; something is left of each axis.
/// - Cost: falls by the outputs that are not computed, and by the operator when nothing of it is left.
pub struct Crop;

/// What is cut where, and what is left for a Pad.
pub struct Found {
    conv: NodeId,
    /// Cropped at the beginning and end of each spatial axis.
    cropped: Vec<[i64; 2]>,
    /// Pads of every axis that remain to be added.
    remaining: Vec<[i64; 2]>,
}

impl Rewrite for Crop {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "crop",
            summary: "do not compute what is cut off the result of a transposed convolution",
            pattern: "Slice, or Pad with negative pads, behind ConvTranspose",
            claim: "falls by the outputs that are not computed",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        if !matches!(graph.node(node).op, Op::Slice(_) | Op::Pad(_)) {
            return Err(Miss::Elsewhere);
        }
        let conv = producer(graph, node, 0).or_elsewhere()?;
        let Op::ConvTranspose(op) = &graph.node(conv).op else { return Err(Miss::Elsewhere) };
        let value = sole_output(graph, conv).or_elsewhere()?;
        let shape = graph.ty(value).known_shape();
        let shape = shape.ok_or_else(|| Miss::Refused("the extents are not known".into()))?;
        let (cropped, remaining) = match &graph.node(node).op {
            Op::Slice(_) => (sliced(graph, node, &shape)?, vec![[0, 0]; shape.len()]),
            Op::Pad(pad) => padded(graph, node, *pad, &shape)?,
            _ => return Err(Miss::Elsewhere),
        };
        if cropped.iter().flatten().all(|&crop| crop == 0) {
            return Err(Miss::Elsewhere);
        }
        let name = &graph.node(conv).name;
        require(
            cropped[..2].iter().flatten().all(|&crop| crop == 0),
            || "it cuts batch or channels, not only spatial axes",
        )?;
        require(graph.has_single_use(value), || format!("what {name} gives is needed elsewhere as well"))?;
        require(!op.epilogue.steps.contains(&EpilogueStep::Add), || {
            format!("{name} adds a residual of full size")
        })?;
        require(pads::explicit(op, shape.len() - 2).is_some(), || {
            format!("the pads of {name} are not explicit")
        })?;
        let left = shape.iter().zip(&cropped).all(|(&extent, [begin, end])| extent as i64 - begin - end >= 1);
        require(left, || "it leaves nothing")?;
        Ok(Found { conv, cropped: cropped[2..].to_vec(), remaining })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { conv, cropped, remaining } = found;
        let name = graph.node(conv).name.clone();
        let Op::ConvTranspose(op) = graph.op_mut(conv) else {
            return Err(tconvc_ir::Error::Graph(format!("node `{name}` was to be a ConvTranspose")).into());
        };
        let own = pads::explicit(op, cropped.len()).unwrap_or_default();
        op.padding =
            pads::join(own.iter().zip(&cropped).map(|(own, crop)| [own[0] + crop[0], own[1] + crop[1]]));
        let what = format!("{cropped:?} goes into the pads of {name}");
        if remaining.iter().flatten().all(|&pad| pad == 0) {
            patch::absorb(graph, conv, node)?;
            return Ok(Decision::only(what));
        }
        // The Pad stays for what it adds, on a smaller tensor.
        if let Some(value) = sole_output(graph, conv) {
            let inputs = graph.node(conv).inputs().to_vec();
            let ty = patch::infer(graph, &graph.node(conv).op, &inputs, 1)?;
            if let Some(ty) = ty.into_iter().next() {
                graph.set_ty(value, ty);
            }
        }
        let list = remaining.iter().map(|pad| pad[0]).chain(remaining.iter().map(|pad| pad[1]));
        let pads = Tensor::from_i64s(&list.collect::<Vec<_>>());
        let id = graph.add_constant(&format!("{}.pads", graph.node(node).name), pads);
        patch::swap_constant(graph, node, 1, id)?;
        // The new list is of every axis.
        if graph.node(node).input(3).is_some() {
            graph.set_input(node, 3, None);
        }
        Ok(Decision::only(what))
    }
}

/// Integers of a constant input; `Ok(None)` when the input is absent.
pub(super) fn list(graph: &Graph, node: NodeId, index: usize, name: &str) -> Site<Option<Vec<i64>>> {
    let Some(value) = graph.node(node).input(index) else { return Ok(None) };
    let values = graph.constant(value).and_then(|tensor| tensor.to_i64s().ok());
    values.map(Some).ok_or_else(|| Miss::Refused(format!("its {name} are not constant")))
}

fn sliced(graph: &Graph, node: NodeId, shape: &[usize]) -> Site<Vec<[i64; 2]>> {
    let starts = list(graph, node, 1, "starts")?.or_elsewhere()?;
    let ends = list(graph, node, 2, "ends")?.or_elsewhere()?;
    let (axes, steps) = (list(graph, node, 3, "axes")?, list(graph, node, 4, "steps")?);
    let axes = Slice::axes(shape, &starts, &ends, axes.as_deref(), steps.as_deref()).or_elsewhere()?;
    let crop = |(axis, &extent): (&tconvc_ir::ops::SliceAxis, &usize)| {
        require(axis.step == 1, || format!("it has a step of {}", axis.step))?;
        let end = extent as i64 - axis.start as i64 - axis.count as i64;
        Ok([axis.start as i64, end])
    };
    axes.iter().zip(shape).map(crop).collect()
}

/// Begin and end of each axis.
type Pads = Vec<[i64; 2]>;

/// What a Pad crops and what it adds.
pub(super) fn padded(graph: &Graph, node: NodeId, pad: Pad, shape: &[usize]) -> Site<(Pads, Pads)> {
    let pads = list(graph, node, 1, "pads")?.or_elsewhere()?;
    let axes = list(graph, node, 3, "axes")?;
    let pads = Pad::pads(shape.len(), &pads, axes.as_deref()).or_elsewhere()?;
    let part = |keep: fn(i64) -> i64| -> Vec<[i64; 2]> { pads.iter().map(|pad| pad.map(keep)).collect() };
    let (cropped, remaining) = (part(|pad| -pad.min(0)), part(|pad| pad.max(0)));
    // What is added may be of elements that are cropped only when it is not of these.
    let mixed = cropped.iter().zip(&remaining).any(|(crop, add)| crop != &[0, 0] && add != &[0, 0]);
    require(!mixed || pad.border == Border::Constant, || "it crops and continues the same axis")?;
    Ok((cropped, remaining))
}
