//! The weights in the transformed domain: `G g G^T` for each pair of channels.

use super::super::tiling::cut_channels;
use super::super::weights::Weights;
use super::points::Filtering;
use crate::packing::Pack;

/// The taps of a phase along one axis as kernel indices, in the order of the inputs they read.
pub(super) type Kernels = Vec<usize>;

/// Weights of a part for each y-phase: group, tile of `m` output channels, product term (of all x-phases), input channel,
/// channel. Behind them are `m` zeros.
///
/// Sums are made in f64 and rounded once.
pub(super) struct Transformed<'a> {
    pub weights: Weights<'a>,
    pub ys: Vec<(Filtering, Kernels)>,
    pub xs: Vec<(Filtering, Kernels)>,
    pub m: usize,
}

impl Transformed<'_> {
    /// Where the weights of each y-phase start, in floats, and where the zeros do.
    pub fn starts(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let starts = self.ys.iter().map(|(y, _)| {
            let start = end;
            end += self.weights.groups() * self.weights.cout() * self.floats(y);
            start
        });
        (starts.collect(), end)
    }

    /// Floats for an output channel.
    fn floats(&self, y: &Filtering) -> usize {
        self.weights.cin() * self.xs.iter().map(|(x, _)| y.n() * x.n()).sum::<usize>()
    }

    /// First channel and number of channels of each tile of a group.
    fn tiles(&self) -> Vec<(usize, usize)> {
        let sizes = cut_channels(self.weights.cout(), self.m).into_iter();
        let sizes = sizes.flat_map(|(size, count)| std::iter::repeat_n(size, count));
        let mut first = 0;
        sizes
            .map(|size| {
                first += size;
                (first - size, size)
            })
            .collect()
    }

    /// The weights of one tile of channels.
    fn tile(
        &self,
        (y, y_kernels): &(Filtering, Kernels),
        group: usize,
        first: usize,
        size: usize,
        tile: &mut [f32],
    ) {
        let cin = self.weights.cin();
        let mut term = 0;
        for (x, x_kernels) in self.xs.iter().filter(|(x, _)| y.n() * x.n() > 0) {
            let mut taps = vec![0.0f64; y.r * x.r * size];
            let mut half = vec![0.0f64; y.n() * x.r * size];
            let mut sums = vec![0.0f64; size];
            for ci in 0..cin {
                for (row, &ky) in y_kernels.iter().enumerate() {
                    for (column, &kx) in x_kernels.iter().enumerate() {
                        let at = (row * x.r + column) * size;
                        let from = self.weights.row(group, first, size, ci, [0, ky, kx]);
                        for (to, from) in taps[at..at + size].iter_mut().zip(from) {
                            *to = f64::from(from);
                        }
                    }
                }
                let line = x.r * size;
                for (to, factors) in half.chunks_exact_mut(line).zip(&y.weights) {
                    combine(to, factors, taps.chunks_exact(line));
                }
                for (i, row) in half.chunks_exact(line).enumerate() {
                    for (j, factors) in x.weights.iter().enumerate() {
                        combine(&mut sums, factors, row.chunks_exact(size));
                        let at = ((term + i * x.n() + j) * cin + ci) * size;
                        for (to, &sum) in tile[at..at + size].iter_mut().zip(&sums) {
                            *to = sum as f32;
                        }
                    }
                }
            }
            term += y.n() * x.n();
        }
    }
}

impl Pack for Transformed<'_> {
    /// A task for each tile, and one for the zeros.
    fn stretches(&self) -> Vec<(usize, usize)> {
        let tiles = self.tiles();
        let groups = 0..self.weights.groups();
        let of_phase = |(y, _): &(Filtering, Kernels)| {
            let floats = self.floats(y);
            groups.clone().flat_map(|_| &tiles).map(|(_, size)| size * floats).collect::<Vec<_>>()
        };
        self.ys.iter().flat_map(of_phase).chain([self.m]).zip(0..).collect()
    }

    fn write(&self, task: usize, stretches: &mut [&mut [f32]]) {
        let (tiles, groups) = (self.tiles(), self.weights.groups());
        let (Some(&(first, size)), [tile]) = (tiles.get(task % tiles.len().max(1)), stretches) else {
            return;
        };
        let (group, phase) = (task / tiles.len() % groups, task / tiles.len() / groups);
        if let Some(phase) = self.ys.get(phase) {
            self.tile(phase, group, first, size, tile);
        }
    }
}

/// `to = sum of factor * line`.
fn combine<'a>(to: &mut [f64], factors: &[f64], lines: impl Iterator<Item = &'a [f64]>) {
    to.fill(0.0);
    for (&factor, line) in factors.iter().zip(lines) {
        if factor != 0.0 {
            for (to, &value) in to.iter_mut().zip(line) {
                *to += factor * value;
            }
        }
    }
}
