//! Layers of many input channels and few output channels, which are computed in parts of the input channels.

use crate::support::compiler;
use tconvc::{DType, Form, Model, Tensor};
use tconvc_ir::Graph;

/// Rounding goes with the number of products, 256 channels of up to 16 taps; a part that is missing shows as ones.
const TOLERANCE: f64 = 2.5e-8 * 4096.0;

/// Activations that stay in registers and that do not, behind a residual or not; images and groups of their own.
#[test]
fn parts_add_up() {
    for (layer, weights, channels) in [
        ("ConvTranspose(%x, @w, @b) {strides=[2, 2], pads=[1, 1, 1, 1]}", [256, 1, 4, 4], [256, 1]),
        ("ConvTranspose(%x, @w, @b) {strides=[2, 2], pads=[1, 1, 1, 1], group=2}", [512, 1, 4, 4], [512, 2]),
        ("Conv(%x, @w, @b) {strides=[2, 2], pads=[2, 2, 2, 2]}", [2, 256, 5, 5], [256, 2]),
    ] {
        for after in ["Tanh(%a)", "LeakyRelu(%a)", "PRelu(%a, @slope)"] {
            let [cin, cout] = channels;
            let text = format!(
                "input %x : f32[2, {cin}, 24, 64]\nconst @w : f32{weights:?} = seeded(1)\nconst @b : f32[{cout}] = seeded(2)\n\
                 const @slope : f32[{cout}, 1, 1] = seeded(3)\n%a = {layer}\n%y = {after}\noutput %y\n"
            );
            let graph: Graph = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
            let model = Model::from_graph(graph);
            let x = Tensor::seeded(DType::F32, [2, cin, 24, 64], 4).unwrap();
            let expected = model.interpret([("x", x.view())]).unwrap()[0].to_f64s().unwrap();
            let mut first = None;
            for threads in [1, 2] {
                let compiler = compiler().form(Form::SubPixel).fast_math(false).threads(threads);
                let compiled = compiler.compile(&model).unwrap();
                let report = compiled.report();
                assert!(report.steps.len() > 1, "{layer} is one step:\n{report}");
                let y = compiled.run([("x", x.view())]).unwrap()[0].clone();
                let largest = expected.iter().fold(1f64, |largest, value| largest.max(value.abs()));
                for (got, expected) in y.to_f64s().unwrap().iter().zip(&expected) {
                    assert!(
                        (got - expected).abs() <= TOLERANCE * largest,
                        "{layer}, {after}: {got}, not {expected}"
                    );
                }
                assert!(
                    *first.get_or_insert_with(|| y.clone()) == y,
                    "{layer}: depends on the number of threads"
                );
            }
        }
    }
}
