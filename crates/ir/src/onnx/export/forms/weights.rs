//! Weights and biases in the order that a form asks for: rearranged here where they are constant, and where they are quantised
//! constants behind a DequantizeLinear, which then stands behind the rearranged ones. So they keep their eight bits.

use super::super::chain::{Chain, attribute};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::ops::Op;
use crate::tensor::{MAX_TENSOR_BYTES, Tensor, element_count};
use std::collections::BTreeSet;

/// Quantised constants and how they are read.
struct Quantised<'g> {
    tensor: &'g Tensor,
    scale: &'g Tensor,
    zero: Option<&'g Tensor>,
    /// Axis of the tensor of which each index has a scale of its own.
    axis: Option<usize>,
}

/// An input of the chain's node as a value of that shape, whose elements stand at these places of it, or are zero. `None` when
/// the input follows from others at run time.
pub(super) fn rearranged(
    chain: &mut Chain<'_, '_>,
    index: usize,
    what: &str,
    shape: Vec<usize>,
    places: impl Iterator<Item = Option<usize>> + Clone,
) -> Result<Option<String>> {
    if let Some(tensor) = chain.constant_input(index) {
        let tensor = arranged(tensor, shape, places, None)?;
        return Ok(Some(chain.constant(what, &tensor)));
    }
    let graph = chain.writer.graph();
    let maker = chain.node.input(index).and_then(|id| graph.producer(id));
    let Some(of) = maker.and_then(|node| quantised(graph, node, &chain.node.op, index)) else {
        return Ok(None);
    };
    let mut attributes = Attributes::new();
    let (mut scale, mut zero) = (of.scale.clone(), of.zero.cloned());
    if let Some(axis) = of.axis {
        let (to, indices) = follow(&of, axis, &shape, &places)?;
        attributes = attribute("axis", to as i64);
        let count = vec![indices.len()];
        let picked =
            |tensor: &Tensor| arranged(tensor, count.clone(), indices.iter().map(|&i| Some(i)), None);
        (scale, zero) = (picked(&scale)?, zero.as_ref().map(picked).transpose()?);
        // The zero of an element that stands nowhere is that of its index on the axis.
        let inner: usize = shape[to + 1..].iter().product();
        let extent = indices.len();
        let zero_of = |element: usize| element / inner % extent;
        let tensor = arranged(of.tensor, shape, places, zero.as_ref().map(|zero| (zero, &zero_of as _)))?;
        return Ok(Some(dequantised(chain, what, attributes, &tensor, &scale, zero.as_ref())));
    }
    // One for all is no list.
    (scale, zero) = (scale.reshaped([])?, zero.map(|zero| zero.reshaped([])).transpose()?);
    let tensor = arranged(of.tensor, shape, places, zero.as_ref().map(|zero| (zero, &(|_| 0usize) as _)))?;
    Ok(Some(dequantised(chain, what, attributes, &tensor, &scale, zero.as_ref())))
}

fn dequantised(
    chain: &mut Chain<'_, '_>,
    what: &str,
    attributes: Attributes,
    tensor: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> String {
    let mut inputs = vec![
        chain.constant(&format!("{what}.quantised"), tensor),
        chain.constant(&format!("{what}.scale"), scale),
    ];
    inputs.extend(zero.map(|zero| chain.constant(&format!("{what}.zero"), zero)));
    chain.aside("DequantizeLinear", attributes, &inputs)
}

/// True for a DequantizeLinear of constants that all of its readers rearrange: it need not be written.
pub(in super::super) fn is_rearranged(graph: &Graph, node: NodeId) -> bool {
    let Some(output) = graph.node(node).output(0) else { return false };
    let users = graph.users(output);
    !graph.is_output(output)
        && !users.is_empty()
        && users.iter().all(|&(user, index)| quantised(graph, node, &graph.node(user).op, index).is_some())
}

/// What a DequantizeLinear reads, where a node of that operator can rearrange it as its input `index`.
fn quantised<'g>(graph: &'g Graph, node: NodeId, user: &Op, index: usize) -> Option<Quantised<'g>> {
    let Op::DequantizeLinear(op) = &graph.node(node).op else { return None };
    let group = match (user, index) {
        (Op::PhaseConv(user), 1) => user.group,
        (Op::ColumnGemm(user), 1) => user.group,
        (Op::PhaseConv(_), 2) => 1,
        _ => return None,
    };
    let constant = |index: usize| graph.node(node).input(index).map(|id| graph.constant(id));
    let (tensor, scale) = (constant(0)??, constant(1)??);
    let zero = match constant(2) {
        Some(zero) => Some(zero?),
        None => None,
    };
    if op.block_size != 0 || op.output_dtype.is_some() || tensor.dtype().bits() < 8 {
        return None;
    }
    let axis = match scale.shape() {
        [] => None,
        [_] if scale.len() == 1 && zero.is_none_or(|zero| zero.len() == 1) => None,
        [_] => {
            let rank = tensor.shape().len() as i64;
            let axis = usize::try_from(if op.axis < 0 { op.axis + rank } else { op.axis }).ok()?;
            // Otherwise elements of several scales come together.
            (axis == 1 || axis == 0 && group == 1).then_some(Some(axis))?
        }
        _ => return None,
    };
    Some(Quantised { tensor, scale, zero, axis })
}

/// The axis of the rearranged elements on which those of one index of `axis` stand together, and that index for each of its own.
fn follow(
    of: &Quantised<'_>,
    axis: usize,
    shape: &[usize],
    places: &(impl Iterator<Item = Option<usize>> + Clone),
) -> Result<(usize, Vec<usize>)> {
    let extent = of.tensor.shape()[axis].max(1);
    let inner: usize = of.tensor.shape()[axis + 1..].iter().product();
    let mixed = || Error::Graph("elements of several scales would have to share one".into());
    for to in 0..shape.len() {
        let behind: usize = shape[to + 1..].iter().product::<usize>().max(1);
        let mut indices = vec![None; shape[to]];
        let fits = places.clone().enumerate().all(|(element, place)| {
            let Some(place) = place else { return true };
            let (index, found) = (place / inner.max(1) % extent, &mut indices[element / behind % shape[to]]);
            *found.get_or_insert(index) == index
        });
        // Each index has to be met, or the axis says nothing.
        if fits && indices.iter().flatten().collect::<BTreeSet<_>>().len() == extent {
            return Ok((to, indices.into_iter().map(Option::unwrap_or_default).collect()));
        }
    }
    Err(mixed())
}

/// The zero of each element, by its place: a tensor and the place in it.
type Zeros<'a> = (&'a Tensor, &'a dyn Fn(usize) -> usize);

/// A tensor of that shape whose elements stand at these places of another one, or are zero.
fn arranged(
    tensor: &Tensor,
    shape: Vec<usize>,
    places: impl Iterator<Item = Option<usize>>,
    zeros: Option<Zeros<'_>>,
) -> Result<Tensor> {
    if !tensor.dtype().is_numeric() {
        return Err(Error::Type(format!("weights of {}, accepted are numbers", tensor.dtype())));
    }
    let size = tensor.dtype().bits() / 8;
    let total = element_count(&shape)?.checked_mul(size).filter(|&total| total <= MAX_TENSOR_BYTES);
    let total =
        total.ok_or_else(|| Error::Size(format!("weights of shape {shape:?} are too large to write out")))?;
    let mut bytes = vec![0u8; total];
    for (element, (to, place)) in bytes.chunks_exact_mut(size).zip(places).enumerate() {
        let from = match (place, &zeros) {
            (Some(place), _) => tensor.bytes().get(place * size..(place + 1) * size),
            (None, Some((zero, index))) => {
                zero.bytes().get(index(element) * size..).and_then(|rest| rest.get(..size))
            }
            (None, None) => None,
        };
        if let Some(from) = from {
            to.copy_from_slice(from);
        }
    }
    Tensor::from_bytes(tensor.dtype(), shape, bytes)
}
