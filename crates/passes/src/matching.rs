//! Small questions that patterns ask of a graph.

use crate::pass::{Miss, Site};
use tconvc_ir::{Graph, NodeId, Op, Tensor, ValueId};

/// Makes `None` a pattern that is not there.
pub trait OrElsewhere<T> {
    /// The value, or [`Miss::Elsewhere`].
    ///
    /// # Errors
    /// [`Miss::Elsewhere`] when there is none.
    fn or_elsewhere(self) -> Site<T>;
}

impl<T> OrElsewhere<T> for Option<T> {
    fn or_elsewhere(self) -> Site<T> {
        self.ok_or(Miss::Elsewhere)
    }
}

impl<T, E> OrElsewhere<T> for Result<T, E> {
    fn or_elsewhere(self) -> Site<T> {
        self.map_err(|_| Miss::Elsewhere)
    }
}

/// The node that makes input `index` of `node`.
pub fn producer(graph: &Graph, node: NodeId, index: usize) -> Option<NodeId> {
    graph.producer(graph.node(node).input(index)?)
}

/// The node that makes input `index` of `node`, when nothing else reads what it makes.
pub fn private_producer(graph: &Graph, node: NodeId, index: usize) -> Option<NodeId> {
    let value = graph.node(node).input(index)?;
    graph.has_single_use(value).then(|| graph.producer(value))?
}

/// The only output of a node.
pub fn sole_output(graph: &Graph, node: NodeId) -> Option<ValueId> {
    match graph.node(node).outputs() {
        [output] => *output,
        _ => None,
    }
}

/// The only reader of a value, with the position at which it reads it; `None` when the value is a graph output as well.
pub fn sole_user(graph: &Graph, value: ValueId) -> Option<(NodeId, usize)> {
    if graph.is_output(value) {
        return None;
    }
    match graph.users(value)[..] {
        [user] => Some(user),
        _ => None,
    }
}

/// True when the value must keep its name: it is a graph output, or a subgraph in an attribute reads it by name.
pub fn keeps_name(graph: &Graph, value: ValueId) -> bool {
    let captured = |(user, position): (NodeId, usize)| match &graph.node(user).op {
        Op::Opaque(op) => position + op.captures >= graph.node(user).inputs().len(),
        _ => false,
    };
    graph.is_output(value) || graph.users(value).into_iter().any(captured)
}

/// The inputs of a node with two, both present.
pub fn two_inputs(graph: &Graph, node: NodeId) -> Option<[ValueId; 2]> {
    match graph.node(node).inputs() {
        [Some(a), Some(b)] => Some([*a, *b]),
        _ => None,
    }
}

/// Of the two inputs of a node, one that is constant and the other: `(other, constant, position of the constant)`.
pub fn constant_operand(graph: &Graph, node: NodeId) -> Option<(ValueId, ValueId, usize)> {
    let [a, b] = two_inputs(graph, node)?;
    match (graph.constant(a), graph.constant(b)) {
        (None, Some(_)) => Some((a, b, 1)),
        (Some(_), None) => Some((b, a, 0)),
        _ => None,
    }
}

/// True when both shapes are known to be the same, whatever the symbols stand for.
pub fn same_shape(graph: &Graph, a: ValueId, b: ValueId) -> bool {
    match (&graph.ty(a).shape, &graph.ty(b).shape) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b) == Some(true)),
        _ => false,
    }
}

/// The number of a constant with one element.
pub fn scalar(graph: &Graph, value: ValueId) -> Option<f64> {
    let tensor = graph.constant(value)?;
    (tensor.len() == 1).then(|| tensor.to_f64s().ok()?.first().copied())?
}

/// True when a tensor of this shape, broadcast over `[N, C, ..]` with `rank` axes, holds one number for all or one for
/// each of `channels` channels.
pub fn is_per_channel(tensor: &Tensor, rank: usize, channels: usize) -> bool {
    let shape = tensor.shape();
    if shape.len() > rank || rank < 2 {
        return false;
    }
    let missing = rank - shape.len();
    shape.iter().enumerate().all(|(i, &extent)| extent == 1 || (i + missing == 1 && extent == channels))
}

/// True for operators that give something else each time they run, or may.
pub fn is_random(op: &Op) -> bool {
    matches!(op, Op::Random(_) | Op::Bernoulli(_) | Op::Multinomial(_) | Op::Dropout(_))
}

/// Values that `value` is computed from by operators that `through` accepts, at most `limit` nodes away, nearest first.
/// Constants are left out.
pub fn sources(graph: &Graph, value: ValueId, limit: usize, through: impl Fn(&Op) -> bool) -> Vec<ValueId> {
    let mut found = vec![value];
    let (mut next, mut nodes) = (0, 0);
    while next < found.len() && nodes < limit {
        if let Some(node) = graph.producer(found[next]).filter(|&node| through(&graph.node(node).op)) {
            nodes += 1;
            for &input in graph.node(node).inputs().iter().flatten() {
                if graph.constant(input).is_none() && !found.contains(&input) {
                    found.push(input);
                }
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}
