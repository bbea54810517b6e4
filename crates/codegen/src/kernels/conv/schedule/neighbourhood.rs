//! Schedules beside the one that is chosen by estimate: their names, and those that lie next to one.

use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::direct::{Dataflow, InputTileSize, Schedule, Source, readable_in_place};
use crate::kernels::conv::schedule::line_buffer::LineBuffer;
use crate::kernels::conv::schedule::tile_shape::{
    TileShape, can_stack, fits_registers, is_small, is_written_out, tiles_of,
};
use crate::kernels::conv::schedule::tiling::accumulators;
use std::fmt;
use tconvc_machine::Target;

impl Dataflow {
    fn name(self) -> &'static str {
        match self {
            Self::Interleaved => "interleaved",
            Self::Joint => "joint",
            Self::Strided => "strided",
            Self::Channels => "channels",
            Self::Transposed => "transposed",
            Self::Phases => "phases",
        }
    }
}

impl Source {
    const ALL: [Self; 3] = [Self::Packed, Self::LineBuffer, Self::Direct];

    fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::LineBuffer => "line-buffer",
            Self::Direct => "direct",
        }
    }
}

/// `channels 6x2 packed 8x64 4 across`: dataflow, tile, source, input tile, parts, and whether each goes across all input tiles. A tile
/// over two rows is `6x2x2`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, dataflow, m, n, stack, rows, columns, parts, across } = self;
        let across = if *across { " across" } else { "" };
        let stack = if *stack > 1 { format!("x{stack}") } else { String::new() };
        write!(f, "{} {m}x{n}{stack} {} {rows}x{columns} {parts}{across}", dataflow.name(), source.name())
    }
}

/// The two numbers of `6x2`.
fn pair(text: &str) -> Option<(usize, usize)> {
    let (a, b) = text.split_once('x')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

impl Schedule {
    /// The schedule of that name; nothing where it does not fit the problem.
    pub(crate) fn named(text: &str, problem: &Problem, target: &Target) -> Option<Self> {
        let mut words = text.split(' ');
        let dataflow = words.next()?;
        let dataflow = Dataflow::ALL.into_iter().find(|known| known.name() == dataflow)?;
        let tile = words.next()?;
        let (tile, stack) = match tile.match_indices('x').nth(1) {
            Some((at, _)) => (&tile[..at], tile[at + 1..].parse().ok()?),
            None => (tile, 1),
        };
        let (m, n) = pair(tile)?;
        let source = words.next()?;
        let source = Source::ALL.into_iter().find(|known| known.name() == source)?;
        let (rows, columns) = pair(words.next()?)?;
        let parts = words.next()?.parse().ok()?;
        let across = match words.next() {
            None => false,
            Some("across") => true,
            Some(_) => return None,
        };
        let schedule = Self { source, dataflow, m, n, stack, rows, columns, parts, across };
        (words.next().is_none() && schedule.fits(problem, target)).then_some(schedule)
    }

    fn fits(&self, problem: &Problem, target: &Target) -> bool {
        let [_, y, x] = &problem.axes;
        let &Self { source, dataflow, m, n, stack, rows, columns, parts, across } = self;
        let (lanes, whole) =
            (target.lanes(), rows == y.output_positions() && columns == x.output_positions());
        let in_range = (1..=28).contains(&m)
            && (1..=6).contains(&n)
            && (1..=rows).contains(&stack)
            && (stack == 1 || can_stack(problem, dataflow))
            && (1..=y.output_positions()).contains(&rows)
            && (1..=x.output_positions()).contains(&columns);
        if !in_range
            || !dataflow.fits(problem, target)
            || across && !dataflow.is_by_channels()
            || source == Source::Direct && !readable_in_place(problem)
        {
            return false;
        }
        let input_tile = match source {
            Source::Packed => InputTileSize::bytes(problem, rows, columns),
            Source::LineBuffer if LineBuffer::of(problem, target, dataflow, rows, columns).is_none() => {
                return false;
            }
            Source::LineBuffer if parts > 1 => return false,
            Source::LineBuffer | Source::Direct => 0,
        };
        let vectors = n * stack;
        let registers = if dataflow.is_by_pixels() {
            dataflow.phases(problem) * m * n <= accumulators(target, n)
        } else {
            fits_registers(problem, target, dataflow, (m, vectors))
        };
        registers
            && (dataflow != Dataflow::Joint || is_written_out(problem, m * vectors))
            && (columns == x.output_positions() || columns.is_multiple_of(problem.grain(lanes)))
            && (whole || !dataflow.is_by_pixels() || !is_small(problem))
            && (rows == 1 || whole || input_tile <= 2 * target.caches().l2.bytes)
            && (1..=self.most_parts(problem, target)).contains(&parts)
    }

    /// Schedules that differ from this one in one decision.
    pub(crate) fn neighbourhood(&self, problem: &Problem, target: &Target, threads: usize) -> Vec<Self> {
        let (lanes, [_, y, x]) = (target.lanes(), &problem.axes);
        let mut others = vec![];
        for dataflow in Dataflow::ALL.into_iter().filter(|dataflow| dataflow.fits(problem, target)) {
            let tiles = tiles_of(problem, target, dataflow);
            let best = tiles.iter().map(|tile| tile.cycles).fold(f64::INFINITY, f64::min);
            for tile in tiles {
                let TileShape { cycles, m, n, stack } = tile;
                let near = if dataflow == self.dataflow { 1.5 } else { 1.01 };
                if cycles <= near * best {
                    others.push(Self::with_tile(problem, target, threads, self.source, dataflow, tile));
                    let across = self.across && dataflow.is_by_channels();
                    let tiled = Self { dataflow, m, n, stack, across, ..self.clone() };
                    if stack > 1 {
                        let (source, columns) = (Source::LineBuffer, x.output_positions());
                        others.push(Self { source, rows: stack, columns, parts: 1, ..tiled.clone() });
                    }
                    others.push(tiled);
                }
            }
        }
        for source in Source::ALL {
            let tile = TileShape { cycles: 0.0, m: self.m, n: self.n, stack: self.stack };
            others.push(Self::with_tile(problem, target, threads, source, self.dataflow, tile));
        }
        let grain = problem.grain(lanes);
        for (rows, columns) in
            [(1, x.output_positions()), (2, x.output_positions()), (1, grain), (1, 2 * grain)]
        {
            others.push(Self { source: Source::LineBuffer, rows, columns, parts: 1, ..self.clone() });
        }
        for rows in [self.rows.div_ceil(2), (2 * self.rows).min(y.output_positions()), y.output_positions()] {
            others.push(Self { rows, ..self.clone() });
        }
        for columns in
            [self.columns.div_ceil(2).next_multiple_of(grain), 2 * self.columns, x.output_positions()]
        {
            others.push(Self { columns: columns.min(x.output_positions()), ..self.clone() });
        }
        let most = self.most_parts(problem, target);
        for parts in [1, self.parts / 2, 2 * self.parts, most] {
            others.push(Self { parts: parts.clamp(1, most), ..self.clone() });
        }
        others.push(Self { across: !self.across, ..self.clone() });
        others.retain(|other| other != self && other.fits(problem, target));
        others
    }
}
