//! A model becomes a [`Graph`]: values are declared, nodes put in order, lifted to opset 21 and read into typed operators.

mod functions;
mod instance;
mod lift;
mod microsoft;
mod nodes;
mod normalise;
mod order;
mod sequences;
mod source;
mod upgrade;

use super::export::choose_opset;
use super::files::Files;
use super::proto::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto};
use super::types::Symbols;
use super::wire::decode;
use super::{tensors, types};
use crate::budget;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::value_type::ValueType;
use functions::Functions;
use prost::bytes::Bytes;
use source::Source;
use std::collections::{HashMap, HashSet};
pub(super) use upgrade::changed_since;

/// Opset in whose spelling a graph stands.
pub(super) const CANONICAL_OPSET: i64 = 21;

/// Opsets of ONNX's own domain that are read.
const ACCEPTED_OPSETS: std::ops::RangeInclusive<i64> = 1..=28;

/// Metadata entry that holds the model's description.
pub(super) const DOC_STRING: &str = "doc_string";

/// Reads a model.
pub(super) fn model(bytes: &Bytes, files: &Files) -> Result<Graph> {
    let model: ModelProto = decode(bytes)?;
    let Some(graph) = &model.graph else {
        return Err(Error::Malformed("no graph in it; expected an ONNX ModelProto".into()));
    };
    let proto: GraphProto = decode(graph)?;
    let opset = opset(&model.opset_import)?;

    let mut graph = Graph::new(proto.name.clone());
    for entry in &model.metadata_props {
        graph.metadata.insert(entry.key.clone(), entry.value.clone());
    }
    if !model.doc_string.is_empty() {
        graph.metadata.insert(DOC_STRING.into(), model.doc_string.clone());
    }
    for import in &model.opset_import {
        graph.opsets.entry(domain(&import.domain).to_owned()).or_insert(import.version);
    }

    let functions = Functions::read(&model.functions)?;
    let reader = Reader { files, functions: &functions, nesting: 0, canonical: false };
    let sources = order::sort(functions.expand(&proto.node, opset, 0)?)?;
    declare(&mut graph, &proto, &sources, &reader)?;
    let used = used_names(&proto, &sources)?;
    nodes::build(&mut graph, sources, &reader, &used)?;
    outputs(&mut graph, &proto)?;
    graph.remove_unused_values();
    // The opset that has what older ones were lifted to.
    if opset.is_some()
        && let Ok(opset) = choose_opset(&graph)
    {
        graph.opsets.insert(String::new(), opset);
    }
    Ok(graph)
}

/// What reading nodes takes beside them.
pub(super) struct Reader<'a> {
    files: &'a Files,
    functions: &'a Functions,
    /// Graphs around the one that is read.
    nesting: usize,
    /// Whether graphs in attributes stand in our spelling already.
    canonical: bool,
}

/// Deepest nesting of graphs, those of inlined functions included.
const MAX_NESTING: usize = 32;

/// Reads the graph of an attribute. What it may read of the graph around it are inputs, behind its own.
fn subgraph(
    attribute: &Bytes,
    captured: &[String],
    opset: Option<i64>,
    depth: usize,
    around: &Reader<'_>,
) -> Result<Graph> {
    budget::check()?;
    let reader = Reader { nesting: around.nesting + 1, ..*around };
    if reader.nesting > MAX_NESTING {
        return Err(Error::Unsupported(format!("graphs nested more than {MAX_NESTING} deep")));
    }
    let attribute: AttributeProto = decode(attribute)?;
    let Some(graph) = &attribute.g else {
        return Err(Error::attribute(&attribute.name, "expected a graph"));
    };
    let proto: GraphProto = decode(graph)?;
    let mut graph = Graph::new(proto.name.clone());
    graph.opsets.insert(String::new(), CANONICAL_OPSET);
    let sources = order::sort(reader.functions.expand(&proto.node, opset, depth)?)?;
    declare(&mut graph, &proto, &sources, &reader)?;
    for name in captured {
        // One that another graph of the node captures may be defined here.
        let name = graph.fresh_name(name);
        graph.add_input(&name, ValueType::default())?;
    }
    let used = used_names(&proto, &sources)?;
    nodes::build(&mut graph, sources, &reader, &used)?;
    outputs(&mut graph, &proto)?;
    Ok(graph)
}

/// Reads the graph of an attribute that stands in our spelling.
pub(super) fn canonical_subgraph(attribute: &Bytes, captured: &[String]) -> Result<Graph> {
    let (files, functions) = (Files::none(), Functions::default());
    let reader = Reader { files: &files, functions: &functions, nesting: 0, canonical: true };
    subgraph(attribute, captured, Some(CANONICAL_OPSET), 0, &reader)
}

/// The model's opset of ONNX's own domain.
fn opset(imports: &[OperatorSetIdProto]) -> Result<Option<i64>> {
    let mut versions: HashMap<&str, i64> = HashMap::new();
    for import in imports {
        let domain = domain(&import.domain);
        let before = *versions.entry(domain).or_insert(import.version);
        if before != import.version {
            let domain = if domain.is_empty() { "ai.onnx" } else { domain };
            return Err(Error::Malformed(format!(
                "opsets {before} and {} of domain {domain} are imported; expected is one of each domain",
                import.version
            )));
        }
    }
    let own = imports.iter().find(|import| domain(&import.domain).is_empty());
    match own {
        None => Ok(None),
        Some(import) if ACCEPTED_OPSETS.contains(&import.version) => Ok(Some(import.version)),
        Some(import) => Err(Error::Unsupported(format!(
            "opset {} of ai.onnx, accepted are {} to {}",
            import.version,
            ACCEPTED_OPSETS.start(),
            ACCEPTED_OPSETS.end()
        ))),
    }
}

/// ONNX's own domain has two spellings; here it is the empty one.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// Adds constants, inputs and the values that nodes make, with the types that the file states.
fn declare(graph: &mut Graph, proto: &GraphProto, sources: &[Source], reader: &Reader<'_>) -> Result<()> {
    let (files, inside) = (reader.files, reader.nesting > 0);
    let mut symbols = Symbols::default();
    let mut inputs = vec![];
    for bytes in &proto.input {
        inputs.push(types::read(bytes, &mut symbols, true)?);
    }
    let mut constants = vec![];
    for bytes in &proto.initializer {
        constants.push(tensors::read(bytes, files)?);
    }
    for bytes in &proto.sparse_initializer {
        constants.push(tensors::read_sparse(bytes, files)?);
    }
    // An input that has an initialiser is one that a caller may leave out.
    let mut given: HashMap<&str, usize> = HashMap::new();
    for (index, (name, _)) in constants.iter().enumerate() {
        if given.insert(name, index).is_some() {
            return Err(Error::Graph(format!("two values are named `{name}`")));
        }
    }
    let mut taken = HashSet::new();
    for input in &mut inputs {
        let default = given.get(input.name.as_str()).copied();
        let Some(ty) = &mut input.ty else {
            return Err(Error::Unsupported(format!(
                "input `{}` is {}, accepted are tensors",
                input.name, input.kind
            )));
        };
        named(&input.name, "an input")?;
        if let Some(index) = default.filter(|_| inside) {
            taken.insert(index);
        } else if let Some(index) = default {
            let tensor = &constants[index].1;
            if !ty.holds(tensor) {
                *ty = ValueType::of(tensor);
            }
            ty.dtype = Some(tensor.dtype());
            taken.insert(index);
        }
        // A graph inside of a node is always given all of its inputs.
        if !inside {
            symbols.name_unknown(ty);
        }
        let id = graph.add_input(&input.name, ty.clone())?;
        if let Some(index) = default.filter(|_| !inside) {
            graph.set_default(id, constants[index].1.clone())?;
        }
    }
    for (index, (name, tensor)) in constants.into_iter().enumerate() {
        if taken.contains(&index) {
            continue;
        }
        named(&name, "an initialiser")?;
        nodes::add_constant(graph, &name, tensor)?;
    }
    let mut hints = HashMap::new();
    for bytes in proto.value_info.iter().chain(&proto.output) {
        let declared = types::read(bytes, &mut symbols, false)?;
        if let Some(ty) = declared.ty {
            hints.insert(declared.name, ty);
        }
    }
    for source in sources {
        nodes::declare_outputs(graph, source, &mut hints, files).map_err(|error| source.at(error))?;
    }
    Ok(())
}

fn named(name: &str, what: &str) -> Result<()> {
    if name.is_empty() { Err(Error::Malformed(format!("{what} has no name"))) } else { Ok(()) }
}

/// Names that something reads.
fn used_names(proto: &GraphProto, sources: &[Source]) -> Result<HashSet<String>> {
    let mut used = HashSet::new();
    for source in sources {
        used.extend(source.reads().map(str::to_owned));
    }
    for output in &proto.output {
        used.insert(decode::<super::proto::ValueInfoProto>(output)?.name);
    }
    Ok(used)
}

fn outputs(graph: &mut Graph, proto: &GraphProto) -> Result<()> {
    for bytes in &proto.output {
        let declared = types::read(bytes, &mut Symbols::default(), false)?;
        if declared.ty.is_none() {
            return Err(Error::Unsupported(format!(
                "output `{}` is {}, accepted are tensors",
                declared.name, declared.kind
            )));
        }
        let Some(value) = graph.find_value(&declared.name) else {
            return Err(Error::Graph(format!("output `{}` is made by no node", declared.name)));
        };
        graph.add_output(value);
    }
    Ok(())
}
