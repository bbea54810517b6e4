//! BatchNormalization becomes a multiplication and an addition a channel. Where it follows or precedes a convolution, the
//! pass `affine` takes both into weights and bias.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::OrElsewhere;
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Binary, Unary};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Writes a BatchNormalization of inference as `x * s + b` with `s = scale / sqrt(var + epsilon)` and `b = B - mean * s`.
///
/// - Pattern: BatchNormalization.
/// - Guard: not in training mode; scale, B, mean and variance are constants of the data's element type; the rank is known.
/// - Cost: stays; the two multiply-adds are one elementwise chain.
pub struct BatchNorm;

/// What a BatchNormalization is made of.
pub struct Found {
    data: ValueId,
    /// Scale, B, mean, variance.
    parameters: [Tensor; 4],
    epsilon: f32,
}

impl Rewrite for BatchNorm {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "batch-norm",
            summary: "write batch normalisation as a multiplication and an addition a channel",
            pattern: "BatchNormalization with constant parameters",
            claim: "stays: one elementwise chain",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let Op::BatchNormalization(op) = &graph.node(node).op else { return Err(Miss::Elsewhere) };
        require(!op.training_mode, || "it is in training mode: its mean and variance are the batch's own")?;
        let input = |index| graph.node(node).input(index).or_elsewhere();
        let data = input(0)?;
        let parameter = |index, name| {
            let tensor = graph.constant(input(index)?);
            let tensor = tensor.ok_or_else(|| Miss::Refused(format!("its {name} is not constant")))?;
            require(graph.ty(data).dtype == Some(tensor.dtype()), || {
                format!("its {name} is {}, the data {}", tensor.dtype(), graph.ty(data))
            })?;
            Ok(tensor.clone())
        };
        let parameters =
            [parameter(1, "scale")?, parameter(2, "B")?, parameter(3, "mean")?, parameter(4, "variance")?];
        let rank = graph.ty(data).rank().ok_or_else(|| Miss::Refused("the rank is not known".into()))?;
        require(rank >= 2, || "the data has no axis of channels")?;
        Ok(Found { data, parameters, epsilon: op.epsilon })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let Found { data, parameters: [scale, shift, mean, variance], epsilon } = found;
        let epsilon = patch::number(scale.dtype(), f64::from(epsilon))?;
        let variance = patch::eval(Binary::Add, &[&variance, &epsilon])?;
        let deviation = patch::eval(Unary::Sqrt, &[&variance])?;
        let factor = patch::eval(Binary::Div, &[&scale, &deviation])?;
        let moved = patch::eval(Binary::Mul, &[&mean, &factor])?;
        let term = patch::eval(Binary::Sub, &[&shift, &moved])?;
        // [C] alone stands beside the last axis; channels are axis 1.
        let rank = graph.ty(data).rank().unwrap_or(2);
        let spread = |tensor: &Tensor| {
            let ones = std::iter::repeat_n(1, rank - 2);
            tensor.reshaped(tensor.shape().iter().copied().chain(ones).collect::<Vec<_>>())
        };
        let name = graph.node(node).name.clone();
        let factor = graph.add_constant(&format!("{name}.scale"), spread(&factor)?);
        let term = graph.add_constant(&format!("{name}.shift"), spread(&term)?);
        let product = patch::add_on(graph, &format!("{name}.scaled"), Binary::Mul, &[data, factor])?;
        patch::replace(graph, node, Binary::Add, &[Some(product), Some(term)])?;
        Ok(Decision::only("is a Mul and an Add a channel"))
    }
}
