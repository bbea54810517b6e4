//! Packed weights: places are given out while kernels are made, and all is written at the end, once, into its final memory.

use crate::error::CompileError;
use crate::jobs::Job;
use crate::memory::{ALIGNMENT, AlignedBytes};
use crate::program::{Operand, Space};
use std::collections::BTreeMap;

/// Weights in another order, written by tasks that may run at the same time.
pub(crate) trait Pack: Send + Sync {
    /// The stretches that the weights consist of, one behind the other: floats of each, and the task that writes it.
    /// Stretches of a task are in order.
    fn stretches(&self) -> Vec<(usize, usize)>;

    /// Writes the stretches of a task, which are zero so far.
    fn write(&self, task: usize, stretches: &mut [&mut [f32]]);
}

/// Asks for weights that are read soon: those that follow each other in packed order may lie pages apart in the model, which
/// the processor does not foresee.
pub(crate) fn prefetch(soon: &[[u8; 4]]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // The last one, too: weights need not begin with a cache line.
        for at in soon.iter().step_by(ALIGNMENT / 4).chain(soon.last()) {
            // SAFETY: a prefetch neither faults nor changes anything.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}

enum Source<'a> {
    Bytes(Vec<u8>),
    Borrowed(&'a [u8]),
    Pack(Box<dyn Pack + 'a>),
}

/// Bytes that are copied, and floats that are packed, in a nanosecond.
const COPIED_PER_NS: usize = 10;
const PACKED_PER_NS: usize = 1;

/// What there is to pack.
#[derive(Default)]
pub(crate) struct Packing<'a> {
    sources: Vec<(usize, Source<'a>)>,
    len: usize,
}

impl<'a> Packing<'a> {
    /// A place at a cache line for bytes.
    pub(crate) fn bytes(&mut self, bytes: Vec<u8>) -> Operand {
        let len = bytes.len();
        self.place(len, Source::Bytes(bytes))
    }

    /// A place at a cache line for a copy of bytes.
    pub(crate) fn borrowed(&mut self, bytes: &'a [u8]) -> Operand {
        self.place(bytes.len(), Source::Borrowed(bytes))
    }

    /// A place at a cache line for weights.
    pub(crate) fn pack(&mut self, pack: impl Pack + 'a) -> Operand {
        let floats: usize = pack.stretches().iter().map(|(floats, _)| floats).sum();
        self.place(4 * floats, Source::Pack(Box::new(pack)))
    }

    fn place(&mut self, len: usize, source: Source<'a>) -> Operand {
        let offset = self.len.next_multiple_of(ALIGNMENT);
        self.len = offset + len;
        self.sources.push((offset, source));
        Operand::new(Space::Weights, offset, len)
    }

    /// Memory for all of it.
    pub(crate) fn zeroed(&self) -> Result<AlignedBytes, CompileError> {
        AlignedBytes::zeroed(self.len).ok_or(CompileError::Memory { what: "packed weights", bytes: self.len })
    }

    /// What writes all of it into zeroed memory of its size.
    pub(crate) fn jobs<'j>(&'j self, memory: &'j mut [u8]) -> Vec<Job<'j>> {
        let (mut rest, mut at) = (memory, 0);
        let mut jobs: Vec<Job<'j>> = vec![];
        for (offset, source) in &self.sources {
            rest = rest.split_at_mut(offset - at).1;
            at = *offset;
            let bytes = match source {
                Source::Bytes(bytes) => bytes,
                Source::Borrowed(bytes) => *bytes,
                Source::Pack(pack) => {
                    let mut by_task: BTreeMap<usize, Vec<&mut [f32]>> = BTreeMap::new();
                    for (floats, task) in pack.stretches() {
                        let (stretch, behind) = rest.split_at_mut(4 * floats);
                        (rest, at) = (behind, at + 4 * floats);
                        by_task.entry(task).or_default().push(bytemuck::cast_slice_mut(stretch));
                    }
                    jobs.extend(by_task.into_iter().map(|(task, mut stretches)| Job {
                        nanoseconds: stretches.iter().map(|floats| floats.len()).sum::<usize>()
                            / PACKED_PER_NS,
                        work: Box::new(move || pack.write(task, &mut stretches)),
                    }));
                    continue;
                }
            };
            let (copy, behind) = rest.split_at_mut(bytes.len());
            (rest, at) = (behind, at + bytes.len());
            let nanoseconds = bytes.len() / COPIED_PER_NS;
            jobs.push(Job { nanoseconds, work: Box::new(|| copy.copy_from_slice(bytes)) });
        }
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs;

    /// Stretches that hold the number of their task.
    struct Numbers(Vec<(usize, usize)>);

    impl Pack for Numbers {
        fn stretches(&self) -> Vec<(usize, usize)> {
            self.0.clone()
        }

        fn write(&self, task: usize, stretches: &mut [&mut [f32]]) {
            for stretch in stretches {
                stretch.fill(task as f32);
            }
        }
    }

    #[test]
    fn every_stretch_is_written_by_its_task_on_any_number_of_threads() {
        for (threads, factor) in [(1, 1), (2, 1 << 20), (5, 1 << 20)] {
            let borrowed = [9u8; 3];
            let mut packing = Packing::default();
            let a = packing.borrowed(&borrowed);
            let b = packing.pack(Numbers(vec![(factor, 2), (2, 1), (3, 2), (0, 7)]));
            let c = packing.bytes(vec![8; 5]);
            let mut memory = packing.zeroed().unwrap();
            jobs::run(packing.jobs(memory.as_mut_slice()), || threads);
            assert_eq!((a.offset, b.offset, c.offset % ALIGNMENT), (0, 64, 0));
            let bytes = memory.as_slice();
            assert_eq!((&bytes[..4], &bytes[c.offset..]), (&[9, 9, 9, 0][..], &[8; 5][..]));
            let floats: &[f32] = bytemuck::cast_slice(&bytes[64..64 + 4 * (factor + 5)]);
            assert!(floats[..factor].iter().all(|&value| value == 2.0));
            assert_eq!(floats[factor..], [1.0, 1.0, 2.0, 2.0, 2.0]);
        }
    }
}
