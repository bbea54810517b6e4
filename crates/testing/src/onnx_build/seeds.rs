//! The models that are damaged: something of everything that a file may hold.

use super::{
    F32, Graph, I64, Message, external, field, float_attribute, floats, floats_attribute, graph_attribute,
    int_attribute, ints, ints_attribute, model, node, tensor_attribute, tensor_head, text_attribute, untyped,
    value,
};

/// Models that hold something of everything.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let x = || value("x", &["1", "2", "3", "4"]);
    let one = |nodes: Vec<Message>, initializers: Vec<Message>| Graph {
        inputs: vec![x()],
        outputs: vec![untyped("y")],
        initializers,
        nodes,
    };
    let conv = |op: &str, attributes: &[Message]| {
        one(
            vec![node(op, &["x", "w", "b"], &["y"], attributes)],
            vec![floats("w", &[2, 2, 3, 3], &[0.5; 36]), floats("b", &[2], &[0.0; 2])],
        )
    };
    let strides = ints_attribute("strides", &[2, 2]);
    let shaped = one(
        vec![
            node("Shape", &["x"], &["s"], &[]),
            node("Slice", &["s", "from", "to"], &["t"], &[]),
            node("Concat", &["t", "rest"], &["u"], &[int_attribute("axis", 0)]),
            node("Reshape", &["x", "u"], &["v"], &[]),
            node("Expand", &["v", "big"], &["y"], &[]),
        ],
        vec![
            ints("from", &[1], &[0]),
            ints("to", &[1], &[2]),
            ints("rest", &[1], &[-1]),
            ints("big", &[4], &[3, 1, 2, 12]),
        ],
    );
    let moved = one(
        vec![
            node("Pad", &["x", "pads"], &["a"], &[text_attribute("mode", "reflect")]),
            node("Resize", &["a", "", "scales"], &["b"], &[text_attribute("mode", "linear")]),
            node("Transpose", &["b"], &["c"], &[ints_attribute("perm", &[0, 2, 3, 1])]),
            node("MaxPool", &["b"], &["d"], &[ints_attribute("kernel_shape", &[2, 2]), strides.clone()]),
            node("Split", &["c"], &["e", "f"], &[int_attribute("axis", 3), int_attribute("num_outputs", 2)]),
            node("Softmax", &["e"], &["y"], &[int_attribute("axis", 1)]),
            node("ReduceMean", &["f", "axes"], &["g"], &[]),
            node("Gather", &["g", "axes"], &["h"], &[]),
            node("TopK", &["h", "axes"], &["i", "j"], &[]),
            node("Unsqueeze", &["i", "axes"], &["k"], &[]),
        ],
        vec![
            ints("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]),
            floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]),
            ints("axes", &[1], &[1]),
        ],
    );
    let deconv: &[Message] = &[
        strides.clone(),
        ints_attribute("pads", &[1, 1, 1, 1]),
        ints_attribute("output_padding", &[1, 1]),
        ints_attribute("dilations", &[1, 2]),
        int_attribute("group", 1),
    ];
    let same: &[Message] = &[
        strides,
        text_attribute("auto_pad", "SAME_UPPER"),
        ints_attribute("output_shape", &[9, 8]),
        ints_attribute("kernel_shape", &[3, 3]),
    ];
    let branch = |op: &str| Graph {
        outputs: vec![untyped("inner")],
        nodes: vec![node(op, &["x"], &["inner"], &[])],
        ..Graph::default()
    };
    let branches = [
        graph_attribute("then_branch", &branch("Relu").encode()),
        graph_attribute("else_branch", &branch("Neg").encode()),
    ];
    let branching = one(vec![node("If", &["c"], &["y"], &branches)], vec![ints("c", &[], &[1])]);
    let function = [
        field(1, "F"),
        field(4, "in"),
        field(5, "out"),
        field(7, node("LeakyRelu", &["in"], &["out"], &[float_attribute("alpha", 0.1)])),
        field(10, "custom"),
    ]
    .concat();
    let calling = one(vec![[node("F", &["x"], &["y"], &[]), field(7, "custom")].concat()], vec![]);
    let old = one(
        vec![
            node("Upsample", &["x"], &["a"], &[floats_attribute("scales", &[1.0, 1.0, 2.0, 2.0])]),
            node("Softmax", &["a"], &["b"], &[]),
            node("ReduceSum", &["b"], &["c"], &[ints_attribute("axes", &[1]), int_attribute("keepdims", 0)]),
            node("Unsqueeze", &["c"], &["d"], &[ints_attribute("axes", &[0, 2])]),
            node("Clip", &["d"], &["e"], &[float_attribute("max", 6.0)]),
            node("Slice", &["e"], &["y"], &[ints_attribute("starts", &[0]), ints_attribute("ends", &[-1])]),
        ],
        vec![],
    );
    let typed = one(
        vec![node("Constant", &[], &["k"], &[tensor_attribute("value", &ints("", &[2], &[3, 4]))])],
        vec![
            [tensor_head("y", F32, &[2]), field(4, [0u8; 8])].concat(),
            [tensor_head("z", I64, &[3]), field(7, [1u8, 2, 3])].concat(),
            [tensor_head("s", 8, &[2]), field(6, "ab"), field(6, "")].concat(),
        ],
    );
    let foreign = |op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]| {
        [node(op, inputs, outputs, attributes), field(7, "com.microsoft")].concat()
    };
    let lowered = one(
        vec![
            foreign("FusedConv", &["x", "w", "b"], &["a"], &[text_attribute("activation", "Relu")]),
            foreign("FusedMatMul", &["a", "a"], &["c"], &[int_attribute("transA", 1)]),
            foreign("QuickGelu", &["c"], &["y"], &[]),
        ],
        vec![floats("w", &[2, 2, 1, 1], &[0.5; 4]), floats("b", &[2], &[0.0; 2])],
    );
    let item = Graph {
        inputs: vec![untyped("item")],
        outputs: vec![untyped("mapped")],
        nodes: vec![node("Relu", &["item"], &["mapped"], &[])],
        ..Graph::default()
    };
    let listed = one(
        vec![
            node("SplitToSequence", &["x"], &["s"], &[int_attribute("axis", 2)]),
            node("SequenceMap", &["s"], &["m"], &[graph_attribute("body", &item.encode())]),
            node("SequenceAt", &["m", "i"], &["p"], &[]),
            node("SequenceInsert", &["m", "p", "i"], &["t"], &[]),
            node("Optional", &["t"], &["o"], &[]),
            node("OptionalGetElement", &["o"], &["u"], &[]),
            node(
                "ConcatFromSequence",
                &["u"],
                &["y"],
                &[int_attribute("axis", 1), int_attribute("new_axis", 1)],
            ),
        ],
        vec![ints("i", &[], &[1])],
    );
    let round = Graph {
        inputs: vec![untyped("state"), untyped("slice")],
        outputs: vec![untyped("sum"), untyped("row")],
        nodes: vec![node("Add", &["state", "slice"], &["sum"], &[]), node("Neg", &["sum"], &["row"], &[])],
        ..Graph::default()
    };
    let scanning = one(
        vec![node(
            "Scan",
            &["b", "x"],
            &["e", "y"],
            &[
                graph_attribute("body", &round.encode()),
                int_attribute("num_scan_inputs", 1),
                ints_attribute("scan_input_axes", &[-1]),
                ints_attribute("scan_output_directions", &[1]),
            ],
        )],
        vec![floats("b", &[], &[1.0])],
    );
    let signal = one(
        vec![
            node("DFT", &["x", "", "axis"], &["f"], &[]),
            node("Reshape", &["f", "shape"], &["g"], &[]),
            node("STFT", &["g", "step"], &["h"], &[int_attribute("onesided", 0)]),
            node("Attention", &["x", "x", "x"], &["k"], &[int_attribute("is_causal", 1)]),
            node("Cast", &["h"], &["y"], &[int_attribute("to", 17)]),
        ],
        vec![ints("axis", &[], &[2]), ints("shape", &[3], &[1, -1, 2]), ints("step", &[], &[3])],
    );
    let mut symbolic = conv("ConvTranspose", deconv);
    symbolic.inputs = vec![value("x", &["N", "2", "H", "2"])];
    vec![
        conv("ConvTranspose", deconv).model(17),
        conv("ConvTranspose", same).model(11),
        conv("Conv", &[text_attribute("auto_pad", "SAME_LOWER")]).model(21),
        shaped.model(18),
        moved.model(18),
        branching.model(19),
        model(8, 17, &calling.encode(), &[function]),
        old.model(9),
        typed.model(13),
        with_external("data.bin", "0").model(17),
        symbolic.model(17),
        lowered.model(17),
        listed.model(17),
        scanning.model(17),
        signal.model(24),
    ]
}

/// A model with a tensor of three floats in another file.
pub fn with_external(location: &str, offset: &str) -> Graph {
    Graph {
        outputs: vec![value("w", &["3"])],
        initializers: vec![external(
            "w",
            &[3],
            &[("location", location), ("offset", offset), ("length", "12")],
        )],
        ..Graph::default()
    }
}
