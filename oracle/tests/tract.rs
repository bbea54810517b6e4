//! Transposed convolutions and trained networks: tract's results against ours, under every form.

use std::path::Path;
use tconvc::{Compiler, DType, Form, Model, Tensor};
use tconvc_ir::{Graph, infer};
use tract_onnx::prelude::Tensor as TractTensor;
use tract_onnx::prelude::*;

/// Share of the largest magnitude by which results may differ.
const TOLERANCE: f32 = 1e-4;

const FORMS: [Form; 4] = [Form::Auto, Form::SubPixel, Form::ZeroInsert, Form::Scatter];

/// What tract computes of a model with one input and one output: shape and numbers.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn tract(model: &[u8], input: &Tensor) -> (Vec<usize>, Vec<f32>) {
    let numbers = input.elements::<f32>().unwrap();
    let tensor = TractTensor::from_shape(input.shape(), &numbers).unwrap();
    let model = onnx().model_for_read(&mut &*model).unwrap();
    let fact = InferenceFact::dt_shape(f32::datum_type(), input.shape().iter().copied());
    let model = model.with_input_fact(0, fact).unwrap();
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let outputs = plan.run(tvec!(tensor.into_tvalue())).unwrap();
    let view = outputs[0].to_plain_array_view::<f32>().unwrap();
    (view.shape().to_vec(), view.iter().copied().collect())
}

/// Runs ours under each form and compares.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn check(what: &str, model: &Model, name: &str, input: &Tensor, expected: &(Vec<usize>, Vec<f32>)) {
    let largest = expected.1.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for form in FORMS {
        let compiler = Compiler::new().form(form).input_shape(name, input.shape());
        let outputs = compiler.compile(model).unwrap().run([(name, input.view())]).unwrap();
        assert_eq!(outputs[0].shape(), expected.0, "{what}, {form}");
        let got = outputs[0].elements::<f32>().unwrap();
        for (at, (got, expected)) in got.iter().zip(&expected.1).enumerate() {
            let near = (got - expected).abs() <= TOLERANCE * largest;
            assert!(near, "{what}, {form}: element {at} is {got}, tract says {expected}");
        }
    }
}

/// One axis: input, kernel, stride, dilation.
type Axis = [usize; 4];

/// A layer in the text form, with seeded weights and bias.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn layer(axes: &[Axis], channels: [usize; 2], group: usize, attributes: &str) -> Graph {
    let list = |which: usize| axes.iter().map(|axis| axis[which].to_string()).collect::<Vec<_>>().join(", ");
    let [cin, cout] = channels;
    let text = format!(
        "input %x : f32[2, {}, {}]\n\
         const @w : f32[{}, {cout}, {}] = seeded(1)\nconst @b : f32[{}] = seeded(2)\n\
         %y = ConvTranspose(%x, @w, @b) {{group={group}, strides=[{}], dilations=[{}]{attributes}}} \"up\"\n\
         output %y",
        cin * group,
        list(0),
        cin * group,
        list(1),
        cout * group,
        list(2),
        list(3)
    );
    let mut graph: Graph = text.parse().unwrap();
    infer::infer(&mut graph).unwrap();
    graph
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn check_layer(graph: Graph, spelled_out: &Graph) {
    let shape = graph.ty(graph.inputs()[0]).known_shape().unwrap();
    let x = Tensor::seeded(DType::F32, shape, 3).unwrap();
    let expected = tract(&tconvc_ir::onnx::write(spelled_out).unwrap(), &x);
    let what = tconvc_ir::text::print(&graph);
    check(&what, &Model::from_graph(graph), "x", &x, &expected);
}

#[test]
fn explicit_pads() {
    let mut number = 0usize;
    for kernel in 1..=5 {
        for stride in 1..=4 {
            for dilation in 1..=2 {
                for output_padding in 0..stride {
                    number += 1;
                    let reach = (kernel - 1) * dilation;
                    let pads = [number % (reach + 1).min(3), (number / 3) % (reach + 1).min(3)];
                    let axes: &[Axis] = &[[5, kernel, stride, dilation], [4, 3, 2, 1]];
                    let (axes, own) = if number.is_multiple_of(2) { (&axes[..1], 1) } else { (axes, 2) };
                    let extended =
                        |first: usize| [first, 1][..own].iter().map(ToString::to_string).collect::<Vec<_>>();
                    let pads = [extended(pads[0]), extended(pads[1])].concat().join(", ");
                    let padding =
                        [output_padding, 0][..own].iter().map(ToString::to_string).collect::<Vec<_>>();
                    let attributes = format!(", pads=[{pads}], output_padding=[{}]", padding.join(", "));
                    let graph = layer(axes, [3, 2], 1 + number % 3, &attributes);
                    check_layer(graph.clone(), &graph);
                }
            }
        }
    }
}

/// Ours reads `auto_pad`; tract is handed the pads that the specification's formula gives.
#[test]
fn automatic_pads() {
    for kernel in 2..=5 {
        for stride in 1..=kernel {
            for upper in [true, false] {
                let axes: &[Axis] = &[[6, kernel, stride, 1]];
                let auto_pad = if upper { "SAME_UPPER" } else { "SAME_LOWER" };
                let graph = layer(axes, [3, 2], 1, &format!(", auto_pad=\"{auto_pad}\""));
                // The output has input * stride elements: kernel - stride of the full output are cropped.
                let total = kernel - stride;
                let (less, more) = (total / 2, total - total / 2);
                let [begin, end] = if upper { [less, more] } else { [more, less] };
                let spelled_out = layer(axes, [3, 2], 1, &format!(", pads=[{begin}, {end}]"));
                check_layer(graph, &spelled_out);
            }
        }
    }
}

#[test]
fn super_resolution() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fsrcnn_x3.onnx");
    let x = Tensor::seeded(DType::F32, [1, 1, 18, 23], 5).unwrap();
    let expected = tract(&std::fs::read(&path).unwrap(), &x);
    check("fsrcnn_x3", &Model::from_path(&path).unwrap(), "low", &x, &expected);
}
