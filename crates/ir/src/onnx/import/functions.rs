//! Functions that a model defines for itself are inlined, in graphs inside of operators as well, so that the rest of the program
//! never sees them.

use super::super::names::Names;
use super::super::proto::{FunctionProto, NodeProto};
use super::super::subgraph::Contents;
use super::super::wire::decode;
use super::instance::{Scope, decode_attributes};
use super::source::Source;
use super::{CANONICAL_OPSET, domain};
use crate::budget::{self, Limit};
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Deepest nesting of functions that is accepted.
const MAX_DEPTH: usize = 16;

/// Domain, name and overload.
type Key = (String, String, String);

/// The functions of a model.
#[derive(Default)]
pub(super) struct Functions {
    known: HashMap<Key, FunctionProto>,
}

impl Functions {
    pub fn read(functions: &[Bytes]) -> Result<Self> {
        let mut known = HashMap::new();
        for bytes in functions {
            let function: FunctionProto = decode(bytes)?;
            let key = (domain(&function.domain).into(), function.name.clone(), function.overload.clone());
            if let Some(same) = known.insert(key, function) {
                let problem =
                    format!("function `{}` of domain `{}` is defined twice", same.name, same.domain);
                return Err(Error::Malformed(problem));
            }
        }
        Ok(Self { known })
    }

    /// Decodes nodes, which stand `depth` functions deep, and inlines those that call a function.
    pub fn expand(&self, nodes: &[Bytes], opset: Option<i64>, depth: usize) -> Result<Vec<Source>> {
        let mut expansion = Expansion { functions: self, sources: vec![], names: Names::default() };
        for bytes in nodes {
            expansion.add(decode(bytes)?, opset, "", depth)?;
        }
        Ok(expansion.sources)
    }

    /// True for a file without functions.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A function that the graphs of an operator call.
    pub fn called_in(&self, contents: &Contents) -> Option<&str> {
        let calls = |(domain, name, _): &&Key| contents.foreign.contains(&(domain.clone(), name.clone()));
        self.known.keys().find(calls).map(|(_, name, _)| name.as_str())
    }

    /// Functions of that name in other domains or under other overloads, for an error.
    pub fn alike(&self, node: &NodeProto) -> Option<String> {
        let alike = self.known.keys().find(|(_, name, _)| *name == node.op_type)?;
        let (domain, name, overload) = alike;
        let overload = if overload.is_empty() { String::new() } else { format!(", overload `{overload}`") };
        Some(format!("the file has a function `{name}` of domain `{domain}`{overload}"))
    }

    fn called(&self, node: &NodeProto) -> Option<&FunctionProto> {
        if self.known.is_empty() {
            return None;
        }
        let key = (domain(&node.domain).into(), node.op_type.clone(), node.overload.clone());
        self.known.get(&key)
    }
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
        budget::count(Limit::Nodes, 1)?;
        self.sources.push(Source::new(name, node, opset, depth)?);
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
        budget::count(Limit::Calls, 1)?;
        budget::check()?;
        let prefix = format!("{name}/");
        let mut values: HashMap<String, String> = HashMap::new();
        for (index, formal) in function.input.iter().enumerate() {
            values.insert(formal.clone(), call.input.get(index).cloned().unwrap_or_default());
        }
        // Outputs that are an input or another output, which no node of the function makes anew.
        let mut copies: Vec<(String, String)> = vec![];
        let mut made: HashSet<&str> = HashSet::new();
        let given = function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty());
        for (formal, actual) in given {
            match values.get(formal) {
                Some(same) => copies.push((same.clone(), actual.clone())),
                None => {
                    made.insert(formal);
                    values.insert(formal.clone(), actual.clone());
                }
            }
        }
        let scope =
            Scope { names: values, prefix: prefix.clone(), attributes: actual_attributes(function, call)? };
        let own = function.opset_import.iter().find(|import| domain(&import.domain).is_empty());
        let opset = match own {
            None => opset,
            Some(_) => super::opset(&function.opset_import)?,
        };
        for bytes in &function.node {
            let mut node: NodeProto = decode(bytes)?;
            for output in &node.output {
                made.remove(output.as_str());
            }
            scope.instantiate(&mut node)?;
            let names = node.input.iter().chain(&node.output).chain([&node.name]);
            let named = names.fold(prefix.len(), |bytes, name| bytes.saturating_add(name.len()));
            let attributes = node.attribute.iter().map(Bytes::len).sum::<usize>();
            budget::count(Limit::Names, named.saturating_add(attributes))?;
            self.add(node, opset, &prefix, depth + 1)?;
        }
        if let Some(missing) = made.into_iter().min() {
            return Err(Error::Malformed(format!(
                "output `{missing}` of function `{}` is made by no node of it",
                function.name
            )));
        }
        for (input, output) in copies {
            let copy = NodeProto {
                input: vec![input],
                output: vec![output],
                op_type: "Identity".into(),
                ..NodeProto::default()
            };
            self.add(copy, opset.or(Some(CANONICAL_OPSET)), &prefix, depth + 1)?;
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
