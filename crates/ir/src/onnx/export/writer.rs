//! Writes nodes, constants and declarations into the bytes of a graph, and keeps names unique.

use super::super::names::Names;
use super::super::proto::{AttributeProto, GraphProto, NodeProto, kind};
use super::super::subgraph::{self, Contents};
use super::super::wire::{self, put_message};
use super::super::{attributes, tensors, types};
use super::since::spell;
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph, Node, NodeId, ValueId};
use crate::onnx::import::CANONICAL_OPSET;
use crate::ops::{Control, Op, Opaque};
use crate::tensor::Tensor;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;

/// The bytes of a `GraphProto` in the making: fields may stand in any order.
pub(super) struct Writer<'g> {
    graph: &'g Graph,
    out: Vec<u8>,
    /// Names of the graph's values in the file.
    names: HashMap<ValueId, String>,
    taken: Taken,
    /// Values that a node has read: the constants to be written.
    read: HashSet<String>,
    /// Opset that is written.
    opset: i64,
    /// Inputs behind those of the graph's own: values of the graph around it.
    captured: usize,
}

/// Names that are taken, in the graph and in those around it.
#[derive(Default)]
struct Taken {
    values: Names,
    nodes: Names,
}

impl<'g> Writer<'g> {
    /// For a graph with these nodes.
    pub fn new(graph: &'g Graph, order: &[NodeId], opset: i64) -> Result<Self> {
        let mut taken = Taken::default();
        // A graph that is passed through keeps its names, which must not be taken outside of it.
        for op in order.iter().filter_map(|&id| passed_through(graph, id)) {
            for name in Contents::of(&encode(&op.attributes))?.defined {
                taken.values.hide(name);
            }
        }
        Self::with_names(graph, &[], taken, opset, |_, name| name.to_owned())
    }

    /// For the graph of an attribute, whose last inputs are values of the graph around it, of these names there.
    fn inside(graph: &'g Graph, captured: &[String], mut taken: Taken, opset: i64) -> Result<Self> {
        for op in graph.order()?.into_iter().filter_map(|id| passed_through(graph, id)) {
            for name in Contents::of(&encode(&op.attributes))?.defined {
                taken.values.hide(name);
            }
        }
        Self::with_names(graph, captured, taken, opset, |taken, name| taken.values.claim(name))
    }

    fn with_names(
        graph: &'g Graph,
        captured: &[String],
        mut taken: Taken,
        opset: i64,
        name_of: impl Fn(&mut Taken, &str) -> String,
    ) -> Result<Self> {
        let own = graph.inputs().len().checked_sub(captured.len()).ok_or_else(|| {
            Error::Graph(format!("{} inputs, of which {} are captured", graph.inputs().len(), captured.len()))
        })?;
        let mut names: HashMap<ValueId, String> =
            graph.inputs()[own..].iter().copied().zip(captured.iter().cloned()).collect();
        for (id, value) in graph.values() {
            if let Entry::Vacant(place) = names.entry(id) {
                let name = name_of(&mut taken, &value.name);
                taken.values.reserve(&name);
                place.insert(name);
            }
        }
        for node in graph.nodes() {
            taken.nodes.reserve(&node.name);
        }
        let head = GraphProto { name: graph.name.clone(), ..GraphProto::default() };
        let (out, read) = (head.encode_to_vec(), HashSet::new());
        Ok(Self { graph, out, names, taken, read, opset, captured: captured.len() })
    }

    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Name of a value; empty for an absent one.
    pub fn name(&self, id: Option<ValueId>) -> String {
        id.and_then(|id| self.names.get(&id).cloned()).unwrap_or_default()
    }

    /// A name for a value of the file's own.
    pub fn unique_value(&mut self, name: &str) -> String {
        self.taken.values.unique(name)
    }

    /// A name for a node of the file's own.
    pub fn unique_node(&mut self, name: &str) -> String {
        self.taken.nodes.unique(name)
    }

    /// Writes a constant of this file only, and gives its name.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) -> String {
        let name = self.taken.values.unique(name);
        put_message(&mut self.out, 5, &tensors::to_proto(&name, tensor));
        name
    }

    /// A node of the graph that ONNX has.
    pub fn plain(&mut self, node: &Node, domain: &str, op_type: &str, attributes: &Attributes) {
        let names = |ids: &[Option<ValueId>]| ids.iter().map(|&id| self.name(id)).collect();
        let mut attributes = attributes.clone();
        let inputs = spell(self.graph, node, self.opset, &mut attributes);
        let (inputs, outputs) =
            (names(&node.inputs()[..inputs.min(node.inputs().len())]), names(node.outputs()));
        self.put(&node.name, domain, op_type, encode(&attributes), inputs, outputs);
    }

    /// A node of the graph that ONNX has, where it has to name at least so many outputs.
    pub fn with_outputs(&mut self, node: &Node, least: usize) {
        let inputs = node.inputs().iter().map(|&id| self.name(id)).collect();
        let mut outputs: Vec<String> = node.outputs().iter().map(|&id| self.name(id)).collect();
        outputs.resize(outputs.len().max(least), String::new());
        for output in outputs.iter_mut().filter(|name| name.is_empty()) {
            *output = self.taken.values.unique(&format!("{}.unread", node.name));
        }
        self.put(&node.name, "", node.op.name(), encode(&node.op.attributes()), inputs, outputs);
    }

    /// A node that holds graphs which we know, or one that we do not know, as it came. What its subgraphs read may have been
    /// renamed since.
    pub fn opaque(&mut self, node: &'g Node, op: &'g Opaque) -> Result<()> {
        let own = node.inputs().len().checked_sub(op.captures).ok_or_else(|| {
            Error::Graph(format!("{} inputs, of which {} are captured", node.inputs().len(), op.captures))
        })?;
        let (inputs, captures) = node.inputs().split_at(own);
        let current: Vec<String> = captures.iter().map(|&id| self.name(id)).collect();
        let attributes = match op.control() {
            Ok(control) => self.graphs(op, control, &current)?,
            Err(_) => renamed(encode(&op.attributes), op.captures, &current)?,
        };
        self.read.extend(current);
        let inputs = inputs.iter().map(|&id| self.name(id)).collect();
        let outputs = node.outputs().iter().map(|&id| self.name(id)).collect();
        self.put(&node.name, &op.domain, &op.op_type, attributes, inputs, outputs);
        Ok(())
    }

    /// Attributes of a node whose graphs we know, written anew.
    fn graphs(&mut self, op: &'g Opaque, control: &'g Control, captured: &[String]) -> Result<Vec<Bytes>> {
        let graphs = control.named_graphs();
        let mut attributes = vec![];
        for (name, value) in op.attributes.iter() {
            let Some((_, graph)) = graphs.iter().find(|(known, _)| *known == name) else {
                attributes.push(attributes::write(name, value));
                continue;
            };
            let begin = self.taken.values.begin();
            let mut inner = Writer::inside(graph, captured, mem::take(&mut self.taken), self.opset)?;
            super::write_nodes(&mut inner, &graph.order()?)?;
            let bytes = inner.finish(Some(&mut self.taken))?;
            self.taken.values.end(begin);
            attributes.push(graph_attribute(name, bytes));
        }
        Ok(attributes)
    }

    pub fn put(
        &mut self,
        name: &str,
        domain: &str,
        op_type: &str,
        attribute: Vec<Bytes>,
        input: Vec<String>,
        output: Vec<String>,
    ) {
        self.read.extend(input.iter().cloned());
        let node = NodeProto {
            input,
            output,
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute,
            domain: domain.to_owned(),
            overload: String::new(),
        };
        put_message(&mut self.out, 1, &node);
    }

    /// Writes constants, inputs, outputs and types, and gives the bytes; the names that are taken go back to the graph around.
    fn finish(mut self, taken: Option<&mut Taken>) -> Result<Vec<u8>> {
        let own = self.graph.inputs().len() - self.captured;
        let (inputs, captured) = self.graph.inputs().split_at(own);
        let mut outputs = vec![];
        for &id in self.graph.outputs() {
            let mut name = self.name(Some(id));
            // A graph inside of a node hands on what it made itself.
            if captured.contains(&id) {
                let copy = self.taken.values.unique(&name);
                let node = self.taken.nodes.unique(&format!("{copy}.Identity"));
                self.put(&node, "", "Identity", vec![], vec![name], vec![copy.clone()]);
                name = copy;
            }
            self.read.insert(name.clone());
            outputs.push((name, self.graph.ty(id)));
        }
        for (id, value) in self.graph.values() {
            let name = self.name(Some(id));
            match value.definition() {
                Definition::Constant(tensor) if self.read.contains(&name) => {
                    put_message(&mut self.out, 5, &tensors::to_proto(&name, tensor));
                }
                Definition::Nothing if self.read.contains(&name) => {
                    return Err(Error::Graph(format!("value `{name}` is made by no node")));
                }
                Definition::Node(..) if !self.graph.is_output(id) && value.ty.dtype.is_some() => {
                    put_message(&mut self.out, 13, &types::write(&name, &value.ty));
                }
                _ => {}
            }
        }
        for &id in inputs {
            let name = self.name(Some(id));
            put_message(&mut self.out, 11, &types::write(&name, self.graph.ty(id)));
            if let Some(tensor) = self.graph.default_of(id) {
                put_message(&mut self.out, 5, &tensors::to_proto(&name, tensor));
            }
        }
        for (name, ty) in outputs {
            put_message(&mut self.out, 12, &types::write(&name, ty));
        }
        if let Some(taken) = taken {
            *taken = self.taken;
        }
        Ok(self.out)
    }

    /// The bytes of a graph that is no node's.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        self.finish(None)
    }
}

/// The encoded attribute of a graph whose last inputs are values of the graph around it, of these names there.
pub(super) fn subgraph(name: &str, graph: &Graph, captured: &[String]) -> Result<Bytes> {
    let mut taken = Taken::default();
    for name in captured {
        taken.values.reserve(name);
    }
    let mut writer = Writer::inside(graph, captured, taken, CANONICAL_OPSET)?;
    super::write_nodes(&mut writer, &graph.order()?)?;
    Ok(graph_attribute(name, writer.into_bytes()?))
}

fn graph_attribute(name: &str, graph: Vec<u8>) -> Bytes {
    let proto = AttributeProto {
        name: name.to_owned(),
        kind: kind::GRAPH,
        g: Some(graph.into()),
        ..AttributeProto::default()
    };
    wire::encode(&proto)
}

/// The operator of a node whose graphs, if it has any, are not known.
fn passed_through(graph: &Graph, id: NodeId) -> Option<&Opaque> {
    match &graph.node(id).op {
        Op::Opaque(op) if op.control().is_err() => Some(op),
        _ => None,
    }
}

/// Attributes whose graphs read outer values of these names.
fn renamed(attributes: Vec<Bytes>, captures: usize, current: &[String]) -> Result<Vec<Bytes>> {
    if captures == 0 {
        return Ok(attributes);
    }
    let free = Contents::of(&attributes)?.free;
    if free.len() != current.len() {
        return Err(Error::Graph(format!(
            "its subgraphs read {} outer values, but it has {} captured inputs",
            free.len(),
            current.len()
        )));
    }
    if free == current {
        return Ok(attributes);
    }
    subgraph::rename(&attributes, &free.into_iter().zip(current.iter().cloned()).collect())
}

pub(super) fn encode(attributes: &Attributes) -> Vec<Bytes> {
    attributes.iter().map(|(name, value)| attributes::write(name, value)).collect()
}
