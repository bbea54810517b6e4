//! Common subexpressions: what is computed twice is computed once; equal constants share one value.

use crate::error::Result;
use crate::journal::Decision;
use crate::matching::{is_random, keeps_name};
use crate::pass::{About, Context, Pass};
use std::collections::HashMap;
use tconvc_ir::{DType, Graph, NodeId, Op, Tensor, ValueId};

/// Merges equal nodes and equal constants.
///
/// - Pattern: two nodes with the same operator, attributes and inputs; two constants of the same type, shape and bytes.
/// - Guard: no random operators, and none that we do not know; of two graph outputs both keep what makes them.
/// - Cost: falls by the second node, or the bytes of the second constant.
pub struct CommonSubexpressions;

const NAME: &str = "cse";

impl Pass for CommonSubexpressions {
    fn about(&self) -> About {
        About {
            name: NAME,
            summary: "compute what is computed twice once; store equal constants once",
            pattern: "two nodes with equal operator, attributes and inputs; two equal constants",
            claim: "falls by the second of the two",
        }
    }

    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
        let mut changed = merge_constants(graph)?;
        loop {
            context.journal.forget_refusals(NAME);
            if !merge_nodes(graph, context)? || context.exhausted() {
                return Ok(changed);
            }
            changed = true;
        }
    }
}

/// What equal tensors have in common and is cheap to look at: type, shape and the first bytes.
type Fingerprint = (DType, Vec<usize>, Vec<u8>);

fn fingerprint(tensor: &Tensor) -> Fingerprint {
    let bytes = tensor.bytes();
    (tensor.dtype(), tensor.shape().to_vec(), bytes[..bytes.len().min(32)].to_vec())
}

/// Not noted in the journal: there are many, and nobody asks why.
fn merge_constants(graph: &mut Graph) -> Result<bool> {
    let mut kept: HashMap<Fingerprint, Vec<ValueId>> = HashMap::new();
    let mut changed = false;
    // Graph outputs first: they keep their name, so others had better read that one.
    let mut constants: Vec<ValueId> =
        graph.values().map(|(id, _)| id).filter(|&id| graph.constant(id).is_some()).collect();
    constants.sort_by_key(|&id| (!keeps_name(graph, id), id));
    for id in constants {
        let Some(tensor) = graph.constant(id) else { continue };
        let alike = kept.entry(fingerprint(tensor)).or_default();
        let twin = alike.iter().copied().find(|&other| graph.constant(other) == Some(tensor));
        match twin {
            Some(_) if keeps_name(graph, id) => {}
            Some(twin) => {
                graph.replace_uses(id, twin);
                graph.remove_value(id)?;
                changed = true;
            }
            None => alike.push(id),
        }
    }
    Ok(changed)
}

fn merge_nodes(graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
    let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<NodeId>> = HashMap::new();
    let mut changed = false;
    // In this order the inputs of a node are mostly merged before the node is looked at; what is left is for another sweep.
    for node in graph.order()? {
        let (op, inputs) = (&graph.node(node).op, graph.node(node).inputs().to_vec());
        if matches!(op, Op::Opaque(_)) || is_random(op) {
            continue;
        }
        let alike = seen.entry((op.name().to_owned(), inputs)).or_default();
        let twin = alike.iter().position(|&other| same(graph, other, node));
        let Some(position) = twin else {
            alike.push(node);
            continue;
        };
        let named =
            |node: NodeId| graph.node(node).outputs().iter().flatten().any(|&id| keeps_name(graph, id));
        let (keep, drop) = match (named(alike[position]), named(node)) {
            (true, true) => {
                let (name, op) = (&graph.node(node).name, graph.node(node).op.name());
                let reason = format!("it and `{}` both make graph outputs", graph.node(alike[position]).name);
                context.journal.refuse(NAME, name, op, reason);
                continue;
            }
            (false, true) => (node, alike[position]),
            _ => (alike[position], node),
        };
        if context.exhausted() {
            return Ok(changed);
        }
        // The one that stays must not come after a reader of the other: it has the same inputs, so it cannot depend on one.
        alike[position] = keep;
        let (kept, gone) = (graph.node(keep).clone(), graph.node(drop).clone());
        for (old, new) in gone.outputs().iter().zip(kept.outputs()) {
            if let (Some(old), Some(new)) = (old, new) {
                graph.replace_uses(*old, *new);
            }
        }
        graph.remove_node(drop);
        for output in gone.outputs().iter().flatten() {
            graph.remove_value(*output)?;
        }
        context.applied(NAME, &gone.name, gone.op.name(), Decision::only(format!("is `{}`", kept.name)));
        changed = true;
    }
    Ok(changed)
}

/// Same operator, and the same of its outputs are there. The inputs were compared before.
fn same(graph: &Graph, a: NodeId, b: NodeId) -> bool {
    let (a, b) = (graph.node(a), graph.node(b));
    let present = |outputs: &[Option<ValueId>]| outputs.iter().map(Option::is_some).collect::<Vec<_>>();
    a.op == b.op && present(a.outputs()) == present(b.outputs())
}
