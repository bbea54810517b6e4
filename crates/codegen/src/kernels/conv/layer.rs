//! What a convolution computes, and its operands: in the program, and as pointers in its step function.

use crate::kernels::conv::microkernel::post_ops::{Broadcast, PostOpOperands, PostOps};
use crate::kernels::conv::weights::Weights;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_runtime::program::Operand;

/// What a convolution works on.
#[derive(Clone)]
pub(crate) struct Layer<'a, Problem = crate::kernels::conv::problem::Problem> {
    pub name: String,
    pub problem: Problem,
    pub weights: Weights<'a>,
    /// Bias of each channel, all groups; zeros when there is none.
    pub bias: Vec<f32>,
    pub post_ops: PostOps,
    pub post_op_operands: PostOpOperands,
    pub input: Operand,
    pub output: Operand,
}

/// The operands of a step, in the order in which [`Bases`] reads them.
pub(crate) fn operands(
    [input, output, weights, bias]: [Operand; 4],
    post_ops: &PostOpOperands,
) -> Vec<Operand> {
    [input, output, weights, bias].into_iter().chain(post_ops.iter().map(|&(operand, _)| operand)).collect()
}

/// Pointers to the operands and to scratch memory, the same for all work items.
pub(crate) struct Bases {
    pub input: Value,
    pub output: Value,
    pub weights: Value,
    pub bias: Value,
    pub scratch: Value,
    /// The operands of the epilogue.
    post_ops: Vec<(Value, Broadcast)>,
}

impl Bases {
    /// Reads the pointers at the begin of a step function.
    pub fn load(f: &mut FunctionBuilder<'_>, post_ops: &PostOpOperands) -> Self {
        let (table, scratch) = (f.params[0], f.params[3]);
        let [input, output, weights, bias] = [0, 1, 2, 3].map(|i| f.pointer(table, i));
        let post_ops = post_ops
            .iter()
            .enumerate()
            .map(|(i, &(_, broadcast))| (f.pointer(table, 4 + i), broadcast))
            .collect();
        Self { input, output, weights, bias, scratch, post_ops }
    }

    /// The operands of the epilogue at a channel of all groups, and at a place in the output, in bytes.
    pub fn post_ops_at(&self, f: &mut FunctionBuilder<'_>, channel: Value, place: Value) -> Vec<Value> {
        let at = |&(base, broadcast): &(Value, Broadcast)| match broadcast {
            Broadcast::Channels => f.element(base, channel, 4),
            Broadcast::Output => f.builder.ins().iadd(base, place),
        };
        self.post_ops.iter().map(at).collect()
    }
}
