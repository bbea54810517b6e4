//! Graph to text.

use super::elements::{Literal, has_elements, write_elements, write_hex};
use super::lexer::{quoted, sigil_name, word};
use super::weights::hash_bytes;
use crate::attributes::AttributeValue;
use crate::dtype::DType;
use crate::graph::{Definition, Graph, Node, ValueId};
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::fmt::{self, Write};

/// Tensors with more elements stand in the text by their hash.
const MAX_INLINE: usize = 64;

/// Bytes of which more stand in the text by their hash.
const MAX_INLINE_BYTES: usize = 64;

/// True when the text holds the tensor's hash, and not its elements.
pub(super) fn is_stored(tensor: &Tensor) -> bool {
    if has_elements(tensor.dtype()) {
        tensor.len() > MAX_INLINE
    } else {
        tensor.bytes().len() > MAX_INLINE_BYTES
    }
}

/// Writes a graph in the text form.
pub fn print(graph: &Graph) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "graph {}", word(&graph.name));
    for (domain, version) in &graph.opsets {
        let _ = match domain.as_str() {
            "" => writeln!(out, "opset {version}"),
            _ => writeln!(out, "opset {} = {version}", word(domain)),
        };
    }
    for (key, value) in &graph.metadata {
        let _ = writeln!(out, "meta {} = {}", word(key), quoted(value));
    }
    out.push('\n');
    for &id in graph.inputs() {
        let _ = write!(out, "input {}", reference(graph, id));
        write_type(graph.ty(id), &mut out);
        if let Some(tensor) = graph.default_of(id) {
            out.push_str(" default ");
            write_tensor(tensor, &mut out);
        }
        out.push('\n');
    }
    for (id, value) in graph.values() {
        if let Definition::Constant(tensor) = value.definition() {
            let _ = write!(out, "const {} : ", reference(graph, id));
            write_tensor(tensor, &mut out);
            out.push('\n');
        }
    }
    out.push('\n');
    match graph.order() {
        Ok(order) => order.into_iter().for_each(|id| write_node(graph, graph.node(id), &mut out)),
        Err(error) => {
            // No text that parses, but one to read.
            let _ = writeln!(out, "; {error}");
            graph.nodes().for_each(|node| write_node(graph, node, &mut out));
        }
    }
    out.push('\n');
    for &id in graph.outputs() {
        let _ = writeln!(out, "output {}", reference(graph, id));
    }
    out
}

impl fmt::Debug for Graph {
    /// The text form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// `%x`, or `@w` for a constant.
fn reference(graph: &Graph, id: ValueId) -> String {
    let sign = if graph.constant(id).is_some() { '@' } else { '%' };
    format!("{sign}{}", sigil_name(&graph.value(id).name))
}

/// ` : f32[1, H]`, or nothing where nothing is known.
fn write_type(ty: &ValueType, out: &mut String) {
    if *ty != ValueType::default() {
        let _ = write!(out, " : {ty}");
    }
}

/// `f32[2, 2] = [1.0, 2.0, 3.0, 4.0]` or `f32[128] #0123456789abcdef`.
fn write_tensor(tensor: &Tensor, out: &mut String) {
    let _ = write!(out, "{}", ValueType::of(tensor));
    if is_stored(tensor) {
        let _ = write!(out, " #{:016x}", tensor.content_hash());
    } else {
        out.push_str(" = ");
        if has_elements(tensor.dtype()) {
            write_elements(tensor, out);
        } else {
            write_hex(tensor.bytes(), out);
        }
    }
}

fn write_node(graph: &Graph, node: &Node, out: &mut String) {
    for (i, output) in node.outputs().iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        match output {
            None => out.push('_'),
            Some(id) => {
                out.push_str(&reference(graph, *id));
                write_type(graph.ty(*id), out);
            }
        }
    }
    if !node.outputs().is_empty() {
        out.push_str(" = ");
    }
    let captured = match &node.op {
        Op::Opaque(op) => {
            if !op.domain.is_empty() {
                out.push_str(&word(&op.domain));
            }
            let _ = write!(out, "::{}", word(&op.op_type));
            op.captures
        }
        op => {
            out.push_str(&word(op.name()));
            0
        }
    };
    out.push('(');
    for (i, input) in node.inputs().iter().enumerate() {
        if captured > 0 && i + captured == node.inputs().len() {
            out.push_str(if i > 0 { " | " } else { "| " });
        } else if i > 0 {
            out.push_str(", ");
        }
        match input {
            None => out.push('_'),
            Some(id) => out.push_str(&reference(graph, *id)),
        }
    }
    out.push(')');
    let attributes = node.op.attributes();
    if !attributes.is_empty() {
        out.push_str(" {");
        for (i, (name, value)) in attributes.iter().enumerate() {
            let _ = write!(out, "{}{}=", if i > 0 { ", " } else { "" }, word(name));
            write_attribute(name, value, out);
        }
        out.push('}');
    }
    if implied_name(graph, node) != Some(node.name.as_str()) {
        let _ = write!(out, " {}", quoted(&node.name));
    }
    out.push('\n');
}

/// The name that a node has when its line does not say one: that of its first output.
fn implied_name<'g>(graph: &'g Graph, node: &Node) -> Option<&'g str> {
    let first = node.outputs().iter().flatten().next()?;
    Some(graph.value(*first).name.as_str())
}

fn write_attribute(name: &str, value: &AttributeValue, out: &mut String) {
    fn list<T>(kind: &str, items: &[T], out: &mut String, mut write: impl FnMut(&T, &mut String)) {
        // Only an empty list does not tell what it is a list of.
        if items.is_empty() {
            out.push_str(kind);
        }
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write(item, out);
        }
        out.push(']');
    }
    match value {
        AttributeValue::Int(value) => {
            let dtype = i32::try_from(*value).ok().and_then(|code| DType::from_onnx_code(code).ok());
            match dtype.filter(|_| matches!(name, "to" | "dtype")) {
                Some(dtype) => out.push_str(dtype.name()),
                None => value.write(out),
            }
        }
        AttributeValue::Float(value) => value.write(out),
        AttributeValue::String(text) => out.push_str(&quoted(text)),
        AttributeValue::Ints(items) => list("", items, out, |item, out| item.write(out)),
        AttributeValue::Floats(items) => list("floats", items, out, |item, out| item.write(out)),
        AttributeValue::Strings(items) => {
            list("strings", items, out, |item, out| out.push_str(&quoted(item)));
        }
        AttributeValue::Tensor(tensor) => {
            out.push_str("tensor ");
            write_tensor(tensor, out);
        }
        AttributeValue::Opaque(bytes) if bytes.len() <= MAX_INLINE_BYTES => write_hex(bytes, out),
        AttributeValue::Opaque(bytes) => {
            let _ = write!(out, "encoded #{:016x}", hash_bytes(bytes));
        }
    }
}
