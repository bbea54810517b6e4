//! A node on its way from the file's spelling to ours: what `upgrade` and `normalise` change.

use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::{InputInfo, Op, Opaque};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::collections::HashSet;

/// A node on its way from the file's spelling to ours.
pub(super) struct Draft {
    pub name: String,
    pub op_type: String,
    pub attributes: Attributes,
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<Option<ValueId>>,
}

/// A node to be lifted, and the graph in which it may place constants and further nodes.
pub(super) struct Lift<'a> {
    pub graph: &'a mut Graph,
    pub node: Draft,
    /// Names of values that something reads.
    pub used: &'a HashSet<String>,
}

impl Lift<'_> {
    /// The input, when it is there.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.node.inputs.get(index).copied().flatten()
    }

    /// The constant at an input, when it is there and constant.
    pub fn constant_input(&self, index: usize) -> Option<&Tensor> {
        self.graph.constant(self.input(index)?)
    }

    /// Rank of an input, when it is known.
    pub fn rank(&self, index: usize) -> Option<i64> {
        self.graph.ty(self.input(index)?).rank().map(|rank| rank as i64)
    }

    /// Puts `count` axes of extent 1 behind those of an input of that rank.
    pub fn unsqueeze_end(&mut self, index: usize, rank: i64, count: i64) -> Result<()> {
        if count > 0 {
            let axes: Vec<i64> = (rank..rank.saturating_add(count.min(64))).collect();
            let axes = self.constant("axes", Tensor::from_i64s(&axes));
            let value = self.emit("Unsqueeze", Attributes::new(), &[self.input(index), Some(axes)])?;
            self.set_input(index, Some(value));
        }
        Ok(())
    }

    /// Sets an input; those between are absent.
    pub fn set_input(&mut self, index: usize, value: Option<ValueId>) {
        if self.node.inputs.len() <= index {
            self.node.inputs.resize(index + 1, None);
        }
        self.node.inputs[index] = value;
    }

    /// Adds a constant for this node.
    pub fn constant(&mut self, what: &str, tensor: Tensor) -> ValueId {
        self.graph.add_constant(&format!("{}.{what}", self.node.name), tensor)
    }

    /// Adds a node in front of this one.
    pub fn emit(
        &mut self,
        op_type: &str,
        attributes: Attributes,
        inputs: &[Option<ValueId>],
    ) -> Result<ValueId> {
        let name = format!("{}.{op_type}", self.node.name);
        let op = read_op(op_type, attributes)?;
        let (_, outputs) = self.graph.add_node(&name, op, inputs, vec![ValueType::default()])?;
        outputs.first().copied().ok_or_else(|| Error::Graph(format!("node `{name}` makes nothing")))
    }

    /// True when something reads the output.
    pub fn output_used(&self, index: usize) -> bool {
        let output = self.node.outputs.get(index).copied().flatten();
        output.is_some_and(|id| self.used.contains(&self.graph.value(id).name))
    }
}

/// Reads an operator of ONNX's own domain; one that we do not know, or not in this variant, stays opaque.
pub(super) fn read_op(op_type: &str, attributes: Attributes) -> Result<Op> {
    match Op::read(op_type, attributes.clone()) {
        Ok(Some(op)) => Ok(op),
        Ok(None) | Err(Error::Unsupported(_)) => Ok(Opaque::new("", op_type, attributes, 0).into()),
        Err(error) => Err(error),
    }
}

/// Notes what follows from the inputs of a node, where the file says nothing: some rules ask for ranks. What does not fit
/// together is for inference to say.
pub(super) fn note_types(graph: &mut Graph, id: NodeId) {
    let node = graph.node(id);
    let info = |input: &Option<ValueId>| {
        input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
    };
    let inputs: Vec<_> = node.inputs().iter().map(info).collect();
    let Ok(types) = node.op.infer(&inputs, node.outputs().len()) else { return };
    for (output, ty) in node.outputs().to_vec().into_iter().zip(types) {
        if let Some(output) = output.filter(|&output| *graph.ty(output) == ValueType::default()) {
            graph.set_ty(output, ty);
        }
    }
}
