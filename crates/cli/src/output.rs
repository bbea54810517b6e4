//! Where text goes: results to standard output, errors to standard error; colours where the terminal and `NO_COLOR` allow.

use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{ErrorKind, Write};

/// Writes to standard output. A reader that has gone away has all that it wants; a full disk has not.
pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard output.
pub fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Writes an error.
pub fn error(text: &str) {
    let _ = writeln!(anstream::stderr(), "\x1b[1;31merror\x1b[0m: {text}");
}

/// Writes warnings, each on a line.
pub fn warnings(texts: &[String]) {
    for text in texts {
        let _ = writeln!(anstream::stderr(), "\x1b[1;33mwarning\x1b[0m: {text}");
    }
}

/// A progress bar with a message, on a terminal.
pub fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
