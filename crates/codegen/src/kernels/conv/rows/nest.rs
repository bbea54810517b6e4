//! What a convolution is made of: windows, kinds of x-blocks, groups of phases, tiles, packed weights. [`super::emit`]
//! writes the loops around them.

use super::super::epilogue::Place;
use super::super::job::{Job, operands};
use super::super::problem::{Axis, Problem};
use super::super::tiling::{WEIGHTS_AHEAD, cut, cut_channels};
use super::super::weights::{Blocks, NO_TAP};
use super::super::window::{WindowShape, Windows};
use super::emit::{Emit, Units};
use super::pixels::{self, PixelSpec, Point};
use super::schedule::{Schedule, Source, Store};
use super::shapes::is_small;
use super::tile::{self, Position, Row, TileSpec};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::program::Kernel;
use std::collections::HashMap;
use std::ops::Range;

/// Makes the kernel of a convolution along a schedule, with smaller tiles where registers do not suffice.
pub(in super::super) fn build<'a>(
    builder: &mut Builder<'a>,
    job: &Job<'a>,
    mut schedule: Schedule,
) -> Result<(), CompileError> {
    loop {
        match Nest::new(builder, job, &schedule) {
            // The epilogue or the interleaving may need more registers than the schedule left.
            Err(CompileError::Tile { .. }) if schedule.m * schedule.n > 1 => {
                if schedule.m >= schedule.n {
                    schedule.m -= 1;
                } else {
                    schedule.n -= 1;
                }
            }
            Err(CompileError::Tile { .. }) if schedule.store.is_interleaved() => {
                let joint = schedule.store == Store::Joint;
                schedule.store = if joint { Store::Interleaved } else { Store::Strided };
            }
            nest => return nest?.finish(builder, job),
        }
    }
}

/// One x-phase group of one row phase: a call of tiles.
pub(super) struct Group {
    /// Indices of the z- and y-phase.
    pub z: usize,
    pub y: usize,
    /// Output element along x of the group's first step.
    pub first_x: usize,
    /// Bytes of the base row and base position in the window or tensor.
    pub base: i64,
    /// Offset in the packed weights, in floats, and floats of a full and a remainder tile.
    pub weights: usize,
    /// Index of the group's tile code, by x-block kind.
    pub code: Vec<TileRuns>,
    pub taps_per_channel: usize,
}

/// Tiles along the steps of an x-block: runs of equal ones, for full and remainder tiles of channels.
pub(super) struct TileRuns {
    pub runs: Vec<Run>,
}

pub(super) struct Run {
    /// Bytes from the row's first step to the first tile's, and from tile to tile: in what is read, and in the output.
    pub source: i64,
    pub target: i64,
    pub source_step: i64,
    pub target_step: i64,
    pub count: usize,
    /// Code for each size of channel tile.
    pub codes: Vec<FunctionId>,
}

pub(super) struct Nest {
    pub schedule: Schedule,
    pub lanes: usize,
    pub windows: Windows,
    pub groups: Vec<Group>,
    /// Numbers of the taps of each group, in the order in which its tiles read their weights.
    pub taps: Vec<Vec<usize>>,
    pub scratch_bytes: usize,
}

impl Nest {
    fn new(builder: &mut Builder<'_>, job: &Job<'_>, schedule: &Schedule) -> Result<Self, CompileError> {
        let lanes = builder.target.lanes();
        let block = schedule.n * lanes;
        let shape = WindowShape {
            planes: schedule.planes(&job.problem),
            rows: schedule.rows,
            columns: schedule.columns,
            // Tiles along the width read whole vectors: room behind the last position.
            spare: if schedule.store.is_by_pixels() { 0 } else { block },
            packed: schedule.source == Source::Packed,
        };
        let windows = Windows::new(builder, &job.name, &job.problem, &shape)?;
        let scratch_bytes = if shape.packed { windows.bytes(job.problem.cin) } else { 0 };
        let mut nest =
            Self { schedule: schedule.clone(), lanes, windows, groups: vec![], taps: vec![], scratch_bytes };
        nest.groups(builder, job)?;
        Ok(nest)
    }

    /// Bytes between planes of what tiles read.
    fn plane_bytes(&self, problem: &Problem) -> i64 {
        match self.schedule.source {
            Source::Packed => i64::from(self.windows.layout.row_bytes) * self.windows.rows as i64,
            Source::Direct => 4 * (problem.axes[1].input * problem.input.row) as i64,
        }
    }

    /// The groups of phases, with their weights and tiles.
    fn groups(&mut self, builder: &mut Builder<'_>, job: &Job<'_>) -> Result<(), CompileError> {
        let problem = &job.problem;
        let window = self.windows.layout;
        let blocks: Vec<(usize, bool, usize)> =
            self.windows.kinds.iter().map(|kind| (kind.steps, kind.last, kind.before)).collect();
        let [z_axis, y_axis, x_axis] = &problem.axes;
        let packed = self.schedule.source == Source::Packed;
        let (low_z, low_y, low_x) = (z_axis.shifts().0, y_axis.shifts().0, x_axis.shifts().0);
        let z_bytes = self.plane_bytes(problem);
        let mut codes: HashMap<TileSpec, FunctionId> = HashMap::new();
        let mut pixel_codes: HashMap<PixelSpec, FunctionId> = HashMap::new();
        let pairs = (0..z_axis.phases.len()).flat_map(|z| (0..y_axis.phases.len()).map(move |y| (z, y)));
        let row_groups: Vec<Vec<(usize, usize)>> = match self.schedule.store {
            Store::Joint => vec![pairs.collect()],
            _ => pairs.map(|pair| vec![pair]).collect(),
        };
        for row_phases in row_groups {
            let (z, y) = row_phases[0];
            let (z_phase, y_phase) = (&z_axis.phases[z], &y_axis.phases[y]);
            // The distinct rows, and the taps of the row phases that each feeds.
            let mut by_row: Vec<(i64, Vec<(usize, [usize; 2])>)> = vec![];
            for (index, &(z, y)) in row_phases.iter().enumerate() {
                for tz in &z_axis.phases[z].taps {
                    for ty in &y_axis.phases[y].taps {
                        let (dz, dy) =
                            if packed { (tz.shift - low_z, ty.shift - low_y) } else { (tz.shift, ty.shift) };
                        let row = dz * z_bytes + dy * i64::from(window.row_bytes);
                        let feed = (index, [tz.kernel, ty.kernel]);
                        match by_row.iter_mut().find(|(known, _)| *known == row) {
                            Some((_, feeds)) => feeds.push(feed),
                            None => by_row.push((row, vec![feed])),
                        }
                    }
                }
            }
            let base_row = by_row.iter().map(|(row, _)| *row).min().unwrap_or(0);
            let groups: Vec<Vec<usize>> = match self.schedule.store {
                Store::Interleaved | Store::Joint | Store::Transposed => {
                    vec![(0..x_axis.phases.len()).collect()]
                }
                Store::Strided | Store::Channels => {
                    (0..x_axis.phases.len()).map(|phase| vec![phase]).collect()
                }
                Store::Phases => {
                    let groups = self.schedule.phase_groups(x_axis, self.lanes);
                    groups.into_iter().map(Iterator::collect).collect()
                }
            };
            for group in groups {
                // The distinct positions, and the phases that each feeds.
                let mut by_shift: Vec<(i64, Vec<(usize, usize)>)> = vec![];
                for (index, &phase) in group.iter().enumerate() {
                    for tap in &x_axis.phases[phase].taps {
                        match by_shift.iter_mut().find(|(shift, _)| *shift == tap.shift) {
                            Some((_, feeds)) => feeds.push((index, tap.kernel)),
                            None => by_shift.push((tap.shift, vec![(index, tap.kernel)])),
                        }
                    }
                }
                let place = |shift: i64| {
                    if packed { window.position((shift - low_x) as usize) } else { 4 * shift as i32 }
                };
                by_shift.sort_by_key(|(shift, _)| place(*shift));
                let base_position = by_shift.iter().map(|(shift, _)| place(*shift)).min().unwrap_or(0);
                let positions: Vec<Position> = by_shift
                    .iter()
                    .map(|(shift, feeds)| Position {
                        offset: place(*shift) - base_position,
                        phases: feeds.iter().map(|(phase, _)| *phase).collect(),
                    })
                    .collect();
                let mut taps = vec![];
                for (_, rows) in &by_row {
                    for (_, feeds) in &by_shift {
                        for &(_, [kz, ky]) in rows {
                            taps.extend(feeds.iter().map(|&(_, kx)| job.weights.tap([kz, ky, kx])));
                        }
                        if self.schedule.store == Store::Phases {
                            taps.resize(taps.len().next_multiple_of(self.lanes), NO_TAP);
                        }
                    }
                }
                let taps_per_channel = taps.len();
                self.taps.push(taps);
                let relative: Vec<Row> = by_row
                    .iter()
                    .map(|(row, feeds)| Row {
                        offset: (row - base_row) as i32,
                        phases: feeds.iter().map(|&(index, _)| index).collect(),
                    })
                    .collect();
                let first_phase = &x_axis.phases[group[0]];
                let mut code = vec![];
                if self.schedule.store.is_by_pixels() {
                    let mut positions = positions;
                    // Phases that are points of their own; those along the lanes are one.
                    let points = match self.schedule.store {
                        Store::Phases => {
                            positions.iter_mut().for_each(|position| position.phases = vec![0]);
                            &group[..1]
                        }
                        _ => &group,
                    };
                    for &(steps, last, before) in &blocks {
                        let of_phase = |&phase: &usize| {
                            let phase = &x_axis.phases[phase];
                            let exist =
                                if last { steps.min(phase.count.saturating_sub(before)) } else { steps };
                            (exist, 4 * (phase.first as i32 - first_phase.first as i32))
                        };
                        let rows = match self.schedule.planes(problem) {
                            _ if !is_small(problem) => [1, 1],
                            1 => [1, y_phase.count],
                            _ => [z_phase.count, y_phase.count],
                        };
                        code.push(self.pixel_tiles(
                            builder,
                            job,
                            &PixelGroup {
                                rows: relative.iter().map(|row| row.offset).collect(),
                                positions: positions.clone(),
                                phases: points.iter().map(of_phase).collect(),
                                across: group.len(),
                            },
                            rows,
                            &mut pixel_codes,
                        )?);
                    }
                } else {
                    let place = |&(z, y): &(usize, usize)| {
                        let (z, y) = (&z_axis.phases[z], &y_axis.phases[y]);
                        ((z.first * y_axis.output + y.first) * problem.output.row) as i64
                    };
                    let from_first = |pair| (4 * (place(pair) - place(&row_phases[0]))) as i32;
                    let shape = GroupShape {
                        row_phases: &row_phases.iter().map(from_first).collect::<Vec<_>>(),
                        rows: &relative,
                        positions: &positions,
                        phases: group.len(),
                        count: first_phase.count,
                    };
                    for &(steps, last, before) in &blocks {
                        code.push(self.tiles(
                            builder,
                            job,
                            &shape,
                            steps,
                            last.then_some(before),
                            &mut codes,
                        )?);
                    }
                }
                let base = base_row + i64::from(base_position);
                self.groups.push(Group {
                    z,
                    y,
                    first_x: first_phase.first,
                    base,
                    weights: 0,
                    code,
                    taps_per_channel,
                });
            }
        }
        Ok(())
    }

    /// The tiles of an x-block of so many steps; for the last block, with the steps before it, stores end with the row.
    fn tiles(
        &self,
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        shape: &GroupShape<'_>,
        steps: usize,
        before: Option<usize>,
        codes: &mut HashMap<TileSpec, FunctionId>,
    ) -> Result<TileRuns, CompileError> {
        let problem = &job.problem;
        let x = &problem.axes[2];
        let lanes = builder.target.lanes();
        // A phase may have fewer steps than others.
        let steps = match (self.schedule.store, before) {
            (Store::Strided, Some(before)) => steps.min(shape.count.saturating_sub(before)),
            _ => steps,
        };
        let mut runs: Vec<Run> = vec![];
        let mut first = 0;
        for n in cut(steps.div_ceil(lanes), self.schedule.n, 1) {
            let width = n * lanes;
            // Steps and outputs that exist from this tile's first on.
            let exist = (steps - first).min(width);
            // Blocks that are no whole vectors end where the next one begins.
            let mut outputs = if problem.folds.is_empty() { width } else { exist } * x.out_stride;
            if let Some(before) = before {
                outputs = outputs.min(x.output.saturating_sub((before + first) * x.out_stride));
            }
            let mut tiles = vec![];
            for (m, _) in cut_channels(problem.cout, self.schedule.m) {
                let spec = TileSpec {
                    m,
                    n,
                    phases: shape.phases,
                    cin: problem.cin,
                    channel_stride: self.windows.layout.channel_bytes,
                    row_phases: shape.row_phases.to_vec(),
                    rows: shape.rows.to_vec(),
                    positions: shape.positions.to_vec(),
                    steps: exist,
                    outputs,
                    segments: segments(problem, first..first + exist),
                    step_stride: x.out_stride,
                    output_stride: 4 * problem.output.plane as i32,
                    ahead: WEIGHTS_AHEAD,
                    mask_loads: self.schedule.source == Source::Direct,
                    finish: job.finish.clone(),
                };
                let code = match codes.get(&spec) {
                    Some(&code) => code,
                    None => {
                        let name = builder.unique(&format!("{}_m{m}n{n}", job.name));
                        let code = tile::build(builder, &name, &spec)?;
                        codes.insert(spec, code);
                        code
                    }
                };
                tiles.push(code);
            }
            let (source_step, target_step) =
                (4 * width as i64, 4 * (problem.place(first + width) - problem.place(first)) as i64);
            match runs.last_mut() {
                Some(run)
                    if run.codes == tiles
                        && run.source_step == source_step
                        && run.target + run.count as i64 * run.target_step
                            == 4 * problem.place(first) as i64 =>
                {
                    run.count += 1;
                }
                _ => runs.push(Run {
                    source: 4 * first as i64,
                    target: 4 * problem.place(first) as i64,
                    source_step,
                    target_step,
                    count: 1,
                    codes: tiles,
                }),
            }
            first += width;
        }
        Ok(TileRuns { runs })
    }

    /// Tiles with lanes along the channels or along phases: over the pixels of a row, or over these planes and rows of a small
    /// image.
    fn pixel_tiles(
        &self,
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        group: &PixelGroup,
        [planes, rows]: [usize; 2],
        codes: &mut HashMap<PixelSpec, FunctionId>,
    ) -> Result<TileRuns, CompileError> {
        let problem = &job.problem;
        let [z, y, _] = &problem.axes;
        let row = |axis: &Axis, source: i64, target: usize| {
            (axis.in_stride as i64 * source, (4 * axis.out_stride * target) as i64)
        };
        let of_row = row(y, i64::from(self.windows.layout.row_bytes), problem.output.row);
        let of_plane = row(z, self.plane_bytes(problem), y.output * problem.output.row);
        let place = |plane: i64, row: i64, step: usize| {
            (
                plane * of_plane.0 + row * of_row.0 + 4 * step as i64,
                plane * of_plane.1 + row * of_row.1 + 4 * problem.place(step) as i64,
            )
        };
        let rows = (0..planes as i64).flat_map(|plane| (0..rows as i64).map(move |row| (plane, row)));
        let steps = group.phases.iter().map(|&(steps, _)| steps).max().unwrap_or(0);
        let all: Vec<(usize, (i64, i64))> = rows
            .flat_map(|(plane, row)| (0..steps).map(move |step| (step, place(plane, row, step))))
            .collect();
        let mut runs: Vec<Run> = vec![];
        let mut first = 0;
        for count in cut(all.len(), self.schedule.m, 1) {
            let pixels = &all[first..first + count];
            first += count;
            let (_, (source, target)) = pixels[0];
            let of_pixel =
                |&(step, (s, t)): &(usize, (i64, i64))| {
                    let place = ((s - source) as i32, (t - target) as i32);
                    group.phases.iter().enumerate().filter(move |(_, (steps, _))| step < *steps).map(
                        move |(phase, (_, first))| Point { source: place.0, target: place.1 + first, phase },
                    )
                };
            let points: Vec<Point> = pixels.iter().flat_map(of_pixel).collect();
            let mut tiles = vec![];
            for (channels, _) in cut_channels(problem.cout, self.channel_block(problem).0) {
                let spec = PixelSpec {
                    vectors: self.vectors(problem, channels, group.across),
                    cin: problem.cin,
                    channel_stride: self.windows.layout.channel_bytes,
                    rows: group.rows.clone(),
                    positions: group.positions.clone(),
                    points: points.clone(),
                    finish: job.finish.clone(),
                };
                tiles.push(match codes.get(&spec) {
                    Some(&code) => code,
                    None => {
                        let name = builder.unique(&format!("{}_p{count}c{}", job.name, spec.vectors.len()));
                        let code = pixels::build(builder, &name, &spec)?;
                        codes.insert(spec, code);
                        code
                    }
                });
            }
            match runs.last_mut() {
                Some(run)
                    if run.codes == tiles
                        && (run.count == 1
                            || (
                                run.source + run.count as i64 * run.source_step,
                                run.target + run.count as i64 * run.target_step,
                            ) == (source, target)) =>
                {
                    if run.count == 1 {
                        (run.source_step, run.target_step) = (source - run.source, target - run.target);
                    }
                    run.count += 1;
                }
                _ => {
                    runs.push(Run { source, target, source_step: 0, target_step: 0, count: 1, codes: tiles });
                }
            }
        }
        Ok(TileRuns { runs })
    }

    /// Output channels of a tile, and what their number is rounded up to.
    pub fn channel_block(&self, problem: &Problem) -> (usize, usize) {
        match self.schedule.store {
            Store::Interleaved | Store::Joint | Store::Strided => (self.schedule.m, 1),
            Store::Channels | Store::Transposed => (self.schedule.n * self.lanes, self.lanes),
            Store::Phases => (self.schedule.channels_beside_phases(&problem.axes[2], self.lanes), 1),
        }
    }

    /// The vectors of results of a pixel, in the order of their weights.
    fn vectors(&self, problem: &Problem, channels: usize, phases: usize) -> Vec<Place> {
        let (lanes, plane) = (self.lanes, 4 * problem.output.plane as i32);
        let starts = |extent: usize| (0..extent).step_by(lanes);
        if self.schedule.store.is_by_channels() {
            let place = |first: usize| Place {
                offset: first as i32 * plane,
                stride: plane,
                count: (channels - first).min(lanes),
                channel: first,
                across: true,
            };
            return starts(channels).map(place).collect();
        }
        let of_phases = |first: usize| {
            (0..channels).map(move |channel| Place {
                offset: channel as i32 * plane + 4 * first as i32,
                stride: 4,
                count: (phases - first).min(lanes),
                channel,
                across: false,
            })
        };
        starts(phases).flat_map(of_phases).collect()
    }

    fn finish<'a>(mut self, builder: &mut Builder<'a>, job: &Job<'a>) -> Result<(), CompileError> {
        let (block, grain) = self.channel_block(&job.problem);
        let run = if self.schedule.store == Store::Phases { self.lanes } else { 1 };
        let blocks =
            Blocks { weights: job.weights, parts: std::mem::take(&mut self.taps), run, block, grain };
        for (group, start) in self.groups.iter_mut().zip(blocks.starts()) {
            group.weights = start;
        }
        let packed = builder.pack_later(blocks);
        let bias = builder.pack(&job.bias);
        let operands = operands([job.input, job.output, packed, bias], &job.finish_operands);
        let counts = Units::new(&job.problem, &self.schedule);
        let how = if self.schedule.store == Store::Phases { "_phases" } else { "" };
        let name = builder.unique(&format!("{}{how}", job.name));
        let function =
            builder.add_step(&name, |glue| Emit { nest: &self, job, counts: &counts }.step(glue))?;
        let nanoseconds = job.problem.macs() as f64 / (builder.target.lanes() as f64 * 4.0);
        let splits = builder.even_splits(counts.total(), nanoseconds);
        builder.push_kernel(Kernel {
            name,
            function,
            operands,
            splits,
            scratch_bytes: self.scratch_bytes,
            rounds: 1,
        });
        Ok(())
    }
}

/// What tiles of pixels over a group of phases share.
struct PixelGroup {
    /// Bytes of each row of taps from the base.
    rows: Vec<i32>,
    positions: Vec<Position>,
    /// For each phase that is a point of its own: steps that exist, and bytes to its output from that of the first.
    phases: Vec<(usize, i32)>,
    /// Phases of the group, that lanes may run along.
    across: usize,
}

/// The rows of the output that these steps lie in, as [`TileSpec::segments`].
fn segments(problem: &Problem, steps: Range<usize>) -> Vec<(usize, i32)> {
    let row = problem.folds.first().map_or(usize::MAX, |fold| fold.steps);
    let start = problem.place(steps.start);
    let mut segments = vec![];
    let mut first = steps.start;
    while first < steps.end {
        segments.push((first - steps.start, 4 * (problem.place(first) - start) as i32));
        first = (first / row + 1).saturating_mul(row);
    }
    segments
}

/// What the tiles of a group share.
struct GroupShape<'a> {
    row_phases: &'a [i32],
    rows: &'a [Row],
    positions: &'a [Position],
    phases: usize,
    count: usize,
}
