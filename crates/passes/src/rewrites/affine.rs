//! Multiplications and additions of constants a channel, behind or before a convolution, go into its weights and bias.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, constant_operand, is_per_channel, producer, sole_output, sole_user};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Binary, Padding, Reduce, ReduceKind, Unary};
use tconvc_ir::{Dim, Graph, NodeId, Op, Tensor, ValueId};

/// Takes constant factors and terms into weights and bias.
///
/// - Pattern: `Mul`, `Div`, `Add` or `Sub` of a constant with one number a channel or one for all, whose other operand a
///   Conv or ConvTranspose gives, or which a Conv or ConvTranspose alone reads.
/// - Guard: nothing else reads what is between the two; weights and bias are constant; no epilogue step stands between.
///   A term before a convolution needs one without padding, since padding is zero and not the term; a term before a
///   transposed convolution is refused, since not every output has the same taps. What is rounded to integers, and sums of integers, keep their
///   factor apart.
/// - Cost: falls by the operator; a bias may be new.
pub struct Affine;

/// What is done to the data, with the constant as the other operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Map {
    Mul,
    Div,
    Add,
    Sub,
    /// Constant less data.
    SubFrom,
}

/// A convolution whose weights and bias are to take a [`Map`].
pub struct Found {
    map: Map,
    conv: NodeId,
    constant: ValueId,
    behind: bool,
}

impl Rewrite for Affine {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "affine",
            summary: "take constant factors and terms a channel into a convolution's weights and bias",
            pattern: "Mul, Div, Add or Sub of a constant behind or before Conv or ConvTranspose",
            claim: "falls by the operator",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let Op::Binary(binary) = graph.node(node).op else { return Err(Miss::Elsewhere) };
        let (data, constant, position) = constant_operand(graph, node).or_elsewhere()?;
        let map = match (binary, position) {
            (Binary::Mul, _) => Map::Mul,
            (Binary::Add, _) => Map::Add,
            (Binary::Div, 1) => Map::Div,
            (Binary::Sub, 1) => Map::Sub,
            (Binary::Sub, _) => Map::SubFrom,
            _ => return Err(Miss::Elsewhere),
        };
        let behind = match producer(graph, node, 1 - position).filter(|&conv| parts(graph, conv).is_some()) {
            Some(conv) => behind(graph, conv, data, constant)
                .and_then(|()| is_not_rounded(graph, node))
                .and_then(|()| is_not_exact(graph, conv))
                .map(|()| Found { map, conv, constant, behind: true }),
            None => Err(Miss::Elsewhere),
        };
        behind.or_else(|miss| {
            let output = sole_output(graph, node).or_elsewhere()?;
            let reader =
                sole_user(graph, output).filter(|&(conv, at)| at == 0 && parts(graph, conv).is_some());
            // Without a convolution to go into, it stays with what spoke against the one before.
            let (conv, _) = reader.ok_or(miss)?;
            before(graph, conv, map, data, constant).map(|()| Found { map, conv, constant, behind: false })
        })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { map, conv, constant, behind } = found;
        let name = graph.node(conv).name.clone();
        let missing = || tconvc_ir::Error::Graph(format!("weights of `{name}` were to be constant"));
        let tensor = graph.constant(constant).cloned().ok_or_else(missing)?;
        let (weights, bias, parts) = match (graph.constant_input(conv, 1), parts(graph, conv)) {
            (Some(weights), Some(parts)) => (weights.clone(), graph.constant_input(conv, 2).cloned(), parts),
            _ => return Err(missing().into()),
        };
        let constant = tensor.reshaped(vec![tensor.len()])?;
        let (new_weights, new_bias) = if behind {
            map.behind(&parts, &weights, bias.as_ref(), &constant)?
        } else {
            map.before(&parts, &weights, bias.as_ref(), &constant)?
        };
        if let Some(tensor) = new_weights {
            let base = graph.node(conv).input(1).map_or_else(String::new, |id| graph.value(id).name.clone());
            let id = graph.add_constant(&base, tensor);
            patch::swap_constant(graph, conv, 1, id)?;
        }
        if let Some(tensor) = new_bias {
            let id = graph.add_constant(&format!("{name}.bias"), tensor);
            patch::swap_constant(graph, conv, 2, id)?;
        }
        let (place, data) = (if behind { "behind" } else { "before" }, graph.node(node).inputs().to_vec());
        if behind {
            patch::absorb(graph, conv, node)?;
        } else if let Some(data) = data.into_iter().flatten().find(|&id| graph.constant(id).is_none()) {
            patch::bypass(graph, node, data)?;
        }
        Ok(Decision::only(format!("goes into weights and bias of {name}, {place} which it stood")))
    }
}

/// What matters here of a convolution of either kind.
#[derive(Clone, Copy)]
struct Parts {
    transposed: bool,
    group: usize,
    padded: bool,
    plain: bool,
}

fn parts(graph: &Graph, node: NodeId) -> Option<Parts> {
    let padded = |padding: &Padding| match padding {
        Padding::Explicit { begin, end } => begin.iter().chain(end).any(|&pad| pad > 0),
        Padding::Valid => false,
        Padding::SameUpper | Padding::SameLower => true,
    };
    match &graph.node(node).op {
        Op::Conv(op) => Some(Parts {
            transposed: false,
            group: op.group,
            padded: padded(&op.padding),
            plain: op.epilogue.is_empty(),
        }),
        Op::ConvTranspose(op) => Some(Parts {
            transposed: true,
            group: op.group,
            padded: padded(&op.padding),
            plain: op.epilogue.is_empty(),
        }),
        _ => None,
    }
}

fn parameters_are_constant(graph: &Graph, conv: NodeId) -> Site<()> {
    let name = &graph.node(conv).name;
    require(graph.constant_input(conv, 1).is_some(), || format!("the weights of {name} are not constant"))?;
    let bias = graph.node(conv).input(2);
    require(bias.is_none_or(|bias| graph.constant(bias).is_some()), || {
        format!("the bias of {name} is not constant")
    })
}

/// The constant holds one number a channel of `data`, or one for all.
fn per_channel(graph: &Graph, data: ValueId, constant: ValueId) -> Site<()> {
    let shape = graph.ty(data).shape.as_ref().ok_or_else(|| Miss::Refused("the rank is not known".into()))?;
    let channels = shape.get(1).and_then(Dim::known).unwrap_or(0);
    let tensor = graph.constant(constant).or_elsewhere()?;
    require(tensor.dtype().is_float(), || "the elements are integers")?;
    require(is_per_channel(tensor, shape.len(), channels), || {
        format!("its constant has shape {:?}: neither one number nor one a channel", tensor.shape())
    })
}

fn behind(graph: &Graph, conv: NodeId, data: ValueId, constant: ValueId) -> Site<()> {
    let name = &graph.node(conv).name;
    per_channel(graph, data, constant)?;
    require(graph.has_single_use(data), || format!("what {name} gives is needed elsewhere as well"))?;
    require(parts(graph, conv).is_some_and(|parts| parts.plain), || {
        format!("{name} has an activation in between")
    })?;
    parameters_are_constant(graph, conv)
}

/// Factors of sums of integers are no part of these: the sums are exact, and what is rounded to integers next must not meet others.
fn is_not_rounded(graph: &Graph, node: NodeId) -> Site<()> {
    let output = sole_output(graph, node).or_elsewhere()?;
    let rounds = |(user, _): (NodeId, usize)| {
        matches!(graph.node(user).op, Op::Unary(Unary::FakeQuantize { scale: 1.0, .. }))
    };
    require(!graph.users(output).into_iter().any(rounds), || "its result is rounded to integers")
}

/// Sums of integers that are to stay exact keep to themselves.
fn is_not_exact(graph: &Graph, conv: NodeId) -> Site<()> {
    let exact = matches!(&graph.node(conv).op, Op::Conv(op) if op.exact);
    require(!exact, || format!("the sums of {} are to stay exact", graph.node(conv).name))
}

fn before(graph: &Graph, conv: NodeId, map: Map, data: ValueId, constant: ValueId) -> Site<()> {
    let name = &graph.node(conv).name;
    let parts = parts(graph, conv).or_elsewhere()?;
    is_not_exact(graph, conv)?;
    per_channel(graph, data, constant)?;
    if !matches!(map, Map::Mul | Map::Div) {
        require(!parts.transposed, || {
            format!("a term before {name} reaches each output through other taps")
        })?;
        require(!parts.padded, || format!("{name} pads with zeros, not with the term"))?;
    }
    parameters_are_constant(graph, conv)
}

impl Map {
    /// Weights and bias (where they change) of a convolution that does this to its result.
    fn behind(
        self,
        parts: &Parts,
        weights: &Tensor,
        bias: Option<&Tensor>,
        constant: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let outputs = if parts.transposed {
            weights.shape()[1].saturating_mul(parts.group)
        } else {
            weights.shape()[0]
        };
        let scaled = |op| -> Result<_> {
            let new = along_outputs(parts, weights, constant, op)?;
            Ok((Some(new), bias.map(|bias| patch::eval(op, &[bias, constant])).transpose()?))
        };
        let zeros = Tensor::zeros(weights.dtype(), [outputs])?;
        let bias_or_zeros = bias.unwrap_or(&zeros);
        match self {
            Self::Mul => scaled(Binary::Mul),
            Self::Div => scaled(Binary::Div),
            Self::Add => Ok((None, Some(patch::eval(Binary::Add, &[bias_or_zeros, constant])?))),
            Self::Sub => Ok((None, Some(patch::eval(Binary::Sub, &[bias_or_zeros, constant])?))),
            Self::SubFrom => Ok((
                Some(patch::eval(Unary::Neg, &[weights])?),
                Some(patch::eval(Binary::Sub, &[constant, bias_or_zeros])?),
            )),
        }
    }

    /// Weights and bias (where they change) of a convolution that does this to its data.
    fn before(
        self,
        parts: &Parts,
        weights: &Tensor,
        bias: Option<&Tensor>,
        constant: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match self {
            Self::Mul => return Ok((Some(along_inputs(parts, weights, constant, Binary::Mul)?), None)),
            Self::Div => return Ok((Some(along_inputs(parts, weights, constant, Binary::Div)?), None)),
            Self::Add | Self::Sub | Self::SubFrom => {}
        }
        // Every output sums every tap of every input channel, so it gains the term times the sum of these.
        let terms = along_inputs(parts, weights, constant, Binary::Mul)?;
        let axes: Vec<i64> = (1..terms.rank() as i64).collect();
        let sum = Reduce { kind: ReduceKind::Sum, keepdims: false, noop_with_empty_axes: false };
        let gained = patch::eval(sum, &[&terms, &Tensor::from_i64s(&axes)])?;
        let zeros = Tensor::zeros(weights.dtype(), [weights.shape()[0]])?;
        let op = if self == Self::Sub { Binary::Sub } else { Binary::Add };
        let bias = patch::eval(op, &[bias.unwrap_or(&zeros), &gained])?;
        let weights = (self == Self::SubFrom).then(|| patch::eval(Unary::Neg, &[weights])).transpose()?;
        Ok((weights, Some(bias)))
    }
}

/// `op` on the weights and a constant `[Cout]` or `[1]`.
fn along_outputs(parts: &Parts, weights: &Tensor, constant: &Tensor, op: Binary) -> Result<Tensor> {
    if parts.transposed {
        along_second(parts.group, weights, constant, op)
    } else {
        along_first(weights, constant, op)
    }
}

/// `op` on the weights and a constant `[Cin]` or `[1]`.
fn along_inputs(parts: &Parts, weights: &Tensor, constant: &Tensor, op: Binary) -> Result<Tensor> {
    if parts.transposed {
        along_first(weights, constant, op)
    } else {
        along_second(parts.group, weights, constant, op)
    }
}

/// The constant has a number for each index of axis 0.
fn along_first(weights: &Tensor, constant: &Tensor, op: Binary) -> Result<Tensor> {
    let mut shape = vec![1; weights.rank()];
    shape[0] = constant.len();
    patch::eval(op, &[weights, &constant.reshaped(shape)?])
}

/// The constant has a number for each pair of group and index of axis 1; axis 0 holds the groups one after the other.
fn along_second(group: usize, weights: &Tensor, constant: &Tensor, op: Binary) -> Result<Tensor> {
    let (first, rest) = (weights.shape()[0], &weights.shape()[1..]);
    let grouped = weights.reshaped([&[group, first / group.max(1)], rest].concat())?;
    let mut shape = vec![1; grouped.rank()];
    if constant.len() > 1 {
        shape[0] = group;
        shape[2] = rest[0];
    }
    let result = patch::eval(op, &[&grouped, &constant.reshaped(shape)?])?;
    Ok(result.reshaped(weights.shape())?)
}
