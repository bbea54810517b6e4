//! The weights of a convolution of either kind, and their order for kernels: by group, block of output channels, input
//! channel, tap, channel of the block.

pub(crate) mod scatter;
pub(crate) mod winograd;

use crate::packing::{Pack, prefetch};
use std::ops::Range;
use tconvc_ir::{DType, Error, Result, Tensor};

/// Which axis of the tensor is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[Cout, Cin/group, ..]`, as `Conv` has it.
    Conv,
    /// `[Cin, Cout/group, ..]`, as `ConvTranspose` has it.
    Deconv,
}

/// Weights to be packed.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// Floats by their bytes: in a model file they need not be aligned.
    data: &'a [[u8; 4]],
    layout: Layout,
    groups: usize,
    /// Input channels of a group that are meant, the first of them, and how many there are.
    cin: usize,
    first_input: usize,
    all_inputs: usize,
    cout: usize,
    kernel: [usize; 3],
}

impl<'a> Weights<'a> {
    /// From a constant of the graph, with channels per group.
    pub fn new(tensor: &'a Tensor, layout: Layout, groups: usize, cin: usize, cout: usize) -> Result<Self> {
        let mut kernel = [1; 3];
        let spatial = tensor.shape().get(2..).filter(|spatial| spatial.len() <= 3).unwrap_or_default();
        kernel[3 - spatial.len()..].copy_from_slice(spatial);
        let taps = kernel.iter().product::<usize>();
        if tensor.dtype() != DType::F32 || tensor.len() != groups * cin * cout * taps {
            return Err(Error::Type(format!(
                "weights are {}{:?}, accepted is f32 of {groups} groups of {cin} by {cout} channels",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        let data = bytemuck::cast_slice(tensor.bytes());
        Ok(Self { data, layout, groups, cin, first_input: 0, all_inputs: cin, cout, kernel })
    }

    /// The same weights with their taps along other axes.
    pub fn with_kernel(self, kernel: [usize; 3]) -> Self {
        Self { kernel, ..self }
    }

    /// Those of some of the input channels.
    pub fn of_inputs(self, channels: &Range<usize>) -> Self {
        Self { cin: channels.len(), first_input: self.first_input + channels.start, ..self }
    }

    pub fn groups(&self) -> usize {
        self.groups
    }

    pub fn cin(&self) -> usize {
        self.cin
    }

    pub fn cout(&self) -> usize {
        self.cout
    }

    /// Taps of the kernel.
    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The number of a tap among all of the kernel.
    pub fn tap(&self, [z, y, x]: [usize; 3]) -> usize {
        (z * self.kernel[1] + y) * self.kernel[2] + x
    }

    /// Where the taps between two channels start.
    fn pair(&self, group: usize, co: usize, ci: usize) -> usize {
        let ci = self.first_input + ci;
        let pair = match self.layout {
            Layout::Conv => (group * self.cout + co) * self.all_inputs + ci,
            Layout::Deconv => (group * self.all_inputs + ci) * self.cout + co,
        };
        pair * self.taps()
    }

    /// The weights between channels of a group in the order tap, input channel, output channel.
    pub fn by_tap(&self, group: usize, co: Range<usize>, ci: Range<usize>, out: &mut Vec<f64>) {
        let (taps, outputs) = (self.taps(), co.len());
        let width = outputs * ci.len();
        out.resize(taps * width, 0.0);
        for (i, ci) in ci.enumerate() {
            for (o, co) in co.clone().enumerate() {
                let place = i * outputs + o;
                let start = self.pair(group, co, ci);
                for (tap, &weight) in self.data[start..start + taps].iter().enumerate() {
                    out[tap * width + place] = f64::from(float(weight));
                }
            }
        }
    }

    /// All taps between an input channel and output channels of a group, channel by channel, as they lie in the weights of a
    /// transposed convolution; of another there are none.
    pub fn patches(&self, group: usize, co: Range<usize>, ci: usize) -> &'a [[u8; 4]] {
        match self.layout {
            Layout::Conv => &[],
            Layout::Deconv => &self.data[self.pair(group, co.start, ci)..][..co.len() * self.taps()],
        }
    }
}

/// A float from its bytes.
pub(crate) fn float(bytes: [u8; 4]) -> f32 {
    f32::from_ne_bytes(bytes)
}

/// Weights in blocks of output channels, for several lists of taps at once: each list is a part of its own, and in it
/// weights are ordered by group, block, input channel, run of taps, channel, tap of the run. The last block of a group is padded
/// with zeros.
pub(crate) struct Blocks<'a> {
    pub weights: Weights<'a>,
    /// Numbers of taps, see [`Weights::tap`]; [`NO_TAP`] leaves a zero.
    pub parts: Vec<Vec<usize>>,
    /// Taps of a run, each list a whole number of them.
    pub run: usize,
    /// Output channels of a block, and what the last one is rounded up to.
    pub block: usize,
    pub grain: usize,
}

/// The number of a tap that no kernel has.
pub(crate) const NO_TAP: usize = usize::MAX;

/// Parts begin at multiples of so many floats.
const PART_ALIGNMENT: usize = 16;

impl Blocks<'_> {
    /// Where each part starts, in floats.
    pub fn starts(&self) -> Vec<usize> {
        let mut start = 0;
        let floats = |taps: &Vec<usize>| {
            let channels: usize = self.blocks().map(|(_, exist)| exist.next_multiple_of(self.grain)).sum();
            (self.weights.groups * channels * self.weights.cin * taps.len()).next_multiple_of(PART_ALIGNMENT)
        };
        let next = |taps| {
            start += floats(taps);
            start - floats(taps)
        };
        self.parts.iter().map(next).collect()
    }

    /// First channel and number of channels of each block of a group.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let (cout, block) = (self.weights.cout, self.block.max(1));
        (0..cout).step_by(block).map(move |first| (first, block.min(cout - first)))
    }
}

/// Input channels times taps that are read of an output channel before the next.
const RUN: usize = 64;

/// Input channels whose weights are read together, while those of the next are asked for.
const AT_ONCE: usize = 4;

impl Pack for Blocks<'_> {
    /// A task for each block of each group; a segment of it in each part.
    fn segments(&self) -> Vec<(usize, usize)> {
        let blocks: Vec<usize> =
            self.blocks().map(|(_, exist)| exist.next_multiple_of(self.grain) * self.weights.cin).collect();
        let count = self.weights.groups * blocks.len();
        let mut segments = vec![];
        for taps in &self.parts {
            let sizes = blocks.iter().cycle().take(count).map(|floats| floats * taps.len());
            let floats: usize = sizes.clone().sum();
            segments.extend(sizes.zip(0..));
            // The room up to the next part belongs to a task without weights.
            segments.push((floats.next_multiple_of(PART_ALIGNMENT) - floats, count));
        }
        segments
    }

    fn write(&self, task: usize, segments: &mut [&mut [f32]]) {
        let blocks = self.blocks().count();
        let Some((first, exist)) = self.blocks().nth(task % blocks.max(1)) else { return };
        let group = task / blocks;
        if group >= self.weights.groups {
            return;
        }
        for (taps, part) in self.parts.iter().zip(segments.iter()) {
            let channels = exist.next_multiple_of(self.grain) * self.weights.cin;
            debug_assert_eq!(part.len(), channels * taps.len());
        }
        match self.weights.layout {
            Layout::Conv => self.write_conv(group, first..first + exist, segments),
            Layout::Deconv => self.write_deconv(group, first..first + exist, segments),
        }
    }
}

impl Blocks<'_> {
    fn write_conv(&self, group: usize, block: Range<usize>, parts: &mut [&mut [f32]]) {
        debug_assert_eq!(self.run, 1, "runs are of transposed convolutions");
        let (weights, all) = (&self.weights, self.weights.taps());
        let padded = block.len().next_multiple_of(self.grain);
        for (taps, part) in self.parts.iter().zip(parts) {
            let in_order = taps.len() == all && taps.iter().copied().eq(0..all);
            // A segment of each output channel after the other, so that what is written stays near.
            let step = if in_order { RUN } else { taps.len() };
            for (run, rows) in part.chunks_mut((step * padded).max(1)).enumerate() {
                for (channel, co) in block.clone().enumerate() {
                    let rows = rows.chunks_exact_mut(padded);
                    if in_order {
                        let data = &weights.data[weights.pair(group, co, 0) + run * RUN..];
                        for (row, value) in rows.zip(data) {
                            row[channel] = float(*value);
                        }
                    } else {
                        let data = &weights.data[weights.pair(group, co, run)..];
                        for (row, &tap) in rows.zip(taps) {
                            row[channel] = float(data[tap]);
                        }
                    }
                }
            }
        }
    }

    fn write_deconv(&self, group: usize, block: Range<usize>, parts: &mut [&mut [f32]]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the vectors that the function is compiled for.
            return unsafe { self.write_deconv_avx512(group, block, parts) };
        }
        self.write_deconv_by(group, block, parts, every);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn write_deconv_avx512(&self, group: usize, block: Range<usize>, parts: &mut [&mut [f32]]) {
        self.write_deconv_by(group, block, parts, |step, from, to| every_avx512(step, from, to));
    }

    /// With a function that writes every so many of some weights.
    #[expect(clippy::inline_always, reason = "what is not inlined is not compiled for wider vectors")]
    #[inline(always)]
    fn write_deconv_by(
        &self,
        group: usize,
        block: Range<usize>,
        parts: &mut [&mut [f32]],
        every: impl Fn(usize, &[[u8; 4]], &mut [f32]),
    ) {
        let (cin, all) = (self.weights.cin, self.weights.taps());
        let patches = |ci| self.weights.patches(group, block.clone(), ci);
        let padded = block.len().next_multiple_of(self.grain);
        for from in (0..cin).step_by(AT_ONCE) {
            let inputs = from..cin.min(from + AT_ONCE);
            (inputs.end..cin.min(inputs.end + AT_ONCE)).for_each(|soon| prefetch(patches(soon)));
            for (taps, part) in self.parts.iter().zip(parts.iter_mut()) {
                let rows = &mut part[from * taps.len() * padded..];
                let mut rows = rows.chunks_exact_mut((self.run * padded).max(1));
                for patches in inputs.clone().map(patches) {
                    for (taps, row) in taps.chunks_exact(self.run).zip(&mut rows) {
                        if let &[tap] = taps {
                            every(all, &patches[tap..], &mut row[..block.len()]);
                            continue;
                        }
                        for (patch, values) in patches.chunks_exact(all).zip(row.chunks_exact_mut(self.run)) {
                            for (&tap, value) in taps.iter().zip(values) {
                                *value = patch.get(tap).copied().map_or(0.0, float);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Every `step`-th weight, as many as there is room for.
fn every(step: usize, from: &[[u8; 4]], to: &mut [f32]) {
    for (value, weights) in to.iter_mut().zip(from.chunks(step)) {
        *value = float(weights[0]);
    }
}

/// As [`every`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn every_avx512(step: usize, from: &[[u8; 4]], to: &mut [f32]) {
    use std::arch::x86_64::{
        _mm512_i32gather_ps, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_storeu_ps,
    };
    const LANES: usize = 16;
    let (vectors, rest) = to.as_chunks_mut::<LANES>();
    let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_mullo_epi32(places, _mm512_set1_epi32(step as i32));
    let mut from = from;
    for vector in vectors {
        let used = &from[..=(LANES - 1) * step];
        // SAFETY: the last of the places is the last of `used`, and `vector` has a place for each.
        unsafe {
            _mm512_storeu_ps(vector.as_mut_ptr(), _mm512_i32gather_ps::<4>(places, used.as_ptr().cast()));
        }
        from = from.get(LANES * step..).unwrap_or_default();
    }
    every(step, from, rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::pack_alone;

    #[test]
    fn blocks_hold_each_weight_at_its_place() {
        for layout in [Layout::Conv, Layout::Deconv] {
            for (groups, cin, cout, kernel) in
                [(1, 5, 7, [1, 3, 3]), (3, 2, 4, [2, 1, 2]), (1, 40, 9, [1, 1, 1]), (2, 70, 19, [1, 2, 2])]
            {
                let shape = match layout {
                    Layout::Conv => [groups * cout, cin],
                    Layout::Deconv => [groups * cin, cout],
                };
                let tensor = Tensor::seeded(DType::F32, [&shape[..], &kernel[..]].concat(), 1).unwrap();
                let weights = Weights::new(&tensor, layout, groups, cin, cout).unwrap();
                let all = weights.taps();
                for parts in [vec![(0..all).collect()], vec![vec![all - 1, 0], vec![], vec![all / 2]]] {
                    for (block, grain) in [(1, 1), (3, 1), (8, 8), (16, 4)] {
                        let blocks = Blocks { weights, parts: parts.clone(), run: 1, block, grain };
                        let starts = blocks.starts();
                        let memory = pack_alone(|packing| _ = packing.pack(blocks));
                        let floats: &[f32] = bytemuck::cast_slice(memory.as_slice());
                        for (taps, start) in parts.iter().zip(starts) {
                            let mut at = start;
                            for group in 0..groups {
                                for first in (0..cout).step_by(block) {
                                    let padded = block.min(cout - first).next_multiple_of(grain);
                                    for ci in 0..cin {
                                        for &tap in taps {
                                            for co in first..first + padded {
                                                let expected = if co < cout.min(first + block) {
                                                    float(weights.data[weights.pair(group, co, ci) + tap])
                                                } else {
                                                    0.0
                                                };
                                                assert_eq!(
                                                    floats[at], expected,
                                                    "{layout:?} {co} {ci} {tap}"
                                                );
                                                at += 1;
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn runs_of_taps_lie_side_by_side() {
        let (cin, cout, all) = (3, 5, 6);
        let tensor = Tensor::seeded(DType::F32, vec![cin, cout, all], 2).unwrap();
        let weights = Weights::new(&tensor, Layout::Deconv, 1, cin, cout).unwrap();
        let taps = vec![3, 4, 5, NO_TAP, 0, 1, 2, NO_TAP];
        for block in 1..=cout {
            let blocks = Blocks { weights, parts: vec![taps.clone()], run: 4, block, grain: 1 };
            let memory = pack_alone(|packing| _ = packing.pack(blocks));
            let floats: &[f32] = bytemuck::cast_slice(memory.as_slice());
            let mut expected = vec![];
            for first in (0..cout).step_by(block) {
                for ci in 0..cin {
                    for run in taps.chunks(4) {
                        for co in first..cout.min(first + block) {
                            let of_pair = &weights.data[weights.pair(0, co, ci)..][..all];
                            expected
                                .extend(run.iter().map(|&tap| of_pair.get(tap).copied().map_or(0.0, float)));
                        }
                    }
                }
            }
            assert_eq!(floats[..expected.len()], expected);
        }
    }
}
