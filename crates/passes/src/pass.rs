//! What a pass is: [`Pass`] for anything that changes a graph, [`Rewrite`] for the usual kind, which looks at one node and
//! its neighbours. The driver that applies a rewrite wherever its pattern occurs is here, too.

use crate::error::{Error, Result};
use crate::journal::{Decision, Journal};
use crate::options::Options;
use tconvc_ir::{Graph, NodeId};

/// What a pass says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Name, as `--stop-after` takes it.
    pub name: &'static str,
    /// What it does, on one line.
    pub summary: &'static str,
    /// What it looks for.
    pub pattern: &'static str,
    /// What it claims about cost; never that it rises.
    pub claim: &'static str,
}

/// What a pass works with besides the graph.
pub struct Context<'a> {
    /// What the caller asked for.
    pub options: &'a Options,
    /// Where decisions and refusals are noted.
    pub journal: &'a mut Journal,
    /// Rewrites that may still be made; `None` is without limit.
    pub budget: Option<usize>,
}

impl Context<'_> {
    /// True when no rewrite may be made any more.
    pub fn exhausted(&self) -> bool {
        self.budget == Some(0)
    }

    /// Notes a rewrite that was made, and takes it from the budget.
    pub fn applied(&mut self, pass: &str, node: &str, op: &str, decision: Decision) {
        self.journal.apply(pass, node, op, decision);
        self.budget = self.budget.map(|left| left.saturating_sub(1));
    }
}

/// Something that changes a graph and leaves what it computes.
pub trait Pass {
    /// Name, pattern and claim.
    fn about(&self) -> About;

    /// Rewrites until nothing is left to do. True when anything changed. Stops early when the context is exhausted.
    ///
    /// # Errors
    /// When the graph is at fault; a pattern that is not there, or is refused, is no error.
    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool>;
}

/// Why a rewrite does nothing at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// The pattern is not there: nothing to tell.
    Elsewhere,
    /// The pattern is there, and this speaks against the rewrite.
    Refused(String),
}

/// What [`Rewrite::find`] gives: what the pattern bound, or why there is nothing to do.
pub type Site<T> = Result<T, Miss>;

/// A guard: `Err(Miss::Refused(reason))` unless the condition holds.
///
/// # Errors
/// With the reason, when the condition does not hold.
pub fn require<R: Into<String>>(condition: bool, reason: impl FnOnce() -> R) -> Site<()> {
    if condition { Ok(()) } else { Err(Miss::Refused(reason().into())) }
}

/// A pass that looks at one node and its neighbours.
pub trait Rewrite {
    /// What the pattern binds: the values and nodes that [`Rewrite::apply`] needs.
    type Found;

    /// Name, pattern and claim.
    fn about(&self) -> About;

    /// Pattern and guard: does the rewrite apply with this node as the pattern's root? Use `?` on an `Option` made a
    /// [`Miss::Elsewhere`] for the pattern, and [`require`] for the guard.
    ///
    /// # Errors
    /// When there is nothing to do at this node.
    fn find(&self, graph: &Graph, node: NodeId, options: &Options) -> Site<Self::Found>;

    /// Makes the change.
    ///
    /// # Errors
    /// When the graph is at fault.
    fn apply(&self, graph: &mut Graph, node: NodeId, found: Self::Found) -> Result<Decision>;
}

impl<R: Rewrite> Pass for R {
    fn about(&self) -> About {
        Rewrite::about(self)
    }

    fn run(&self, graph: &mut Graph, context: &mut Context<'_>) -> Result<bool> {
        let name = Rewrite::about(self).name;
        // Each sweep visits every node once, so a chain of n nodes needs at most n sweeps and far fewer rewrites.
        let limit = 64 + 16 * graph.node_count();
        let mut rewrites = 0;
        loop {
            let before = rewrites;
            context.journal.forget_refusals(name);
            for node in graph.order()? {
                while graph.contains_node(node) && !context.exhausted() {
                    let (label, op) = (graph.node(node).name.clone(), graph.node(node).op.name().to_owned());
                    match self.find(graph, node, context.options) {
                        Ok(found) => {
                            let decision = self.apply(graph, node, found)?;
                            context.applied(name, &label, &op, decision);
                            rewrites += 1;
                        }
                        Err(Miss::Refused(reason)) => {
                            context.journal.refuse(name, &label, &op, reason);
                            break;
                        }
                        Err(Miss::Elsewhere) => break,
                    }
                    if rewrites > limit {
                        return Err(Error::Endless { pass: name.into(), rewrites });
                    }
                }
            }
            if rewrites == before || context.exhausted() {
                return Ok(rewrites > 0);
            }
        }
    }
}
