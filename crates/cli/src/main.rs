//! The command `tconvc`. Reads arguments and files, calls the library, prints; it has no logic of its own.

mod args;
mod arrays;
mod commands;
mod error;
mod files;
mod inputs;
mod npy;
mod output;
mod trace;

use args::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let result = match &arguments.command {
        Command::Compile(options) => commands::compile::run(options),
        Command::Run(options) => commands::run::run(options),
        Command::Bench(options) => commands::bench::run(options),
        Command::Verify(options) => commands::verify::run(options),
        Command::Explain(options) => commands::explain::run(options),
        Command::Inspect(options) => commands::inspect::run(options),
        Command::Completions(options) => Ok(commands::completions::run(options)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}
