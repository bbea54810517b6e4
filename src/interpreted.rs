//! The steps of a network that no kernels are made for: why, and what they cost.

use serde::Serialize;
use std::fmt;
use tconvc_codegen::compile::{Estimate, Refusal};

/// A step that is interpreted, operator by operator, because no family of kernels takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InterpretedStep {
    /// Node whose result it makes.
    pub node: String,
    /// Its operator, as ONNX spells it.
    pub op: String,
    /// The family of kernels that was asked: `convolution`, `movement`.
    pub family: String,
    /// A sentence: what is interpreted, and what would be compiled.
    pub reason: String,
    /// Its share of the time of all steps, in per cent: measured where steps were timed, else estimated.
    pub share_percent: f64,
}

impl InterpretedStep {
    /// A refused step that takes so much of the time of all, both in the same unit.
    pub(crate) fn new(refusal: &Refusal, time: f64, total: f64) -> Self {
        let Refusal { node, op, family, reason } = refusal.clone();
        Self { node, op, family: family.to_owned(), reason, share_percent: share(time, total) }
    }

    /// Those of a plan whose parts take so long by estimate.
    pub(crate) fn of_estimates(estimates: &[Estimate]) -> Vec<Self> {
        let total = estimates.iter().map(|estimate| estimate.nanoseconds).sum();
        let refused = estimates.iter().filter_map(|estimate| Some((estimate.refusal.as_ref()?, estimate)));
        refused.map(|(refusal, estimate)| Self::new(refusal, estimate.nanoseconds, total)).collect()
    }
}

/// Per cent of a total.
pub(crate) fn share(time: f64, total: f64) -> f64 {
    if total > 0.0 { 100.0 * time / total } else { 0.0 }
}

impl fmt::Display for InterpretedStep {
    /// ``rows (Where), 31.2 %: Where has no kernel; ..``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, op, family, reason, share_percent } = self;
        write!(f, "{node} ({op}), {share_percent:.1} % of the time: {family}: {reason}")
    }
}
