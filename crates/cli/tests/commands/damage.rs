//! Damaged and hostile models: the command says what is wrong and ends with status 1, or compiles what is still a network.
//! Far more of them go through the library, see `tests/damage.rs` of the root package.

use crate::support::{Folder, check, models};
use std::fs;
use tconvc_testing::onnx_build::damage::Damage;
use tconvc_testing::onnx_build::{Graph, floats, ints_attribute, node, untyped, value, with_external};

#[test]
fn damaged_models_end_the_command_with_status_1_or_compile() {
    let damage = Damage::of_seeds();
    let folder = Folder::new();
    let mut refused = 0;
    for case in 0..60 {
        fs::write(folder.path("damaged.onnx"), damage.model(case)).unwrap();
        let text = folder.run(&["compile", "damaged.onnx", "-o", "report.txt"]);
        let compiled = text.ends_with("\nexit status 0\n");
        let said = text.contains("\nerror: ") && text.ends_with("\nexit status 1\n");
        assert!((compiled || said) && !text.contains("panicked"), "case {case}: {text}");
        refused += u32::from(!compiled);
    }
    assert!((10..50).contains(&refused), "{refused} of 60 are refused");
}

/// One of each kind of damage, and what is said of it.
#[test]
fn hostile_models_are_refused_with_a_reason() {
    let folder = Folder::new();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path(name), bytes).unwrap();
    let graph = |dims: &[&str], nodes, initializers| {
        Graph { inputs: vec![value("x", dims)], outputs: vec![untyped("y")], initializers, nodes }.model(17)
    };
    let small = ["1", "2", "3", "4"];
    let deconv = |stride| {
        let strides = ints_attribute("strides", &[stride, stride]);
        vec![node("ConvTranspose", &["x", "w"], &["y"], &[strides])]
    };
    let kernel = || vec![floats("w", &[2, 2, 3, 3], &[0.5; 36])];
    let trained = fs::read(models().join("fsrcnn_x3.onnx")).unwrap();
    write("empty.onnx", &[]);
    write("cut.onnx", &trained[..trained.len() / 2]);
    let cycle = vec![node("Add", &["x", "y"], &["a"], &[]), node("Relu", &["a"], &["y"], &[])];
    write("cycle.onnx", &graph(&small, cycle, vec![]));
    write("dangling.onnx", &graph(&small, vec![node("Relu", &["nothing"], &["y"], &[])], vec![]));
    write("sizes.onnx", &graph(&["1", "2", "4611686018427387904", "4"], deconv(2), kernel()));
    write("overflow.onnx", &graph(&small, deconv(i64::MAX), kernel()));
    write("stride.onnx", &graph(&small, deconv(1 << 20), kernel()));
    write("weights.onnx", &graph(&small, deconv(2), vec![floats("w", &[2, 2, 300, 300], &[0.5; 36])]));
    write("outside.onnx", &with_external("../data.bin", "0").model(17));
    // Each tensor is allowed; all at once are not.
    let wide = ["1", "1", "16384", "16384"];
    let pools = |name: &str| node("MaxPool", &["x"], &[name], &[ints_attribute("kernel_shape", &[1, 1])]);
    let soft = |from: &str, to: &str| node("Softmax", &[from], &[to], &[]);
    let many = vec![
        pools("a"),
        soft("x", "b"),
        soft("b", "c"),
        node("Add", &["a", "b"], &["d"], &[]),
        node("Add", &["c", "d"], &["y"], &[]),
    ];
    write("workspace.onnx", &graph(&wide, many, vec![]));
    let names = [
        "empty",
        "cut",
        "cycle",
        "dangling",
        "sizes",
        "overflow",
        "stride",
        "weights",
        "outside",
        "workspace",
    ];
    let lines = names.map(|name| format!("compile {name}.onnx"));
    let text = folder.run_all(&lines.each_ref().map(String::as_str));
    assert_eq!(text.matches("exit status 1").count(), names.len(), "{text}");
    check("errors_damaged", &text);
}
