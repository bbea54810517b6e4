//! What was written, looked at as a reader does, before it is given out: names, domains, operators of the opset, types of inputs
//! and outputs. It shares nothing with what writes but the messages.

use super::super::attributes::kind_of;
use super::super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    TypeProto, ValueInfoProto, kind,
};
use super::super::wire::decode;
use super::since::of_name;
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Checks a model.
///
/// # Errors
/// Names the rule that is broken, and the node or value that breaks it.
pub(super) fn model(bytes: &Bytes) -> Result<()> {
    let model: ModelProto = decode(bytes)?;
    let mut domains = HashMap::new();
    for import in &model.opset_import {
        if domains.insert(plain(&import.domain).to_owned(), import.version).is_some() {
            return Err(broken("a domain is imported once", &import.domain));
        }
    }
    let mut functions = HashSet::new();
    for bytes in &model.functions {
        let function: FunctionProto = decode(bytes)?;
        functions.insert((plain(&function.domain).to_owned(), function.name));
    }
    let Some(graph) = &model.graph else { return Err(broken("a model has a graph", "none is there")) };
    let mut check = Check { domains, functions, scopes: vec![] };
    check.graph(&decode(graph)?, true)
}

fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn broken(rule: &str, what: &str) -> Error {
    Error::Graph(format!("what was written breaks the rule `{rule}`: `{what}`"))
}

struct Check {
    /// Opset by domain.
    domains: HashMap<String, i64>,
    functions: HashSet<(String, String)>,
    /// Names defined so far, of each graph around.
    scopes: Vec<HashSet<String>>,
}

impl Check {
    fn graph(&mut self, graph: &GraphProto, outermost: bool) -> Result<()> {
        self.scopes.push(HashSet::new());
        for bytes in &graph.input {
            let input: ValueInfoProto = decode(bytes)?;
            self.define(&input.name)?;
            if outermost && !is_typed(&input)? {
                return Err(broken("an input has a type", &input.name));
            }
        }
        let inputs = self.scopes.last().cloned().unwrap_or_default();
        let mut constants = HashSet::new();
        for bytes in &graph.initializer {
            self.constant(&decode::<TensorProto>(bytes)?.name, &inputs, &mut constants)?;
        }
        for bytes in &graph.sparse_initializer {
            let values = decode::<SparseTensorProto>(bytes)?.values.unwrap_or_default();
            self.constant(&decode::<TensorProto>(&values)?.name, &inputs, &mut constants)?;
        }
        for bytes in &graph.node {
            let node: NodeProto = decode(bytes)?;
            self.node(&node).map_err(|error| error.at(&node.name, &node.op_type))?;
        }
        for bytes in &graph.output {
            let output: ValueInfoProto = decode(bytes)?;
            // A graph inside hands on what it has itself.
            if !self.scopes.last().is_some_and(|scope| scope.contains(&output.name)) {
                return Err(broken("an output is defined in its graph", &output.name));
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn constant(&mut self, name: &str, inputs: &HashSet<String>, seen: &mut HashSet<String>) -> Result<()> {
        if !seen.insert(name.to_owned()) {
            return Err(broken("a constant stands there once", name));
        }
        if inputs.contains(name) { Ok(()) } else { self.define(name) }
    }

    fn node(&mut self, node: &NodeProto) -> Result<()> {
        let domain = plain(&node.domain);
        let Some(&opset) = self.domains.get(domain) else {
            return Err(broken("the domain of an operator is imported", domain));
        };
        let call = (domain.to_owned(), node.op_type.clone());
        if domain.is_empty() && !self.functions.contains(&call) && of_name(&node.op_type) > opset {
            let what = format!("{} in opset {opset}", node.op_type);
            return Err(broken("an operator is one of the opset", &what));
        }
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            if !self.scopes.iter().any(|scope| scope.contains(input)) {
                return Err(broken("a value is defined above the node that reads it", input));
            }
        }
        for bytes in &node.attribute {
            let attribute: AttributeProto = decode(bytes)?;
            if matches!(kind_of(&attribute), kind::GRAPH | kind::GRAPHS) {
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    self.graph(&decode(graph)?, false)?;
                }
            }
        }
        node.output.iter().filter(|name| !name.is_empty()).try_for_each(|name| self.define(name))
    }

    fn define(&mut self, name: &str) -> Result<()> {
        if name.is_empty() || self.scopes.iter().any(|scope| scope.contains(name)) {
            return Err(broken("a name is defined once, and not again inside", name));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
        Ok(())
    }
}

fn is_typed(value: &ValueInfoProto) -> Result<bool> {
    let Some(ty) = &value.ty else { return Ok(false) };
    let ty: TypeProto = decode(ty)?;
    Ok(ty.tensor_type.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::onnx::proto::OperatorSetIdProto;
    use crate::onnx::types;
    use crate::onnx::wire::encode;
    use crate::value_type::ValueType;
    use prost::Message;

    fn node(op_type: &str, domain: &str, input: &[&str], output: &[&str]) -> NodeProto {
        NodeProto {
            input: input.iter().map(ToString::to_string).collect(),
            output: output.iter().map(ToString::to_string).collect(),
            name: output[0].into(),
            op_type: op_type.into(),
            domain: domain.into(),
            ..NodeProto::default()
        }
    }

    fn value(name: &str) -> Bytes {
        encode(&types::write(name, &ValueType::new(DType::F32, [1usize])))
    }

    fn written(nodes: &[NodeProto], inputs: &[Bytes], outputs: &[&str]) -> Result<()> {
        let graph = GraphProto {
            node: nodes.iter().map(encode).collect(),
            input: inputs.to_vec(),
            output: outputs.iter().map(|name| value(name)).collect(),
            ..GraphProto::default()
        };
        let proto = ModelProto {
            graph: Some(encode(&graph)),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
            ..ModelProto::default()
        };
        model(&proto.encode_to_vec().into())
    }

    #[test]
    fn what_a_reader_would_refuse_is_found() {
        let relu = |input: &str, output: &str| node("Relu", "", &[input], &[output]);
        written(&[relu("x", "y")], &[value("x")], &["y"]).unwrap();
        let untyped = encode(&ValueInfoProto { name: "x".into(), ty: None });
        let inside = |graph: GraphProto| {
            let attribute = AttributeProto {
                name: "body".into(),
                kind: kind::GRAPH,
                g: Some(encode(&graph)),
                ..AttributeProto::default()
            };
            NodeProto { attribute: vec![encode(&attribute)], ..relu("x", "y") }
        };
        let body = |nodes: &[NodeProto], output: &str| GraphProto {
            node: nodes.iter().map(encode).collect(),
            output: vec![value(output)],
            ..GraphProto::default()
        };
        written(&[inside(body(&[relu("x", "t")], "t"))], &[value("x")], &["y"]).unwrap();
        let cases = [
            (written(&[relu("x", "y"), relu("x", "y")], &[value("x")], &["y"]), "defined once"),
            (written(&[relu("y", "z"), relu("x", "y")], &[value("x")], &["z"]), "defined above"),
            (written(&[relu("x", "y")], &[value("x")], &["z"]), "an output is defined"),
            (written(&[relu("x", "y")], &[untyped], &["y"]), "an input has a type"),
            (written(&[node("Up", "d", &["x"], &["y"])], &[value("x")], &["y"]), "domain of an operator"),
            (written(&[node("HardSwish", "", &["x"], &["y"])], &[value("x")], &["y"]), "one of the opset"),
            (written(&[inside(body(&[relu("x", "x")], "x"))], &[value("x")], &["y"]), "not again inside"),
            (written(&[inside(body(&[], "x"))], &[value("x")], &["y"]), "defined in its graph"),
            (
                written(&[inside(body(&[node("Mish", "", &["x"], &["t"])], "t"))], &[value("x")], &["y"]),
                "Mish in opset 13",
            ),
        ];
        for (result, rule) in cases {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(rule), "{rule}: {error}");
        }
    }
}
