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
    /// The outputs, up to this one, take more memory than the limits allow.
    #[error("output `{name}`, with those before it: {source}")]
    Output {
        /// Name of the output.
        name: String,
        /// What it wants, and what is left.
        source: tconvc_ir::Error,
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
    /// [`Compiler::tune_while`](crate::Compiler::tune_while) was told not to go on.
    #[error("measuring was stopped")]
    Stopped,
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

/// Where in a model an error happened, as far as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// Name of the node.
    pub node: Option<&'a str>,
    /// Operator, as ONNX spells it.
    pub operator: Option<&'a str>,
    /// Attribute, as ONNX spells it.
    pub attribute: Option<&'a str>,
}

impl Error {
    /// The node, operator and attribute at fault.
    pub fn place(&self) -> Place<'_> {
        match self {
            Self::Model(error) => place_in_model(error),
            Self::Compile(CompileError::Graph(error)) => place_in_model(error),
            Self::Compile(CompileError::Unsupported { node, op, .. }) => {
                Place { node: Some(node), operator: Some(op), attribute: None }
            }
            // Of several, the first.
            Self::Interpreted(steps) => match steps.first() {
                Some(step) => Place { node: Some(&step.node), operator: Some(&step.op), attribute: None },
                None => Place::default(),
            },
            Self::Compile(CompileError::Tile { node, .. } | CompileError::Size { node, .. })
            | Self::Cuts { node, .. } => Place { node: Some(node), ..Place::default() },
            _ => Place::default(),
        }
    }
}

fn place_in_model(error: &tconvc_ir::Error) -> Place<'_> {
    use tconvc_ir::Error as Inner;
    match error {
        Inner::File { source, .. } => place_in_model(source),
        Inner::Node { node, op, source } => {
            Place { node: Some(node), operator: Some(op), ..place_in_model(source) }
        }
        Inner::Attribute { name, .. } => Place { attribute: Some(name), ..Place::default() },
        _ => Place::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_through_files_and_nodes() {
        let inner = tconvc_ir::Error::attribute("group", "is 0").at("up", "ConvTranspose");
        let error = Error::from(inner.in_file(std::path::Path::new("x.onnx")));
        let place = error.place();
        assert_eq!(
            (place.node, place.operator, place.attribute),
            (Some("up"), Some("ConvTranspose"), Some("group"))
        );
        assert_eq!(Error::Arguments(String::new()).place(), Place::default());
    }
}
