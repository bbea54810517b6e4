//! What stops a command: its message, and the exit status that says whose fault it is.

use std::fmt;

/// A message for the person, and whether the way of calling was at fault.
#[derive(Debug)]
pub struct Error {
    message: String,
    usage: bool,
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The model, a file or the data is at fault: status 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), usage: false }
    }

    /// The arguments are at fault: status 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), usage: true }
    }

    /// An error about a file.
    pub fn in_file(path: &std::path::Path, problem: impl fmt::Display) -> Self {
        Self::new(format!("{}: {problem}", path.display()))
    }

    /// Exit status.
    pub fn status(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<tconvc::Error> for Error {
    fn from(error: tconvc::Error) -> Self {
        Self::new(error)
    }
}
