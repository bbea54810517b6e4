//! Kernels of convolutions: plain ones and the three forms of transposed ones.
//!
//! - [`problem`] is what is computed, whatever the form, and its transforms; [`layer`] adds weights, bias and post-ops.
//! - [`algorithms`] lists the algorithms and decides which is taken; [`schedule`] decides how it is cut up.
//! - [`weights`] packs the weights, [`microkernel`] writes the tiles, [`emit`] the loops around them.

mod algorithms;
pub(crate) mod costs;
mod emit;
mod layer;
mod microkernel;
mod problem;
mod schedule;
mod weights;

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::interpreted;
use crate::options::FastMath;
use emit::scatter;
use layer::Layer;
use microkernel::post_ops;
use microkernel::post_ops::{Broadcast, PostOps};
use problem::Problem;
use tconvc_ir::ops::Epilogue;
use tconvc_ir::{DType, Op, Tensor, ValueId};
use tconvc_passes::plan::{Step, StepKind};
use weights::{Layout, Weights};

/// Makes the kernel of a convolution, or runs its operators by definition where weights are not constant f32.
pub(crate) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    let graph = builder.graph;
    let (Some(&first), Some(&last)) = (step.nodes.first(), step.nodes.last()) else { return Ok(()) };
    let (first, last) = (graph.node(first), graph.node(last));
    // The node that has weights and bias, and the one with the epilogue and its operands.
    let (core, own) = match step.kind {
        StepKind::Conv => (first, 3),
        StepKind::ZeroInsertion => (last, 3),
        StepKind::SubPixel => (first, 1),
        _ => (first, 2),
    };
    let (Some(x), Some(w), Some(y)) = (first.input(0), core.input(1), last.output(0)) else {
        return Err(builder.unsupported("an input or the output is missing".into()));
    };
    let bias_value = if step.kind == StepKind::Scatter { last.input(1) } else { core.input(2) };
    let floats = |value: ValueId| graph.ty(value).dtype == Some(DType::F32);
    let constant =
        graph.constant(w).is_some() && bias_value.is_none_or(|bias| graph.constant(bias).is_some());
    if !constant || !floats(x) || !floats(w) {
        return interpreted::build(builder, step);
    }
    let (x_shape, w_shape) = (builder.shape(x)?, builder.shape(w)?);
    if let (Op::ColumnGemm(columns), Op::OverlapAdd(add)) = (&first.op, &last.op) {
        let geometry = add.geometry(columns, &x_shape, &w_shape)?;
        let taps = geometry.axes().iter().fold(1usize, |taps, axis| taps.saturating_mul(axis.kernel()));
        if taps > schedule::scatter::MOST_TAPS {
            return interpreted::build(builder, step);
        }
        let channels = geometry.channels();
        let (post_ops, post_op_operands) = PostOps::new(
            builder,
            &add.epilogue,
            last.inputs().get(own..).unwrap_or_default(),
            channels.output(),
        )?;
        let Some(tensor) = graph.constant(w) else { return interpreted::build(builder, step) };
        let (cin, cout) = (channels.input_per_group(), channels.output_per_group());
        let weights = Weights::new(tensor, Layout::Deconv, channels.groups(), cin, cout)?;
        let bias = bias_of(builder, bias_value, channels.output())?;
        let name = format!("f32_scatter_{}", describe(&Problem::of_phases(&geometry)));
        let (input, output) = (builder.operand(x)?, builder.operand(y)?);
        let layer = scatter::Layer {
            name,
            problem: geometry,
            weights,
            bias,
            post_ops,
            post_op_operands,
            input,
            output,
        };
        return scatter::build(builder, &layer);
    }
    let (mut problem, layout, label) = match (&first.op, &last.op) {
        (Op::Conv(conv), _) if step.kind == StepKind::Conv => {
            (Problem::of_conv(&conv.geometry(&x_shape, &w_shape)?), Layout::Conv, "conv")
        }
        (Op::ZeroInsert(insert), Op::Conv(conv)) => {
            let inserted = builder.shape(last.input(0).unwrap_or(x))?;
            let geometry = conv.geometry(&inserted, &w_shape)?;
            (Problem::of_insertion(&geometry, &insert.axes(&x_shape)?), Layout::Conv, "zeroinsert")
        }
        (Op::PhaseConv(phases), Op::Interleave(_)) => {
            (Problem::of_phases(&phases.geometry(&x_shape, &w_shape)?), Layout::Deconv, "subpixel")
        }
        _ => return Err(builder.unsupported("its nodes spell no form".into())),
    };
    if !problem.is_compilable() {
        return interpreted::build(builder, step);
    }
    let none = Epilogue::default();
    let epilogue = match &last.op {
        Op::Conv(conv) => &conv.epilogue,
        Op::Interleave(interleave) => &interleave.epilogue,
        _ => &none,
    };
    let channels = problem.groups * problem.cout;
    let operands = last.inputs().get(own..).unwrap_or_default();
    let (post_ops, post_op_operands) = PostOps::new(builder, epilogue, operands, channels)?;
    problem.addends =
        post_op_operands.iter().filter(|(_, broadcast)| *broadcast == Broadcast::Output).count();
    let bias = bias_of(builder, bias_value, channels)?;
    let Some(weights) = graph.constant(w) else { return interpreted::build(builder, step) };
    let weights = Weights::new(weights, layout, problem.groups, problem.cin, problem.cout)?;
    let (input, output) = (builder.operand(x)?, builder.operand(y)?);
    let name = describe(&problem);
    let layer = Layer { name, problem, weights, bias, post_ops, post_op_operands, input, output };
    let fast_math = builder.fast_math;
    if fast_math == FastMath::WherePays && graph.constant(w).is_some_and(are_integers) {
        builder.fast_math = FastMath::Off;
    }
    let made = algorithms::build(builder, label, &layer);
    builder.fast_math = fast_math;
    made
}

/// Weights that are integers, as those of quantised networks are, ask for exact sums; Winograd's transforms round them.
fn are_integers(weights: &Tensor) -> bool {
    weights.elements::<f32>().is_ok_and(|weights| weights.iter().all(|weight| weight.fract() == 0.0))
}

/// Bias of each channel, zero where there is none, with room to read whole vectors.
fn bias_of(builder: &Builder<'_>, value: Option<ValueId>, channels: usize) -> Result<Vec<f32>, CompileError> {
    let mut bias = match value.and_then(|bias| builder.constant(bias)) {
        Some(bias) => bias.elements::<f32>()?.into_owned(),
        None => vec![0.0; channels],
    };
    post_ops::pad(&mut bias, &builder.target);
    Ok(bias)
}

/// `256x128_k4x4_s2x2`: channels of a group, kernel, strides.
fn describe(problem: &Problem) -> String {
    let spell = |f: fn(&problem::Axis) -> usize| {
        let numbers: Vec<String> = problem
            .axes
            .iter()
            .skip_while(|axis| axis.input == 1 && axis.output == 1)
            .map(|axis| f(axis).to_string())
            .collect();
        if numbers.is_empty() { "1".to_owned() } else { numbers.join("x") }
    };
    let groups = if problem.groups > 1 { format!("_g{}", problem.groups) } else { String::new() };
    let strides = spell(|axis| axis.in_stride * axis.out_stride * axis.input_dilation);
    format!("{}x{}_k{}_s{strides}{groups}", problem.cin, problem.cout, spell(|axis| axis.kernel))
}
