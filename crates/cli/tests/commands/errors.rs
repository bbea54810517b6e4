//! What goes wrong, what is said of it, and whose fault it is: status 2 for the command line, 1 for models and data.

use crate::support::{Folder, check};

/// A folder with a model and one file for each way in which inputs can be wrong.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    folder.npz("other_key.npz", "lo", &[1, 1, 8, 8], 0f32);
    folder.npz("rank.npz", "low", &[1, 8, 8], 0f32);
    folder.npz("channels.npz", "low", &[1, 3, 8, 8], 0f32);
    folder.npz("type.npz", "low", &[1, 1, 8, 8], 0f64);
    folder.npz("empty.npz", "low", &[1, 1, 0, 8], 0f32);
    folder.npz("nan.npz", "low", &[1, 1, 8, 8], f32::NAN);
    folder.npz("good.npz", "low", &[1, 1, 8, 8], 0f32);
    ndarray_npy::write_npy(folder.path("good.npy"), &ndarray::Array4::<f32>::zeros((1, 1, 8, 8))).unwrap();
    std::fs::write(folder.path("text.npz"), "no archive").unwrap();
    std::fs::write(folder.path("text.npy"), "no array").unwrap();
    std::fs::write(folder.path("text.onnx"), "no model").unwrap();
    folder
}

#[test]
fn inputs_that_do_not_fit() {
    let lines = [
        "run fsrcnn_x3.onnx --inputs other_key.npz",
        "run fsrcnn_x3.onnx --inputs rank.npz",
        "run fsrcnn_x3.onnx --inputs channels.npz",
        "run fsrcnn_x3.onnx --inputs type.npz",
        "run fsrcnn_x3.onnx --inputs empty.npz",
        "run fsrcnn_x3.onnx --inputs nan.npz",
        "run fsrcnn_x3.onnx --inputs text.npz",
        "run fsrcnn_x3.onnx --inputs missing.npz",
        "run fsrcnn_x3.onnx --inputs good.npz --inputs rank.npz",
        "run fsrcnn_x3.onnx --input hi=good.npy",
        "run fsrcnn_x3.onnx --input low=text.npy",
        "run fsrcnn_x3.onnx",
        "bench fsrcnn_x3.onnx",
        "run fsrcnn_x3.onnx --shape low=1x1x8x8 --inputs channels.npz",
        "run fsrcnn_x3.onnx --inputs good.npz --output nowhere/out.npz",
    ];
    check("errors_inputs", &folder().run_all(&lines));
}

#[test]
fn shapes_that_do_not_fit() {
    let lines = [
        "explain fsrcnn_x3.onnx --shape low=1x1x8",
        "explain fsrcnn_x3.onnx --shape low=1x2x8x8",
        "explain fsrcnn_x3.onnx --shape high=1x1x8x8",
        "run fsrcnn_x3.onnx --shape low=1x1x0x8",
        "run fsrcnn_x3.onnx --shape low=1x1x99999999x99999999",
        "run fsrcnn_x3.onnx --shape low=1x1x8x18446744073709551616",
        "run fsrcnn_x3.onnx --shape low=1x1xHx8",
        "run fsrcnn_x3.onnx --shape low",
    ];
    check("errors_shapes", &folder().run_all(&lines));
}

#[test]
fn models_that_are_none() {
    let lines = [
        "run missing.onnx",
        "run text.onnx",
        "run .",
        "inspect text.onnx",
        "verify missing",
        "verify text.onnx",
    ];
    check("errors_models", &folder().run_all(&lines));
}

#[test]
fn options_that_do_not_exist() {
    let lines = [
        "",
        "frobnicate",
        "run",
        "verify",
        "run fsrcnn_x3.onnx --form fast",
        "run fsrcnn_x3.onnx --target z80",
        "run fsrcnn_x3.onnx --threads 0",
        "run fsrcnn_x3.onnx --input low",
        "bench fsrcnn_x3.onnx --seconds nan",
        "bench fsrcnn_x3.onnx --seconds=-1",
        "compile fsrcnn_x3.onnx --emit exe",
        "compile fsrcnn_x3.onnx --emit onnx",
        "run fsrcnn_x3.onnx --tune-cache tuning.json",
    ];
    let mut folder = folder();
    folder.names_target = false;
    check("errors_usage", &folder.run_all(&lines));
}

#[test]
fn what_cannot_be_measured() {
    let folder = folder();
    let lines = [
        "run fsrcnn_x3.onnx --tune --tune-cache tuning.json",
        "run fsrcnn_x3.onnx --tune --tune-cache text.onnx --shape low=1x1x8x8",
        "run fsrcnn_x3.onnx --tune --tune-cache text.onnx/tuning.json --shape low=1x1x8x8",
    ];
    check("errors_tune", &folder.run_all(&lines));
    assert!(!folder.path("tuning.json").exists());
}

#[test]
fn passes_and_targets_that_are_not_here() {
    let lines = [
        "inspect fsrcnn_x3.onnx --after inline",
        "compile fsrcnn_x3.onnx --emit ir --stop-after forms:many",
        "run fsrcnn_x3.onnx --shape low=1x1x8x8 --target aarch64",
    ];
    if cfg!(target_arch = "x86_64") {
        check("errors_options", &folder().run_all(&lines));
    }
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let folder = Folder::new();
    folder.model(
        "unknown.onnx",
        "opset 21\nopset com.example = 1\ninput %x : f32[1, 2]\n%y : f32[1, 2] = com.example::Frob(%x) \"frob\"\noutput %y",
    );
    check("errors_unknown_operator", &folder.run_all(&["inspect unknown.onnx", "run unknown.onnx"]));
}
