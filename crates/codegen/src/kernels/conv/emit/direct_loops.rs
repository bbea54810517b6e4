//! The loops around the micro-kernel as code: units of work, packing, phases, channels, rows, tiles along x.

use crate::kernels::conv::emit::bounds::{at_least, each_channel_tile, repeat, rest_of, smaller, when};
use crate::kernels::conv::emit::direct::{Group, Nest};
use crate::kernels::conv::emit::line_buffer::{Held, Next, Slice};
use crate::kernels::conv::layer::{Bases, Job};
use crate::kernels::conv::schedule::direct::Source;
use crate::kernels::conv::schedule::tile_shape::is_small;
use crate::kernels::conv::schedule::work_items::{Units, of_part};
use crate::module::Glue;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;

/// A unit of work: its place in each dimension.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    image: Value,
    group: Value,
    pub z: Value,
    /// First step along y and x.
    pub y: Value,
    pub x: Value,
    part: Value,
    /// Its window in scratch memory, where it has one.
    window: Value,
}

/// Where work is: a unit, the kind of its x-block, and the window that follows, where windows roll.
struct Here<'h> {
    bases: &'h Bases,
    unit: Unit,
    kind: usize,
    next: Option<Next>,
}

/// Groups of phases that follow each other and differ in their places only: one loop.
struct Alike {
    numbers: Range<usize>,
    /// From one to the next: bytes in what is read, in the output, and in the weights.
    apart: [i64; 3],
}

/// One of [`Alike`] groups: in a loop the one with that index, else the only one.
#[derive(Clone, Copy)]
struct Member<'w> {
    alike: &'w Alike,
    index: Option<Value>,
}

impl Member<'_> {
    /// A place of the first group as that of this one.
    fn moved(self, glue: &mut Glue<'_>, place: Value, side: usize) -> Value {
        match self.index {
            Some(index) => glue.element(place, index, self.alike.apart[side]),
            None => place,
        }
    }
}

pub(crate) struct Emit<'a, 'b> {
    pub nest: &'a Nest,
    pub job: &'a Job<'b>,
    pub counts: &'a Units,
}

impl Emit<'_, '_> {
    /// Writes the body of the step function.
    pub fn step(&self, glue: &mut Glue<'_>) {
        let (begin, end) = (glue.params[1], glue.params[2]);
        let bases = Bases::load(glue, &self.job.finish_operands);
        // The window stays good while only the part of the channels changes.
        let held = Held::new(glue);
        self.begin_rolling(glue, &bases);
        glue.for_each(begin, end, |glue, index| {
            let (outer, part) = if self.nest.schedule.across {
                let (part, outer) = glue.split(index, self.counts.total() / self.counts.parts);
                (outer, part)
            } else {
                glue.split(index, self.counts.parts)
            };
            let (rest, x) = glue.split(outer, self.counts.x);
            let (rest, y) = glue.split(rest, self.counts.y);
            let (rest, z) = glue.split(rest, self.counts.z);
            let (image, group) = glue.split(rest, self.job.problem.groups as u64);
            let block = x;
            let y = glue.builder.ins().imul_imm_s(y, self.nest.schedule.rows as i64);
            let x = glue.builder.ins().imul_imm_s(x, self.nest.schedule.columns as i64);
            let mut unit = Unit { image, group, z, y, x, part, window: bases.scratch };
            self.nest.windows.by_kind(glue, block, &mut |glue, kind| {
                if self.nest.schedule.source != Source::Direct {
                    let now = glue.builder.use_var(held.unit);
                    let stale = glue.builder.ins().icmp(IntCC::NotEqual, now, outer);
                    when(glue, stale, |glue| {
                        let source = self.input(glue, &bases, &unit);
                        let steps = [unit.z, unit.y, unit.x];
                        self.nest.windows.pack(glue, &self.job.problem, source, bases.scratch, steps, kind);
                        let start = glue.constant(0);
                        glue.builder.def_var(held.offset, start);
                    });
                    glue.builder.def_var(held.unit, outer);
                    let offset = glue.builder.use_var(held.offset);
                    unit.window = glue.builder.ins().iadd(bases.scratch, offset);
                }
                let next = self.next(glue, &bases, &unit, (index, end), kind, held);
                self.phases(glue, &Here { bases: &bases, unit, kind, next });
            });
        });
    }

    /// Address of the first input channel of the unit's group.
    pub fn input(&self, glue: &mut Glue<'_>, bases: &Bases, unit: &Unit) -> Value {
        let problem = &self.job.problem;
        let index = glue.builder.ins().imul_imm_s(unit.image, problem.groups as i64);
        let index = glue.builder.ins().iadd(index, unit.group);
        glue.element(bases.input, index, 4 * problem.input.group as i64)
    }

    fn phases(&self, glue: &mut Glue<'_>, here: &Here<'_>) {
        let schedule = &self.nest.schedule;
        if schedule.parts == 1 || !schedule.parts_phases(&self.job.problem, self.nest.lanes) {
            return self.groups(glue, here, 0..self.nest.groups.len());
        }
        for part in 0..schedule.parts {
            let mine = glue.builder.ins().icmp_imm_u(IntCC::Equal, here.unit.part, part as i64);
            when(glue, mine, |glue| {
                self.groups(glue, here, of_part(self.nest.groups.len(), part, schedule.parts));
            });
        }
    }

    fn groups(&self, glue: &mut Glue<'_>, here: &Here<'_>, numbers: Range<usize>) {
        for alike in &self.alike(numbers) {
            if alike.numbers.len() == 1 {
                self.rows_of(glue, here, Member { alike, index: None });
                continue;
            }
            let count = glue.constant(alike.numbers.len() as i64);
            repeat(glue, count, |glue, index| self.rows_of(glue, here, Member { alike, index: Some(index) }));
        }
    }

    /// These groups, in order: those next to each other that are alike together.
    fn alike(&self, numbers: Range<usize>) -> Vec<Alike> {
        let groups = &self.nest.groups;
        let [z, y, _] = &self.job.problem.axes;
        let places = |number: usize| {
            let group = &groups[number];
            [group.base, self.place_of(group), 4 * group.weights as i64]
        };
        let counts = |group: &Group| [z.phases[group.z].count, y.phases[group.y].count];
        let mut all: Vec<Alike> = vec![];
        for number in numbers {
            if let Some(Alike { numbers, apart }) = all.last_mut() {
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
            all.push(Alike { numbers: number..number + 1, apart: [0; 3] });
        }
        all
    }

    /// Bytes from a unit's first output to that of a group.
    fn place_of(&self, group: &Group) -> i64 {
        let (problem, row_bytes) = (&self.job.problem, 4 * self.job.problem.output.row as i64);
        let [z, y, _] = &problem.axes;
        (z.phases[group.z].first * y.output + y.phases[group.y].first) as i64 * row_bytes
            + 4 * group.first_x as i64
    }

    /// The rows of a unit that a group of phases has.
    fn rows_of(&self, glue: &mut Glue<'_>, here: &Here<'_>, member: Member<'_>) {
        let group = &self.nest.groups[member.alike.numbers.start];
        let [z, y, _] = &self.job.problem.axes;
        let (z_phase, y_phase) = (&z.phases[group.z], &y.phases[group.y]);
        // Rows of this phase in the unit.
        let most = glue.constant(self.nest.schedule.rows as i64);
        let left = rest_of(glue, y_phase.count as i64, here.unit.y);
        let left = at_least(glue, left, 0);
        let rows = smaller(glue, most, left);
        if z_phase.count < z.steps() && self.nest.schedule.planes(&self.job.problem) == 1 {
            let exists =
                glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, here.unit.z, z_phase.count as i64);
            when(glue, exists, |glue| self.group(glue, here, member, rows));
        } else {
            self.group(glue, here, member, rows);
        }
    }

    /// Addresses of the first row of a group: in what is read, and in the output, as bytes from its start.
    fn starts(&self, glue: &mut Glue<'_>, here: &Here<'_>, member: Member<'_>) -> [Value; 2] {
        let (problem, unit) = (&self.job.problem, &here.unit);
        let group = &self.nest.groups[member.alike.numbers.start];
        let [z, y, _] = &problem.axes;
        let row_bytes = 4 * problem.output.row as i64;
        let channel = glue.builder.ins().imul_imm_s(unit.image, problem.groups as i64);
        let channel = glue.builder.ins().iadd(channel, unit.group);
        let mut place =
            glue.builder.ins().imul_imm_s(channel, (4 * problem.cout * problem.output.plane) as i64);
        place = glue.element(place, unit.z, z.out_stride as i64 * y.output as i64 * row_bytes);
        place = glue.element(place, unit.y, y.out_stride as i64 * row_bytes);
        place = glue.element(place, unit.x, 4 * problem.step_pitch() as i64);
        place = glue.add_constant(place, self.place_of(group));
        let source = if self.nest.schedule.source == Source::Direct {
            let mut at = self.input(glue, here.bases, unit);
            at = glue.element(at, unit.z, (z.in_stride * y.input * problem.input.row * 4) as i64);
            at = glue.element(at, unit.y, (y.in_stride * problem.input.row * 4) as i64);
            glue.element(at, unit.x, 4)
        } else {
            unit.window
        };
        let source = glue.add_constant(source, group.base);
        [member.moved(glue, source, 0), member.moved(glue, place, 1)]
    }

    fn group(&self, glue: &mut Glue<'_>, here: &Here<'_>, member: Member<'_>, rows: Value) {
        let Here { bases, unit, kind, next } = here;
        let number = member.alike.numbers.start;
        let group = &self.nest.groups[number];
        let (problem, schedule) = (&self.job.problem, &self.nest.schedule);
        let [source, place] = self.starts(glue, here, member);
        let y = &problem.axes[1];
        let in_row = y.in_stride as i64 * i64::from(self.nest.windows.layout.row_bytes);
        let out_row = (4 * y.out_stride * problem.output.row) as i64;

        let (block, grain) = schedule.channel_block(problem, self.nest.lanes);
        // Lanes along the channels have weights up to whole vectors.
        let padded = problem.cout.next_multiple_of(grain);
        let rows = if schedule.store.is_by_pixels() && is_small(problem) { glue.constant(1) } else { rows };
        let per_channel = problem.cin * group.taps_per_channel;
        let group_bytes = 4 * (per_channel * padded) as i64;
        let weights = glue.add_constant(bases.weights, 4 * group.weights as i64);
        let weights = member.moved(glue, weights, 2);
        let weights = glue.element(weights, unit.group, group_bytes);
        let group_channel = glue.builder.ins().imul_imm_s(unit.group, problem.cout as i64);
        let (part, parts) = if schedule.parts_phases(problem, self.nest.lanes) {
            (glue.constant(0), 1)
        } else {
            (unit.part, schedule.parts)
        };
        let parts = (part, glue.add_constant(part, 1), parts);
        let tiles = problem.cout.div_ceil(block);
        each_channel_tile(glue, problem.cout, block, parts, &mut |glue, tile| {
            let weights = glue.element(weights, tile.first, 4 * per_channel as i64);
            let offset = glue.element(place, tile.first, 4 * problem.output.plane as i64);
            let in_all = glue.builder.ins().iadd(group_channel, tile.first);
            let bias = glue.element(bases.bias, in_all, 4);
            self.each_row(glue, rows, &|glue, row, height| {
                let offset = glue.element(offset, row, out_row);
                let source = glue.element(source, row, in_row);
                let runs = &group.code[*kind].runs;
                for (index, run) in runs.iter().enumerate() {
                    let is_last = index + 1 == runs.len();
                    let count = glue.constant(run.count as i64);
                    repeat(glue, count, |glue, i| {
                        let offset = glue.element(offset, i, run.target_step);
                        let offset = glue.add_constant(offset, run.target);
                        let along = glue.builder.ins().imul_imm_s(i, run.source_step);
                        let along = glue.add_constant(along, run.source);
                        let source = glue.builder.ins().iadd(source, along);
                        let target = glue.builder.ins().iadd(bases.output, offset);
                        let mut args = vec![source, weights, bias, target];
                        args.extend(bases.finish_at(glue, in_all, offset));
                        let codes = &run.codes[height];
                        let plain = codes.plain[tile.size];
                        let (Some(next), Some(&copying)) = (next, codes.copying.get(tile.size)) else {
                            return glue.call(plain, &args);
                        };
                        let mut turn = glue.add_constant(tile.number, (number * tiles) as i64);
                        if let Some(index) = member.index {
                            turn = glue.element(turn, index, tiles as i64);
                        }
                        let last = is_last
                            .then(|| glue.builder.ins().icmp_imm_u(IntCC::Equal, i, run.count as i64 - 1));
                        let slice = Slice { row, along, step: run.source_step, last, turn };
                        self.call_copying(glue, next, [plain, copying], &args, &slice);
                    });
                }
            });
        });
    }

    /// Runs `body` for the first of the rows that tiles take together, with the number of the tiles' height.
    fn each_row<'g>(&self, glue: &mut Glue<'g>, rows: Value, body: &dyn Fn(&mut Glue<'g>, Value, usize)) {
        let heights = self.nest.schedule.heights(&self.job.problem);
        let mut done = glue.constant(0);
        for (index, &height) in heights.iter().enumerate() {
            let left = glue.builder.ins().isub(rows, done);
            let count = if height > 1 { glue.builder.ins().udiv_imm_u(left, height as i64) } else { left };
            repeat(glue, count, |glue, i| {
                let row = glue.builder.ins().imul_imm_s(i, height as i64);
                let row = glue.builder.ins().iadd(row, done);
                body(glue, row, index);
            });
            done = glue.builder.ins().imul_imm_s(count, height as i64);
        }
    }
}
