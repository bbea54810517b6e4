//! Groups nodes into steps: the pairs that spell a form, trees of elementwise nodes, a product of
//! matrices in some of them, views that need no step at all.

use super::{Step, StepKind};
use crate::limits::Limits;
use std::collections::{HashMap, HashSet};
use tconvc_ir::ops::{Binary, Unary};
use tconvc_ir::{DType, Graph, NodeId, Op, Result, ValueId};

/// Steps in running order, and the values that are views of others.
pub(super) struct Grouped {
    pub(super) steps: Vec<Step>,
    /// View: the value it lies in, and the bytes from that value's start.
    pub(super) views: HashMap<ValueId, (ValueId, usize)>,
}

pub(super) fn group(graph: &Graph, limits: &Limits) -> Result<Grouped> {
    let order = graph.order()?;
    let mut joined = join(graph, &order, limits);
    let mut last = last_nodes(&joined, &order);
    // A step has one product: the first, whose result need not wait for others.
    let mut with_product = HashSet::new();
    let products =
        order.iter().filter(|node| is_product(&graph.node(**node).op) && joined.contains_key(node));
    let more: Vec<NodeId> = products.copied().filter(|node| !with_product.insert(last[node])).collect();
    if !more.is_empty() {
        joined.retain(|node, _| !more.contains(node));
        last = last_nodes(&joined, &order);
    }
    let mut members: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
    for &node in &order {
        members.entry(last[&node]).or_default().push(node);
    }
    let mut grouped = Grouped { steps: vec![], views: HashMap::new() };
    for &node in &order {
        let Some(nodes) = members.remove(&node) else { continue };
        if nodes.len() == 1
            && let Some((from, to)) = view_of(graph, node)
        {
            grouped.views.insert(to, (from, 0));
            continue;
        }
        grouped.steps.push(step(graph, nodes));
    }
    Ok(grouped)
}

/// Each node that runs inside a later node's step, with that node. Elementwise nodes join as long as what they read together has
/// registers for pointers to it; beyond that, a step ends and the next one reads its result.
fn join(graph: &Graph, order: &[NodeId], limits: &Limits) -> HashMap<NodeId, NodeId> {
    let mut joined = HashMap::new();
    // What the elementwise nodes that run with a node read from memory, and how many they are; the result of a product counts,
    // which the nodes behind it read if they run apart from it.
    let mut fused: HashMap<NodeId, (HashSet<ValueId>, usize)> = HashMap::new();
    for &node in order {
        let user = graph.node(node);
        let mut nodes = 1;
        let mut reads: HashSet<ValueId> = user.inputs().iter().flatten().copied().collect();
        for &input in user.inputs().iter().flatten() {
            let Some(maker) = graph.producer(input) else { continue };
            if !graph.has_single_use(input)
                || graph.node(maker).outputs().len() != 1
                || !joins(graph, maker, node)
            {
                continue;
            }
            if let Some((more, others)) = fused.remove(&maker) {
                let together = reads.len() - 1 + more.difference(&reads).count();
                if together > limits.fused_inputs || nodes + others > limits.fused_nodes {
                    continue;
                }
                reads.remove(&input);
                reads.extend(more);
                nodes += others;
            }
            joined.insert(maker, node);
        }
        if is_elementwise(graph, node) {
            fused.insert(node, (reads, nodes));
        }
    }
    joined
}

/// The node that ends the step of each node. A node stands behind all that it reads, so backwards each is found at once.
fn last_nodes(joined: &HashMap<NodeId, NodeId>, order: &[NodeId]) -> HashMap<NodeId, NodeId> {
    let mut last = HashMap::with_capacity(order.len());
    for &node in order.iter().rev() {
        let end = joined.get(&node).map_or(node, |user| last[user]);
        last.insert(node, end);
    }
    last
}

/// True when `maker`, whose only reader is `user`, runs in the same kernel.
fn joins(graph: &Graph, maker: NodeId, user: NodeId) -> bool {
    match (&graph.node(maker).op, &graph.node(user).op) {
        (Op::ZeroInsert(_), Op::Conv(_))
        | (Op::PhaseConv(_), Op::Interleave(_))
        | (Op::ColumnGemm(_), Op::OverlapAdd(_)) => graph.node(user).input(0) == graph.node(maker).output(0),
        _ => {
            let shape =
                |node: NodeId| graph.node(node).output(0).and_then(|value| graph.ty(value).known_shape());
            (is_elementwise(graph, maker) || is_product(&graph.node(maker).op))
                && is_elementwise(graph, user)
                && shape(maker) == shape(user)
        }
    }
}

/// True for products of matrices, which elementwise nodes may [follow in a step](StepKind::Product).
pub fn is_product(op: &Op) -> bool {
    matches!(op, Op::MatMul(_) | Op::Gemm(_))
}

/// True for nodes that compute each f32 output element from the elements at the same place of f32 inputs.
pub(super) fn is_elementwise(graph: &Graph, node: NodeId) -> bool {
    let node = graph.node(node);
    let f32s = node
        .inputs()
        .iter()
        .chain(node.outputs())
        .flatten()
        .all(|&value| graph.ty(value).dtype == Some(DType::F32));
    let known = node.output(0).is_some_and(|value| graph.ty(value).known_shape().is_some());
    f32s && known && node.outputs().len() == 1 && has_lanes(&node.op)
}

/// True for elementwise operators that have vector code; the others run one by one.
pub fn has_lanes(op: &Op) -> bool {
    match op {
        Op::Unary(unary) => !matches!(
            unary,
            Unary::Tan
                | Unary::Asin
                | Unary::Acos
                | Unary::Atan
                | Unary::Sinh
                | Unary::Cosh
                | Unary::Asinh
                | Unary::Acosh
                | Unary::Atanh
                | Unary::Not
                | Unary::BitwiseNot
                | Unary::IsNaN
        ),
        Op::Binary(binary) => {
            matches!(binary, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::PRelu)
        }
        Op::Variadic(_) => true,
        _ => false,
    }
}

/// The value that a reshape-like node gives another shape, and the result.
fn view_of(graph: &Graph, node: NodeId) -> Option<(ValueId, ValueId)> {
    let node = graph.node(node);
    let (input, output) = (node.input(0)?, node.output(0)?);
    let same_bytes = graph.ty(input).dtype == graph.ty(output).dtype;
    (is_reshape(&node.op) && same_bytes && node.outputs().len() == 1).then_some((input, output))
}

fn is_reshape(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Identity(_))
}

fn step(graph: &Graph, nodes: Vec<NodeId>) -> Step {
    let kind = match nodes.iter().map(|&node| &graph.node(node).op).collect::<Vec<_>>().as_slice() {
        [Op::Conv(_)] => StepKind::Conv,
        [Op::ZeroInsert(_), Op::Conv(_)] => StepKind::ZeroInsertion,
        [Op::PhaseConv(_), Op::Interleave(_)] => StepKind::SubPixel,
        [Op::ColumnGemm(_), Op::OverlapAdd(_)] => StepKind::Scatter,
        [_] if is_elementwise(graph, nodes[0]) => StepKind::FusedElementwise,
        [_] => StepKind::Single,
        ops if ops.iter().any(|op| is_product(op)) => StepKind::Product,
        _ => StepKind::FusedElementwise,
    };
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    let (mut inputs, mut seen) = (vec![], HashSet::new());
    for &value in nodes.iter().flat_map(|&node| graph.node(node).inputs()).flatten() {
        let made_inside = graph.producer(value).is_some_and(|maker| inside.contains(&maker));
        if !made_inside && seen.insert(value) {
            inputs.push(value);
        }
    }
    let outputs = nodes
        .last()
        .map(|&node| graph.node(node).outputs().iter().flatten().copied().collect())
        .unwrap_or_default();
    Step { kind, nodes, inputs, outputs }
}
