//! Nodes of ONNX that together stand for one node of the graph.

use super::writer::{Writer, encode};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

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

    /// Opset that is written.
    pub fn opset(&self) -> i64 {
        self.writer.opset()
    }

    /// Type of an input of the node.
    pub fn ty(&self, index: usize) -> ValueType {
        self.node.input(index).map(|id| self.writer.graph().ty(id).clone()).unwrap_or_default()
    }

    /// Name of an input of the node; empty when absent.
    pub fn input(&self, index: usize) -> String {
        self.writer.name(self.node.input(index))
    }

    /// The tensor at an input of the node, when it is constant.
    pub fn constant_input(&self, index: usize) -> Option<&'g Tensor> {
        self.writer.graph().constant(self.node.input(index)?)
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
        let output = self.writer.unique_value(&format!("{}.{op_type}", self.node.name));
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
                self.writer.unique_node(&format!("{}.{}", self.node.name, step.op_type))
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
