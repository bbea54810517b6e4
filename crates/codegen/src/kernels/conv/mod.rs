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
use crate::kernels::family::{self, Codes, KernelFamily, KernelPlan, Site};
use crate::kernels::refusal::Reason;
use crate::options::FastMath;
use emit::scatter;
use layer::Layer;
use microkernel::post_ops;
use microkernel::post_ops::{Broadcast, PostOps};
use problem::Problem;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_ir::ops::{Epilogue, EpilogueStep};
use tconvc_ir::{Op, Tensor, ValueId};
use tconvc_machine::Target;
use tconvc_passes::cost::{Machine, step_cost};
use tconvc_passes::plan::{Step, StepKind};
use weights::{Layout, Weights};

/// Convolutions and the three forms of transposed ones.
pub(crate) struct Convolution;

impl KernelFamily for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn plan<'a>(&self, site: Site<'a>, step: &Step) -> Result<Box<dyn KernelPlan<'a> + 'a>, Reason> {
        let graph = site.graph;
        let (Some(&first), Some(&last)) = (step.nodes.first(), step.nodes.last()) else {
            return Err(Reason::variant("a step without nodes", "a convolution"));
        };
        let (first, last) = (graph.node(first), graph.node(last));
        // The node that has weights and bias, and the first of the post-ops' operands.
        let (core, own) = match step.kind {
            StepKind::Conv => (first, 3),
            StepKind::ZeroInsertion => (last, 3),
            StepKind::SubPixel => (first, 1),
            _ => (first, 2),
        };
        let (x, w, y) = (family::input(first, 0)?, family::input(core, 1)?, family::output(last, 0)?);
        let bias = if step.kind == StepKind::Scatter { last.input(1) } else { core.input(2) };
        site.all_f32([x, w])?;
        let made_at_run_time = site.graph.constant(w).is_none().then_some(w);
        site.all_f32(bias)?;
        let (x_shape, w_shape) = (site.shape(x)?, site.shape(w)?);
        let (computed, layout, epilogue) = match (&first.op, &last.op) {
            (Op::ColumnGemm(columns), Op::OverlapAdd(add)) => {
                let geometry = add.geometry(columns, &x_shape, &w_shape)?;
                let taps =
                    geometry.axes().iter().fold(1usize, |taps, axis| taps.saturating_mul(axis.kernel()));
                Reason::within("taps of a kernel in scatter form", taps, schedule::scatter::MOST_TAPS)?;
                (Computed::Patches(geometry), Layout::Deconv, &add.epilogue)
            }
            (Op::Conv(conv), _) if step.kind == StepKind::Conv => {
                let problem = Problem::of_conv(&conv.geometry(&x_shape, &w_shape)?);
                (Computed::Taps("conv", Box::new(problem)), Layout::Conv, &conv.epilogue)
            }
            (Op::ZeroInsert(insert), Op::Conv(conv)) => {
                let geometry = conv.geometry(&site.shape(family::input(last, 0)?)?, &w_shape)?;
                let problem = Problem::of_insertion(&geometry, &insert.axes(&x_shape)?);
                (Computed::Taps("zeroinsert", Box::new(problem)), Layout::Conv, &conv.epilogue)
            }
            (Op::PhaseConv(phases), Op::Interleave(interleave)) => {
                let problem = Problem::of_phases(&phases.geometry(&x_shape, &w_shape)?);
                (Computed::Taps("subpixel", Box::new(problem)), Layout::Deconv, &interleave.epilogue)
            }
            _ => return Err(Reason::variant("a group of nodes that spells no form", "one of the forms")),
        };
        if let Computed::Taps(_, problem) = &computed {
            problem.check_compilable()?;
        }
        let operands = last.inputs().get(own..).unwrap_or_default();
        let mut rest = operands.iter().copied().flatten();
        for fused in epilogue.steps.iter().filter(|fused| !matches!(fused, EpilogueStep::Unary(_))) {
            if let (EpilogueStep::PRelu, Some(slopes)) = (fused, rest.next()) {
                site.constant(slopes, "slopes")?;
            }
        }
        let macs = step_cost(graph, step, &Machine::default()).macs;
        let exact = matches!(&core.op, Op::Conv(conv) if conv.exact);
        let exact = exact || made_at_run_time.is_some();
        let values = [x, w, y];
        Ok(Box::new(Plan { computed, layout, bias, epilogue, operands, values, macs, exact }))
    }
}

/// What is computed.
enum Computed {
    /// Sums of taps, under what the kernel is called.
    Taps(&'static str, Box<Problem>),
    /// Patches that are added up.
    Patches(DeconvGeometry),
}

/// A convolution and its operands.
struct Plan<'a> {
    computed: Computed,
    layout: Layout,
    bias: Option<ValueId>,
    epilogue: &'a Epilogue,
    /// Of the post-ops.
    operands: &'a [Option<ValueId>],
    /// Input, weights and output.
    values: [ValueId; 3],
    macs: u64,
    /// Whether sums are of integers, which Winograd's transforms would round, or weights are made at run time, where nobody
    /// transforms them.
    exact: bool,
}

impl<'a> KernelPlan<'a> for Plan<'a> {
    /// Each algorithm names its own kernels.
    fn name(&self) -> String {
        String::new()
    }

    fn cost_ns(&self, target: &Target) -> f64 {
        self.macs as f64 / (target.rates().threads.macs_per_lane * target.lanes() as f64)
    }

    fn steps(self: Box<Self>, builder: &mut Builder<'a>, _: String, _: &Codes) -> Result<(), CompileError> {
        let w = self.values[1];
        let tensor = match builder.graph.constant(w) {
            Some(tensor) => tensor,
            None => {
                builder.made_weights = Some(builder.operand(w)?);
                builder.numbers(&builder.shape(w)?)?
            }
        };
        if let Some(bias) = self.bias.filter(|&bias| builder.graph.constant(bias).is_none()) {
            builder.made_bias = Some(builder.operand(bias)?);
        }
        let fast_math = builder.fast_math;
        if self.exact {
            builder.fast_math = FastMath::Off;
        }
        let made = self.kernels(builder, tensor);
        builder.fast_math = fast_math;
        (builder.made_weights, builder.made_bias) = (None, None);
        made
    }
}

impl<'a> Plan<'a> {
    /// Adds the kernels; `tensor` holds the weights, or their numbers.
    fn kernels(self, builder: &mut Builder<'a>, tensor: &'a Tensor) -> Result<(), CompileError> {
        let Self { computed, layout, bias, epilogue, operands, values: [x, _, y], .. } = self;
        let (label, mut problem) = match computed {
            Computed::Taps(label, problem) => (label, *problem),
            Computed::Patches(geometry) => {
                let channels = geometry.channels();
                let (post_ops, post_op_operands) =
                    PostOps::new(builder, epilogue, operands, channels.output())?;
                let (cin, cout) = (channels.input_per_group(), channels.output_per_group());
                let weights = Weights::new(tensor, layout, channels.groups(), cin, cout)?;
                let bias = bias_of(builder, bias, channels.output())?;
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
        };
        let channels = problem.groups * problem.cout;
        let (post_ops, post_op_operands) = PostOps::new(builder, epilogue, operands, channels)?;
        problem.addends =
            post_op_operands.iter().filter(|(_, broadcast)| *broadcast == Broadcast::Output).count();
        let bias = bias_of(builder, bias, channels)?;
        let weights = Weights::new(tensor, layout, problem.groups, problem.cin, problem.cout)?;
        let (input, output) = (builder.operand(x)?, builder.operand(y)?);
        let name = describe(&problem);
        let layer = Layer { name, problem, weights, bias, post_ops, post_op_operands, input, output };
        algorithms::build(builder, label, &layer)
    }
}

/// Bias of each channel, or numbers in its place; zero where there is none; with room to read whole vectors.
fn bias_of(builder: &Builder<'_>, bias: Option<ValueId>, channels: usize) -> Result<Vec<f32>, CompileError> {
    let mut bias = match bias.map(|bias| builder.graph.constant(bias)) {
        Some(Some(bias)) => bias.elements::<f32>()?.into_owned(),
        // Made at run time: numbers from 1 on, as those of weights.
        Some(None) => (1..=channels as u32).map(f32::from_bits).collect(),
        None => vec![0.0; channels],
    };
    post_ops::pad(&mut bias, builder.target);
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
