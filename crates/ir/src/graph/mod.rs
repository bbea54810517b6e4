//! The graph: values, nodes and their edits. petgraph is inside and private.
//!
//! A value has one definition: a graph input, a constant, or an output of a node. Rewrites keep a value and replace what
//! defines it, so names and graph outputs survive every pass. Every edit takes about the time of what it touches: each
//! value knows its users.

mod check;
mod declared;
mod defaults;
mod order;

use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use petgraph::Direction::Incoming;
use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A value of a graph. Stays valid until the value is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

/// A node of a graph. Stays valid until the node is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// What defines a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// Nothing yet: an error in a finished graph.
    Nothing,
    /// An input of the graph.
    Input,
    /// A constant (initialiser). The tensor's bytes are shared.
    Constant(Tensor),
    /// Output number `.1` of node `.0`.
    Node(NodeId, usize),
}

/// A value: name, type, definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Name, unique in its graph.
    pub name: String,
    /// Element type and shape, as far as known.
    pub ty: ValueType,
    definition: Definition,
    /// Inputs of nodes that read it.
    users: BTreeSet<(NodeId, u32)>,
    /// How often it is an output of the graph.
    outputs: u32,
}

impl Value {
    /// What defines it.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// True when no node reads it and it is no output of the graph.
    pub fn is_unused(&self) -> bool {
        self.users.is_empty() && self.outputs == 0
    }
}

/// A node: an operator applied to values.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Name for people and reports; unique in its graph, never empty.
    pub name: String,
    /// The operator with its attributes.
    pub op: Op,
    inputs: Vec<Option<ValueId>>,
    outputs: Vec<Option<ValueId>>,
}

impl Node {
    /// Inputs by position; `None` for an optional input that is absent.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Outputs by position; `None` for an optional output that is absent.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Input number `index`, when present.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Output number `index`, when present.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }
}

/// A network: nodes over values, with named inputs and outputs. See the module's text.
#[derive(Clone, Default)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Opset that unknown operators of each domain were written for ("" is ONNX's own).
    pub opsets: BTreeMap<String, i64>,
    /// Model metadata that is passed through.
    pub metadata: BTreeMap<String, String>,
    /// Nodes weigh what they are; an edge runs from the maker of a value to each of its users.
    dag: StableDiGraph<Node, ValueId>,
    values: Vec<Option<Value>>,
    names: HashMap<String, ValueId>,
    node_names: HashSet<String>,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    /// What counts for inputs that a caller leaves out.
    defaults: BTreeMap<ValueId, Tensor>,
    /// What a file says of the types of what nodes make.
    declared: BTreeMap<ValueId, ValueType>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    // ---- values

    /// Adds an input.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_input(&mut self, name: &str, ty: ValueType) -> Result<ValueId> {
        let id = self.add_value(name, ty, Definition::Input)?;
        self.inputs.push(id);
        Ok(id)
    }

    /// Adds a constant. A taken name gets a number behind it.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh_name(name);
        let ty = ValueType::of(&tensor);
        self.insert_value(name, ty, Definition::Constant(tensor))
    }

    /// Adds a value that is still to be defined. Use [`Graph::add_node_defining`] for that.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_undefined(&mut self, name: &str, ty: ValueType) -> Result<ValueId> {
        self.add_value(name, ty, Definition::Nothing)
    }

    fn add_value(&mut self, name: &str, ty: ValueType, definition: Definition) -> Result<ValueId> {
        if self.names.contains_key(name) {
            return Err(Error::Graph(format!("two values are named `{name}`")));
        }
        Ok(self.insert_value(name.to_owned(), ty, definition))
    }

    fn insert_value(&mut self, name: String, ty: ValueType, definition: Definition) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.names.insert(name.clone(), id);
        self.values.push(Some(Value { name, ty, definition, users: BTreeSet::new(), outputs: 0 }));
        id
    }

    /// A value name close to `base` that is not taken.
    pub fn fresh_name(&self, base: &str) -> String {
        fresh(base, |name| self.names.contains_key(name))
    }

    /// The value; it must belong to this graph and not have been removed.
    pub fn value(&self, id: ValueId) -> &Value {
        match self.values.get(id.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("value {} was removed or is of another graph", id.0),
        }
    }

    fn value_mut(&mut self, id: ValueId) -> &mut Value {
        match self.values.get_mut(id.0 as usize) {
            Some(Some(value)) => value,
            _ => unreachable!("value {} was removed or is of another graph", id.0),
        }
    }

    /// Every value, in the order in which they were added.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().filter_map(|(i, value)| Some((ValueId(i as u32), value.as_ref()?)))
    }

    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Type of a value.
    pub fn ty(&self, id: ValueId) -> &ValueType {
        &self.value(id).ty
    }

    /// Sets what is known of a value's type.
    pub fn set_ty(&mut self, id: ValueId, ty: ValueType) {
        self.value_mut(id).ty = ty;
    }

    /// Renames a value.
    ///
    /// # Errors
    /// When the name is taken by another.
    pub fn rename_value(&mut self, id: ValueId, name: &str) -> Result<()> {
        match self.names.get(name) {
            Some(&owner) if owner == id => return Ok(()),
            Some(_) => return Err(Error::Graph(format!("two values are named `{name}`"))),
            None => {}
        }
        let old = std::mem::replace(&mut self.value_mut(id).name, name.to_owned());
        self.names.remove(&old);
        self.names.insert(name.to_owned(), id);
        Ok(())
    }

    /// The tensor, when the value is a constant.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        match &self.value(id).definition {
            Definition::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The constant at input `index` of a node; `None` when absent or not constant.
    pub fn constant_input(&self, node: NodeId, index: usize) -> Option<&Tensor> {
        self.constant(self.node(node).input(index)?)
    }

    /// As [`Graph::constant_input`], of a node at hand.
    pub(crate) fn constant_of(&self, node: &Node, index: usize) -> Option<&Tensor> {
        self.constant(node.input(index)?)
    }

    /// The node that makes the value; `None` for inputs and constants.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        match self.value(id).definition {
            Definition::Node(node, _) => Some(node),
            _ => None,
        }
    }

    /// Turns a value that nothing defines (its node was removed) into a constant of that tensor.
    ///
    /// # Errors
    /// When the value is still defined otherwise.
    pub fn define_constant(&mut self, id: ValueId, tensor: Tensor) -> Result<()> {
        let value = self.value_mut(id);
        if value.definition != Definition::Nothing {
            return Err(Error::Graph(format!("value `{}` is already defined", value.name)));
        }
        value.ty = ValueType::of(&tensor);
        value.definition = Definition::Constant(tensor);
        Ok(())
    }

    /// Users of a value: node and input position, in a fixed order. A graph output is no user; see [`Graph::is_output`].
    pub fn users(&self, id: ValueId) -> Vec<(NodeId, usize)> {
        self.value(id).users.iter().map(|&(node, position)| (node, position as usize)).collect()
    }

    /// True when exactly one input of one node reads the value and it is no graph output.
    pub fn has_single_use(&self, id: ValueId) -> bool {
        !self.is_output(id) && self.value(id).users.len() == 1
    }

    // ---- inputs and outputs of the graph

    /// Graph inputs, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Graph outputs, in order. One value may be several outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Appends a graph output.
    pub fn add_output(&mut self, id: ValueId) {
        self.value_mut(id).outputs += 1;
        self.outputs.push(id);
    }

    /// Keeps those of the graph's outputs, by their places, that `keep` asks for.
    pub fn retain_outputs(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for (place, id) in std::mem::take(&mut self.outputs).into_iter().enumerate() {
            if keep(place) {
                self.outputs.push(id);
            } else {
                self.value_mut(id).outputs -= 1;
            }
        }
    }

    /// True when the value is a graph output.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.value(id).outputs > 0
    }

    /// Symbols in the types of the inputs, in the order in which they appear: what a caller has to choose.
    pub fn symbols(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let dims = self.inputs.iter().flat_map(|&id| self.ty(id).shape.iter().flatten());
        dims.flat_map(Dim::symbols).filter(|name| name != Dim::UNKNOWN && seen.insert(name.clone())).collect()
    }

    // ---- nodes

    /// Adds a node whose outputs are new values with these types, named after the node.
    ///
    /// # Errors
    /// When an input does not exist.
    pub fn add_node(
        &mut self,
        name: &str,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        types: Vec<ValueType>,
    ) -> Result<(NodeId, Vec<ValueId>)> {
        let outputs: Vec<ValueId> = types
            .into_iter()
            .map(|ty| {
                let name = self.fresh_name(name);
                self.insert_value(name, ty, Definition::Nothing)
            })
            .collect();
        let node =
            self.add_node_defining(name, op, inputs, &outputs.iter().copied().map(Some).collect::<Vec<_>>())?;
        Ok((node, outputs))
    }

    /// Adds a node that defines existing values nothing defines yet: the way to replace what makes a value.
    ///
    /// # Errors
    /// When an input does not exist or an output is already defined.
    pub fn add_node_defining(
        &mut self,
        name: &str,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> Result<NodeId> {
        for id in inputs.iter().chain(outputs).flatten() {
            if self.values.get(id.0 as usize).is_none_or(Option::is_none) {
                return Err(Error::Graph(format!("node `{name}` names a value that does not exist")));
            }
        }
        for (position, id) in outputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            let value = self.value(id);
            if value.definition != Definition::Nothing || outputs[..position].contains(&Some(id)) {
                return Err(Error::Graph(format!("value `{}` is defined twice", value.name)));
            }
        }
        let name = fresh(if name.is_empty() { "node" } else { name }, |name| self.node_names.contains(name));
        self.node_names.insert(name.clone());
        let node = Node { name, op: op.into(), inputs: inputs.to_vec(), outputs: outputs.to_vec() };
        let id = node_id(self.dag.add_node(node));
        for (position, output) in outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            let value = self.value_mut(output);
            value.definition = Definition::Node(id, position);
            // Users may have come before the definition (graphs are read in any order).
            let users: Vec<NodeId> = value.users.iter().map(|&(user, _)| user).collect();
            for user in users {
                self.dag.add_edge(index(id), index(user), output);
            }
        }
        for (position, input) in inputs.iter().enumerate() {
            if let Some(input) = *input {
                self.connect(input, id, position);
            }
        }
        Ok(id)
    }

    /// Enters a use of a value, with its edge when a node makes the value.
    fn connect(&mut self, id: ValueId, user: NodeId, position: usize) {
        let value = self.value_mut(id);
        value.users.insert((user, position as u32));
        if let Definition::Node(maker, _) = value.definition {
            self.dag.add_edge(index(maker), index(user), id);
        }
    }

    /// Takes back what [`Graph::connect`] entered.
    fn disconnect(&mut self, id: ValueId, user: NodeId, position: usize) {
        self.value_mut(id).users.remove(&(user, position as u32));
        let mut edges = self.dag.edges_directed(index(user), Incoming);
        let edge: Option<EdgeIndex> = edges.find(|edge| *edge.weight() == id).map(|edge| edge.id());
        if let Some(edge) = edge {
            self.dag.remove_edge(edge);
        }
    }

    /// The node; it must belong to this graph and not have been removed.
    pub fn node(&self, id: NodeId) -> &Node {
        match self.dag.node_weight(index(id)) {
            Some(node) => node,
            None => unreachable!("node {} was removed or is of another graph", id.0),
        }
    }

    /// The operator of a node, to change it in place.
    pub fn op_mut(&mut self, id: NodeId) -> &mut Op {
        match self.dag.node_weight_mut(index(id)) {
            Some(node) => &mut node.op,
            None => unreachable!("node {} was removed or is of another graph", id.0),
        }
    }

    /// Every node, in no order that means anything; see [`Graph::order`].
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.dag.node_weights()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.dag.node_count()
    }

    /// True when the node has not been removed.
    pub fn contains_node(&self, id: NodeId) -> bool {
        self.dag.contains_node(index(id))
    }

    /// Replaces one input of a node, or appends it when `position` is the number of inputs.
    pub fn set_input(&mut self, id: NodeId, position: usize, value: Option<ValueId>) {
        let Some(node) = self.dag.node_weight_mut(index(id)) else { return };
        while node.inputs.len() <= position {
            node.inputs.push(None);
        }
        let old = std::mem::replace(&mut node.inputs[position], value);
        if let Some(old) = old {
            self.disconnect(old, id, position);
        }
        if let Some(value) = value {
            self.connect(value, id, position);
        }
    }

    /// Makes every user of `old` read `new`; graph outputs keep `old`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        // Newest first: petgraph finds young edges at once. New edges last, so that they do not stand before old ones.
        let users = self.users(old);
        for &(node, position) in users.iter().rev() {
            self.set_input(node, position, None);
        }
        for (node, position) in users {
            self.set_input(node, position, Some(new));
        }
    }

    /// Removes a node. Its outputs stay as values that nothing defines, for another node to define, or to be removed.
    pub fn remove_node(&mut self, id: NodeId) -> Option<Node> {
        let node = self.dag.remove_node(index(id))?;
        self.node_names.remove(&node.name);
        for (position, input) in node.inputs.iter().enumerate() {
            if let Some(input) = *input {
                self.value_mut(input).users.remove(&(id, position as u32));
            }
        }
        for output in node.outputs.iter().flatten() {
            self.value_mut(*output).definition = Definition::Nothing;
        }
        Some(node)
    }

    /// Removes a value that nothing uses. Inputs of the graph stay.
    ///
    /// # Errors
    /// When it is used, made by a node, or an input or output of the graph.
    pub fn remove_value(&mut self, id: ValueId) -> Result<()> {
        let value = self.value(id);
        let kept = matches!(value.definition, Definition::Input | Definition::Node(..));
        if kept || !value.is_unused() {
            return Err(Error::Graph(format!("value `{}` is still needed", value.name)));
        }
        if let Some(value) = self.values[id.0 as usize].take() {
            self.names.remove(&value.name);
        }
        Ok(())
    }

    /// Removes constants and undefined values that nothing reads and that are no graph output, in one sweep.
    pub fn remove_unused_values(&mut self) {
        for slot in &mut self.values {
            let unused = slot.as_ref().is_some_and(|value| {
                matches!(value.definition, Definition::Constant(_) | Definition::Nothing) && value.is_unused()
            });
            if unused && let Some(value) = slot.take() {
                self.names.remove(&value.name);
            }
        }
    }
}

fn index(id: NodeId) -> NodeIndex {
    NodeIndex::new(id.0 as usize)
}

fn node_id(index: NodeIndex) -> NodeId {
    NodeId(index.index() as u32)
}

/// A name close to `base` that is not taken: `base`, or `base.N`. Finds N by doubling and halving, so that thousands of
/// equal names stay cheap.
fn fresh(base: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(base) {
        return base.to_owned();
    }
    let numbered = |n: u64| format!("{base}.{n}");
    let mut free = 1u64;
    while taken(&numbered(free)) {
        free *= 2;
    }
    let mut used = free / 2;
    while free - used > 1 {
        let middle = used + (free - used) / 2;
        if taken(&numbered(middle)) {
            used = middle;
        } else {
            free = middle;
        }
    }
    numbered(free)
}
