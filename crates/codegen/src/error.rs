//! Why a graph could not be compiled, or a compiled program not be run.

use crate::exec::CodeError;
use crate::tile::TileError;

/// Why a graph could not be compiled. Names the node, the operator and what about it is not supported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The graph is at fault.
    #[error(transparent)]
    Graph(#[from] tconvc_ir::Error),
    /// An operator, or a combination of its attributes and types, that is not compiled.
    #[error("node `{node}` ({op}): {problem}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Operator, as ONNX spells it.
        op: String,
        /// What is not supported, and what would be.
        problem: String,
    },
    /// A tile is at fault: an error of the compiler itself.
    #[error("node `{node}`: {source}")]
    Tile {
        /// Name of the node.
        node: String,
        /// What the tile builder says.
        source: TileError,
    },
    /// Machine code could not be made or placed.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// Packed weights or workspace are larger than there is memory.
    #[error("no memory for {bytes} bytes of {what}")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
}

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
    /// An operator that is run by its definition refused its inputs.
    #[error(transparent)]
    Plain(#[from] tconvc_ir::Error),
    /// The session's memory could not be had.
    #[error("no memory for a workspace of {bytes} bytes")]
    Memory {
        /// How much.
        bytes: usize,
    },
}
