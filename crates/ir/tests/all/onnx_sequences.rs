//! Sequences and optionals are taken apart while a file is read: no node of theirs is left, and values are those of the
//! definition.

use tconvc_ir::{Op, Tensor, infer, interp, onnx};
use tconvc_testing::onnx_build::*;

fn model(x: &[&str], initializers: Vec<Message>, nodes: Vec<Message>) -> Message {
    Graph { inputs: vec![value("x", x)], outputs: vec![untyped("y")], initializers, nodes }.model(17)
}

fn number(name: &str, value: i64) -> Message {
    ints(name, &[], &[value])
}

fn run(model: &[u8], shape: &[usize]) -> (Vec<usize>, Vec<f64>) {
    let mut graph = onnx::read_bytes(model).unwrap_or_else(|error| panic!("{error}"));
    infer::infer(&mut graph).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        graph.nodes().all(|node| !matches!(node.op, Op::Opaque(_))),
        "{}",
        tconvc_ir::text::print(&graph)
    );
    onnx::write(&graph).and_then(|bytes| onnx::read_bytes(&bytes)).unwrap_or_else(|error| panic!("{error}"));
    let count = shape.iter().product::<usize>();
    let x = Tensor::from_vec(shape, (0..count).map(|i| i as f32).collect()).unwrap();
    let y = interp::run(&graph, &[("x", x)]).unwrap_or_else(|error| panic!("{error}")).remove(0).1;
    (y.shape().to_vec(), y.to_f64s().unwrap())
}

fn refused(model: &[u8], with: &str) {
    let error = onnx::read_bytes(model).map(|_| ()).expect_err(with).to_string();
    assert!(error.contains(with), "expected `{with}` in: {error}");
}

fn split(attributes: &[Message]) -> Message {
    node("SplitToSequence", &["x"], &["s"], attributes)
}

#[test]
fn parts_are_found_by_position() {
    let at = |position: i64, keep: i64, x: &[&str]| {
        let attributes = [int_attribute("axis", 1), int_attribute("keepdims", keep)];
        let nodes = vec![split(&attributes), node("SequenceAt", &["s", "i"], &["y"], &[])];
        model(x, vec![number("i", position)], nodes)
    };
    assert_eq!(run(&at(1, 1, &["2", "3"]), &[2, 3]), (vec![2, 1], vec![1.0, 4.0]));
    assert_eq!(run(&at(-1, 0, &["2", "3"]), &[2, 3]), (vec![2], vec![2.0, 5.0]));
    // However many parts there are.
    assert_eq!(run(&at(2, 0, &["N", "M"]), &[1, 4]), (vec![1], vec![2.0]));
    assert_eq!(run(&at(-2, 1, &["N", "M"]), &[1, 4]), (vec![1, 1], vec![2.0]));
    // Parts of two, the last one shorter.
    let two = |position: i64| {
        let parts = node("SplitToSequence", &["x", "two"], &["s"], &[]);
        let nodes = vec![parts, node("SequenceAt", &["s", "i"], &["y"], &[])];
        model(&["5"], vec![number("i", position), number("two", 2)], nodes)
    };
    assert_eq!(run(&two(2), &[5]), (vec![1], vec![4.0]));
    assert_eq!(run(&two(-2), &[5]), (vec![2], vec![2.0, 3.0]));
    let lengths = node("SplitToSequence", &["x", "l"], &["s"], &[]);
    let nodes = vec![lengths, node("SequenceAt", &["s", "i"], &["y"], &[])];
    let listed = model(&["5"], vec![number("i", 1), ints("l", &[2], &[1, 4])], nodes);
    assert_eq!(run(&listed, &[5]).1, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn lists_change_and_are_joined() {
    let nodes = vec![
        node("SequenceEmpty", &[], &["none"], &[]),
        node("SequenceInsert", &["none", "x"], &["one"], &[]),
        node("Neg", &["x"], &["n"], &[]),
        node("SequenceInsert", &["one", "n", "front"], &["two"], &[]),
        node("SequenceInsert", &["two", "x", "end"], &["three"], &[]),
        node("SequenceErase", &["three", "front"], &["rest"], &[]),
        node("Identity", &["rest"], &["same"], &[]),
        node(
            "ConcatFromSequence",
            &["same"],
            &["y"],
            &[int_attribute("axis", 0), int_attribute("new_axis", 1)],
        ),
    ];
    let numbers = || vec![number("front", 0), number("end", 2)];
    assert_eq!(run(&model(&["2"], numbers(), nodes), &[2]), (vec![2, 2], vec![0.0, 1.0, 0.0, 1.0]));
    // Parts put together again are the whole; along another axis they are not.
    let join = |axis: i64| {
        let nodes = vec![
            split(&[int_attribute("axis", 1)]),
            node("ConcatFromSequence", &["s"], &["y"], &[int_attribute("axis", axis)]),
        ];
        model(&["2", "2"], vec![], nodes)
    };
    assert_eq!(run(&join(1), &[2, 2]), (vec![2, 2], vec![0.0, 1.0, 2.0, 3.0]));
    assert_eq!(run(&join(0), &[2, 2]), (vec![4, 1], vec![0.0, 2.0, 1.0, 3.0]));
    for (dims, shape) in [(["5"], [5]), (["N"], [5])] {
        let parts = node("SplitToSequence", &["x", "two"], &["s"], &[]);
        let nodes = vec![parts, node("SequenceLength", &["s"], &["y"], &[])];
        assert_eq!(run(&model(&dims, vec![number("two", 2)], nodes), &shape), (vec![], vec![3.0]));
    }
}

#[test]
fn maps_are_nodes_for_each_tensor() {
    let body = Graph {
        inputs: vec![untyped("item"), untyped("whole")],
        outputs: vec![untyped("sum")],
        initializers: vec![],
        nodes: vec![
            node("Add", &["item", "whole"], &["both"], &[]),
            node("Mul", &["both", "factor"], &["sum"], &[]),
        ],
    };
    let nodes = vec![
        split(&[]),
        node("Neg", &["one"], &["minus"], &[]),
        node("SequenceMap", &["s", "minus"], &["m"], &[graph_attribute("body", &body.encode())]),
        node("ConcatFromSequence", &["m"], &["y"], &[int_attribute("axis", 0)]),
    ];
    let constants = vec![floats("one", &[], &[1.0]), floats("factor", &[], &[10.0])];
    assert_eq!(run(&model(&["3"], constants, nodes), &[3]), (vec![3], vec![-10.0, 0.0, 10.0]));
}

#[test]
fn optionals_are_there_or_not() {
    let nodes = vec![node("Optional", &["x"], &["o"], &[]), node("OptionalGetElement", &["o"], &["y"], &[])];
    assert_eq!(run(&model(&["2"], vec![], nodes), &[2]).1, [0.0, 1.0]);
    let has = |inputs: &[&str], before: Vec<Message>| {
        let nodes = [before, vec![node("OptionalHasElement", inputs, &["y"], &[])]].concat();
        run(&model(&["2"], vec![], nodes), &[2]).1
    };
    assert_eq!(has(&["o"], vec![node("Optional", &["x"], &["o"], &[])]), [1.0]);
    assert_eq!(has(&["o"], vec![node("Optional", &[], &["o"], &[])]), [0.0]);
    assert_eq!(has(&["x"], vec![]), [1.0]);
    assert_eq!(has(&[""], vec![]), [0.0]);
    assert_eq!(has(&[], vec![]), [0.0]);
    let nodes = vec![
        node("SequenceConstruct", &["x", "x"], &["s"], &[]),
        node("Optional", &["s"], &["o"], &[]),
        node("OptionalGetElement", &["o"], &["t"], &[]),
        node("SequenceLength", &["t"], &["y"], &[]),
    ];
    assert_eq!(run(&model(&["2"], vec![], nodes), &[2]).1, [2.0]);
}

#[test]
fn what_is_not_known_or_not_there_is_named() {
    let at = |position: Message, x: &[&str]| {
        let nodes = vec![
            node("SequenceConstruct", &["x", "x"], &["s"], &[]),
            named_node("a", "SequenceAt", &["s", "i"], &["y"], &[]),
        ];
        model(x, vec![position], nodes)
    };
    refused(&at(number("i", 2), &["2"]), "2 is no position in a sequence of 2 tensors");
    refused(&at(number("i", i64::MIN), &["2"]), "no position");
    refused(&at(ints("i", &[2], &[0, 1]), &["2"]), "expected one number, found 2");
    let nodes = vec![
        node("SequenceConstruct", &["x"], &["s"], &[]),
        node("Size", &["x"], &["n"], &[]),
        named_node("a", "SequenceAt", &["s", "n"], &["y"], &[]),
    ];
    refused(
        &model(&["2"], vec![], nodes),
        "node `a` (SequenceAt): not supported: input 1: a position that is known at run time",
    );
    let join = |before: Vec<Message>, x: &[&str]| {
        let last = node("ConcatFromSequence", &["s"], &["y"], &[int_attribute("axis", 1)]);
        model(x, vec![], [before, vec![last]].concat())
    };
    refused(&join(vec![node("SequenceEmpty", &[], &["s"], &[])], &["2"]), "is empty");
    refused(&join(vec![split(&[])], &["N", "2"]), "whose extent the file leaves open");
    refused(
        &join(
            vec![node("SequenceErase", &["e"], &["s"], &[]), node("SequenceEmpty", &[], &["e"], &[])],
            &["2"],
        ),
        "-1 is no position",
    );
    let relu = vec![node("SequenceEmpty", &[], &["s"], &[]), node("Relu", &["s"], &["y"], &[])];
    refused(&model(&["2"], vec![], relu), "`s` is a sequence or optional");
    let nothing = vec![node("Optional", &[], &["o"], &[]), node("OptionalGetElement", &["o"], &["y"], &[])];
    refused(&model(&["2"], vec![], nothing), "holds nothing");
    let plain = vec![node("SequenceLength", &["x"], &["y"], &[])];
    refused(&model(&["2"], vec![], plain), "`x` is no sequence");
}
