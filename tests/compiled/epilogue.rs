//! Activations and residuals behind a layer, in graphs.

use crate::layer::Layer;
use crate::support::Random;
use tconvc::Tensor;
use tconvc_ir::{Attributes, DType, Graph, Op, ValueType};

/// What an epilogue is made of: operator, attributes.
fn step(random: &mut Random) -> (&'static str, Attributes) {
    match random.below(5) {
        0 => ("Relu", Attributes::new()),
        1 => ("LeakyRelu", Attributes::new().with("alpha", 0.5f32)),
        2 => ("PRelu", Attributes::new()),
        3 => ("Neg", Attributes::new()),
        _ => ("Add", Attributes::new()),
    }
}

/// A layer with one to three steps behind it, and its inputs.
pub fn with_epilogue(layer: &Layer, random: &mut Random) -> (Graph, Vec<(String, Tensor)>) {
    let mut graph = Graph::new("epilogue");
    let mut last = layer.add_to(&mut graph, 0);
    let shape = layer.output_shape();
    let mut inputs = vec![("x0".to_owned(), layer.input())];
    for position in 0..=random.below(3) {
        let (op, attributes) = step(random);
        let operand = match op {
            "Add" => {
                let count = shape.iter().product();
                let name = format!("r{position}");
                let tensor = Tensor::from_vec(shape.clone(), random.integers(count)).unwrap();
                inputs.push((name.clone(), tensor));
                Some(graph.add_input(&name, ValueType::new(DType::F32, shape.clone())).unwrap())
            }
            "PRelu" => {
                let slopes = [vec![shape[1]], vec![1; shape.len() - 2]].concat();
                let tensor = Tensor::from_vec(slopes, random.integers(shape[1])).unwrap();
                Some(graph.add_constant(&format!("slope{position}"), tensor))
            }
            _ => None,
        };
        let op = Op::read(op, attributes).unwrap().unwrap();
        let operands: Vec<_> = [Some(last), operand].into_iter().flatten().map(Some).collect();
        let types = vec![ValueType::new(DType::F32, shape.clone())];
        last = graph.add_node(&format!("step{position}"), op, &operands, types).unwrap().1[0];
    }
    graph.add_output(last);
    (graph, inputs)
}
