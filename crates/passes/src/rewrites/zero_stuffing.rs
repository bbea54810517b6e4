//! Zeros put between the elements by hand, with Reshape, Pad and Reshape, before a convolution: a transposed convolution.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, producer, scalar};
use crate::options::Options;
use crate::pads;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use crate::rewrites::crop::padded;
use crate::weights::turned;
use tconvc_ir::ops::{Border, ConvTranspose};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Recognises zero insertion.
///
/// - Pattern: a Conv, or a ConvTranspose without strides, that reads `Reshape(Pad(Reshape(x)))`, where `x` `[N, C, H, W]` becomes `[N, C, H, 1, W, 1]`, zeros
///   are put behind each of the new axes, and both pairs of axes become one again; in 1-D and 3-D alike.
/// - Guard: the weights of a Conv are constant, it has no strides; pads are explicit, and extents are known.
/// - Cost: falls by the multiplications with zero, and by the stuffed tensors when nothing else reads them.
pub struct ZeroStuffing;

/// What the transposed convolution reads, and what it is.
pub struct Found {
    data: ValueId,
    op: ConvTranspose,
    /// The weights to turn around, of a Conv.
    weights: Option<Tensor>,
}

impl Rewrite for ZeroStuffing {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "zero-stuffing",
            summary: "recognise zeros put between elements by hand before a convolution as a transposed convolution",
            pattern: "Conv(Reshape(Pad(Reshape(x))))",
            claim: "falls by the multiplications with zero",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let conv = match &graph.node(node).op {
            Op::Conv(conv) => conv,
            Op::ConvTranspose(op) => return transposed(graph, node, op),
            _ => return Err(Miss::Elsewhere),
        };
        let (data, strides) = stuffed(graph, node)?;
        let weights = graph.constant_input(node, 1);
        let weights = weights.ok_or_else(|| Miss::Refused("the weights are not constant".into()))?;
        require(conv.strides.iter().all(|&stride| stride == 1), || "the convolution has strides")?;
        require(!conv.exact, || "its sums are to stay exact")?;
        let own = pads::split(&conv.padding, strides.len());
        let own = own.ok_or_else(|| Miss::Refused("the pads are not explicit".into()))?;
        let kernel =
            weights.shape().get(2..).filter(|kernel| kernel.len() == strides.len()).or_elsewhere()?;
        // Output i - k + pad of the convolution is output i * stride + (K - 1 - k) - pad' of the transposed one.
        let pad = |axis: usize| {
            let dilation = conv.dilations.get(axis).copied().unwrap_or(1) as i64;
            let reach = (kernel[axis] as i64 - 1).saturating_mul(dilation);
            let [begin, end] = own[axis].map(|pad| reach.saturating_sub(pad));
            [begin, end - (strides[axis] as i64 - 1)]
        };
        let op = ConvTranspose {
            kernel_shape: kernel.to_vec(),
            dilations: conv.dilations.clone(),
            group: conv.group,
            padding: pads::join((0..strides.len()).map(pad)),
            strides,
            output_padding: vec![],
            output_shape: vec![],
            epilogue: conv.epilogue.clone(),
        };
        Ok(Found { data, op, weights: Some(weights.clone()) })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, Found { data, op, weights }: Found) -> Result<Decision> {
        let before =
            [producer(graph, node, 0), producer(graph, node, 0).and_then(|outer| producer(graph, outer, 0))];
        let strides = op.strides.clone();
        if let Some(weights) = weights {
            let name = graph.node(node).input(1).map_or_else(String::new, |id| graph.value(id).name.clone());
            let id = graph.add_constant(&name, turned(&weights, op.group)?);
            patch::swap_constant(graph, node, 1, id)?;
        }
        *graph.op_mut(node) = op.into();
        graph.set_input(node, 0, Some(data));
        patch::remove_unread(graph, before.into_iter().flatten());
        Ok(Decision::only(format!(
            "is a ConvTranspose of strides {strides:?}: its data had zeros in between"
        )))
    }
}

/// A transposed convolution that stands behind the zeros.
fn transposed(graph: &Graph, node: NodeId, op: &ConvTranspose) -> Site<Found> {
    let (data, strides) = stuffed(graph, node)?;
    require(
        op.strides.iter().all(|&stride| stride == 1),
        || "the transposed convolution has strides of its own",
    )?;
    let own = pads::explicit(op, strides.len());
    let own = own.ok_or_else(|| Miss::Refused("the pads are not explicit".into()))?;
    // The zeros behind the last input made the output longer.
    let pads = own.iter().zip(&strides).map(|(&[begin, end], &stride)| [begin, end - (stride as i64 - 1)]);
    let op = ConvTranspose { padding: pads::join(pads), strides, ..op.clone() };
    Ok(Found { data, op, weights: None })
}

/// Data without the zeros, and the strides at which it lies between them.
fn stuffed(graph: &Graph, node: NodeId) -> Site<(ValueId, Vec<usize>)> {
    let reshape = |node: NodeId| {
        let maker = producer(graph, node, 0)?;
        matches!(graph.node(maker).op, Op::Reshape(_)).then_some(maker)
    };
    let shape = |node: NodeId| graph.ty(graph.node(node).input(0)?).known_shape();
    let outer = reshape(node).or_elsewhere()?;
    let middle = producer(graph, outer, 0).or_elsewhere()?;
    let Op::Pad(pad) = graph.node(middle).op else { return Err(Miss::Elsewhere) };
    let inner = reshape(middle).or_elsewhere()?;
    let data = graph.node(inner).input(0).or_elsewhere()?;
    let (whole, parted) = (shape(inner).or_elsewhere()?, shape(middle).or_elsewhere()?);
    let (padded_shape, joined) = (shape(outer).or_elsewhere()?, shape(node).or_elsewhere()?);
    let axes = whole.len().checked_sub(2).filter(|&axes| axes > 0).or_elsewhere()?;
    let pairs: Vec<usize> = whole[2..].iter().flat_map(|&extent| [extent, 1]).collect();
    let is_parted = whole.len() == joined.len() && parted[..2] == whole[..2] && parted[2..] == pairs;
    if !is_parted || joined[..2] != whole[..2] || padded_shape.len() != parted.len() {
        return Err(Miss::Elsewhere);
    }
    let zero = graph.node(middle).input(2).is_none_or(|value| scalar(graph, value) == Some(0.0));
    let (cropped, added) = padded(graph, middle, pad, &parted)?;
    let strides: Vec<usize> = (0..axes).map(|axis| added[2 * axis + 3][1] as usize + 1).collect();
    let fits = |axis: usize| {
        added[2 * axis + 2] == [0, 0]
            && added[2 * axis + 3][0] == 0
            && joined[axis + 2] == whole[axis + 2] * strides[axis]
    };
    let only_behind = added[..2].iter().flatten().chain(cropped.iter().flatten()).all(|&pad| pad == 0);
    if !zero || pad.border != Border::Constant || !only_behind || !(0..axes).all(fits) {
        return Err(Miss::Elsewhere);
    }
    Ok((data, strides))
}
