//! Why a program could not be run.

/// Why a program could not be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Wrong number of inputs or outputs, or one of the wrong size.
    #[error("{what} `{name}`: {expected} bytes expected, {found} given")]
    Size {
        /// "input" or "output".
        what: &'static str,
        /// Name of it.
        name: String,
        /// Bytes it takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Wrong number of buffers.
    #[error("{expected} {what}s expected, {found} given")]
    Count {
        /// "input" or "output".
        what: &'static str,
        /// How many there are.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A buffer does not start at a multiple of four bytes.
    #[error("{what} `{name}` is not aligned to 4 bytes")]
    Alignment {
        /// "input" or "output".
        what: &'static str,
        /// Name of it.
        name: String,
    },
    /// An interpreted operator refused its inputs.
    #[error(transparent)]
    Interpreted(#[from] tconvc_ir::Error),
    /// The session's memory could not be had.
    #[error("no memory for a workspace of {bytes} bytes")]
    Memory {
        /// How much.
        bytes: usize,
    },
}
