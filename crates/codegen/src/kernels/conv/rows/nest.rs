//! What a convolution is made of: windows, kinds of x-blocks, groups of phases, tiles, packed weights. [`super::emit`]
//! writes the loops around them.

use super::super::epilogue::{Finish, FinishOperands};
use super::super::problem::Problem;
use super::super::weights::Weights;
use super::channels::{self, ChannelSpec};
use super::emit::{Emit, Units};
use super::pack::{self, PackSpec, Window};
use super::schedule::{Schedule, Source, Store, cut, cut_channels, is_small};
use super::tile::{self, Position, TileSpec};
use super::weights::{self, Taps};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::program::{Kernel, Operand};
use std::collections::HashMap;

/// What a convolution works on.
pub(in super::super) struct Job<'a> {
    pub name: String,
    pub problem: Problem,
    pub weights: Weights<'a>,
    /// Bias of each channel, all groups; zeros when there is none.
    pub bias: Vec<f32>,
    pub finish: Finish,
    pub finish_operands: FinishOperands,
    pub input: Operand,
    pub output: Operand,
}

/// Operands of the step function before those of the epilogue.
pub(super) const INPUT: usize = 0;
pub(super) const OUTPUT: usize = 1;
pub(super) const WEIGHTS: usize = 2;
pub(super) const BIAS: usize = 3;
pub(super) const EPILOGUE: usize = 4;

/// Makes the kernel of a convolution.
pub(in super::super) fn build(builder: &mut Builder<'_>, job: &Job<'_>) -> Result<(), CompileError> {
    let mut schedule = Schedule::choose(&job.problem, &builder.target, builder.threads);
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
            Err(CompileError::Tile { .. }) if schedule.store == Store::Interleaved => {
                schedule.store = Store::Strided;
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

/// An x-block, or several neighbouring ones that run the same code.
pub(super) struct Kind {
    /// One past the last block of this kind.
    pub end: usize,
    pub pack: Option<FunctionId>,
    /// Bytes from the block's first step to the first element copied.
    pub copy_from: i64,
}

pub(super) struct Nest {
    pub schedule: Schedule,
    pub lanes: usize,
    pub window: Window,
    pub window_rows: usize,
    pub window_planes: usize,
    pub zero: Option<FunctionId>,
    pub kinds: Vec<Kind>,
    pub groups: Vec<Group>,
    pub packed: Vec<f32>,
    pub scratch_bytes: usize,
}

impl Nest {
    fn new(builder: &mut Builder<'_>, job: &Job<'_>, schedule: &Schedule) -> Result<Self, CompileError> {
        let [z, y, x] = &job.problem.axes;
        let lanes = builder.target.lanes();
        let block = schedule.n * lanes;
        let (shift_z, shift_y, shift_x) = (z.shifts(), y.shifts(), x.shifts());
        let window_planes = (shift_z.1 - shift_z.0) as usize + 1;
        let window_rows = (schedule.rows - 1) * y.in_stride + (shift_y.1 - shift_y.0) as usize + 1;
        let positions = (schedule.columns - 1) * x.in_stride + (shift_x.1 - shift_x.0) as usize + 1;
        // Tiles read whole vectors: room behind the last position.
        let plane = match schedule.store {
            Store::Channels => positions.div_ceil(x.in_stride),
            _ => (positions.div_ceil(x.in_stride) + block).next_multiple_of(16),
        };
        let bytes = |elements: usize| i32::try_from(4 * elements);
        let too_large = |_| builder.unsupported("its rows are too long for 32-bit displacements".into());
        let packed = schedule.source == Source::Packed;
        let window = if packed {
            let row = plane * x.in_stride;
            let mut channel = row * window_rows * window_planes;
            if channel.is_multiple_of(1024) {
                channel += 16;
            }
            Window {
                plane_bytes: bytes(plane).map_err(too_large)?,
                row_bytes: bytes(row).map_err(too_large)?,
                channel_bytes: bytes(channel).map_err(too_large)?,
                in_stride: x.in_stride,
            }
        } else {
            Window {
                plane_bytes: 0,
                row_bytes: bytes(x.input).map_err(too_large)?,
                channel_bytes: bytes(job.problem.input_plane()).map_err(too_large)?,
                in_stride: 1,
            }
        };
        let scratch_bytes =
            if packed { window.channel_bytes as usize * job.problem.cin + 4 * block } else { 0 };
        let mut nest = Self {
            schedule: schedule.clone(),
            lanes,
            window,
            window_rows,
            window_planes,
            zero: None,
            kinds: vec![],
            groups: vec![],
            packed: vec![],
            scratch_bytes,
        };
        let blocks = nest.kinds_of_blocks(builder, job, positions)?;
        nest.groups(builder, job, &blocks)?;
        Ok(nest)
    }

    /// The kinds of x-blocks, with their packing code. Returns the number of steps and whether it is the last, by kind.
    fn kinds_of_blocks(
        &mut self,
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        positions: usize,
    ) -> Result<Vec<(usize, bool)>, CompileError> {
        let x = &job.problem.axes[2];
        let steps = x.steps();
        let count = steps.div_ceil(self.schedule.columns);
        let mut kinds: Vec<(usize, usize, usize, usize, bool)> = vec![];
        let mut ends: Vec<usize> = vec![];
        for block in 0..count {
            let start = block * self.schedule.columns;
            let low = (start * x.in_stride) as i64 + x.shifts().0;
            let high = low + positions as i64;
            // Elements i with low <= i * insert < high.
            let insert = x.insert as i64;
            let from = (low.max(0) + insert - 1) / insert;
            let to = if high <= 0 { 0 } else { ((high - 1) / insert + 1).min(x.input as i64) };
            let elements = (to - from).max(0) as usize;
            let first = if elements == 0 { 0 } else { (from * insert - low) as usize };
            let kind = (
                first,
                elements,
                from.max(0) as usize,
                steps.min(start + self.schedule.columns) - start,
                block + 1 == count,
            );
            // Where copying starts moves with the block, so only its distance to the block's start must agree.
            let relative = |kind: &(usize, usize, usize, usize, bool), block: usize| {
                kind.2 as i64 - (block * self.schedule.columns * x.in_stride) as i64
            };
            let same = kinds.last().is_some_and(|last| {
                (last.0, last.1, last.3, last.4) == (kind.0, kind.1, kind.3, kind.4)
                    && x.insert == 1
                    && relative(last, ends.last().map_or(0, |end| end - 1)) == relative(&kind, block)
            });
            if same {
                if let (Some(end), Some(last)) = (ends.last_mut(), kinds.last_mut()) {
                    *end = block + 1;
                    *last = kind;
                }
            } else {
                kinds.push(kind);
                ends.push(block + 1);
            }
        }
        let (name, packed) = (job.name.clone(), self.schedule.source == Source::Packed);
        if packed {
            let zero = builder.unique(&format!("{name}_zero"));
            self.zero = Some(pack::zero_rows(builder, &zero, &self.window, job.problem.cin)?);
        }
        for (kind, &end) in kinds.iter().zip(&ends) {
            let &(first, elements, from, _, _) = kind;
            let spec = PackSpec {
                window: self.window,
                cin: job.problem.cin,
                source_channel: 4 * job.problem.input_plane() as i32,
                source_row: 4 * x.input as i32,
                row_step: job.problem.axes[1].insert,
                positions,
                first,
                elements,
                step: x.insert,
            };
            let copy = builder.unique(&format!("{name}_pack"));
            let pack = if packed { Some(pack::copy_rows(builder, &copy, &spec)?) } else { None };
            let start = (end - 1) * self.schedule.columns * x.in_stride;
            self.kinds.push(Kind { end, pack, copy_from: 4 * (from as i64 - start as i64) });
        }
        Ok(kinds.into_iter().map(|(_, _, _, steps, last)| (steps, last)).collect())
    }

    /// The groups of phases, with their weights and tiles.
    fn groups(
        &mut self,
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        blocks: &[(usize, bool)],
    ) -> Result<(), CompileError> {
        let problem = &job.problem;
        let [z_axis, y_axis, x_axis] = &problem.axes;
        let packed = self.schedule.source == Source::Packed;
        let (low_z, low_y, low_x) = (z_axis.shifts().0, y_axis.shifts().0, x_axis.shifts().0);
        let z_bytes = if packed {
            i64::from(self.window.row_bytes) * self.window_rows as i64
        } else {
            4 * (y_axis.input * x_axis.input) as i64
        };
        let mut codes: HashMap<TileSpec, FunctionId> = HashMap::new();
        let mut pixel_codes: HashMap<ChannelSpec, FunctionId> = HashMap::new();
        for (z, z_phase) in z_axis.phases.iter().enumerate() {
            for (y, y_phase) in y_axis.phases.iter().enumerate() {
                let (mut rows, mut kernel_rows) = (vec![], vec![]);
                for tz in &z_phase.taps {
                    for ty in &y_phase.taps {
                        let (dz, dy) =
                            if packed { (tz.shift - low_z, ty.shift - low_y) } else { (tz.shift, ty.shift) };
                        rows.push(dz * z_bytes + dy * i64::from(self.window.row_bytes));
                        kernel_rows.push((tz.kernel, ty.kernel));
                    }
                }
                let base_row = rows.iter().copied().min().unwrap_or(0);
                let groups: Vec<Vec<usize>> = match self.schedule.store {
                    Store::Interleaved => vec![(0..x_axis.phases.len()).collect()],
                    Store::Strided | Store::Channels => {
                        (0..x_axis.phases.len()).map(|phase| vec![phase]).collect()
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
                    by_shift.sort_by_key(|(shift, _)| *shift);
                    let place = |shift: i64| {
                        if packed { self.window.position((shift - low_x) as usize) } else { 4 * shift as i32 }
                    };
                    let base_position = by_shift.iter().map(|(shift, _)| place(*shift)).min().unwrap_or(0);
                    let positions: Vec<Position> = by_shift
                        .iter()
                        .map(|(shift, feeds)| Position {
                            offset: place(*shift) - base_position,
                            phases: feeds.iter().map(|(phase, _)| *phase).collect(),
                        })
                        .collect();
                    let taps = Taps {
                        rows: kernel_rows.clone(),
                        positions: by_shift
                            .iter()
                            .map(|(_, feeds)| feeds.iter().map(|(_, kernel)| *kernel).collect())
                            .collect(),
                    };
                    let weights = self.packed.len().next_multiple_of(16);
                    self.packed.resize(weights, 0.0);
                    let taps_per_channel =
                        rows.len() * positions.iter().map(|position| position.phases.len()).sum::<usize>();
                    let relative: Vec<i32> = rows.iter().map(|row| (row - base_row) as i32).collect();
                    let first_phase = &x_axis.phases[group[0]];
                    let mut code = vec![];
                    if self.schedule.store == Store::Channels {
                        let mut offsets = vec![];
                        let mut kernels = vec![];
                        for (row, &(kz, ky)) in relative.iter().zip(&kernel_rows) {
                            for (position, feeds) in positions.iter().zip(&taps.positions) {
                                offsets.push(row + position.offset);
                                kernels.push([kz, ky, feeds[0]]);
                            }
                        }
                        let (lanes, n) = (builder.target.lanes(), self.schedule.n);
                        self.packed.extend(weights::pack_channels(&job.weights, &kernels, n * lanes, lanes));
                        for (kind, &(steps, last)) in blocks.iter().enumerate() {
                            let before = (self.kinds[kind].end - 1) * self.schedule.columns;
                            let exist = if last {
                                steps.min(first_phase.count.saturating_sub(before))
                            } else {
                                steps
                            };
                            let rows = if is_small(problem) { Some(y_phase.count) } else { None };
                            code.push(self.pixel_tiles(
                                builder,
                                job,
                                &offsets,
                                exist,
                                rows,
                                &mut pixel_codes,
                            )?);
                        }
                    } else {
                        self.packed.extend(weights::pack(&job.weights, &taps, self.schedule.m));
                        let shape = GroupShape {
                            rows: &relative,
                            positions: &positions,
                            phases: group.len(),
                            count: first_phase.count,
                        };
                        for (kind, &(steps, last)) in blocks.iter().enumerate() {
                            let before = (self.kinds[kind].end - 1) * self.schedule.columns;
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
                        weights,
                        code,
                        taps_per_channel,
                    });
                }
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
        let mut runs: Vec<Run> = vec![];
        let mut first = 0;
        for n in cut(steps.div_ceil(lanes), self.schedule.n, 1) {
            let width = n * lanes;
            // Steps and outputs that exist from this tile's first on.
            let mut exist = (steps - first).min(width);
            let mut outputs = width * x.out_stride;
            if let Some(before) = before {
                let step = before + first;
                outputs = outputs.min(x.output.saturating_sub(step * x.out_stride));
                if self.schedule.store == Store::Strided {
                    exist = exist.min(shape.count.saturating_sub(step));
                }
            }
            let mut tiles = vec![];
            for (m, _) in cut_channels(problem.cout, self.schedule.m) {
                let spec = TileSpec {
                    m,
                    n,
                    phases: shape.phases,
                    cin: problem.cin,
                    channel_stride: self.window.channel_bytes,
                    rows: shape.rows.to_vec(),
                    positions: shape.positions.to_vec(),
                    steps: exist,
                    outputs,
                    step_stride: x.out_stride,
                    output_stride: 4 * problem.output_plane() as i32,
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
            let (source_step, target_step) = (4 * width as i64, (4 * width * x.out_stride) as i64);
            match runs.last_mut() {
                Some(run) if run.codes == tiles && run.source_step == source_step => run.count += 1,
                _ => runs.push(Run {
                    source: 4 * first as i64,
                    target: (4 * first * x.out_stride) as i64,
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

    /// Tiles with lanes along the channels: over `steps` pixels of a row, or over all rows of a small image.
    fn pixel_tiles(
        &self,
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        taps: &[i32],
        steps: usize,
        rows: Option<usize>,
        codes: &mut HashMap<ChannelSpec, FunctionId>,
    ) -> Result<TileRuns, CompileError> {
        let problem = &job.problem;
        let [_, y, x] = &problem.axes;
        let lanes = builder.target.lanes();
        let row_source = y.in_stride as i64 * i64::from(self.window.row_bytes);
        let row_target = (4 * y.out_stride * x.output) as i64;
        let place = |row: usize, step: usize| {
            (
                row as i64 * row_source + 4 * step as i64,
                row as i64 * row_target + (4 * step * x.out_stride) as i64,
            )
        };
        let all: Vec<(i64, i64)> =
            (0..rows.unwrap_or(1)).flat_map(|row| (0..steps).map(move |step| place(row, step))).collect();
        let mut runs: Vec<Run> = vec![];
        let mut first = 0;
        for count in cut(all.len(), self.schedule.m, 1) {
            let pixels = &all[first..first + count];
            first += count;
            let (source, target) = pixels[0];
            let mut tiles = vec![];
            for (channels, _) in cut_channels(problem.cout, self.schedule.n * lanes) {
                let spec = ChannelSpec {
                    n: channels.div_ceil(lanes),
                    channels,
                    cin: problem.cin,
                    channel_stride: self.window.channel_bytes,
                    taps: taps.to_vec(),
                    pixels: pixels.iter().map(|&(s, t)| ((s - source) as i32, (t - target) as i32)).collect(),
                    output_stride: 4 * problem.output_plane() as i32,
                    finish: job.finish.clone(),
                };
                tiles.push(match codes.get(&spec) {
                    Some(&code) => code,
                    None => {
                        let name = builder.unique(&format!("{}_p{count}c{}", job.name, spec.n));
                        let code = channels::build(builder, &name, &spec)?;
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

    fn finish(self, builder: &mut Builder<'_>, job: &Job<'_>) -> Result<(), CompileError> {
        let packed = builder.pack(&self.packed);
        let bias = builder.pack(&job.bias);
        let mut operands = vec![job.input, job.output, packed, bias];
        operands.extend(job.finish_operands.iter().map(|(operand, _)| *operand));
        let counts = Units::new(&job.problem, &self.schedule);
        let name = builder.unique(&job.name);
        let function =
            builder.add_step(&name, |glue| Emit { nest: &self, job, counts: &counts }.step(glue))?;
        let nanoseconds = job.problem.macs() as f64 / (builder.target.lanes() as f64 * 4.0);
        let splits = builder.even_splits(counts.total(), nanoseconds);
        builder.push_kernel(Kernel { name, function, operands, splits, scratch_bytes: self.scratch_bytes });
        Ok(())
    }
}

/// What the tiles of a group share.
struct GroupShape<'a> {
    rows: &'a [i32],
    positions: &'a [Position],
    phases: usize,
    count: usize,
}
