//! Shapes of tiles, and the cycles that they take: what the choice among ways to store and among shapes is made from.

use super::super::problem::{Axis, Problem};
use super::super::tiling::{accumulators, cut, cut_channels, cut_sizes, tile_cycles};
use super::schedule::Store;
use crate::target::Target;
use std::ops::Range;
use tconvc_ir::geometry::Phase;

/// A shape of the tiles that store in one way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TileShape {
    /// Cycles of all tiles over a row of the output, for each input channel and row of taps.
    pub cycles: f64,
    /// Output channels; pixels where tiles are of pixels.
    pub m: usize,
    /// Vectors.
    pub n: usize,
}

impl TileShape {
    const NONE: Self = Self { cycles: f64::INFINITY, m: 1, n: 1 };

    /// The better one; of those that are about even, this.
    fn or_better(self, other: Self) -> Self {
        if other.cycles < self.cycles * 0.999 { other } else { self }
    }
}

/// Cycles of a tile that do not depend on its size.
const CALL: f64 = 20.0;

/// Bytes after which addresses share a set of the first-level cache.
const PAGE: usize = 4096;

/// True when planes of so many floats are about a whole number of pages apart.
pub(super) fn is_paged(plane: usize) -> bool {
    let past_page = 4 * plane % PAGE;
    past_page.min(PAGE - past_page) < 128
}

/// Pixels of an image up to which a tile may take them from several rows.
const FEW_PIXELS: usize = 100;

/// True when an image is so small that tiles take its pixels in any order: all rows and columns are in one window.
pub(super) fn is_small(problem: &Problem) -> bool {
    problem.axes[1].steps() * problem.axes[2].steps() <= FEW_PIXELS
}

/// Planes that tiles of a small image take pixels of: all of them where the volume is small as well.
pub(super) fn planes_of_tiles(problem: &Problem) -> usize {
    let [z, y, x] = &problem.axes;
    if z.steps() * y.steps() * x.steps() <= FEW_PIXELS { z.steps() } else { 1 }
}

/// The ways to store that are weighed: interleaved only where all phases have accumulators, one phase in one way.
fn stores(x: &Axis, target: &Target) -> impl Iterator<Item = Store> {
    let interleaved = Store::Interleaved.fits(x) && x.phases.len() <= accumulators(target, 1).min(8);
    let one = interleaved && x.phases.len() == 1;
    Store::ALL.into_iter().filter(move |store| match store {
        Store::Interleaved => interleaved,
        Store::Strided => !one,
        Store::Channels | Store::Phases => store.fits(x),
    })
}

/// The tile that takes the fewest cycles, and how it stores; of those that are even, the first.
pub(super) fn best_tile(problem: &Problem, target: &Target) -> (Store, TileShape) {
    let best_of =
        |store| tiles_of(problem, target, store).into_iter().fold(TileShape::NONE, TileShape::or_better);
    let tiles = stores(&problem.axes[2], target).map(|store| (store, best_of(store)));
    tiles.fold(
        (Store::Channels, TileShape::NONE),
        |best, tile| if tile.1.cycles < best.1.cycles { tile } else { best },
    )
}

/// The tiles that store in this way: the best for each number of vectors.
pub(super) fn tiles_of(problem: &Problem, target: &Target, store: Store) -> Vec<TileShape> {
    match store {
        Store::Interleaved | Store::Strided => width_tiles(problem, target, store),
        Store::Channels => channel_tiles(problem, target),
        Store::Phases => phase_tiles(problem, target),
    }
}

/// Phases of a tile with lanes along the width, their taps along x and the distinct positions they read: of the one tile that
/// interleaves all phases, or of each.
fn phases_of_tiles(axis: &Axis, store: Store) -> Vec<(usize, usize, usize)> {
    if store != Store::Interleaved {
        return axis.phases.iter().map(|phase| (1, phase.taps.len(), phase.taps.len())).collect();
    }
    let mut shifts: Vec<i64> =
        axis.phases.iter().flat_map(|phase| &phase.taps).map(|tap| tap.shift).collect();
    let taps = shifts.len();
    shifts.sort_unstable();
    shifts.dedup();
    vec![(axis.phases.len(), taps, shifts.len())]
}

/// The most vectors that neighbouring phases fill which read the same positions.
fn phase_vectors(x: &Axis, lanes: usize) -> usize {
    Phase::aligned(&x.phases).iter().map(|run| run.len().div_ceil(lanes)).max().unwrap_or(1)
}

/// Vectors of phases, and output channels, in a tile of up to `n` vectors with lanes along the phases.
pub(super) fn phases_and_channels(x: &Axis, lanes: usize, n: usize) -> (usize, usize) {
    let phases = phase_vectors(x, lanes).min(n);
    (phases, n / phases)
}

/// The x-phases of each such tile.
pub(super) fn phase_groups(x: &Axis, lanes: usize, n: usize) -> Vec<Range<usize>> {
    let (vectors, _) = phases_and_channels(x, lanes, n);
    let mut groups = vec![];
    for run in Phase::aligned(&x.phases) {
        let mut first = run.start;
        for part in cut(run.len(), vectors * lanes, lanes) {
            groups.push(first..first + part);
            first += part;
        }
    }
    groups
}

/// Tiles with lanes along the channels.
fn channel_tiles(problem: &Problem, target: &Target) -> Vec<TileShape> {
    let vectors = problem.cout.div_ceil(target.lanes());
    let phases = &problem.axes[2].phases;
    pixel_tiles(problem, target, target.lanes(), vectors, |n| {
        let blocks = cut_channels(vectors, n);
        let of_phase =
            |phase: &Phase| blocks.iter().map(|&(n, count)| (phase.taps.len(), n, count)).collect();
        phases.iter().flat_map(|phase| -> Vec<_> { of_phase(phase) }).collect()
    })
}

/// Tiles with lanes along the phases; none where neighbours have other positions.
fn phase_tiles(problem: &Problem, target: &Target) -> Vec<TileShape> {
    let (x, lanes) = (&problem.axes[2], target.lanes());
    if !Store::Phases.fits(x) {
        return vec![];
    }
    pixel_tiles(problem, target, 1, phase_vectors(x, lanes) * problem.cout, |n| {
        let (_, channels) = phases_and_channels(x, lanes, n);
        let blocks = cut_channels(problem.cout, channels);
        let of_group = |group: Range<usize>| -> Vec<_> {
            let (taps, vectors) = (x.phases[group.start].taps.len(), group.len().div_ceil(lanes));
            blocks.iter().map(|&(channels, count)| (taps, vectors * channels, count)).collect()
        };
        phase_groups(x, lanes, n).into_iter().flat_map(of_group).collect()
    })
}

/// Tiles of pixels by vectors. A vector of results takes so many stores; `tiles` gives
/// taps, vectors and number of the tiles over a pixel, for the most vectors of a tile.
fn pixel_tiles(
    problem: &Problem,
    target: &Target,
    stores: usize,
    vectors: usize,
    tiles: impl Fn(usize) -> Vec<(usize, usize, usize)>,
) -> Vec<TileShape> {
    let [_, y, x] = &problem.axes;
    // Small images: pixels of all rows together; the cost is that of one row.
    let rows = if is_small(problem) { planes_of_tiles(problem) * y.steps() } else { 1 };
    let (pixels, share) = (rows * x.steps(), 1.0 / rows as f64);
    let sums = (problem.cin * mean_rows(problem)).max(1) as f64;
    // Lanes that go to planes whole pages apart push each other out of the cache.
    let store_cycles = if stores > 1 && is_paged(problem.output.plane) { 3.0 } else { 1.5 };
    let mut shapes = vec![];
    for n in 1..=vectors.clamp(1, 4) {
        let mut best = TileShape { n, ..TileShape::NONE };
        let tiles = tiles(n);
        for m in 1..=pixels.clamp(1, 28) {
            if m * n > accumulators(target, n) {
                continue;
            }
            let mut cycles = 0.0;
            for (part, parts) in cut_sizes(pixels, m) {
                for &(taps, block, blocks) in &tiles {
                    let taps = taps as f64;
                    let (fma, loads) = (taps * (part * block) as f64, taps * (part + block) as f64);
                    // Every result is stored once for each sum, in one call for all.
                    let stores = (CALL + (part * block * stores) as f64 * store_cycles) / sums;
                    let once = (fma / 2.0).max(loads / 2.0).max((fma + loads) / 5.0).max(4.0 * taps);
                    cycles += (parts * blocks) as f64 * (once + 0.5 + stores);
                }
            }
            best = best.or_better(TileShape { cycles: cycles * share, m, n });
        }
        shapes.push(best);
    }
    shapes
}

/// Rows of taps of a row phase, on average.
fn mean_rows(problem: &Problem) -> usize {
    let [z, y, _] = &problem.axes;
    let taps = |axis: &Axis| {
        axis.phases.iter().map(|phase| phase.taps.len()).sum::<usize>().div_ceil(axis.phases.len().max(1))
    };
    taps(z) * taps(y)
}

/// Tiles with lanes along the width, over all channels and columns, remainders included.
fn width_tiles(problem: &Problem, target: &Target, store: Store) -> Vec<TileShape> {
    let x = &problem.axes[2];
    let tiles = phases_of_tiles(x, store);
    let vectors = x.steps().div_ceil(target.lanes());
    let sums = (problem.cin * mean_rows(problem)).max(1) as f64;
    let mut shapes = vec![];
    for n in 1..=vectors.clamp(1, 6) {
        let mut best = TileShape { n, ..TileShape::NONE };
        for m in 1..=problem.cout.clamp(1, 16) {
            let room = accumulators(target, n);
            if tiles.iter().any(|&(phases, ..)| phases * m * n > room) {
                continue;
            }
            let mut cycles = 0.0;
            for (n, times) in cut_sizes(vectors, n) {
                for (m, count) in cut_channels(problem.cout, m) {
                    for &(phases, taps, positions) in &tiles {
                        // A call, and stores: whole vectors, or one lane after the other.
                        let stores = m * n * if store == Store::Strided { target.lanes() } else { phases };
                        let once = (CALL + stores as f64) / sums;
                        cycles +=
                            (times * count) as f64 * (tile_cycles(phases, taps, positions, m, n) + once);
                    }
                }
            }
            best = best.or_better(TileShape { cycles, m, n });
        }
        shapes.push(best);
    }
    shapes
}
