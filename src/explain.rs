//! Why each transposed convolution is computed as it is, and whether it paints checkerboards.

use crate::compiler::Compiler;
use crate::interpreted::InterpretedStep;
use serde::Serialize;
use std::fmt;
use tconvc_passes::{Candidate, Journal, Verdict};

/// The choice for every transposed convolution of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Processor that the costs are for.
    pub target: String,
    /// Threads that the costs are for.
    pub threads: usize,
    /// The layers, in the order in which they run.
    pub layers: Vec<LayerExplanation>,
    /// The steps that are interpreted, with estimated shares of the time; `None` where input shapes are open, because plans are
    /// made for known ones.
    pub interpreted: Option<Vec<InterpretedStep>>,
    /// What looks wrong in the model and does not stop it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The choice for one transposed convolution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerExplanation {
    /// Node of the model.
    pub node: String,
    /// Channels, kernel, stride, pads, extents on one line.
    pub geometry: String,
    /// The form chosen; `None` where none could be.
    pub chosen: Option<String>,
    /// Why.
    pub reason: String,
    /// The forms that were weighed, with multiply-adds, bytes and predicted time.
    pub considered: Vec<Candidate>,
    /// What to expect of the picture, and the cure, when the kernel covers outputs unevenly.
    pub checkerboard: Option<String>,
}

impl Explanation {
    pub(crate) fn new(
        compiler: &Compiler,
        journal: &Journal,
        warnings: Vec<String>,
        interpreted: Option<Vec<InterpretedStep>>,
    ) -> Self {
        let layers = journal.entries().iter().filter(|entry| entry.pass == "forms").map(|entry| {
            let decision = &entry.decision;
            LayerExplanation {
                node: entry.node.clone(),
                geometry: decision.subject.clone(),
                chosen: (entry.verdict == Verdict::Applied).then(|| decision.chosen.clone()),
                reason: decision.reason.clone(),
                considered: decision.considered.clone(),
                checkerboard: decision.advice.clone(),
            }
        });
        Self {
            target: compiler.target.to_string(),
            threads: compiler.threads.count(),
            layers: layers.collect(),
            warnings,
            interpreted,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            writeln!(f, "The model holds no ConvTranspose.")?;
        } else {
            writeln!(f, "costs for {}, {} thread(s)", self.target, self.threads)?;
        }
        for layer in &self.layers {
            writeln!(f, "\n{}  {}", layer.node, layer.geometry)?;
            for candidate in &layer.considered {
                let mark = if layer.chosen.as_ref() == Some(&candidate.what) { "*" } else { " " };
                write!(f, "  {mark} {:<12}", candidate.what)?;
                if let Some(cost) = &candidate.cost {
                    write!(f, " {:>14} MACs {:>12} bytes", cost.macs, cost.bytes)?;
                    if let Some(time) = cost.predicted_us {
                        write!(f, " {time:>10.1} us")?;
                    }
                }
                writeln!(f)?;
            }
            match &layer.chosen {
                Some(chosen) => writeln!(f, "  {chosen}, because {}", layer.reason)?,
                None => writeln!(f, "  undecided: {}", layer.reason)?,
            }
            if let Some(advice) = &layer.checkerboard {
                writeln!(f, "  checkerboard: {advice}")?;
            }
        }
        match self.interpreted.as_deref() {
            None => writeln!(f, "\nWhich steps are interpreted depends on input shapes that are open."),
            Some([]) => writeln!(f, "\nNo step is interpreted."),
            Some(steps) => {
                writeln!(f, "\ninterpreted, with estimated shares:")?;
                steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
            }
        }
    }
}
