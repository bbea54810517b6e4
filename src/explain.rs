//! Why each transposed convolution is computed as it is, and whether it paints checkerboards.

use crate::compiler::{Compiler, Survey};
use crate::interpreted::{self, InterpretedStep};
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
    /// The steps that are interpreted, and the nodes inside of these, with estimated shares of the time; `None` where input shapes
    /// are open, because plans are made for known ones.
    pub interpreted: Option<Vec<InterpretedStep>>,
    /// Nodes behind extents that follow from data: which of these are interpreted turns out when they run.
    #[serde(skip_serializing_if = "is_zero")]
    pub undecided: usize,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Explanation {
    pub(crate) fn new(
        compiler: &Compiler,
        journal: &Journal,
        warnings: Vec<String>,
        survey: Option<Survey>,
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
            undecided: survey.as_ref().map_or(0, |survey| survey.undecided),
            interpreted: survey.map(|survey| compiler.interpreted(&survey.estimates)),
        }
    }
}

impl Explanation {
    /// A sentence that names the interpreted steps, where they are expected to take over a tenth of the time.
    pub fn interpreted_warning(&self) -> Option<String> {
        interpreted::warning(self.interpreted.as_deref()?)
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
            None => writeln!(f, "\nWhich steps are interpreted depends on input shapes that are open.")?,
            Some([]) => writeln!(f, "\nNo step is interpreted.")?,
            Some(steps) => {
                writeln!(f, "\ninterpreted, with estimated shares:")?;
                steps.iter().try_for_each(|step| writeln!(f, "  {step}"))?;
            }
        }
        match self.undecided {
            0 => Ok(()),
            nodes => writeln!(
                f,
                "Extents of {nodes} node(s) follow from data; whether these are interpreted is in the report of a run."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, Model, Target};

    /// What is said about a layer, for so many threads.
    fn explained(layer: &str, target: &str, threads: usize) -> Explanation {
        let graph = layer.parse().unwrap();
        let compiler = Compiler::new().target(Target::parse(target).unwrap()).threads(threads);
        compiler.explain(&Model::from_graph(graph)).unwrap()
    }

    /// The number behind some words.
    fn number_behind(text: &str, words: &str) -> Option<f64> {
        text.split_once(words)?.1.split(' ').next()?.parse().ok()
    }

    #[test]
    fn costs_choice_and_factor_are_for_the_same_threads() {
        let mut seen = 0;
        for (input, weights, attributes) in [
            ("1, 256, 16, 16", "256, 128, 4, 4", "strides=[2, 2], pads=[1, 1, 1, 1]"),
            ("1, 100, 1, 1", "100, 1024, 4, 4", "strides=[1, 1]"),
            ("1, 256, 800", "256, 1, 16", "strides=[8], pads=[4, 4]"),
            ("1, 512, 14, 14", "512, 1, 1, 1", "strides=[3, 3]"),
            ("1, 16, 8, 8, 8", "16, 8, 2, 2, 2", "strides=[2, 2, 2]"),
        ] {
            let layer = format!(
                "input %x : f32[{input}]\nconst @w : f32[{weights}] = seeded(1)\n\
                 %y = ConvTranspose(%x, @w) {{{attributes}}}\noutput %y\n"
            );
            for target in ["x86-64-v2@zen3", "x86-64-v3@zen3", "x86-64-v4@zen5", "aarch64@neoverse-n1"] {
                let alone = explained(&layer, target, 1);
                for threads in [1, 2, 4, 8] {
                    let explanation = explained(&layer, target, threads);
                    assert_eq!(explanation.threads, threads);
                    let [layer] = explanation.layers.as_slice() else { panic!("{explanation}") };
                    assert_eq!(layer.chosen, alone.layers[0].chosen, "{explanation}");
                    let us = |layer: &LayerExplanation, chosen: bool| {
                        let those = layer
                            .considered
                            .iter()
                            .filter(|candidate| (Some(&candidate.what) == layer.chosen.as_ref()) == chosen);
                        let times = those.filter_map(|candidate| candidate.cost?.predicted_us);
                        times.fold(f64::INFINITY, f64::min)
                    };
                    let factor = us(layer, false) / us(layer, true);
                    let gain = us(&alone.layers[0], true) / us(layer, true);
                    assert!(gain > 0.99 && gain < 1.01 * threads as f64, "{threads}: {gain}\n{explanation}");
                    // The first layer is work enough for all of them.
                    let least = if input == "1, 256, 16, 16" { 0.8 * threads as f64 } else { 0.99 };
                    assert!(gain > least, "{threads}: {gain}\n{explanation}");
                    let said = match number_behind(&layer.reason, &format!("on {threads} threads ")) {
                        None if layer.reason.contains(" threads ") => {
                            let form = Form::ALL.into_iter().find(|form| {
                                layer.reason.contains(&format!("{threads} threads {form} would be "))
                            });
                            assert!(form.is_some(), "{}", layer.reason);
                            1.0 / number_behind(&layer.reason, " would be ").unwrap()
                        }
                        _ => number_behind(&layer.reason, "it is predicted ").unwrap(),
                    };
                    assert!((said / factor - 1.0).abs() < 0.02, "{threads}: {factor}\n{explanation}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 5 * 4 * 4);
    }
}
