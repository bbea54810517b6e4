//! `tconvc run`.

use super::{compiler, load, tuned};
use crate::args::Run;
use crate::error::{Error, Result};
use crate::{arrays, inputs, output};
use std::process::ExitCode;

/// Runs a model, writes its outputs, and prints their shapes.
pub fn run(options: &Run) -> Result<ExitCode> {
    let model = load(&options.model)?;
    let in_model = |error| Error::in_file(&options.model, error);
    let given = inputs::given(&model.inputs(), &options.inputs, &options.input)?;
    let compiler = tuned(compiler(&options.options), &options.options, &model, &given)?;
    let compiled = compiler.compile(&model).map_err(in_model)?;
    let tensors = inputs::or_seeded(given, compiled.inputs())?;
    let outputs = compiled.run(inputs::views(&tensors)).map_err(in_model)?;
    output::warnings(&compiled.report().warnings);
    for (name, tensor) in outputs.iter() {
        output::line(&format!("{name}: {}{:?}", tensor.dtype(), tensor.shape()));
    }
    if let Some(path) = &options.output {
        arrays::write_npz(path, outputs.iter())?;
    }
    Ok(ExitCode::SUCCESS)
}
