//! `tconvc inspect`.

use super::{load, shaped};
use crate::args::Inspect;
use crate::error::{Error, Result};
use crate::{output, stop};
use std::process::ExitCode;
use tconvc::Compiler;

/// Prints the graph as it was read, or as it is after a pass.
pub fn run(options: &Inspect) -> Result<ExitCode> {
    let budget = stop::begin(&options.limits);
    let model = load(&options.model, &budget)?;
    let Some(pass) = &options.after else {
        output::print(&model.to_text())?;
        return Ok(ExitCode::SUCCESS);
    };
    let compiler = shaped(Compiler::new().budget(&budget).stop_after(pass), &options.shapes)?;
    let rewritten = compiler.rewrite(&model).map_err(|error| Error::in_file(&options.model, error))?;
    output::warnings(rewritten.warnings());
    output::print(&rewritten.to_text())?;
    Ok(ExitCode::SUCCESS)
}
