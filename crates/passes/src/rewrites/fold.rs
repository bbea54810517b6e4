//! Constant folding: nodes on constants are evaluated, and extents that are known become constants.

use crate::cost::node_cost;
use crate::error::Result;
use crate::journal::Decision;
use crate::matching::is_random;
use crate::pass::{About, Context, Miss, Pass, Site, require};
use std::collections::HashMap;
use tconvc_ir::ops::InputInfo;
use tconvc_ir::{DType, Dim, Graph, NodeId, Op, Tensor, ValueId};

/// Evaluates what does not depend on the graph's inputs.
///
/// - Pattern: a node all of whose inputs are constant; a node that computes on shapes and whose result is known.
/// - Guard: no random or unknown operator; the result is at most [`SMALL_BYTES`] or [`GROWTH`] times the inputs ([`WIDENING`] where
///   only their type changes), and takes at most [`MAX_MACS`] multiply-adds: a large `Expand` is better left to the program than
///   stored. For other runtimes, quantised weights stay so.
/// - Cost: falls by the node.
pub struct Fold;

/// Results up to this size are always stored.
pub const SMALL_BYTES: usize = 64 << 10;
/// Larger results may be this much larger than the inputs that they replace.
pub const GROWTH: usize = 2;
/// Numbers of few bits may become f32: what computes with them asks for constants, and there is no code for short ones.
pub const WIDENING: usize = 8;
/// Multiply-adds that are spent on evaluating one node.
pub const MAX_MACS: u64 = 1 << 27;

const NAME: &str = "fold";

impl Pass for Fold {
    fn about(&self) -> About {
        About {
            name: NAME,
            summary: "evaluate nodes on constants; make known extents constants",
            pattern: "a node all of whose inputs are constant, or which computes known extents",
            claim: "falls by the node; constants grow by a bounded factor",
        }
    }

    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
        context.journal.forget_refusals(NAME);
        let mut extents: HashMap<ValueId, Vec<Dim>> = HashMap::new();
        let mut changed = false;
        // In this order the inputs of a node are folded before it, so one sweep is enough.
        for node in graph.order()? {
            if context.exhausted() {
                break;
            }
            let (name, op) = (graph.node(node).name.clone(), graph.node(node).op.name().to_owned());
            let result = match evaluate(graph, node, context.options.portable) {
                Err(Miss::Elsewhere) => known_extents(graph, node, &mut extents),
                result => result,
            };
            match result {
                Ok(tensors) => {
                    define(graph, node, tensors)?;
                    context.applied(NAME, &name, &op, Decision::only("evaluated"));
                    changed = true;
                }
                Err(Miss::Refused(reason)) => context.journal.refuse(NAME, &name, &op, reason),
                Err(Miss::Elsewhere) => {}
            }
        }
        Ok(changed)
    }
}

/// The outputs of a node all of whose inputs are constant.
fn evaluate(graph: &Graph, node: NodeId, portable: bool) -> Site<Vec<Tensor>> {
    let it = graph.node(node);
    require(
        !portable || !matches!(it.op, Op::DequantizeLinear(_)),
        || "other runtimes compute with the quantised weights",
    )?;
    let inputs: Vec<Option<&Tensor>> =
        it.inputs().iter().map(|id| id.and_then(|id| graph.constant(id))).collect();
    let all_constant = it.inputs().iter().zip(&inputs).all(|(id, tensor)| id.is_some() == tensor.is_some());
    if !all_constant || inputs.is_empty() || matches!(it.op, Op::Opaque(_)) || is_random(&it.op) {
        return Err(Miss::Elsewhere);
    }
    require(
        !portable || !matches!(it.op, Op::DequantizeLinear(_)),
        || "other runtimes compute with the quantised weights",
    )?;
    let sizes = it.outputs().iter().flatten().map(|&id| {
        let count = graph.ty(id).known_shape()?.into_iter().try_fold(1usize, usize::checked_mul)?;
        graph.ty(id).dtype?.bytes_for(count)
    });
    let output_bytes: usize = sizes
        .sum::<Option<usize>>()
        .ok_or_else(|| Miss::Refused("the size of its result is not known".into()))?;
    let input_bytes: usize = inputs.iter().flatten().map(|tensor| tensor.bytes().len()).sum();
    let growth = if matches!(it.op, Op::DequantizeLinear(_) | Op::Cast(_)) { WIDENING } else { GROWTH };
    require(output_bytes <= SMALL_BYTES.max(input_bytes.saturating_mul(growth)), || {
        format!("{input_bytes} bytes of constants would become {output_bytes}")
    })?;
    let macs = node_cost(graph, node).macs;
    require(macs <= MAX_MACS, || format!("evaluating it takes {macs} multiply-adds"))?;
    it.op.eval(&inputs, it.outputs().len()).map_err(|error| Miss::Refused(error.to_string()))
}

/// The output of a node that computes on shapes, when all extents in it are known. Notes what is known symbolically.
fn known_extents(graph: &Graph, node: NodeId, extents: &mut HashMap<ValueId, Vec<Dim>>) -> Site<Vec<Tensor>> {
    let it = graph.node(node);
    let infos: Vec<Option<InputInfo<'_>>> = it
        .inputs()
        .iter()
        .map(|id| {
            id.map(|id| InputInfo {
                ty: graph.ty(id),
                constant: graph.constant(id),
                extents: extents.get(&id).map(Vec::as_slice),
            })
        })
        .collect();
    let ([Some(output)], Some(dims)) = (it.outputs(), it.op.infer_extents(&infos)) else {
        return Err(Miss::Elsewhere);
    };
    let values: Option<Vec<i64>> = dims.iter().map(Dim::known_i64).collect();
    let tensor = values.and_then(|values| {
        let (ty, count) = (graph.ty(*output), values.len());
        let shape = ty.known_shape().filter(|shape| shape.iter().product::<usize>() == count)?;
        match ty.dtype? {
            DType::I64 => Tensor::from_vec(shape, values).ok(),
            DType::I32 => {
                let narrow = values.into_iter().map(i32::try_from).collect::<Result<Vec<_>, _>>().ok()?;
                Tensor::from_vec(shape, narrow).ok()
            }
            _ => None,
        }
    });
    extents.insert(*output, dims);
    tensor.map(|tensor| vec![tensor]).ok_or(Miss::Elsewhere)
}

/// Puts constants in the place of a node.
fn define(graph: &mut Graph, node: NodeId, tensors: Vec<Tensor>) -> Result<()> {
    let Some(node) = graph.remove_node(node) else { return Ok(()) };
    for (output, tensor) in node.outputs().iter().zip(tensors) {
        if let Some(output) = output {
            graph.define_constant(*output, tensor)?;
        }
    }
    Ok(())
}
