//! `tconvc completions`.

use crate::args::{Arguments, Completions};
use crate::error::Result;
use crate::output;
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints the completion script of a shell.
pub fn run(options: &Completions) -> Result<ExitCode> {
    let mut script = vec![];
    clap_complete::generate(options.shell, &mut Arguments::command(), "tconvc", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
