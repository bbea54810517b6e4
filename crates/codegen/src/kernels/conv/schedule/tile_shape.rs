//! Shapes of tiles, and the cycles that they take: what the choice among dataflows and among shapes is made from.

use crate::kernels::conv::problem::{Axis, Problem};
use crate::kernels::conv::schedule::direct::Dataflow;
use crate::kernels::conv::schedule::tiling::{
    LINE_BYTES, accumulators, cut, cut_channels, cut_sizes, held_taps, tile_cycles, transposes,
};
use std::ops::Range;
use tconvc_ir::geometry::Phase;
use tconvc_machine::{Rates, Target};

/// A shape of the tiles of one dataflow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TileShape {
    /// Cycles of all tiles over a row of the output, for each input channel and row of taps.
    pub cycles: f64,
    /// Output channels; pixels where tiles are of pixels.
    pub m: usize,
    /// Vectors.
    pub n: usize,
    /// Rows that it takes so many vectors of.
    pub stack: usize,
}

impl TileShape {
    const NONE: Self = Self { cycles: f64::INFINITY, m: 1, n: 1, stack: 1 };

    /// The better one; of those that are about even, this.
    fn or_better(self, other: Self) -> Self {
        if other.cycles < self.cycles * 0.999 { other } else { self }
    }
}

/// How much longer tiles of pixels were measured to take than the same work along the width.
const BY_PIXELS: f64 = 1.04;

/// How much longer tiles of all phases were measured to take than is estimated otherwise.
const JOINT: f64 = 1.04;

/// True when planes of so many floats are about as far apart as addresses that share a set of the first-level cache, or a whole
/// multiple of that.
pub(crate) fn shares_sets(plane: usize, target: &Target) -> bool {
    let period = target.caches().l1d.period_bytes();
    let past = 4 * plane % period;
    past.min(period - past) < 128
}

/// Pixels of an image up to which a tile may take them from several rows.
const FEW_PIXELS: usize = 100;

/// True when an image is so small that tiles take its pixels in any order: all rows and columns are in one input tile.
pub(crate) fn is_small(problem: &Problem) -> bool {
    problem.axes[1].output_positions() * problem.axes[2].output_positions() <= FEW_PIXELS
}

/// Planes that tiles of a small image take pixels of: all of them where the volume is small as well.
pub(crate) fn planes_of_tiles(problem: &Problem) -> usize {
    let [z, y, x] = &problem.axes;
    if z.output_positions() * y.output_positions() * x.output_positions() <= FEW_PIXELS {
        z.output_positions()
    } else {
        1
    }
}

/// The dataflows that are weighed: interleaved only where all phases have accumulators, one phase with one.
fn dataflows<'a>(problem: &'a Problem, target: &'a Target) -> impl Iterator<Item = Dataflow> + 'a {
    let x = &problem.axes[2];
    // Interleaving takes a shuffle for each other phase.
    let most = accumulators(target, 1).min(target.vectors().most_interleaved);
    let interleaved = Dataflow::Interleaved.fits(problem, target) && x.phases.len() <= most;
    let one = interleaved && x.phases.len() == 1;
    Dataflow::ALL.into_iter().filter(move |dataflow| match dataflow {
        Dataflow::Interleaved => interleaved,
        Dataflow::Strided => !one,
        Dataflow::Joint => interleaved && dataflow.fits(problem, target),
        Dataflow::Transposed => x.phases.len() <= MOST_TRANSPOSED && dataflow.fits(problem, target),
        Dataflow::Channels | Dataflow::Phases => dataflow.fits(problem, target),
    })
}

/// Phases of a tile with lanes along the channels: more leave no registers for weights.
const MOST_TRANSPOSED: usize = 4;

/// Multiply-adds up to which tiles of all phases are: they are written out.
const WRITTEN_OUT: usize = 700;

/// Whether tiles of all phases with so many channels times vectors can be written out.
pub(crate) fn is_written_out(problem: &Problem, sums: usize) -> bool {
    let taps = |axis: &Axis| axis.phases.iter().map(|phase| phase.taps.len()).sum::<usize>();
    problem.axes.iter().map(taps).product::<usize>().saturating_mul(sums) <= WRITTEN_OUT
}

/// The tile that takes the fewest cycles, and how it stores; of those that are even, the first.
pub(crate) fn best_tile(problem: &Problem, target: &Target) -> (Dataflow, TileShape) {
    let best_of = |dataflow| {
        tiles_of(problem, target, dataflow).into_iter().fold(TileShape::NONE, TileShape::or_better)
    };
    let tiles = dataflows(problem, target).map(|dataflow| (dataflow, best_of(dataflow)));
    tiles.fold(
        (Dataflow::Channels, TileShape::NONE),
        |best, tile| if tile.1.cycles < best.1.cycles { tile } else { best },
    )
}

/// The tiles of this dataflow: the best for each number of vectors.
pub(crate) fn tiles_of(problem: &Problem, target: &Target, dataflow: Dataflow) -> Vec<TileShape> {
    match dataflow {
        Dataflow::Interleaved | Dataflow::Joint | Dataflow::Strided => width_tiles(problem, target, dataflow),
        Dataflow::Channels | Dataflow::Transposed => channel_tiles(problem, target, dataflow),
        Dataflow::Phases => phase_tiles(problem, target),
    }
}

/// What a tile with lanes along the width has to do, in numbers.
#[derive(PartialEq)]
struct Counts {
    /// Phases of the tile.
    phases: usize,
    /// Taps of all of them, the positions that they read, and loads of these, each once.
    taps: usize,
    positions: usize,
    loads: usize,
    /// The most phases that a position feeds.
    fed: usize,
    /// Rows of taps that the tile takes the place of, and rows of the input that it reads.
    rows: usize,
    lines: usize,
}

impl Counts {
    /// Whether there are registers for the sums of so many channels and vectors, and beside them for these vectors, or the
    /// weights that meet a position.
    fn fit(&self, target: &Target, m: usize, vectors: usize) -> bool {
        self.phases * m * vectors <= accumulators(target, vectors.min(self.fed * m))
    }
}

/// Whether there are registers for tiles with lanes along the width, of so many channels and vectors.
pub(crate) fn fits_registers(
    problem: &Problem,
    target: &Target,
    dataflow: Dataflow,
    (m, vectors): (usize, usize),
) -> bool {
    counts_of_tiles(problem, target, dataflow).iter().all(|tile| tile.fit(target, m, vectors))
}

/// The tiles over a row of the output, each for all rows of taps that it has: one that interleaves all phases, or one a phase.
fn counts_of_tiles(problem: &Problem, target: &Target, dataflow: Dataflow) -> Vec<Counts> {
    let [z, y, x] = &problem.axes;
    // Taps, positions that differ, and the most taps that read one.
    let count = |axis: &Axis| {
        let taps = axis.phases.iter().flat_map(|phase| &phase.taps);
        let mut shifts: Vec<i64> = taps.map(|tap| tap.shift).collect();
        shifts.sort_unstable();
        let (mut positions, mut most) = (0, 0);
        for same in shifts.chunk_by(|a, b| a == b) {
            (positions, most) = (positions + 1, most.max(same.len()));
        }
        (shifts.len(), positions, most)
    };
    // A vector that lies in two cache lines takes two loads: of neighbouring positions all but the first, if a vector is a line,
    // and half of them, if it is half of one.
    let in_two = |positions: usize| positions.saturating_sub(1) * target.vector_bytes() / LINE_BYTES as usize;
    let loads = |positions: usize| positions + in_two(positions);
    let (taps, positions, fed) = count(x);
    match dataflow {
        Dataflow::Interleaved => {
            vec![Counts {
                phases: x.phases.len(),
                taps,
                positions,
                loads: loads(positions),
                fed,
                rows: 1,
                lines: 1,
            }]
        }
        Dataflow::Joint => {
            let ((taps_z, rows_z, fed_z), (taps_y, rows_y, fed_y)) = (count(z), count(y));
            vec![Counts {
                phases: dataflow.phases(problem),
                taps: taps_z * taps_y * taps,
                positions: rows_z * rows_y * positions,
                loads: rows_z * rows_y * loads(positions),
                fed: fed_z * fed_y * fed,
                rows: taps_z * taps_y,
                lines: rows_z * rows_y,
            }]
        }
        _ => {
            let of_phase = |phase: &Phase| {
                let taps = phase.taps.len();
                Counts { phases: 1, taps, positions: taps, loads: loads(taps), fed: 1, rows: 1, lines: 1 }
            };
            x.phases.iter().map(of_phase).collect()
        }
    }
}

/// The most vectors that neighbouring phases fill which read the same positions.
fn phase_vectors(x: &Axis, lanes: usize) -> usize {
    Phase::aligned(&x.phases).iter().map(|run| run.len().div_ceil(lanes)).max().unwrap_or(1)
}

/// Vectors of phases, and output channels, in a tile of up to `n` vectors with lanes along the phases.
pub(crate) fn phases_and_channels(x: &Axis, lanes: usize, n: usize) -> (usize, usize) {
    let phases = phase_vectors(x, lanes).min(n);
    (phases, n / phases)
}

/// The x-phases of each such tile.
pub(crate) fn phase_groups(x: &Axis, lanes: usize, n: usize) -> Vec<Range<usize>> {
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

/// Things that differ, and how often each is there.
fn counted<T: PartialEq>(all: impl IntoIterator<Item = (T, usize)>) -> Vec<(T, usize)> {
    let mut counted: Vec<(T, usize)> = vec![];
    for (thing, count) in all {
        match counted.iter_mut().find(|(known, _)| *known == thing) {
            Some((_, times)) => *times += count,
            None => counted.push((thing, count)),
        }
    }
    counted
}

/// A tile of pixels by vectors, as far as its cost goes.
#[derive(PartialEq)]
struct PixelTile {
    /// Phases that are points of their own.
    phases: usize,
    /// Taps of a row of all of them, and the positions that they read.
    taps: usize,
    positions: usize,
    vectors: usize,
}

/// Tiles with lanes along the channels.
fn channel_tiles(problem: &Problem, target: &Target, dataflow: Dataflow) -> Vec<TileShape> {
    let x = &problem.axes[2];
    let vectors = problem.cout.div_ceil(target.lanes());
    // Lanes that go to planes whole pages apart push each other out of the cache.
    let moves = target.rates().moves;
    let lane = if shares_sets(problem.output.plane, target) { moves.colliding_lane } else { moves.far_lane };
    let vector = match dataflow {
        _ if !transposes(target) => target.lanes() as f64 * lane,
        // Shuffles, and a store of whole vectors or of a lane after the other.
        Dataflow::Channels if x.out_stride > 1 => {
            moves.shuffled_vector + target.lanes() as f64 * moves.far_lane
        }
        _ => moves.transposed_vector,
    };
    let joint = dataflow == Dataflow::Transposed;
    pixel_tiles(problem, target, vector, vectors, |n| {
        let tiles =
            counts_of_tiles(problem, target, if joint { Dataflow::Interleaved } else { Dataflow::Strided });
        let blocks = cut_channels(vectors, n);
        let of_counts = |counts: Counts| {
            let Counts { phases, taps, positions, .. } = counts;
            blocks
                .iter()
                .map(move |&(vectors, count)| (PixelTile { phases, taps, positions, vectors }, count))
        };
        counted(tiles.into_iter().flat_map(of_counts))
    })
}

/// Tiles with lanes along the phases; none where neighbours have other positions.
fn phase_tiles(problem: &Problem, target: &Target) -> Vec<TileShape> {
    let (x, lanes) = (&problem.axes[2], target.lanes());
    if !Dataflow::Phases.fits(problem, target) {
        return vec![];
    }
    pixel_tiles(
        problem,
        target,
        target.rates().moves.stored_vector,
        phase_vectors(x, lanes) * problem.cout,
        |n| {
            let (_, channels) = phases_and_channels(x, lanes, n);
            let blocks = cut_channels(problem.cout, channels);
            let of_group = |group: Range<usize>| {
                let (taps, vectors) = (x.phases[group.start].taps.len(), group.len().div_ceil(lanes));
                let tile = move |&(channels, count): &(usize, usize)| {
                    (PixelTile { phases: 1, taps, positions: taps, vectors: vectors * channels }, count)
                };
                blocks.iter().map(tile)
            };
            counted(phase_groups(x, lanes, n).into_iter().flat_map(of_group))
        },
    )
}

/// Tiles of pixels by vectors. A vector of results takes so many cycles to store; `tiles` gives the tiles over a pixel, and how
/// many of each there are, for the most vectors of a tile.
fn pixel_tiles(
    problem: &Problem,
    target: &Target,
    store_cycles: f64,
    vectors: usize,
    tiles: impl Fn(usize) -> Vec<(PixelTile, usize)>,
) -> Vec<TileShape> {
    let ([_, y, x], rates) = (&problem.axes, target.rates());
    // Small images: pixels of all rows together; the cost is that of one row.
    let rows = if is_small(problem) { planes_of_tiles(problem) * y.output_positions() } else { 1 };
    let (pixels, share) = (rows * x.output_positions(), 1.0 / rows as f64);
    let sums = (problem.cin * mean_rows(problem)).max(1) as f64;
    let every: f64 = problem.axes.iter().map(|axis| axis.kernel as f64).product();
    let all_weights = 4.0 * (problem.groups * problem.cin * problem.cout) as f64 * every;
    let mut shapes = vec![];
    for n in 1..=vectors.clamp(1, 4) {
        let mut best = TileShape { n, ..TileShape::NONE };
        let tiles = tiles(n);
        for m in 1..=pixels.clamp(1, 28) {
            if tiles.iter().any(|(tile, _)| tile.phases * m * n > accumulators(target, n)) {
                continue;
            }
            let mut cycles = 0.0;
            for (part, parts) in cut_sizes(pixels, m) {
                for &(PixelTile { phases, taps, positions, vectors }, count) in &tiles {
                    let held = held_taps(target, part * phases * vectors, vectors);
                    // Each part of the taps loads its weights, and the pixels that it reads.
                    let splats = taps.div_ceil(held) * (part - 1) + positions;
                    let (fma, loads) = ((taps * part * vectors) as f64, (splats + taps * vectors) as f64);
                    // Every result is stored once for each sum, in one call for all.
                    let stores = (rates.calls.tile + (part * phases * vectors) as f64 * store_cycles) / sums;
                    let latency = rates.latency * taps as f64 / phases as f64;
                    let bytes = (taps * vectors * target.vector_bytes()) as f64;
                    let passes = (x.output_positions() * y.output_positions() / m).max(1) as f64;
                    let work = rates.work_cycles(fma, loads).max(latency);
                    // The first pass over the weights brings them near.
                    let first = work.max(bytes / rates.memory.bytes_per_cycle(all_weights));
                    let next = work.max(bytes / rates.memory.bytes_per_cycle(bytes * sums));
                    let once = (first + (passes - 1.0) * next) / passes;
                    cycles += (parts * count) as f64 * (BY_PIXELS * once + 1.0 + stores);
                }
            }
            best = best.or_better(TileShape { cycles: cycles * share, m, n, stack: 1 });
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
fn width_tiles(problem: &Problem, target: &Target, dataflow: Dataflow) -> Vec<TileShape> {
    // Phases are mostly alike.
    let tiles = counted(counts_of_tiles(problem, target, dataflow).into_iter().map(|tile| (tile, 1)));
    let vectors = problem.axes[2].output_positions().div_ceil(target.lanes());
    let rows = problem.axes[1].output_positions();
    let rates = target.rates();
    let highest = if can_stack(problem, dataflow) { rows.clamp(1, MOST_STACKED) } else { 1 };
    let mut shapes = vec![];
    let sizes = (1..=vectors.clamp(1, 6)).flat_map(|n| (1..=highest).map(move |stack| (n, stack)));
    for (n, stack) in sizes.filter(|(n, stack)| n * stack <= 6) {
        let mut best = TileShape { n, stack, ..TileShape::NONE };
        for m in 1..=problem.cout.clamp(1, 16) {
            if !tiles.iter().all(|(tile, _)| tile.fit(target, m, n * stack))
                || dataflow == Dataflow::Joint && !is_written_out(problem, m * n * stack)
            {
                continue;
            }
            let mut cycles = 0.0;
            for (height, share) in [(stack, rows / stack * stack), (1, rows % stack)] {
                for (n, times) in cut_sizes(vectors, n) {
                    for (m, count) in cut_channels(problem.cout, m) {
                        let of_tile = |(tile, count): &(Counts, usize)| {
                            *count as f64
                                * width_cycles(problem, (target, &rates), dataflow, tile, (m, n, height))
                        };
                        let of_tiles = tiles.iter().map(of_tile).sum::<f64>() / height as f64;
                        cycles += (times * count * share) as f64 / rows as f64 * of_tiles;
                    }
                }
            }
            let cycles = cycles * if stack > 1 { STACKED } else { 1.0 };
            best = best.or_better(TileShape { cycles, m, n, stack });
        }
        shapes.push(best);
    }
    shapes
}

/// How much longer tiles of several rows take than is estimated otherwise.
const STACKED: f64 = 1.05;

/// The most rows that tiles take together.
const MOST_STACKED: usize = 4;

/// Whether tiles may take several rows.
pub(crate) fn can_stack(problem: &Problem, dataflow: Dataflow) -> bool {
    !dataflow.is_by_pixels() && problem.collapses.is_empty()
}

/// Cycles of a tile of `m` channels by `n` vectors along the width of so many rows, for each input channel and row of taps.
fn width_cycles(
    problem: &Problem,
    (target, rates): (&Target, &Rates),
    dataflow: Dataflow,
    tile: &Counts,
    (m, n, height): (usize, usize, usize),
) -> f64 {
    let &Counts { phases, taps, positions, loads, rows, lines, .. } = tile;
    let joint = dataflow == Dataflow::Joint;
    // Rows of taps in one call.
    let in_call = (problem.cin * if joint { rows } else { mean_rows(problem) }).max(1) as f64;
    // What the tile reads of the input tile, again for each tile of channels; dilated taps read lines of their own.
    let line = LINE_BYTES as usize;
    let vectors = n * target.vector_bytes();
    let (low, high) = problem.axes[2].shifts();
    let others = (positions / lines.max(1)).saturating_sub(1) * (vectors + line);
    let halo = if high > low { others.min(4 * (high - low) as usize + line) } else { 0 };
    let bytes = (height * lines * (vectors + halo)) as f64;
    // Before the next ones come, all tiles along the row pass over it. InputTiles fit the second-level cache.
    let along =
        if problem.cout > m { problem.axes[2].output_positions().div_ceil(n * target.lanes()) } else { 1 };
    let input_tile = bytes * in_call / rows as f64 * along as f64;
    let stream = bytes / rates.memory.bytes_per_cycle(input_tile.min(target.caches().l2.bytes as f64 / 2.0));
    let n = n * height;
    let work = tile_cycles(rates, phases, taps, loads, [m, n]).max(stream) * if joint { JOINT } else { 1.0 };
    // A call, and stores: whole vectors, or one lane after the other.
    let vector =
        if dataflow == Dataflow::Strided { rates.moves.lane * target.lanes() as f64 } else { phases as f64 };
    // Lines of channels pages apart share a set of the first-level cache. What comes from memory takes its time anyway.
    let tensors = 1 + problem.addends;
    let bytes = 4 * problem.batch * problem.groups * problem.output.group * tensors;
    let collide = tensors > 1
        && shares_sets(problem.output.plane, target)
        && m * tensors > target.caches().l1d.ways
        && bytes < target.caches().l3.bytes / 2;
    let vector = if collide { vector + rates.moves.colliding_vector * phases as f64 } else { vector };
    work / rows as f64 + (rates.calls.tile + (m * n) as f64 * vector) / in_call
}
