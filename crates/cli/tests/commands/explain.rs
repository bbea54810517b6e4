//! What `explain` says of trained and of made-up layers.

use crate::support::{Folder, check};

/// A layer whose three forms are weighed; weights are seeded.
fn layer(input: &str, weights: &str, attributes: &str) -> String {
    format!(
        "input %x : f32[{input}]\nconst @w : f32[{weights}] = seeded(1)\n\
         %y = ConvTranspose(%x, @w) {{{attributes}}} \"up\"\noutput %y"
    )
}

#[test]
fn each_form_has_its_layers() {
    let folder = Folder::new();
    let layers = [
        ("wide", layer("1, 256, 16, 16", "256, 128, 4, 4", "strides=[2, 2], pads=[1, 1, 1, 1]")),
        ("pointwise", layer("1, 100, 1, 1", "100, 1024, 4, 4", "strides=[1, 1]")),
        ("stride_one", layer("1, 64, 64, 64", "64, 64, 3, 3", "strides=[1, 1], pads=[1, 1, 1, 1]")),
        ("sound", layer("1, 256, 800", "256, 128, 16", "strides=[8], pads=[4, 4]")),
        ("volume", layer("1, 16, 8, 8, 8", "16, 8, 2, 2, 2", "strides=[2, 2, 2]")),
        ("checkerboard", layer("1, 64, 16, 16", "64, 3, 3, 3", "strides=[2, 2], output_padding=[1, 1]")),
    ];
    for (name, text) in layers {
        let file = format!("{name}.onnx");
        folder.model(&file, &text);
        check(&format!("explain_{name}"), &folder.run(&["explain", &file, "--target", "x86-64-v3@zen3"]));
    }
}

#[test]
fn a_model_without_layers() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[1, 2]\n%y = Relu(%x)\noutput %y");
    check("explain_nothing", &folder.run(&["explain", "relu.onnx"]));
}

#[test]
fn trained_models() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    let base = ["explain", "fsrcnn_x3.onnx", "--target", "x86-64-v3@zen3"];
    check("explain_fsrcnn_open", &folder.run(&base));
    let shape = ["--shape", "low=1x1x96x96"];
    check("explain_fsrcnn", &folder.run(&[&base[..], &shape].concat()));
    check("explain_fsrcnn_json", &folder.run(&[&base[..], &shape, &["--json"]].concat()));
    check("explain_fsrcnn_forced", &folder.run(&[&base[..], &shape, &["--form", "scatter"]].concat()));
}
