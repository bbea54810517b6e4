//! Runs ONNX's conformance cases through the reference interpreter, where they are at hand: each must give the right values,
//! types and shapes.

use std::path::{Path, PathBuf};
use tconvc_ir::{Op, Tensor, infer, interp, onnx, verify};

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

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn run(case: &Path) -> Result<(), String> {
    let model = case.join("model.onnx");
    let mut graph = onnx::read_path(&model).map_err(|error| error.to_string())?;
    if let Err(error) = infer::infer(&mut graph) {
        return Err(format!("inference: {error}"));
    }
    if let Err(error) = verify::verify(&graph) {
        return Err(format!("after inference: {error}"));
    }
    for node in graph.order().unwrap().into_iter().map(|id| graph.node(id)) {
        let read = Op::read(node.op.name(), node.op.attributes());
        if !matches!(node.op, Op::Opaque(_)) && read != Ok(Some(node.op.clone())) {
            return Err(format!("{:?} reads back as {read:?}", node.op));
        }
    }
    let names: Vec<String> = graph.inputs().iter().map(|&id| graph.value(id).name.clone()).collect();
    for data in entries(case).iter().filter(|path| path.is_dir()) {
        let inputs = tensors(data, "input");
        let inputs: Vec<(&str, Tensor)> =
            names.iter().map(String::as_str).zip(inputs.into_iter().map(|(_, tensor)| tensor)).collect();
        let outputs = match interp::run(&graph, &inputs) {
            Ok(outputs) => outputs,
            Err(error) => return Err(error.to_string()),
        };
        let expected = tensors(data, "output");
        if outputs.len() != expected.len() {
            return Err(format!("{} outputs instead of {}", outputs.len(), expected.len()));
        }
        for ((name, output), (_, expected)) in outputs.iter().zip(expected) {
            if let Err(problem) = compare(output, &expected) {
                return Err(format!("{name}: {problem}"));
            }
        }
    }
    Ok(())
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

#[test]
#[allow(clippy::print_stderr, reason = "the counts are the result")]
fn every_case_passes() {
    let Some(cases) = cases() else { return };
    let problem = |case: &PathBuf| Some(format!("{}: {}", case.display(), run(case).err()?));
    let problems: Vec<String> = cases.iter().filter_map(problem).collect();
    eprintln!("{} of {} cases passed", cases.len() - problems.len(), cases.len());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
