//! BatchNormalization becomes a multiplication and an addition a channel. Where it follows or precedes a convolution, the
//! pass `affine` takes both into weights and bias. In training mode on a batch of one it is an InstanceNormalization.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::OrElsewhere;
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{BatchNormalization, Binary, InstanceNormalization, Unary};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Writes a BatchNormalization of inference as `x * s + b` with `s = scale / sqrt(var + epsilon)` and `b = B - mean * s`.
///
/// - Pattern: BatchNormalization.
/// - Guard: scale, B, mean and variance are constants of the data's element type; the rank is known. In training mode the
///   batch is one, and nothing reads the running statistics.
/// - Cost: stays; the two multiply-adds are fused elementwise.
pub struct BatchNorm;

/// What a BatchNormalization is made of.
pub enum Found {
    /// Of inference.
    Affine {
        /// What is normalised.
        data: ValueId,
        /// Scale, B, mean, variance.
        parameters: Box<[Tensor; 4]>,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Of training, on a batch of one.
    Instance {
        /// Data, scale, B.
        inputs: [ValueId; 3],
        /// Added to the variance.
        epsilon: f32,
    },
}

impl Rewrite for BatchNorm {
    type Found = Found;

    fn about(&self) -> About {
        About {
            name: "batch-norm",
            summary: "write batch normalisation as a multiplication and an addition a channel",
            pattern: "BatchNormalization with constant parameters",
            claim: "stays: fused elementwise",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, _: &Options) -> Site<Found> {
        let Op::BatchNormalization(op) = &graph.node(node).op else { return Err(Miss::Elsewhere) };
        if op.training_mode {
            return instance(graph, node, op);
        }
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
        Ok(Found::Affine { data, parameters: Box::new(parameters), epsilon: op.epsilon })
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Found) -> Result<Decision> {
        let (data, [scale, shift, mean, variance], epsilon) = match found {
            Found::Affine { data, parameters, epsilon } => (data, *parameters, epsilon),
            Found::Instance { inputs, epsilon } => {
                let Some(old) = graph.remove_node(node) else {
                    return Err(tconvc_ir::Error::Graph("a node to replace is not there".into()).into());
                };
                let op = InstanceNormalization { epsilon };
                graph.add_node_defining(&old.name, op, &inputs.map(Some), &old.outputs()[..1])?;
                for &output in old.outputs()[1..].iter().flatten() {
                    graph.remove_value(output)?;
                }
                return Ok(Decision::only("is an InstanceNormalization: the batch is one"));
            }
        };
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

/// Statistics of a batch of one are those of each of its channels.
fn instance(graph: &Graph, node: NodeId, op: &BatchNormalization) -> Site<Found> {
    let it = graph.node(node);
    let input = |index| it.input(index).or_elsewhere();
    let inputs = [input(0)?, input(1)?, input(2)?];
    let unread = it.outputs()[1..].iter().flatten().all(|&id| graph.value(id).is_unused());
    require(unread, || "it is in training mode, and its running statistics are read")?;
    let data = graph.ty(inputs[0]);
    let alone = data.rank().is_some_and(|rank| rank > 2)
        && data.shape.as_ref().and_then(|shape| shape[0].known()) == Some(1);
    require(alone, || {
        format!("it is in training mode: its mean and variance are the batch's own; the data are {data}")
    })?;
    let alike = inputs.iter().all(|&id| graph.ty(id).dtype == data.dtype);
    require(alike, || "its scale or B is of another type than the data")?;
    Ok(Found::Instance { inputs, epsilon: op.epsilon })
}
