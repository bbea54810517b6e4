//! Operators that no family computes.

use super::family::{KernelFamily, KernelPlan, Site};
use super::refusal::Reason;
use tconvc_passes::plan::Step;

/// Refuses everything.
pub(crate) struct NoFamily;

impl KernelFamily for NoFamily {
    fn name(&self) -> &'static str {
        "no family"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let op = step.nodes.last().map(|&node| site.graph.node(node).op.name().to_owned());
        Err(Reason::NoKernel { op: op.unwrap_or_default() })
    }
}
