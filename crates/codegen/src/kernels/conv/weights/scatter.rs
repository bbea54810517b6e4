//! Weights in the order in which tiles of patches read them.

use crate::kernels::conv::weights::{Weights, float};
use crate::packing::{Pack, prefetch};

/// Weights by group, block of output channels, tile of columns, input channel, column; columns are padded to whole vectors.
pub(crate) struct Columns<'a> {
    pub weights: Weights<'a>,
    /// Output channels of a block.
    pub block: usize,
    pub lanes: usize,
    /// Columns of a tile.
    pub tile: usize,
    /// Numbers of the taps that a channel has columns for.
    pub taps: Vec<usize>,
}

/// Input channels between the one whose weights are read and the one whose weights are asked for.
const AHEAD: usize = 4;

impl Columns<'_> {
    /// First channel and number of channels of each block of a group.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let (cout, block) = (self.weights.cout(), self.block);
        (0..cout).step_by(block).map(move |first| (first, block.min(cout - first)))
    }

    fn row(&self, channels: usize) -> usize {
        (channels * self.taps.len()).next_multiple_of(self.lanes)
    }
}

impl Pack for Columns<'_> {
    fn segments(&self) -> Vec<(usize, usize)> {
        let blocks = (0..self.weights.groups()).flat_map(|_| self.blocks());
        blocks.map(|(_, channels)| self.row(channels) * self.weights.cin()).zip(0..).collect()
    }

    fn write(&self, task: usize, segments: &mut [&mut [f32]]) {
        let blocks = self.blocks().count().max(1);
        let (Some((start, channels)), [segment]) = (self.blocks().nth(task % blocks), segments) else {
            return;
        };
        let (cin, columns) = (self.weights.cin(), self.row(channels));
        let taps = self.taps.len();
        for first in (0..columns).step_by(self.tile.max(1)) {
            let width = self.tile.min(columns - first);
            let rows = segment[first * cin..].chunks_exact_mut(width);
            let of_input = |ci: usize| self.weights.patches(task / blocks, start..start + channels, ci);
            for (ci, row) in rows.take(cin).enumerate() {
                let patches = of_input(ci);
                let all = patches.len() / channels;
                if taps == all {
                    if ci + AHEAD < cin {
                        prefetch(of_input(ci + AHEAD).get(first..first + width).unwrap_or_default());
                    }
                    for (value, weight) in row.iter_mut().zip(&patches[first..]) {
                        *value = float(*weight);
                    }
                    continue;
                }
                let (mut channel, mut index) = (first / taps, first % taps);
                for value in row.iter_mut().take((channels * taps).saturating_sub(first)) {
                    *value = float(patches[channel * all + self.taps[index]]);
                    index += 1;
                    if index == taps {
                        (channel, index) = (channel + 1, 0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::weights::Layout;
    use crate::packing::pack_alone;
    use tconvc_ir::{DType, Tensor};

    #[test]
    fn columns_lie_in_the_order_of_tiles() {
        let (groups, cin, cout, all) = (2, 3, 5, 6);
        let tensor = Tensor::seeded(DType::F32, vec![groups * cin, cout, all], 4).unwrap();
        let weights = Weights::new(&tensor, Layout::Deconv, groups, cin, cout).unwrap();
        let values = tensor.elements::<f32>().unwrap();
        for taps in [(0..all).collect::<Vec<_>>(), vec![1, 2, 5], vec![]] {
            for (block, lanes, tile) in [(1, 4, 4), (2, 4, 8), (5, 8, 16), (3, 4, 64)] {
                let columns = Columns { weights, block, lanes, tile, taps: taps.clone() };
                let memory = pack_alone(|packing| _ = packing.pack(columns));
                let mut expected = vec![];
                for group in 0..groups {
                    for first in (0..cout).step_by(block) {
                        let channels = first..cout.min(first + block);
                        let mut columns: Vec<Option<(usize, usize)>> =
                            channels.flat_map(|co| taps.iter().map(move |&tap| Some((co, tap)))).collect();
                        columns.resize(columns.len().next_multiple_of(lanes), None);
                        for of_tile in columns.chunks(tile) {
                            for ci in group * cin..(group + 1) * cin {
                                let value = |(co, tap)| values[(ci * cout + co) * all + tap];
                                expected.extend(of_tile.iter().map(|column| column.map_or(0.0, value)));
                            }
                        }
                    }
                }
                let floats: &[f32] = bytemuck::cast_slice(memory.as_slice());
                assert_eq!(
                    floats[..expected.len()],
                    expected,
                    "{taps:?}, blocks of {block}, tiles of {tile}"
                );
            }
        }
    }
}
