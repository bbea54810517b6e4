//! Runs a program with every buffer of every kernel in a block of its own. For tests, which put the blocks between pages that
//! must not be touched.

use super::{Address, Session, Task, check};
use crate::code::StepFn;
use crate::error::RunError;
use crate::program::{Kernel, Operand, Space, Step, Work};
use std::ops::DerefMut;
use std::sync::Arc;
use tconvc_ir::{TensorView, TensorViewMut};

/// What the arena holds before a step writes to it: no numbers, whatever the type of float.
const UNWRITTEN: u8 = 0xff;

impl Session {
    /// As [`Session::run`], on blocks that `block` gives for a step and a number of bytes: each kernel finds its operands in
    /// blocks of exactly their size, and so the scratch memory of each of its shares. Shares run one after the other.
    ///
    /// # Errors
    /// As [`Session::run`].
    ///
    /// # Panics
    /// When a block is of another size or not aligned to four bytes, and when a kernel changes what it may only read.
    #[doc(hidden)]
    pub fn run_apart<B: DerefMut<Target = [u8]>>(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        mut block: impl FnMut(&Step, usize) -> B,
    ) -> Result<(), RunError> {
        check("input", &self.program.layout.inputs, inputs.len(), |i| inputs[i].bytes())?;
        check("output", &self.program.layout.outputs, outputs.len(), |i| outputs[i].bytes())?;
        self.arena.as_mut_slice().fill(UNWRITTEN);
        let (layout, code) = (Arc::clone(&self.program.layout), Arc::clone(&self.program.code));
        let steps = &layout.steps;
        for step in steps {
            let Work::Kernel(kernel) = &step.work else {
                self.run_data(&step.node, &step.work, inputs, outputs)?;
                continue;
            };
            let Some(function) = code.step(kernel.function) else {
                unreachable!("the builder makes kernels of step functions only")
            };
            self.call_apart(kernel, function, inputs, outputs, |bytes| block(step, bytes));
        }
        Ok(())
    }

    fn call_apart<B: DerefMut<Target = [u8]>>(
        &mut self,
        kernel: &Kernel,
        function: StepFn,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        mut block: impl FnMut(usize) -> B,
    ) {
        let spans = spans(&kernel.operands);
        let mut blocks = vec![];
        for &(space, [start, end]) in &spans {
            let mut copy = block(end - start);
            let whole = Operand::new(space, start, end - start);
            copy.copy_from_slice(self.read(whole, end - start, inputs, outputs));
            blocks.push(copy);
        }
        let starts: Vec<Address> =
            blocks.iter_mut().zip(&spans).map(|(block, (_, [from, to]))| start(block, to - from)).collect();
        let table = table(&kernel.operands, &spans, &starts);
        let parts = |time_step| (1..kernel.partition.len()).map(move |part| (time_step, part - 1));
        for (time_step, part) in (0..kernel.time_steps).flat_map(parts) {
            let mut scratch = block(kernel.scratch_bytes);
            let scratch = start(&mut scratch, kernel.scratch_bytes);
            // The task counts scratch memory from that of the first share.
            let task = Task { function, operands: &table, scratch, stride: 0, partition: &kernel.partition };
            task.run(part, time_step);
        }
        for ((space, [start, end]), block) in spans.into_iter().zip(blocks) {
            let whole = Operand::new(space, start, end - start);
            match space {
                Space::Arena | Space::Output(_) => {
                    self.write(whole, end - start, outputs).copy_from_slice(&block);
                }
                Space::Weights(_) | Space::Input(_) => {
                    let before = self.read(whole, end - start, inputs, outputs);
                    assert!(*before == *block, "{} writes to {space:?}", kernel.name);
                }
            }
        }
    }
}

/// The buffers of some operands; those that share bytes are one, because a kernel may write over what it reads.
pub(super) fn spans(operands: &[Operand]) -> Vec<(Space, [usize; 2])> {
    let mut spans: Vec<(Space, [usize; 2])> = operands.iter().map(|o| (o.space, o.buffer)).collect();
    spans.sort_unstable();
    spans.dedup_by(|next, last| {
        let meets = next.0 == last.0 && (next.1 == last.1 || next.1[0] < last.1[1]);
        if meets {
            last.1[1] = last.1[1].max(next.1[1]);
        }
        meets
    });
    spans
}

/// Where operands are, whose spans start there.
pub(super) fn table(operands: &[Operand], spans: &[(Space, [usize; 2])], starts: &[Address]) -> Vec<Address> {
    let pointer = |operand: &Operand| {
        let [from, to] = operand.buffer;
        let inside = |(space, [start, end]): &(Space, [usize; 2])| {
            *space == operand.space && *start <= from && to <= *end
        };
        let Some(number) = spans.iter().position(inside) else {
            unreachable!("the spans are made of the operands")
        };
        starts[number].at(operand.offset.wrapping_sub(spans[number].1[0]))
    };
    operands.iter().map(pointer).collect()
}

/// Address of a block, which must be as the code was promised.
fn start(block: &mut impl DerefMut<Target = [u8]>, bytes: usize) -> Address {
    let block: &mut [u8] = block;
    assert_eq!((block.len(), block.as_ptr().align_offset(4)), (bytes, 0));
    Address(block.as_mut_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_share_bytes_are_one() {
        let operand = |space, start, end| Operand::new(space, start, end - start);
        let operands = [
            operand(Space::Arena, 64, 128),
            operand(Space::Weights(0), 64, 128),
            operand(Space::Arena, 0, 64),
            operand(Space::Arena, 96, 160),
            operand(Space::Arena, 64, 128),
            operand(Space::Output(1), 0, 0),
            operand(Space::Output(1), 0, 0),
        ];
        let expected = [
            (Space::Weights(0), [64, 128]),
            (Space::Arena, [0, 64]),
            (Space::Arena, [64, 160]),
            (Space::Output(1), [0, 0]),
        ];
        assert_eq!(spans(&operands), expected);
    }
}
