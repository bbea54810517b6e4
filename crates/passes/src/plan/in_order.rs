//! Places very many buffers in the arena in the order of the steps that write them, each into the smallest gap that is free by then.

use super::place::Buffer;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use tconvc_ir::{Error, Result, ValueId};

/// Gaps of the arena below its end.
#[derive(Default)]
struct Gaps {
    /// Bytes by offset.
    by_offset: BTreeMap<usize, usize>,
    /// Bytes and offset.
    by_bytes: BTreeSet<(usize, usize)>,
}

impl Gaps {
    fn add(&mut self, offset: usize, bytes: usize) {
        self.by_offset.insert(offset, bytes);
        self.by_bytes.insert((bytes, offset));
    }

    fn remove(&mut self, offset: usize, bytes: usize) {
        self.by_offset.remove(&offset);
        self.by_bytes.remove(&(bytes, offset));
    }

    /// Takes so many bytes out of the smallest gap that has them; gives their offset.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let &(found, offset) = self.by_bytes.range((bytes, 0)..).next()?;
        self.remove(offset, found);
        if found > bytes {
            self.add(offset + bytes, found - bytes);
        }
        Some(offset)
    }

    /// Gives bytes back; gaps that meet become one.
    fn give(&mut self, mut offset: usize, mut bytes: usize) {
        if let Some((&before, &size)) = self.by_offset.range(..offset).next_back()
            && before + size == offset
        {
            self.remove(before, size);
            (offset, bytes) = (before, size + bytes);
        }
        if let Some(&size) = self.by_offset.get(&(offset + bytes)) {
            self.remove(offset + bytes, size);
            bytes += size;
        }
        self.add(offset, bytes);
    }
}

/// Sets the offsets of buffers, and gives the size of the arena.
pub(super) fn pack<'a>(buffers: impl Iterator<Item = (&'a ValueId, &'a mut Buffer)>) -> Result<usize> {
    let mut buffers: Vec<(&ValueId, &mut Buffer)> = buffers.collect();
    buffers.sort_unstable_by_key(|(id, buffer)| (buffer.live.0, Reverse(buffer.bytes), **id));
    let (mut gaps, mut end) = (Gaps::default(), 0usize);
    // The last step of each, where it is and how large.
    let mut alive: BinaryHeap<Reverse<(usize, usize, usize)>> = BinaryHeap::new();
    for (_, buffer) in buffers {
        while let Some(&Reverse((last, offset, bytes))) = alive.peek()
            && last < buffer.live.0
        {
            alive.pop();
            gaps.give(offset, bytes);
        }
        if buffer.bytes == 0 {
            continue;
        }
        buffer.offset = match gaps.take(buffer.bytes) {
            Some(offset) => offset,
            None => {
                let offset = end;
                let more = end.checked_add(buffer.bytes);
                end = more.ok_or_else(|| Error::Size("the arena is too large".into()))?;
                offset
            }
        };
        alive.push(Reverse((buffer.live.1, buffer.offset, buffer.bytes)));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::{DType, Graph, ValueType};

    /// Buffers of all sizes and lives, of which no two that live at the same time overlap.
    #[test]
    fn what_lives_at_the_same_time_lies_apart() {
        let (mut graph, mut random) = (Graph::new("g"), 7u64);
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let mut buffers: Vec<(ValueId, Buffer)> = (0..300)
            .map(|index| {
                let id = graph.add_input(&format!("v{index}"), ValueType::unranked(DType::F32)).unwrap();
                let (first, bytes) = (below(100) as usize, 64 * below(9) as usize);
                (id, Buffer { bytes, live: (first, first + below(20) as usize), offset: 0 })
            })
            .collect();
        let end = pack(buffers.iter_mut().map(|(id, buffer)| (&*id, buffer))).unwrap();
        let most = (0..120).map(|at| {
            let live = buffers.iter().filter(|(_, buffer)| (buffer.live.0..=buffer.live.1).contains(&at));
            live.map(|(_, buffer)| buffer.bytes).sum::<usize>()
        });
        assert!(end < 2 * most.max().unwrap(), "{end}");
        for (i, (_, a)) in buffers.iter().enumerate() {
            assert!(a.offset + a.bytes <= end);
            for (_, b) in &buffers[i + 1..] {
                let together = a.live.0 <= b.live.1 && b.live.0 <= a.live.1;
                let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                assert!(!together || apart || a.bytes == 0 || b.bytes == 0);
            }
        }
    }
}
