//! Order of execution, and equality of graphs, which rests on it.

use super::{Graph, NodeId, ValueId, node_id};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::NodeIndex;
use petgraph::visit::NodeIndexable;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

impl Graph {
    /// Nodes in an order in which every value is made before it is used; among those free to run, oldest first.
    ///
    /// # Errors
    /// When the graph has a cycle; names a node on it.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        // Edges still to come into each node; nodes that were removed stay at 0 and are never reached.
        let mut waiting = vec![0usize; self.dag.node_bound()];
        let mut ready = BinaryHeap::new();
        for node in self.dag.node_indices() {
            let count = self.dag.edges_directed(node, Incoming).count();
            waiting[node.index()] = count;
            if count == 0 {
                ready.push(Reverse(node));
            }
        }
        let mut order = Vec::with_capacity(self.dag.node_count());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node_id(node));
            for target in self.dag.neighbors_directed(node, Outgoing) {
                waiting[target.index()] -= 1;
                if waiting[target.index()] == 0 {
                    ready.push(Reverse(target));
                }
            }
        }
        if order.len() == self.dag.node_count() {
            return Ok(order);
        }
        let name = self.node_on_cycle(&waiting);
        Err(Error::Graph(format!("node `{name}` depends on its own output")))
    }

    /// Name of a node on a cycle: from any node that waits, back along what waits too, until a node comes again.
    fn node_on_cycle(&self, waiting: &[usize]) -> &str {
        let mut seen = vec![false; waiting.len()];
        let mut at = waiting.iter().position(|&count| count > 0).map(NodeIndex::new);
        while let Some(node) = at.filter(|node| !std::mem::replace(&mut seen[node.index()], true)) {
            at = self.dag.neighbors_directed(node, Incoming).find(|maker| waiting[maker.index()] > 0);
        }
        at.and_then(|node| self.dag.node_weight(node)).map_or("", |node| node.name.as_str())
    }
}

impl PartialEq for Graph {
    /// Same inputs, outputs, constants and nodes under the same names, in the same order of execution.
    fn eq(&self, other: &Self) -> bool {
        let (Ok(order), Ok(others)) = (self.order(), other.order()) else { return false };
        let names = |graph: &Self, ids: &[ValueId]| -> Vec<(String, ValueType)> {
            ids.iter().map(|&id| (graph.value(id).name.clone(), graph.ty(id).clone())).collect()
        };
        let optional = |graph: &Self, ids: &[Option<ValueId>]| -> Vec<Option<(String, ValueType)>> {
            ids.iter().map(|id| id.map(|id| (graph.value(id).name.clone(), graph.ty(id).clone()))).collect()
        };
        let constants = |graph: &Self| -> BTreeMap<String, Tensor> {
            let values = graph
                .values()
                .filter_map(|(id, value)| Some((value.name.clone(), graph.constant(id)?.clone())));
            values.collect()
        };
        self.name == other.name
            && self.opsets == other.opsets
            && self.metadata == other.metadata
            && names(self, &self.inputs) == names(other, &other.inputs)
            && names(self, &self.outputs) == names(other, &other.outputs)
            && constants(self) == constants(other)
            && order.len() == others.len()
            && order.iter().zip(&others).all(|(&a, &b)| {
                let (a, b) = (self.node(a), other.node(b));
                a.name == b.name
                    && a.op == b.op
                    && optional(self, &a.inputs) == optional(other, &b.inputs)
                    && optional(self, &a.outputs) == optional(other, &b.outputs)
            })
    }
}
