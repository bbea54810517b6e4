//! Graphs inside of operators, `If`, `Loop` and `Scan`: what runs them for a session. Without one they are interpreted.

use crate::executor::Executor;
use std::sync::Arc;
use tconvc_ir::{Graph, Result, Tensor};

/// A graph inside of an operator, and whose it is.
pub struct Subgraph<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Name of the attribute: `then_branch`, `else_branch`, `body`.
    pub attribute: &'static str,
    /// The graph.
    pub graph: &'a Graph,
    /// For each of its inputs, in order, the tensor that it holds in every run, where that is constant in the graph around it.
    pub constants: &'a [Option<Tensor>],
}

/// Runs graphs inside of operators, for any number of sessions.
pub trait Subgraphs: Send + Sync {
    /// Runs one on values for its inputs, in order, on these threads; gives its outputs.
    ///
    /// # Errors
    /// When an input is missing, or a node cannot be run.
    fn run(
        &self,
        subgraph: &Subgraph<'_>,
        inputs: Vec<Option<Tensor>>,
        executor: &Arc<dyn Executor>,
    ) -> Result<Vec<Tensor>>;
}
