//! Makers of kernels: each family turns steps of the plan into machine code, one family a file or folder behind one trait.
//!
//! The driver here asks the family of a step for a plan. Where it gives a reason instead, or the target has no room for its
//! code, the step is interpreted, and the [`Refusal`] goes into the report.

mod cast;
mod control;
mod conv;
mod family;
mod fused_elementwise;
mod gemm;
mod grid_sample;
mod inside;
mod interpreted;
mod movement;
mod none;
mod norm;
mod pool;
mod recurrent;
mod reduce;
pub(crate) mod refusal;
mod resize;
mod short_floats;
mod softmax;
mod unary;
mod walk;

pub use conv::costs::{Decided, KernelCosts};
pub(crate) use interpreted::check as check_operator;

use crate::builder::Builder;
use crate::error::CompileError;
use family::{Codes, KernelFamily, Site};
use refusal::{Estimate, Reason, Refusal};
use tconvc_ir::ops::{Resize, ResizeMode};
use tconvc_ir::{Graph, NodeId, Op, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::{Step, StepKind, is_product};
use tconvc_tile::backend;

/// The family that is asked for a step.
fn family_of(graph: &Graph, step: &Step) -> &'static dyn KernelFamily {
    match step.kind {
        StepKind::Conv | StepKind::ZeroInsertion | StepKind::SubPixel | StepKind::Scatter => {
            return &conv::Convolution;
        }
        StepKind::FusedElementwise => return &fused_elementwise::FusedElementwise,
        StepKind::Product => return &gemm::MatrixProduct,
        StepKind::Single => {}
    }
    match step.nodes.first().map(|&node| &graph.node(node).op) {
        Some(Op::Cast(_)) if casts_floats(graph, step) => &short_floats::ShortFloats,
        Some(Op::Cast(_)) => &cast::Conversion,
        Some(Op::Pool(_)) => &pool::Pooling,
        Some(Op::GlobalPool(_) | Op::Reduce(_)) => &reduce::Reductions,
        Some(Op::MatMul(_) | Op::Gemm(_)) => &gemm::MatrixProduct,
        Some(Op::GridSample(_)) => &grid_sample::Sampling,
        Some(Op::Recurrent(_)) => &recurrent::RecurrentCells,
        Some(Op::Softmax(_)) => &softmax::Softmaxes,
        Some(
            Op::InstanceNormalization(_)
            | Op::GroupNormalization(_)
            | Op::LayerNormalization(_)
            | Op::RmsNormalization(_),
        ) => &norm::Normalisation,
        Some(Op::Resize(Resize { mode: ResizeMode::Linear | ResizeMode::Cubic, .. })) => &resize::Resampling,
        Some(Op::Unary(_) | Op::Binary(_) | Op::Variadic(_)) => &fused_elementwise::FusedElementwise,
        Some(Op::Opaque(op)) if op.control().is_ok() => &control::ControlFlow,
        Some(op) if movement::moves(op) => &movement::Movement,
        _ => &none::NoFamily,
    }
}

fn casts_floats(graph: &Graph, step: &Step) -> bool {
    step.nodes.iter().all(|&node| short_floats::casts(graph, graph.node(node)))
}

/// Makes the kernels of one step; gives the estimates of the parts that it is made in.
pub(crate) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<Vec<Estimate>, CompileError> {
    let (graph, before) = (builder.graph, builder.steps_made());
    let estimate = |builder: &Builder<'_>, nanoseconds, refusal| {
        let estimate = estimate(graph, builder.target, step, nanoseconds, refusal);
        vec![Estimate { steps: builder.steps_made() - before, ..estimate }]
    };
    let refusal = match attempt(builder, step)? {
        Ok(nanoseconds) => return Ok(estimate(builder, nanoseconds, None)),
        Err(refusal) => refusal,
    };
    if let Some(parts) = parts(graph, step) {
        builder.place_in(parts.made, parts.output);
        let mut estimates = build(builder, &parts.product)?;
        estimates.extend(build(builder, &parts.others)?);
        return Ok(estimates);
    }
    interpreted::build(builder, step)?;
    Ok(estimate(builder, interpreted::cost_ns(graph, step), Some(refusal)))
}

/// What [`build`] would say, without code.
pub(crate) fn survey(graph: &Graph, target: &Target, step: &Step) -> Vec<Estimate> {
    let site = Site { graph, target };
    let planned = family_of(site.graph, step).plan(site, step).and_then(|plan| {
        let name = plan.name();
        let backend = backend::of(target, backend::Settings::default());
        for (_, tile) in plan.tiles(site, &name)? {
            backend.allocate(tile)?;
        }
        Ok(plan.cost_ns(site.target))
    });
    match (planned, parts(site.graph, step)) {
        (Ok(nanoseconds), _) => vec![estimate(site.graph, target, step, nanoseconds, None)],
        (Err(_), Some(parts)) => {
            [parts.product, parts.others].iter().flat_map(|part| survey(graph, target, part)).collect()
        }
        (Err(reason), None) => {
            let nanoseconds = interpreted::cost_ns(site.graph, step);
            vec![estimate(site.graph, target, step, nanoseconds, Some(refusal(site.graph, step, &reason)))]
        }
    }
}

/// Of a step that takes so long by itself; what is inside of its nodes comes on top, and is said to be interpreted where it is.
fn estimate(
    graph: &Graph,
    target: &Target,
    step: &Step,
    nanoseconds: f64,
    refused: Option<Refusal>,
) -> Estimate {
    let node = step.nodes.last().map(|&node| graph.node(node).name.clone()).unwrap_or_default();
    let (mut nanoseconds, mut inside) = (nanoseconds, vec![]);
    for &node in &step.nodes {
        let within = inside::of_node(graph, node, target);
        nanoseconds += within.nanoseconds;
        inside.extend(within.interpreted);
    }
    let holds = || refusal(graph, step, &Reason::Holds);
    let refusal = refused.or_else(|| (!inside.is_empty()).then(holds));
    Estimate { node, nanoseconds, refusal, steps: 0, inside }
}

fn refusal(graph: &Graph, step: &Step, reason: &Reason) -> Refusal {
    let (node, op) = step
        .nodes
        .last()
        .map(|&node| (graph.node(node).name.clone(), graph.node(node).op.name().to_owned()))
        .unwrap_or_default();
    Refusal { node, op, family: family_of(graph, step).name(), reason: reason.to_string() }
}

/// Makes kernels where the family and the target allow it. Gives nanoseconds, or why there are none.
fn attempt(builder: &mut Builder<'_>, step: &Step) -> Result<Result<f64, Refusal>, CompileError> {
    let graph = builder.graph;
    let before = builder.steps_made();
    match made(builder, step) {
        Ok(Ok(nanoseconds)) => Ok(Ok(nanoseconds)),
        Ok(Err(reason)) => Ok(Err(refusal(graph, step, &reason))),
        Err(error) => {
            let reason = Reason::of_size(error)?;
            builder.undo(before);
            Ok(Err(refusal(graph, step, &reason)))
        }
    }
}

fn made(builder: &mut Builder<'_>, step: &Step) -> Result<Result<f64, Reason>, CompileError> {
    let site = Site { graph: builder.graph, target: builder.target };
    let plan = match family_of(site.graph, step).plan(site, step) {
        Ok(plan) => plan,
        Err(reason) => return Ok(Err(reason)),
    };
    let is_empty =
        |&output: &ValueId| site.graph.ty(output).known_shape().is_some_and(|shape| shape.contains(&0));
    if step.outputs.iter().all(is_empty) {
        return Ok(Ok(0.0));
    }
    let mut name = plan.name();
    if !name.is_empty() {
        name = builder.unique(&name);
    }
    let tiles = match plan.tiles(site, &name) {
        Ok(tiles) => tiles,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut codes = Codes::default();
    for (purpose, tile) in tiles {
        codes.0.push((purpose, builder.add_tile(Ok(tile))?));
    }
    let nanoseconds = plan.cost_ns(site.target);
    plan.steps(builder, name, &codes)?;
    Ok(Ok(nanoseconds))
}

/// A product of matrices and the elementwise nodes behind it, as steps of their own.
struct Parts {
    /// What the product makes, and the step's output, in whose place it is made.
    made: ValueId,
    output: ValueId,
    product: Step,
    others: Step,
}

fn parts(graph: &Graph, step: &Step) -> Option<Parts> {
    if step.kind != StepKind::Product {
        return None;
    }
    let (products, nodes): (Vec<NodeId>, Vec<NodeId>) =
        step.nodes.iter().partition(|node| is_product(&graph.node(**node).op));
    let (&[product], &[output]) = (products.as_slice(), step.outputs.as_slice()) else { return None };
    let made = graph.node(product).output(0)?;
    let of_product = graph.node(product).inputs();
    let reads = |value: &ValueId| nodes.iter().any(|&node| graph.node(node).inputs().contains(&Some(*value)));
    let inputs = step.inputs.iter().copied();
    let product = Step {
        kind: StepKind::Single,
        nodes: vec![product],
        inputs: inputs.clone().filter(|&value| of_product.contains(&Some(value))).collect(),
        outputs: vec![made],
    };
    let inputs = [made].into_iter().chain(inputs).filter(reads).collect();
    let others = Step { kind: StepKind::FusedElementwise, nodes, inputs, outputs: vec![output] };
    Some(Parts { made, output, product, others })
}
