//! The one error type of this crate. Each variant names what is wrong and what would be accepted.

use std::fmt;

/// What can go wrong while a graph is read, built, checked or evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes of a model file are not what the format asks for.
    #[error("malformed model: {0}")]
    Malformed(String),
    /// An attribute is missing, has the wrong type, or a value outside its range.
    #[error("attribute `{name}`: {problem}")]
    Attribute {
        /// ONNX spelling of the attribute.
        name: String,
        /// What is wrong, and what would be accepted.
        problem: String,
    },
    /// An operator has too few, too many or unsuitable inputs.
    #[error("input {index}{}: {problem}", named(.name))]
    Input {
        /// Position among the operator's inputs.
        index: usize,
        /// ONNX name of the formal parameter, or empty.
        name: &'static str,
        /// What is wrong, and what would be accepted.
        problem: String,
    },
    /// Extents, pads, strides and dilations do not fit together.
    #[error("geometry: {0}")]
    Geometry(String),
    /// A size does not fit, or is larger than this program accepts.
    #[error("size: {0}")]
    Size(String),
    /// More than the caller's limits allow, or the end of a call that was cancelled.
    #[error("{0}")]
    Limit(crate::budget::Exceeded),
    /// Element types do not fit together.
    #[error("type: {0}")]
    Type(String),
    /// Something that ONNX allows and this program does not do.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// What the caller gives does not fit the inputs of the graph.
    #[error("{0}")]
    Arguments(String),
    /// The graph breaks one of its own rules.
    #[error("graph: {0}")]
    Graph(String),
    /// A text form does not parse.
    #[error("line {line}, column {column}: {problem}")]
    Text {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {problem}")]
    Io {
        /// The file as it was named.
        path: String,
        /// The operating system's words.
        problem: String,
    },
    /// Any of the above, with the model file it happened in.
    #[error("{path}: {source}")]
    File {
        /// The file as it was named.
        path: String,
        /// What happened there.
        source: Box<Error>,
    },
    /// Any of the above, with the node it happened at.
    #[error("node `{node}` ({op}): {source}")]
    Node {
        /// Name of the node.
        node: String,
        /// Operator, as ONNX spells it.
        op: String,
        /// What happened there.
        source: Box<Error>,
    },
}

fn named(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Attribute`].
    pub fn attribute(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Attribute { name: name.into(), problem: problem.into() }
    }

    /// An [`Error::Input`].
    pub fn input(index: usize, name: &'static str, problem: impl Into<String>) -> Self {
        Self::Input { index, name, problem: problem.into() }
    }

    /// Wraps the error with the file it happened in.
    #[must_use]
    pub fn in_file(self, path: &std::path::Path) -> Self {
        Self::File { path: path.display().to_string(), source: Box::new(self) }
    }

    /// Wraps the error with the node it happened at; an error that already names a node stays as it is.
    #[must_use]
    pub fn at(self, node: impl fmt::Display, op: impl fmt::Display) -> Self {
        match self {
            Self::Node { .. } => self,
            source => Self::Node { node: node.to_string(), op: op.to_string(), source: Box::new(source) },
        }
    }
}
