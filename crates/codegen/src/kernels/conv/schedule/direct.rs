//! Decides how a convolution over input tiles is cut up. Plain values; no code is made here.

use crate::kernels::conv::problem::{Axis, Problem};
use crate::kernels::conv::schedule::line_buffer::LineBuffer;
use crate::kernels::conv::schedule::tile_shape::{
    TileShape, best_tile, is_small, phase_groups, phases_and_channels, planes_of_tiles, shares_sets,
};
use crate::kernels::conv::schedule::tiling::{is_uneven, transposes};
use crate::kernels::conv::schedule::work_items::WorkItems;
use crate::partition;
use std::ops::Range;
use tconvc_ir::geometry::Phase;
use tconvc_machine::Target;

/// Where tiles read the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From an input tile of rows packed into scratch memory.
    Packed,
    /// From such an input tile, of which each [adds to the one before](super::line_buffer).
    LineBuffer,
    /// From the tensor itself: no tap leaves it.
    Direct,
}

/// How results of the x-phases come together in the output row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dataflow {
    /// All x-phases in one tile, interleaved in registers, whole vectors stored.
    Interleaved,
    /// The phases of all axes in one tile, which reads each position once, interleaved along x.
    Joint,
    /// A tile for each phase, its lanes stored one by one a stride apart.
    Strided,
    /// Lanes along the channels: a tile for each phase and so many pixels, transposed, or its lanes stored one by one a plane
    /// apart.
    Channels,
    /// Lanes along the channels: a tile for so many steps of all x-phases, transposed, whole vectors stored.
    Transposed,
    /// Lanes along neighbouring x-phases that read the same positions: a tile for so many pixels, whole vectors stored.
    Phases,
}

impl Dataflow {
    /// All of them, the first ones preferred.
    pub const ALL: [Self; 6] =
        [Self::Interleaved, Self::Joint, Self::Strided, Self::Channels, Self::Transposed, Self::Phases];

    /// Whether tiles of this kind can store the results.
    pub fn fits(self, problem: &Problem, target: &Target) -> bool {
        let [z, y, x] = &problem.axes;
        let even = |axis: &Axis| axis.phases.iter().all(|phase| phase.count == axis.output_positions());
        match self {
            Self::Interleaved => x.phases.len() == x.out_stride,
            Self::Joint => {
                Self::Interleaved.fits(problem, target)
                    && z.phases.len() * y.phases.len() > 1
                    && even(z)
                    && even(y)
            }
            Self::Strided | Self::Channels => true,
            Self::Transposed => {
                transposes(target) && Self::Interleaved.fits(problem, target) && x.phases.len() > 1
            }
            Self::Phases => Phase::aligned(&x.phases).len() < x.phases.len(),
        }
    }

    /// Whether the x-phases of a tile are interleaved.
    pub fn is_interleaved(self) -> bool {
        matches!(self, Self::Interleaved | Self::Joint)
    }

    /// Phases that a tile has accumulators for.
    pub fn phases(self, problem: &Problem) -> usize {
        let [z, y, x] = problem.axes.each_ref().map(|axis| axis.phases.len());
        match self {
            Self::Interleaved | Self::Transposed => x,
            Self::Joint => z * y * x,
            Self::Strided | Self::Channels | Self::Phases => 1,
        }
    }

    /// Whether tiles are of pixels by vectors.
    pub fn is_by_pixels(self) -> bool {
        self.is_by_channels() || self == Self::Phases
    }

    /// Whether lanes run along the channels.
    pub fn is_by_channels(self) -> bool {
        matches!(self, Self::Channels | Self::Transposed)
    }
}

/// The decisions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub source: Source,
    pub dataflow: Dataflow,
    /// Output channels of a tile; pixels where it is of pixels.
    pub m: usize,
    /// Vectors of a tile, for each phase; of channels or of phases where lanes run along these.
    pub n: usize,
    /// Rows that a tile with lanes along the width takes so many vectors of.
    pub stack: usize,
    /// Steps (outputs of a phase) along y that share an input tile.
    pub rows: usize,
    /// Steps along x that share an input tile; a multiple of the lanes, or all of them.
    pub columns: usize,
    /// Parts of the output channels, each a work item of its own; of the phases where [`Schedule::parts_phases`].
    pub parts: usize,
    /// Whether a part is computed across all input tiles before the next one, with its weights near; else all parts of an input tile,
    /// which is packed once.
    pub across: bool,
}

/// The most work items for a thread that input tiles are parted into so that shares are even.
const UNITS: usize = 16;

/// Results that use an input value, from which on rows are packed rather than read where they lie.
const WORTH_PACKING: usize = 64;

/// Whether tiles can read the tensor itself: no tap leaves it.
pub(crate) fn readable_in_place(problem: &Problem) -> bool {
    problem.axes.iter().all(Axis::is_inside) && problem.axes[2].in_stride == 1
}

/// Whether the input is read so often, or lies so badly, that tiles had better read a copy, or cannot read it where it lies.
fn is_worth_packing(problem: &Problem, target: &Target) -> bool {
    // Planes a whole number of pages apart fall on the same few lines of the caches.
    let collide = problem.cin > target.caches().l1d.ways && shares_sets(problem.input.plane, target);
    let worth = if collide { WORTH_PACKING / 4 } else { WORTH_PACKING };
    !readable_in_place(problem) || problem.cout * problem.taps() >= worth
}

impl Schedule {
    /// The schedule for a problem on so many threads.
    pub fn choose(problem: &Problem, target: &Target, threads: usize) -> Self {
        let source = if is_worth_packing(problem, target) { Source::LineBuffer } else { Source::Direct };
        let (dataflow, tile) = best_tile(problem, target);
        Self::with_tile(problem, target, threads, source, dataflow, tile)
    }

    /// The schedule with these tiles; input tile and work items follow. InputTiles are packed where they cannot roll, or need not.
    pub fn with_tile(
        problem: &Problem,
        target: &Target,
        threads: usize,
        source: Source,
        dataflow: Dataflow,
        TileShape { m, n, stack, .. }: TileShape,
    ) -> Self {
        let x = &problem.axes[2];
        let mut schedule =
            Self { source, dataflow, m, n, stack, rows: stack, columns: 1, parts: 1, across: false };
        let tiles = schedule.most_parts(problem, target);
        if source == Source::LineBuffer {
            if let Some((rows, columns)) = LineBuffer::choose(problem, target, threads, dataflow, (n, stack))
            {
                return Self { rows, columns, ..schedule };
            }
            schedule.source = Source::Packed;
        }
        let is_whole = dataflow.is_by_pixels() && is_small(problem);
        if is_whole {
            (schedule.rows, schedule.columns) = (problem.axes[1].output_positions(), x.output_positions());
        } else {
            let n = if dataflow.is_by_pixels() { 1 } else { n };
            let input_tile = match problem.collapses.last() {
                Some(_) => {
                    // Where channels cannot be parted, input tiles are.
                    let alone = threads > 1 && tiles < 2 * threads;
                    let least = (4 * threads).div_ceil(problem.batch * problem.groups);
                    InputTileSize::of_collapsed(problem, target, threads, if alone { least } else { 1 }, n)
                }
                None => InputTileSize::choose(problem, target, schedule.source, n),
            };
            (schedule.rows, schedule.columns) = (input_tile.rows, input_tile.columns);
            if dataflow.phases(problem) < x.phases.len() {
                schedule.keep_rows_near(problem, target, tiles);
            }
            if schedule.rows < problem.axes[1].output_positions() {
                schedule.rows = (schedule.rows / stack).max(1) * stack;
            }
        }
        let outer = schedule.input_tiles(problem);
        let mut even = schedule.even_parts(problem, target, threads);
        if !is_whole && is_uneven(outer * tiles.min(even), threads) {
            // Few tiles of channels do not share out evenly: smaller input tiles do.
            let fewer =
                Self { rows: schedule.rows.div_ceil(threads).next_multiple_of(stack), ..schedule.clone() };
            if !is_uneven(fewer.input_tiles(problem), threads) {
                (schedule.rows, even) = (fewer.rows, 1);
            }
        }
        // Phases are only parted for threads.
        let tiles = if threads == 1 && schedule.parts_phases(problem, target.lanes()) { 1 } else { tiles };
        let parts = tiles.min((4 * threads).max(if problem.batch > 1 { tiles.div_ceil(4) } else { 1 }));
        schedule.across = dataflow.is_by_channels() && schedule.is_better_across(problem, target, parts);
        schedule.parts = if schedule.across { parts } else { tiles.min(even.max(schedule.parts)) };
        schedule
    }

    /// The fewest parts of input tiles that threads have even shares of.
    fn even_parts(&self, problem: &Problem, target: &Target, threads: usize) -> usize {
        if threads == 1 {
            return 1;
        }
        let tiles = self.most_parts(problem, target).max(1);
        let is_even = |&parts: &usize| {
            let parted = Self { parts, across: false, ..self.clone() };
            let weights = WorkItems::new(problem, &parted).weights(problem, &parted, target.lanes());
            partition::is_even(&weights, threads)
        };
        let most = (UNITS * threads).div_ceil(self.input_tiles(problem).max(1)).min(tiles);
        (1..=most).find(is_even).unwrap_or(most)
    }

    /// Whether packing all input tiles for each of so many parts costs less than reading all weights for each input tile.
    fn is_better_across(&self, problem: &Problem, target: &Target, parts: usize) -> bool {
        let input_tiles = self.input_tiles(problem) / problem.groups;
        if input_tiles == 1 {
            return true;
        }
        let packing = self.packing(problem, target) / problem.groups as f64;
        let weights = 4 * problem.cin * problem.cout * problem.taps();
        let reads = |bytes: usize| if bytes > target.caches().l2.bytes / 2 { input_tiles } else { 1 };
        let memory = target.rates().memory;
        let stream = memory.shown_l3 * weights as f64 / memory.l3;
        let across = packing * parts as f64 + stream * reads(weights / parts) as f64;
        across < packing + stream * reads(weights) as f64
    }

    /// Bytes of all input tiles that are packed.
    pub fn packed_bytes(&self, problem: &Problem) -> u64 {
        let [z, y, x] = &problem.axes;
        if self.source == Source::Direct {
            return 0;
        }
        let of_tile =
            problem.cin * z.reach(self.planes(problem)) * y.reach(self.rows) * x.reach(self.columns);
        (4 * self.input_tiles(problem) as u64).saturating_mul(of_tile as u64)
    }

    /// Cycles to pack all input tiles once.
    pub fn packing(&self, problem: &Problem, target: &Target) -> f64 {
        let [z, y, x] = &problem.axes;
        let rows =
            self.input_tiles(problem) * problem.cin * z.reach(self.planes(problem)) * y.reach(self.rows);
        let (vectors, moves) = (x.reach(self.columns).div_ceil(target.lanes()), target.rates().moves);
        rows as f64 * (moves.packed_vector * vectors as f64 + moves.packed_row)
    }

    /// InputTiles of all images and groups.
    fn input_tiles(&self, problem: &Problem) -> usize {
        let [z, y, x] = &problem.axes;
        let of_group = z.output_positions().div_ceil(self.planes(problem))
            * y.output_positions().div_ceil(self.rows)
            * x.output_positions().div_ceil(self.columns);
        problem.batch * problem.groups * of_group
    }

    /// Fewer rows, and parts of the channels, so that the rows of a y-phase, which each x-phase writes in a pass of its own,
    /// are still in the second-level cache in the last pass.
    fn keep_rows_near(&mut self, problem: &Problem, target: &Target, tiles: usize) {
        let x = &problem.axes[2];
        let parts = tiles.min(4);
        let row = 4 * self.columns * x.out_stride * problem.cout.div_ceil(parts);
        let near = |rows| {
            InputTileSize::bytes(problem, rows, self.columns) + rows * row <= target.caches().l2.bytes / 2
        };
        if self.dataflow == Dataflow::Strided {
            self.parts = parts;
        }
        while self.rows > 1 && !near(self.rows) {
            self.rows = self.rows.div_ceil(2);
        }
    }

    /// Steps along z that share an input tile: all of those of a small volume.
    pub fn planes(&self, problem: &Problem) -> usize {
        if self.dataflow.is_by_pixels() && is_small(problem) { planes_of_tiles(problem) } else { 1 }
    }

    /// Rows of the tiles that are needed: as many as [`Schedule::stack`], and one where rows are left.
    pub fn heights(&self, problem: &Problem) -> Vec<usize> {
        let left = |rows: usize| !rows.is_multiple_of(self.stack);
        let of_phase =
            |phase: &Phase| phase.count >= self.rows && left(self.rows) || left(phase.count % self.rows);
        let mut heights = vec![self.stack];
        if problem.axes[1].phases.iter().any(of_phase) {
            heights.push(1);
        }
        heights
    }

    /// Tiles beside each other in what [`Schedule::parts`] divides.
    pub fn most_parts(&self, problem: &Problem, target: &Target) -> usize {
        let [z, y, x] = &problem.axes;
        match self.dataflow {
            Dataflow::Interleaved | Dataflow::Joint | Dataflow::Strided => problem.cout.div_ceil(self.m),
            _ if self.dataflow.is_by_channels() && self.parts_phases(problem, target.lanes()) => {
                self.products_of_groups(problem).len()
            }
            Dataflow::Channels | Dataflow::Transposed => problem.cout.div_ceil(self.n * target.lanes()),
            Dataflow::Phases => z.phases.len() * y.phases.len() * self.phase_groups(x, target.lanes()).len(),
        }
    }

    /// Whether [`Schedule::parts`] are of phases: where lanes run along these, and where a small image has a lone tile of channels.
    pub fn parts_phases(&self, problem: &Problem, lanes: usize) -> bool {
        self.dataflow == Dataflow::Phases
            || self.dataflow.is_by_channels()
                && problem.cout <= self.n * lanes
                && is_small(problem)
                && self.products_of_groups(problem).len() > 1
    }

    /// Products of each group of phases that a tile with lanes along the channels computes together, for a pair of channels.
    pub fn products_of_groups(&self, problem: &Problem) -> Vec<u64> {
        let products = |axis: &Axis| -> Vec<u64> {
            axis.phases.iter().map(|phase| (phase.count * phase.taps.len()) as u64).collect()
        };
        let [z, y, mut x] = problem.axes.each_ref().map(products);
        if self.dataflow == Dataflow::Transposed {
            x = vec![x.iter().sum()];
        }
        let rows = z.iter().flat_map(|z| y.iter().map(move |y| z * y));
        rows.flat_map(|row| x.iter().map(move |x| row * x)).collect()
    }

    /// Output channels of a tile, and what their number is rounded up to.
    pub fn channel_block(&self, problem: &Problem, lanes: usize) -> (usize, usize) {
        match self.dataflow {
            Dataflow::Interleaved | Dataflow::Joint | Dataflow::Strided => (self.m, 1),
            Dataflow::Channels | Dataflow::Transposed => (self.n * lanes, lanes),
            Dataflow::Phases => (self.channels_beside_phases(&problem.axes[2], lanes), 1),
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

/// Cycles that the whole convolution takes by tiles over input tiles, packing included.
pub(crate) fn direct_cycles(problem: &Problem, target: &Target) -> f64 {
    let [z, y, x] = &problem.axes;
    let (dataflow, tile) = best_tile(problem, target);
    let rows = |axis: &Axis| axis.phases.iter().map(|phase| phase.count * phase.taps.len()).sum::<usize>();
    let line_buffer = LineBuffer::choose(problem, target, 1, dataflow, (tile.n, tile.stack));
    let copies = match line_buffer.filter(|_| is_worth_packing(problem, target)) {
        Some(_) => 1.0,
        None => {
            target.rates().moves.packed_vector
                * InputTileSize::choose(problem, target, Source::Packed, 1).copies
        }
    };
    let packing = copies * (z.output_positions() * y.output_positions() * x.output_positions()) as f64
        / target.lanes() as f64;
    let images = (problem.batch * problem.groups * problem.cin) as f64;
    images * (tile.cycles * (rows(z) * rows(y)) as f64 + packing)
}

/// An input tile of the input.
pub(crate) struct InputTileSize {
    /// Steps along y and x that share it.
    rows: usize,
    columns: usize,
    /// Positions copied for each of these steps.
    copies: f64,
}

impl InputTileSize {
    /// Bytes of an input tile of so many steps along y and x.
    pub fn bytes(problem: &Problem, rows: usize, columns: usize) -> usize {
        let [z, y, x] = &problem.axes;
        4 * problem.cin * z.reach(1) * y.reach(rows) * (x.reach(columns) + 8)
    }

    /// Whole rows, which share nothing: even input tiles that leave the fewest lanes idle, in half of the second-level cache; at least
    /// so many.
    fn of_collapsed(problem: &Problem, target: &Target, threads: usize, least: usize, n: usize) -> Self {
        let (steps, lanes) = (problem.axes[2].output_positions(), target.lanes());
        let grain = problem.grain(lanes);
        let rows = steps / grain;
        let room = target.caches().l2.bytes / 2;
        let vectors =
            |columns: usize| steps / columns * columns.div_ceil(lanes) + (steps % columns).div_ceil(lanes);
        // Threads have equal shares: input tiles are as many, and as large.
        let uneven = |columns: usize| {
            let input_tiles = steps.div_ceil(columns) * problem.batch * problem.groups;
            let last = steps % columns > 0 && input_tiles < 4 * threads;
            threads > 1 && (last || is_uneven(input_tiles, threads))
        };
        let columns = (least.min(rows)..=rows)
            .map(|input_tiles| rows.div_ceil(input_tiles) * grain)
            .filter(|&columns| columns <= grain.max(n * lanes) || Self::bytes(problem, 1, columns) <= room)
            .min_by_key(|&columns| (vectors(columns), uneven(columns), std::cmp::Reverse(columns)));
        Self { rows: 1, columns: columns.unwrap_or(grain), copies: 1.0 }
    }

    /// The one that takes the fewest copies among those that fit a part of the second-level cache.
    fn choose(problem: &Problem, target: &Target, source: Source, n: usize) -> Self {
        let [_, y, x] = &problem.axes;
        let block = n * target.lanes();
        let grain = problem.grain(block);
        if source == Source::Direct {
            // Long rows are cut so that the data stays in the first-level cache while the channels pass over it.
            let columns = (target.caches().l1d.bytes / 2 / (4 * problem.cin).max(1)).max(4 * block);
            let columns = (columns / grain * grain).max(grain);
            return Self {
                rows: y.output_positions().clamp(1, 8),
                columns: columns.min(x.output_positions()),
                copies: 0.0,
            };
        }
        // An input tile that shares nothing with its neighbours gains nothing from size.
        let shares = |axis: &Axis| axis.shifts().1 - axis.shifts().0 >= axis.in_stride as i64;
        let eighths = if shares(y) || shares(x) { 3 } else { 2 };
        let budget = target.caches().l2.bytes / 8 * eighths;
        let bytes = |rows, columns| Self::bytes(problem, rows, columns);
        // Rows and columns at the edges of an input tile are copied for its neighbours as well: the fewest copies for an output.
        let mut best = Self { rows: 1, columns: x.output_positions().min(grain), copies: 1.0 };
        let mut least = f64::INFINITY;
        let mut columns = x.output_positions();
        loop {
            // The most rows that fit, in even blocks: the last one should not be a sliver.
            let most = (1..=y.output_positions()).rev().find(|&rows| bytes(rows, columns) <= budget);
            let rows = y.output_positions().div_ceil(y.output_positions().div_ceil(most.unwrap_or(1)));
            let copies = (y.reach(rows) * (x.reach(columns) + 8)) as f64 / (rows * columns) as f64;
            // Blocks that are no whole number of tiles leave lanes idle; short ones cost calls.
            let idle = columns.next_multiple_of(block) as f64 / columns as f64
                + block as f64 / columns as f64 / 16.0;
            let fits = most.is_some() || columns <= 4 * block;
            if fits && copies * idle < least * 0.97 {
                least = copies * idle;
                best = Self { rows, columns, copies };
            }
            let half = (columns / 2).next_multiple_of(grain);
            if half >= columns || (fits && columns <= 4 * block) {
                break;
            }
            columns = half;
        }
        best
    }
}
