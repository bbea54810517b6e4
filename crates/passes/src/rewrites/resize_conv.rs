//! Nearest-neighbour enlargement and then a convolution: a transposed convolution with summed taps.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, private_producer};
use crate::options::Options;
use crate::pads;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use crate::weights::{summed, turned};
use tconvc_ir::ops::{ConvTranspose, Resize, ResizeMode};
use tconvc_ir::resize_axis::{Coordinates, Rounding};
use tconvc_ir::{DType, Graph, NodeId, Op, ValueId};

/// Joins a nearest Resize by whole numbers with the convolution behind it.
///
/// Output `o` of the enlarged data is input `o / s`, so taps of the convolution that read copies of one input are one tap
/// with the sum of their weights: a kernel of `K` becomes one of `K + s - 1` at stride `s`, of which each output
/// takes every `s`th. For `K = 3` and `s = 2` that is 2 taps instead of 3 along each axis.
///
/// - Pattern: `Conv(Resize(x))`; a ConvTranspose without strides is as good.
/// - Guard: the Resize repeats each element `s` times along the spatial axes and is read by nothing else; the convolution has
///   constant f32 weights, explicit pads, neither strides nor dilations, and a kernel that becomes cheaper
///   and does not grow by more than the enlarged tensor, which is gone.
/// - Cost: falls by the taps that are joined and by the enlarged tensor.
pub struct ResizeConv;

/// What the transposed convolution reads, and what it is.
pub struct Found {
    data: ValueId,
    resize: NodeId,
    op: ConvTranspose,
    /// Whether the convolution is transposed already, and its weights with it.
    is_transposed: bool,
}

impl Rewrite for ResizeConv {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "resize-conv",
            summary: "join nearest Resize and Conv into a transposed convolution with summed taps",
            pattern: "Conv(Resize(x)), ConvTranspose(Resize(x))",
            claim: "falls by the taps that are joined and by the enlarged tensor",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let resize = private_producer(graph, node, 0).or_elsewhere()?;
        let Op::Resize(op) = &graph.node(resize).op else { return Err(Miss::Elsewhere) };
        let weights = graph.constant_input(node, 1);
        let kernel = weights.and_then(|weights| weights.shape().get(2..)).unwrap_or_default();
        // As a transposed convolution without strides: pads, and what else it has.
        let (pads, strides, dilations, group, epilogue, is_transposed) = match &graph.node(node).op {
            Op::Conv(conv) => {
                require(!conv.exact, || "its sums are to stay exact")?;
                let pads = pads::split(&conv.padding, kernel.len()).map(|pads| {
                    pads.into_iter()
                        .zip(kernel)
                        .map(|(pads, &k)| pads.map(|pad| k as i64 - 1 - pad))
                        .collect()
                });
                (pads, &conv.strides, &conv.dilations, conv.group, &conv.epilogue, false)
            }
            Op::ConvTranspose(conv) => {
                let pads = pads::explicit(conv, kernel.len());
                (pads, &conv.strides, &conv.dilations, conv.group, &conv.epilogue, true)
            }
            _ => return Err(Miss::Elsewhere),
        };
        let data = graph.node(resize).input(0).or_elsewhere()?;
        let repeats = repeats(graph, resize, op, data)?;
        let weights = weights.ok_or_else(|| Miss::Refused("the weights are not constant".into()))?;
        require(weights.dtype() == DType::F32, || "the weights are not f32")?;
        let ones = |numbers: &[usize]| numbers.iter().all(|&number| number == 1);
        require(ones(strides), || "the convolution has strides")?;
        require(ones(dilations), || "the convolution is dilated")?;
        let pads: Vec<[i64; 2]> = pads.ok_or_else(|| Miss::Refused("the pads are not explicit".into()))?;
        if kernel.len() != repeats.len() {
            return Err(Miss::Elsewhere);
        }
        let joined: Vec<usize> = kernel.iter().zip(&repeats).map(|(k, s)| k + s - 1).collect();
        let plain = kernel.iter().zip(&repeats).map(|(k, s)| k * s).product::<usize>();
        require(joined.iter().product::<usize>() < plain, || "no two taps read copies of one element")?;
        let taps = |kernel: &[usize]| kernel.iter().product::<usize>();
        let grown = (taps(&joined) - taps(kernel)) * (weights.len() / taps(kernel).max(1));
        let enlarged = graph.node(resize).output(0).and_then(|value| graph.ty(value).known_shape());
        let enlarged = enlarged.map_or(0, |shape| shape.iter().product::<usize>());
        require(grown <= 2 * enlarged, || "the weights would grow by more than the enlarged tensor goes")?;
        let op = ConvTranspose {
            kernel_shape: joined,
            strides: repeats,
            dilations: vec![],
            group,
            padding: pads::join(pads),
            output_padding: vec![],
            output_shape: vec![],
            epilogue: epilogue.clone(),
        };
        Ok(Found { data, resize, op, is_transposed })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { data, resize, op, is_transposed } = found;
        let strides = op.strides.clone();
        if let Some(weights) = graph.constant_input(node, 1) {
            let turned = if is_transposed { weights.clone() } else { turned(weights, op.group)? };
            let summed = summed(&turned, &strides)?;
            let name = graph.node(node).input(1).map_or_else(String::new, |id| graph.value(id).name.clone());
            let id = graph.add_constant(&name, summed);
            patch::swap_constant(graph, node, 1, id)?;
        }
        *graph.op_mut(node) = op.into();
        graph.set_input(node, 0, Some(data));
        patch::remove_unread(graph, [resize]);
        Ok(Decision::only(format!(
            "is a ConvTranspose of strides {strides:?}: taps that read copies of one element are one tap with their sum"
        )))
    }
}

/// How often a Resize repeats each element along the spatial axes, when that is all it does.
fn repeats(graph: &Graph, node: NodeId, op: &Resize, data: ValueId) -> Site<Vec<usize>> {
    let nearest_left = match (op.coordinates, op.rounding) {
        (Coordinates::Asymmetric, Rounding::Floor) => true,
        // Centres of copies lie within half an element of the centre of what they copy.
        (
            Coordinates::HalfPixel | Coordinates::HalfPixelSymmetric | Coordinates::PytorchHalfPixel,
            Rounding::PreferFloor | Rounding::PreferCeil,
        ) => true,
        _ => false,
    };
    if op.mode != ResizeMode::Nearest || !nearest_left || op.antialias || !op.axes.is_empty() {
        return Err(Miss::Elsewhere);
    }
    let output = graph.node(node).output(0).or_elsewhere()?;
    let (from, to) = (graph.ty(data).known_shape(), graph.ty(output).known_shape());
    let (from, to) = (from.or_elsewhere()?, to.or_elsewhere()?);
    if from.len() < 3 || from.len() != to.len() || from[..2] != to[..2] || from.contains(&0) {
        return Err(Miss::Elsewhere);
    }
    // Scales place the outputs, where they are given; they may be a little off the ratio of the extents.
    let given = graph.node(node).input(2);
    let scales = given.map(|scales| graph.constant(scales)?.to_f64s().ok());
    let exact = |axis: usize, repeat: usize| match &scales {
        None => true,
        Some(None) => false,
        Some(Some(scales)) => scales.is_empty() || scales.get(axis) == Some(&(repeat as f64)),
    };
    let spatial = 2..from.len();
    let repeats: Vec<usize> = spatial.clone().map(|axis| to[axis] / from[axis]).collect();
    let whole = spatial
        .zip(&repeats)
        .all(|(axis, &repeat)| repeat > 0 && to[axis] == repeat * from[axis] && exact(axis, repeat));
    if whole && repeats.iter().any(|&repeat| repeat > 1) { Ok(repeats) } else { Err(Miss::Elsewhere) }
}
