//! The weights in the transformed domain: `G g G^T` for each pair of channels.

use crate::kernels::conv::problem::winograd::{Kernels, Matrices};
use crate::kernels::conv::schedule::tiling::cut_channels;
use crate::kernels::conv::weights::Weights;
use crate::packing::{Pack, prefetch};

/// Input channels that are transformed together.
const AT_ONCE: usize = 8;

/// Weights of a part for each z-phase and y-phase: group, tile of `m` output channels, product term (of all x-phases), input
/// channel, tap along z, piece of the kernel along x, channel. Behind them are `m` zeros.
///
/// Sums are made in f64 and rounded once.
pub(crate) struct Transformed<'a> {
    pub weights: Weights<'a>,
    /// As many taps for each phase.
    pub zs: Vec<Kernels>,
    pub ys: Vec<(Matrices, Kernels)>,
    pub xs: Vec<(Matrices, Kernels)>,
    pub pieces: usize,
    pub m: usize,
}

impl Transformed<'_> {
    /// Where the weights of each z-phase and y-phase start, in floats, and where the zeros do.
    pub fn starts(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let starts = self.phases().map(|(_, y, _)| {
            let start = end;
            end += self.weights.groups() * self.weights.cout() * self.floats(y);
            start
        });
        (starts.collect(), end)
    }

    /// Each z-phase with each y-phase.
    fn phases(&self) -> impl Iterator<Item = (&Kernels, &Matrices, &Kernels)> {
        self.zs.iter().flat_map(|z| self.ys.iter().map(move |(y, kernels)| (z, y, kernels)))
    }

    /// Taps of a phase along z, times pieces along x.
    fn pieces(&self) -> usize {
        self.zs.first().map_or(1, Vec::len) * self.pieces
    }

    /// Floats for an output channel.
    fn floats(&self, y: &Matrices) -> usize {
        self.weights.cin() * self.pieces() * self.xs.iter().map(|(x, _)| y.n() * x.n()).sum::<usize>()
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

    /// The weights of one tile of channels, a segment for each z-phase and y-phase, in wider vectors where there are.
    fn tile(&self, group: usize, first: usize, size: usize, segments: &mut [&mut [f32]]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the vectors that the function is compiled for.
            return unsafe { self.tile_avx2(group, first, size, segments) };
        }
        self.tile_anywhere(group, first, size, segments);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn tile_avx2(&self, group: usize, first: usize, size: usize, segments: &mut [&mut [f32]]) {
        self.tile_anywhere(group, first, size, segments);
    }

    /// All phases together, because their taps lie in the same cache lines.
    #[expect(clippy::inline_always, reason = "what is not inlined is not compiled for wider vectors")]
    #[inline(always)]
    fn tile_anywhere(&self, group: usize, first: usize, size: usize, segments: &mut [&mut [f32]]) {
        let cin = self.weights.cin();
        let (mut kernels, mut half, mut sums, mut zeros) = (vec![], vec![], vec![], vec![]);
        for from in (0..cin).step_by(AT_ONCE) {
            let channels = from..cin.min(from + AT_ONCE);
            // Of some input channels, as of one with so many outputs.
            let width = channels.len() * size;
            for soon in channels.end..cin.min(channels.end + AT_ONCE) {
                prefetch(self.weights.patches(group, first..first + size, soon));
            }
            self.weights.by_tap(group, first..first + size, channels, &mut kernels);
            zeros.resize(width, 0.0);
            let line = |kz: Option<usize>, ky: Option<usize>, kx: Option<usize>| match (kz, ky, kx) {
                (Some(kz), Some(ky), Some(kx)) => {
                    let tap = self.weights.tap([kz, ky, kx]);
                    &kernels[tap * width..(tap + 1) * width]
                }
                _ => &zeros[..],
            };
            let all = self.pieces();
            sums.resize(width, 0.0);
            for ((z_kernels, y, y_kernels), segment) in self.phases().zip(segments.iter_mut()) {
                let mut term = 0;
                for (x, x_kernels) in self.xs.iter().filter(|(x, _)| y.n() * x.n() > 0) {
                    let pieces =
                        z_kernels.iter().flat_map(|&kz| x_kernels.chunks_exact(x.r).map(move |kx| (kz, kx)));
                    for (piece, (kz, x_kernels)) in pieces.enumerate() {
                        for (i, factors) in y.weights.iter().enumerate() {
                            half.resize(x.r * width, 0.0);
                            for (to, &kx) in half.chunks_exact_mut(width).zip(x_kernels) {
                                combine(to, factors, y_kernels.iter().map(|&ky| line(kz, ky, kx)));
                            }
                            for (j, factors) in x.weights.iter().enumerate() {
                                combine(&mut sums, factors, half.chunks_exact(width));
                                let at = ((term + i * x.n() + j) * cin + from) * all + piece;
                                let rows = segment[at * size..].chunks_mut(all * size);
                                for (row, sums) in rows.zip(sums.chunks_exact(size)) {
                                    for (to, &sum) in row.iter_mut().zip(sums) {
                                        *to = sum as f32;
                                    }
                                }
                            }
                        }
                    }
                    term += y.n() * x.n();
                }
            }
        }
    }
}

impl Pack for Transformed<'_> {
    /// A task for each tile, with all its phases, and one for the zeros.
    fn segments(&self) -> Vec<(usize, usize)> {
        let tiles = self.tiles();
        let of_phase = |(_, y, _): (&Kernels, &Matrices, &Kernels)| {
            let floats = self.floats(y);
            let groups = (0..self.weights.groups()).flat_map(|_| &tiles);
            groups.map(|(_, size)| size * floats).zip(0..).collect::<Vec<_>>()
        };
        let zeros = (self.m, self.weights.groups() * tiles.len());
        self.phases().flat_map(of_phase).chain([zeros]).collect()
    }

    fn write(&self, task: usize, segments: &mut [&mut [f32]]) {
        let tiles = self.tiles();
        let (group, tile) = (task / tiles.len().max(1), task % tiles.len().max(1));
        if let Some(&(first, size)) = tiles.get(tile)
            && group < self.weights.groups()
        {
            self.tile(group, first, size, segments);
        }
    }
}

/// `to = sum of factor * line`.
#[expect(clippy::inline_always, reason = "what is not inlined is not compiled for wider vectors")]
#[inline(always)]
fn combine<'a>(to: &mut [f64], factors: &[f64], lines: impl Iterator<Item = &'a [f64]>) {
    let mut terms = factors.iter().zip(lines).filter(|&(&factor, _)| factor != 0.0);
    match terms.next() {
        None => to.fill(0.0),
        Some((&factor, line)) => to.iter_mut().zip(line).for_each(|(to, &value)| *to = factor * value),
    }
    for (&factor, line) in terms {
        to.iter_mut().zip(line).for_each(|(to, &value)| *to += factor * value);
    }
}
