//! A graph as input of Graphviz.

use std::fmt::Write;
use tconvc_ir::{Definition, Graph, ValueId};

/// Nodes as boxes, inputs and outputs as ovals, values as arrows with their types; constants are left out.
pub(crate) fn print(graph: &Graph) -> String {
    let mut text = String::from("digraph {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\"];\n");
    let source = |value: ValueId| match graph.value(value).definition() {
        Definition::Node(node, _) => Some(quote(&format!("node {}", graph.node(*node).name))),
        Definition::Input => Some(quote(&format!("input {}", graph.value(value).name))),
        _ => None,
    };
    let arrow = |text: &mut String, value: ValueId, target: &str| {
        if let Some(source) = source(value) {
            let _ = writeln!(text, "  {source} -> {target} [label={}];", quote(&graph.ty(value).to_string()));
        }
    };
    for &input in graph.inputs() {
        let name = &graph.value(input).name;
        let _ = writeln!(text, "  {} [shape=oval, label={}];", quote(&format!("input {name}")), quote(name));
    }
    for id in graph.order().unwrap_or_default() {
        let node = graph.node(id);
        let target = quote(&format!("node {}", node.name));
        let _ =
            writeln!(text, "  {target} [label={}];", quote(&format!("{}\n{}", node.op.name(), node.name)));
        for &input in node.inputs().iter().flatten() {
            arrow(&mut text, input, &target);
        }
    }
    for &output in graph.outputs() {
        let name = &graph.value(output).name;
        let target = quote(&format!("output {name}"));
        let _ = writeln!(text, "  {target} [shape=oval, label={}];", quote(name));
        arrow(&mut text, output, &target);
    }
    text.push_str("}\n");
    text
}

/// A string of Graphviz, in which a line break is spelled as the escape that breaks a label there.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_break_between_operator_and_name_and_names_are_kept() {
        let text = "input %x : f32[2]\n%y = Relu(%x) \"a\\\\n\\\"b\\\"\"\noutput %y\n";
        let graph: Graph = text.parse().unwrap();
        let dot = print(&graph);
        // One backslash before the n that breaks the line, two before that of the name.
        assert!(dot.contains(r#"[label="Relu\na\\n\"b\""];"#), "{dot}");
    }
}
