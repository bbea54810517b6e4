//! The verifier: every rule that a finished graph keeps. Passes are tested with it before and after.

use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::infer;
use crate::ops::Op;
use crate::value_type::ValueType;

/// Checks every rule of the graph:
/// - value and node names are unique, and a value has one definition that is where it says;
/// - users and edges are those of the nodes' inputs; every value that is read or an output is defined; no cycles;
/// - constants have the types of their tensors;
/// - an operator's inputs and outputs are as many as it takes, without holes where it needs them;
/// - types agree with what inference says: nothing recorded contradicts it.
///
/// # Errors
/// Names the rule, and the value or node that breaks it.
pub fn verify(graph: &Graph) -> Result<()> {
    graph.check_structure()?;
    graph.order()?;
    for (id, value) in graph.values() {
        if let Some(tensor) = graph.constant(id)
            && value.ty != ValueType::of(tensor)
        {
            let (name, recorded, tensor) = (&value.name, &value.ty, ValueType::of(tensor));
            return Err(broken(
                "constants have the types of their tensors",
                format!("`{name}` is {recorded}, its tensor {tensor}"),
            ));
        }
    }
    for id in graph.order()? {
        let node = graph.node(id);
        check_inputs(node).map_err(|error| error.at(&node.name, node.op.name()))?;
    }
    check_types(graph)
}

fn broken(rule: &str, detail: impl std::fmt::Display) -> Error {
    Error::Graph(format!("rule `{rule}` is broken: {detail}"))
}

fn check_inputs(node: &Node) -> Result<()> {
    if let Some((epilogue, first)) = node.op.epilogue() {
        let operands = node.inputs().get(first..).unwrap_or_default();
        let (expected, found) = (epilogue.operands(), operands.len());
        if found != expected || operands.iter().any(Option::is_none) {
            return Err(broken(
                "an epilogue has its operands",
                format!("{expected} inputs are expected from input {first} on, {found} are there"),
            ));
        }
    }
    if let Op::Opaque(op) = &node.op
        && node.inputs().iter().rev().take(op.captures).filter(|input| input.is_some()).count() != op.captures
    {
        return Err(broken(
            "values that a subgraph reads are inputs",
            format!("{} are expected at the end of {} inputs", op.captures, node.inputs().len()),
        ));
    }
    Ok(())
}

/// Inference, done again, leaves what is recorded as it is; it may know more.
fn check_types(graph: &Graph) -> Result<()> {
    for (id, ty) in infer::inferred(graph)? {
        let recorded = graph.ty(id);
        let agrees = recorded.dtype.is_none_or(|dtype| ty.dtype == Some(dtype))
            && recorded.shape.as_ref().is_none_or(|shape| {
                let kept = shape.iter().zip(ty.shape.iter().flatten());
                kept.into_iter().all(|(recorded, dim)| recorded.is_unknown() || recorded == dim)
            });
        if !agrees {
            let name = &graph.value(id).name;
            return Err(broken(
                "types are those inferred",
                format!("`{name}` is {recorded}, inferred is {ty}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{ConvTranspose, Epilogue, EpilogueStep, Opaque, Padding, Unary};
    use crate::{Attributes, DType, Tensor, ValueId};

    fn ty(shape: &[usize]) -> ValueType {
        ValueType::new(DType::F32, shape.iter().copied())
    }

    fn deconv(epilogue: Epilogue) -> ConvTranspose {
        ConvTranspose {
            kernel_shape: vec![],
            strides: vec![2],
            dilations: vec![],
            group: 1,
            padding: Padding::none(),
            output_padding: vec![],
            output_shape: vec![],
            epilogue,
        }
    }

    /// x -> ConvTranspose -> y -> Relu -> z.
    fn graph(epilogue: Epilogue) -> (Graph, [ValueId; 4]) {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ty(&[1, 2, 5])).unwrap();
        let w = graph.add_constant("w", Tensor::zeros(DType::F32, [2, 3, 2]).unwrap());
        let (_, y) =
            graph.add_node("y", deconv(epilogue), &[Some(x), Some(w)], vec![ValueType::default()]).unwrap();
        let (_, z) = graph.add_node("z", Unary::Relu, &[Some(y[0])], vec![ValueType::default()]).unwrap();
        graph.add_output(z[0]);
        (graph, [x, w, y[0], z[0]])
    }

    #[track_caller]
    fn assert_broken(graph: &Graph, rule: &str) {
        let error = verify(graph).unwrap_err().to_string();
        assert!(error.contains(&format!("rule `{rule}`")), "{error}");
    }

    #[test]
    fn a_sound_graph_passes_before_and_after_inference() {
        let (mut graph, _) = graph(Epilogue::default());
        verify(&graph).unwrap();
        infer::infer(&mut graph).unwrap();
        verify(&graph).unwrap();
    }

    #[test]
    fn recorded_types_must_be_those_inferred() {
        let (mut graph, [_, w, y, z]) = graph(Epilogue::default());
        infer::infer(&mut graph).unwrap();
        assert_eq!(graph.ty(y), &ty(&[1, 3, 10]));
        graph.set_ty(z, ValueType::new(DType::F32, [1usize.into(), 3usize.into(), crate::Dim::symbol("W")]));
        assert_broken(&graph, "types are those inferred");
        graph.set_ty(z, ValueType::new(DType::F32, [1usize, 3, 11]));
        assert!(verify(&graph).unwrap_err().to_string().contains("`z` is declared f32[1, 3, 11]"));
        graph.set_ty(w, ty(&[2, 3, 3]));
        assert_broken(&graph, "constants have the types of their tensors");
    }

    #[test]
    fn operands_are_counted() {
        let (graph, _) = graph(Epilogue { steps: vec![EpilogueStep::Add] });
        assert_broken(&graph, "an epilogue has its operands");
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", ty(&[1])).unwrap();
        let op = Opaque::new("", "If", Attributes::new(), 2);
        graph.add_node("y", op, &[Some(x)], vec![ValueType::default()]).unwrap();
        assert_broken(&graph, "values that a subgraph reads are inputs");
    }

    #[test]
    fn what_is_used_is_defined_and_no_node_feeds_itself() {
        let (mut graph, [x, w, y, z]) = graph(Epilogue::default());
        let maker = graph.producer(y).unwrap();
        let node = graph.remove_node(maker).unwrap();
        assert_broken(&graph, "values that are used are defined");
        graph.add_node_defining("y", node.op, &[Some(z), Some(w)], &[Some(y)]).unwrap();
        let error = verify(&graph).unwrap_err().to_string();
        assert!(error.contains("depends on its own output"), "{error}");
        graph.set_input(graph.producer(y).unwrap(), 0, Some(x));
        verify(&graph).unwrap();
    }
}
