//! `tconvc inspect`.

use super::load;
use crate::args::Inspect;
use crate::error::{Error, Result};
use crate::output;
use std::process::ExitCode;
use tconvc::Compiler;

/// Prints the graph as it was read, or as it is after a pass.
pub fn run(options: &Inspect) -> Result<ExitCode> {
    let model = load(&options.model)?;
    let Some(pass) = &options.after else {
        output::print(&model.to_text());
        return Ok(ExitCode::SUCCESS);
    };
    let compiler = Compiler::new().stop_after(pass);
    let compiler = options
        .shapes
        .iter()
        .fold(compiler, |compiler, (name, shape)| compiler.input_shape(name, shape.clone()));
    let rewritten = compiler.rewrite(&model).map_err(|error| Error::in_file(&options.model, error))?;
    output::warnings(rewritten.warnings());
    output::print(&rewritten.to_text());
    Ok(ExitCode::SUCCESS)
}
