//! InputTiles that roll over the input: while tiles work on one, they copy what the next one adds to it. Where there are few
//! output channels, copies take long beside the multiply-adds that they are for; this way they hide behind them. Plain
//! values; [`crate::kernels::conv::emit::line_buffer`] makes the code.

use crate::kernels::conv::problem::{Axis, Problem};
use crate::kernels::conv::schedule::direct::Dataflow;
use std::ops::RangeInclusive;
use tconvc_machine::Target;

/// What input tiles follow each other along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// Rows, each of them whole.
    Rows,
    /// Columns of a lone row.
    Columns,
}

/// How input tiles follow each other in memory: each begins where the one before it has the first that both have. Behind the last one
/// for which there is room, what is shared moves to the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineBuffer {
    pub along: Along,
    /// Rows or positions of an input tile, and those of them that the one before it does not have.
    pub whole: usize,
    pub new: usize,
    /// Rows or positions in memory.
    pub room: usize,
}

/// Multiply-adds for each element of the input: with fewer, copies do not hide behind them; with more, copies take little anyway.
const WORTH_A_LINE_BUFFER: RangeInclusive<usize> = 12..=300;

/// The fewest multiply-adds for each element where the input comes from memory, which gives parts of rows more slowly than whole ones.
const WORTH_IN_MEMORY: usize = 100;

/// Rows of fewer bytes come as slowly wherever the input is, unless it fits the second-level cache.
const SHORT_ROW: usize = 256;

/// Cycles of an input tile of which the code around its tiles is a small part.
const CYCLES: usize = 4000;

/// InputTiles for a thread, at least, and tiles along one of them.
const MANY: usize = 4;

impl LineBuffer {
    /// Of input tiles of so many steps along y and x; nothing where they cannot roll, or not in the second-level cache.
    pub fn of(
        problem: &Problem,
        target: &Target,
        dataflow: Dataflow,
        rows: usize,
        columns: usize,
    ) -> Option<Self> {
        let [z, y, x] = &problem.axes;
        let even = |axis: &Axis| axis.phases.iter().all(|phase| phase.count == axis.output_positions());
        let alone = |axis: &Axis| axis.output_positions() == 1 && axis.is_inside() && axis.reach(1) == 1;
        let one_plane = z.is_inside() && z.in_stride == 1 && z.reach(1) == 1 && even(z);
        // Displacements have 32 bits.
        let near = i32::try_from(4 * problem.cin * problem.input.plane).is_ok();
        if !dataflow.is_interleaved() || !one_plane || !near || x.in_stride > 1 || x.input_dilation > 1 {
            return None;
        }
        let (along, axis, steps, each) =
            if columns == x.output_positions() && rows < y.output_positions() && y.input_dilation == 1 {
                (Along::Rows, y, rows, x.reach(columns) + target.lanes())
            } else if rows == 1 && alone(y) && columns < x.output_positions() {
                (Along::Columns, x, columns, 1)
            } else {
                return None;
            };
        let (whole, new) = (axis.reach(steps), steps * axis.in_stride);
        let halo = whole.checked_sub(new)?;
        let bytes = |room: usize| 4 * problem.cin * each * room;
        // An input tile at the start must not lie over the last one.
        let room = |input_tiles: usize| whole + input_tiles * new;
        let least = whole.div_ceil(new);
        if bytes(room(least)) > target.caches().l2.bytes * 5 / 8 {
            return None;
        }
        let wanted = (8 * halo / new).max(least).min(axis.output_positions().div_ceil(steps).max(least));
        let input_tiles = (least..=wanted).rev().find(|&input_tiles| {
            input_tiles == least || bytes(room(input_tiles)) <= target.caches().l2.bytes / 4
        })?;
        Some(Self { along, whole, new, room: room(input_tiles) })
    }

    /// Whether copies take so much of the time that it is worth it.
    fn is_worth(problem: &Problem, target: &Target) -> bool {
        let [_, y, _] = &problem.axes;
        let caches = target.caches();
        let products = problem.cout * problem.taps() / y.in_stride;
        // Of all parts of the channels. What is in the second-level cache is soon copied.
        let bytes = 4 * problem.input.group;
        let near = bytes < caches.l2.bytes / 4;
        let in_pieces = 4 * problem.input.row < SHORT_ROW && bytes > caches.l2.bytes
            || products < WORTH_IN_MEMORY && bytes * problem.batch * problem.groups > caches.l3.bytes / 3;
        // A phase without taps has nothing that copies could hide behind.
        let busy = |axis: &Axis| axis.phases.iter().all(|phase| !phase.taps.is_empty());
        WORTH_A_LINE_BUFFER.contains(&products) && !near && !in_pieces && problem.axes.iter().all(busy)
    }

    /// Steps along y and x of input tiles that are worth it, for tiles of `n` vectors in each of `stack` rows.
    pub fn choose(
        problem: &Problem,
        target: &Target,
        threads: usize,
        dataflow: Dataflow,
        (n, stack): (usize, usize),
    ) -> Option<(usize, usize)> {
        let ([z, y, x], caches) = (&problem.axes, target.caches());
        let products = problem.cin * problem.cout * problem.taps();
        let weights = 4 * products;
        if !Self::is_worth(problem, target) || weights > caches.l2.bytes / 4 {
            return None;
        }
        // Weights from the second-level cache are for several tiles.
        let block = n * target.lanes();
        let least = if weights > caches.l1d.bytes / 2 { MANY * block } else { block };
        let fits = |&(rows, columns): &(usize, usize)| {
            let input_tiles = y.output_positions().div_ceil(rows) * x.output_positions().div_ceil(columns);
            let (steps, items) =
                (rows * columns, input_tiles * problem.batch * problem.groups * z.output_positions());
            input_tiles >= MANY
                && items >= MANY * threads
                && steps >= least.min(x.output_positions())
                && steps * products / (2 * target.lanes()) >= CYCLES
                && Self::of(problem, target, dataflow, rows, columns)
                    .is_some_and(|line_buffer| line_buffer.moves_little())
        };
        if y.output_positions() > 1 {
            return (stack..=y.output_positions())
                .step_by(stack)
                .map(|rows| (rows, x.output_positions()))
                .find(fits);
        }
        // The fewest vectors, full or not.
        let (steps, lanes) = (x.output_positions(), target.lanes());
        let vectors =
            |columns: usize| steps / columns * columns.div_ceil(lanes) + (steps % columns).div_ceil(lanes);
        let grain = problem.grain(block);
        let columns = (1..=steps / grain).map(|part| (1, part * grain)).filter(fits);
        columns.min_by_key(|&(_, columns)| (vectors(columns), columns))
    }

    /// Whether no more moves than is copied, from one move to the next.
    fn moves_little(&self) -> bool {
        2 * self.shared() <= self.room
    }

    /// Rows or positions that input tiles share.
    pub fn shared(&self) -> usize {
        self.whole - self.new
    }

    /// Rows and positions that there is room for, where that is more than one input tile.
    pub fn extents(&self) -> [usize; 2] {
        match self.along {
            Along::Rows => [self.room, 0],
            Along::Columns => [0, self.room],
        }
    }
}
