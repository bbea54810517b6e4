//! `If`, `Loop` and `Scan`: the step decides what runs; the graphs inside are compiled when they are, for what arrives.

use super::family::{Codes, KernelFamily, KernelPlan, Site};
use super::interpreted;
use super::refusal::Reason;
use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::Op;
use tconvc_machine::Target;
use tconvc_passes::plan::Step;

/// Operators with graphs inside.
pub(crate) struct ControlFlow;

impl KernelFamily for ControlFlow {
    fn name(&self) -> &'static str {
        "control flow"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let node = site.single(step)?;
        match &node.op {
            Op::Opaque(op) if op.control().is_ok() => {
                Ok(Box::new(Decision { step: step.clone(), cost: interpreted::cost_ns(site.graph, step) }))
            }
            op => Err(Reason::variant(op.name(), "If, Loop or Scan")),
        }
    }
}

/// A step that decides.
struct Decision {
    step: Step,
    cost: f64,
}

impl<'a> KernelPlan<'a> for Decision {
    fn name(&self) -> String {
        String::new()
    }

    /// What goes in is copied; what the graphs take is not known before they run.
    fn cost_ns(&self, _: &Target) -> f64 {
        self.cost
    }

    fn steps(self: Box<Self>, builder: &mut Builder<'a>, _: String, _: &Codes) -> Result<(), CompileError> {
        interpreted::build(builder, &self.step)
    }
}
