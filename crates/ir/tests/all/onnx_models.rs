//! Reads every model of the real networks and of ONNX's conformance cases, where they are at hand.

use std::path::{Path, PathBuf};
use tconvc_ir::{DType, Graph, Op, infer, onnx};

/// The folder with models and conformance cases: `TCONVC_SHARED`, or beside the repository.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn shared(part: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TCONVC_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = folder.join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no {} (set TCONVC_SHARED to the folder that holds it)", folder.display());
    None
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the folder is readable");
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("it has entries").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
}

fn models() -> Vec<PathBuf> {
    let mut found = vec![];
    for part in ["models/real", "conformance"] {
        if let Some(folder) = shared(part) {
            files(&folder, "onnx", &mut found);
        }
    }
    found
}

#[test]
fn all_models_are_read() {
    let mut failed = vec![];
    for path in models() {
        match onnx::read_path(&path) {
            Ok(graph) => {
                assert!(!graph.outputs().is_empty(), "{}", path.display());
                graph.order().unwrap();
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    assert!(failed.is_empty(), "{} models are refused:\n{}", failed.len(), failed.join("\n"));
}

/// True when a file cannot say all of it: a node that ONNX spells in another way, a shape without element type.
fn says_more_than_onnx(graph: &Graph) -> bool {
    let order = graph.order().expect("the graph has no cycle");
    order.into_iter().any(|id| matches!(&graph.node(id).op, Op::Softmax(op) if op.flatten))
        || graph.values().any(|(_, value)| value.ty.dtype.is_none() && value.ty.shape.is_some())
}

#[test]
fn all_models_survive_export_and_import() {
    let trip = |graph: &Graph, path: &Path| {
        let bytes = onnx::write(graph).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        onnx::read_bytes(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for path in models() {
        let mut graph = onnx::read_path(&path).unwrap();
        for inferred in [false, true] {
            if inferred {
                infer::infer(&mut graph).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
            let once = trip(&graph, &path);
            assert!(graph == once || says_more_than_onnx(&graph), "{} differs", path.display());
            assert!(once == trip(&once, &path), "{} differs after the second trip", path.display());
        }
    }
}

#[test]
fn transposed_convolutions_are_typed() {
    let Some(folder) = shared("models/real") else { return };
    let graph = onnx::read_path(folder.join("burn_convtranspose2d.onnx")).unwrap();
    let [node] = graph.order().unwrap()[..] else { panic!("one node is expected") };
    let Op::ConvTranspose(op) = &graph.node(node).op else { panic!("{:?}", graph.node(node)) };
    assert_eq!((op.strides.as_slice(), op.dilations.as_slice(), op.group), (&[2, 1][..], &[3, 1][..], 2));
    let weights = graph.constant_input(node, 1).unwrap();
    assert_eq!((weights.dtype(), weights.shape()), (DType::F32, &[4, 3, 3, 5][..]));
}

#[test]
fn tensor_files_are_read() {
    let Some(folder) = shared("conformance") else { return };
    let mut found = vec![];
    files(&folder, "pb", &mut found);
    assert!(found.len() > 1000);
    for path in found {
        let (name, tensor) = onnx::read_tensor(&std::fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = onnx::read_tensor(&onnx::write_tensor(&name, &tensor)).unwrap();
        assert_eq!(again, (name, tensor), "{}", path.display());
    }
}
