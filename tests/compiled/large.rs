//! A model of many megabytes, for whose weights memory is taken while it is read: the first compilation has it, others not.

use crate::support::{FORMS, compiler};
use tconvc::{DType, Model, Tensor, Tolerance, compare};
use tconvc_testing::onnx_build::{Graph, floats, ints_attribute, node, untyped, value};

/// Two layers of 4 MiB of weights, the second with channels that fill no vector.
fn bytes() -> Vec<u8> {
    let weights = |name: &str, dims: [usize; 4], seed: u64| {
        let values = Tensor::seeded(DType::F32, dims, seed).unwrap();
        floats(name, &dims.map(|extent| extent as i64), &values.elements().unwrap())
    };
    let attributes = [ints_attribute("strides", &[2, 2]), ints_attribute("pads", &[1, 1, 1, 1])];
    let graph = Graph {
        inputs: vec![value("x", &["1", "512", "2", "3"])],
        outputs: vec![untyped("y")],
        initializers: vec![weights("first", [512, 131, 4, 4], 1), weights("second", [131, 501, 4, 4], 2)],
        nodes: vec![
            node("ConvTranspose", &["x", "first"], &["h"], &attributes),
            node("ConvTranspose", &["h", "second"], &["y"], &attributes),
        ],
    };
    graph.model(17)
}

#[test]
fn every_compilation_of_a_large_model_gives_the_same() {
    let bytes = bytes();
    let file = std::env::temp_dir().join(format!("tconvc-large-{}.onnx", std::process::id()));
    std::fs::write(&file, &bytes).unwrap();
    let models = [Model::from_bytes(&bytes).unwrap(), Model::from_path(&file).unwrap()];
    std::fs::remove_file(&file).unwrap();
    let x = Tensor::seeded(DType::F32, [1, 512, 2, 3], 3).unwrap();
    let expected = models[0].interpret([("x", x.view())]).unwrap();
    for form in FORMS {
        let run =
            |model: &Model| compiler().form(form).compile(model).unwrap().run([("x", x.view())]).unwrap();
        let first = run(&models[0]);
        compare(&first[0], &expected[0], Tolerance::NETWORK).unwrap();
        for model in [&models[0], &models[1], &models[1], &models[1].clone()] {
            assert!(run(model) == first, "{form}");
        }
    }
}
