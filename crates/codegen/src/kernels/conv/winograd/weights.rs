//! The weights in the transformed domain: `G g G^T` for each pair of channels.

use super::super::rows::cut_channels;
use super::super::weights::Weights;
use super::points::Filtering;

/// The taps of a phase along one axis as kernel indices, in the order of the inputs they read.
pub(super) type Kernels = Vec<usize>;

/// Weights of one y-phase: group, tile of `m` output channels, product term (of all x-phases), input channel, channel.
///
/// Sums are made in f64 and rounded once.
pub(super) fn pack(
    weights: &Weights<'_>,
    (y, y_kernels): (&Filtering, &Kernels),
    xs: &[(Filtering, Kernels)],
    m: usize,
) -> Vec<f32> {
    let (groups, cout, cin) = (weights.groups(), weights.cout(), weights.cin());
    let terms: usize = xs.iter().map(|(x, _)| y.n() * x.n()).sum();
    let mut packed = vec![0.0f32; groups * cout * terms * cin];
    let mut start = 0;
    for group in 0..groups {
        let mut first = 0;
        for (size, count) in cut_channels(cout, m) {
            for _ in 0..count {
                let tile = &mut packed[start..start + size * terms * cin];
                let mut term = 0;
                for (x, x_kernels) in xs.iter().filter(|(x, _)| y.n() * x.n() > 0) {
                    let mut taps = vec![0.0f64; y.r * x.r * size];
                    let mut half = vec![0.0f64; y.n() * x.r * size];
                    let mut sums = vec![0.0f64; size];
                    for ci in 0..cin {
                        for (row, &ky) in y_kernels.iter().enumerate() {
                            for (column, &kx) in x_kernels.iter().enumerate() {
                                let at = (row * x.r + column) * size;
                                let from = weights.row(group, first, size, ci, [0, ky, kx]);
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
                start += size * terms * cin;
                first += size;
            }
        }
    }
    packed
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
