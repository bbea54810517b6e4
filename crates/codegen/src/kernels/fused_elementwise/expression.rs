//! Vector code of elementwise nodes that end in one result: inputs are loaded where they are used, and what needs more registers comes
//! first, so that a tree of nodes takes few of them whatever the order of the graph.

use crate::kernels::unary;
use std::collections::HashMap;
use tconvc_ir::ops::{Binary, Variadic};
use tconvc_ir::{Graph, Node, NodeId, Op, ValueId};
use tconvc_tile::{Cmp, TileBuilder, Vector};

/// Elementwise nodes, each but the last read by one other of them.
pub(crate) struct Expression<'a> {
    graph: &'a Graph,
    last: Option<ValueId>,
    makers: HashMap<ValueId, NodeId>,
    /// Registers that each of the nodes' results needs until it is there.
    needs: HashMap<ValueId, usize>,
    /// How often each value is read.
    uses: HashMap<ValueId, usize>,
}

impl<'a> Expression<'a> {
    /// Nodes in graph order.
    pub fn new(graph: &'a Graph, nodes: &[NodeId]) -> Self {
        let (mut makers, mut needs, mut uses) = (HashMap::new(), HashMap::new(), HashMap::new());
        for &id in nodes {
            let node = graph.node(id);
            let of_inputs: Vec<usize> =
                node.inputs().iter().flatten().map(|input| needs.get(input).copied().unwrap_or(1)).collect();
            node.inputs().iter().flatten().for_each(|&input| *uses.entry(input).or_insert(0) += 1);
            let Some(output) = node.output(0) else { continue };
            needs.insert(output, registers(&node.op, &of_inputs));
            makers.insert(output, id);
        }
        let last = nodes.last().and_then(|&last| graph.node(last).output(0));
        Self { graph, last, makers, needs, uses }
    }

    /// Whether several nodes read a value, or one reads it several times.
    pub fn is_read_again(&self, value: ValueId) -> bool {
        self.uses.get(&value).is_some_and(|&uses| uses > 1)
    }

    /// Code for the result of the last node; `load` gives what no node makes. Nothing where there are no nodes.
    pub fn write(
        &self,
        b: &mut TileBuilder,
        load: &mut dyn FnMut(&mut TileBuilder, ValueId) -> Vector,
    ) -> Option<Vector> {
        self.last.map(|last| self.value(b, last, load))
    }

    fn value(
        &self,
        b: &mut TileBuilder,
        value: ValueId,
        load: &mut dyn FnMut(&mut TileBuilder, ValueId) -> Vector,
    ) -> Vector {
        match self.makers.get(&value) {
            Some(&maker) => self.result(b, self.graph.node(maker), load),
            None => load(b, value),
        }
    }

    fn result(
        &self,
        b: &mut TileBuilder,
        node: &Node,
        load: &mut dyn FnMut(&mut TileBuilder, ValueId) -> Vector,
    ) -> Vector {
        let inputs: Vec<ValueId> = node.inputs().iter().flatten().copied().collect();
        match (&node.op, inputs.as_slice()) {
            (Op::Unary(op), &[x]) => {
                let x = self.value(b, x, load);
                unary::apply(b, *op, x)
            }
            (Op::Binary(op), &[x, y]) if has_code(*op) => {
                let [x, y] = self.pair(b, x, y, load);
                binary(b, *op, x, y)
            }
            (Op::Variadic(op), &[only]) => {
                let only = self.value(b, only, load);
                if *op == Variadic::Mean { b.div(only, 1.0) } else { only }
            }
            (Op::Variadic(op), &[first, second, ref rest @ ..]) => {
                let [first, second] = self.pair(b, first, second, load);
                let mut all = combine(b, *op, first, second);
                for &next in rest {
                    let next = self.value(b, next, load);
                    all = combine(b, *op, all, next);
                }
                if *op == Variadic::Mean { b.div(all, inputs.len() as f32) } else { all }
            }
            (op, _) => {
                let none = b.zero();
                b.misuse(format!("{} has no vector code", op.name()), none)
            }
        }
    }

    /// Both values; first the one that needs more registers.
    fn pair(
        &self,
        b: &mut TileBuilder,
        x: ValueId,
        y: ValueId,
        load: &mut dyn FnMut(&mut TileBuilder, ValueId) -> Vector,
    ) -> [Vector; 2] {
        let need = |value| self.needs.get(&value).copied().unwrap_or(0);
        if need(x) >= need(y) {
            let x = self.value(b, x, load);
            [x, self.value(b, y, load)]
        } else {
            let y = self.value(b, y, load);
            [self.value(b, x, load), y]
        }
    }
}

/// Registers that a result needs until it is there, of those that its inputs need, in the order in which these are made.
fn registers(op: &Op, inputs: &[usize]) -> usize {
    match (op, inputs) {
        (_, &[x]) => x,
        (Op::Binary(_) | Op::Variadic(_), &[x, y, ref rest @ ..]) => {
            let pair = if x == y { x + 1 } else { x.max(y) };
            rest.iter().fold(pair, |most, need| most.max(need + 1))
        }
        _ => inputs.len().max(1),
    }
}

fn has_code(op: Binary) -> bool {
    matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::PRelu)
}

fn binary(b: &mut TileBuilder, op: Binary, x: Vector, y: Vector) -> Vector {
    match op {
        Binary::Sub => b.sub(x, y),
        Binary::Mul => b.mul(x, y),
        Binary::Div => b.div(x, y),
        Binary::PRelu => {
            let scaled = b.mul(x, y);
            b.select(Cmp::Lt, x, 0.0, scaled, x)
        }
        _ => b.add(x, y),
    }
}

/// One more input of an operator on many.
pub(super) fn combine(b: &mut TileBuilder, op: Variadic, x: Vector, y: Vector) -> Vector {
    match op {
        Variadic::Sum | Variadic::Mean => b.add(x, y),
        Variadic::Max => b.max_nan(x, y),
        Variadic::Min => b.min_nan(x, y),
    }
}
