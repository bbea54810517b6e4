//! What a convolution is made of: input_tiles, kinds of x-blocks, groups of phases, tiles, packed weights. [`super::direct_loops`]
//! writes the loops around them.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::direct_loops::Emit;
use crate::kernels::conv::emit::input_tile::{InputTileShape, InputTiles, Kind};
use crate::kernels::conv::emit::line_buffer::LineBufferCode;
use crate::kernels::conv::layer::{Layer, operands};
use crate::kernels::conv::microkernel::pixels::{self, PixelSpec, Point};
use crate::kernels::conv::microkernel::post_ops::Place;
use crate::kernels::conv::microkernel::width::{self, Segment, Span, TileSpec};
use crate::kernels::conv::problem::{Axis, Problem};
use crate::kernels::conv::schedule::direct::{Dataflow, Schedule, Source};
use crate::kernels::conv::schedule::line_buffer::LineBuffer;
use crate::kernels::conv::schedule::phases::{self, Layout, PhaseGroup};
use crate::kernels::conv::schedule::tile_shape::is_small;
use crate::kernels::conv::schedule::tiling::{WEIGHTS_AHEAD, cut, cut_channels};
use crate::kernels::conv::schedule::work_items::WorkItems;
use crate::kernels::conv::weights::{Blocks, NO_TAP};
use std::collections::HashMap;
use std::ops::Range;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::{Kernel, Operand};

/// Makes the kernel of a convolution along a schedule, with smaller tiles where registers do not suffice.
pub(crate) fn build<'a>(
    builder: &mut Builder<'a>,
    layer: &Layer<'a>,
    chosen: &Schedule,
) -> Result<(), CompileError> {
    let mut schedule = chosen.clone();
    loop {
        match KernelPlan::new(builder, layer, &schedule) {
            // The epilogue or the interleaving may need more registers than the schedule left.
            Err(CompileError::Tile { .. }) if schedule.m * schedule.n * schedule.stack > 1 => {
                let Schedule { m, n, stack, .. } = &mut schedule;
                let most = (*m).max(*n).max(*stack);
                if let Some(count) = [m, n, stack].into_iter().find(|count| **count == most) {
                    *count -= 1;
                }
            }
            Err(CompileError::Tile { .. }) if schedule.dataflow.is_interleaved() => {
                let joint = schedule.dataflow == Dataflow::Joint;
                schedule.dataflow = if joint { Dataflow::Interleaved } else { Dataflow::Strided };
            }
            plan => {
                let (plan, packed) = plan?;
                builder.refine_schedule(chosen, &schedule);
                return plan.into_kernel(builder, layer, packed);
            }
        }
    }
}

/// One x-phase group of one row phase: a call of tiles.
pub(crate) struct Group {
    /// Indices of the z- and y-phase.
    pub z: usize,
    pub y: usize,
    /// Output element along x of the group's first step.
    pub first_x: usize,
    /// Bytes of the base row and base position in the input tile or tensor.
    pub base: i64,
    /// Offset in the packed weights, in floats, and floats of a full and a remainder tile.
    pub weights: usize,
    /// Index of the group's tile code, by x-block kind.
    pub code: Vec<TileRuns>,
    pub taps_per_channel: usize,
}

/// Tiles along the steps of an x-block: runs of equal ones, for full and remainder tiles of channels.
#[derive(PartialEq)]
pub(crate) struct TileRuns {
    pub runs: Vec<Run>,
}

#[derive(PartialEq)]
pub(crate) struct Run {
    /// Bytes from the row's first step to the first tile's, and from tile to tile: in what is read, and in the output.
    pub source: i64,
    pub target: i64,
    pub source_step: i64,
    pub target_step: i64,
    pub count: usize,
    /// Of tiles of [`Schedule::stack`] rows, and of one row for those that are left.
    pub codes: Vec<Codes>,
}

/// Code for each size of channel tile; the same with copies of what the next input tile adds, where there is anything.
#[derive(PartialEq, Default)]
pub(crate) struct Codes {
    pub plain: Vec<FunctionId>,
    pub copying: Vec<FunctionId>,
}

pub(crate) struct KernelPlan {
    pub schedule: Schedule,
    pub lanes: usize,
    pub input_tiles: InputTiles,
    pub line_buffer_code: Option<LineBufferCode>,
    pub groups: Vec<Group>,
    pub scratch_bytes: usize,
}

impl KernelPlan {
    /// With the packed weights.
    fn new<'a>(
        builder: &mut Builder<'a>,
        layer: &Layer<'a>,
        schedule: &Schedule,
    ) -> Result<(Self, Operand), CompileError> {
        let lanes = builder.target.lanes();
        let block = schedule.n * lanes;
        let Schedule { source, dataflow, rows, columns, .. } = *schedule;
        let line_buffer = match source {
            Source::LineBuffer => LineBuffer::of(&layer.problem, builder.target, dataflow, rows, columns),
            _ => None,
        };
        let shape = InputTileShape {
            planes: schedule.planes(&layer.problem),
            rows: schedule.rows,
            columns: schedule.columns,
            // Tiles along the width read whole vectors: room behind the last position.
            spare: if schedule.dataflow.is_by_pixels() { 0 } else { block },
            packed: schedule.source != Source::Direct,
            room: line_buffer.map_or([0; 2], |line_buffer| line_buffer.extents()),
        };
        let input_tiles = InputTiles::new(builder, &layer.name, &layer.problem, &shape)?;
        let [z, y, _] = &layer.problem.axes;
        let row_phases = if dataflow == Dataflow::Joint { 1 } else { z.phases.len() * y.phases.len() };
        let tiles = row_phases * layer.problem.cout.div_ceil(schedule.m);
        let products = layer.problem.taps() * schedule.m * schedule.n * schedule.stack / row_phases;
        let line_buffer_code = line_buffer
            .map(|line_buffer| {
                LineBufferCode::new(builder, layer, &input_tiles, line_buffer, (tiles, products))
            })
            .transpose()?;
        let scratch_bytes = if shape.packed { input_tiles.bytes(layer.problem.cin) } else { 0 };
        let mut plan = Self {
            schedule: schedule.clone(),
            lanes,
            input_tiles,
            line_buffer_code,
            groups: vec![],
            scratch_bytes,
        };
        let packed = plan.groups(builder, layer)?;
        Ok((plan, packed))
    }

    /// Bytes between planes of what tiles read.
    fn plane_bytes(&self, problem: &Problem) -> i64 {
        match self.schedule.source {
            Source::Direct => 4 * (problem.axes[1].input * problem.input.row) as i64,
            _ => i64::from(self.input_tiles.layout.row_bytes) * self.input_tiles.rows as i64,
        }
    }

    /// The groups of phases, with their tiles; gives the packed weights.
    fn groups<'a>(&mut self, builder: &mut Builder<'a>, layer: &Layer<'a>) -> Result<Operand, CompileError> {
        let problem = &layer.problem;
        let is_window = self.schedule.source != Source::Direct;
        let layout = Layout {
            input_tile: self.input_tiles.layout,
            plane_bytes: self.plane_bytes(problem),
            first: is_window.then(|| problem.axes.each_ref().map(|axis| axis.shifts().0)),
        };
        let groups = phases::groups(problem, &self.schedule, &layout, self.lanes);
        let number = |tap: &Option<[usize; 3]>| tap.map_or(NO_TAP, |tap| layer.weights.tap(tap));
        let (block, grain) = self.schedule.channel_block(problem, self.lanes);
        let blocks = Blocks {
            weights: layer.weights,
            parts: groups.iter().map(|group| group.taps.iter().map(number).collect()).collect(),
            run: if self.schedule.dataflow == Dataflow::Phases { self.lanes } else { 1 },
            block,
            grain,
        };
        let starts = blocks.starts();
        let mut packed = Err(blocks);
        let (mut codes, mut pixel_codes) = (HashMap::new(), HashMap::new());
        for (group, weights) in groups.into_iter().zip(starts) {
            let mut code = vec![];
            for kind in &self.input_tiles.kinds {
                code.push(if self.schedule.dataflow.is_by_pixels() {
                    self.pixel_tiles(builder, layer, &group, kind, &mut pixel_codes)?
                } else {
                    self.tiles(builder, layer, &group, kind, &mut codes)?
                });
                // As early as can be, so that others pack while tiles are made; but if registers do not suffice, it mostly shows
                // by the first ones.
                packed = Ok(match packed {
                    Ok(packed) => packed,
                    Err(blocks) => builder.pack_weights(blocks)?,
                });
            }
            let (z, y) = group.row_phases[0];
            self.groups.push(Group {
                z,
                y,
                first_x: problem.axes[2].phases[group.x_phases[0]].first,
                base: group.base,
                weights,
                code,
                taps_per_channel: group.taps.len(),
            });
        }
        packed.or_else(|blocks| builder.pack_weights(blocks))
    }

    /// The tiles of an x-block; those of the last end with the row.
    fn tiles(
        &self,
        builder: &mut Builder<'_>,
        layer: &Layer<'_>,
        group: &PhaseGroup,
        kind: &Kind,
        codes: &mut HashMap<TileSpec, FunctionId>,
    ) -> Result<TileRuns, CompileError> {
        let problem = &layer.problem;
        let x = &problem.axes[2];
        let lanes = builder.target.lanes();
        // A phase may have fewer steps than others.
        let steps = match self.schedule.dataflow {
            Dataflow::Strided => kind.steps_of(&x.phases[group.x_phases[0]]),
            _ => kind.steps,
        };
        let mut runs: Vec<Run> = vec![];
        let mut first = 0;
        for n in cut(steps.div_ceil(lanes), self.schedule.n, 1) {
            let width = n * lanes;
            // Steps and outputs that exist from this tile's first on.
            let exist = (steps - first).min(width);
            // Blocks that are no whole vectors end where the next one begins.
            let mut outputs = if problem.collapses.is_empty() { width } else { exist } * x.out_stride;
            if kind.last {
                outputs = outputs.min(x.output.saturating_sub((kind.before + first) * x.out_stride));
            }
            // A lone phase stores the steps that it has.
            let units = if group.x_phases.len() == x.out_stride { x.out_stride } else { 1 };
            let outputs = if units == x.out_stride { outputs } else { exist };
            let steps_here = first..first + exist;
            let mut by_height = vec![];
            for height in self.schedule.heights(problem) {
                let copies = self.line_buffer_code.as_ref();
                let layout = &self.input_tiles.layout;
                let copies = copies.and_then(|line_buffer_code| {
                    line_buffer_code.copies(problem, layout, kind, (height, first, width))
                });
                let mut of_height = Codes::default();
                for (m, _) in cut_channels(problem.cout, self.schedule.m) {
                    let mut spec = TileSpec {
                        m,
                        vectors: self.spans(problem, height, exist),
                        phases: group.x_phases.len(),
                        cin: problem.cin,
                        channel_stride: layout.channel_bytes,
                        row_phases: group.row_targets(problem),
                        rows: group.rows.clone(),
                        positions: group.positions.clone(),
                        segments: self.segments(problem, height, &steps_here, (outputs, units)),
                        step_stride: x.out_stride,
                        output_stride: 4 * problem.output.plane as i32,
                        ahead: WEIGHTS_AHEAD,
                        mask_loads: self.schedule.source == Source::Direct,
                        copies: None,
                        post_ops: layer.post_ops.clone(),
                    };
                    let mut code_of = |spec: &TileSpec| match codes.get(spec) {
                        Some(&code) => Ok::<_, CompileError>(code),
                        None => {
                            let name = builder.unique(&format!("{}_m{m}n{}", layer.name, spec.vectors.len()));
                            let code = width::build(builder, &name, spec)?;
                            codes.insert(spec.clone(), code);
                            Ok(code)
                        }
                    };
                    of_height.plain.push(code_of(&spec)?);
                    if copies.is_some() {
                        spec.copies.clone_from(&copies);
                        of_height.copying.push(code_of(&spec)?);
                    }
                }
                by_height.push(of_height);
            }
            let (source_step, target_step) =
                (4 * width as i64, 4 * (problem.place(first + width) - problem.place(first)) as i64);
            match runs.last_mut() {
                Some(run)
                    if run.codes == by_height
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
                    codes: by_height,
                }),
            }
            first += width;
        }
        Ok(TileRuns { runs })
    }

    /// The vectors of a tile of so many rows, of so many steps each.
    fn spans(&self, problem: &Problem, height: usize, steps: usize) -> Vec<Span> {
        let row = problem.axes[1].in_stride as i32 * self.input_tiles.layout.row_bytes;
        let starts = (0..steps).step_by(self.lanes);
        let of_row = |index: usize| {
            starts.clone().map(move |first| Span {
                offset: index as i32 * row + 4 * first as i32,
                steps: (steps - first).min(self.lanes),
            })
        };
        (0..height).flat_map(of_row).collect()
    }

    /// The rows of the output that results of a tile of so many rows lie in, of the steps of each and of so many `outputs`; these are of
    /// one phase, or of all where they are `units` a step.
    fn segments(
        &self,
        problem: &Problem,
        height: usize,
        steps: &Range<usize>,
        (outputs, units): (usize, usize),
    ) -> Vec<Segment> {
        let collapsed = problem.collapses.first().map_or(usize::MAX, |collapse| collapse.steps);
        let row = 4 * (problem.axes[1].out_stride * problem.output.row) as i32;
        let start = problem.place(steps.start);
        let mut segments = vec![];
        for index in 0..height {
            let before = index * steps.len().next_multiple_of(self.lanes);
            let mut first = steps.start;
            while first < steps.end {
                let next = (first / collapsed + 1).saturating_mul(collapsed);
                let end = (next - steps.start).saturating_mul(units).min(outputs);
                segments.push(Segment {
                    first: before + first - steps.start,
                    end: before * units + end,
                    offset: index as i32 * row + 4 * (problem.place(first) - start) as i32,
                });
                first = next;
            }
        }
        segments
    }

    /// Tiles with lanes along the channels or along phases: over the pixels of a row of an x-block, or over all of a small image.
    fn pixel_tiles(
        &self,
        builder: &mut Builder<'_>,
        layer: &Layer<'_>,
        group: &PhaseGroup,
        kind: &Kind,
        codes: &mut HashMap<PixelSpec, FunctionId>,
    ) -> Result<TileRuns, CompileError> {
        let problem = &layer.problem;
        let [z, y, x] = &problem.axes;
        // Phases that are points of their own, with the steps that exist and bytes to its output from that of the first. Those along
        // the lanes are one.
        let (mut positions, mut points) = (group.positions.clone(), group.x_phases.as_slice());
        if self.schedule.dataflow == Dataflow::Phases {
            for position in &mut positions {
                position.phases = vec![0];
            }
            points = &points[..1];
        }
        let first = x.phases[group.x_phases[0]].first as i32;
        let of_phase = |&phase: &usize| {
            let phase = &x.phases[phase];
            (kind.steps_of(phase), 4 * (phase.first as i32 - first))
        };
        let points: Vec<(usize, i32)> = points.iter().map(of_phase).collect();
        let (z_phase, y_phase) = group.row_phases[0];
        let [planes, rows] = match self.schedule.planes(problem) {
            _ if !is_small(problem) => [1, 1],
            1 => [1, y.phases[y_phase].count],
            _ => [z.phases[z_phase].count, y.phases[y_phase].count],
        };
        let row = |axis: &Axis, source: i64, target: usize| {
            (axis.in_stride as i64 * source, (4 * axis.out_stride * target) as i64)
        };
        let of_row = row(y, i64::from(self.input_tiles.layout.row_bytes), problem.output.row);
        let of_plane = row(z, self.plane_bytes(problem), y.output * problem.output.row);
        let place = |plane: i64, row: i64, step: usize| {
            (
                plane * of_plane.0 + row * of_row.0 + 4 * step as i64,
                plane * of_plane.1 + row * of_row.1 + 4 * problem.place(step) as i64,
            )
        };
        let rows = (0..planes as i64).flat_map(|plane| (0..rows as i64).map(move |row| (plane, row)));
        let steps = points.iter().map(|&(steps, _)| steps).max().unwrap_or(0);
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
                    points.iter().enumerate().filter(move |(_, (steps, _))| step < *steps).map(
                        move |(phase, (_, first))| Point { source: place.0, target: place.1 + first, phase },
                    )
                };
            let of_tile: Vec<Point> = pixels.iter().flat_map(of_pixel).collect();
            let mut tiles = Codes::default();
            for (channels, _) in
                cut_channels(problem.cout, self.schedule.channel_block(problem, self.lanes).0)
            {
                let spec = PixelSpec {
                    vectors: self.vectors(problem, channels, group.x_phases.len()),
                    cin: problem.cin,
                    channel_stride: self.input_tiles.layout.channel_bytes,
                    rows: group.rows.iter().map(|row| row.offset).collect(),
                    positions: positions.clone(),
                    points: of_tile.clone(),
                    post_ops: layer.post_ops.clone(),
                };
                tiles.plain.push(match codes.get(&spec) {
                    Some(&code) => code,
                    None => {
                        let name = builder.unique(&format!("{}_p{count}c{}", layer.name, spec.vectors.len()));
                        let code = pixels::build(builder, &name, &spec)?;
                        codes.insert(spec, code);
                        code
                    }
                });
            }
            match runs.last_mut() {
                Some(run)
                    if run.codes.first() == Some(&tiles)
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
                    runs.push(Run {
                        source,
                        target,
                        source_step: 0,
                        target_step: 0,
                        count: 1,
                        codes: vec![tiles],
                    });
                }
            }
        }
        Ok(TileRuns { runs })
    }

    /// The vectors of results of a pixel, in the order of their weights.
    fn vectors(&self, problem: &Problem, channels: usize, phases: usize) -> Vec<Place> {
        let (lanes, plane) = (self.lanes, 4 * problem.output.plane as i32);
        let starts = |extent: usize| (0..extent).step_by(lanes);
        if self.schedule.dataflow.is_by_channels() {
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

    fn into_kernel<'a>(
        self,
        builder: &mut Builder<'a>,
        layer: &Layer<'a>,
        packed: Operand,
    ) -> Result<(), CompileError> {
        let bias = builder.pack_bias(&layer.bias)?;
        let operands = operands([layer.input, layer.output, packed, bias], &layer.post_op_operands);
        let counts = WorkItems::new(&layer.problem, &self.schedule);
        let how = if self.schedule.dataflow == Dataflow::Phases { "_phases" } else { "" };
        let name = builder.unique(&format!("{}{how}", layer.name));
        let function = builder.add_step(&name, |f| Emit { plan: &self, layer, counts: &counts }.step(f))?;
        let copies = match self.schedule.source {
            Source::Direct => 0.0,
            _ => self.schedule.packing(&layer.problem, builder.target),
        };
        let rates = builder.target.rates();
        let products = layer.problem.macs() as f64 / (rates.lanes as f64 * rates.threads.macs_per_lane);
        let nanoseconds = products + copies / rates.cycles_per_ns;
        let partition = builder
            .weighted_partition(&counts.weights(&layer.problem, &self.schedule, self.lanes), nanoseconds);
        builder.push_kernel(Kernel {
            name,
            function,
            operands,
            partition,
            scratch_bytes: self.scratch_bytes,
            time_steps: 1,
        });
        Ok(())
    }
}
