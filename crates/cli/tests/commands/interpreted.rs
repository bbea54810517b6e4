//! Steps that no kernels are made for: they are listed with their reason, and can be denied.

use crate::support::{Folder, check};

/// A convolution whose weights arrive when the network runs, and sums along an axis, behind one that is compiled.
const MIXED: &str = "input %x : f32[1, 2, 4, 4]\ninput %w : f32[2, 2, 3, 3]\n\
    const @v : f32[2, 2, 3, 3] = seeded(1)\nconst @axis : i64[] = 1\n\
    %a = Conv(%x, @v) {pads=[1, 1, 1, 1]} \"first\"\n\
    %b = Conv(%a, %w) {pads=[1, 1, 1, 1]} \"second\"\n\
    %y = CumSum(%b, @axis) \"sums\"\n\
    output %y";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.model("mixed.onnx", MIXED);
    folder.model("open.onnx", "input %x : f32[1, N]\n%y = Tan(%x)\noutput %y");
    folder.model("whole.onnx", "input %x : f32[1, 2]\n%y = Relu(%x)\noutput %y");
    folder
}

#[test]
fn reports_name_them() {
    let folder = folder();
    let target = ["--target", "x86-64-v3"];
    check("interpreted_explain", &folder.run(&[&["explain", "mixed.onnx"][..], &target].concat()));
    check(
        "interpreted_explain_json",
        &folder.run(&[&["explain", "mixed.onnx", "--json"][..], &target].concat()),
    );
    let report = folder.run(&["compile", "mixed.onnx", "-o", "report.txt"]);
    let text = std::fs::read_to_string(folder.path("report.txt")).unwrap();
    // What is above depends on the machine.
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("interpreted")).collect();
    check("interpreted_compile", &format!("{report}{}\n", lines.join("\n")));
}

/// Whatever makes code or runs it warns where much of the time goes there.
#[test]
fn much_time_in_them_is_warned_of() {
    let folder = folder();
    let mut text = folder.run_all(&[
        "run mixed.onnx",
        "run whole.onnx",
        "compile mixed.onnx --emit asm -o mixed.s",
        "compile mixed.onnx --emit ir -o mixed.tir",
    ]);
    let bench = folder.run(&["bench", "mixed.onnx", "--seconds", "0.01", "--json"]);
    text += bench.lines().find(|line| line.starts_with("warning")).unwrap();
    check("interpreted_warned", &text);
}

#[test]
fn they_can_be_denied() {
    let folder = folder();
    check(
        "interpreted_denied",
        &folder.run_all(&[
            "compile mixed.onnx --deny interpreted",
            "compile mixed.onnx --deny interpreted --emit asm --target aarch64",
            "compile mixed.onnx --deny interpreted --emit ir",
            "compile whole.onnx --deny interpreted --emit ir",
            "compile whole.onnx --deny interpreted --emit asm --target aarch64 -o whole.s",
            "compile open.onnx --deny interpreted --emit dot",
            "compile whole.onnx --deny everything",
        ]),
    );
}
