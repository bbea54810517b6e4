//! The nodes of a function as they stand in the place of a call: its values and attributes under the names that these have
//! there, in graphs inside of its nodes as well.

use super::super::attributes::kind_of;
use super::super::proto::{
    AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, kind,
};
use super::super::subgraph::defined;
use super::super::wire::{decode, encode};
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::collections::HashMap;

/// Deepest nesting of graphs in a function.
const MAX_DEPTH: usize = 32;

/// A call, for the nodes of its function.
pub(super) struct Scope {
    /// The caller's names of the function's inputs and outputs; of an absent one, the empty name.
    pub names: HashMap<String, String>,
    /// What stands before the names of other values.
    pub prefix: String,
    /// Attributes of the call by name, with the function's defaults.
    pub attributes: HashMap<String, Bytes>,
}

impl Scope {
    /// Puts names and attributes of the call into a node of the function.
    pub fn instantiate(&self, node: &mut NodeProto) -> Result<()> {
        self.node(node, &self.names, 0)
    }

    fn rename(&self, name: &mut String, names: &HashMap<String, String>) {
        if !name.is_empty() {
            *name = names.get(name).cloned().unwrap_or_else(|| format!("{}{name}", self.prefix));
        }
    }

    fn node(&self, node: &mut NodeProto, names: &HashMap<String, String>, depth: usize) -> Result<()> {
        for name in node.input.iter_mut().chain(&mut node.output) {
            self.rename(name, names);
        }
        // An attribute that is not given is left out.
        let mut attributes = vec![];
        for (bytes, mut attribute) in node.attribute.iter().zip(decode_attributes(&node.attribute)?) {
            if !attribute.ref_attr_name.is_empty() {
                if let Some(value) = self.attributes.get(&attribute.ref_attr_name) {
                    let mut value: AttributeProto = decode(value)?;
                    value.name = attribute.name;
                    attributes.push(encode(&value));
                }
            } else if matches!(kind_of(&attribute), kind::GRAPH | kind::GRAPHS) {
                if depth == MAX_DEPTH {
                    return Err(Error::Unsupported(format!("subgraphs nested more than {MAX_DEPTH} deep")));
                }
                for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    *graph = self.graph(graph, names, depth + 1)?;
                }
                attributes.push(encode(&attribute));
            } else {
                attributes.push(bytes.clone());
            }
        }
        node.attribute = attributes;
        Ok(())
    }

    /// What a graph defines is not the caller's, whatever that calls its values.
    fn graph(&self, bytes: &Bytes, outer: &HashMap<String, String>, depth: usize) -> Result<Bytes> {
        let mut graph: GraphProto = decode(bytes)?;
        let mut nodes: Vec<NodeProto> = graph.node.iter().map(decode).collect::<Result<_>>()?;
        let mut names = outer.clone();
        for name in defined(&graph, &nodes)? {
            names.insert(name.clone(), format!("{}{name}", self.prefix));
        }
        for node in &mut nodes {
            self.node(node, &names, depth)?;
        }
        graph.node = nodes.iter().map(encode).collect();
        for info in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
            let mut value: ValueInfoProto = decode(info)?;
            self.rename(&mut value.name, &names);
            *info = encode(&value);
        }
        for tensor in &mut graph.initializer {
            *tensor = self.tensor(tensor, &names)?;
        }
        for tensor in &mut graph.sparse_initializer {
            let mut sparse: SparseTensorProto = decode(tensor)?;
            sparse.values = sparse.values.map(|values| self.tensor(&values, &names)).transpose()?;
            *tensor = encode(&sparse);
        }
        Ok(encode(&graph))
    }

    fn tensor(&self, bytes: &Bytes, names: &HashMap<String, String>) -> Result<Bytes> {
        let mut tensor: TensorProto = decode(bytes)?;
        self.rename(&mut tensor.name, names);
        Ok(encode(&tensor))
    }
}

/// Attributes of a node in encoded form, decoded one by one.
pub(super) fn decode_attributes(attributes: &[Bytes]) -> Result<Vec<AttributeProto>> {
    attributes.iter().map(decode).collect()
}
