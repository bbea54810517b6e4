//! Weights in the order in which the micro-kernel reads them: group, tile of channels, input channel, row of taps, position,
//! phase, channel of the tile.

use super::super::weights::Weights;
use super::schedule::cut_channels;

/// A tap row and the taps along x, as kernel indices.
pub(super) struct Taps {
    /// Kernel indices (z, y) of each row of taps.
    pub rows: Vec<(usize, usize)>,
    /// Kernel index x of each phase at each position.
    pub positions: Vec<Vec<usize>>,
}

/// All weights of one combination of phases.
pub(super) fn pack(weights: &Weights<'_>, taps: &Taps, m: usize) -> Vec<f32> {
    let (groups, cout, cin) = (weights.groups(), weights.cout(), weights.cin());
    let mut packed = vec![];
    for group in 0..groups {
        let mut first = 0;
        for (size, count) in cut_channels(cout, m) {
            for _ in 0..count {
                for ci in 0..cin {
                    for &(z, y) in &taps.rows {
                        for &x in taps.positions.iter().flatten() {
                            packed.extend(weights.row(group, first, size, ci, [z, y, x]));
                        }
                    }
                }
                first += size;
            }
        }
    }
    packed
}

/// Weights for lanes along the channels: group, block of channels (`lanes * n`, the last one padded with zeros), input
/// channel, tap, channel.
pub(super) fn pack_channels(
    weights: &Weights<'_>,
    taps: &[[usize; 3]],
    block: usize,
    lanes: usize,
) -> Vec<f32> {
    let (groups, cout, cin) = (weights.groups(), weights.cout(), weights.cin());
    let mut packed = Vec::with_capacity(groups * cout.next_multiple_of(lanes) * cin * taps.len());
    for group in 0..groups {
        for first in (0..cout).step_by(block) {
            let exist = block.min(cout - first);
            let padding = exist.next_multiple_of(lanes) - exist;
            for ci in 0..cin {
                for &tap in taps {
                    packed.extend(weights.row(group, first, exist, ci, tap));
                    packed.resize(packed.len() + padding, 0.0);
                }
            }
        }
    }
    packed
}
