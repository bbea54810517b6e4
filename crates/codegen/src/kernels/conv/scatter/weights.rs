//! Weights in the order in which tiles of patches read them.

use super::super::weights::{Weights, float};
use crate::packing::Pack;

/// Weights by group, block of output channels, input channel, column; columns are padded to whole vectors.
pub(super) struct Columns<'a> {
    pub weights: Weights<'a>,
    /// Output channels of a block.
    pub block: usize,
    pub lanes: usize,
    /// Numbers of the taps that a channel has columns for.
    pub taps: Vec<usize>,
}

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
    fn stretches(&self) -> Vec<(usize, usize)> {
        let blocks = (0..self.weights.groups()).flat_map(|_| self.blocks());
        blocks.map(|(_, channels)| self.row(channels) * self.weights.cin()).zip(0..).collect()
    }

    fn write(&self, task: usize, stretches: &mut [&mut [f32]]) {
        let blocks = self.blocks().count().max(1);
        let (Some((first, channels)), [stretch]) = (self.blocks().nth(task % blocks), stretches) else {
            return;
        };
        let rows = stretch.chunks_exact_mut(self.row(channels).max(1));
        for (ci, row) in rows.enumerate() {
            let patches = self.weights.patches(task / blocks, first..first + channels, ci);
            let all = patches.len() / channels;
            if self.taps.len() == all {
                for (value, weight) in row.iter_mut().zip(patches) {
                    *value = float(*weight);
                }
                continue;
            }
            for (row, patch) in row.chunks_exact_mut(self.taps.len().max(1)).zip(patches.chunks_exact(all)) {
                for (value, &tap) in row.iter_mut().zip(&self.taps) {
                    *value = float(patch[tap]);
                }
            }
        }
    }
}
