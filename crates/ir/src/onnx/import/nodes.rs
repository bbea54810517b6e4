//! Nodes of the file become nodes of the graph: names, inputs, outputs, constants; the operator is lifted, then read.

use super::super::files::Files;
use super::super::proto::{AttributeProto, NodeProto};
use super::super::subgraph::Contents;
use super::super::wire::decode;
use super::super::{attributes, tensors};
use super::sequences::{self, Sequences};
use super::{CANONICAL_OPSET, domain, microsoft, normalise, upgrade};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::{InputInfo, Op, Opaque};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A node of the file, after functions are inlined.
pub(super) struct Source {
    /// Its name, never empty, unique.
    pub name: String,
    pub proto: NodeProto,
    /// Opset of ONNX's own domain that it is written for.
    pub opset: Option<i64>,
    /// What its subgraphs read and hold.
    pub contents: Contents,
}

impl Source {
    pub fn new(name: String, proto: NodeProto, opset: Option<i64>) -> Result<Self> {
        let contents = Contents::of(&proto.attribute).map_err(|error| error.at(&name, &proto.op_type))?;
        Ok(Self { name, proto, opset, contents })
    }

    /// Names of the values it reads, those of its subgraphs included.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let own = self.proto.input.iter().filter(|name| !name.is_empty());
        own.chain(&self.contents.free).map(String::as_str)
    }

    /// Names the node in an error.
    pub fn at(&self, error: Error) -> Error {
        error.at(&self.name, &self.proto.op_type)
    }

    fn is_constant(&self) -> bool {
        domain(&self.proto.domain).is_empty() && self.proto.op_type == "Constant"
    }
}

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

/// Adds the values that a node makes; a `Constant` is one right away.
pub(super) fn declare_outputs(
    graph: &mut Graph,
    source: &Source,
    hints: &mut HashMap<String, ValueType>,
    files: &Files,
) -> Result<()> {
    if source.is_constant() {
        let [output] = source.proto.output.as_slice() else {
            return Err(Error::Graph(format!("{} outputs, expected 1", source.proto.output.len())));
        };
        return add_constant(graph, output, constant(&source.proto, files)?);
    }
    for output in source.proto.output.iter().filter(|name| !name.is_empty()) {
        let id = graph.add_undefined(output, ValueType::default())?;
        graph.declare(id, hints.remove(output).unwrap_or_default());
    }
    Ok(())
}

/// Adds a constant of exactly that name.
pub(super) fn add_constant(graph: &mut Graph, name: &str, tensor: Tensor) -> Result<()> {
    if graph.find_value(name).is_some() {
        return Err(Error::Graph(format!("two values are named `{name}`")));
    }
    graph.add_constant(name, tensor);
    Ok(())
}

/// The tensor of a `Constant` node.
fn constant(node: &NodeProto, files: &Files) -> Result<Tensor> {
    const ACCEPTED: &str = "value, sparse_value, value_float, value_floats, value_int, value_ints, value_string or value_strings";
    let wrong = |what: String| Error::Unsupported(format!("{what}; expected one of {ACCEPTED}"));
    if let [bytes] = node.attribute.as_slice()
        && let Some(sparse) = decode::<AttributeProto>(bytes)?.sparse_tensor
    {
        return Ok(tensors::read_sparse(&sparse, files)?.1);
    }
    let attributes = attributes::read(node, files)?;
    let mut attributes = attributes.iter();
    let (Some((name, value)), None) = (attributes.next(), attributes.next()) else {
        return Err(wrong(format!("{} attributes", node.attribute.len())));
    };
    let strings = |shape: Vec<usize>, texts: &[String]| {
        let bytes = tensors::pack_strings(texts.iter().map(String::as_bytes));
        Tensor::from_shared(crate::dtype::DType::String, shape, Arc::new(bytes), 0)
    };
    match (name, value) {
        ("value", AttributeValue::Tensor(tensor)) => Ok(tensor.clone()),
        ("value_float", AttributeValue::Float(value)) => Ok(Tensor::scalar(*value)),
        ("value_floats", AttributeValue::Floats(values)) => Tensor::from_vec([values.len()], values.clone()),
        ("value_int", AttributeValue::Int(value)) => Ok(Tensor::scalar(*value)),
        ("value_ints", AttributeValue::Ints(values)) => Ok(Tensor::from_i64s(values)),
        ("value_string", AttributeValue::String(text)) => strings(vec![], std::slice::from_ref(text)),
        ("value_strings", AttributeValue::Strings(texts)) => strings(vec![texts.len()], texts),
        (name, value) => Err(wrong(format!("attribute `{name}` that is {}", value.kind()))),
    }
}

/// Adds all nodes. True when all of them now stand in the spelling of the canonical opset.
pub(super) fn build(
    graph: &mut Graph,
    sources: Vec<Source>,
    files: &Files,
    used: &HashSet<String>,
) -> Result<bool> {
    let mut portable = true;
    // Rules that ask for ranks and types are followed where they are noted.
    let lowers = |source: &Source| {
        source.proto.domain == microsoft::DOMAIN || sequences::handles(&source.proto.op_type)
    };
    let noted = sources.iter().any(lowers);
    let mut lists = Sequences::default();
    for source in sources {
        if !source.is_constant() {
            if followed(graph, &source, files, used, &mut lists).map_err(|error| source.at(error))? {
                continue;
            }
            portable &= add(graph, &source, files, used, noted).map_err(|error| source.at(error))?;
        }
    }
    Ok(portable)
}

/// Follows a node on sequences or optionals; false for any other.
fn followed(
    graph: &mut Graph,
    source: &Source,
    files: &Files,
    used: &HashSet<String>,
    lists: &mut Sequences,
) -> Result<bool> {
    let proto = &source.proto;
    let own = domain(&proto.domain).is_empty();
    let copies = proto.op_type == "Identity" && proto.input.iter().any(|name| lists.holds(name));
    if !own || !(copies || sequences::handles(&proto.op_type)) {
        if let Some(name) = source.reads().find(|name| lists.holds(name)) {
            return Err(Error::Unsupported(format!(
                "`{name}` is a sequence or optional; such values are followed between nodes that take them apart, \
                 not into graphs inside of others"
            )));
        }
        return Ok(false);
    }
    let mut inputs = vec![];
    for (index, name) in proto.input.iter().enumerate() {
        let plain = !name.is_empty() && !lists.holds(name);
        inputs.push(if plain { Some(find(graph, name, &format!("input {index}"))?) } else { None });
    }
    let mut captures = vec![];
    for name in &source.contents.free {
        captures.push(find(graph, name, "a subgraph's input")?);
    }
    let attributes = attributes::read(proto, files)?;
    let body = match attributes.get("body") {
        Some(AttributeValue::Opaque(bytes)) if proto.op_type == "SequenceMap" => {
            Some((crate::onnx::read_subgraph(bytes, &attributes, source.opset)?, captures))
        }
        _ => None,
    };
    let outputs = proto.output.iter().map(|name| graph.find_value(name)).collect();
    let draft =
        Draft { name: source.name.clone(), op_type: proto.op_type.clone(), attributes, inputs, outputs };
    lists.follow(graph, (draft, used), (&proto.input, &proto.output), body)?;
    Ok(true)
}

fn add(
    graph: &mut Graph,
    source: &Source,
    files: &Files,
    used: &HashSet<String>,
    noted: bool,
) -> Result<bool> {
    let proto = &source.proto;
    let mut inputs = vec![];
    for (index, name) in proto.input.iter().enumerate() {
        inputs.push(if name.is_empty() { None } else { Some(find(graph, name, &format!("input {index}"))?) });
    }
    let mut captures = vec![];
    for name in &source.contents.free {
        captures.push(Some(find(graph, name, "a subgraph's input")?));
    }
    let outputs = proto.output.iter().map(|name| graph.find_value(name)).collect();
    let attributes = attributes::read(proto, files)?;
    let node =
        Draft { name: source.name.clone(), op_type: proto.op_type.clone(), attributes, inputs, outputs };
    let domain = domain(&proto.domain);
    let lowered = domain == microsoft::DOMAIN && microsoft::knows(&proto.op_type);
    if !domain.is_empty() && !lowered || !captures.is_empty() || has_graph(&node.attributes) {
        let captured = captures.len();
        let inputs = [node.inputs, captures].concat();
        let op = Opaque::new(domain, node.op_type, node.attributes, captured, source.opset);
        graph.add_node_defining(&node.name, op, &inputs, &node.outputs)?;
        let opset = source.opset.unwrap_or(CANONICAL_OPSET);
        let inside = source.contents.operators.iter().map(String::as_str);
        let own = domain.is_empty().then_some(proto.op_type.as_str());
        return Ok(inside.chain(own).all(|op_type| !upgrade::changed_since(op_type, opset)));
    }
    if lowered {
        let mut lift = Lift { graph, node, used };
        microsoft::lower(&mut lift)?;
        let Lift { node, .. } = lift;
        return finish(graph, node, true);
    }
    let Some(opset) = source.opset else {
        return Err(Error::Malformed(
            "an operator of ai.onnx, but the model does not say which opset of ai.onnx it uses".into(),
        ));
    };
    normalise::check_foreign(&node.op_type, &node.attributes)?;
    let mut lift = Lift { graph, node, used };
    upgrade::upgrade(&mut lift, opset)?;
    normalise::normalise(&mut lift)?;
    let Lift { node, .. } = lift;
    finish(graph, node, noted || opset < upgrade::RANKS_BEFORE)
}

/// Adds a node that stands in our spelling.
fn finish(graph: &mut Graph, mut node: Draft, noted: bool) -> Result<bool> {
    while node.inputs.last().is_some_and(Option::is_none) {
        node.inputs.pop();
    }
    while node.outputs.last().is_some_and(Option::is_none) {
        node.outputs.pop();
    }
    let op = read_op(&node.op_type, node.attributes)?;
    let id = graph.add_node_defining(&node.name, op, &node.inputs, &node.outputs)?;
    if noted {
        note_types(graph, id);
    }
    Ok(true)
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

fn find(graph: &Graph, name: &str, what: &str) -> Result<ValueId> {
    graph.find_value(name).ok_or_else(|| {
        Error::Graph(format!("{what} is `{name}`, which is no input, initialiser or output of a node"))
    })
}

fn has_graph(attributes: &Attributes) -> bool {
    attributes.iter().any(|(_, value)| matches!(value, AttributeValue::Opaque(_)))
}

/// Reads an operator of ONNX's own domain; one that we do not know, or not in this variant, stays opaque.
pub(super) fn read_op(op_type: &str, attributes: Attributes) -> Result<Op> {
    match Op::read(op_type, attributes.clone()) {
        Ok(Some(op)) => Ok(op),
        Ok(None) | Err(Error::Unsupported(_)) => {
            Ok(Opaque::new("", op_type, attributes, 0, Some(CANONICAL_OPSET)).into())
        }
        Err(error) => Err(error),
    }
}

/// Attributes of a node in encoded form, decoded one by one.
pub(super) fn decode_attributes(attributes: &[Bytes]) -> Result<Vec<AttributeProto>> {
    attributes.iter().map(decode).collect()
}
