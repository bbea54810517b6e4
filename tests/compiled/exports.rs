//! Exports lose nothing: functions and graphs inside of operators, opsets, quantised weights; no transposed convolution is left.

use crate::support::compiler;
use tconvc::{Form, Model, Tensor};
use tconvc_ir::{Graph, Op, onnx};
use tconvc_testing::onnx_build::{
    Graph as Built, Message, field, float_attribute, floats, graph_attribute, int, int_attribute, ints,
    ints_attribute, model, node, untyped, value,
};

/// A function of domain `d`, written for that opset.
fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: &[Message], opset: i64) -> Message {
    let mut out = field(1, name);
    out.extend(inputs.iter().flat_map(|name| field(4, name)));
    out.extend(outputs.iter().flat_map(|name| field(5, name)));
    out.extend(nodes.iter().flat_map(|node| field(7, node)));
    out.extend(field(9, int(2, opset)));
    out.extend(field(10, "d"));
    out
}

/// A call of a function.
fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    [node(name, inputs, outputs, &[]), field(7, "d")].concat()
}

fn with_functions(graph: &Built, functions: &[Message]) -> Vec<u8> {
    let mut bytes = model(8, 17, &graph.encode(), functions);
    bytes.extend(field(8, [field(1, "d"), int(2, 1)].concat()));
    bytes
}

fn branch(nodes: Vec<Message>, output: &str) -> Message {
    Built { nodes, outputs: vec![untyped(output)], ..Built::default() }.encode()
}

fn truth(value: bool) -> Tensor {
    Tensor::from_bools([], [value]).unwrap()
}

fn x() -> Tensor {
    Tensor::seeded(tconvc::DType::F32, [1, 2, 3, 3], 1).unwrap()
}

/// Transposed convolutions of a graph and of those inside.
fn transposed(graph: &Graph) -> usize {
    let of = |op: &Op| match op {
        Op::ConvTranspose(_) => 1,
        Op::Opaque(op) => {
            op.control().map_or(0, |control| control.graphs().iter().map(|graph| transposed(graph)).sum())
        }
        _ => 0,
    };
    graph.nodes().map(|node| of(&node.op)).sum()
}

/// Compiled and exported, the model computes what the interpreter does; gives the export as it is read again.
fn agree(what: &str, model: &Model, given: &[(&str, Tensor)], form: Form) -> Model {
    let views = || given.iter().map(|(name, tensor)| (*name, tensor.view()));
    let expected = model.interpret(views()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let compiled = compiler().compile(model).unwrap_or_else(|error| panic!("{what}: {error}"));
    let got = compiled.run(views()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let export = compiler().form(form).export(model).unwrap_or_else(|error| panic!("{what}: {error}"));
    let again = Model::from_bytes(export.bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let exported = again.interpret(views()).unwrap_or_else(|error| panic!("{what}, exported: {error}"));
    for (name, expected) in expected.iter() {
        for got in [&got, &exported] {
            let got = got.get(name).unwrap();
            assert_eq!(got.shape(), expected.shape(), "{what}");
            for (a, b) in got.to_f64s().unwrap().iter().zip(expected.to_f64s().unwrap()) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{what}: {a} is not {b}");
            }
        }
    }
    assert_eq!(transposed(again.graph()), 0, "{what}: {:?}", export.warnings());
    again
}

fn up(input: &str, output: &str) -> Message {
    node("ConvTranspose", &[input, "w", "b"], &[output], &[ints_attribute("strides", &[2, 2])])
}

fn weights() -> Vec<Message> {
    let w: Vec<f32> = (0..2 * 2 * 9).map(|i| (i % 7) as f32 - 3.0).collect();
    vec![floats("w", &[2, 2, 3, 3], &w), floats("b", &[2], &[0.5, -1.0])]
}

/// `q` chooses; the attributes stand in that order.
fn choice(branches: [(&str, Message); 2]) -> Message {
    node("If", &["q"], &["y"], &branches.map(|(name, graph)| graph_attribute(name, &graph)))
}

fn chosen(nodes: Vec<Message>) -> Built {
    Built {
        inputs: vec![value("x", &["1", "2", "3", "3"]), bool_value("q")],
        outputs: vec![untyped("y")],
        initializers: weights(),
        nodes,
    }
}

fn bool_value(name: &str) -> Message {
    [field(1, name), field(2, field(1, [int(1, 9), field(2, [])].concat()))].concat()
}

fn both(what: &str, bytes: &[u8]) {
    let model = Model::from_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    for form in Form::ALL {
        for q in [true, false] {
            agree(what, &model, &[("x", x()), ("q", truth(q))], form);
        }
    }
}

#[test]
fn branches_are_rewritten() {
    let graph = chosen(vec![choice([
        ("else_branch", branch(vec![up("x", "e")], "e")),
        ("then_branch", branch(vec![node("Neg", &["x"], &["n"], &[]), up("n", "t")], "t")),
    ])]);
    both("two branches", &graph.model(17));
}

#[test]
fn functions_are_inlined_wherever_they_are_called() {
    let functions = [
        function(
            "Up",
            &["a", "k", "c"],
            &["o"],
            &[node("ConvTranspose", &["a", "k", "c"], &["o"], &[ints_attribute("strides", &[2, 2])])],
            17,
        ),
        function(
            "Twice",
            &["a", "k", "c"],
            &["o"],
            &[call("Up", &["a", "k", "c"], &["h"]), node("Relu", &["h"], &["o"], &[])],
            17,
        ),
        // Written for another opset than the model.
        function(
            "Mean",
            &["a"],
            &["o"],
            &[node("ReduceMean", &["a"], &["o"], &[ints_attribute("axes", &[1])])],
            13,
        ),
        function("Same", &["a"], &["a"], &[], 17),
        function(
            "Choose",
            &["a", "k", "c", "p"],
            &["o"],
            &[node(
                "If",
                &["p"],
                &["o"],
                &[
                    graph_attribute("then_branch", &branch(vec![call("Up", &["a", "k", "c"], &["x"])], "x")),
                    graph_attribute(
                        "else_branch",
                        &branch(
                            vec![node(
                                "ConvTranspose",
                                &["a", "k"],
                                &["w"],
                                &[ints_attribute("strides", &[2, 2])],
                            )],
                            "w",
                        ),
                    ),
                ],
            )],
            17,
        ),
    ];
    let relu = || ("else_branch", branch(vec![node("Relu", &["x"], &["e"], &[])], "e"));
    let cases = [
        (
            "in a branch",
            chosen(vec![choice([
                ("then_branch", branch(vec![call("Up", &["x", "w", "b"], &["t"])], "t")),
                relu(),
            ])]),
        ),
        (
            "that calls another",
            chosen(vec![choice([
                ("then_branch", branch(vec![call("Twice", &["x", "w", "b"], &["t"])], "t")),
                relu(),
            ])]),
        ),
        (
            "of another opset",
            chosen(vec![choice([("then_branch", branch(vec![call("Mean", &["x"], &["t"])], "t")), relu()])]),
        ),
        (
            "that does nothing",
            chosen(vec![choice([("then_branch", branch(vec![call("Same", &["x"], &["t"])], "t")), relu()])]),
        ),
        (
            "without an input",
            chosen(vec![choice([
                ("then_branch", branch(vec![call("Up", &["x", "w", ""], &["t"])], "t")),
                relu(),
            ])]),
        ),
        // Names inside are those of the caller's values.
        ("with graphs of its own", chosen(vec![call("Choose", &["x", "w", "b", "q"], &["y"])])),
        (
            "with graphs of its own, in a branch",
            chosen(vec![choice([
                ("then_branch", branch(vec![call("Choose", &["x", "w", "b", "q"], &["t"])], "t")),
                relu(),
            ])]),
        ),
        (
            "twice",
            chosen(vec![
                call("Choose", &["x", "w", "b", "q"], &["h"]),
                call("Choose", &["h", "w", "b", "q"], &["y"]),
            ]),
        ),
    ];
    for (what, graph) in cases {
        both(what, &with_functions(&graph, &functions));
    }
}

#[test]
fn functions_that_make_no_sense_are_named() {
    let error = |functions: &[Message], nodes: Vec<Message>| {
        Model::from_bytes(&with_functions(&chosen(nodes), functions)).map(|_| ()).unwrap_err().to_string()
    };
    let missing = function("Up", &["a"], &["o"], &[node("Relu", &["a"], &["p"], &[])], 17);
    let text = error(&[missing], vec![call("Up", &["x"], &["y"])]);
    assert!(text.contains("output `o` of function `Up` is made by no node of it"), "{text}");
    let endless = |inner: Message| function("Up", &["a"], &["o"], &[inner], 17);
    let text = error(&[endless(call("Up", &["a"], &["o"]))], vec![call("Up", &["x"], &["y"])]);
    assert!(text.contains("functions nested more than"), "{text}");
    let inside = node(
        "If",
        &["a"],
        &["o"],
        &[
            graph_attribute("then_branch", &branch(vec![call("Up", &["a"], &["t"])], "t")),
            graph_attribute("else_branch", &branch(vec![call("Up", &["a"], &["t"])], "t")),
        ],
    );
    let text = error(&[endless(inside)], vec![call("Up", &["x"], &["y"])]);
    assert!(text.contains("nested more than"), "{text}");
    let other = function("Up", &["a"], &["o"], &[node("Relu", &["a"], &["o"], &[])], 17);
    let elsewhere = [node("Up", &["x"], &["y"], &[]), field(7, "e")].concat();
    let text = error(&[other], vec![elsewhere]);
    assert!(
        text.contains("e::Up is neither known nor a function of the file") && text.contains("domain `d`"),
        "{text}"
    );
}

/// The order in which attributes stand in a file is not that in which they are kept: what the branches read of the graph around
/// them must not be mixed up.
#[test]
fn captured_values_are_not_mixed_up() {
    let then = |nodes| ("then_branch", branch(nodes, "t"));
    let other = |nodes| ("else_branch", branch(nodes, "e"));
    let shape = || node("Gather", &["x", "index"], &["t"], &[int_attribute("axis", 1)]);
    let conv = || up("x", "e");
    let mut graph = chosen(vec![choice([then(vec![shape()]), other(vec![conv()])])]);
    graph.initializers.push(ints("index", &[1], &[1]));
    both("then before else", &graph.model(17));
    let mut graph = chosen(vec![choice([other(vec![conv()]), then(vec![shape()])])]);
    graph.initializers.push(ints("index", &[1], &[1]));
    both("else before then", &graph.model(17));
    // Nested, with the order turned around at each level.
    let inner = node(
        "If",
        &["q"],
        &["t"],
        &[
            graph_attribute(
                "then_branch",
                &branch(vec![node("Gather", &["x", "index"], &["g"], &[int_attribute("axis", 1)])], "g"),
            ),
            graph_attribute("else_branch", &branch(vec![node("Mul", &["x", "scale"], &["m"], &[])], "m")),
        ],
    );
    let mut graph = chosen(vec![choice([then(vec![inner.clone()]), other(vec![conv()])])]);
    graph.initializers.extend([ints("index", &[1], &[1]), floats("scale", &[], &[3.0])]);
    both("nested", &graph.model(17));
    // One branch defines the name that the other one reads.
    let graph = chosen(vec![
        node("Neg", &["x"], &["a"], &[]),
        choice([
            then(vec![node("Abs", &["a"], &["t"], &[])]),
            other(vec![node("Exp", &["x"], &["a"], &[]), node("Neg", &["a"], &["e"], &[])]),
        ]),
    ]);
    both("a name of both", &graph.model(17));
    // Both read the same in another order.
    let graph = chosen(vec![
        node("Neg", &["x"], &["a"], &[]),
        node("Exp", &["x"], &["c"], &[]),
        choice([
            then(vec![node("Sub", &["c", "a"], &["t"], &[])]),
            other(vec![node("Div", &["a", "c"], &["e"], &[])]),
        ]),
    ]);
    both("in another order", &graph.model(17));
    // A branch that reads nothing of its own, and one that reads a default.
    let mut graph = chosen(vec![choice([
        then(vec![node("Identity", &["k"], &["t"], &[])]),
        other(vec![node("Add", &["x", "k"], &["e"], &[])]),
    ])]);
    graph.initializers.push(floats("k", &[1, 2, 3, 3], &[0.25; 18]));
    graph.inputs.push(value("k", &["1", "2", "3", "3"]));
    both("a default", &graph.model(17));
}

/// A loop over a body with these declarations of the round's number and of whether to go on.
fn looping(dims: &[&str], up: bool, trips: i64) -> Built {
    let shaped = |name: &str, kind: i64| {
        let shape: Message = dims.iter().flat_map(|dim| field(1, int(1, dim.parse().unwrap()))).collect();
        [field(1, name), field(2, field(1, [int(1, kind), field(2, shape)].concat()))].concat()
    };
    let step = if up { self::up("s", "n") } else { node("Add", &["s", "one"], &["n"], &[]) };
    let body = Built {
        inputs: vec![shaped("i", 7), shaped("go", 9), value("s", &["1", "2", "h", "v"])],
        outputs: vec![untyped("on"), untyped("n"), untyped("i2")],
        initializers: vec![floats("one", &[], &[1.0])],
        nodes: vec![
            node("Identity", &["go"], &["on"], &[]),
            step,
            node("Cast", &["i"], &["i2"], &[int_attribute("to", 1)]),
        ],
    };
    Built {
        inputs: vec![value("x", &["1", "2", "3", "3"])],
        outputs: vec![untyped("y"), untyped("rounds")],
        initializers: [weights(), vec![ints("trips", &dims.iter().map(|_| 1).collect::<Vec<_>>(), &[trips])]]
            .concat(),
        nodes: vec![node(
            "Loop",
            &["trips", "", "x"],
            &["y", "rounds"],
            &[graph_attribute("body", &body.encode())],
        )],
    }
}

#[test]
fn loops_may_count_in_tensors_of_one_element() {
    for dims in [&[][..], &["1"]] {
        for (up, trips) in [(false, 3), (false, 0), (true, 2), (true, 1)] {
            let model = Model::from_bytes(&looping(dims, up, trips).model(17)).unwrap();
            for form in Form::ALL {
                agree(&format!("{dims:?}, {up}, {trips} rounds"), &model, &[("x", x())], form);
            }
        }
    }
}

/// What a loop is given counts, as an input does that has an initialiser.
#[test]
fn state_counts_before_an_initialiser_of_the_body() {
    let body = Built {
        inputs: vec![untyped("i"), untyped("go"), value("s", &["2"])],
        outputs: vec![untyped("on"), untyped("n")],
        initializers: vec![floats("s", &[2], &[100.0, 100.0])],
        nodes: vec![node("Identity", &["go"], &["on"], &[]), node("Add", &["s", "s"], &["n"], &[])],
    };
    let graph = Built {
        inputs: vec![value("v", &["2"])],
        outputs: vec![untyped("y")],
        initializers: vec![ints("trips", &[], &[2])],
        nodes: vec![node("Loop", &["trips", "", "v"], &["y"], &[graph_attribute("body", &body.encode())])],
    };
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    let v = Tensor::from_vec([2], vec![3f32, 5.0]).unwrap();
    let again = agree("state", &model, &[("v", v.clone())], Form::Auto);
    assert_eq!(again.interpret([("v", v.view())]).unwrap()[0].to_f64s().unwrap(), [12.0, 20.0]);
}

/// Batches and extents that the model leaves open.
#[test]
fn open_extents_are_rewritten() {
    let cases = [
        (["n", "2", "3", "3"], vec![]),
        (["1", "2", "h", "v"], vec![]),
        (
            ["n", "2", "h", "v"],
            vec![ints_attribute("pads", &[1, 0, 0, 1]), ints_attribute("output_padding", &[1, 0])],
        ),
        (["n", "2", "h", "v"], vec![tconvc_testing::onnx_build::text_attribute("auto_pad", "SAME_UPPER")]),
        (["n", "2", "h", "v"], vec![ints_attribute("dilations", &[2, 3])]),
    ];
    for (dims, more) in cases {
        let attributes = [vec![ints_attribute("strides", &[2, 2])], more].concat();
        let graph = Built {
            inputs: vec![value("x", &dims)],
            outputs: vec![untyped("y")],
            initializers: weights(),
            nodes: vec![node("ConvTranspose", &["x", "w", "b"], &["y"], &attributes)],
        };
        let model = Model::from_bytes(&graph.model(13)).unwrap();
        for form in Form::ALL {
            for shape in [[1usize, 2, 3, 3], [if dims[0] == "n" { 3 } else { 1 }, 2, 3, 3], [1, 2, 4, 5]] {
                if dims[2] == "3" && shape[2] != 3 {
                    continue;
                }
                let x = Tensor::seeded(tconvc::DType::F32, shape, 4).unwrap();
                agree(&format!("{dims:?}, {form}"), &model, &[("x", x)], form);
            }
        }
    }
    // Where pads follow from the extents, the layer stays, and a warning says so.
    let attributes = [ints_attribute("strides", &[2, 2]), ints_attribute("output_shape", &[9, 9])];
    let graph = Built {
        inputs: vec![value("x", &["1", "2", "h", "v"])],
        outputs: vec![untyped("y")],
        initializers: weights(),
        nodes: vec![node("ConvTranspose", &["x", "w", "b"], &["y"], &attributes)],
    };
    let export = compiler().export(&Model::from_bytes(&graph.model(13)).unwrap()).unwrap();
    assert!(export.warnings()[0].contains("stays a ConvTranspose"), "{:?}", export.warnings());
}

/// The opset of the file is kept, unless something that is written needs a later one.
#[test]
fn opsets_are_raised_only_where_it_takes_that() {
    let of = |nodes: Vec<Message>, opset: i64, form: Form| {
        let graph = Built {
            inputs: vec![value("x", &["1", "2", "3", "3"])],
            outputs: vec![untyped("y")],
            initializers: [weights(), vec![ints("axes", &[1], &[1])]].concat(),
            nodes,
        };
        let model = Model::from_bytes(&graph.model(opset)).unwrap();
        let again = agree(&format!("opset {opset}"), &model, &[("x", x())], form);
        again.graph().opsets[""]
    };
    let alone = |op: &str, attributes: &[Message]| vec![node(op, &["x"], &["y"], attributes)];
    assert_eq!(of(vec![up("x", "y")], 13, Form::SubPixel), 13);
    assert_eq!(of(vec![up("x", "y")], 13, Form::ZeroInsert), 13);
    assert_eq!(of(vec![up("x", "y")], 13, Form::Scatter), 18, "Col2Im");
    assert_eq!(of(vec![up("x", "y")], 17, Form::SubPixel), 17);
    assert_eq!(of(alone("ReduceMean", &[ints_attribute("axes", &[2, 3])]), 13, Form::Auto), 13);
    assert_eq!(of(alone("ReduceMax", &[]), 11, Form::Auto), 13, "the oldest that is written");
    assert_eq!(
        of(
            alone("MaxPool", &[ints_attribute("kernel_shape", &[2, 2]), int_attribute("ceil_mode", 1)]),
            13,
            Form::Auto
        ),
        13
    );
    assert_eq!(of(alone("HardSwish", &[]), 14, Form::Auto), 14);
    // What passes recognise is spelled out again where the opset does not have it.
    assert_eq!(of(hard_on("x"), 13, Form::Auto), 13);
    let behind = [vec![node("Conv", &["x", "w"], &["c"], &[])], hard_on("c")].concat();
    assert_eq!(of(behind, 13, Form::Auto), 13);
    assert_eq!(of(gelu(), 13, Form::Auto), 13);
    let mish = vec![
        node("Softplus", &["x"], &["s"], &[]),
        node("Tanh", &["s"], &["t"], &[]),
        node("Mul", &["x", "t"], &["y"], &[]),
    ];
    assert_eq!(of(mish, 13, Form::Auto), 13);
    assert_eq!(
        of(
            alone("Gelu", &[tconvc_testing::onnx_build::text_attribute("approximate", "tanh")]),
            20,
            Form::Auto
        ),
        20
    );
}

/// GELU by erf, as exporters spell it.
fn gelu() -> Vec<Message> {
    let number = |name: &str, value: f32| {
        node(
            "Constant",
            &[],
            &[name],
            &[tconvc_testing::onnx_build::tensor_attribute("value", &floats("", &[], &[value]))],
        )
    };
    vec![
        number("root", std::f32::consts::SQRT_2),
        number("unit", 1.0),
        number("half", 0.5),
        node("Div", &["x", "root"], &["d"], &[]),
        node("Erf", &["d"], &["e"], &[]),
        node("Add", &["e", "unit"], &["a"], &[]),
        node("Mul", &["x", "a"], &["m"], &[]),
        node("Mul", &["m", "half"], &["y"], &[]),
    ]
}

/// HardSwish as exporters spell it.
fn hard_on(input: &str) -> Vec<Message> {
    vec![
        node(
            "HardSigmoid",
            &[input],
            &["h"],
            &[float_attribute("alpha", 1.0 / 6.0), float_attribute("beta", 0.5)],
        ),
        node("Mul", &[input, "h"], &["y"], &[]),
    ]
}

#[test]
fn explanations_look_inside() {
    let graph = chosen(vec![choice([
        ("then_branch", branch(vec![up("x", "t")], "t")),
        ("else_branch", branch(vec![node("Relu", &["x"], &["e"], &[])], "e")),
    ])]);
    let explanation = compiler().explain(&Model::from_bytes(&graph.model(17)).unwrap()).unwrap();
    assert_eq!(explanation.layers.len(), 1, "{explanation}");
    assert!(explanation.layers[0].node.contains("/then_branch/"), "{explanation}");
    let model = Model::from_bytes(&looping(&[], true, 2).model(17)).unwrap();
    let explanation = compiler().explain(&model).unwrap();
    assert_eq!(explanation.layers.len(), 1, "{explanation}");
    assert!(explanation.to_string().contains("extents are not all known"), "{explanation}");
}

/// Names of graphs that lie side by side may be the same; new ones are never those of another graph.
#[test]
fn names_are_unique_where_they_have_to_be() {
    let same = || branch(vec![up("x", "inner")], "inner");
    let graph = chosen(vec![choice([("then_branch", same()), ("else_branch", same())])]);
    let model = Model::from_bytes(&graph.model(17)).unwrap();
    assert!(onnx::read_bytes(&onnx::write(model.graph()).unwrap()).unwrap() == *model.graph());
    both("the same names", &graph.model(17));
}
