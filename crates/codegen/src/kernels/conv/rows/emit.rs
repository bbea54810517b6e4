//! The loops around the micro-kernel as code: units of work, packing, phases, channels, rows, tiles along x.

use super::super::epilogue::Follows;
use super::super::problem::Problem;
use super::nest::{BIAS, EPILOGUE, Group, INPUT, Job, Nest, OUTPUT, WEIGHTS};
use super::schedule::{Schedule, Source, Store, cut_channels, is_small};
use crate::exec::Glue;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Extents of the space of work units, outermost first.
pub(super) struct Units {
    batch_groups: u64,
    z: u64,
    y: u64,
    x: u64,
    channel_parts: u64,
}

impl Units {
    pub fn new(problem: &Problem, schedule: &Schedule) -> Self {
        let [z, y, x] = &problem.axes;
        Self {
            batch_groups: (problem.batch * problem.groups) as u64,
            z: z.steps() as u64,
            y: y.steps().div_ceil(schedule.rows) as u64,
            x: x.steps().div_ceil(schedule.columns) as u64,
            channel_parts: schedule.channel_parts as u64,
        }
    }

    pub fn total(&self) -> u64 {
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

pub(super) struct Emit<'a, 'b> {
    pub nest: &'a Nest,
    pub job: &'a Job<'b>,
    pub counts: &'a Units,
}

impl Emit<'_, '_> {
    /// Writes the body of the step function.
    pub fn step(&self, glue: &mut Glue<'_>) {
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
