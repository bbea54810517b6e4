//! The command `tconvc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tconvc_cli::run(std::env::args_os()))
}
