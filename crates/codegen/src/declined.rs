//! Algorithms that were passed over because the target has too few registers for them, as plain values.

use std::fmt;

/// An algorithm that was chosen for a layer and has no code on the target, and what took its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Name of the node.
    pub node: String,
    /// The algorithm, with its schedule.
    pub algorithm: String,
    /// Why it has no code.
    pub reason: String,
    /// The algorithm that was tried next.
    pub instead: String,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, algorithm, reason, instead } = self;
        write!(f, "node `{node}`: `{algorithm}` falls back to `{instead}`: {reason}")
    }
}
