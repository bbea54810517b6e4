//! `tconvc explain`.

use super::{compiler, load, tuned};
use crate::args::Explain;
use crate::error::{Error, Result};
use crate::{output, stop};
use std::process::ExitCode;

/// Says for each transposed convolution which form is used, and why.
pub fn run(options: &Explain) -> Result<ExitCode> {
    let budget = stop::begin(&options.options.limits);
    let model = load(&options.model, &budget)?;
    let compiler = tuned(compiler(&options.options, &budget)?, &options.options, &model, &[])?;
    let explanation = compiler.explain(&model).map_err(|error| Error::in_file(&options.model, error))?;
    output::warnings(&explanation.warnings);
    if options.json {
        output::line(&serde_json::to_string_pretty(&explanation).map_err(Error::new)?)?;
    } else {
        output::print(&explanation.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
