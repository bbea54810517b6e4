//! Commands that do their work.

use crate::support::{Folder, check};
use tconvc_ir::DType;

#[test]
fn runs_write_outputs_under_the_models_names() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    folder.npz("numbered.npz", "input_0", &[1, 1, 8, 8], 0.5f32);
    let lines = [
        "run fsrcnn_x3.onnx --shape low=1x1x8x8",
        "run fsrcnn_x3.onnx --inputs numbered.npz --threads 2 --output out.npz",
    ];
    check("run", &folder.run_all(&lines));
    let mut npz = ndarray_npy::NpzReader::new(std::fs::File::open(folder.path("out.npz")).unwrap()).unwrap();
    let high: ndarray::ArrayD<f32> = npz.by_name("high").unwrap();
    assert_eq!(high.shape(), [1, 1, 24, 24]);
    assert!(high.iter().all(|value| value.is_finite()));
}

#[test]
fn verify_tells_what_it_checked() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    folder.trained("fsrcnn_x3.npz");
    folder.model("relu.onnx", "input %x : f32[1, 2]\n%y = Relu(%x)\noutput %y");
    folder.npz("wrong.npz", "y", &[1, 2], -1f32);
    check("verify", &folder.run(&["verify", "."]));
    // An expected output that a Relu cannot give.
    folder.model("wrong.onnx", "input %x : f32[1, 2]\n%y = Relu(%x)\noutput %y");
    let mut npz = ndarray_npy::NpzWriter::new(std::fs::File::create(folder.path("wrong.npz")).unwrap());
    npz.add_array("x", &ndarray::arr2(&[[1f32, -1.0]])).unwrap();
    npz.add_array("y", &ndarray::arr2(&[[1f32, -1.0]])).unwrap();
    npz.finish().unwrap();
    check("verify_wrong", &folder.run(&["verify", "wrong.onnx"]));
}

/// The second time, nothing is measured; the network runs as it should in either case.
#[test]
fn measurements_are_kept_in_a_file() {
    let folder = Folder::new();
    folder.model(
        "up.onnx",
        "input %x : f32[1, 4, 6, 6]\nconst @w : f32[4, 2, 4, 4] = seeded(1)\n\
         %y = ConvTranspose(%x, @w) {strides=[2, 2]}\noutput %y",
    );
    let lines = ["verify up.onnx --tune --tune-cache kept/tuning.json"; 2];
    let text = folder.run_all(&lines);
    assert_eq!(text.matches("1 passed, 0 failed").count(), 2, "{text}");
    let kept = std::fs::read_to_string(folder.path("kept/tuning.json")).unwrap();
    assert!(kept.contains("4->2 k4x4 s2x2 p0x0 6x6 -> 14x14"), "{kept}");
    let explained = folder.run(&["explain", "up.onnx", "--tune", "--tune-cache", "kept/tuning.json"]);
    assert!(explained.contains("it was measured to be the fastest"), "{explained}");
    assert_eq!(std::fs::read_to_string(folder.path("kept/tuning.json")).unwrap(), kept);
}

/// Extents that the model leaves open are those of the arrays.
#[test]
fn given_arrays_are_measured_with() {
    let folder = Folder::new();
    folder.model(
        "open.onnx",
        "input %x : f32[1, 4, H, 6]\nconst @w : f32[4, 2, 4, 4] = seeded(1)\n\
         %y = ConvTranspose(%x, @w) {strides=[2, 2]}\noutput %y",
    );
    folder.npz("open.npz", "x", &[1, 4, 5, 6], 0.5f32);
    for command in ["run --inputs open.npz", "bench --seconds 0 --inputs open.npz", "verify"] {
        let words = command.split(' ').chain(["open.onnx", "--tune", "--tune-cache", "kept.json"]);
        let text = folder.run(&words.collect::<Vec<_>>());
        assert!(text.ends_with("exit status 0\n"), "{text}");
    }
    let kept = std::fs::read_to_string(folder.path("kept.json")).unwrap();
    assert!(kept.contains("4->2 k4x4 s2x2 p0x0 5x6 -> 12x14"), "{kept}");
}

#[test]
fn measurements_are_kept_in_the_users_folder() {
    let folder = Folder::new();
    folder.model(
        "up.onnx",
        "input %x : f32[1, 1, 3]\nconst @w : f32[1, 1, 2] = seeded(1)\n%y = ConvTranspose(%x, @w)\noutput %y",
    );
    let (cache, home) = (folder.path("cache"), folder.path("home"));
    let run = |cache, home| {
        folder.run_in(&["run", "up.onnx", "--tune"], &[("XDG_CACHE_HOME", cache), ("HOME", home)])
    };
    run(Some(cache.as_path()), Some(home.as_path()));
    assert!(cache.join("tconvc/tuning.json").is_file() && !home.exists());
    run(None, Some(home.as_path()));
    assert!(home.join(".cache/tconvc/tuning.json").is_file());
    let text = run(None, None);
    assert!(
        text.contains("name a file with --tune-cache FILE") && text.ends_with("exit status 2\n"),
        "{text}"
    );
}

#[test]
fn bench_prints_one_object() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    let text = folder.run(&["bench", "fsrcnn_x3.onnx", "--shape", "low=1x1x8x8", "--seconds", "0", "--json"]);
    let line = text.lines().find(|line| line.starts_with('{')).unwrap();
    let object: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(object["model"], "fsrcnn_x3.onnx");
    assert_eq!(object["threads"], 1);
    assert!(object["runs"].as_u64().unwrap() >= 3);
    for key in
        ["min_ms", "median_ms", "read_ms", "compile_ms", "code_bytes", "weight_bytes", "workspace_bytes"]
    {
        assert!(object[key].as_f64().unwrap() > 0.0, "{key}: {line}");
    }
}

/// Listings for a processor that need not be this one.
#[test]
fn every_kind_of_listing() {
    let folder = Folder::new();
    folder.trained("fsrcnn_x3.onnx");
    for (emit, target, sign) in [
        ("asm", "x86-64-v3", "vfmadd"),
        ("asm", "x86-64-v4", "zmm"),
        ("asm", "aarch64", "fmla"),
        ("clif", "x86-64", "f32x4"),
        ("dot", "host", "digraph"),
        ("ir", "host", "Interleave"),
    ] {
        let shape = "low=1x1x24x24";
        let arguments = ["compile", "fsrcnn_x3.onnx", "--emit", emit, "--target", target, "--shape", shape];
        let text = folder.run(&[&arguments[..], &["--form", "sub-pixel"]].concat());
        assert!(text.ends_with("exit status 0\n") && text.contains(sign), "{emit} {target}");
    }
    let report = folder.run(&["compile", "fsrcnn_x3.onnx", "--shape", "low=1x1x8x8", "--verify"]);
    assert!(report.contains("node_high") && report.contains("verified: high"), "{report}");
}

/// Results of one command are arrays for the next, whatever their element type.
#[test]
fn every_element_type_goes_out_and_in() {
    let folder = Folder::new();
    for dtype in ["f16", "bf16", "f8e4m3fn", "f8e5m2", "i4", "u4", "f4e2m1", "bool", "u16"] {
        let code = DType::from_name(dtype).unwrap().onnx_code();
        folder.model("out.onnx", &format!("input %x : f32[2, 3]\n%y = Cast(%x) {{to={code}}}\noutput %y"));
        folder.npz("x.npz", "x", &[2, 3], 1.5f32);
        let text = folder.run_all(&["run out.onnx --inputs x.npz --output y.npz"]);
        assert!(text.contains("exit status 0"), "{dtype}: {text}");
        folder.model("in.onnx", &format!("input %y : {dtype}[2, 3]\n%z = Cast(%y) {{to=1}}\noutput %z"));
        let text = folder.run_all(&["run in.onnx --inputs y.npz --output z.npz"]);
        assert!(text.contains("exit status 0"), "{dtype}: {text}");
        let mut npz =
            ndarray_npy::NpzReader::new(std::fs::File::open(folder.path("z.npz")).unwrap()).unwrap();
        let z: ndarray::ArrayD<f32> = npz.by_name("z").unwrap();
        let expected = match dtype {
            "i4" | "u4" | "bool" | "u16" => 1.0,
            _ => 1.5,
        };
        assert!(z.iter().all(|&value| value == expected), "{dtype}: {z}");
    }
}

/// What NumPy cannot name is told before anything runs; an array that no input asks for does no harm.
#[test]
fn raw_results_are_told_and_other_arrays_do_not_block() {
    let folder = Folder::new();
    folder.model(
        "short.onnx",
        "input %x : f32[2]\n%y = Cast(%x) {to=16}\n%n = Cast(%x) {to=22}\noutput %y\noutput %n",
    );
    let mut archive = zip::ZipWriter::new(std::fs::File::create(folder.path("x.npz")).unwrap());
    for (name, descr, bytes) in [("x", "<f4", [0u8; 8].as_slice()), ("objects", "|O", b"pickle")] {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n");
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        let head = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
        std::io::Write::write_all(&mut archive, &[&head, header.as_bytes(), bytes].concat()).unwrap();
    }
    archive.finish().unwrap();
    check("run_raw_results", &folder.run_all(&["run short.onnx --inputs x.npz --output y.npz"]));
}

/// What a command would write, and does not, leaves the file that was there; so does an export that cannot be made.
#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[1, 2]\n%y = Relu(%x)\noutput %y");
    folder.npz("in.npz", "x", &[1, 3], 1f32);
    std::fs::write(folder.path("out.npz"), "kept").unwrap();
    std::fs::write(folder.path("out.onnx"), "kept").unwrap();
    let text = folder.run(&["run", "relu.onnx", "--inputs", "in.npz", "--output", "out.npz"]);
    assert!(text.contains("exit status 1"), "{text}");
    let text = folder.run(&["compile", "missing.onnx", "--emit", "onnx", "-o", "out.onnx"]);
    assert!(text.contains("exit status 1"), "{text}");
    for name in ["out.npz", "out.onnx"] {
        assert_eq!(std::fs::read_to_string(folder.path(name)).unwrap(), "kept");
    }
    folder.run(&["compile", "relu.onnx", "--emit", "onnx", "-o", "out.onnx"]);
    assert!(tconvc_ir::onnx::read_path(folder.path("out.onnx")).is_ok());
    let left: Vec<_> = std::fs::read_dir(folder.path(".")).unwrap().flatten().collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn inputs_with_a_default_may_be_given_or_not() {
    let folder = Folder::new();
    folder.model(
        "up.onnx",
        "input %x : f32[1, 1, 2, 2]\ninput %s : i64[4] default i64[4] = [1, 1, 4, 4]\n\
         %y = Resize(%x, _, _, %s) {mode=\"nearest\"}\noutput %y\noutput %y",
    );
    folder.npz("x.npz", "x", &[1, 1, 2, 2], 1f32);
    folder.npz("s.npz", "s", &[4], 3i64);
    let runs = [
        ("run up.onnx", "y: f32[1, 1, 4, 4]"),
        ("run up.onnx --inputs x.npz --output out.npz", "y: f32[1, 1, 4, 4]"),
        ("run up.onnx --inputs x.npz --inputs s.npz", "y: f32[3, 3, 3, 3]"),
        ("bench up.onnx --seconds 0", "runs"),
        ("verify up.onnx", "1 passed, 0 failed"),
        ("run up.onnx --inputs s.npz", "input `x` f32[1, 1, 2, 2] is missing"),
    ];
    for (line, expected) in runs {
        let text = folder.run(&line.split(' ').collect::<Vec<_>>());
        assert!(text.contains(expected), "{line}: {text}");
    }
}

/// Shapes that a file states and that are not so: what follows from the inputs counts, with one warning.
#[test]
fn stale_shapes_are_warned_of_once() {
    let folder = Folder::new();
    let declared = |name: &str, dims: &[&str]| tconvc_testing::onnx_build::value(name, dims);
    let graph = tconvc_testing::onnx_build::Graph {
        inputs: vec![declared("x", &["n", "2"]), declared("w", &["n", "2"])],
        outputs: vec![declared("y", &["9", "2"]), declared("z", &["9", "9", "9"])],
        nodes: vec![
            tconvc_testing::onnx_build::node("Add", &["x", "w"], &["y"], &[]),
            tconvc_testing::onnx_build::node("Neg", &["y"], &["z"], &[]),
        ],
        ..Default::default()
    };
    std::fs::write(folder.path("stale.onnx"), graph.model(17)).unwrap();
    let text = folder.run(&["run", "stale.onnx", "--shape", "x=3x2", "--shape", "w=1x2"]);
    assert!(text.contains("y: f32[3, 2]") && text.contains("z: f32[3, 2]"), "{text}");
    assert!(text.contains("`n` is 1 in input `w` and 3 in input `x`"), "{text}");
    assert_eq!(text.matches("is declared").count(), 1, "{text}");
    let text = folder.run(&["run", "stale.onnx", "--shape", "x=3x2", "--shape", "w=2x2"]);
    assert!(
        text.contains("exit status 1") && text.contains("Add_0"),
        "a contradiction inside stays an error: {text}"
    );
}

/// Where engines disagree, ONNX's meaning counts with a warning, or another one that is asked for.
#[test]
fn meanings_on_which_engines_disagree_are_told_and_chosen() {
    let folder = Folder::new();
    folder.model(
        "up.onnx",
        "input %x : f32[1, 1, n]\nconst @s : f32[3] = [1.0, 1.0, 1.9]\n\
         %y = Resize(%x, _, @s) {coordinate_transformation_mode=\"align_corners\", mode=\"linear\"}\noutput %y",
    );
    folder.npz("x.npz", "x", &[1, 1, 3], 1f32);
    let warning = "node `y`: Resize with align_corners";
    for (line, expected, told) in [
        ("run up.onnx --inputs x.npz", "y: f32[1, 1, 5]", true),
        ("run up.onnx --inputs x.npz --compat onnxruntime", "y: f32[1, 1, 5]", false),
        ("compile up.onnx --shape x=1x1x3", "compile", true),
        ("compile up.onnx --shape x=1x1x3 --compat onnxruntime --verify", "verified", false),
        ("compile up.onnx --shape x=1x1x3 --compat onnxruntime --emit onnx -o out.onnx", "", false),
        ("run up.onnx --compat torch", "`torch` is not one of onnx, onnxruntime", false),
        // Whole extents: nobody disagrees.
        ("run up.onnx --shape x=1x1x10", "y: f32[1, 1, 19]", false),
    ] {
        let text = folder.run(&line.split(' ').collect::<Vec<_>>());
        assert!(text.contains(expected), "{line}: {text}");
        assert_eq!(text.contains(warning), told, "{line}: {text}");
    }
    // The file means the same to all: it has sizes.
    let graph = tconvc_ir::onnx::read_path(folder.path("out.onnx")).unwrap();
    assert!(graph.nodes().any(|node| node.op.name() == "Resize" && node.input(3).is_some()));
}
