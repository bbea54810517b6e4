//! What was compiled, as data: text, JSON and snapshots print the same value.

use crate::compiler::Compiler;
use crate::interpreted::{self, InterpretedStep, outermost};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use tconvc_codegen::compile::Estimate;
use tconvc_ir::Graph;
use tconvc_passes::cost::{Machine, step_cost};
use tconvc_passes::plan::Plan;
use tconvc_passes::{Candidate, Journal};
use tconvc_runtime::program::{Program, Work};

/// A compiled network: its transposed convolutions, its steps, and the sizes of all memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Processor that the code is for.
    pub target: String,
    /// Threads that share each step.
    pub threads: usize,
    /// A row for each transposed convolution, in the order in which they run.
    pub layers: Vec<LayerReport>,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// Those of them that are interpreted, and the nodes inside of these, each with its reason and its share of the time.
    pub interpreted: Vec<InterpretedStep>,
    /// By the number of the step: what is known of those that are interpreted.
    #[serde(skip)]
    pub(crate) refused: Vec<(usize, Estimate)>,
    /// Algorithms that the target has too few registers for, and what took their place, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<String>,
    /// Milliseconds from the model's graph to code that can run, packing of weights included.
    pub compile_ms: f64,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Bytes of packed weights and constants.
    pub weight_bytes: usize,
    /// Bytes of the workspace: activations, and scratch memory of each thread.
    pub workspace_bytes: usize,
    /// Bytes of the workspace that activations take.
    pub arena_bytes: usize,
    /// The most bytes of activations that are alive at once: no plan takes less.
    pub arena_lower_bound_bytes: usize,
    /// What looks wrong in the model and does not stop it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A transposed convolution and how it is computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// Node of the model.
    pub node: String,
    /// Channels, kernel, stride, pads, extents on one line.
    pub geometry: String,
    /// The form chosen.
    pub form: String,
    /// Why.
    pub reason: String,
    /// The forms that were weighed, with their cost.
    pub considered: Vec<Candidate>,
    /// Kernel that runs it.
    pub kernel: String,
    /// How it is cut up: tiles, windows, parts; empty where there is no choice.
    pub schedule: String,
    /// Microseconds that the cost model expects.
    pub predicted_us: Option<f64>,
    /// Microseconds measured, the median of the runs that were timed.
    pub measured_us: Option<f64>,
}

/// A step of the program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Node whose result it makes.
    pub node: String,
    /// What runs: the kernel's name, `interpreted OP` for one that has no kernel, or `copy`.
    pub kernel: String,
    /// Of a convolution: how it is cut up; else empty.
    pub schedule: String,
    /// Threads that share it.
    pub threads: usize,
    /// Least microseconds for its multiply-adds and bytes at the rates of the cost model; of several steps for one node,
    /// each has the same share.
    pub roofline_us: f64,
    /// Microseconds that it takes one thread by estimate.
    pub estimated_us: f64,
    /// Microseconds measured, the median of the runs that were timed.
    pub measured_us: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        compiler: &Compiler,
        journal: &Journal,
        (graph, plan): (&Graph, &Plan),
        (program, estimates): (&Program, &[Estimate]),
        compile_ms: f64,
    ) -> Self {
        let machine = Machine::new(compiler.target.rates(), compiler.threads.count());
        let mut rooflines: HashMap<&str, f64> = HashMap::new();
        for step in &plan.steps {
            if let Some(&node) = step.nodes.last() {
                let least = step_cost(graph, step, &machine).predicted_us.unwrap_or(0.0);
                *rooflines.entry(&graph.node(node).name).or_default() += least;
            }
        }
        let parts = |node: &str| program.steps().iter().filter(|step| step.node == node).count();
        // Copies to outputs stand behind all estimates.
        let mut of_steps = estimates.iter().flat_map(|estimate| {
            let microseconds = estimate.nanoseconds / 1e3 / estimate.steps.max(1) as f64;
            std::iter::repeat_n((microseconds, Some(estimate)), estimate.steps)
        });
        let mut refused = vec![];
        let steps: Vec<StepReport> = program
            .steps()
            .iter()
            .enumerate()
            .map(|(number, step)| {
                let (estimated_us, estimate) = of_steps.next().unwrap_or((0.0, None));
                let is_refused = estimate.is_some_and(|known| known.refusal.is_some());
                let (kernel, threads) = match &step.work {
                    Work::Kernel(kernel) => (kernel.name.clone(), kernel.partition.len().saturating_sub(1)),
                    Work::Interpreted(interpreted) => {
                        let names: Vec<&str> =
                            interpreted.stages.iter().map(|stage| stage.op.name()).collect();
                        // What is inside of an If is compiled when it runs.
                        let how = if is_refused { "interpreted" } else { "control" };
                        (format!("{how} {}", names.join("+")), 1)
                    }
                    Work::Copy { .. } => ("copy".into(), 1),
                };
                let (node, schedule) = (step.node.clone(), step.schedule.clone());
                let roofline_us = rooflines.get(node.as_str()).copied().unwrap_or(0.0) / parts(&node) as f64;
                refused.extend(
                    estimate.filter(|known| known.refusal.is_some()).map(|known| (number, known.clone())),
                );
                StepReport { node, kernel, schedule, threads, roofline_us, estimated_us, measured_us: None }
            })
            .collect();
        let layers = journal.applied().filter(|entry| entry.pass == "forms").map(|entry| {
            let own: Vec<&StepReport> = steps.iter().filter(|step| step.node == entry.node).collect();
            let kernels: Vec<&str> = own.iter().map(|step| step.kernel.as_str()).collect();
            let mut schedules: Vec<&str> = own.iter().map(|step| step.schedule.as_str()).collect();
            schedules.dedup();
            LayerReport {
                node: entry.node.clone(),
                geometry: entry.decision.subject.clone(),
                form: entry.decision.chosen.clone(),
                reason: entry.decision.reason.clone(),
                considered: entry.decision.considered.clone(),
                kernel: kernels.join(" + "),
                schedule: schedules.join(" + "),
                predicted_us: entry.decision.cost.and_then(|cost| cost.predicted_us),
                measured_us: None,
            }
        });
        let report = Self {
            target: compiler.target.to_string(),
            threads: compiler.threads.actual(),
            layers: layers.collect(),
            interpreted: vec![],
            refused,
            steps: steps.clone(),
            declined: vec![],
            compile_ms,
            code_bytes: program.code_bytes(),
            weight_bytes: program.weight_bytes(),
            workspace_bytes: program.workspace_bytes(),
            arena_bytes: plan.arena_bytes,
            arena_lower_bound_bytes: plan.lower_bound_bytes,
            warnings: vec![],
        };
        report.with_shares()
    }

    /// Of nodes that run between two programs.
    pub(crate) fn of_middle(estimates: Vec<Estimate>) -> Self {
        let step = |estimate: &Estimate| StepReport {
            node: estimate.node.clone(),
            kernel: format!("interpreted {}", estimate.refusal.as_ref().map_or("", |refusal| &refusal.op)),
            schedule: String::new(),
            threads: 1,
            roofline_us: 0.0,
            estimated_us: estimate.nanoseconds / 1e3,
            measured_us: None,
        };
        let steps = estimates.iter().map(step).collect();
        Self { steps, refused: estimates.into_iter().enumerate().collect(), ..Self::default() }.with_shares()
    }

    /// With what runs after it: its layers and steps behind these, and the sums of all sizes.
    pub(crate) fn followed_by(mut self, next: Self) -> Self {
        let before = self.steps.len();
        self.layers.extend(next.layers);
        self.steps.extend(next.steps);
        self.refused.extend(next.refused.into_iter().map(|(number, estimate)| (before + number, estimate)));
        self.declined.extend(next.declined);
        self.compile_ms += next.compile_ms;
        self.code_bytes += next.code_bytes;
        self.weight_bytes += next.weight_bytes;
        self.workspace_bytes += next.workspace_bytes;
        self.arena_bytes += next.arena_bytes;
        self.arena_lower_bound_bytes += next.arena_lower_bound_bytes;
        self.with_shares()
    }

    /// With [`Report::interpreted`] as the times of its steps are now.
    fn with_shares(mut self) -> Self {
        let is_measured = self.is_measured();
        let time = |step: &StepReport| match step.measured_us {
            measured if is_measured => measured.unwrap_or(0.0),
            _ => step.estimated_us / step.threads.max(1) as f64,
        };
        let total = self.steps.iter().map(time).sum();
        let listed = |(number, estimate): &(usize, Estimate)| {
            let time = self.steps.get(*number).map_or(0.0, time);
            InterpretedStep::listed(estimate, time, total)
        };
        self.interpreted = self.refused.iter().flat_map(listed).collect();
        self
    }

    /// With a warning where interpreted steps are expected to take much of the time.
    pub(crate) fn with_warning(mut self) -> Self {
        self.warnings.extend(interpreted::warning(&self.interpreted));
        self
    }

    /// A row for each step with its share of the time, and how much of its own time the cost model's rates account for; see [`Report::set_times`].
    pub fn profile(&self) -> String {
        let total: f64 = self.steps.iter().filter_map(|step| step.measured_us).sum();
        let rows = self.steps.iter().map(|step| {
            let time = step.measured_us.unwrap_or(0.0);
            let share = if total > 0.0 { 100.0 * time / total } else { 0.0 };
            vec![
                format!("{time:.1}"),
                format!("{share:.1}"),
                if time > 0.0 { format!("{:.0}", 100.0 * step.roofline_us / time) } else { "-".into() },
                step.threads.to_string(),
                step.kernel.clone(),
                step.schedule.clone(),
                step.node.clone(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        fmt::from_fn(|f| {
            table(
                f,
                &["us", "%", "roofline %", "threads", "kernel", "schedule", "node"],
                rows.iter().cloned(),
            )
        })
        .to_string()
            + &self.interpreted_text()
    }

    /// A line for each interpreted step, below one with their share of the time; empty where there is none.
    fn interpreted_text(&self) -> String {
        if self.interpreted.is_empty() {
            return String::new();
        }
        let share: f64 = outermost(&self.interpreted).map(|step| step.share_percent).sum();
        let how = if self.is_measured() { "measured" } else { "estimated" };
        let (count, all) = (outermost(&self.interpreted).count(), self.steps.len());
        let mut text = format!("interpreted: {count} of {all} steps, {share:.1} % of the time ({how})\n");
        for step in &self.interpreted {
            let _ = writeln!(text, "  {step}");
        }
        text
    }

    /// Whether steps were timed.
    fn is_measured(&self) -> bool {
        self.steps.iter().any(|step| step.measured_us.is_some())
    }

    /// Sets the measured times from microseconds a step.
    pub fn set_times(&mut self, step_us: &[f64]) {
        for (step, &time) in self.steps.iter_mut().zip(step_us) {
            step.measured_us = Some(time);
        }
        *self = std::mem::take(self).with_shares();
        for layer in &mut self.layers {
            let times =
                self.steps.iter().filter(|step| step.node == layer.node).filter_map(|step| step.measured_us);
            layer.measured_us = Some(times.sum());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let rows = self.layers.iter().map(|layer| {
            let (predicted, measured) = (time(layer.predicted_us), time(layer.measured_us));
            [&layer.node, &layer.geometry, &layer.form, &layer.kernel, &layer.schedule, &predicted, &measured]
                .map(Clone::clone)
                .to_vec()
        });
        if !self.layers.is_empty() {
            let head =
                ["ConvTranspose", "geometry", "form", "kernel", "schedule", "predicted us", "measured us"];
            table(f, &head, rows)?;
            writeln!(f)?;
            for layer in &self.layers {
                writeln!(f, "{}: {}, because {}", layer.node, layer.form, layer.reason)?;
            }
            writeln!(f)?;
        }
        for declined in &self.declined {
            writeln!(f, "{declined}")?;
        }
        writeln!(f, "target     {}, {} thread(s)", self.target, self.threads)?;
        writeln!(f, "steps      {}", self.steps.len())?;
        writeln!(f, "compile    {:.1} ms", self.compile_ms)?;
        writeln!(f, "code       {} bytes", self.code_bytes)?;
        writeln!(f, "weights    {} bytes", self.weight_bytes)?;
        writeln!(
            f,
            "workspace  {} bytes, {} of them activations (at least {} are alive at once)",
            self.workspace_bytes, self.arena_bytes, self.arena_lower_bound_bytes
        )?;
        f.write_str(&self.interpreted_text())
    }
}

/// Columns as wide as their widest cell.
fn table(f: &mut fmt::Formatter<'_>, head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> fmt::Result {
    let mut lines = vec![head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
