//! How long a step takes, and why it is interpreted: plain values, which reports, errors and tests print alike.

use super::{inside, interpreted};
use crate::error::CompileError;
use std::fmt;
use tconvc_ir::{DType, Graph};
use tconvc_machine::Target;
use tconvc_tile::{TileError, TileErrorKind};

/// What a family of kernels does not take. Each says what would be accepted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reason {
    /// An element type that the family has no kernels for.
    Type { found: Option<DType>, accepted: &'static str },
    /// An operand that kernels want constant.
    RunTime { what: &'static str },
    /// A mode, an attribute, an output or a layout.
    Variant { found: String, accepted: &'static str },
    /// More than kernels are made for.
    Size { what: &'static str, found: usize, most: usize },
    /// Code that the target has no room for.
    Tile(TileErrorKind),
    /// Extents that are only known once it has run.
    Data,
    /// Nodes in the graphs that it holds.
    Holds,
    /// No family computes this operator.
    NoKernel { op: String },
    /// An operand that is not there, or a shape that is not known; or what the graph has wrong.
    Graph(String),
}

impl Reason {
    /// A mode, an attribute, an output or a layout that is interpreted, and the ones that are compiled.
    pub fn variant(found: impl Into<String>, accepted: &'static str) -> Self {
        Self::Variant { found: found.into(), accepted }
    }

    /// Refuses more than `most`.
    ///
    /// # Errors
    /// The reason.
    pub fn within(what: &'static str, found: usize, most: usize) -> Result<(), Self> {
        if found <= most { Ok(()) } else { Err(Self::Size { what, found, most }) }
    }

    /// What does not fit the target, as a reason.
    ///
    /// # Errors
    /// Any other error as it is.
    pub fn of_size(error: CompileError) -> Result<Self, CompileError> {
        match error {
            CompileError::Tile { source, .. } => Ok(source.into()),
            CompileError::Size { what, found, most, .. } => Ok(Self::Size { what, found, most }),
            other => Err(other),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { found: Some(found), accepted } => {
                write!(f, "{found} is interpreted; {accepted} is compiled")
            }
            Self::Type { found: None, accepted } => {
                write!(f, "an element type is not known; {accepted} is compiled")
            }
            Self::RunTime { what } => {
                write!(f, "{what} are made at run time; constant {what} are compiled")
            }
            Self::Variant { found, accepted } => {
                write!(f, "{found} is interpreted; {accepted} is compiled")
            }
            Self::Size { what, found, most } => {
                write!(f, "{found} {what} are interpreted; up to {most} are compiled")
            }
            Self::Tile(kind) => write!(f, "{kind}; code that fits the target's registers is compiled"),
            Self::Data => {
                f.write_str("extents follow from data; what has extents that follow from shapes is compiled")
            }
            Self::Holds => {
                f.write_str("nodes inside of it are interpreted; what has a kernel there is compiled")
            }
            Self::NoKernel { op } => {
                write!(
                    f,
                    "{op} has no kernel; what computes the same from operators that have one is compiled"
                )
            }
            Self::Graph(problem) => write!(f, "{problem}; operands of known type and shape are compiled"),
        }
    }
}

impl From<tconvc_ir::Error> for Reason {
    fn from(error: tconvc_ir::Error) -> Self {
        Self::Graph(error.to_string())
    }
}

impl From<TileError> for Reason {
    fn from(error: TileError) -> Self {
        Self::Tile(error.kind)
    }
}

/// A step that no family of kernels takes, and that is interpreted therefore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the node.
    pub node: String,
    /// Its operator, as ONNX spells it.
    pub op: String,
    /// The family of kernels that was asked: `convolution`, `movement`.
    pub family: &'static str,
    /// A sentence: what is interpreted, and what would be compiled.
    pub reason: String,
}

impl fmt::Display for Refusal {
    /// ``node `up` (ConvTranspose): convolution: slopes are made at run time; constant slopes are compiled``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}` ({}): {}: {}", self.node, self.op, self.family, self.reason)
    }
}

/// What is known of a step of the plan beside its code.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Name of the node whose result it makes; of one inside of another, with the way to it: `loop/body/node`.
    pub node: String,
    /// Nanoseconds that it takes one thread, about.
    pub nanoseconds: f64,
    /// Why it is interpreted; none where it is machine code.
    pub refusal: Option<Refusal>,
    /// Steps of the program that it has become.
    pub steps: usize,
    /// Nodes inside of it, whose time is part of its own: those of the graphs of an `If`, a `Loop` or a `Scan`.
    pub inside: Vec<Estimate>,
}

impl Estimate {
    /// Of the nodes that run between two programs, in their order, because the extents of what they make follow from data. What is
    /// not known of these counts nothing.
    pub fn of_data(middle: &Graph, target: &Target) -> Vec<Self> {
        let of_node = |id| {
            let node = middle.node(id);
            let (name, op) = (node.name.clone(), node.op.name().to_owned());
            let refusal =
                Refusal { node: name.clone(), op, family: "no family", reason: Reason::Data.to_string() };
            let inside = inside::of_node(middle, id, target);
            let nanoseconds = interpreted::node_cost_ns(middle, id) + inside.nanoseconds;
            Self { node: name, nanoseconds, refusal: Some(refusal), steps: 1, inside: inside.interpreted }
        };
        middle.order().unwrap_or_default().into_iter().map(of_node).collect()
    }

    /// With the way to the node that holds it before the names of nodes.
    pub(crate) fn put_under(&mut self, path: &str) {
        self.node = format!("{path}/{}", self.node);
        if let Some(refusal) = &mut self.refusal {
            refusal.node = format!("{path}/{}", refusal.node);
        }
        for estimate in &mut self.inside {
            estimate.put_under(path);
        }
    }

    /// The same, so many times.
    pub(crate) fn scale(&mut self, times: f64) {
        self.nanoseconds *= times;
        for estimate in &mut self.inside {
            estimate.scale(times);
        }
    }
}
