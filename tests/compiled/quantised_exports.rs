//! Exported forms of transposed convolutions whose weights are quantised: rearranged as they lie, DequantizeLinear behind them.

use crate::support::compiler;
use tconvc::{DType, Form, Model, Tensor};
use tconvc_ir::{Graph, Op, onnx};

/// A transposed convolution of 4 channels to 3 in each group, its weights by these lines and behind these attributes.
fn network(weights: &str, kind: &str, axis: &str, group: usize, kernel: usize) -> Model {
    let text = format!(
        "input %x : f32[1, 4, 3, 5]\nconst @q : {kind}[4, 3, {kernel}, {kernel}] = seeded(3)\n{weights}\
         const @bq : i32[{outputs}] = seeded(5)\nconst @bs : f32[] = 0.5\n\
         %w = DequantizeLinear(@q, @s{zero}){axis}\n%b = DequantizeLinear(@bq, @bs)\n\
         %y = ConvTranspose(%x, %w, %b) {{group={group}, pads=[1, 0, 1, 0], strides=[2, 3]}}\noutput %y",
        outputs = 3 * group,
        zero = if weights.contains("@z") { ", @z" } else { "" },
    );
    let mut graph: Graph = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    tconvc_ir::infer::infer(&mut graph).unwrap();
    Model::from_bytes(&onnx::write(&graph).unwrap()).unwrap()
}

/// What the product of an exported graph reads as weights, and the elements of all float constants.
fn weights_of(graph: &Graph) -> (DType, usize) {
    let product = graph.nodes().find(|node| matches!(node.op, Op::Conv(_) | Op::MatMul(_))).unwrap();
    let makers = product.inputs().iter().flatten().filter_map(|&id| graph.producer(id));
    let makers: Vec<_> =
        makers.map(|id| graph.node(id)).filter(|node| matches!(node.op, Op::DequantizeLinear(_))).collect();
    let quantised = makers[0].input(0).and_then(|id| graph.constant(id)).unwrap();
    let floats = graph.values().filter_map(|(id, _)| graph.constant(id));
    let floats = floats.filter(|tensor| tensor.dtype() == DType::F32).map(Tensor::len).max().unwrap_or(0);
    (quantised.dtype(), floats)
}

#[test]
fn quantised_weights_stay_quantised_under_every_form() {
    let one = "const @s : f32[] = 0.25\n";
    let zeroed = "const @s : f32[] = 0.25\nconst @z : u8[] = 7\n";
    let outputs = "const @s : f32[3] = [0.5, 0.25, 2.0]\nconst @z : i8[3] = [1, -2, 3]\n";
    let inputs = "const @s : f32[4] = [0.5, 0.25, 2.0, 1.0]\nconst @z : i8[4] = [1, -2, 3, 0]\n";
    for (weights, kind, axis, group) in [
        (one, "i8", "", 1),
        (one, "i8", "", 2),
        (zeroed, "u8", "", 1),
        (zeroed, "u8", "", 2),
        (outputs, "i8", " {axis=1}", 1),
        (outputs, "i8", " {axis=-3}", 1),
        (outputs, "i8", " {axis=1}", 2),
        (inputs, "i8", " {axis=0}", 1),
        // A scale for each input of a group: elements of several come together, and numbers are computed at run time.
        (inputs, "i8", " {axis=0}", 2),
    ] {
        // Kernels smaller and larger than the strides: phases without taps, and with several.
        for kernel in [1, 3, 5] {
            let model = network(weights, kind, axis, group, kernel);
            let x = Tensor::seeded(DType::F32, [1, 4, 3, 5], 1).unwrap();
            let expected = model.interpret([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
            let scale = expected.iter().fold(0f64, |scale, y| scale.max(y.abs()));
            for form in [Form::Auto, Form::Scatter, Form::ZeroInsert, Form::SubPixel] {
                let what = format!("{weights}{kind}{axis}, {group} groups, {kernel} taps, {form}");
                let export = compiler().form(form).export(&model).unwrap();
                let again = Model::from_bytes(export.bytes()).unwrap();
                let got = again.interpret([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
                assert_eq!(got.len(), expected.len(), "{what}");
                for (got, expected) in got.iter().zip(&expected) {
                    assert!((got - expected).abs() <= 1e-5 * scale, "{what}: {got} is not {expected}");
                }
                if weights != inputs || group == 1 {
                    let (dtype, floats) = weights_of(again.graph());
                    assert_eq!(dtype.to_string(), kind, "{what}");
                    assert!(floats <= (3 * kernel * kernel).max(36), "{what}: a float constant of {floats}");
                }
            }
        }
    }
}
