//! Kernels of convolutions: plain ones and the three forms of transposed ones.

mod bounds;
mod depth;
mod epilogue;
mod job;
mod pack;
mod problem;
mod residues;
mod rows;
mod scatter;
mod tiling;
mod weights;
mod window;
mod winograd;

use super::plain;
use crate::builder::Builder;
use crate::compile::FastMath;
use crate::error::CompileError;
use crate::program::Operand;
use epilogue::{Finish, Follows};
use job::Job;
use problem::Problem;
use tconvc_ir::ops::Epilogue;
use tconvc_ir::{DType, Op, ValueId};
use tconvc_passes::plan::{Step, StepKind};
use weights::{Layout, Weights};

/// Makes the kernel of a convolution, or runs its operators by definition where weights are not constant f32.
pub(super) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
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
        return plain::build(builder, step);
    }
    let (x_shape, w_shape) = (builder.shape(x)?, builder.shape(w)?);
    if let (Op::ColumnGemm(columns), Op::OverlapAdd(add)) = (&first.op, &last.op) {
        let geometry = add.geometry(columns, &x_shape, &w_shape)?;
        let taps = geometry.axes().iter().fold(1usize, |taps, axis| taps.saturating_mul(axis.kernel()));
        if taps > scatter::MOST_TAPS {
            return plain::build(builder, step);
        }
        let channels = geometry.channels();
        let (finish, finish_operands) = Finish::new(
            builder,
            &add.epilogue,
            last.inputs().get(own..).unwrap_or_default(),
            channels.output(),
        )?;
        let Some(tensor) = graph.constant(w) else { return plain::build(builder, step) };
        let (cin, cout) = (channels.input_per_group(), channels.output_per_group());
        let weights = Weights::new(tensor, Layout::Deconv, channels.groups(), cin, cout)?;
        let bias = bias_of(builder, bias_value, channels.output())?;
        let name = format!("f32_scatter_{}", describe(&Problem::of_phases(&geometry)));
        let (input, output) = (builder.operand(x)?, builder.operand(y)?);
        let job = scatter::Job { name, geometry, weights, bias, finish, finish_operands, input, output };
        return scatter::build(builder, &job);
    }
    let (problem, layout, label) = match (&first.op, &last.op) {
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
        return plain::build(builder, step);
    }
    let none = Epilogue::default();
    let epilogue = match &last.op {
        Op::Conv(conv) => &conv.epilogue,
        Op::Interleave(interleave) => &interleave.epilogue,
        _ => &none,
    };
    let channels = problem.groups * problem.cout;
    let operands = last.inputs().get(own..).unwrap_or_default();
    let (finish, finish_operands) = Finish::new(builder, epilogue, operands, channels)?;
    let bias = bias_of(builder, bias_value, channels)?;
    let Some(weights) = graph.constant(w) else { return plain::build(builder, step) };
    let weights = Weights::new(weights, layout, problem.groups, problem.cin, problem.cout)?;
    let (input, output) = (builder.operand(x)?, builder.operand(y)?);
    let name = describe(&problem);
    let (whole, way) = choose(builder, &problem);
    let mut parts = vec![];
    for columns in residues::split(&problem).unwrap_or_default() {
        let (cycles, way) = choose(builder, &columns.problem);
        parts.push((cycles, columns, way));
    }
    let in_parts: f64 = parts.iter().map(|(cycles, _, _)| cycles).sum();
    if parts.is_empty() || whole <= in_parts && builder.fast_math != FastMath::Always {
        let job = Job { name, problem, weights, bias, finish, finish_operands, input, output };
        return make(builder, label, job, way);
    }
    for (_, columns, way) in parts {
        let moved = |operand: Operand| Operand { offset: operand.offset + 4 * columns.first, ..operand };
        let finish_operands = finish_operands.iter().map(|&(operand, follows)| match follows {
            Follows::Output => (moved(operand), follows),
            Follows::Channels => (operand, follows),
        });
        let job = Job {
            name: format!("residues_{name}"),
            weights: weights.with_kernel(columns.kernel),
            bias: bias.clone(),
            finish: finish.clone(),
            finish_operands: finish_operands.collect(),
            input: moved(input),
            output: moved(output),
            problem: columns.problem,
        };
        make(builder, label, job, way)?;
    }
    Ok(())
}

/// The estimated cycles of a convolution, and the filtering that takes so many; directly where there is none.
fn choose(builder: &Builder<'_>, problem: &Problem) -> (f64, Option<winograd::Schedule>) {
    let (direct, _) = depth::split(problem, &builder.target);
    let most = match builder.fast_math {
        FastMath::Off => return (direct, None),
        FastMath::WherePays => direct / winograd::GAIN,
        FastMath::Always => f64::INFINITY,
    };
    match winograd::Schedule::choose(problem, &builder.target, builder.threads) {
        Some((cycles, schedule)) if cycles < most => (cycles, Some(schedule)),
        _ => (direct, None),
    }
}

fn make<'a>(
    builder: &mut Builder<'a>,
    label: &str,
    mut job: Job<'a>,
    schedule: Option<winograd::Schedule>,
) -> Result<(), CompileError> {
    let how = schedule.as_ref().map_or_else(String::new, |schedule| format!("{schedule}_"));
    job.name = format!("f32_{label}_{how}{}", job.name);
    match schedule {
        Some(schedule) => winograd::build(builder, &job, &schedule),
        None => in_depth(builder, &job),
    }
}

/// The kernels of a convolution computed directly, one for each part of its input channels.
fn in_depth<'a>(builder: &mut Builder<'a>, job: &Job<'a>) -> Result<(), CompileError> {
    let (_, parts) = depth::split(&job.problem, &builder.target);
    let last = parts.len() - 1;
    for (number, channels) in parts.iter().enumerate() {
        // All but the first add to what is there; all but the last leave the rest to those behind.
        let (mut finish, mut finish_operands) = (Finish::onto(number > 0), vec![]);
        if number > 0 {
            finish_operands.push((job.output, Follows::Output));
        }
        if number == last {
            finish = finish.then(job.finish.clone());
            finish_operands.extend(job.finish_operands.iter().copied());
        }
        let first = 4 * channels.start * job.problem.input.plane;
        let bias = if number == 0 { job.bias.clone() } else { vec![0.0; job.bias.len()] };
        let part = Job {
            name: job.name.clone(),
            problem: Problem { cin: channels.len(), ..job.problem.clone() },
            weights: job.weights.of_inputs(channels),
            bias,
            finish,
            finish_operands,
            input: Operand { offset: job.input.offset + first, ..job.input },
            output: job.output,
        };
        rows::build(builder, &part)?;
    }
    Ok(())
}

/// Bias of each channel, zero where there is none, with room to read whole vectors.
fn bias_of(builder: &Builder<'_>, value: Option<ValueId>, channels: usize) -> Result<Vec<f32>, CompileError> {
    let mut bias = match value.and_then(|bias| builder.constant(bias)) {
        Some(bias) => bias.elements::<f32>()?.into_owned(),
        None => vec![0.0; channels],
    };
    epilogue::pad(&mut bias, &builder.target);
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
    let strides = spell(|axis| axis.in_stride * axis.out_stride * axis.insert);
    format!("{}x{}_k{}_s{strides}{groups}", problem.cin, problem.cout, spell(|axis| axis.kernel))
}
