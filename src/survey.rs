//! What is known of the steps of a network before code is made, or beside it: how long they take, and why some are interpreted.

use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::interpreted::InterpretedStep;
use crate::stages::MOST_CUTS;
use tconvc_codegen::compile::{self, Estimate};
use tconvc_ir::ops::{Control, InputInfo};
use tconvc_ir::{Graph, Node, NodeId, Op};
use tconvc_passes::cut::cut;
use tconvc_passes::plan::plan;

/// The steps of a network.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub estimates: Vec<Estimate>,
    /// Nodes of whose steps nothing is known yet: their extents follow from data.
    pub undecided: usize,
}

/// Of how many runs of an If one branch is taken, for all that is known.
const SHARE_OF_A_BRANCH: f64 = 0.5;

impl Compiler {
    /// Of a rewritten graph whose shapes are bound, with `cuts` before it.
    pub(crate) fn survey(&self, graph: &Graph, cuts: usize) -> Result<Survey> {
        let parts = cut(graph)?;
        let before = parts.as_ref().map_or(graph, |parts| &parts.before);
        let estimates = compile::survey(before, &plan(before, &self.operand_limits())?, &self.target);
        let mut survey = Survey { estimates, undecided: 0 };
        survey.undecided += self.survey_inside(before, &mut survey.estimates, cuts);
        let Some(parts) = parts else { return Ok(survey) };
        let mut between = Estimate::of_data(&parts.middle);
        survey.undecided += self.survey_inside(&parts.middle, &mut between, cuts);
        survey.estimates.extend(between);
        let mut after = parts.after;
        // Values that extents follow from are not known here.
        if is_bound(&after) && parts.values.is_empty() && after.node_count() > 0 && cuts < MOST_CUTS {
            self.optimise(&mut after)?;
            let next = self.survey(&after, cuts + 1)?;
            survey.estimates.extend(next.estimates);
            survey.undecided += next.undecided;
        } else {
            survey.undecided += after.node_count();
        }
        Ok(survey)
    }

    /// Adds to the estimates of the nodes of control flow what is inside of them: steps of graphs that are compiled when they run.
    /// Gives the number of nodes in graphs that wait for the shapes of data.
    pub(crate) fn survey_inside(&self, graph: &Graph, estimates: &mut [Estimate], cuts: usize) -> usize {
        let mut undecided = 0;
        for id in graph.order().unwrap_or_default() {
            let node = graph.node(id);
            let Some(estimate) =
                control(node).and_then(|_| estimates.iter_mut().find(|estimate| estimate.node == node.name))
            else {
                continue;
            };
            let (inside, waiting) = self.inside_of(graph, id, cuts);
            estimate.nanoseconds += inside.iter().map(|estimate| estimate.nanoseconds).sum::<f64>();
            estimate.inside = inside;
            undecided += waiting;
        }
        undecided
    }

    /// The steps of the graphs inside of a node in one run of it, and how many nodes in them wait for the shapes of data.
    fn inside_of(&self, graph: &Graph, id: NodeId, cuts: usize) -> (Vec<Estimate>, usize) {
        let node = graph.node(id);
        let Some(control) = control(node) else { return (vec![], 0) };
        let info = |&input: &Option<_>| {
            input.map(|id| InputInfo { ty: graph.ty(id), constant: graph.constant(id), extents: None })
        };
        let inputs: Vec<Option<InputInfo<'_>>> = node.inputs().iter().map(info).collect();
        let times = match control {
            Control::If { .. } => SHARE_OF_A_BRANCH,
            Control::Loop { .. } | Control::Scan(_) => control.trip_count(&inputs).unwrap_or(1) as f64,
        };
        let (mut estimates, mut undecided) = (vec![], 0);
        // Where types do not fit, running it will say so.
        for (attribute, mut inner) in control.typed_graphs(&inputs).unwrap_or_default() {
            let nodes = inner.node_count();
            bind_constants(graph, node, &mut inner);
            let survey = (is_bound(&inner) && cuts < MOST_CUTS)
                .then(|| self.optimise(&mut inner).and_then(|_| self.survey(&inner, cuts + 1)));
            let Some(Ok(survey)) = survey else {
                undecided += nodes;
                continue;
            };
            undecided += survey.undecided;
            let path = format!("{}/{attribute}", node.name);
            estimates.extend(survey.estimates.into_iter().map(|estimate| estimate.inside_of(&path, times)));
        }
        (estimates, undecided)
    }

    /// Refuses interpreted steps where they are denied: those of a program, of the nodes behind it, and others.
    pub(crate) fn check_denied(
        &self,
        program: &[Estimate],
        behind: &[Estimate],
        others: Vec<InterpretedStep>,
    ) -> Result<()> {
        if !self.deny_interpreted {
            return Ok(());
        }
        let mut steps = self.interpreted(&[program, behind].concat());
        steps.extend(others);
        if steps.is_empty() { Ok(()) } else { Err(Error::Interpreted(steps)) }
    }

    /// The interpreted ones of these, with their shares of the time.
    pub(crate) fn interpreted(&self, estimates: &[Estimate]) -> Vec<InterpretedStep> {
        InterpretedStep::of_estimates(estimates, &self.target, self.threads.count())
    }
}

fn is_bound(graph: &Graph) -> bool {
    graph.inputs().iter().all(|&id| graph.ty(id).known_shape().is_some())
}

/// What a node decides, where it is one of control flow.
fn control(node: &Node) -> Option<&Control> {
    let Op::Opaque(op) = &node.op else { return None };
    op.control().ok()
}

/// Gives a graph inside of a node the constants of the graph around that it reads.
fn bind_constants(graph: &Graph, node: &Node, inner: &mut Graph) {
    let Op::Opaque(op) = &node.op else { return };
    let captured = &node.inputs()[node.inputs().len().saturating_sub(op.captures)..];
    let places = inner.inputs()[inner.inputs().len().saturating_sub(captured.len())..].to_vec();
    for (place, outer) in places.into_iter().zip(captured) {
        if let Some(tensor) = outer.and_then(|outer| graph.constant(outer)) {
            inner.replace_input(place, tensor.clone());
        }
    }
}
