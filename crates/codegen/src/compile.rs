//! From a planned graph to a program.

use crate::builder::Builder;
use crate::declined::Declined;
use crate::error::CompileError;
use crate::kernels;
use crate::module::{self, CodeModule, LOWERING_NS, LoweredModule};
use crate::options::{Choice, Options};
use crate::packing::PACKED_PER_NS;
use crate::tasks;
use std::sync::Arc;
use tconvc_ir::{Graph, ValueId};
use tconvc_passes::plan::Plan;
use tconvc_runtime::executor::Executor;
use tconvc_runtime::memory::AlignedBytes;
use tconvc_runtime::program::{Layout, Operand, Program, Space, Step, Work};

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
    layout: Layout,
    choices: Vec<Choice>,
    declined: Vec<Declined>,
}

impl Compiled {
    /// The schedules of the convolutions that have several, where [`Options::list_choices`] asks for them.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Algorithms that the target has too few registers for, and what took their place.
    pub fn declined(&self) -> &[Declined] {
        &self.declined
    }

    /// The steps of the program, in order.
    pub fn steps(&self) -> &[Step] {
        &self.layout.steps
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
        let code = Arc::new(self.module.finish()?);
        // SAFETY: kernels are made for just these operands; guard pages in tests watch that each keeps to its buffers, the
        // builder that buffers keep to their memory.
        Ok(unsafe { Program::new(code, self.weights, self.layout) })
    }
}

/// Compiles a graph along its plan, on the threads of the executor.
///
/// # Errors
/// When a node cannot be compiled; names node, operator and attribute. When the program needs more memory than the options allow.
pub fn compile(
    graph: &Graph,
    plan: &Plan,
    options: &Options,
    executor: &dyn Executor,
) -> Result<Compiled, CompileError> {
    let mut weights = None;
    let memory = &mut weights;
    let make_ready = || module::make_ready(&options.target);
    let ((layout, choices, declined), module) =
        tasks::with_helpers(executor, expected_ns(graph, plan), make_ready, |queue| {
            let mut module = CodeModule::new(&options.target)?;
            if options.keep_text {
                module = module.keep_text();
            }
            build(Builder::new((graph, plan), options, module, queue), memory, options.workspace_limit)
        })?;
    Ok(Compiled {
        module: module.lower()?,
        weights: weights.into_iter().collect(),
        layout,
        choices,
        declined,
    })
}

/// What the tasks of a program take, about.
fn expected_ns(graph: &Graph, plan: &Plan) -> usize {
    let constants = graph.values().filter_map(|(id, _)| graph.constant(id));
    let floats: usize = constants.map(|tensor| tensor.bytes().len() / 4).sum();
    floats / PACKED_PER_NS + plan.steps.len() * FUNCTIONS_OF_A_STEP * LOWERING_NS
}

/// On an average, about.
const FUNCTIONS_OF_A_STEP: usize = 4;

/// What there is of a program beside code and weights.
type Parts = (Layout, Vec<Choice>, Vec<Declined>);

fn build<'a>(
    mut builder: Builder<'a>,
    memory: &'a mut Option<AlignedBytes>,
    limit: usize,
) -> Result<(Parts, CodeModule), CompileError> {
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
    let declined = std::mem::take(&mut builder.declined);
    let weight_bytes = builder.weight_bytes();
    let (steps, scratch_bytes, module) = builder.finish(memory, limit)?;
    let layout = Layout { steps, inputs, outputs, weight_bytes, arena_bytes, scratch_bytes, threads };
    Ok(((layout, choices, declined), module))
}
