//! Runs ONNX's conformance cases through the reference interpreter, where they are at hand. Cases that are refused stand in
//! `conformance_refused.txt` with the reason; a wrong value, type or shape is an error, and so is a list that is not true.
//! With `TCONVC_BLESS=1` the list is written anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tconvc_ir::{Op, Tensor, infer, interp, onnx, verify};

const REFUSED: &str = include_str!("conformance_refused.txt");

/// As the runner of ONNX has them.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn cases() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("TCONVC_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
        .join("conformance");
    if !folder.is_dir() {
        eprintln!("skipped: no {} (set TCONVC_SHARED to the folder that holds it)", folder.display());
        return None;
    }
    let mut cases: Vec<PathBuf> = entries(&folder).iter().flat_map(|set| entries(set)).collect();
    cases.retain(|case| case.join("model.onnx").is_file());
    Some(cases)
}

/// What is in a folder, sorted by name; nothing for a file.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The tensors `input_0.pb`, `input_1.pb` and so on of a data set.
#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn tensors(folder: &Path, kind: &str) -> Vec<(String, Tensor)> {
    let paths = (0..).map(|i| folder.join(format!("{kind}_{i}.pb"))).take_while(|path| path.is_file());
    paths.map(|path| onnx::read_tensor(&std::fs::read(path).unwrap()).unwrap()).collect()
}

enum Outcome {
    Passed,
    /// The operator or type is not supported.
    Refused(String),
    /// It is wrong.
    Failed(String),
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn run(case: &Path) -> Outcome {
    let model = case.join("model.onnx");
    let mut graph = match onnx::read_path(&model) {
        Ok(graph) => graph,
        Err(error) => {
            return Outcome::Refused(error.to_string().replace(&*model.to_string_lossy(), "model.onnx"));
        }
    };
    if let Err(error) = infer::infer(&mut graph) {
        return Outcome::Refused(format!("inference: {error}"));
    }
    if let Err(error) = verify::verify(&graph) {
        return Outcome::Failed(format!("after inference: {error}"));
    }
    for node in graph.order().unwrap().into_iter().map(|id| graph.node(id)) {
        let read = Op::read(node.op.name(), node.op.attributes());
        if !matches!(node.op, Op::Opaque(_)) && read != Ok(Some(node.op.clone())) {
            return Outcome::Failed(format!("{:?} reads back as {read:?}", node.op));
        }
    }
    let names: Vec<String> = graph.inputs().iter().map(|&id| graph.value(id).name.clone()).collect();
    for data in entries(case).iter().filter(|path| path.is_dir()) {
        let inputs = tensors(data, "input");
        let inputs: Vec<(&str, Tensor)> =
            names.iter().map(String::as_str).zip(inputs.into_iter().map(|(_, tensor)| tensor)).collect();
        let outputs = match interp::run(&graph, &inputs) {
            Ok(outputs) => outputs,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let expected = tensors(data, "output");
        if outputs.len() != expected.len() {
            return Outcome::Failed(format!("{} outputs instead of {}", outputs.len(), expected.len()));
        }
        for ((name, output), (_, expected)) in outputs.iter().zip(expected) {
            if let Err(problem) = compare(output, &expected) {
                return Outcome::Failed(format!("{name}: {problem}"));
            }
        }
    }
    Outcome::Passed
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn compare(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!(
            "{}{:?} instead of {}{:?}",
            found.dtype(),
            found.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    if !found.dtype().is_float() {
        return if found.bytes() == expected.bytes() {
            Ok(())
        } else {
            Err(first_difference(found, expected, 0.0))
        };
    }
    let (values, wanted) = (found.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let close = |(&a, &b): (&f64, &f64)| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ABSOLUTE + RELATIVE * b.abs()
    };
    if values.iter().zip(&wanted).all(close) {
        Ok(())
    } else {
        Err(first_difference(found, expected, RELATIVE))
    }
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn first_difference(found: &Tensor, expected: &Tensor, relative: f64) -> String {
    let (found, expected) = (found.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let differs = |(a, b): (&f64, &f64)| !(a == b || (a - b).abs() <= ABSOLUTE + relative * b.abs());
    let at = found.iter().zip(&expected).position(differs).unwrap_or(0);
    format!("element {at} is {}, expected {}", found[at], expected[at])
}

/// The checked-in list: case and reason.
fn listed() -> BTreeMap<&'static str, &'static str> {
    let lines = REFUSED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(": ").expect("`case: reason`")).collect()
}

#[test]
#[allow(clippy::print_stderr, reason = "the counts are the result")]
fn cases_pass_or_are_listed_as_refused() {
    let Some(cases) = cases() else { return };
    let listed = listed();
    let (mut passed, mut refused, mut problems) = (0, BTreeMap::new(), vec![]);
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match run(case) {
            Outcome::Passed => {
                passed += 1;
                if listed.contains_key(&*name) {
                    problems.push(format!("{name}: is listed, but passes"));
                }
            }
            Outcome::Refused(reason) => {
                if !listed.contains_key(&*name) {
                    problems.push(format!("{name}: is not listed, but refused: {reason}"));
                }
                refused.insert(name, reason);
            }
            Outcome::Failed(problem) => problems.push(format!("{name}: is wrong: {problem}")),
        }
    }
    eprintln!("{passed} of {} cases passed, {} refused", cases.len(), refused.len());
    if std::env::var_os("TCONVC_BLESS").is_some() {
        let comments = REFUSED.lines().filter(|line| line.starts_with('#')).map(str::to_owned);
        let lines = comments.chain(refused.iter().map(|(name, reason)| format!("{name}: {reason}")));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance_refused.txt");
        std::fs::write(path, lines.map(|line| line + "\n").collect::<String>()).unwrap();
    }
    assert!(problems.is_empty(), "(TCONVC_BLESS=1 writes the list anew)\n{}", problems.join("\n"));
}
