//! Packed weights: places are allocated while kernels are made. Memory is taken when all are known, and tasks write there.

use crate::tasks::Task;
use std::collections::BTreeMap;
use std::sync::Arc;
use tconvc_runtime::memory::ALIGNMENT;
use tconvc_runtime::program::{Operand, Space};

/// Weights in another order, written by tasks that may run at the same time.
pub(crate) trait Pack: Send + Sync {
    /// The segments that the weights consist of, one behind the other: floats of each, and the task that writes it.
    /// Segments of a task are in order.
    fn segments(&self) -> Vec<(usize, usize)>;

    /// Writes the segments of a task, which are zero so far.
    fn write(&self, task: usize, segments: &mut [&mut [f32]]);
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

/// Fewer bytes than these are not worth a task.
const WORTH_A_TASK: usize = 1 << 16;

/// Allocates places for weights in memory that is taken later.
#[derive(Default)]
pub(crate) struct Packing<'a> {
    bytes: usize,
    /// Lengths in bytes of what lies one behind the other, each from a cache line on, and where it comes from.
    pieces: Vec<(usize, Source<'a>)>,
}

enum Source<'a> {
    Bytes(Box<dyn AsRef<[u8]> + Send + 'a>),
    Pack(Box<dyn Pack + 'a>),
}

impl<'a> Packing<'a> {
    /// A place at a cache line for a copy of bytes.
    pub(crate) fn copy(&mut self, bytes: impl AsRef<[u8]> + Send + 'a) -> Operand {
        let len = bytes.as_ref().len();
        self.place(len, Source::Bytes(Box::new(bytes)))
    }

    /// A place at a cache line for weights.
    pub(crate) fn pack(&mut self, pack: impl Pack + 'a) -> Operand {
        let len = 4 * pack.segments().iter().map(|(floats, _)| floats).sum::<usize>();
        self.place(len, Source::Pack(Box::new(pack)))
    }

    fn place(&mut self, len: usize, source: Source<'a>) -> Operand {
        let operand = Operand::new(Space::Weights(0), self.bytes, len);
        self.bytes += len.next_multiple_of(ALIGNMENT);
        self.pieces.push((len, source));
        operand
    }

    /// Bytes that all of it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What writes all of it into memory of that size, which is zero: little of it now, the rest in tasks.
    pub(crate) fn write(self, mut memory: &'a mut [u8]) -> Vec<Task<'a>> {
        let mut tasks = vec![];
        for (len, source) in self.pieces {
            let (place, behind) = memory.split_at_mut(len.next_multiple_of(ALIGNMENT));
            memory = behind;
            let place = &mut place[..len];
            match source {
                Source::Bytes(bytes) if len < WORTH_A_TASK => place.copy_from_slice((*bytes).as_ref()),
                Source::Bytes(bytes) => {
                    let work = Box::new(move || place.copy_from_slice((*bytes).as_ref()));
                    tasks.push(Task { nanoseconds: len / COPIED_PER_NS, work });
                }
                Source::Pack(pack) => tasks.extend(tasks_of(pack, place)),
            }
        }
        tasks
    }
}

/// Tasks that write packed weights to their place.
fn tasks_of<'a>(pack: Box<dyn Pack + 'a>, mut place: &'a mut [u8]) -> impl Iterator<Item = Task<'a>> {
    let mut by_task: BTreeMap<usize, Vec<&mut [f32]>> = BTreeMap::new();
    for (floats, task) in pack.segments() {
        let (segment, behind) = place.split_at_mut(4 * floats);
        place = behind;
        by_task.entry(task).or_default().push(bytemuck::cast_slice_mut(segment));
    }
    let pack: Arc<dyn Pack + 'a> = Arc::from(pack);
    by_task.into_iter().map(move |(task, mut segments)| {
        let pack = Arc::clone(&pack);
        let floats: usize = segments.iter().map(|floats| floats.len()).sum();
        Task { nanoseconds: floats / PACKED_PER_NS, work: Box::new(move || pack.write(task, &mut segments)) }
    })
}

/// Packs at once, into memory of its own.
#[cfg(test)]
pub(crate) fn pack_alone<'a>(pack: impl FnOnce(&mut Packing<'a>)) -> tconvc_runtime::memory::AlignedBytes {
    let mut packing = Packing::default();
    pack(&mut packing);
    let mut memory = tconvc_runtime::memory::AlignedBytes::zeroed(packing.bytes()).unwrap();
    for task in packing.write(memory.as_mut_slice()) {
        (task.work)();
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments that hold the number of their task.
    struct Numbers(Vec<(usize, usize)>);

    impl Pack for Numbers {
        fn segments(&self) -> Vec<(usize, usize)> {
            self.0.clone()
        }

        fn write(&self, task: usize, segments: &mut [&mut [f32]]) {
            for segment in segments {
                segment.fill(task as f32);
            }
        }
    }

    #[test]
    fn every_segment_is_written_by_its_task() {
        for factor in [1, 1 << 20] {
            let (borrowed, long) = ([9u8; 3], vec![7; WORTH_A_TASK]);
            let mut places = vec![];
            let memory = pack_alone(|packing| {
                places.push(packing.copy(borrowed));
                places.push(packing.pack(Numbers(vec![(factor, 2), (2, 1), (3, 2), (0, 7)])));
                places.push(packing.copy(long.clone()));
                places.push(packing.copy([]));
                places.push(packing.copy(vec![8; 5]));
            });
            assert_eq!(
                memory.len(),
                64 + (4 * (factor + 5)).next_multiple_of(64) + (1 << 16) + 64,
                "nothing is taken but what is asked for"
            );
            let found = |index: usize| {
                let Operand { space: Space::Weights(0), buffer: [start, end], .. } = places[index] else {
                    panic!("{places:?}");
                };
                assert_eq!(start % ALIGNMENT, 0);
                &memory.as_slice()[start..end]
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
