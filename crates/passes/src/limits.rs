//! What code can take at once: numbers of the target, handed in with the options.

use tconvc_machine::VectorIsa;

/// How many operands the code of one step may have. Passes and the planner stop there, so that what they join has code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operands, residuals and slopes, of a convolution's epilogue.
    pub post_op_operands: usize,
    /// Values that elementwise nodes in one step read.
    pub fused_inputs: usize,
    /// Elementwise nodes in one step: their code is written out.
    pub fused_nodes: usize,
}

impl Limits {
    /// Those of an instruction set.
    pub fn of(vectors: &VectorIsa) -> Self {
        Self {
            post_op_operands: vectors.post_op_operands(),
            fused_inputs: vectors.fused_inputs(),
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// Those of the targets with the fewest general registers, 15: what is joined within these has code on every target.
    fn default() -> Self {
        Self { post_op_operands: 8, fused_inputs: 11, fused_nodes: 128 }
    }
}
