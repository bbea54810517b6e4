//! The loops around the micro-kernel as code: work items, packing, phases, channels, rows, tiles along x.

use crate::kernels::conv::emit::bounds::{at_least, each_channel_tile, repeat, rest_of, smaller, when};
use crate::kernels::conv::emit::direct::{Group, KernelPlan};
use crate::kernels::conv::emit::line_buffer::{Buffered, Next, Slice};
use crate::kernels::conv::layer::{Bases, Layer};
use crate::kernels::conv::schedule::direct::Source;
use crate::kernels::conv::schedule::tile_shape::is_small;
use crate::kernels::conv::schedule::work_items::{WorkItems, of_part};
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;

/// A work item: its place in each dimension.
#[derive(Clone, Copy)]
pub(crate) struct WorkItem {
    image: Value,
    group: Value,
    pub z: Value,
    /// First step along y and x.
    pub y: Value,
    pub x: Value,
    part: Value,
    /// Its input tile in scratch memory, where it has one.
    input_tile: Value,
}

/// Where work is: a work item, the kind of its x-block, and the input tile that follows, where there is a line buffer.
struct Here<'h> {
    bases: &'h Bases,
    item: WorkItem,
    kind: usize,
    next: Option<Next>,
}

/// Groups of phases that follow each other and differ in their places only: one loop.
struct RunLength {
    numbers: Range<usize>,
    /// From one to the next: bytes in what is read, in the output, and in the weights.
    apart: [i64; 3],
}

/// One of [`RunLength`] groups: in a loop the one with that index, else the only one.
#[derive(Clone, Copy)]
struct OfRun<'w> {
    run: &'w RunLength,
    index: Option<Value>,
}

impl OfRun<'_> {
    /// A place of the first group as that of this one.
    fn moved(self, f: &mut FunctionBuilder<'_>, place: Value, side: usize) -> Value {
        match self.index {
            Some(index) => f.element(place, index, self.run.apart[side]),
            None => place,
        }
    }
}

pub(crate) struct Emit<'a, 'b> {
    pub plan: &'a KernelPlan,
    pub layer: &'a Layer<'b>,
    pub counts: &'a WorkItems,
}

impl Emit<'_, '_> {
    /// Writes the body of the step function.
    pub fn step(&self, f: &mut FunctionBuilder<'_>) {
        let (begin, end) = (f.params[1], f.params[2]);
        let bases = Bases::load(f, &self.layer.post_op_operands);
        // The input tile stays good while only the part of the channels changes.
        let buffered = Buffered::new(f);
        self.begin_rolling(f, &bases);
        f.for_each(begin, end, |f, index| {
            let (outer, part) = if self.plan.schedule.across {
                let (part, outer) = f.split(index, self.counts.total() / self.counts.parts);
                (outer, part)
            } else {
                f.split(index, self.counts.parts)
            };
            let (rest, x) = f.split(outer, self.counts.x);
            let (rest, y) = f.split(rest, self.counts.y);
            let (rest, z) = f.split(rest, self.counts.z);
            let (image, group) = f.split(rest, self.layer.problem.groups as u64);
            let block = x;
            let y = f.builder.ins().imul_imm_s(y, self.plan.schedule.rows as i64);
            let x = f.builder.ins().imul_imm_s(x, self.plan.schedule.columns as i64);
            let mut item = WorkItem { image, group, z, y, x, part, input_tile: bases.scratch };
            self.plan.input_tiles.by_kind(f, block, &mut |f, kind| {
                if self.plan.schedule.source != Source::Direct {
                    let now = f.builder.use_var(buffered.item);
                    let stale = f.builder.ins().icmp(IntCC::NotEqual, now, outer);
                    when(f, stale, |f| {
                        let source = self.input(f, &bases, &item);
                        let steps = [item.z, item.y, item.x];
                        self.plan.input_tiles.pack(
                            f,
                            &self.layer.problem,
                            source,
                            bases.scratch,
                            steps,
                            kind,
                        );
                        let start = f.constant(0);
                        f.builder.def_var(buffered.offset, start);
                    });
                    f.builder.def_var(buffered.item, outer);
                    let offset = f.builder.use_var(buffered.offset);
                    item.input_tile = f.builder.ins().iadd(bases.scratch, offset);
                }
                let next = self.next(f, &bases, &item, (index, end), kind, buffered);
                self.phases(f, &Here { bases: &bases, item, kind, next });
            });
        });
    }

    /// Address of the first input channel of the work item's group.
    pub fn input(&self, f: &mut FunctionBuilder<'_>, bases: &Bases, item: &WorkItem) -> Value {
        let problem = &self.layer.problem;
        let index = f.builder.ins().imul_imm_s(item.image, problem.groups as i64);
        let index = f.builder.ins().iadd(index, item.group);
        f.element(bases.input, index, 4 * problem.input.group as i64)
    }

    fn phases(&self, f: &mut FunctionBuilder<'_>, here: &Here<'_>) {
        let schedule = &self.plan.schedule;
        if schedule.parts == 1 || !schedule.parts_phases(&self.layer.problem, self.plan.lanes) {
            return self.groups(f, here, 0..self.plan.groups.len());
        }
        for part in 0..schedule.parts {
            let mine = f.builder.ins().icmp_imm_u(IntCC::Equal, here.item.part, part as i64);
            when(f, mine, |f| {
                self.groups(f, here, of_part(self.plan.groups.len(), part, schedule.parts));
            });
        }
    }

    fn groups(&self, f: &mut FunctionBuilder<'_>, here: &Here<'_>, numbers: Range<usize>) {
        for run in &self.run(numbers) {
            if run.numbers.len() == 1 {
                self.rows_of(f, here, OfRun { run, index: None });
                continue;
            }
            let count = f.constant(run.numbers.len() as i64);
            repeat(f, count, |f, index| self.rows_of(f, here, OfRun { run, index: Some(index) }));
        }
    }

    /// These groups, in order: those next to each other that are run together.
    fn run(&self, numbers: Range<usize>) -> Vec<RunLength> {
        let groups = &self.plan.groups;
        let [z, y, _] = &self.layer.problem.axes;
        let places = |number: usize| {
            let group = &groups[number];
            [group.base, self.place_of(group), 4 * group.weights as i64]
        };
        let counts = |group: &Group| [z.phases[group.z].count, y.phases[group.y].count];
        let mut all: Vec<RunLength> = vec![];
        for number in numbers {
            if let Some(RunLength { numbers, apart }) = all.last_mut() {
                let (first, group) = (&groups[numbers.start], &groups[number]);
                let (last, now) = (places(number - 1), places(number));
                let step = [0, 1, 2].map(|side| now[side] - last[side]);
                if (first.taps_per_channel, counts(first)) == (group.taps_per_channel, counts(group))
                    && first.code == group.code
                    && (numbers.len() == 1 || *apart == step)
                {
                    (numbers.end, *apart) = (number + 1, step);
                    continue;
                }
            }
            all.push(RunLength { numbers: number..number + 1, apart: [0; 3] });
        }
        all
    }

    /// Bytes from a work item's first output to that of a group.
    fn place_of(&self, group: &Group) -> i64 {
        let (problem, row_bytes) = (&self.layer.problem, 4 * self.layer.problem.output.row as i64);
        let [z, y, _] = &problem.axes;
        (z.phases[group.z].first * y.output + y.phases[group.y].first) as i64 * row_bytes
            + 4 * group.first_x as i64
    }

    /// The rows of a work item that a group of phases has.
    fn rows_of(&self, f: &mut FunctionBuilder<'_>, here: &Here<'_>, of_run: OfRun<'_>) {
        let group = &self.plan.groups[of_run.run.numbers.start];
        let [z, y, _] = &self.layer.problem.axes;
        let (z_phase, y_phase) = (&z.phases[group.z], &y.phases[group.y]);
        // Rows of this phase in the work item.
        let most = f.constant(self.plan.schedule.rows as i64);
        let left = rest_of(f, y_phase.count as i64, here.item.y);
        let left = at_least(f, left, 0);
        let rows = smaller(f, most, left);
        if z_phase.count < z.output_positions() && self.plan.schedule.planes(&self.layer.problem) == 1 {
            let exists =
                f.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, here.item.z, z_phase.count as i64);
            when(f, exists, |f| self.group(f, here, of_run, rows));
        } else {
            self.group(f, here, of_run, rows);
        }
    }

    /// Addresses of the first row of a group: in what is read, and in the output, as bytes from its start.
    fn starts(&self, f: &mut FunctionBuilder<'_>, here: &Here<'_>, of_run: OfRun<'_>) -> [Value; 2] {
        let (problem, item) = (&self.layer.problem, &here.item);
        let group = &self.plan.groups[of_run.run.numbers.start];
        let [z, y, _] = &problem.axes;
        let row_bytes = 4 * problem.output.row as i64;
        let channel = f.builder.ins().imul_imm_s(item.image, problem.groups as i64);
        let channel = f.builder.ins().iadd(channel, item.group);
        let mut place = f.builder.ins().imul_imm_s(channel, (4 * problem.cout * problem.output.plane) as i64);
        place = f.element(place, item.z, z.out_stride as i64 * y.output as i64 * row_bytes);
        place = f.element(place, item.y, y.out_stride as i64 * row_bytes);
        place = f.element(place, item.x, 4 * problem.step_pitch() as i64);
        place = f.add_constant(place, self.place_of(group));
        let source = if self.plan.schedule.source == Source::Direct {
            let mut at = self.input(f, here.bases, item);
            at = f.element(at, item.z, (z.in_stride * y.input * problem.input.row * 4) as i64);
            at = f.element(at, item.y, (y.in_stride * problem.input.row * 4) as i64);
            f.element(at, item.x, 4)
        } else {
            item.input_tile
        };
        let source = f.add_constant(source, group.base);
        [of_run.moved(f, source, 0), of_run.moved(f, place, 1)]
    }

    fn group(&self, f: &mut FunctionBuilder<'_>, here: &Here<'_>, of_run: OfRun<'_>, rows: Value) {
        let Here { bases, item, kind, next } = here;
        let number = of_run.run.numbers.start;
        let group = &self.plan.groups[number];
        let (problem, schedule) = (&self.layer.problem, &self.plan.schedule);
        let [source, place] = self.starts(f, here, of_run);
        let y = &problem.axes[1];
        let in_row = y.in_stride as i64 * i64::from(self.plan.input_tiles.layout.row_bytes);
        let out_row = (4 * y.out_stride * problem.output.row) as i64;

        let (block, grain) = schedule.channel_block(problem, self.plan.lanes);
        // Lanes along the channels have weights up to whole vectors.
        let padded = problem.cout.next_multiple_of(grain);
        let rows = if schedule.dataflow.is_by_pixels() && is_small(problem) { f.constant(1) } else { rows };
        let per_channel = problem.cin * group.taps_per_channel;
        let group_bytes = 4 * (per_channel * padded) as i64;
        let weights = f.add_constant(bases.weights, 4 * group.weights as i64);
        let weights = of_run.moved(f, weights, 2);
        let weights = f.element(weights, item.group, group_bytes);
        let group_channel = f.builder.ins().imul_imm_s(item.group, problem.cout as i64);
        let (part, parts) = if schedule.parts_phases(problem, self.plan.lanes) {
            (f.constant(0), 1)
        } else {
            (item.part, schedule.parts)
        };
        let parts = (part, f.add_constant(part, 1), parts);
        let tiles = problem.cout.div_ceil(block);
        each_channel_tile(f, problem.cout, block, parts, &mut |f, tile| {
            let weights = f.element(weights, tile.first, 4 * per_channel as i64);
            let offset = f.element(place, tile.first, 4 * problem.output.plane as i64);
            let in_all = f.builder.ins().iadd(group_channel, tile.first);
            let bias = f.element(bases.bias, in_all, 4);
            self.each_row(f, rows, &|f, row, height| {
                let offset = f.element(offset, row, out_row);
                let source = f.element(source, row, in_row);
                let runs = &group.code[*kind].runs;
                for (index, run) in runs.iter().enumerate() {
                    let is_last = index + 1 == runs.len();
                    let count = f.constant(run.count as i64);
                    repeat(f, count, |f, i| {
                        let offset = f.element(offset, i, run.target_step);
                        let offset = f.add_constant(offset, run.target);
                        let along = f.builder.ins().imul_imm_s(i, run.source_step);
                        let along = f.add_constant(along, run.source);
                        let source = f.builder.ins().iadd(source, along);
                        let target = f.builder.ins().iadd(bases.output, offset);
                        let mut args = vec![source, weights, bias, target];
                        args.extend(bases.post_ops_at(f, in_all, offset));
                        let codes = &run.codes[height];
                        let plain = codes.plain[tile.size];
                        let (Some(next), Some(&copying)) = (next, codes.copying.get(tile.size)) else {
                            return f.call(plain, &args);
                        };
                        let mut turn = f.add_constant(tile.number, (number * tiles) as i64);
                        if let Some(index) = of_run.index {
                            turn = f.element(turn, index, tiles as i64);
                        }
                        let last = is_last
                            .then(|| f.builder.ins().icmp_imm_u(IntCC::Equal, i, run.count as i64 - 1));
                        let slice = Slice { row, along, step: run.source_step, last, turn };
                        self.call_copying(f, next, [plain, copying], &args, &slice);
                    });
                }
            });
        });
    }

    /// Runs `body` for the first of the rows that tiles take together, with the number of the tiles' height.
    fn each_row<'g>(
        &self,
        f: &mut FunctionBuilder<'g>,
        rows: Value,
        body: &dyn Fn(&mut FunctionBuilder<'g>, Value, usize),
    ) {
        let heights = self.plan.schedule.heights(&self.layer.problem);
        let mut done = f.constant(0);
        for (index, &height) in heights.iter().enumerate() {
            let left = f.builder.ins().isub(rows, done);
            let count = if height > 1 { f.builder.ins().udiv_imm_u(left, height as i64) } else { left };
            repeat(f, count, |f, i| {
                let row = f.builder.ins().imul_imm_s(i, height as i64);
                let row = f.builder.ins().iadd(row, done);
                body(f, row, index);
            });
            done = f.builder.ins().imul_imm_s(count, height as i64);
        }
    }
}
