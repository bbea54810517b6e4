//! Writes nodes, constants and declarations into the bytes of a graph, and keeps names unique.

use super::super::names::Names;
use super::super::proto::{GraphProto, NodeProto};
use super::super::subgraph::{self, Contents};
use super::super::wire::put_message;
use super::super::{attributes, tensors, types};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph, Node, NodeId, ValueId};
use crate::ops::{Op, Opaque};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashSet;

/// The bytes of a `GraphProto` in the making: fields may stand in any order.
pub(super) struct Writer<'g> {
    graph: &'g Graph,
    out: Vec<u8>,
    values: Names,
    nodes: Names,
    /// Values that a node has read: the constants to be written.
    read: HashSet<String>,
}

impl<'g> Writer<'g> {
    /// For a graph with these nodes.
    pub fn new(graph: &'g Graph, order: &[NodeId]) -> Result<Self> {
        let (mut values, mut nodes) = (Names::default(), Names::default());
        for (_, value) in graph.values() {
            values.unique(&value.name);
        }
        for node in order.iter().map(|&id| graph.node(id)) {
            nodes.unique(&node.name);
            // A name inside a subgraph must not be one outside of it.
            if let Op::Opaque(op) = &node.op {
                for name in Contents::of(&encode(&op.attributes))?.defined {
                    values.reserve(name);
                }
            }
        }
        let head = GraphProto { name: graph.name.clone(), ..GraphProto::default() };
        Ok(Self { graph, out: head.encode_to_vec(), values, nodes, read: HashSet::new() })
    }

    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// Name of a value; empty for an absent one.
    pub fn name(&self, id: Option<ValueId>) -> String {
        id.map(|id| self.graph.value(id).name.clone()).unwrap_or_default()
    }

    /// Writes a constant of this file only, and gives its name.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) -> String {
        let name = self.values.unique(name);
        put_message(&mut self.out, 5, &tensors::to_proto(&name, tensor));
        name
    }

    /// A node of the graph that ONNX has.
    pub fn plain(&mut self, node: &Node, domain: &str, op_type: &str, attributes: &Attributes) {
        let names = |ids: &[Option<ValueId>]| ids.iter().map(|&id| self.name(id)).collect();
        let (inputs, outputs) = (names(node.inputs()), names(node.outputs()));
        let attributes = encode(attributes);
        self.put(&node.name, domain, op_type, attributes, inputs, outputs);
    }

    /// A node of the graph that ONNX has, where it has to name at least so many outputs.
    pub fn with_outputs(&mut self, node: &Node, least: usize) {
        let inputs = node.inputs().iter().map(|&id| self.name(id)).collect();
        let mut outputs: Vec<String> = node.outputs().iter().map(|&id| self.name(id)).collect();
        outputs.resize(outputs.len().max(least), String::new());
        for output in outputs.iter_mut().filter(|name| name.is_empty()) {
            *output = self.values.unique(&format!("{}.unread", node.name));
        }
        self.put(&node.name, "", node.op.name(), encode(&node.op.attributes()), inputs, outputs);
    }

    /// A node that we do not know, as it came. What its subgraphs read may have been renamed since.
    pub fn opaque(&mut self, node: &Node, op: &Opaque) -> Result<()> {
        let own = node.inputs().len().checked_sub(op.captures).ok_or_else(|| {
            Error::Graph(format!("{} inputs, of which {} are captured", node.inputs().len(), op.captures))
        })?;
        let (inputs, captures) = node.inputs().split_at(own);
        let mut attributes = encode(&op.attributes);
        if op.captures > 0 {
            let free = Contents::of(&attributes)?.free;
            let current: Vec<String> = captures.iter().map(|&id| self.name(id)).collect();
            if free.len() != current.len() {
                return Err(Error::Graph(format!(
                    "its subgraphs read {} outer values, but it has {} captured inputs",
                    free.len(),
                    current.len()
                )));
            }
            if free != current {
                attributes = subgraph::rename(&attributes, &free.into_iter().zip(current.clone()).collect())?;
            }
            self.read.extend(current);
        }
        let inputs = inputs.iter().map(|&id| self.name(id)).collect();
        let outputs = node.outputs().iter().map(|&id| self.name(id)).collect();
        self.put(&node.name, &op.domain, &op.op_type, attributes, inputs, outputs);
        Ok(())
    }

    fn put(
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

    /// Writes constants, inputs, outputs and types, and gives the bytes.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        let outputs: HashSet<ValueId> = self.graph.outputs().iter().copied().collect();
        for &id in &outputs {
            self.read.insert(self.graph.value(id).name.clone());
        }
        for (id, value) in self.graph.values() {
            match value.definition() {
                Definition::Constant(tensor) if self.read.contains(&value.name) => {
                    put_message(&mut self.out, 5, &tensors::to_proto(&value.name, tensor));
                }
                Definition::Nothing if self.read.contains(&value.name) => {
                    return Err(Error::Graph(format!("value `{}` is made by no node", value.name)));
                }
                Definition::Node(..) if !outputs.contains(&id) => self.declare(13, &value.name, &value.ty),
                _ => {}
            }
        }
        for (tag, ids) in [(11, self.graph.inputs()), (12, self.graph.outputs())] {
            for &id in ids {
                let value = self.graph.value(id);
                put_message(&mut self.out, tag, &types::write(&value.name, &value.ty));
            }
        }
        for &id in self.graph.inputs() {
            if let Some(tensor) = self.graph.default_of(id) {
                put_message(&mut self.out, 5, &tensors::to_proto(&self.graph.value(id).name, tensor));
            }
        }
        Ok(self.out)
    }

    /// States the type of a value in between, when there is something to say.
    fn declare(&mut self, tag: u32, name: &str, ty: &ValueType) {
        if ty.dtype.is_some() {
            put_message(&mut self.out, tag, &types::write(name, ty));
        }
    }
}

fn encode(attributes: &Attributes) -> Vec<Bytes> {
    attributes.iter().map(|(name, value)| attributes::write(name, value)).collect()
}

/// Nodes of ONNX, each reading the one before, that together stand for one node of the graph.
pub(super) struct Chain<'w, 'g> {
    pub writer: &'w mut Writer<'g>,
    pub node: &'g Node,
    /// The value that the next step reads.
    value: String,
    steps: Vec<Step>,
}

struct Step {
    op_type: &'static str,
    attributes: Attributes,
    inputs: Vec<String>,
    output: String,
    /// The step that bears the node's name.
    main: bool,
}

impl<'w, 'g> Chain<'w, 'g> {
    /// Begins at the first input of a node, which has to have one output.
    pub fn new(writer: &'w mut Writer<'g>, node: &'g Node) -> Result<Self> {
        if node.outputs().len() != 1 || node.output(0).is_none() {
            return Err(Error::Graph(format!("{} outputs, expected 1", node.outputs().len())));
        }
        let value = writer.name(node.input(0));
        Ok(Self { writer, node, value, steps: vec![] })
    }

    /// The value so far.
    pub fn value(&self) -> String {
        self.value.clone()
    }

    /// Type of an input of the node.
    pub fn ty(&self, index: usize) -> ValueType {
        self.node.input(index).map(|id| self.writer.graph.ty(id).clone()).unwrap_or_default()
    }

    /// Name of an input of the node; empty when absent.
    pub fn input(&self, index: usize) -> String {
        self.writer.name(self.node.input(index))
    }

    /// The tensor at an input of the node, when it is constant.
    pub fn constant_input(&self, index: usize) -> Option<&'g Tensor> {
        self.writer.graph.constant(self.node.input(index)?)
    }

    /// Adds a constant for this node and gives its name.
    pub fn constant(&mut self, what: &str, tensor: &Tensor) -> String {
        self.writer.constant(&format!("{}.{what}", self.node.name), tensor)
    }

    /// Adds a constant list of integers.
    pub fn ints(&mut self, what: &str, values: &[i64]) -> String {
        self.constant(what, &Tensor::from_i64s(values))
    }

    /// Adds a step: an operator on the value so far and further inputs.
    pub fn then(&mut self, op_type: &'static str, attributes: Attributes, further: &[String]) {
        self.value = self.step(op_type, attributes, [&[self.value()], further].concat(), false);
    }

    /// Adds the step that bears the node's name.
    pub fn main(&mut self, op_type: &'static str, attributes: Attributes, further: &[String]) {
        self.value = self.step(op_type, attributes, [&[self.value()], further].concat(), true);
    }

    /// Adds the step that bears the node's name; the value so far is its second input.
    pub fn main_after(&mut self, op_type: &'static str, attributes: Attributes, first: String) {
        self.value = self.step(op_type, attributes, vec![first, self.value()], true);
    }

    fn step(
        &mut self,
        op_type: &'static str,
        attributes: Attributes,
        inputs: Vec<String>,
        main: bool,
    ) -> String {
        let output = self.writer.values.unique(&format!("{}.{op_type}", self.node.name));
        self.steps.push(Step { op_type, attributes, inputs, output: output.clone(), main });
        output
    }

    /// Adds a step that reads other values only, and gives its output; the chain goes on where it was.
    pub fn aside(&mut self, op_type: &'static str, attributes: Attributes, inputs: &[String]) -> String {
        self.step(op_type, attributes, inputs.to_vec(), false)
    }

    /// Gives the last value the name of the node's output and writes the steps.
    pub fn end(mut self) {
        let output = self.writer.name(self.node.output(0));
        if self.steps.last().is_none_or(|last| last.output != self.value) {
            self.then("Identity", Attributes::new(), &[]);
        }
        let last = self.steps.len() - 1;
        let main = self.steps.iter().position(|step| step.main).unwrap_or(last);
        for (index, step) in self.steps.into_iter().enumerate() {
            let name = if index == main {
                self.node.name.clone()
            } else {
                self.writer.nodes.unique(&format!("{}.{}", self.node.name, step.op_type))
            };
            let output = if index == last { output.clone() } else { step.output };
            self.writer.put(&name, "", step.op_type, encode(&step.attributes), step.inputs, vec![output]);
        }
    }
}

/// An attribute list of one.
pub(super) fn attribute(name: &str, value: impl Into<AttributeValue>) -> Attributes {
    Attributes::new().with(name, value)
}
