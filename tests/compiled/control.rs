//! `If` and `Loop`, as exporters leave them.

use crate::support::compiler;
use tconvc::{DType, Model, Tensor};
use tconvc_ir::Op;
use tconvc_testing::onnx_build::{
    Graph, Message, floats, graph_attribute, int_attribute, ints, ints_attribute, named_node, node, untyped,
    value,
};

fn branch(nodes: Vec<Message>, output: &str) -> Message {
    Graph { nodes, outputs: vec![untyped(output)], ..Graph::default() }.encode()
}

fn run(model: &Model, x: &Tensor) -> Tensor {
    let compiled = compiler().compile(model).unwrap();
    compiled.run([("x", x.view())]).unwrap()[0].clone()
}

/// What exporters make of `squeeze`: a question about an extent, and an axis that goes or stays.
fn squeezing(batch: &str) -> Model {
    let graph = Graph {
        inputs: vec![value("x", &[batch, "2", "3"])],
        outputs: vec![untyped("y")],
        initializers: vec![ints("zero", &[], &[0]), ints("one", &[], &[1]), ints("axes", &[1], &[0])],
        nodes: vec![
            node("Shape", &["x"], &["shape"], &[]),
            node("Gather", &["shape", "zero"], &["batch"], &[]),
            node("Equal", &["batch", "one"], &["single"], &[]),
            node("Neg", &["x"], &["negative"], &[]),
            named_node(
                "if",
                "If",
                &["single"],
                &["chosen"],
                &[
                    graph_attribute(
                        "then_branch",
                        &branch(vec![node("Squeeze", &["negative", "axes"], &["t"], &[])], "t"),
                    ),
                    graph_attribute(
                        "else_branch",
                        &branch(vec![node("Relu", &["negative"], &["e"], &[])], "e"),
                    ),
                ],
            ),
            node("Abs", &["chosen"], &["y"], &[]),
        ],
    };
    Model::from_bytes(&graph.model(17)).unwrap()
}

#[test]
fn questions_about_extents_are_answered_when_these_are_known() {
    for (batch, given) in [("1", 1), ("3", 3), ("N", 1), ("N", 3)] {
        let model = squeezing(batch);
        let rewritten = compiler().input_shape("x", [given, 2, 3]).rewrite(&model).unwrap();
        assert!(
            !rewritten.graph().nodes().any(|node| matches!(node.op, Op::Opaque(_))),
            "{}",
            rewritten.to_text()
        );
        let x = Tensor::seeded(DType::F32, [given, 2, 3], 1).unwrap();
        let y = run(&model, &x);
        let values: Vec<f64> = x.to_f64s().unwrap();
        if given == 1 {
            assert_eq!(y.shape(), [2, 3]);
            assert_eq!(y.to_f64s().unwrap(), values.iter().map(|x| x.abs()).collect::<Vec<_>>());
        } else {
            assert_eq!(y.shape(), [3, 2, 3]);
            assert_eq!(y.to_f64s().unwrap(), values.iter().map(|x| (-x).max(0.0)).collect::<Vec<_>>());
        }
    }
}

/// The data decide: a transposed convolution that enlarges, or nothing.
#[test]
fn conditions_may_be_known_at_run_time_only() {
    let up = Graph {
        initializers: vec![floats("w", &[1, 1, 2], &[1.0, 2.0])],
        outputs: vec![untyped("t")],
        nodes: vec![node("ConvTranspose", &["x", "w"], &["t"], &[ints_attribute("strides", &[2])])],
        ..Graph::default()
    };
    let graph = Graph {
        inputs: vec![value("x", &["1", "1", "3"])],
        outputs: vec![untyped("y")],
        initializers: vec![floats("zero", &[], &[0.0])],
        nodes: vec![
            node("ReduceSum", &["x"], &["sum"], &[int_attribute("keepdims", 0)]),
            node("Greater", &["sum", "zero"], &["positive"], &[]),
            node(
                "If",
                &["positive"],
                &["chosen"],
                &[
                    graph_attribute("then_branch", &up.encode()),
                    graph_attribute("else_branch", &branch(vec![node("Identity", &["x"], &["e"], &[])], "e")),
                ],
            ),
            node("Neg", &["chosen"], &["y"], &[]),
        ],
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    let tensor = |values: [f32; 3]| Tensor::from_vec([1, 1, 3], values.to_vec()).unwrap();
    let y = run(&model, &tensor([1.0, 2.0, 3.0]));
    assert_eq!(
        (y.shape(), y.to_f64s().unwrap()),
        ([1, 1, 6].as_slice(), vec![-1.0, -2.0, -2.0, -4.0, -3.0, -6.0])
    );
    let y = run(&model, &tensor([-1.0, -2.0, 3.0]));
    assert_eq!((y.shape(), y.to_f64s().unwrap()), ([1, 1, 3].as_slice(), vec![1.0, 2.0, -3.0]));
}

/// `h = h * x` and the rows `h + round`, over `n` rounds or until `h` is small.
fn looping(rounds: Option<i64>) -> Model {
    let body = Graph {
        inputs: vec![untyped("i"), untyped("go"), untyped("h")],
        outputs: vec![untyped("on"), untyped("next"), untyped("row")],
        initializers: vec![floats("least", &[], &[0.1])],
        nodes: vec![
            node("Mul", &["h", "x"], &["next"], &[]),
            node("Cast", &["i"], &["round"], &[int_attribute("to", 1)]),
            node("Add", &["next", "round"], &["row"], &[]),
            node("ReduceMax", &["next"], &["largest"], &[int_attribute("keepdims", 0)]),
            node("Greater", &["largest", "least"], &["on"], &[]),
        ],
    };
    let count = rounds.map_or("", |_| "n");
    let graph = Graph {
        inputs: vec![value("x", &["2"])],
        outputs: vec![untyped("rows"), untyped("last")],
        initializers: vec![ints("n", &[], &[rounds.unwrap_or(0)])],
        nodes: vec![
            node("Loop", &[count, "", "x"], &["last", "all"], &[graph_attribute("body", &body.encode())]),
            node("Neg", &["all"], &["rows"], &[]),
        ],
    };
    Model::from_bytes(&graph.model(17)).unwrap()
}

#[test]
fn loops_carry_and_collect() {
    let x = Tensor::from_vec([2], vec![0.5f32, 0.25]).unwrap();
    // Powers of two are exact: 0.25, 0.125, 0.0625, which is small enough to stop.
    for (rounds, expected) in [(Some(0), 0), (Some(1), 1), (Some(2), 2), (Some(9), 3), (None, 3)] {
        let compiled = compiler().compile(&looping(rounds)).unwrap();
        let outputs = compiled.run([("x", x.view())]).unwrap();
        let row = |round: i32| {
            [0.5f64.powi(round + 2) + f64::from(round), 0.25f64.powi(round + 2) + f64::from(round)]
        };
        let rows: Vec<f64> = (0..expected).flat_map(row).map(|value| -value).collect();
        assert_eq!(outputs[0].to_f64s().unwrap(), rows, "{rounds:?}");
        assert_eq!(outputs[0].shape()[0], expected as usize);
        let power = |base: f64| base.powi(1 + expected);
        assert_eq!(outputs[1].to_f64s().unwrap(), [power(0.5), power(0.25)], "{rounds:?}");
    }
}

/// A graph that comes again is compiled; weights that it reads of the graph around it are constant there, too. Bits do not depend on
/// threads, nor on how often it has run by more than rounding.
#[test]
fn branches_and_bodies_that_come_again_are_compiled() {
    let weights: Vec<f32> = (0..3 * 2 * 9).map(|i| (i % 7) as f32 - 3.0).collect();
    let up =
        branch(vec![node("ConvTranspose", &["x", "w"], &["t"], &[ints_attribute("strides", &[1, 1])])], "t");
    let down = branch(
        vec![
            node("Neg", &["x"], &["n"], &[]),
            node("ConvTranspose", &["n", "w"], &["e"], &[ints_attribute("strides", &[1, 1])]),
        ],
        "e",
    );
    let body = Graph {
        inputs: vec![untyped("i"), untyped("go"), untyped("h")],
        outputs: vec![untyped("go"), untyped("next"), untyped("row")],
        nodes: vec![
            node("Conv", &["h", "v"], &["c"], &[ints_attribute("pads", &[1, 1, 1, 1])]),
            node("Add", &["c", "h"], &["next"], &[]),
            node("Relu", &["next"], &["row"], &[]),
        ],
        ..Graph::default()
    };
    let graph = Graph {
        inputs: vec![value("x", &["1", "3", "8", "9"])],
        outputs: vec![untyped("y"), untyped("last"), untyped("rows")],
        initializers: vec![
            floats("w", &[3, 2, 3, 3], &weights),
            floats("v", &[2, 2, 3, 3], &weights[..36]),
            floats("zero", &[], &[0.0]),
            ints("n", &[], &[3]),
        ],
        nodes: vec![
            node("ReduceSum", &["x"], &["sum"], &[int_attribute("keepdims", 0)]),
            node("Greater", &["sum", "zero"], &["positive"], &[]),
            node(
                "If",
                &["positive"],
                &["y"],
                &[graph_attribute("then_branch", &up), graph_attribute("else_branch", &down)],
            ),
            node("Loop", &["n", "", "y"], &["last", "rows"], &[graph_attribute("body", &body.encode())]),
        ],
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    for threads in [1, 2, 3] {
        let compiled = compiler().threads(threads).compile(&model).unwrap();
        assert!(compiled.report().interpreted.iter().all(|step| step.op != "If"), "{}", compiled.report());
        let mut session = compiled.session();
        for seed in [1, 2, 1, 3, 1, 2] {
            let data: Vec<f32> = (0..216).map(|i| ((i * seed * 31 + seed) % 11) as f32 - 5.0).collect();
            let x = Tensor::from_vec([1, 3, 8, 9], data).unwrap();
            let expected = model.interpret([("x", x.view())]).unwrap();
            // Small integers: sums are exact.
            assert_eq!(session.run(&[x.view()]).unwrap(), expected, "{threads} threads, seed {seed}");
        }
    }
}

/// Some exporters carry weights from round to round as they are: they are constant in the body, and outputs that are inputs are no work.
#[test]
fn weights_that_are_carried_are_constant() {
    let weights: Vec<f32> = (0..36).map(|i| (i % 5) as f32 - 2.0).collect();
    let body = Graph {
        inputs: vec![untyped("i"), untyped("go"), untyped("h"), untyped("k"), untyped("other")],
        outputs: vec![untyped("go"), untyped("next"), untyped("k"), untyped("h"), untyped("h")],
        nodes: vec![
            node("Conv", &["h", "k"], &["c"], &[ints_attribute("pads", &[1, 1, 1, 1])]),
            node("Sub", &["c", "other"], &["next"], &[]),
        ],
        ..Graph::default()
    };
    let graph = Graph {
        inputs: vec![value("x", &["1", "2", "5", "6"])],
        outputs: vec![untyped("y"), untyped("k2"), untyped("o"), untyped("rows")],
        initializers: vec![floats("w", &[2, 2, 3, 3], &weights), ints("n", &[], &[3])],
        nodes: vec![node(
            "Loop",
            &["n", "", "x", "w", "x"],
            &["y", "k2", "o", "rows"],
            &[graph_attribute("body", &body.encode())],
        )],
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    let compiled = compiler().compile(&model).unwrap();
    let mut session = compiled.session();
    for seed in [1, 2, 3] {
        let data: Vec<f32> = (0..60).map(|i| ((i * seed) % 7) as f32 - 3.0).collect();
        let x = Tensor::from_vec([1, 2, 5, 6], data).unwrap();
        let expected = model.interpret([("x", x.view())]).unwrap();
        assert_eq!(session.run(&[x.view()]).unwrap(), expected);
    }
}

/// A state that grows in every round has a shape of its own in each.
#[test]
fn bodies_whose_state_grows() {
    let body = Graph {
        inputs: vec![untyped("i"), untyped("go"), untyped("h")],
        outputs: vec![untyped("go"), untyped("next")],
        nodes: vec![node("Concat", &["h", "x"], &["next"], &[int_attribute("axis", 0)])],
        ..Graph::default()
    };
    let graph = Graph {
        inputs: vec![value("x", &["2"])],
        outputs: vec![untyped("y")],
        initializers: vec![ints("n", &[], &[40])],
        nodes: vec![
            node("Loop", &["n", "", "x"], &["grown"], &[graph_attribute("body", &body.encode())]),
            node("Neg", &["grown"], &["y"], &[]),
        ],
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    let compiled = compiler().compile(&model).unwrap();
    for round in 0..4 {
        let x = Tensor::from_vec([2], vec![round as f32, 0.25]).unwrap();
        let y = compiled.run([("x", x.view())]).unwrap();
        assert_eq!(y.get("y").unwrap(), model.interpret([("x", x.view())]).unwrap().get("y").unwrap());
    }
}

#[test]
fn malformed_graphs_are_refused_by_name() {
    let graph = |attributes: &[Message]| {
        let graph = Graph {
            inputs: vec![value("x", &["1"])],
            outputs: vec![untyped("y")],
            nodes: vec![
                node("Cast", &["x"], &["c"], &[int_attribute("to", 9)]),
                named_node("odd", "If", &["c"], &["y"], attributes),
            ],
            ..Graph::default()
        };
        let model = Model::from_bytes(&graph.model(17)).unwrap();
        compiler().compile(&model).err().unwrap().to_string()
    };
    let then = graph_attribute("then_branch", &branch(vec![node("Neg", &["x"], &["t"], &[])], "t"));
    let error = graph(std::slice::from_ref(&then));
    assert!(error.contains("`odd`") && error.contains("`else_branch`"), "{error}");
    let own_input = Graph {
        inputs: vec![untyped("z")],
        outputs: vec![untyped("e")],
        nodes: vec![node("Neg", &["z"], &["e"], &[])],
        ..Graph::default()
    };
    let error = graph(&[then, graph_attribute("else_branch", &own_input.encode())]);
    assert!(error.contains("`else_branch`") && error.contains("2 inputs"), "{error}");
}
