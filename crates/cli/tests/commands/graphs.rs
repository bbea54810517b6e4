//! Rewritten graphs of the trained models, under each form.

use crate::support::{Folder, check};
use ndarray_npy::NpzReader;
use std::fs::File;

#[test]
fn rewritten_graphs_of_trained_models() {
    let shapes = [
        ("fsrcnn_x3", "low=1x1x96x96"),
        ("dcgan_digits", "z=1x34x1x1"),
        ("unet_segment", "image=1x1x128x128"),
    ];
    for (model, shape) in shapes {
        let folder = Folder::new();
        let file = format!("{model}.onnx");
        folder.trained(&file);
        check(&format!("graph_{model}"), &folder.run(&["inspect", &file]));
        for form in ["auto", "scatter", "zero-insert", "sub-pixel"] {
            let arguments = [
                "compile",
                &file,
                "--emit",
                "ir",
                "--shape",
                shape,
                "--form",
                form,
                "--target",
                "x86-64-v3@zen3",
            ];
            check(&format!("graph_{model}_{form}"), &folder.run(&arguments));
        }
    }
}

/// What `--emit onnx` writes is read again, computes the same, and needs no ConvTranspose.
#[test]
fn exported_models_run() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    let shape = ["--shape", "low=1x1x6x7"];
    let output = |model: &str| {
        let text = folder.run(&[&["run", model, "--output", "out.npz"][..], &shape].concat());
        assert!(text.ends_with("exit status 0\n"), "{text}");
        let mut npz = NpzReader::new(File::open(folder.path("out.npz")).unwrap()).unwrap();
        let high: ndarray::ArrayD<f32> = npz.by_name("high").unwrap();
        high
    };
    let expected = output("fsrcnn_x3.onnx");
    for form in ["scatter", "zero-insert", "sub-pixel"] {
        let arguments = ["compile", "fsrcnn_x3.onnx", "--emit", "onnx", "-o", "form.onnx", "--form", form];
        let wrote = folder.run(&[&arguments[..], &shape].concat());
        assert!(wrote.ends_with("exit status 0\n"), "{wrote}");
        let text = folder.run(&["inspect", "form.onnx"]);
        assert!(!text.contains("ConvTranspose("), "{text}");
        let got = output("form.onnx");
        assert_eq!(got.shape(), expected.shape());
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-4, "{form}: {got}, not {expected}");
        }
    }
}
