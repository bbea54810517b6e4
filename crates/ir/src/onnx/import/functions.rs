//! Functions that a model defines for itself are inlined, so that the rest of the program never sees them.

use super::super::attributes::kind_of;
use super::super::names::Names;
use super::super::proto::{FunctionProto, NodeProto, kind};
use super::super::wire::{decode, encode};
use super::domain;
use super::nodes::{Source, decode_attributes};
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::collections::HashMap;

/// Deepest nesting of functions that is accepted.
const MAX_DEPTH: usize = 16;

/// Most nodes that a model may have once its functions are inlined.
const MAX_NODES: usize = 1 << 18;

/// Domain, name and overload.
type Key = (String, String, String);

/// The functions of a model.
pub(super) struct Functions(HashMap<Key, FunctionProto>);

impl Functions {
    pub fn read(functions: &[Bytes]) -> Result<Self> {
        let mut known = HashMap::new();
        for bytes in functions {
            let function: FunctionProto = decode(bytes)?;
            let key = (domain(&function.domain).into(), function.name.clone(), function.overload.clone());
            known.insert(key, function);
        }
        Ok(Self(known))
    }

    /// Decodes nodes and inlines those that call a function.
    pub fn expand(&self, nodes: &[Bytes], opset: Option<i64>) -> Result<Vec<Source>> {
        if nodes.len() > MAX_NODES {
            return Err(too_many());
        }
        let mut expansion = Expansion { functions: self, sources: vec![], names: Names::default() };
        for bytes in nodes {
            expansion.add(decode(bytes)?, opset, "", 0)?;
        }
        Ok(expansion.sources)
    }

    fn called(&self, node: &NodeProto) -> Option<&FunctionProto> {
        if self.0.is_empty() {
            return None;
        }
        let key = (domain(&node.domain).into(), node.op_type.clone(), node.overload.clone());
        self.0.get(&key)
    }
}

fn too_many() -> Error {
    Error::Size(format!("more than {MAX_NODES} nodes"))
}

struct Expansion<'a> {
    functions: &'a Functions,
    sources: Vec<Source>,
    names: Names,
}

impl Expansion<'_> {
    fn add(&mut self, node: NodeProto, opset: Option<i64>, prefix: &str, depth: usize) -> Result<()> {
        let base = if node.name.is_empty() {
            format!("{prefix}{}_{}", node.op_type, self.sources.len())
        } else {
            format!("{prefix}{}", node.name)
        };
        let name = self.names.unique(&base);
        if let Some(function) = self.functions.called(&node) {
            let op_type = node.op_type.clone();
            return self
                .inline(function, &node, &name, opset, depth)
                .map_err(|error| error.at(&name, &op_type));
        }
        if self.sources.len() == MAX_NODES {
            return Err(too_many());
        }
        self.sources.push(Source::new(name, node, opset)?);
        Ok(())
    }

    fn inline(
        &mut self,
        function: &FunctionProto,
        call: &NodeProto,
        name: &str,
        opset: Option<i64>,
        depth: usize,
    ) -> Result<()> {
        if depth == MAX_DEPTH {
            return Err(Error::Unsupported(format!("functions nested more than {MAX_DEPTH} deep")));
        }
        if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
            return Err(Error::Malformed(format!(
                "{} inputs and {} outputs, the function has {} and {}",
                call.input.len(),
                call.output.len(),
                function.input.len(),
                function.output.len()
            )));
        }
        let prefix = format!("{name}/");
        let mut values: HashMap<&str, String> = HashMap::new();
        for (index, formal) in function.input.iter().enumerate() {
            values.insert(formal, call.input.get(index).cloned().unwrap_or_default());
        }
        for (formal, actual) in
            function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty())
        {
            if values.insert(formal, actual.clone()).is_some() {
                return Err(Error::Unsupported(format!(
                    "`{formal}` is an input and an output of the function; a node in between is needed"
                )));
            }
        }
        let rename = |value: &String| match values.get(value.as_str()) {
            _ if value.is_empty() => String::new(),
            Some(actual) => actual.clone(),
            None => format!("{prefix}{value}"),
        };
        let actual = actual_attributes(function, call)?;
        let own = function.opset_import.iter().find(|import| domain(&import.domain).is_empty());
        let opset = match own {
            None => opset,
            Some(_) => super::opset(&function.opset_import)?,
        };
        for bytes in &function.node {
            let mut node: NodeProto = decode(bytes)?;
            node.input = node.input.iter().map(rename).collect();
            node.output = node.output.iter().map(rename).collect();
            node.attribute = substitute(&node.attribute, &actual)?;
            self.add(node, opset, &prefix, depth + 1)?;
        }
        Ok(())
    }
}

/// Attributes of a call by name, with the function's defaults.
fn actual_attributes(function: &FunctionProto, call: &NodeProto) -> Result<HashMap<String, Bytes>> {
    let mut actual = HashMap::new();
    for bytes in function.attribute_proto.iter().chain(&call.attribute) {
        let attributes = decode_attributes(std::slice::from_ref(bytes))?;
        actual.extend(attributes.into_iter().map(|attribute| (attribute.name, bytes.clone())));
    }
    Ok(actual)
}

/// Puts the call's attributes where the function's nodes refer to them; one that is not given is left out.
fn substitute(attributes: &[Bytes], actual: &HashMap<String, Bytes>) -> Result<Vec<Bytes>> {
    let mut substituted = vec![];
    for (bytes, attribute) in attributes.iter().zip(decode_attributes(attributes)?) {
        if matches!(kind_of(&attribute), kind::GRAPH | kind::GRAPHS) {
            return Err(Error::Unsupported(format!(
                "a function with a subgraph (attribute `{}`)",
                attribute.name
            )));
        }
        if attribute.ref_attr_name.is_empty() {
            substituted.push(bytes.clone());
        } else if let Some(value) = actual.get(&attribute.ref_attr_name) {
            for mut value in decode_attributes(std::slice::from_ref(value))? {
                value.name.clone_from(&attribute.name);
                substituted.push(encode(&value));
            }
        }
    }
    Ok(substituted)
}
