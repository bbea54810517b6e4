//! Activations and residual additions behind a convolution become steps of its epilogue.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{OrElsewhere, is_per_channel, producer, same_shape, sole_output};
use crate::options::Options;
use crate::pass::{About, Miss, Rewrite, Site, require};
use crate::patch;
use tconvc_ir::ops::{Binary, EpilogueStep};
use tconvc_ir::{DType, Dim, Graph, NodeId, Op, ValueId};

/// Takes what follows a convolution into its epilogue.
///
/// - Pattern: a unary float operator, `PRelu`, or `Add` that reads what an operator with an epilogue gives.
/// - Guard: nothing else reads it; the slope of a `PRelu` is a constant with one number a channel or one for all; what is
///   added has the same shape. (It cannot depend on the convolution: the `Add` is the only reader of that.) The target has
///   registers for one operand more.
/// - Cost: falls by writing and reading the tensor between the two.
pub struct Epilogue;

/// What joins the epilogue of which node.
pub struct Join {
    maker: NodeId,
    step: EpilogueStep,
    operand: Option<ValueId>,
}

impl Rewrite for Epilogue {
    type Found = Join;

    fn about(&self) -> About {
        About {
            name: "epilogue",
            summary: "apply activations and residual additions where a convolution stores its sums",
            pattern: "Unary, PRelu or Add behind Conv, ConvTranspose, OverlapAdd or Interleave",
            claim: "falls by a tensor written and read",
        }
    }

    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Join> {
        match graph.node(node).op {
            Op::Unary(unary) => {
                let maker = maker(graph, node, 0)?;
                let dtype = element_type(graph, maker)?;
                require(dtype.is_float() && unary.output_dtype(dtype) == Ok(dtype), || {
                    format!("{} of {dtype} is no step of an epilogue", unary.name())
                })?;
                Ok(Join { maker, step: EpilogueStep::Unary(unary), operand: None })
            }
            Op::Binary(Binary::PRelu) => slope(graph, node, options),
            Op::Binary(Binary::Add) => match residual(graph, node, 0, options) {
                Ok(found) => Ok(found),
                // What speaks against the first is told only when the second is no convolution at all.
                Err(miss) => residual(graph, node, 1, options).map_err(|other| match other {
                    Miss::Elsewhere => miss,
                    refused @ Miss::Refused(_) => refused,
                }),
            },
            _ => Err(Miss::Elsewhere),
        }
    }

    fn apply(&self, graph: &mut Graph, node: NodeId, found: Join) -> Result<Decision> {
        let Join { maker, step, operand } = found;
        let name = graph.node(maker).name.clone();
        let Some((steps, first)) = graph.op_mut(maker).epilogue_mut() else {
            return Err(tconvc_ir::Error::Graph(format!("node `{name}` has no epilogue")).into());
        };
        let position = first + steps.operands();
        steps.steps.push(step);
        if operand.is_some() {
            graph.set_input(maker, position, operand);
        }
        patch::absorb(graph, maker, node)?;
        Ok(Decision::only(format!("joins the epilogue of {name}")))
    }
}

/// The node with an epilogue that makes input `position` of `node` for it alone.
fn maker(graph: &Graph, node: NodeId, position: usize) -> Site<NodeId> {
    let maker = producer(graph, node, position).or_elsewhere()?;
    graph.node(maker).op.epilogue().or_elsewhere()?;
    let value = sole_output(graph, maker).or_elsewhere()?;
    let name = &graph.node(maker).name;
    require(!graph.is_output(value), || format!("what {name} gives is an output of the graph"))?;
    require(graph.users(value).len() == 1, || format!("what {name} gives is read elsewhere as well"))?;
    Ok(maker)
}

/// Refuses an operand more than the target has registers for.
fn has_room(graph: &Graph, maker: NodeId, options: &Options) -> Site<()> {
    let (epilogue, _) = graph.node(maker).op.epilogue().or_elsewhere()?;
    let (operands, most) = (epilogue.operands(), options.limits.post_op_operands);
    require(operands < most, || {
        let name = &graph.node(maker).name;
        format!("the epilogue of {name} has {operands} operand(s), and the target registers for {most}")
    })
}

fn element_type(graph: &Graph, maker: NodeId) -> Site<DType> {
    let dtype = sole_output(graph, maker).and_then(|value| graph.ty(value).dtype);
    dtype.ok_or_else(|| Miss::Refused("the element type is not known".into()))
}

fn slope(graph: &Graph, node: NodeId, options: &Options) -> Site<Join> {
    let maker = maker(graph, node, 0)?;
    let value = graph.node(node).input(1).or_elsewhere()?;
    let slope = graph.constant(value).ok_or_else(|| Miss::Refused("the slope is not constant".into()))?;
    let shape = sole_output(graph, maker).and_then(|value| graph.ty(value).shape.clone());
    let shape = shape.ok_or_else(|| Miss::Refused("the rank is not known".into()))?;
    let channels = shape.get(1).and_then(Dim::known).unwrap_or(0);
    require(is_per_channel(slope, shape.len(), channels), || {
        format!("the slope has shape {:?}: neither one number nor one a channel", slope.shape())
    })?;
    require(element_type(graph, maker)?.is_float(), || "the elements are integers")?;
    has_room(graph, maker, options)?;
    Ok(Join { maker, step: EpilogueStep::PRelu, operand: Some(value) })
}

/// `Add` whose input `position` is a convolution's.
fn residual(graph: &Graph, node: NodeId, position: usize, options: &Options) -> Site<Join> {
    let maker = maker(graph, node, position)?;
    let (it, other) = (graph.node(node).input(position), graph.node(node).input(1 - position));
    let (it, other) = (it.or_elsewhere()?, other.or_elsewhere()?);
    require(same_shape(graph, it, other), || {
        format!("what is added is {}, not known to be of the shape of {}", graph.ty(other), graph.ty(it))
    })?;
    require(element_type(graph, maker)?.is_float(), || "the elements are integers")?;
    has_room(graph, maker, options)?;
    Ok(Join { maker, step: EpilogueStep::Add, operand: Some(other) })
}
