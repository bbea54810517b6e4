//! The loops around the micro-kernel: units of work, packing, phases, channels, rows, tiles along x.

use super::super::epilogue::{Finish, FinishOperands, Follows};
use super::super::problem::Problem;
use super::super::weights::Weights;
use super::channels::{self, ChannelSpec};
use super::pack::{self, PackSpec, Window};
use super::schedule::{Schedule, Source, Store, cut, cut_channels, is_small};
use super::tile::{self, Position, TileSpec};
use super::weights::{self, Taps};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::{FunctionId, Glue};
use crate::program::{Kernel, Operand};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
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
const INPUT: usize = 0;
const OUTPUT: usize = 1;
const WEIGHTS: usize = 2;
const BIAS: usize = 3;
const EPILOGUE: usize = 4;

/// Makes the kernel of a convolution.
pub(in super::super) fn build(builder: &mut Builder<'_>, job: &Job<'_>) -> Result<(), CompileError> {
    let mut schedule = Schedule::choose(&job.problem, &builder.target, builder.threads);
    loop {
        match Nest::new(builder, job, &schedule) {
            // The epilogue or the interleaving may need more registers than the schedule left.
            Err(CompileError::Tile { .. }) if schedule.m * schedule.n > 1 => {
                if schedule.m >= schedule.n {
                    schedule.m -= 1
                } else {
                    schedule.n -= 1
                }
            }
            Err(CompileError::Tile { .. }) if schedule.store == Store::Interleaved => {
                schedule.store = Store::Strided
            }
            nest => return nest?.finish(builder, job),
        }
    }
}

/// One x-phase group of one row phase: a call of tiles.
struct Group {
    /// Indices of the z- and y-phase.
    z: usize,
    y: usize,
    /// Output element along x of the group's first step.
    first_x: usize,
    /// Bytes of the base row and base position in the window or tensor.
    base: i64,
    /// Offset in the packed weights, in floats, and floats of a full and a remainder tile.
    weights: usize,
    /// Index of the group's tile code, by x-block kind.
    code: Vec<TileRuns>,
    taps_per_channel: usize,
}

/// Tiles along the steps of an x-block: runs of equal ones, for full and remainder tiles of channels.
struct TileRuns {
    runs: Vec<Run>,
}

struct Run {
    /// Bytes from the row's first step to the first tile's, and from tile to tile: in what is read, and in the output.
    source: i64,
    target: i64,
    source_step: i64,
    target_step: i64,
    count: usize,
    /// Code for each size of channel tile.
    codes: Vec<FunctionId>,
}

/// An x-block, or several neighbouring ones that run the same code.
struct Kind {
    /// One past the last block of this kind.
    end: usize,
    pack: Option<FunctionId>,
    /// Bytes from the block's first step to the first element copied.
    copy_from: i64,
}

struct Nest {
    schedule: Schedule,
    lanes: usize,
    window: Window,
    window_rows: usize,
    window_planes: usize,
    zero: Option<FunctionId>,
    kinds: Vec<Kind>,
    groups: Vec<Group>,
    packed: Vec<f32>,
    scratch_bytes: usize,
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
                    runs.push(Run { source, target, source_step: 0, target_step: 0, count: 1, codes: tiles })
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

/// Extents of the space of work units, outermost first.
struct Units {
    batch_groups: u64,
    z: u64,
    y: u64,
    x: u64,
    channel_parts: u64,
}

impl Units {
    fn new(problem: &Problem, schedule: &Schedule) -> Self {
        let [z, y, x] = &problem.axes;
        Self {
            batch_groups: (problem.batch * problem.groups) as u64,
            z: z.steps() as u64,
            y: y.steps().div_ceil(schedule.rows) as u64,
            x: x.steps().div_ceil(schedule.columns) as u64,
            channel_parts: schedule.channel_parts as u64,
        }
    }

    fn total(&self) -> u64 {
        self.batch_groups * self.z * self.y * self.x * self.channel_parts
    }
}

/// Pointers into the tensors, the same for all units.
struct Bases {
    input: Value,
    output: Value,
    weights: Value,
    bias: Value,
    epilogue: Vec<Value>,
    scratch: Value,
}

/// A unit of work: its place in each dimension.
#[derive(Clone, Copy)]
struct Unit {
    image: Value,
    group: Value,
    z: Value,
    /// First step along y and x.
    y: Value,
    x: Value,
    part: Value,
}

struct Emit<'a, 'b> {
    nest: &'a Nest,
    job: &'a Job<'b>,
    counts: &'a Units,
}

impl Emit<'_, '_> {
    fn step(&self, glue: &mut Glue<'_>) {
        let table = glue.params[0];
        let (begin, end, scratch) = (glue.params[1], glue.params[2], glue.params[3]);
        let epilogue =
            (0..self.job.finish_operands.len()).map(|i| glue.pointer(table, EPILOGUE + i)).collect();
        let bases = Bases {
            input: glue.pointer(table, INPUT),
            output: glue.pointer(table, OUTPUT),
            weights: glue.pointer(table, WEIGHTS),
            bias: glue.pointer(table, BIAS),
            epilogue,
            scratch,
        };
        // The window in scratch memory stays good while only the part of the channels changes.
        let held = glue.builder.declare_var(I64);
        let none = glue.constant(-1);
        glue.builder.def_var(held, none);
        glue.for_each(begin, end, |glue, index| {
            let (outer, part) = if self.nest.schedule.store == Store::Channels {
                // Parts of the channels are outermost: each weight is read for all images while it is near.
                let (part, outer) = glue.split(index, self.counts.total() / self.counts.channel_parts);
                (outer, part)
            } else {
                glue.split(index, self.counts.channel_parts)
            };
            let (rest, x) = glue.split(outer, self.counts.x);
            let (rest, y) = glue.split(rest, self.counts.y);
            let (rest, z) = glue.split(rest, self.counts.z);
            let (image, group) = glue.split(rest, self.job.problem.groups as u64);
            let block = x;
            let y = glue.builder.ins().imul_imm_s(y, self.nest.schedule.rows as i64);
            let x = glue.builder.ins().imul_imm_s(x, self.nest.schedule.columns as i64);
            let unit = Unit { image, group, z, y, x, part };
            self.by_kind(glue, block, 0, &mut |glue, kind| {
                if self.nest.schedule.source == Source::Packed {
                    let now = glue.builder.use_var(held);
                    let stale = glue.builder.ins().icmp(IntCC::NotEqual, now, outer);
                    when(glue, stale, |glue| self.pack(glue, &bases, &unit, kind));
                }
                self.phases(glue, &bases, &unit, kind);
            });
            glue.builder.def_var(held, outer);
        });
    }

    /// Runs `body` with the kind of the block.
    fn by_kind(
        &self,
        glue: &mut Glue<'_>,
        block: Value,
        kind: usize,
        body: &mut dyn FnMut(&mut Glue<'_>, usize),
    ) {
        if kind + 1 == self.nest.kinds.len() {
            body(glue, kind);
            return;
        }
        let end = self.nest.kinds[kind].end as i64;
        let inside = glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, block, end);
        glue.branch(inside, &mut |glue, inside| {
            if inside { body(glue, kind) } else { self.by_kind(glue, block, kind + 1, body) }
        });
    }

    /// Address of the first input channel of the unit's group.
    fn input(&self, glue: &mut Glue<'_>, bases: &Bases, unit: &Unit) -> Value {
        let problem = &self.job.problem;
        let index = glue.builder.ins().imul_imm_s(unit.image, problem.groups as i64);
        let index = glue.builder.ins().iadd(index, unit.group);
        glue.element(bases.input, index, 4 * (problem.cin * problem.input_plane()) as i64)
    }

    fn pack(&self, glue: &mut Glue<'_>, bases: &Bases, unit: &Unit, kind: usize) {
        let (Some(copy), Some(zero)) = (self.nest.kinds[kind].pack, self.nest.zero) else { return };
        let [z, y, x] = &self.job.problem.axes;
        let window = &self.nest.window;
        let source = self.input(glue, bases, unit);
        let along_x = glue.builder.ins().imul_imm_s(unit.x, 4 * x.in_stride as i64);
        let source = glue.builder.ins().iadd(source, along_x);
        let source = glue.add_constant(source, self.nest.kinds[kind].copy_from);
        // Rows low .. low + total of the zero-inserted input; the tensor has those from 0 on that `insert` divides.
        let total = self.nest.window_rows as i64;
        let low = glue.builder.ins().imul_imm_s(unit.y, y.in_stride as i64);
        let low = glue.add_constant(low, y.shifts().0);
        let from = at_least(glue, low, 0);
        let from = ceil_div(glue, from, y.insert as i64);
        let high = glue.add_constant(low, total);
        let high = ceil_div_signed(glue, high, y.insert as i64);
        let to = at_most(glue, high, y.input as i64);
        let count = glue.builder.ins().isub(to, from);
        let count = at_least(glue, count, 0);
        let above = glue.builder.ins().imul_imm_s(from, y.insert as i64);
        let above = glue.builder.ins().isub(above, low);
        let above = at_most(glue, above, total);
        let plane_bytes = i64::from(window.row_bytes) * total;
        for plane in 0..self.nest.window_planes {
            let target = glue.add_constant(bases.scratch, plane as i64 * plane_bytes);
            let zeros = |glue: &mut Glue<'_>| {
                let all = glue.constant(total);
                glue.call(zero, &[target, all]);
            };
            let position = glue.builder.ins().imul_imm_s(unit.z, z.in_stride as i64);
            let position = glue.add_constant(position, z.shifts().0 + plane as i64);
            let copies = |glue: &mut Glue<'_>, index: Value| {
                if y.insert > 1 {
                    zeros(glue);
                }
                let from_z = glue.element(source, index, 4 * (y.input * x.input) as i64);
                let from_row = glue.element(from_z, from, 4 * x.input as i64);
                let to_row = glue.element(target, above, i64::from(window.row_bytes));
                glue.call(copy, &[from_row, to_row, count]);
                if y.insert == 1 {
                    glue.call(zero, &[target, above]);
                    let done = glue.builder.ins().iadd(above, count);
                    let below = rest_of(glue, total, done);
                    let at = glue.element(target, done, i64::from(window.row_bytes));
                    glue.call(zero, &[at, below]);
                }
            };
            if z.is_inside() && z.in_stride == 1 && z.insert == 1 {
                copies(glue, position);
                continue;
            }
            // Negative positions are large unsigned ones.
            let inside = glue.builder.ins().icmp_imm_u(
                IntCC::UnsignedLessThan,
                position,
                ((z.input - 1) * z.insert + 1) as i64,
            );
            let (index, inside) = if z.insert == 1 {
                (position, inside)
            } else {
                let index = glue.builder.ins().udiv_imm_u(position, z.insert as i64);
                let back = glue.builder.ins().imul_imm_s(index, z.insert as i64);
                let whole = glue.builder.ins().icmp(IntCC::Equal, back, position);
                (index, glue.builder.ins().band(whole, inside))
            };
            glue.branch(inside, &mut |glue, inside| if inside { copies(glue, index) } else { zeros(glue) });
        }
    }

    fn phases(&self, glue: &mut Glue<'_>, bases: &Bases, unit: &Unit, kind: usize) {
        let [z, y, _] = &self.job.problem.axes;
        for group in &self.nest.groups {
            let (z_phase, y_phase) = (&z.phases[group.z], &y.phases[group.y]);
            // Rows of this phase in the unit.
            let most = glue.constant(self.nest.schedule.rows as i64);
            let left = rest_of(glue, y_phase.count as i64, unit.y);
            let left = at_least(glue, left, 0);
            let rows = smaller(glue, most, left);
            if z_phase.count < z.steps() {
                let exists =
                    glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, unit.z, z_phase.count as i64);
                when(glue, exists, |glue| self.group(glue, bases, unit, kind, group, rows));
            } else {
                self.group(glue, bases, unit, kind, group, rows);
            }
        }
    }

    fn group(
        &self,
        glue: &mut Glue<'_>,
        bases: &Bases,
        unit: &Unit,
        kind: usize,
        group: &Group,
        rows: Value,
    ) {
        let problem = &self.job.problem;
        let [z, y, x] = &problem.axes;
        let schedule = &self.nest.schedule;
        // Place of the first row in the output, and in what is read.
        let plane = 4 * problem.output_plane() as i64;
        let row_bytes = 4 * x.output as i64;
        let channel = glue.builder.ins().imul_imm_s(unit.image, problem.groups as i64);
        let channel = glue.builder.ins().iadd(channel, unit.group);
        let channel = glue.builder.ins().imul_imm_s(channel, problem.cout as i64);
        let mut place = glue.builder.ins().imul_imm_s(channel, plane);
        let add = |glue: &mut Glue<'_>, place: Value, index: Value, bytes: i64| {
            let offset = glue.builder.ins().imul_imm_s(index, bytes);
            glue.builder.ins().iadd(place, offset)
        };
        place = add(glue, place, unit.z, z.out_stride as i64 * y.output as i64 * row_bytes);
        place = add(glue, place, unit.y, y.out_stride as i64 * row_bytes);
        place = add(glue, place, unit.x, 4 * x.out_stride as i64);
        let first = (z.phases[group.z].first * y.output + y.phases[group.y].first) as i64 * row_bytes
            + 4 * group.first_x as i64;
        place = glue.add_constant(place, first);
        let source = if schedule.source == Source::Packed {
            bases.scratch
        } else {
            let mut at = self.input(glue, bases, unit);
            at = add(glue, at, unit.z, (z.in_stride * y.input * x.input * 4) as i64);
            at = add(glue, at, unit.y, (y.in_stride * x.input * 4) as i64);
            add(glue, at, unit.x, 4)
        };
        let source = glue.add_constant(source, group.base);
        let in_row = y.in_stride as i64 * i64::from(self.nest.window.row_bytes);
        let out_row = y.out_stride as i64 * row_bytes;

        let channels = schedule.store == Store::Channels;
        let block = if channels { schedule.n * self.nest.lanes } else { schedule.m };
        let sizes = cut_channels(problem.cout, block);
        // Lanes along the channels have weights up to whole vectors.
        let padded = if channels { problem.cout.next_multiple_of(self.nest.lanes) } else { problem.cout };
        let rows = if channels && is_small(problem) { glue.constant(1) } else { rows };
        let tiles: u64 = sizes.iter().map(|&(_, count)| count as u64).sum();
        let per_channel = problem.cin * group.taps_per_channel;
        let group_bytes = 4 * (per_channel * padded) as i64;
        let weights = glue.add_constant(bases.weights, 4 * group.weights as i64);
        let weights = add(glue, weights, unit.group, group_bytes);
        let group_channel = glue.builder.ins().imul_imm_s(unit.group, problem.cout as i64);
        // Tiles of channels of this part.
        let parts = schedule.channel_parts as i64;
        let bound = |glue: &mut Glue<'_>, part: Value| {
            let scaled = glue.builder.ins().imul_imm_s(part, tiles as i64);
            if parts == 1 { scaled } else { glue.builder.ins().udiv_imm_u(scaled, parts) }
        };
        let begin = bound(glue, unit.part);
        let next = glue.add_constant(unit.part, 1);
        let end = bound(glue, next);
        let mut before = 0;
        for (size_index, &(m, count)) in sizes.iter().enumerate() {
            let (low, high) = (before, before + count as i64);
            before = high;
            let from = at_least(glue, begin, low);
            let to = at_most(glue, end, high);
            glue.for_each(from, to, |glue, tile| {
                // Channels before this tile: full tiles come first.
                let tile = glue.add_constant(tile, -low);
                let channels = glue.builder.ins().imul_imm_s(tile, m as i64);
                let channels = glue.add_constant(channels, low * block as i64);
                let weights = glue.element(weights, channels, 4 * per_channel as i64);
                let offset = add(glue, place, channels, plane);
                let in_all = glue.builder.ins().iadd(group_channel, channels);
                let bias = glue.element(bases.bias, in_all, 4);
                repeat(glue, rows, |glue, row| {
                    let offset = add(glue, offset, row, out_row);
                    let source = glue.element(source, row, in_row);
                    for run in &group.code[kind].runs {
                        let count = glue.constant(run.count as i64);
                        repeat(glue, count, |glue, i| {
                            let offset = add(glue, offset, i, run.target_step);
                            let offset = glue.add_constant(offset, run.target);
                            let source = glue.element(source, i, run.source_step);
                            let source = glue.add_constant(source, run.source);
                            let target = glue.builder.ins().iadd(bases.output, offset);
                            let mut args = vec![source, weights, bias, target];
                            for (&base, &(_, follows)) in bases.epilogue.iter().zip(&self.job.finish_operands)
                            {
                                args.push(match follows {
                                    Follows::Channels => glue.element(base, in_all, 4),
                                    Follows::Output => glue.builder.ins().iadd(base, offset),
                                });
                            }
                            glue.call(run.codes[size_index], &args);
                        });
                    }
                });
            });
        }
    }
}

/// `total - done`.
fn rest_of(glue: &mut Glue<'_>, total: i64, done: Value) -> Value {
    let total = glue.constant(total);
    glue.builder.ins().isub(total, done)
}

/// Runs `body` for each of `0 .. count`.
fn repeat<'a>(glue: &mut Glue<'a>, count: Value, body: impl FnOnce(&mut Glue<'a>, Value)) {
    let zero = glue.constant(0);
    glue.for_each(zero, count, body);
}

fn at_least(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    glue.builder.ins().smax(value, bound)
}

fn at_most(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    smaller(glue, value, bound)
}

fn smaller(glue: &mut Glue<'_>, a: Value, b: Value) -> Value {
    glue.builder.ins().smin(a, b)
}

/// Quotient of a value that is not negative, rounded up.
fn ceil_div(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    if by == 1 {
        return value;
    }
    let up = glue.add_constant(value, by - 1);
    glue.builder.ins().udiv_imm_u(up, by)
}

/// Quotient rounded up; anything not above zero gives zero.
fn ceil_div_signed(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    let value = at_least(glue, value, 0);
    ceil_div(glue, value, by)
}

fn when(glue: &mut Glue<'_>, condition: Value, body: impl Fn(&mut Glue<'_>)) {
    glue.branch(condition, &mut |glue, holds| {
        if holds {
            body(glue);
        }
    });
}
