//! Why a graph could not be compiled.

use crate::module::CodeError;
use tconvc_tile::TileError;

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
    /// The code of a kernel would be larger than any is made. Another algorithm, or the interpreter, takes its place.
    #[error("node `{node}`: {found} {what}, {most} at most")]
    Size {
        /// Name of the node.
        node: String,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// The most that is compiled.
        most: usize,
    },
    /// Machine code could not be made or placed.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The program needs more memory than [`Options::workspace_limit`](crate::options::Options) allows.
    #[error("the network needs {bytes} bytes of workspace; the limit is {limit}")]
    Workspace {
        /// What it needs.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Packed weights or workspace are larger than there is memory.
    #[error("no memory for {bytes} bytes of {what}")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
}

impl CompileError {
    /// Whether code, as it was asked for, is too large for the target, its registers above all: smaller code may fit.
    pub(crate) fn is_of_size(&self) -> bool {
        matches!(self, Self::Tile { .. } | Self::Size { .. })
    }
}
