//! Runs the parts of every kernel alone, each on a copy of the memory, and compares what they write. For tests: parts that
//! run at the same time may neither write to the same bytes nor read what another one writes.

use super::apart::{spans, table};
use super::{Address, Session, Task, check};
use crate::code::StepFn;
use crate::error::RunError;
use crate::program::{Kernel, Operand, Space, Work};
use std::sync::Arc;
use tconvc_ir::{TensorView, TensorViewMut};

/// The buffers of a kernel, one block for those that share bytes. Of whole words, so that they are aligned for every type.
#[derive(Clone)]
struct Blocks(Vec<(Space, Vec<u64>)>);

/// Of every byte of the blocks, the part that wrote it, counted from 1.
type Writers = Vec<Vec<u16>>;

impl Session {
    /// As [`Session::run`]. Gives a line for each kernel of which two parts meet, and the number of kernels in several parts.
    ///
    /// # Errors
    /// As [`Session::run`].
    #[doc(hidden)]
    pub fn run_parts_alone(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(Vec<String>, usize), RunError> {
        check("input", &self.program.layout.inputs, inputs.len(), |i| inputs[i].bytes())?;
        check("output", &self.program.layout.outputs, outputs.len(), |i| outputs[i].bytes())?;
        let (layout, code) = (Arc::clone(&self.program.layout), Arc::clone(&self.program.code));
        let (mut problems, mut kernels) = (vec![], 0);
        for step in &layout.steps {
            let Work::Kernel(kernel) = &step.work else {
                self.run_data(&step.node, &step.work, inputs, outputs)?;
                continue;
            };
            let Some(function) = code.step(kernel.function) else {
                unreachable!("the builder makes kernels of step functions only")
            };
            kernels += usize::from(kernel.partition.len() > 2);
            if let Some(problem) = self.compare_parts(kernel, function, inputs, outputs) {
                problems.push(format!("{} of {}: {problem}", kernel.name, step.node));
            }
        }
        Ok((problems, kernels))
    }

    /// Runs a kernel, and tells where two of its parts meet.
    fn compare_parts(
        &mut self,
        kernel: &Kernel,
        function: StepFn,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Option<String> {
        let spans = spans(&kernel.operands);
        let block = |&(space, [start, end]): &(Space, [usize; 2])| {
            let bytes = self.read(Operand::new(space, start, end - start), end - start, inputs, outputs);
            let mut words = vec![0; bytes.len().div_ceil(8)];
            bytes_of(&mut words)[..bytes.len()].copy_from_slice(bytes);
            (space, words)
        };
        let mut memory = Blocks(spans.iter().map(block).collect());
        let mut problem = None;
        for time_step in 0..kernel.time_steps {
            let before = memory.clone();
            let mut writers: Writers = before.0.iter().map(|(_, words)| vec![0; 8 * words.len()]).collect();
            let mut together = before.clone();
            for part in 0..kernel.partition.len().saturating_sub(1) {
                // What a part writes may be what was there; then it shows where something else was.
                for seed in [0, 1] {
                    let (mut copy, start) = (before.scrambled(seed), before.scrambled(seed));
                    copy.run(kernel, function, part, time_step, &spans);
                    let meets = copy.differences(&start, part, &mut writers);
                    problem = problem.or(meets.filter(|_| part > 0));
                    if seed == 0 {
                        together.take_over(&copy, &start);
                    }
                }
            }
            for part in 0..kernel.partition.len().saturating_sub(1) {
                memory.run(kernel, function, part, time_step, &spans);
            }
            let is_same = memory.0.iter().zip(&together.0).all(|(one, other)| one.1 == other.1);
            if !is_same {
                problem.get_or_insert_with(|| "a part reads what another one writes".into());
            }
        }
        for ((space, [start, end]), (_, words)) in spans.into_iter().zip(&mut memory.0) {
            if matches!(space, Space::Arena | Space::Output(_)) {
                let whole = Operand::new(space, start, end - start);
                let bytes = &bytes_of(words)[..end - start];
                self.write(whole, end - start, outputs).copy_from_slice(bytes);
            }
        }
        problem
    }
}

impl Blocks {
    /// With other contents of what may be written, unless the seed is 0.
    fn scrambled(&self, seed: u64) -> Self {
        let mut copy = self.clone();
        let written = copy.0.iter_mut().filter(|(space, _)| matches!(space, Space::Arena | Space::Output(_)));
        let mut noise = seed;
        for word in written.flat_map(|(_, words)| words) {
            *word ^= noise;
            noise =
                noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed * 1_442_695_040_888_963_407);
        }
        copy
    }

    fn run(
        &mut self,
        kernel: &Kernel,
        function: StepFn,
        part: usize,
        time_step: u64,
        spans: &[(Space, [usize; 2])],
    ) {
        let starts: Vec<Address> =
            self.0.iter_mut().map(|(_, words)| Address(words.as_mut_ptr().cast())).collect();
        let table = table(&kernel.operands, spans, &starts);
        let mut scratch = vec![Line([0; 64]); kernel.scratch_bytes.div_ceil(64)];
        let scratch = Address(scratch.as_mut_ptr().cast());
        Task { function, operands: &table, scratch, stride: 0, partition: &kernel.partition }
            .run(part, time_step);
    }

    /// Notes who wrote the bytes that differ; tells the first that another part wrote, too.
    fn differences(&self, start: &Self, part: usize, writers: &mut Writers) -> Option<String> {
        let me = part as u16 + 1;
        let mut problem = None;
        for (((space, after), (_, before)), writers) in self.0.iter().zip(&start.0).zip(writers) {
            for (index, (after, before)) in after.iter().zip(before).enumerate().filter(|(_, (a, b))| a != b)
            {
                let changed = (after ^ before).to_ne_bytes();
                for (byte, _) in changed.iter().enumerate().filter(|(_, changed)| **changed != 0) {
                    let writer = &mut writers[8 * index + byte];
                    if ![0, me].contains(writer) {
                        let (other, at) = (*writer - 1, 8 * index + byte);
                        problem.get_or_insert_with(|| {
                            format!("parts {other} and {part} write byte {at} of a buffer in {space:?}")
                        });
                    }
                    *writer = me;
                }
            }
        }
        problem
    }

    /// Takes what differs from where it started.
    fn take_over(&mut self, after: &Self, start: &Self) {
        for ((own, after), start) in self.0.iter_mut().zip(&after.0).zip(&start.0) {
            for ((own, after), start) in own.1.iter_mut().zip(&after.1).zip(&start.1) {
                // The bits that changed.
                *own ^= after ^ start;
            }
        }
    }
}

/// A cache line of scratch memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: words are bytes without padding, and any bytes are words; the borrow covers all of them.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 8 * words.len()) }
}
