//! Packed weights: places are given out while kernels are made, and jobs write there, once.

use crate::error::CompileError;
use crate::jobs::Job;
use std::collections::BTreeMap;
use std::sync::Arc;
use tconvc_runtime::memory::{ALIGNMENT, AlignedBytes, give_back};
use tconvc_runtime::program::{Operand, Space};
use typed_arena::Arena;

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

/// Bytes that are copied, and floats that are packed, in a nanosecond.
const COPIED_PER_NS: usize = 10;
pub(crate) const PACKED_PER_NS: usize = 1;

/// Fewer bytes than these are not worth a job.
const WORTH_A_JOB: usize = 1 << 16;

/// From so many bytes on, things have a block of their own.
const OWN_BLOCK: usize = 1 << 21;

/// Blocks that others share are as large as all before, within these bounds.
const BLOCK_BYTES: [usize; 2] = [1 << 14, 1 << 25];

/// Gives out places for weights, in blocks that stay where they are, and jobs that write there.
pub(crate) struct Packing<'a> {
    blocks: &'a Arena<AlignedBytes>,
    /// What is left of a block: its number, where that begins, and the bytes, which are zero.
    rest: (usize, usize, &'a mut [u8]),
    /// Bytes that were given out: in blocks of their own, and in shared ones.
    bytes: [usize; 2],
    /// Bytes of a block for which there was no memory.
    missing: Option<usize>,
    jobs: Vec<Job<'a>>,
}

impl<'a> Packing<'a> {
    /// Takes blocks for weights.
    pub(crate) fn new(blocks: &'a Arena<AlignedBytes>) -> Self {
        Self { blocks, rest: (0, 0, &mut []), bytes: [0; 2], missing: None, jobs: vec![] }
    }

    /// A place at a cache line for a copy of bytes.
    pub(crate) fn copy(&mut self, bytes: impl AsRef<[u8]> + Send + 'a) -> Operand {
        let len = bytes.as_ref().len();
        let (operand, memory) = self.place(len);
        if len < WORTH_A_JOB {
            memory.copy_from_slice(&bytes.as_ref()[..memory.len()]);
        } else if memory.len() == len {
            let work = Box::new(move || memory.copy_from_slice(bytes.as_ref()));
            self.jobs.push(Job { nanoseconds: len / COPIED_PER_NS, work });
        }
        operand
    }

    /// A place at a cache line for weights.
    pub(crate) fn pack(&mut self, pack: impl Pack + 'a) -> Operand {
        let stretches = pack.stretches();
        let len = 4 * stretches.iter().map(|(floats, _)| floats).sum::<usize>();
        let (operand, mut memory) = self.place(len);
        if memory.len() < len {
            return operand;
        }
        let mut by_task: BTreeMap<usize, Vec<&mut [f32]>> = BTreeMap::new();
        for (floats, task) in stretches {
            let (stretch, behind) = memory.split_at_mut(4 * floats);
            memory = behind;
            by_task.entry(task).or_default().push(bytemuck::cast_slice_mut(stretch));
        }
        let pack = Arc::new(pack);
        self.jobs.extend(by_task.into_iter().map(|(task, mut stretches)| {
            let pack = Arc::clone(&pack);
            let floats: usize = stretches.iter().map(|floats| floats.len()).sum();
            Job {
                nanoseconds: floats / PACKED_PER_NS,
                work: Box::new(move || pack.write(task, &mut stretches)),
            }
        }));
        operand
    }

    /// The jobs that there are since the last call.
    pub(crate) fn jobs(&mut self) -> impl Iterator<Item = Job<'a>> + use<'a, '_> {
        self.jobs.drain(..)
    }

    /// Bytes that were given out. What was not goes back to the system.
    ///
    /// # Errors
    /// When there was no memory for them.
    pub(crate) fn finish(self) -> Result<usize, CompileError> {
        give_back(self.rest.2);
        match self.missing {
            None => Ok(self.bytes.iter().sum()),
            Some(bytes) => Err(CompileError::Memory { what: "packed weights", bytes }),
        }
    }

    /// A place, and its memory; none where there is no more, see [`Packing::bytes`].
    fn place(&mut self, len: usize) -> (Operand, &'a mut [u8]) {
        let lines = len.next_multiple_of(ALIGNMENT);
        let is_shared = lines < OWN_BLOCK;
        self.bytes[usize::from(is_shared)] += lines;
        if self.rest.2.len() >= lines && self.blocks.len() > 0 {
            let (block, offset, rest) = &mut self.rest;
            let (memory, behind) = std::mem::take(rest).split_at_mut(lines);
            let operand = Operand::new(Space::Weights(*block), *offset, len);
            (*offset, *rest) = (*offset + lines, behind);
            return (operand, &mut memory[..len]);
        }
        let size = if is_shared { self.bytes[1].clamp(BLOCK_BYTES[0], BLOCK_BYTES[1]) } else { lines };
        let Some(bytes) = AlignedBytes::zeroed(size) else {
            self.missing = Some(size);
            return (Operand::new(Space::Weights(0), 0, len), &mut []);
        };
        let block = self.blocks.len();
        let (memory, behind) = self.blocks.alloc(bytes).as_mut_slice().split_at_mut(lines);
        if is_shared {
            self.rest = (block, lines, behind);
        }
        (Operand::new(Space::Weights(block), 0, len), &mut memory[..len])
    }
}

/// Does all jobs, one after the other.
#[cfg(test)]
pub(crate) fn pack_into<'a>(blocks: &'a Arena<AlignedBytes>, pack: impl FnOnce(&mut Packing<'a>)) {
    let mut packing = Packing::new(blocks);
    pack(&mut packing);
    packing.jobs().for_each(|job| (job.work)());
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_stretch_is_written_by_its_task() {
        for factor in [1, 1 << 20] {
            let (borrowed, long) = ([9u8; 3], vec![7; WORTH_A_JOB]);
            let mut places = vec![];
            let blocks = Arena::new();
            pack_into(&blocks, |packing| {
                places.push(packing.copy(borrowed));
                places.push(packing.pack(Numbers(vec![(factor, 2), (2, 1), (3, 2), (0, 7)])));
                places.push(packing.copy(long.as_slice()));
                places.push(packing.copy([]));
                places.push(packing.copy(vec![8; 5]));
                assert_eq!(
                    packing.bytes.iter().sum::<usize>(),
                    64 + (4 * (factor + 5)).next_multiple_of(64) + (1 << 16) + 64
                );
            });
            let blocks = blocks.into_vec();
            let found = |index: usize| {
                let Operand { space: Space::Weights(block), buffer: [start, end], .. } = places[index] else {
                    panic!("{places:?}");
                };
                assert_eq!(start % ALIGNMENT, 0);
                &blocks[block].as_slice()[start..end]
            };
            assert_eq!(found(0), borrowed);
            let floats: &[f32] = bytemuck::cast_slice(found(1));
            assert!(floats[..factor].iter().all(|&value| value == 2.0));
            assert_eq!(floats[factor..], [1.0, 1.0, 2.0, 2.0, 2.0]);
            assert_eq!(found(2), long);
            assert_eq!((found(3), found(4)), (&[][..], &[8; 5][..]));
        }
    }
}
