//! What files ask for is weighed against limits; files are whole or not there; what is said twice is refused.

use crate::support::Folder;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tconvc_testing::onnx_build::{
    Graph, Message, field, graph_attribute, int, ints, model, node, tensor_head, untyped, value,
};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tconvc"))
}

/// `x` of two floats into a loop whose graph does that with `a`, for ever or so many rounds.
fn looped(body: Vec<Message>, initializers: Vec<Message>, trip: Option<i64>) -> Message {
    let typed = |name: &str, dtype: i64| [field(1, name), field(2, field(1, int(1, dtype)))].concat();
    let nodes = [vec![node("Identity", &["c"], &["d"], &[])], body].concat();
    let inner = Graph {
        inputs: vec![typed("i", 7), typed("c", 9), typed("a", 1)],
        outputs: vec![untyped("d"), untyped("b")],
        initializers,
        nodes,
    };
    let first = if trip.is_some() { "trip" } else { "" };
    let attributes = [graph_attribute("body", &inner.encode())];
    let around = Graph {
        inputs: vec![value("x", &["2"])],
        outputs: vec![untyped("y")],
        initializers: [
            vec![[tensor_head("go", 9, &[]), field(9, [1u8])].concat()],
            trip.map(|trip| ints("trip", &[], &[trip])).into_iter().collect(),
        ]
        .concat(),
        nodes: vec![node("Loop", &[first, "go", "x"], &["y"], &attributes)],
    };
    around.model(21)
}

fn endless() -> Message {
    looped(vec![node("Relu", &["a"], &["b"], &[])], vec![], None)
}

#[test]
fn loops_without_an_end_stop() {
    let folder = Folder::new();
    fs::write(folder.path("loop.onnx"), endless()).unwrap();
    let text = folder.run(&["run", "loop.onnx", "--round-limit", "1000"]);
    assert!(text.contains("(Loop): more than 1000 rounds of Loop and Scan in one run"), "{text}");
    assert!(text.contains("exit status 1"), "{text}");
    let text = folder.run(&["run", "loop.onnx", "--round-limit", "4294967295", "--time-limit", "0.3"]);
    assert!(text.contains("the time limit of 0.3 s is over") && text.contains("exit status 1"), "{text}");
}

#[test]
fn memory_that_a_file_asks_for_is_asked_of_the_limit() {
    let folder = Folder::new();
    let growing = looped(
        vec![node("Concat", &["a", "a"], &["b"], &[tconvc_testing::onnx_build::int_attribute("axis", 0)])],
        vec![],
        Some(60),
    );
    fs::write(folder.path("growing.onnx"), growing).unwrap();
    let text = folder.run(&["run", "growing.onnx", "--memory-limit", "16"]);
    assert!(text.contains("(Concat)") && text.contains("the memory limit allows"), "{text}");
    let outputs = Graph {
        inputs: vec![value("x", &["1"])],
        outputs: (0..12).map(|index| untyped(&format!("y{index}"))).collect(),
        initializers: vec![ints("n", &[1], &[1 << 22])],
        nodes: (0..12).map(|index| node("Expand", &["x", "n"], &[&format!("y{index}")], &[])).collect(),
    };
    fs::write(folder.path("outputs.onnx"), outputs.model(17)).unwrap();
    let text = folder.run(&["run", "outputs.onnx", "--memory-limit", "40"]);
    assert!(text.contains("output `y2`, with those before it: 50331648 bytes are wanted"), "{text}");
    assert!(folder.run(&["run", "outputs.onnx", "--memory-limit", "400"]).ends_with("exit status 0\n"));
    let sparse: Message = (0..3)
        .flat_map(|index| {
            let values = tconvc_testing::onnx_build::floats(&format!("s{index}"), &[1], &[1.0]);
            field(15, [field(1, values), field(2, ints("", &[1], &[5])), int(3, 1 << 22)].concat())
        })
        .collect();
    let graph = Graph {
        inputs: vec![value("x", &["1"])],
        outputs: vec![untyped("y")],
        nodes: vec![node("Sum", &["x", "s0", "s1", "s2"], &["y"], &[])],
        ..Graph::default()
    };
    fs::write(folder.path("sparse.onnx"), model(8, 17, &[graph.encode(), sparse].concat(), &[])).unwrap();
    let text = folder.run(&["inspect", "sparse.onnx", "--memory-limit", "40"]);
    assert!(text.contains("sparse tensor `s2`: 16777216 bytes are wanted"), "{text}");
}

#[test]
fn what_is_said_twice_is_refused() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[N]\n%y : f32[N] = Relu(%x)\noutput %y\n");
    let text = folder.run(&["run", "relu.onnx", "--shape", "x=2", "--shape", "x=3"]);
    assert!(text.contains("--shape x is given twice, as [2] and [3]"), "{text}");
    assert!(text.contains("exit status 2"), "{text}");
    folder.npz("x.npz", "x", &[2], 1.0f32);
    // A zip file with the entry, and its description at the end, twice.
    let file = fs::read(folder.path("x.npz")).unwrap();
    let end = file.windows(4).rposition(|four| four == b"PK\x05\x06").unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (size, start) = (word(end + 12), word(end + 16));
    let mut twice = [&file[..end], &file[start..start + size], &file[end..]].concat();
    let end = end + size;
    for at in [8, 10] {
        twice[end + at] = 2;
    }
    twice[end + 12..end + 16].copy_from_slice(&(2 * size as u32).to_le_bytes());
    fs::write(folder.path("twice.npz"), twice).unwrap();
    let text = folder.run(&["run", "relu.onnx", "--inputs", "twice.npz"]);
    assert!(text.contains("twice.npz: 1 of its 2 arrays have the name of another"), "{text}");
    let imports: Message =
        [1, 2].iter().flat_map(|&version| field(8, [field(1, "d"), int(2, version)].concat())).collect();
    let two = [fs::read(folder.path("relu.onnx")).unwrap(), imports].concat();
    fs::write(folder.path("two.onnx"), two).unwrap();
    let text = folder.run(&["inspect", "two.onnx"]);
    assert!(text.contains("opsets 1 and 2 of domain d are imported"), "{text}");
}

#[test]
fn files_without_an_end_are_refused() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[2]\n%y : f32[2] = Relu(%x)\noutput %y\n");
    for arguments in [
        ["run", "relu.onnx", "--input", "x=/dev/zero"],
        ["run", "relu.onnx", "--inputs", "/dev/zero"],
        ["inspect", "/dev/zero", "--time-limit", "9"],
    ] {
        let text = folder.run(&arguments);
        assert!(text.contains("is no plain file") || text.contains("is not a plain file"), "{text}");
    }
    let text = folder.run(&["explain", "relu.onnx", "--tune", "--tune-cache", "/dev/zero"]);
    assert!(text.contains("/dev/zero: is no plain file"), "{text}");
}

#[test]
fn inputs_that_do_not_fit_are_not_read() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[2]\n%y : f32[2] = Relu(%x)\noutput %y\n");
    folder.npz("x.npz", "x", &[3], 1.0f32);
    let text = folder.run(&["run", "relu.onnx", "--inputs", "x.npz"]);
    assert!(text.contains("x.npz: array `x.npy`: `x` f32[2] is expected, f32[3] is given"), "{text}");
}

#[test]
fn members_stay_in_the_folder_and_read_back() {
    let folder = Folder::new();
    folder.model(
        "evil.onnx",
        "input %\"../../in\" : f32[2]\n%\"../../evil\" : f32[2] = Relu(%\"../../in\")\noutput %\"../../evil\"\n",
    );
    let text = folder.run(&["run", "evil.onnx", "--output", "out.npz"]);
    assert!(text.ends_with("exit status 0\n"), "{text}");
    let names = fs::read(folder.path("out.npz")).unwrap();
    assert!(names.windows(22).any(|name| name == b"%2E%2E/%2E%2E/evil.npy"));
    folder.npz("in.npz", "%2E%2E/%2E%2E/in", &[2], 1.0f32);
    let text = folder.run(&["run", "evil.onnx", "--inputs", "in.npz"]);
    assert!(text.ends_with("exit status 0\n"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[2]\n%y : f32[2] = Relu(%x)\noutput %y\n");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program().args(["inspect"]).arg(folder.path("relu.onnx")).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: No space left"));
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_command_and_leaves_files_whole() {
    let folder = Folder::new();
    fs::write(folder.path("loop.onnx"), endless()).unwrap();
    fs::write(folder.path("out.npz"), "before").unwrap();
    let mut child = program()
        .args(["run", "--round-limit", "4294967295", "loop.onnx", "--output", "out.npz"])
        .current_dir(folder.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let start = Instant::now();
    let status = child.wait().unwrap();
    // A tenth of a second on an idle machine.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(130));
    assert_eq!(fs::read(folder.path("out.npz")).unwrap(), b"before");
    let mut left: Vec<_> =
        fs::read_dir(folder.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["loop.onnx", "out.npz"]);
}

/// A system that grants no thread: one computes, and says so.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_are_refused_are_said() {
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[2]\n%y : f32[2] = Relu(%x)\noutput %y\n");
    // A stack that no address space has room for.
    let script = format!("{} bench relu.onnx --threads 3 --seconds 0", env!("CARGO_BIN_EXE_tconvc"));
    let limited = format!("RUST_MIN_STACK=100000000000000 {script}");
    let output = Command::new("sh").args(["-c", &limited]).current_dir(folder.path(".")).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("the system gave 1 of 3 threads") && text.contains("1 thread(s)"), "{text}");
}

/// As a service under systemd's `MemoryDenyWriteExecute` runs.
#[cfg(target_os = "linux")]
#[test]
fn executable_memory_that_is_refused_is_an_error() {
    use tconvc_testing::confined::without_executable_memory;
    let folder = Folder::new();
    folder.model("relu.onnx", "input %x : f32[2]\n%y : f32[2] = Relu(%x)\noutput %y\n");
    let run = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).current_dir(folder.path("."));
        without_executable_memory(&mut command).output()
    };
    let Ok(output) = run(&["run", "relu.onnx"]) else {
        let _ = writeln!(std::io::stderr(), "skipped: this system refuses executable memory to nobody");
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no executable memory") && text.contains("MemoryDenyWriteExecute"), "{text}");
    assert_eq!(output.status.code(), Some(1));
    let written = run(&["compile", "relu.onnx", "--emit", "onnx", "-o", "out.onnx"]).unwrap();
    assert!(written.status.success());
}

/// The default limit follows from what the process may have, and what goes beyond is an error, not an abort.
#[cfg(target_os = "linux")]
#[test]
fn small_address_spaces_are_respected() {
    use tconvc_testing::confined::with_address_space;
    let folder = Folder::new();
    let outputs = Graph {
        inputs: vec![value("x", &["1"])],
        outputs: (0..12).map(|index| untyped(&format!("y{index}"))).collect(),
        initializers: vec![ints("n", &[1], &[1 << 24])],
        nodes: (0..12).map(|index| node("Expand", &["x", "n"], &[&format!("y{index}")], &[])).collect(),
    };
    fs::write(folder.path("outputs.onnx"), outputs.model(17)).unwrap();
    for megabytes in [300, 500, 900] {
        let mut command = program();
        command.args(["run", "outputs.onnx"]).current_dir(folder.path("."));
        let output = with_address_space(&mut command, megabytes << 20).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{megabytes} MiB: {text}");
        assert!(text.contains("the memory limit allows"), "{megabytes} MiB: {text}");
    }
}
