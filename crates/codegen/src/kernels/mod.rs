//! Makers of kernels: each turns a step of the plan into machine code, one family a file.

mod chain;
mod conv;
mod plain;
mod unary;

use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_passes::plan::{Step, StepKind};

/// Makes the kernels of one step.
pub(crate) fn build(builder: &mut Builder<'_>, step: &Step) -> Result<(), CompileError> {
    match step.kind {
        StepKind::Conv | StepKind::ZeroInsertion | StepKind::SubPixel | StepKind::Scatter => {
            conv::build(builder, step)
        }
        StepKind::Chain => chain::build(builder, step),
        StepKind::Single => plain::build(builder, step),
    }
}
