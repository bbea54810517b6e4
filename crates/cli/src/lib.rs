//! The command `tconvc`. Reads arguments and files, calls the library, prints; it has no logic of its own.
//! A library for the two programs that are the command: that of this crate, and the one that comes with the Python package.

mod args;
mod arrays;
mod commands;
mod error;
mod files;
mod inputs;
mod npy;
mod output;
mod stop;
mod trace;

use args::{Arguments, Command};
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Lets signals that end a program (Ctrl-C) end the command within a tenth of a second, with its files whole. For a process that is
/// nothing but the command.
pub fn end_on_signals() {
    stop::on_signals();
}

/// Runs the command with these arguments, its own name first; gives the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let result = match &arguments.command {
        Command::Compile(options) => commands::compile::run(options),
        Command::Run(options) => commands::run::run(options),
        Command::Bench(options) => commands::bench::run(options),
        Command::Verify(options) => commands::verify::run(options),
        Command::Explain(options) => commands::explain::run(options),
        Command::Inspect(options) => commands::inspect::run(options),
        Command::Completions(options) => commands::completions::run(options),
    };
    match result {
        Ok(code) => u8::from(code != ExitCode::SUCCESS),
        Err(_) if stop::is_interrupted() => stop::wait_for_the_end(),
        Err(error) => {
            output::error(&error.to_string());
            error.status()
        }
    }
}
