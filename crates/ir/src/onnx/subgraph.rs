//! Subgraphs in attributes (of `If`, `Loop`, `Scan`): which values of the graph around them they read, and which operators
//! they hold. Their bytes stay as they came.

use super::attributes::kind_of;
use super::proto::{
    AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, kind,
};
use super::wire::{decode, encode};
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Deepest nesting of subgraphs that is accepted.
const MAX_DEPTH: usize = 32;

/// What the subgraphs of a node read and hold.
#[derive(Default)]
pub(super) struct Contents {
    /// Names of outer values, in the order in which they are first read.
    pub free: Vec<String>,
    /// Every name that is defined inside.
    pub defined: HashSet<String>,
    /// Operators of ONNX's own domain inside.
    pub operators: HashSet<String>,
    /// Operators inside by domain and name, whatever the domain.
    pub foreign: HashSet<(String, String)>,
    graphs: usize,
    seen: HashSet<String>,
}

impl Contents {
    /// Of the subgraphs in a node's attributes, all of them together.
    pub fn of(attributes: &[Bytes]) -> Result<Self> {
        let mut contents = Self::default();
        contents.visit(attributes, &mut vec![])?;
        Ok(contents)
    }

    /// True where there is no graph.
    pub fn is_empty(&self) -> bool {
        self.graphs == 0
    }

    /// `scopes` holds the names defined by the graphs around, without the outermost.
    fn visit(&mut self, attributes: &[Bytes], scopes: &mut Vec<HashSet<String>>) -> Result<()> {
        for bytes in attributes {
            if !holds_graph(bytes) {
                continue;
            }
            let attribute: AttributeProto = decode(bytes)?;
            if !matches!(kind_of(&attribute), kind::GRAPH | kind::GRAPHS) {
                continue;
            }
            if scopes.len() == MAX_DEPTH {
                return Err(Error::Unsupported(format!("subgraphs nested more than {MAX_DEPTH} deep")));
            }
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                self.visit_graph(&decode(graph)?, scopes)?;
            }
        }
        Ok(())
    }

    fn visit_graph(&mut self, graph: &GraphProto, scopes: &mut Vec<HashSet<String>>) -> Result<()> {
        let nodes: Vec<NodeProto> = graph.node.iter().map(decode).collect::<Result<_>>()?;
        let scope = defined(graph, &nodes)?;
        self.graphs += 1;
        self.defined.extend(scope.iter().cloned());
        scopes.push(scope);
        for node in &nodes {
            let own = node.domain.is_empty() || node.domain == "ai.onnx";
            if own {
                self.operators.insert(node.op_type.clone());
            }
            let domain = if own { String::new() } else { node.domain.clone() };
            self.foreign.insert((domain, node.op_type.clone()));
            for input in &node.input {
                self.read(input, scopes);
            }
            self.visit(&node.attribute, scopes)?;
        }
        for output in &graph.output {
            self.read(&decode::<ValueInfoProto>(output)?.name, scopes);
        }
        scopes.pop();
        Ok(())
    }

    fn read(&mut self, name: &str, scopes: &[HashSet<String>]) {
        let inner = name.is_empty() || scopes.iter().any(|scope| scope.contains(name));
        if !inner && self.seen.insert(name.to_owned()) {
            self.free.push(name.to_owned());
        }
    }
}

/// Attributes whose subgraphs read outer values under other names: new names by old ones.
pub(super) fn rename(attributes: &[Bytes], names: &HashMap<String, String>) -> Result<Vec<Bytes>> {
    let renamed = |bytes: &Bytes| -> Result<Bytes> {
        if !holds_graph(bytes) {
            return Ok(bytes.clone());
        }
        let mut attribute: AttributeProto = decode(bytes)?;
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            *graph = rename_in_graph(graph, names.clone())?;
        }
        Ok(encode(&attribute))
    };
    attributes.iter().map(renamed).collect()
}

fn rename_in_graph(bytes: &Bytes, mut names: HashMap<String, String>) -> Result<Bytes> {
    let mut graph: GraphProto = decode(bytes)?;
    let mut nodes: Vec<NodeProto> = graph.node.iter().map(decode).collect::<Result<_>>()?;
    for name in defined(&graph, &nodes)? {
        names.remove(&name);
    }
    if names.is_empty() {
        return Ok(bytes.clone());
    }
    for node in &mut nodes {
        for input in &mut node.input {
            if let Some(name) = names.get(input) {
                input.clone_from(name);
            }
        }
        node.attribute = rename(&node.attribute, &names)?;
    }
    graph.node = nodes.iter().map(encode).collect();
    for output in &mut graph.output {
        let mut declared: ValueInfoProto = decode(output)?;
        if let Some(name) = names.get(&declared.name) {
            declared.name.clone_from(name);
            *output = encode(&declared);
        }
    }
    Ok(encode(&graph))
}

/// Names that a graph defines.
pub(super) fn defined(graph: &GraphProto, nodes: &[NodeProto]) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for input in &graph.input {
        names.insert(decode::<ValueInfoProto>(input)?.name);
    }
    for initializer in &graph.initializer {
        names.insert(decode::<TensorProto>(initializer)?.name);
    }
    for sparse in &graph.sparse_initializer {
        if let Some(values) = decode::<SparseTensorProto>(sparse)?.values {
            names.insert(decode::<TensorProto>(&values)?.name);
        }
    }
    names.extend(nodes.iter().flat_map(|node| node.output.iter().cloned()));
    names.remove("");
    Ok(names)
}

/// A cheap look whether an attribute may hold a graph, so that large tensors are not decoded for nothing.
fn holds_graph(bytes: &Bytes) -> bool {
    let mut rest: &[u8] = bytes;
    while !rest.is_empty() {
        let Ok((tag, wire_type)) = prost::encoding::decode_key(&mut rest) else { return true };
        if tag == 6 || tag == 11 {
            return true;
        }
        let context = prost::encoding::DecodeContext::default();
        if prost::encoding::skip_field(wire_type, tag, &mut rest, context).is_err() {
            return true;
        }
    }
    false
}
