//! The command `tconvc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tconvc_cli::end_on_signals();
    ExitCode::from(tconvc_cli::run(std::env::args_os()))
}
