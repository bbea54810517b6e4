//! The graph: values, nodes and the order between them. petgraph is inside and private.
//!
//! A value has one definition: a graph input, a constant, or an output of a node. Rewrites keep a value and replace what
//! defines it, so names and graph outputs survive every pass.

use crate::dim::{Bindings, Dim};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::tensor::Tensor;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::fmt;

/// A value of a graph. Stays valid until the value is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

/// A node of a graph. Stays valid until the node is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// Element type and shape of a value, as far as known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueType {
    /// Element type; `None` where an operator that we do not know made it.
    pub dtype: Option<DType>,
    /// Extents; `None` where not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl ValueType {
    /// Known type and extents.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        Self { dtype: Some(dtype), shape: Some(shape.into_iter().map(Into::into).collect()) }
    }

    /// Known type, unknown rank.
    pub fn unranked(dtype: DType) -> Self {
        Self { dtype: Some(dtype), shape: None }
    }

    /// The type of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.dtype(), tensor.shape().iter().copied())
    }

    /// The extents when all are known.
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// Number of axes, when known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

impl fmt::Display for ValueType {
    /// `f32[1, 64, H, 2*W]`; `?` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(dtype) => write!(f, "{dtype}")?,
            None => f.write_str("?")?,
        }
        match &self.shape {
            None => f.write_str("[..]"),
            Some(shape) => {
                f.write_str("[")?;
                for (i, dim) in shape.iter().enumerate() {
                    write!(f, "{}{dim}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

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
}

impl Value {
    /// What defines it.
    pub fn definition(&self) -> &Definition {
        &self.definition
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
        self.values.push(Some(Value { name, ty, definition }));
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
        let mut nodes: Vec<NodeId> = match self.value(id).definition {
            Definition::Node(node, _) => {
                let edges =
                    self.dag.edges_directed(index(node), Outgoing).filter(|edge| *edge.weight() == id);
                edges.map(|edge| node_id(edge.target())).collect()
            }
            _ => self
                .dag
                .node_indices()
                .map(node_id)
                .filter(|&node| self.node(node).inputs.contains(&Some(id)))
                .collect(),
        };
        nodes.sort();
        nodes.dedup();
        let positions = |node: NodeId| {
            let inputs = self.node(node).inputs.iter().enumerate();
            inputs.filter(|(_, input)| **input == Some(id)).map(move |(position, _)| (node, position))
        };
        nodes.into_iter().flat_map(positions).collect()
    }

    /// True when exactly one input of one node reads the value and it is no graph output.
    pub fn has_single_use(&self, id: ValueId) -> bool {
        !self.is_output(id) && self.users(id).len() == 1
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
        self.outputs.push(id);
    }

    /// True when the value is a graph output.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
    }

    /// Gives values to symbols, in the types of all values.
    ///
    /// # Errors
    /// When an extent overflows or becomes negative.
    pub fn bind(&mut self, bindings: &Bindings) -> Result<()> {
        for value in self.values.iter_mut().flatten() {
            for dim in value.ty.shape.iter_mut().flatten() {
                *dim = dim.bind(bindings)?;
                if dim.known_i64().is_some_and(|extent| extent < 0) {
                    return Err(Error::Geometry(format!("an extent of `{}` becomes {dim}", value.name)));
                }
            }
        }
        Ok(())
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
            if let Some(value) = *output {
                self.value_mut(value).definition = Definition::Node(id, position);
                // Users may have come before the definition (graphs are read in any order).
                let users: Vec<NodeId> = self.users_by_scan(value);
                for user in users {
                    self.dag.add_edge(index(id), index(user), value);
                }
            }
        }
        for value in inputs.iter().flatten() {
            self.connect(*value, id);
        }
        Ok(id)
    }

    fn users_by_scan(&self, value: ValueId) -> Vec<NodeId> {
        let nodes = self.dag.node_indices().map(node_id);
        nodes
            .flat_map(|node| {
                self.node(node).inputs.iter().filter(|input| **input == Some(value)).map(move |_| node)
            })
            .collect()
    }

    fn connect(&mut self, value: ValueId, user: NodeId) {
        if let Definition::Node(maker, _) = self.value(value).definition {
            if maker == user {
                // A node that reads its own output: its edge was made when the output was defined.
                return;
            }
            self.dag.add_edge(index(maker), index(user), value);
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
            let edge = self
                .dag
                .edges_directed(index(id), Incoming)
                .find(|edge| *edge.weight() == old)
                .map(|edge| edge.id());
            if let Some(edge) = edge {
                self.dag.remove_edge(edge);
            }
        }
        if let Some(value) = value {
            self.connect(value, id);
        }
    }

    /// Makes every user of `old` read `new`; graph outputs keep `old`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for (node, position) in self.users(old) {
            self.set_input(node, position, Some(new));
        }
    }

    /// Removes a node. Its outputs stay as values that nothing defines, for another node to define, or to be removed.
    pub fn remove_node(&mut self, id: NodeId) -> Option<Node> {
        let node = self.dag.remove_node(index(id))?;
        self.node_names.remove(&node.name);
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
        if kept || self.is_output(id) || !self.users(id).is_empty() {
            return Err(Error::Graph(format!("value `{}` is still needed", value.name)));
        }
        if let Some(value) = self.values[id.0 as usize].take() {
            self.names.remove(&value.name);
        }
        Ok(())
    }

    /// Removes constants and undefined values that nothing reads and that are no graph output, in one sweep.
    pub fn remove_unused_values(&mut self) {
        let mut used: HashSet<ValueId> = self.outputs.iter().copied().collect();
        for node in self.dag.node_weights() {
            used.extend(node.inputs.iter().flatten());
        }
        for i in 0..self.values.len() {
            let unused = self.values[i].as_ref().is_some_and(|value| {
                matches!(value.definition, Definition::Constant(_) | Definition::Nothing)
                    && !used.contains(&ValueId(i as u32))
            });
            if unused && let Some(value) = self.values[i].take() {
                self.names.remove(&value.name);
            }
        }
    }

    /// Nodes in an order in which every value is made before it is used; among those free to run, oldest first.
    ///
    /// # Errors
    /// When the graph has a cycle; names a node on it.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let mut waiting: HashMap<NodeIndex, usize> = self
            .dag
            .node_indices()
            .map(|node| (node, self.dag.edges_directed(node, Incoming).count()))
            .collect();
        let mut ready: BinaryHeap<std::cmp::Reverse<NodeIndex>> = waiting
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(&node, _)| std::cmp::Reverse(node))
            .collect();
        let mut order = Vec::with_capacity(self.dag.node_count());
        while let Some(std::cmp::Reverse(node)) = ready.pop() {
            order.push(node_id(node));
            for edge in self.dag.edges_directed(node, Outgoing) {
                if let Some(count) = waiting.get_mut(&edge.target()) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(std::cmp::Reverse(edge.target()));
                    }
                }
            }
        }
        if order.len() == self.dag.node_count() {
            return Ok(order);
        }
        let stuck = waiting.into_iter().filter(|(_, count)| *count > 0).map(|(node, _)| node).min();
        let name = stuck.and_then(|node| self.dag.node_weight(node)).map_or("", |node| node.name.as_str());
        Err(Error::Graph(format!("node `{name}` depends on its own output")))
    }
}

fn index(id: NodeId) -> NodeIndex {
    NodeIndex::new(id.0 as usize)
}

fn node_id(index: NodeIndex) -> NodeId {
    NodeId(index.index() as u32)
}

fn fresh(base: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(base) {
        return base.to_owned();
    }
    let mut name = String::new();
    for i in 1u64.. {
        name = format!("{base}.{i}");
        if !taken(&name) {
            break;
        }
    }
    name
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
