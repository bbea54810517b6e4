//! Reads a model and writes it again, in the spelling of the newest opset: `onnx_copy MODEL OUT [MODEL OUT]..`.

use tconvc_ir::onnx;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let [model, out] = pair else { return Err("expected pairs of a model and a file to write".into()) };
        std::fs::write(out, onnx::write(&onnx::read_path(model)?)?)?;
    }
    Ok(())
}
