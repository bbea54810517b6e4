//! What the fuzz targets of this crate hold to; the targets themselves are in `tests/`.
//!
//! `cargo test` in this folder tries random bytes for a few seconds. To fuzz for real:
//!
//! ```text
//! cargo install cargo-bolero
//! mkdir -p tests/__fuzz__/model/corpus && cp MODELS.. tests/__fuzz__/model/corpus
//! cargo bolero test model
//! ```

use tconvc_ir::{infer, onnx, verify};
use tconvc_passes::{Form, Options};

/// Reads a model; whatever the bytes, that is an error or a graph in order, which can be looked at and written again.
///
/// # Panics
/// When it is not: that is what a fuzzer looks for.
pub fn model(bytes: &[u8]) {
    let Ok(mut graph) = onnx::read_bytes(bytes) else { return };
    graph.order().expect("a graph that was read has an order");
    if infer::infer(&mut graph).is_ok() {
        // The verifier may still refuse what inference does not look at.
        let _ = verify::verify(&graph);
    }
    if let Ok(written) = onnx::write(&graph) {
        onnx::read_bytes(&written).expect("what was written is read");
    }
}

/// Runs the passes on a model in every form: an error, or a graph that the verifier accepts and that can be written.
///
/// # Panics
/// When it is not.
pub fn passes(bytes: &[u8]) {
    let Ok(graph) = onnx::read_bytes(bytes) else { return };
    for form in Form::ALL {
        let mut graph = graph.clone();
        let options = Options { form, ..Options::default() };
        if tconvc_passes::optimise(&mut graph, &options).is_ok() {
            verify::verify(&graph).expect("what the passes make is in order");
            let _ = onnx::write(&graph);
        }
    }
}

/// Reads a tensor; what is accepted is written and read again.
///
/// # Panics
/// When that gives another tensor.
pub fn tensor(bytes: &[u8]) {
    if let Ok((name, tensor)) = onnx::read_tensor(bytes) {
        let again = onnx::read_tensor(&onnx::write_tensor(&name, &tensor));
        assert_eq!(again.expect("what was written is read"), (name, tensor));
    }
}

/// Reads an extent; what is accepted prints as something that reads back equal.
///
/// # Panics
/// When it does not.
pub fn extent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(dim) = text.parse::<tconvc_ir::Dim>() {
        assert_eq!(dim.to_string().parse(), Ok(dim));
    }
}
