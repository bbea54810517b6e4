//! The steps of a network that no kernels are made for: why, and what they cost.

use serde::Serialize;
use std::fmt::{self, Write as _};
use tconvc_codegen::compile::Estimate;
use tconvc_machine::Target;

/// A step that is interpreted, operator by operator, because no family of kernels takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InterpretedStep {
    /// Node whose result it makes; of one in a graph that another holds, with the way to it: `loop/body/node`.
    pub node: String,
    /// Its operator, as ONNX spells it.
    pub op: String,
    /// The family of kernels that was asked: `convolution`, `movement`.
    pub family: String,
    /// A sentence: what is interpreted, and what would be compiled.
    pub reason: String,
    /// Its share of the time of all steps, in per cent: measured where steps were timed, else estimated. What has extents that
    /// nobody knows before it runs counts too little in an estimate.
    pub share_percent: f64,
    /// The `If`, `Loop` or `Scan` whose graph it is in, whose share has its own in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// Share of the time from which on interpreted steps are worth a warning, in per cent.
const WARNING_PERCENT: f64 = 10.0;

/// Steps that a warning names.
const NAMED: usize = 8;

impl InterpretedStep {
    /// A step that takes so much of the time of all, both in the same unit, and what is inside of it; nothing where it is compiled.
    pub(crate) fn listed(estimate: &Estimate, time: f64, total: f64) -> Vec<Self> {
        let Some(refusal) = &estimate.refusal else { return vec![] };
        let step = Self {
            node: refusal.node.clone(),
            op: refusal.op.clone(),
            family: refusal.family.to_owned(),
            reason: refusal.reason.clone(),
            share_percent: share(time, total),
            within: None,
        };
        let name = step.node.clone();
        let mut all = vec![step];
        for inner in &estimate.inside {
            let part =
                if estimate.nanoseconds > 0.0 { inner.nanoseconds / estimate.nanoseconds } else { 0.0 };
            let first = all.len();
            all.extend(Self::listed(inner, part * time, total));
            all.iter_mut().skip(first).take(1).for_each(|inner| inner.within = Some(name.clone()));
        }
        all
    }

    /// Those of a plan whose parts take so long by estimate, on so many threads.
    pub(crate) fn of_estimates(estimates: &[Estimate], target: &Target, threads: usize) -> Vec<Self> {
        let times: Vec<f64> =
            estimates.iter().map(|estimate| expected_ns(estimate, target, threads)).collect();
        let total = times.iter().sum();
        let steps = estimates.iter().zip(times);
        steps.flat_map(|(estimate, time)| Self::listed(estimate, time, total)).collect()
    }
}

/// Interpreted steps run on one thread, the others on as many as their work is worth.
fn expected_ns(estimate: &Estimate, target: &Target, threads: usize) -> f64 {
    let worth = (estimate.nanoseconds / target.rates().threads.grain_ns).floor();
    let threads = if estimate.refusal.is_some() { 1.0 } else { worth.clamp(1.0, threads.max(1) as f64) };
    estimate.nanoseconds / threads
}

/// Per cent of a total.
pub(crate) fn share(time: f64, total: f64) -> f64 {
    if total > 0.0 { 100.0 * time / total } else { 0.0 }
}

/// The steps that are not within others.
pub(crate) fn outermost(steps: &[InterpretedStep]) -> impl Iterator<Item = &InterpretedStep> {
    steps.iter().filter(|step| step.within.is_none())
}

/// A sentence that names the steps, where they are expected to take over a tenth of the time.
pub(crate) fn warning(steps: &[InterpretedStep]) -> Option<String> {
    let mut all: Vec<_> = outermost(steps).collect();
    let share: f64 = all.iter().map(|step| step.share_percent).sum();
    if share <= WARNING_PERCENT {
        return None;
    }
    all.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent));
    let named = all.iter().take(NAMED);
    let named = named.map(|step| format!("`{}` ({}) {:.0} %", step.node, step.op, step.share_percent));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        let _ = write!(text, " and {} more", all.len() - NAMED);
    }
    Some(format!("interpreted steps are expected to take {share:.0} % of the time: {text}"))
}

/// What is wrong where interpreted steps are denied: a line for each.
pub(crate) fn denied(steps: &[InterpretedStep]) -> String {
    let mut text = "interpreted steps are denied:".to_owned();
    for InterpretedStep { node, op, family, reason, share_percent, .. } in steps {
        let _ =
            write!(text, "\n  node `{node}` ({op}), {share_percent:.1} % of the time: {family}: {reason}");
    }
    text
}

impl fmt::Display for InterpretedStep {
    /// ``rows (Where), 31.2 % of the time: Where has no kernel; ..``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, op, family, reason, share_percent, within } = self;
        let indent = if within.is_some() { "  " } else { "" };
        write!(f, "{indent}{node} ({op}), {share_percent:.1} % of the time: {family}: {reason}")
    }
}
