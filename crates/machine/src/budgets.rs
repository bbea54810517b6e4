//! How many operands code may have: what is left of the general registers. Passes and planners are handed these numbers.

use crate::VectorIsa;

/// General registers of a convolution's tile beside those of its post-ops' operands: input, weights, bias and output, a loop over the
/// channels and one over the taps, and one for what an instruction needs.
const OF_A_CONVOLUTION: usize = 7;

/// General registers of a fused elementwise tile beside those of its inputs: the output, two counts, and a loop.
const OF_A_LOOP: usize = 4;

impl VectorIsa {
    /// The most operands, residuals and slopes, of what is done to a convolution's results before they are stored.
    pub const fn post_op_operands(&self) -> usize {
        self.general_registers.saturating_sub(OF_A_CONVOLUTION)
    }

    /// The most inputs of elementwise nodes that run in one loop.
    pub const fn fused_inputs(&self) -> usize {
        self.general_registers.saturating_sub(OF_A_LOOP)
    }
}

#[cfg(test)]
mod tests {
    use crate::Target;

    #[test]
    fn operands_are_what_registers_leave() {
        for (name, expected) in [("x86-64-v2", (8, 11)), ("x86-64-v4", (8, 11)), ("aarch64", (17, 20))] {
            let target = Target::parse(name).unwrap();
            let vectors = target.vectors();
            assert_eq!((vectors.post_op_operands(), vectors.fused_inputs()), expected, "{name}");
        }
    }
}
