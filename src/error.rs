//! The error of the public API.

use crate::interpreted::InterpretedStep;
use tconvc_codegen::error::CompileError;

/// What can go wrong. Messages name the file, node, attribute and value, and what would be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model is at fault: malformed, inconsistent, or outside what the format allows.
    #[error(transparent)]
    Model(#[from] tconvc_ir::Error),
    /// An option is wrong, or a rewrite failed.
    #[error(transparent)]
    Passes(#[from] tconvc_passes::Error),
    /// The network cannot be compiled; names the node, the operator and what about it.
    #[error(transparent)]
    Compile(CompileError),
    /// Steps are interpreted, and [`Compiler::deny_interpreted`](crate::Compiler::deny_interpreted) denies them; names each.
    #[error("{}", crate::interpreted::denied(.0))]
    Interpreted(Vec<InterpretedStep>),
    /// The compiled network could not run.
    #[error(transparent)]
    Run(#[from] tconvc_runtime::error::RunError),
    /// The network takes more memory than [`Compiler::workspace_limit`](crate::Compiler::workspace_limit) allows.
    #[error("the network needs {bytes} bytes of workspace; the limit is {limit}")]
    Workspace {
        /// What it needs.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Extents follow from data in too many places one behind the other.
    #[error("node `{node}`: extents follow from data in more than {most} places one behind the other")]
    Cuts {
        /// The first node beyond.
        node: String,
        /// How many there may be.
        most: usize,
    },
    /// A file of measured schedules cannot be read or written.
    #[error("{file}: {problem}")]
    Tuning {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An input or output that was given does not fit the model.
    #[error("{0}")]
    Arguments(String),
}

/// Result of the public API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<CompileError> for Error {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Workspace { bytes, limit } => Self::Workspace { bytes, limit },
            error => Self::Compile(error),
        }
    }
}
