//! Old spellings mean what they meant: nodes of older opsets, run by the reference interpreter after import.

use tconvc_ir::{Tensor, infer, interp, onnx};
use tconvc_testing::onnx_build::*;

/// A node of that opset with further inputs that are constants; `x` is the first input, `y` the first output.
struct Old {
    opset: i64,
    op_type: &'static str,
    attributes: Vec<Message>,
    constants: Vec<Message>,
    outputs: usize,
}

fn old(opset: i64, op_type: &'static str, attributes: &[Message], constants: &[Message]) -> Old {
    Old { opset, op_type, attributes: attributes.to_vec(), constants: constants.to_vec(), outputs: 1 }
}

impl Old {
    fn outputs(self, outputs: usize) -> Self {
        Self { outputs, ..self }
    }

    /// Imports and runs it; and once more after an export, which spells it anew.
    fn run(&self, x: &Tensor) -> Vec<Tensor> {
        let names = ["a", "b", "c", "d"];
        let inputs = [&["x"], &names[..self.constants.len()]].concat();
        let outputs = &["y", "z", "u", "v", "t"][..self.outputs];
        let extents: Vec<String> = x.shape().iter().map(ToString::to_string).collect();
        let extents: Vec<&str> = extents.iter().map(String::as_str).collect();
        let name = |(name, tensor): (&&str, &Message)| [tensor.clone(), field(8, name)].concat();
        let graph = Graph {
            inputs: vec![value("x", &extents)],
            outputs: outputs.iter().map(|name| [field(1, name)].concat()).collect(),
            initializers: names.iter().zip(&self.constants).map(name).collect(),
            nodes: vec![node(self.op_type, &inputs, outputs, &self.attributes)],
        };
        let fail =
            |error: tconvc_ir::Error| -> ! { panic!("{} of opset {}: {error}", self.op_type, self.opset) };
        let run = |bytes: &[u8]| {
            let mut graph = onnx::read_bytes(bytes).unwrap_or_else(|error| fail(error));
            assert!((13..=21).contains(&graph.opsets[""]), "{:?}", graph.opsets);
            infer::infer(&mut graph).unwrap_or_else(|error| fail(error));
            let outputs = interp::run(&graph, &[("x", x.clone())]).unwrap_or_else(|error| fail(error));
            let written = onnx::write(&graph).unwrap_or_else(|error| fail(error));
            (outputs.into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>(), written)
        };
        let (outputs, written) = run(&graph.model(self.opset));
        assert_eq!(run(&written).0, outputs, "{} of opset {}", self.op_type, self.opset);
        outputs
    }

    fn gives(&self, x: &Tensor, shape: &[usize], elements: &[f32]) {
        let expected = Tensor::from_vec(shape, elements.to_vec()).expect("shape and elements fit");
        assert_eq!(self.run(x)[0], expected, "{} of opset {}", self.op_type, self.opset);
    }
}

/// 1, 2, 3, ..
fn counting(shape: &[usize]) -> Tensor {
    let data = (1..=shape.iter().product::<usize>()).map(|i| i as f32).collect();
    Tensor::from_vec(shape, data).expect("as many as the shape asks for")
}

#[test]
fn axes_and_ranges_that_were_attributes() {
    let x = counting(&[2, 3]);
    old(9, "ReduceSum", &[ints_attribute("axes", &[1])], &[]).gives(&x, &[2, 1], &[6.0, 15.0]);
    old(12, "ReduceSum", &[], &[]).gives(&x, &[1, 1], &[21.0]);
    let means = [ints_attribute("axes", &[0]), int_attribute("keepdims", 0)];
    old(17, "ReduceMean", &means, &[]).gives(&x, &[3], &[2.5, 3.5, 4.5]);
    old(11, "Unsqueeze", &[ints_attribute("axes", &[0])], &[]).gives(
        &x,
        &[1, 2, 3],
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    );
    old(11, "Squeeze", &[ints_attribute("axes", &[0])], &[]).gives(
        &counting(&[1, 2, 1]),
        &[2, 1],
        &[1.0, 2.0],
    );
    let bounds = [ints_attribute("starts", &[0, 1]), ints_attribute("ends", &[1, 9])];
    old(9, "Slice", &bounds, &[]).gives(&x, &[1, 2], &[2.0, 3.0]);
    let axes = [ints_attribute("axes", &[1]), ints_attribute("starts", &[-1]), ints_attribute("ends", &[9])];
    old(1, "Slice", &axes, &[]).gives(&x, &[2, 1], &[3.0, 6.0]);
    let largest = old(9, "TopK", &[int_attribute("k", 2)], &[]).outputs(2).run(&x);
    assert_eq!(largest[0], Tensor::from_vec([2, 2], vec![3f32, 2.0, 6.0, 5.0]).unwrap());
    assert_eq!(largest[1], Tensor::from_vec([2, 2], vec![2i64, 1, 2, 1]).unwrap());
}

#[test]
fn splits() {
    let x = counting(&[4]);
    let part = |elements: &[f32]| Tensor::from_vec([elements.len()], elements.to_vec()).unwrap();
    let sizes = [ints_attribute("split", &[1, 3])];
    let parts = old(11, "Split", &sizes, &[]).outputs(2).run(&x);
    assert_eq!(parts, [part(&[1.0]), part(&[2.0, 3.0, 4.0])]);
    for opset in [2, 11, 13, 17] {
        let parts = old(opset, "Split", &[], &[]).outputs(2).run(&x);
        assert_eq!(parts, [part(&[1.0, 2.0]), part(&[3.0, 4.0])]);
    }
}

#[test]
fn values_that_were_attributes() {
    let x = counting(&[2]);
    let pads = [ints_attribute("pads", &[1, 0]), float_attribute("value", 7.0)];
    old(10, "Pad", &pads, &[]).gives(&x, &[3], &[7.0, 1.0, 2.0]);
    old(2, "Pad", &pads[..1], &[]).gives(&x, &[3], &[0.0, 1.0, 2.0]);
    old(6, "Clip", &[float_attribute("max", 1.5)], &[]).gives(&x, &[2], &[1.0, 1.5]);
    old(11, "Clip", &[], &[floats("", &[], &[1.25])]).gives(&x, &[2], &[1.25, 2.0]);
    old(7, "Dropout", &[float_attribute("ratio", 0.9)], &[]).gives(&x, &[2], &[1.0, 2.0]);
    old(6, "Dropout", &[int_attribute("is_test", 1)], &[]).gives(&x, &[2], &[1.0, 2.0]);
    let mask = old(10, "Dropout", &[], &[]).outputs(2).run(&x);
    assert_eq!(mask[1], Tensor::from_bools([2], [true, true]).unwrap());
}

#[test]
fn softmax_over_all_axes_behind() {
    let x = Tensor::from_vec([2, 2, 2], vec![0f32; 8]).unwrap();
    old(9, "Softmax", &[], &[]).gives(&x, &[2, 2, 2], &[0.25; 8]);
    old(9, "Softmax", &[int_attribute("axis", 0)], &[]).gives(&x, &[2, 2, 2], &[0.125; 8]);
    old(9, "Softmax", &[int_attribute("axis", 2)], &[]).gives(&x, &[2, 2, 2], &[0.5; 8]);
    old(9, "Softmax", &[int_attribute("axis", -1)], &[]).gives(&x, &[2, 2, 2], &[0.5; 8]);
    old(9, "Softmax", &[int_attribute("axis", -2)], &[]).gives(&x, &[2, 2, 2], &[0.25; 8]);
    old(13, "Softmax", &[], &[]).gives(&x, &[2, 2, 2], &[0.5; 8]);
    old(12, "Hardmax", &[], &[]).gives(&x, &[2, 2, 2], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn upsampling() {
    let x = counting(&[1, 1, 1, 2]);
    let twice = [1.0, 1.0, 2.0, 2.0];
    let nearest = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0];
    let linear = [1.0, 1.5, 2.0, 2.0, 1.0, 1.5, 2.0, 2.0];
    let scales = || floats("", &[4], &twice);
    old(7, "Upsample", &[floats_attribute("scales", &twice)], &[]).gives(&x, &[1, 1, 2, 4], &nearest);
    old(9, "Upsample", &[], &[scales()]).gives(&x, &[1, 1, 2, 4], &nearest);
    old(10, "Resize", &[], &[scales()]).gives(&x, &[1, 1, 2, 4], &nearest);
    let mode = [text_attribute("mode", "linear")];
    old(9, "Upsample", &mode, &[scales()]).gives(&x, &[1, 1, 2, 4], &linear);
    old(10, "Resize", &mode, &[scales()]).gives(&x, &[1, 1, 2, 4], &linear);
    // Absent inputs, given as empty tensors.
    let given = [floats("", &[0], &[]), floats("", &[0], &[]), ints("", &[4], &[1, 1, 2, 4])];
    let mode = [
        text_attribute("coordinate_transformation_mode", "asymmetric"),
        text_attribute("nearest_mode", "floor"),
    ];
    old(11, "Resize", &mode, &given).gives(&x, &[1, 1, 2, 4], &nearest);
}

#[test]
fn normalisations() {
    let x = counting(&[1, 2, 2]);
    let of = |value: f32| floats("", &[2], &[value, value]);
    let statistics = [of(2.0), of(1.0), of(1.0), of(1.0)];
    let exact = float_attribute("epsilon", 0.0);
    let training = [exact.clone(), int_attribute("is_test", 1), int_attribute("spatial", 1)];
    let expected = [1.0, 3.0, 5.0, 7.0];
    old(6, "BatchNormalization", &training, &statistics).gives(&x, &[1, 2, 2], &expected);
    old(9, "BatchNormalization", std::slice::from_ref(&exact), &statistics).gives(&x, &[1, 2, 2], &expected);

    // Groups of one channel with values 1 and 3, then 2 and 6: both become -1 and 1, times the scale, plus the bias.
    let x = Tensor::from_vec([1, 4, 1], vec![1f32, 3.0, 2.0, 6.0]).unwrap();
    let groups = [int_attribute("num_groups", 2), exact];
    let scale = [floats("", &[2], &[1.0, 10.0]), floats("", &[2], &[0.0, 100.0])];
    old(18, "GroupNormalization", &groups, &scale).gives(&x, &[1, 4, 1], &[-1.0, 1.0, 90.0, 110.0]);
}

#[test]
fn broadcasting_by_axis() {
    let x = counting(&[2, 2, 1]);
    let axis = |axis: i64| [int_attribute("broadcast", 1), int_attribute("axis", axis)];
    let pair = [floats("", &[2], &[10.0, 20.0])];
    old(6, "Add", &axis(0), &pair).gives(&x, &[2, 2, 1], &[11.0, 12.0, 23.0, 24.0]);
    old(6, "Add", &axis(1), &pair).gives(&x, &[2, 2, 1], &[11.0, 22.0, 13.0, 24.0]);
    old(6, "Mul", &axis(-3), &pair).gives(&x, &[2, 2, 1], &[10.0, 20.0, 60.0, 80.0]);
    old(7, "Add", &[], &[floats("", &[1], &[1.0])]).gives(&x, &[2, 2, 1], &[2.0, 3.0, 4.0, 5.0]);
    let x = Tensor::from_vec([1, 2, 2], vec![-1f32, 1.0, -2.0, 2.0]).unwrap();
    old(6, "PRelu", &[], &[floats("", &[2], &[0.5, 0.25])]).gives(&x, &[1, 2, 2], &[-0.5, 1.0, -0.5, 2.0]);
    old(6, "PRelu", &[], &[floats("", &[1], &[0.5])]).gives(&x, &[1, 2, 2], &[-0.5, 1.0, -1.0, 2.0]);
    let columns = counting(&[2, 2]);
    let gemm = [floats("", &[2, 2], &[1.0, 0.0, 0.0, 1.0]), floats("", &[2], &[1.0, 2.0])];
    old(6, "Gemm", &[int_attribute("broadcast", 1)], &gemm).gives(&columns, &[2, 2], &[2.0, 4.0, 4.0, 6.0]);
}

#[test]
fn renamed_and_reworded() {
    let x = counting(&[3]);
    let scatter = [ints("", &[1], &[1]), floats("", &[1], &[9.0])];
    old(9, "Scatter", &[], &scatter).gives(&x, &[3], &[1.0, 9.0, 3.0]);
    let tanh = old(20, "Gelu", &[text_attribute("approximate", "tanh")], &[]).run(&x);
    assert!((tanh[0].to_f64s().unwrap()[0] - 0.841_192).abs() < 1e-6);
    old(3, "Concat", &[], &[floats("", &[1, 1], &[5.0])]).gives(&counting(&[1, 1]), &[1, 2], &[1.0, 5.0]);
}

#[test]
fn what_cannot_be_lifted_is_refused() {
    let model = |opset: i64, node: Message| {
        Graph {
            inputs: vec![value("x", &["1", "2"])],
            outputs: vec![value("y", &[])],
            initializers: vec![],
            nodes: vec![node],
        }
        .model(opset)
    };
    let refused = |opset: i64, node: Message, with: &str| {
        let error = onnx::read_bytes(&model(opset, node)).map(|_| ()).expect_err(with).to_string();
        assert!(error.contains(with), "expected `{with}` in: {error}");
    };
    let spatial = [int_attribute("spatial", 0)];
    refused(7, node("BatchNormalization", &["x"; 5], &["y"], &spatial), "statistics an element");
    refused(4, node("Reshape", &["x"], &["y"], &[ints_attribute("shape", &[2])]), "attribute `shape`");
    refused(5, node("Cast", &["x"], &["y"], &[text_attribute("to", "FLOAT")]), "expected an element type");
    refused(5, node("Tile", &["x", "x", "x"], &["y"], &[]), "accepted is opset 6 and later");
    refused(8, node("Scan", &["x"], &["y"], &[]), "accepted is opset 9 and later");
    refused(8, node("Add", &["x", "x"], &["y"], &[int_attribute("axis", 0)]), "attribute `axis`");
    refused(20, node("Gelu", &["x"], &["y"], &[text_attribute("approximate", "no")]), "none, tanh");
}

/// `If` whose branches hold a node as its opset spells it.
fn branching(inner: Message, outer: Message) -> Graph {
    let branch =
        Graph { outputs: vec![value("inner", &[])], nodes: vec![inner], ..Graph::default() }.encode();
    let branches = [graph_attribute("then_branch", &branch), graph_attribute("else_branch", &branch)];
    Graph {
        inputs: vec![value("x", &["1", "2"])],
        outputs: vec![value("y", &[])],
        initializers: vec![ints("axes", &[1], &[1])],
        nodes: vec![
            node("Cast", &["axes"], &["c"], &[int_attribute("to", 9)]),
            node("If", &["c"], &["z"], &branches),
            outer,
        ],
    }
}

#[test]
fn the_opset_of_subgraphs_is_kept_where_it_matters() {
    let means = node("ReduceMean", &["x"], &["inner"], &[ints_attribute("axes", &[1])]);
    let relu = node("Relu", &["x"], &["inner"], &[]);
    let outer = node("Relu", &["z"], &["y"], &[]);
    let opset = |graph: &tconvc_ir::Graph| graph.opsets[""];
    let write = |graph: &tconvc_ir::Graph| onnx::read_bytes(&onnx::write(graph).unwrap()).unwrap();
    // Nothing needs a later one.
    for inner in [relu, means.clone()] {
        let graph = onnx::read_bytes(&branching(inner, outer.clone()).model(13)).unwrap();
        assert_eq!(opset(&graph), 13);
        assert!(write(&graph) == graph);
    }
    // What is older than all that is written, and what a node inside or outside needs.
    let graph = onnx::read_bytes(&branching(means.clone(), outer.clone()).model(9)).unwrap();
    assert_eq!(opset(&graph), 13);
    let newer = node("Mish", &["x"], &["inner"], &[]);
    let graph = onnx::read_bytes(&branching(newer, outer.clone()).model(18)).unwrap();
    assert_eq!(opset(&write(&graph)), 18);
    let outer = node("ReduceMax", &["z"], &["y"], &[ints_attribute("axes", &[1])]);
    let graph = onnx::read_bytes(&branching(means, outer).model(13)).unwrap();
    assert_eq!(opset(&write(&graph)), 13, "constant axes are an attribute again");
}

/// Of opset 7 to 13, outputs beyond the first say that the batch's own statistics count, whether they are read or not.
#[test]
fn batch_normalization_with_more_outputs_is_training() {
    let x = Tensor::from_vec([2, 2, 1], vec![1f32, 10.0, 3.0, 14.0]).unwrap();
    let statistics = [
        floats("", &[2], &[1.0, 2.0]),
        floats("", &[2], &[0.0, 1.0]),
        floats("", &[2], &[4.0, 0.0]),
        floats("", &[2], &[8.0, 4.0]),
    ];
    let attributes = [float_attribute("epsilon", 0.0), float_attribute("momentum", 0.75)];
    let close = |got: &Tensor, expected: &[f64]| {
        let got = got.to_f64s().unwrap();
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} is not {expected:?}");
    };
    for opset in [7, 8, 9, 13] {
        let old =
            |outputs| old(opset, "BatchNormalization", &attributes, &statistics).outputs(outputs).run(&x);
        let all = old(5);
        close(&all[0], &[-1.0, -1.0, 1.0, 3.0]);
        close(&all[1], &[3.5, 3.0]);
        close(&all[2], &[6.25, 4.0]);
        close(&all[3], &[2.0, 12.0]);
        close(&all[4], &[1.0, 4.0]);
        for outputs in 2..5 {
            assert_eq!(old(outputs)[..], all[..outputs], "opset {opset}, {outputs} outputs");
        }
        // One output is inference.
        close(&old(1)[0], &[-3.0 / 8f64.sqrt(), 11.0, -1.0 / 8f64.sqrt(), 15.0]);
    }
}

/// The same where nothing reads them, in a model that goes on behind the first.
#[test]
fn unread_outputs_say_training_as_well() {
    let graph = |outputs: &[&str]| Graph {
        inputs: vec![value("x", &["2", "1", "2"])],
        outputs: vec![untyped("y")],
        initializers: ["s", "b", "m", "v"].map(|name| floats(name, &[1], &[1.0])).to_vec(),
        nodes: vec![
            node(
                "BatchNormalization",
                &["x", "s", "b", "m", "v"],
                outputs,
                &[float_attribute("epsilon", 0.0)],
            ),
            node("Relu", &["t"], &["y"], &[]),
        ],
    };
    let run = |outputs: &[&str]| {
        let graph = onnx::read_bytes(&graph(outputs).model(9)).unwrap();
        let x = Tensor::from_vec([2, 1, 2], vec![3f32, 5.0, 3.0, 5.0]).unwrap();
        interp::run(&graph, &[("x", x)]).unwrap()[0].1.to_f64s().unwrap()
    };
    assert_eq!(run(&["t"]), [3.0, 5.0, 3.0, 5.0]);
    assert_eq!(run(&["t", "", "", "", ""]), [3.0, 5.0, 3.0, 5.0], "absent outputs are none");
    for outputs in
        [&["t", "m1", "v1", "m2", "v2"][..], &["t", "m1", "v1"], &["t", "m1"], &["t", "", "", "m2"]]
    {
        assert_eq!(run(outputs), [0.0, 2.0, 0.0, 2.0], "{outputs:?}");
    }
}
