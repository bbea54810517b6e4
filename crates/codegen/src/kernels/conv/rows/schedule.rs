//! Decides how a convolution with lanes along the width is cut up. Plain values; no code is made here.

use super::super::problem::{Axis, Problem};
use super::super::tiling::{accumulators, cut, cut_channels, cut_sizes, is_uneven, tile_cycles};
use crate::target::Target;
use std::ops::Range;
use tconvc_ir::geometry::Phase;

/// Where tiles read the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// From a window of rows packed into scratch memory.
    Packed,
    /// From the tensor itself: no tap leaves it.
    Direct,
}

/// How results of the x-phases come together in the output row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Store {
    /// All phases in one tile, interleaved in registers, whole vectors stored.
    Interleaved,
    /// A tile for each phase, its lanes stored one by one a stride apart.
    Strided,
    /// Lanes along the channels: a tile for each phase and so many pixels, its lanes stored one by one a plane apart.
    Channels,
    /// Lanes along neighbouring x-phases that read the same positions: a tile for so many pixels, whole vectors stored.
    Phases,
}

impl Store {
    /// Whether tiles are of pixels by vectors.
    pub fn is_by_pixels(self) -> bool {
        matches!(self, Self::Channels | Self::Phases)
    }
}

/// The decisions.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Schedule {
    pub source: Source,
    pub store: Store,
    /// Output channels of a tile; pixels where it is of pixels.
    pub m: usize,
    /// Vectors of a tile, for each phase; of channels or of phases where lanes run along these.
    pub n: usize,
    /// Steps (outputs of a phase) along y that share a window.
    pub rows: usize,
    /// Steps along x that share a window; a multiple of the lanes, or all of them.
    pub columns: usize,
    /// Parts of the output channels, each a unit of work of its own; of the phases where lanes run along these.
    pub parts: usize,
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

/// The ways to store that are weighed: interleaved only where every phase exists and all have accumulators.
fn stores(x: &Axis, target: &Target) -> impl Iterator<Item = Store> {
    let complete = x.phases.len() == x.out_stride;
    let interleaved = complete && x.phases.len() <= accumulators(target, 1).min(8);
    let alone = interleaved && x.phases.len() == 1;
    [Store::Interleaved, Store::Strided, Store::Channels, Store::Phases].into_iter().filter(move |store| {
        match store {
            Store::Interleaved => interleaved,
            Store::Strided => !alone,
            Store::Channels | Store::Phases => true,
        }
    })
}

/// The tile that takes the fewest cycles, and how it stores; of those that are about even, the first.
fn best_tile(problem: &Problem, target: &Target) -> (Store, (f64, usize, usize)) {
    let tiles = stores(&problem.axes[2], target).map(|store| (store, tile_shape(problem, target, store)));
    tiles
        .reduce(|best, tile| if tile.1.0 < best.1.0 { tile } else { best })
        .unwrap_or((Store::Channels, (f64::INFINITY, 1, 1)))
}

/// Cycles of a tile that do not depend on its size.
const CALL: f64 = 20.0;

/// Whether tiles can read the tensor itself: no tap leaves it.
pub(super) fn readable_in_place(problem: &Problem) -> bool {
    problem.axes.iter().all(Axis::is_inside) && problem.axes[2].in_stride == 1
}

/// True when planes of so many floats are about a whole number of pages apart.
fn is_paged(plane: usize) -> bool {
    let past_page = 4 * plane % PAGE;
    past_page.min(PAGE - past_page) < 128
}

/// Bytes after which addresses share a set of the first-level cache, and lines of a set.
const PAGE: usize = 4096;
const WAYS: usize = 8;

impl Schedule {
    /// The schedule for a problem on so many threads.
    pub fn choose(problem: &Problem, target: &Target, threads: usize) -> Self {
        let inside = readable_in_place(problem);
        let reuse = problem.cout
            * problem
                .axes
                .iter()
                .map(|axis| axis.phases.iter().map(|phase| phase.taps.len()).sum::<usize>())
                .product::<usize>();
        // Planes a whole number of pages apart fall on the same few lines of the caches.
        let collide = problem.cin > WAYS && is_paged(problem.input.plane);
        let worth = if collide { 16 } else { 64 };
        let source = if inside && reuse < worth { Source::Direct } else { Source::Packed };

        let (store, (_, m, n)) = best_tile(problem, target);
        Self::with_tile(problem, target, threads, source, store, (m, n))
    }

    /// The schedule with these tiles; window and units of work follow.
    pub fn with_tile(
        problem: &Problem,
        target: &Target,
        threads: usize,
        source: Source,
        store: Store,
        (m, n): (usize, usize),
    ) -> Self {
        let x = &problem.axes[2];
        let mut schedule = Self { source, store, m, n, rows: 1, columns: 1, parts: 1 };
        let tiles = schedule.most_parts(problem, target);
        if store.is_by_pixels() && is_small(problem) {
            (schedule.rows, schedule.columns) = (problem.axes[1].steps(), x.steps());
        } else {
            let window = Window::choose(problem, target, source, if store.is_by_pixels() { 1 } else { n });
            (schedule.rows, schedule.columns) = (window.rows, window.columns);
            if store != Store::Interleaved && x.phases.len() > 1 {
                schedule.keep_rows_near(problem, target, tiles);
            }
        }
        let outer = problem.batch
            * problem.groups
            * problem.axes[0].steps().div_ceil(schedule.planes(problem))
            * problem.axes[1].steps().div_ceil(schedule.rows)
            * x.steps().div_ceil(schedule.columns);
        schedule.parts = if store == Store::Channels {
            // Parts are outermost: weights are read once, and all images pass over a part of them.
            tiles.min((4 * threads).max(if problem.batch > 1 { tiles.div_ceil(4) } else { 1 }))
        } else if store == Store::Strided && schedule.parts > 1 {
            schedule.parts
        } else if is_uneven(outer, threads) {
            (4 * threads).div_ceil(outer).min(tiles)
        } else {
            1
        };
        schedule
    }

    /// Fewer rows, and parts of the channels, so that the rows of a y-phase, which each x-phase writes in a pass of its own,
    /// are still in the second-level cache in the last pass.
    fn keep_rows_near(&mut self, problem: &Problem, target: &Target, tiles: usize) {
        let x = &problem.axes[2];
        let parts = tiles.min(4);
        let row = 4 * self.columns * x.out_stride * problem.cout.div_ceil(parts);
        let near =
            |rows| Window::bytes(problem, rows, self.columns) + rows * row <= target.caches().l2_bytes / 2;
        if self.store == Store::Strided {
            self.parts = parts;
        }
        while self.rows > 1 && !near(self.rows) {
            self.rows = self.rows.div_ceil(2);
        }
    }

    /// Steps along z that share a window: all of those of a small volume.
    pub fn planes(&self, problem: &Problem) -> usize {
        if self.store.is_by_pixels() && is_small(problem) { planes_of_tiles(problem) } else { 1 }
    }

    /// Tiles beside each other in what [`Schedule::parts`] divides.
    pub fn most_parts(&self, problem: &Problem, target: &Target) -> usize {
        let [z, y, x] = &problem.axes;
        match self.store {
            Store::Interleaved | Store::Strided => problem.cout.div_ceil(self.m),
            Store::Channels => problem.cout.div_ceil(self.n * target.lanes()),
            Store::Phases => z.phases.len() * y.phases.len() * self.phase_groups(x, target.lanes()).len(),
        }
    }

    /// Output channels of a tile with lanes along the phases.
    pub fn channels_beside_phases(&self, x: &Axis, lanes: usize) -> usize {
        phases_and_channels(x, lanes, self.n).1
    }

    /// The x-phases of each tile with lanes along them.
    pub fn phase_groups(&self, x: &Axis, lanes: usize) -> Vec<Range<usize>> {
        phase_groups(x, lanes, self.n)
    }
}

/// The most vectors that neighbouring phases fill which read the same positions.
fn phase_vectors(x: &Axis, lanes: usize) -> usize {
    Phase::aligned(&x.phases).iter().map(|run| run.len().div_ceil(lanes)).max().unwrap_or(1)
}

/// Vectors of phases, and output channels, in a tile of up to `n` vectors with lanes along the phases.
fn phases_and_channels(x: &Axis, lanes: usize, n: usize) -> (usize, usize) {
    let phases = phase_vectors(x, lanes).min(n);
    (phases, n / phases)
}

/// The x-phases of each such tile.
fn phase_groups(x: &Axis, lanes: usize, n: usize) -> Vec<Range<usize>> {
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

/// Cycles, channels or pixels, and vectors of the tiles that store in this way: the best for each number of vectors.
pub(super) fn tiles_of(problem: &Problem, target: &Target, store: Store) -> Vec<(f64, usize, usize)> {
    match store {
        Store::Interleaved | Store::Strided => width_tiles(problem, target, store),
        Store::Channels => channel_tiles(problem, target),
        Store::Phases => phase_tiles(problem, target),
    }
}

/// The tile that takes the fewest cycles; of those that are about even, the first.
fn tile_shape(problem: &Problem, target: &Target, store: Store) -> (f64, usize, usize) {
    let tiles = tiles_of(problem, target, store);
    tiles
        .into_iter()
        .fold((f64::INFINITY, 1, 1), |best, tile| if tile.0 < best.0 * 0.999 { tile } else { best })
}

/// Cycles that the whole convolution takes by tiles over windows, packing included.
pub(in super::super) fn direct_cycles(problem: &Problem, target: &Target) -> f64 {
    let [z, y, x] = &problem.axes;
    let (_, (row, ..)) = best_tile(problem, target);
    let rows = |axis: &Axis| axis.phases.iter().map(|phase| phase.count * phase.taps.len()).sum::<usize>();
    let window = Window::choose(problem, target, Source::Packed, 1);
    let packing = 3.0 * window.copies * (z.steps() * y.steps() * x.steps()) as f64 / target.lanes() as f64;
    let images = (problem.batch * problem.groups * problem.cin) as f64;
    images * (row * (rows(z) * rows(y)) as f64 + packing)
}

/// Pixels of an image up to which a tile may take them from several rows.
pub(super) const FEW_PIXELS: usize = 100;

/// True when an image is so small that tiles take its pixels in any order: all rows and columns are in one window.
pub(super) fn is_small(problem: &Problem) -> bool {
    problem.axes[1].steps() * problem.axes[2].steps() <= FEW_PIXELS
}

/// Planes that tiles of a small image take pixels of: all of them where the volume is small as well.
pub(super) fn planes_of_tiles(problem: &Problem) -> usize {
    let [z, y, x] = &problem.axes;
    if z.steps() * y.steps() * x.steps() <= FEW_PIXELS { z.steps() } else { 1 }
}

/// Cycles, pixels and vectors of the best tiles with lanes along the channels.
fn channel_tiles(problem: &Problem, target: &Target) -> Vec<(f64, usize, usize)> {
    let vectors = problem.cout.div_ceil(target.lanes());
    let phases = &problem.axes[2].phases;
    pixel_tiles(problem, target, target.lanes(), vectors, |n| {
        let blocks = cut_channels(vectors, n);
        let of_phase =
            |phase: &Phase| blocks.iter().map(|&(n, count)| (phase.taps.len(), n, count)).collect();
        phases.iter().flat_map(|phase| -> Vec<_> { of_phase(phase) }).collect()
    })
}

/// Cycles, pixels and vectors of the best tiles with lanes along the phases; none where neighbours have other positions.
fn phase_tiles(problem: &Problem, target: &Target) -> Vec<(f64, usize, usize)> {
    let (x, lanes) = (&problem.axes[2], target.lanes());
    if Phase::aligned(&x.phases).len() == x.phases.len() {
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

/// Cycles, pixels and vectors of the best tiles of pixels by vectors. A vector of results takes so many stores; `tiles` gives
/// taps, vectors and number of the tiles over a pixel, for the most vectors of a tile.
fn pixel_tiles(
    problem: &Problem,
    target: &Target,
    stores: usize,
    vectors: usize,
    tiles: impl Fn(usize) -> Vec<(usize, usize, usize)>,
) -> Vec<(f64, usize, usize)> {
    let [_, y, x] = &problem.axes;
    // Small images: pixels of all rows together; the cost is that of one row.
    let rows = if is_small(problem) { planes_of_tiles(problem) * y.steps() } else { 1 };
    let (pixels, share) = (rows * x.steps(), 1.0 / rows as f64);
    let sums = (problem.cin * mean_rows(problem)).max(1) as f64;
    // Lanes that go to planes whole pages apart push each other out of the cache.
    let store_cycles = if stores > 1 && is_paged(problem.output.plane) { 3.0 } else { 1.5 };
    let mut shapes = vec![];
    for n in 1..=vectors.clamp(1, 4) {
        let mut best = (f64::INFINITY, 1, n);
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
            if cycles * share < best.0 * 0.999 {
                best = (cycles * share, m, n);
            }
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

/// Cycles, channels and vectors of the best tiles with lanes along the width, over all channels and columns, remainders
/// included.
fn width_tiles(problem: &Problem, target: &Target, store: Store) -> Vec<(f64, usize, usize)> {
    let x = &problem.axes[2];
    let tiles = phases_of_tiles(x, store);
    let vectors = x.steps().div_ceil(target.lanes());
    let sums = (problem.cin * mean_rows(problem)).max(1) as f64;
    let mut shapes = vec![];
    for n in 1..=vectors.clamp(1, 6) {
        let mut best = (f64::INFINITY, 1, n);
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
            if cycles < best.0 * 0.999 {
                best = (cycles, m, n);
            }
        }
        shapes.push(best);
    }
    shapes
}

/// A window of the input.
pub(super) struct Window {
    /// Steps along y and x that share it.
    rows: usize,
    columns: usize,
    /// Positions copied for each of these steps.
    copies: f64,
}

impl Window {
    /// Bytes of a window of so many steps along y and x.
    pub fn bytes(problem: &Problem, rows: usize, columns: usize) -> usize {
        let [z, y, x] = &problem.axes;
        4 * problem.cin * z.reach(1) * y.reach(rows) * (x.reach(columns) + 8)
    }

    /// The one that takes the fewest copies among those that fit a part of the second-level cache.
    fn choose(problem: &Problem, target: &Target, source: Source, n: usize) -> Self {
        let [_, y, x] = &problem.axes;
        let block = n * target.lanes();
        if source == Source::Direct {
            // Long rows are cut so that the data stays in the first-level cache while the channels pass over it.
            let columns =
                (target.caches().l1d_bytes / 2 / (4 * problem.cin).max(1)).max(4 * block) / block * block;
            return Self { rows: y.steps().clamp(1, 8), columns: columns.min(x.steps()), copies: 0.0 };
        }
        // A window that shares nothing with its neighbours gains nothing from size.
        let shares = |axis: &Axis| axis.shifts().1 - axis.shifts().0 >= axis.in_stride as i64;
        let eighths = if shares(y) || shares(x) { 3 } else { 2 };
        let budget = target.caches().l2_bytes / 8 * eighths;
        let bytes = |rows, columns| Self::bytes(problem, rows, columns);
        // Rows and columns at the edges of a window are copied for its neighbours as well: the fewest copies for an output.
        let mut best = Self { rows: 1, columns: x.steps().min(block), copies: 1.0 };
        let mut least = f64::INFINITY;
        let mut columns = x.steps();
        loop {
            // The most rows that fit, in even blocks: the last one should not be a sliver.
            let most = (1..=y.steps()).rev().find(|&rows| bytes(rows, columns) <= budget);
            let rows = y.steps().div_ceil(y.steps().div_ceil(most.unwrap_or(1)));
            let copies = (y.reach(rows) * (x.reach(columns) + 8)) as f64 / (rows * columns) as f64;
            // Blocks that are no whole number of tiles leave lanes idle; short ones cost calls.
            let idle = columns.next_multiple_of(block) as f64 / columns as f64
                + block as f64 / columns as f64 / 16.0;
            let fits = most.is_some() || columns <= 4 * block;
            if fits && copies * idle < least * 0.97 {
                least = copies * idle;
                best = Self { rows, columns, copies };
            }
            let half = (columns / 2).next_multiple_of(block);
            if half >= columns || (fits && columns <= 4 * block) {
                break;
            }
            columns = half;
        }
        best
    }
}
