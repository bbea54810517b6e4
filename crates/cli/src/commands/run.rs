//! `tconvc run`.

use super::{compiler, load, tuned};
use crate::args::Run;
use crate::error::{Error, Result};
use crate::{arrays, inputs, output, stop};
use std::process::ExitCode;
use tconvc::PortInfo;

/// Runs a model, writes its outputs, and prints their shapes.
pub fn run(options: &Run) -> Result<ExitCode> {
    let budget = stop::begin(&options.options.limits);
    let model = load(&options.model, &budget)?;
    let in_model = |error| Error::in_file(&options.model, error);
    let given = inputs::given(&model.inputs(), &options.inputs, &options.input, &budget)?;
    let compiler = tuned(compiler(&options.options, &budget)?, &options.options, &model, &given)?;
    let compiled = compiler.compile(&model).map_err(in_model)?;
    let tensors = inputs::or_seeded(given, compiled.inputs(), &budget)?;
    if options.output.is_some() {
        // Before anything runs.
        let note = |port: &PortInfo| Some(format!("output `{}`: {}", port.name, arrays::note(port.dtype?)?));
        output::warnings(&compiled.outputs().iter().filter_map(note).collect::<Vec<_>>());
    }
    let outputs = compiled.run(inputs::views(&tensors)).map_err(in_model)?;
    output::warnings(&compiled.report().warnings);
    for (name, tensor) in outputs.iter() {
        output::line(&format!("{name}: {}{:?}", tensor.dtype(), tensor.shape()))?;
    }
    if let Some(path) = &options.output {
        let left_out = arrays::write_npz(path, outputs.iter())?;
        for problem in &left_out {
            output::error(&format!("{}: {problem}; the other outputs are written", path.display()));
        }
        if !left_out.is_empty() {
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}
