//! From a planned graph to a program.

use crate::ahead::Ahead;
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::{self, CodeModule, LOWERING_NS, LoweredModule};
use crate::jobs;
use crate::kernels;
use crate::memory::AlignedBytes;
use crate::packing::PACKED_PER_NS;
use crate::program::{Operand, Port, Program, Space, Step, Work};
use crate::target::Target;
use std::collections::BTreeMap;
use std::sync::Arc;
use tconvc_ir::{Graph, ValueId};
use tconvc_passes::plan::Plan;
use typed_arena::Arena;

/// What a program is compiled for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processor.
    pub target: Target,
    /// Threads that share each step; at least 1.
    pub threads: usize,
    /// Whether Cranelift's IR is kept for listings.
    pub keep_text: bool,
    /// Whether sums may be rounded otherwise than by the definition, where that makes them cheaper.
    pub fast_math: FastMath,
    /// Schedules of convolutions that are not to be chosen by estimate.
    pub schedules: Schedules,
    /// Whether [`Compiled::choices`] are collected.
    pub list_choices: bool,
    /// What was made ready while the model was read.
    pub ahead: Option<Arc<Ahead>>,
}

impl Options {
    /// One thread, no listing, filtering where it pays, every schedule chosen by estimate.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            threads: 1,
            keep_text: false,
            fast_math: FastMath::WherePays,
            schedules: Schedules::default(),
            list_choices: false,
            ahead: None,
        }
    }
}

/// Names of schedules by what they compute, as [`Choice`] spells both. A name that does not fit is passed over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedules(Arc<BTreeMap<String, String>>);

impl Schedules {
    /// The name for a problem; its key is only made where there are any.
    pub(crate) fn get(&self, problem: impl FnOnce() -> String) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&problem()).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Schedules {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(names: T) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }
}

/// The schedule of a convolution, and others that differ from it in one decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What is computed: channels, extents, strides, taps.
    pub problem: String,
    /// Name of the schedule.
    pub chosen: String,
    /// Names of the others, each once.
    pub others: Vec<String>,
}

/// Whether convolutions take Winograd's filtering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastMath {
    /// No.
    Off,
    /// Where it is estimated to be faster.
    WherePays,
    /// Wherever there is one, so that tests reach what would not pay.
    Always,
}

/// Refuses a graph with operators that cannot be compiled whatever the extents.
///
/// # Errors
/// Names the first of them.
pub fn check_operators(graph: &Graph) -> Result<(), CompileError> {
    graph.nodes().try_for_each(kernels::check_operator)
}

/// A compiled network whose code is not in executable memory yet: all that a listing for another machine needs.
pub struct Compiled {
    module: LoweredModule,
    weights: Vec<AlignedBytes>,
    parts: Parts,
}

/// What is known of a program before its weights and its code are written.
struct Parts {
    steps: Vec<Step>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    arena_bytes: usize,
    scratch_bytes: usize,
    weight_bytes: usize,
    threads: usize,
    choices: Vec<Choice>,
}

impl Compiled {
    /// The schedules of the convolutions that have several, where [`Options::list_choices`] asks for them.
    pub fn choices(&self) -> &[Choice] {
        &self.parts.choices
    }

    /// The code, for listings.
    pub fn module(&self) -> &LoweredModule {
        &self.module
    }

    /// Places the code in executable memory.
    ///
    /// # Errors
    /// When the target is not this machine, or there is no memory.
    pub fn finish(self) -> Result<Program, CompileError> {
        let Parts { steps, inputs, outputs, arena_bytes, scratch_bytes, weight_bytes, threads, .. } =
            self.parts;
        Ok(Program {
            code: Arc::new(self.module.finish()?),
            steps: steps.into(),
            weights: self.weights.into(),
            weight_bytes,
            inputs: inputs.into(),
            outputs: outputs.into(),
            arena_bytes,
            scratch_bytes,
            threads,
        })
    }
}

/// Compiles a graph along its plan.
///
/// # Errors
/// When a node cannot be compiled; names node, operator and attribute.
pub fn compile(graph: &Graph, plan: &Plan, options: &Options) -> Result<Compiled, CompileError> {
    let blocks = Arena::new();
    let make_ready = || exec::make_ready(&options.target);
    let (parts, module) =
        jobs::with_helpers(expected_ns(graph, plan), jobs::processors, make_ready, |queue| {
            let mut module = CodeModule::new(&options.target)?;
            if options.keep_text {
                module = module.keep_text();
            }
            build(Builder::new((graph, plan), options, module, &blocks, queue))
        })?;
    Ok(Compiled { module: module.lower()?, weights: blocks.into_vec(), parts })
}

/// What the jobs of a program take, about.
fn expected_ns(graph: &Graph, plan: &Plan) -> usize {
    let constants = graph.values().filter_map(|(id, _)| graph.constant(id));
    let floats: usize = constants.map(|tensor| tensor.bytes().len() / 4).sum();
    floats / PACKED_PER_NS + plan.steps.len() * FUNCTIONS_OF_A_STEP * LOWERING_NS
}

/// On an average, about.
const FUNCTIONS_OF_A_STEP: usize = 4;

fn build(mut builder: Builder<'_>) -> Result<(Parts, CodeModule), CompileError> {
    let (graph, plan) = (builder.graph, builder.plan);
    for step in &plan.steps {
        builder.set_step(step);
        kernels::build(&mut builder, step)?;
    }
    let ports = |builder: &Builder<'_>, values: &[ValueId]| {
        values.iter().map(|&value| builder.port(value)).collect::<Result<Vec<_>, _>>()
    };
    let (inputs, outputs) = (ports(&builder, graph.inputs())?, ports(&builder, graph.outputs())?);
    for &(value, index) in &plan.copies {
        let (from, to) =
            (builder.operand(value)?, Operand::new(Space::Output(index), 0, outputs[index].bytes()));
        builder.push_named(&outputs[index].name, Work::Copy { from, to, bytes: outputs[index].bytes() });
    }
    let (threads, arena_bytes) = (builder.threads, builder.arena_bytes());
    let choices = builder.choices.take().unwrap_or_default();
    let (steps, weight_bytes, scratch_bytes, module) = builder.finish()?;
    let parts = Parts { steps, inputs, outputs, arena_bytes, scratch_bytes, weight_bytes, threads, choices };
    Ok((parts, module))
}
