//! What the ONNX exporter writes is read back as the same graph.

use crate::support::models;
use tconvc::{Compiler, Form, Model};
use tconvc_ir::{onnx, text};

/// The text of a graph that is written and read.
fn again(bytes: &[u8]) -> (String, Vec<u8>) {
    let graph = onnx::read_bytes(bytes).unwrap();
    (text::print(&graph), onnx::write(&graph).unwrap())
}

/// The trained models and the shapes for which they are rewritten.
const MODELS: [(&str, &str, [usize; 4]); 3] = [
    ("fsrcnn_x3", "low", [1, 1, 12, 10]),
    ("dcgan_digits", "z", [1, 34, 1, 1]),
    ("unet_segment", "image", [1, 1, 128, 128]),
];

fn read(name: &str) -> Model {
    Model::from_path(models().join(name).with_extension("onnx")).unwrap()
}

/// Graphs of ONNX's own operators keep their text, extents and all: as they were read, simplified, and rewritten by every
/// pass that writes no operators or attributes of this compiler.
#[test]
fn plain_graphs_read_back_the_same() {
    for (name, input, shape) in MODELS {
        let model = read(name);
        let bytes = onnx::write(model.graph()).unwrap();
        assert_eq!(again(&bytes).0, model.to_text(), "{name}");
        let compiler = Compiler::new().input_shape(input, shape);
        let simplified = compiler.clone().stop_after("dce");
        let plain = compiler.without_pass("epilogue").without_pass("forms");
        for compiler in [simplified, plain] {
            let rewritten = compiler.rewrite(&model).unwrap();
            assert_eq!(again(&onnx::write(rewritten.graph()).unwrap()).0, rewritten.to_text(), "{name}");
        }
    }
}

/// The forms are spelled in ONNX's operators; that spelling keeps its text when it is written and read once more.
#[test]
fn exported_forms_read_back_the_same() {
    for (name, input, shape) in MODELS {
        let model = read(name);
        for form in Form::ALL {
            let rewritten = Compiler::new().form(form).input_shape(input, shape).rewrite(&model).unwrap();
            let (first, bytes) = again(&onnx::write(rewritten.graph()).unwrap());
            let (second, bytes_again) = again(&bytes);
            assert_eq!(first, second, "{name}, {form}");
            assert!(bytes == bytes_again, "{name}, {form}: the files differ");
        }
    }
}
