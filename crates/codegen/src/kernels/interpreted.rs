//! Steps that are interpreted, operator by operator: correct for every type, and not worth compiling.

use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::{Error, Graph, Node, NodeId, Op, ValueId};
use tconvc_passes::cost::{Machine, step_cost};
use tconvc_passes::plan::{Step, StepKind};
use tconvc_runtime::program::{Interpreted, Stage, StageInput, Work};

pub(super) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    let graph = builder.graph;
    let mut stages = vec![];
    let mut made: Vec<&[Option<ValueId>]> = vec![];
    for &node in &step.nodes {
        let node = graph.node(node);
        check(node)?;
        let mut inputs = vec![];
        for &input in node.inputs() {
            inputs.push(match input {
                None => None,
                Some(value) => Some(match (graph.constant(value), find(&made, value)) {
                    (Some(tensor), _) => StageInput::Constant(tensor.clone()),
                    (None, Some((stage, output))) => StageInput::Made { stage, output },
                    (None, None) => StageInput::Buffer(builder.operand(value)?, builder.port(value)?),
                }),
            });
        }
        stages.push(Stage { op: node.op.clone(), inputs, outputs: node.outputs().len() });
        made.push(node.outputs());
    }
    let mut outputs = vec![];
    for &output in made.last().copied().unwrap_or_default() {
        outputs.push(match output {
            None => None,
            Some(value) => Some((builder.operand(value)?, builder.port(value)?)),
        });
    }
    builder.push(Work::Interpreted(Interpreted { stages, outputs }));
    Ok(())
}

/// Nanoseconds that the definitions take for a multiply-add, and for an element read or written, about.
const NS_OF_MAC: f64 = 1.5;
const NS_OF_ELEMENT: f64 = 4.0;

/// Nanoseconds that a step takes, about, without what runs [inside](super::inside) of its nodes.
pub(super) fn cost_ns(graph: &Graph, step: &Step) -> f64 {
    let elements: f64 = step.inputs.iter().chain(&step.outputs).map(|&value| elements(graph, value)).sum();
    step_cost(graph, step, &Machine::default()).macs as f64 * NS_OF_MAC + elements * NS_OF_ELEMENT
}

/// The same for a node by itself. Extents that are not known count nothing.
pub(super) fn node_cost_ns(graph: &Graph, node: NodeId) -> f64 {
    let of = |values: &[Option<ValueId>]| values.iter().copied().flatten().collect();
    let (inputs, outputs) = (of(graph.node(node).inputs()), of(graph.node(node).outputs()));
    cost_ns(graph, &Step { kind: StepKind::Single, nodes: vec![node], inputs, outputs })
}

fn elements(graph: &Graph, value: ValueId) -> f64 {
    let shape = graph.ty(value).known_shape();
    shape.map_or(0.0, |shape| shape.iter().map(|&extent| extent as f64).product())
}

/// Refuses operators that nothing is known of.
pub(crate) fn check(node: &Node) -> Result<(), CompileError> {
    let Op::Opaque(op) = &node.op else { return Ok(()) };
    let refused = |error: Error| CompileError::Unsupported {
        node: node.name.clone(),
        op: node.op.name().to_owned(),
        problem: match error {
            Error::Unsupported(problem) => problem,
            other => other.to_string(),
        },
    };
    op.control().map(|_| ()).map_err(refused)
}

/// The stage and output that makes a value.
fn find(made: &[&[Option<ValueId>]], value: ValueId) -> Option<(usize, usize)> {
    made.iter().enumerate().find_map(|(stage, outputs)| {
        outputs.iter().position(|&output| output == Some(value)).map(|output| (stage, output))
    })
}
