//! What a convolution computes, and its operands: in the program, and as pointers in its step function.

use crate::kernels::conv::microkernel::post_ops::{Finish, FinishOperands, Follows};
use crate::kernels::conv::weights::Weights;
use crate::module::Glue;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_runtime::program::Operand;

/// What a convolution works on.
pub(crate) struct Job<'a, Problem = crate::kernels::conv::problem::Problem> {
    pub name: String,
    pub problem: Problem,
    pub weights: Weights<'a>,
    /// Bias of each channel, all groups; zeros when there is none.
    pub bias: Vec<f32>,
    pub finish: Finish,
    pub finish_operands: FinishOperands,
    pub input: Operand,
    pub output: Operand,
}

/// The operands of a step, in the order in which [`Bases`] reads them.
pub(crate) fn operands(
    [input, output, weights, bias]: [Operand; 4],
    finish: &FinishOperands,
) -> Vec<Operand> {
    [input, output, weights, bias].into_iter().chain(finish.iter().map(|&(operand, _)| operand)).collect()
}

/// Pointers to the operands and to scratch memory, the same for all units of work.
pub(crate) struct Bases {
    pub input: Value,
    pub output: Value,
    pub weights: Value,
    pub bias: Value,
    pub scratch: Value,
    /// The operands of the epilogue.
    finish: Vec<(Value, Follows)>,
}

impl Bases {
    /// Reads the pointers at the begin of a step function.
    pub fn load(glue: &mut Glue<'_>, finish: &FinishOperands) -> Self {
        let (table, scratch) = (glue.params[0], glue.params[3]);
        let [input, output, weights, bias] = [0, 1, 2, 3].map(|i| glue.pointer(table, i));
        let finish = finish
            .iter()
            .enumerate()
            .map(|(i, &(_, follows))| (glue.pointer(table, 4 + i), follows))
            .collect();
        Self { input, output, weights, bias, scratch, finish }
    }

    /// The operands of the epilogue at a channel of all groups, and at a place in the output, in bytes.
    pub fn finish_at(&self, glue: &mut Glue<'_>, channel: Value, place: Value) -> Vec<Value> {
        let at = |&(base, follows): &(Value, Follows)| match follows {
            Follows::Channels => glue.element(base, channel, 4),
            Follows::Output => glue.builder.ins().iadd(base, place),
        };
        self.finish.iter().map(at).collect()
    }
}
