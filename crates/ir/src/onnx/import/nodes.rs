//! Nodes of the file become nodes of the graph: names, inputs, outputs, constants; the operator is lifted, then read.

use super::super::files::Files;
use super::super::proto::{AttributeProto, NodeProto};
use super::super::subgraph::Contents;
use super::super::wire::decode;
use super::super::{attributes, export, tensors};
use super::lift::{Draft, Lift, note_types, read_op};
use super::sequences::{self, Sequences};
use super::source::Source;
use super::{Reader, domain, microsoft, normalise, upgrade};
use crate::attributes::{AttributeValue, Attributes};
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::{Control, Opaque};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

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
        Tensor::from_bytes(crate::dtype::DType::String, shape, bytes)
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

/// Adds all nodes.
pub(super) fn build(
    graph: &mut Graph,
    sources: Vec<Source>,
    reader: &Reader<'_>,
    used: &HashSet<String>,
) -> Result<()> {
    // Rules that ask for ranks and types are followed where they are noted.
    let lowers = |source: &Source| {
        source.proto.domain == microsoft::DOMAIN || sequences::handles(&source.proto.op_type)
    };
    let noted = sources.iter().any(lowers);
    let mut lists = Sequences::default();
    for source in sources {
        if !source.is_constant() {
            if followed(graph, &source, reader, used, &mut lists).map_err(|error| source.at(error))? {
                continue;
            }
            add(graph, &source, reader, used, noted).map_err(|error| source.at(error))?;
        }
    }
    Ok(())
}

/// Follows a node on sequences or optionals; false for any other.
fn followed(
    graph: &mut Graph,
    source: &Source,
    reader: &Reader<'_>,
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
    let attributes = attributes::read(proto, reader.files)?;
    let body = match attributes.get("body") {
        Some(AttributeValue::Opaque(bytes)) if proto.op_type == "SequenceMap" => {
            let (bytes, free) = (Bytes::copy_from_slice(bytes), &source.contents.free);
            Some((super::subgraph(&bytes, free, source.opset, source.depth, reader)?, captures))
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
    reader: &Reader<'_>,
    used: &HashSet<String>,
    noted: bool,
) -> Result<()> {
    let proto = &source.proto;
    let mut inputs = vec![];
    for (index, name) in proto.input.iter().enumerate() {
        inputs.push(if name.is_empty() { None } else { Some(find(graph, name, &format!("input {index}"))?) });
    }
    let outputs = proto.output.iter().map(|name| graph.find_value(name)).collect();
    let attributes = attributes::read(proto, reader.files)?;
    let node =
        Draft { name: source.name.clone(), op_type: proto.op_type.clone(), attributes, inputs, outputs };
    let domain = domain(&proto.domain);
    let lowered = domain == microsoft::DOMAIN && microsoft::knows(&proto.op_type);
    if !domain.is_empty() && !lowered || !source.contents.free.is_empty() || has_graph(&node.attributes) {
        return add_opaque(graph, source, reader, domain, node);
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
fn finish(graph: &mut Graph, mut node: Draft, noted: bool) -> Result<()> {
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
    Ok(())
}

/// Adds an operator of another domain, or one that holds graphs. Where we know what these mean they are brought into our
/// spelling, functions in them inlined; others stay as they came.
fn add_opaque(
    graph: &mut Graph,
    source: &Source,
    reader: &Reader<'_>,
    domain: &str,
    node: Draft,
) -> Result<()> {
    let mut attributes = node.attributes;
    let mut problem = None;
    let known = domain.is_empty() && Control::KNOWN.contains(&node.op_type.as_str());
    if known && node.op_type == "Scan" && source.opset.is_some_and(|opset| opset < 9) {
        let old = "the operator as it was before opset 9; accepted is opset 9 and later";
        problem = Some(Error::Unsupported(old.into()));
    } else if known && !reader.canonical {
        match in_our_spelling(&attributes, source, reader) {
            Ok(spelled) => attributes = spelled,
            // What cannot be read is passed through, and an error once it is to be compiled; but a call means nothing
            // without its function.
            Err(error) if reader.functions.is_empty() => problem = Some(error),
            Err(error) => return Err(error),
        }
    } else if !known && let Some(call) = reader.functions.called_in(&source.contents) {
        return Err(Error::Unsupported(format!("a call of function `{call}` in a graph of this operator")));
    }
    if !known
        && source.contents.is_empty()
        && let Some(alike) = reader.functions.alike(&source.proto)
    {
        return Err(Error::Unsupported(format!(
            "the operator {domain}::{} is neither known nor a function of the file; {alike}",
            node.op_type
        )));
    }
    let encoded: Vec<Bytes> = attributes.iter().map(|(name, value)| attributes::write(name, value)).collect();
    let free = Contents::of(&encoded)?.free;
    let mut captures = vec![];
    for name in &free {
        captures.push(Some(find(graph, name, "a subgraph's input")?));
    }
    let inputs = [node.inputs, captures].concat();
    let op = match problem {
        None => Opaque::new(domain, node.op_type, attributes, free.len()),
        Some(error) => Opaque::unread(domain, node.op_type, attributes, free.len(), error),
    };
    graph.add_node_defining(&node.name, op, &inputs, &node.outputs)?;
    Ok(())
}

/// Attributes with their graphs read and written again.
fn in_our_spelling(attributes: &Attributes, source: &Source, reader: &Reader<'_>) -> Result<Attributes> {
    let free = &source.contents.free;
    let mut spelled = Attributes::new();
    for (name, value) in attributes.iter() {
        let value = match value {
            AttributeValue::Opaque(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                let inner = super::subgraph(&bytes, free, source.opset, source.depth, reader)
                    .map_err(|error| within(name, error))?;
                AttributeValue::Opaque(export::subgraph(name, &inner, free)?)
            }
            other => other.clone(),
        };
        spelled.set(name, value);
    }
    Ok(spelled)
}

/// Names the attribute in whose graph something is wrong, unless a node is named already.
fn within(attribute: &str, error: Error) -> Error {
    match error {
        error @ (Error::Node { .. } | Error::Attribute { .. }) => error,
        other => Error::attribute(attribute, format!("its graph: {other}")),
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
