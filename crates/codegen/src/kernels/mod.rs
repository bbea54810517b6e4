//! Makers of kernels: each turns a step of the plan into machine code, one family a file.

mod cast;
mod conv;
mod expression;
mod fused_elementwise;
mod gemm;
mod interpreted;
mod movement;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod softmax;
mod unary;
mod walk;

pub use conv::costs::{Decided, KernelCosts};
pub(crate) use interpreted::check as check_operator;

use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::Op;
use tconvc_passes::plan::{Step, StepKind};

/// Makes the kernels of one step; one whose code the target has no room for is interpreted, which is noted.
pub(crate) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    let before = builder.steps_made();
    match of_kind(builder, step) {
        Err(error) if error.is_of_size() => {
            builder.undo(before);
            builder.decline("machine code".into(), &error, "the interpreter".into());
            interpreted::build(builder, step)
        }
        made => made,
    }
}

fn of_kind(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    match step.kind {
        StepKind::Conv | StepKind::ZeroInsertion | StepKind::SubPixel | StepKind::Scatter => {
            conv::build(builder, step)
        }
        StepKind::FusedElementwise => fused_elementwise::build(builder, step),
        StepKind::Product => gemm::post_ops::build(builder, step),
        StepKind::Single => single(builder, step),
    }
}

/// One node of its own: machine code where there is some, else by definition.
fn single(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    let &[node] = step.nodes.as_slice() else { return interpreted::build(builder, step) };
    let node = builder.graph.node(node);
    let made = match &node.op {
        Op::Cast(_) => cast::build(builder, node)?,
        Op::Pool(pool) => pool::build(builder, node, pool)?,
        Op::GlobalPool(_) | Op::Reduce(_) => reduce::build(builder, node)?,
        Op::MatMul(_) | Op::Gemm(_) => gemm::build(builder, node, None)?,
        Op::Recurrent(op) => recurrent::build(builder, node, op)?,
        Op::Softmax(softmax) => softmax::build(builder, node, *softmax)?,
        Op::InstanceNormalization(_)
        | Op::GroupNormalization(_)
        | Op::LayerNormalization(_)
        | Op::RmsNormalization(_) => norm::build(builder, node)?,
        _ => resize::build(builder, node)? || movement::build(builder, node)?,
    };
    if made { Ok(()) } else { interpreted::build(builder, step) }
}
