//! From a planned graph to a program.

use crate::artifact::Artifact;
use crate::builder::{Builder, Numbers};
use crate::declined::Declined;
use crate::error::CompileError;
use crate::kernels;
pub use crate::kernels::refusal::{Estimate, Refusal};
use crate::module::{self, CodeModule, LOWERING_NS};
use crate::options::{Choice, Options};
use crate::packing::PACKED_PER_NS;
use crate::tasks;
use tconvc_ir::budget::{self, Budget, Exceeded, Limit};
use tconvc_ir::{Graph, ValueId};
use tconvc_machine::Target;
use tconvc_passes::plan::Plan;
use tconvc_runtime::executor::Executor;
use tconvc_runtime::memory::AlignedBytes;
use tconvc_runtime::program::{Layout, Operand, Space, Work};

/// Refuses a graph with operators that cannot be compiled whatever the extents.
///
/// # Errors
/// Names the first of them.
pub fn check_operators(graph: &Graph) -> Result<(), CompileError> {
    graph.nodes().try_for_each(kernels::check_operator)
}

/// How long each step of a plan takes, about, and why those that are interpreted are: what [`compile`] finds out, without code.
pub fn survey(graph: &Graph, plan: &Plan, target: &Target) -> Vec<Estimate> {
    plan.steps.iter().flat_map(|step| kernels::survey(graph, target, step)).collect()
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
) -> Result<Artifact, CompileError> {
    let mut weights = None;
    let memory = &mut weights;
    let numbers = Numbers::new(plan.steps.len());
    let make_ready = || module::make_ready(&options.target);
    let (Made { layout, choices, declined, estimates }, module) =
        tasks::with_helpers(executor, expected_ns(graph, plan), make_ready, |queue| {
            // Whichever thread it is.
            let _budget = options.budget.as_ref().map(Budget::enter);
            let mut module = CodeModule::new(&options.target)?;
            if options.keep_text {
                module = module.keep_text();
            }
            let builder = Builder::new((graph, plan), options, &numbers, module, queue);
            build(builder, memory, options.workspace_limit)
        })?;
    let (functions, weights) = (module.lower()?, weights.into_iter().collect());
    let (bytes, most) =
        (functions.code_bytes(), options.budget.as_ref().map(|budget| budget.limits().code_bytes));
    if let Some(most) = most.filter(|&most| bytes > most) {
        let exceeded = Exceeded { limit: Limit::Code, wanted: bytes, left: most, most };
        return Err(tconvc_ir::Error::Limit(exceeded).into());
    }
    Ok(Artifact { functions, weights, layout, choices, declined, estimates })
}

/// What the tasks of a program take, about.
fn expected_ns(graph: &Graph, plan: &Plan) -> usize {
    let constants = graph.values().filter_map(|(id, _)| graph.constant(id));
    let floats: usize = constants.map(|tensor| tensor.bytes().len() / 4).sum();
    floats / PACKED_PER_NS + plan.steps.len() * FUNCTIONS_OF_A_STEP * LOWERING_NS
}

/// On an average, about.
const FUNCTIONS_OF_A_STEP: usize = 4;

/// All but code and weights.
struct Made {
    layout: Layout,
    choices: Vec<Choice>,
    declined: Vec<Declined>,
    estimates: Vec<Estimate>,
}

fn build<'a>(
    mut builder: Builder<'a>,
    memory: &'a mut Option<AlignedBytes>,
    limit: usize,
) -> Result<(Made, CodeModule), CompileError> {
    let (graph, plan) = (builder.graph, builder.plan);
    let mut estimates = vec![];
    for step in &plan.steps {
        budget::check()?;
        builder.set_step(step);
        estimates.extend(kernels::build(&mut builder, step)?);
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
    Ok((Made { layout, choices, declined, estimates }, module))
}
