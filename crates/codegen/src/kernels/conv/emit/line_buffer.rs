//! The code of windows that roll: what is zeroed and moved, and the tiles that copy.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::bounds::{at_most, when};
use crate::kernels::conv::emit::direct_loops::{Emit, Unit};
use crate::kernels::conv::emit::input_tile::{Kind, Windows};
use crate::kernels::conv::layer::{Bases, Job};
use crate::kernels::conv::microkernel::packing::{self, PackSpec};
use crate::kernels::conv::microkernel::width::Copies;
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::input_tile::Window;
use crate::kernels::conv::schedule::line_buffer::{Along, Rolling};
use crate::module::Glue;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::Variable;
use tconvc_runtime::code::FunctionId;

/// Multiply-adds in the time that a line takes to come from memory.
const COPIES_AHEAD: usize = 3200;

/// Multiply-adds of a tile that takes little more than that.
const SHORT: usize = 6000;

/// Channels asked for at a time: planes a whole number of pages apart fall on the same few lines of the caches.
const MOST_AHEAD: usize = 8;

/// The code that windows take to roll, beside that of their tiles.
pub(crate) struct Rolls {
    pub rolling: Rolling,
    /// Channels that a tile copies its part of.
    pub channels: usize,
    /// Channels between those that are copied and those asked for.
    ahead: usize,
    /// Tiles that share these.
    turns: usize,
    /// Moves what windows share.
    shift: Option<FunctionId>,
    /// Zeroes the positions beside the input in all rows.
    sides: Option<FunctionId>,
}

impl Rolls {
    /// For windows on whose steps so many tiles work each.
    pub fn new(
        builder: &mut Builder<'_>,
        job: &Job<'_>,
        windows: &Windows,
        rolling: Rolling,
        (tiles, products): (usize, usize),
    ) -> Result<Self, CompileError> {
        let (layout, cin) = (windows.layout, job.problem.cin);
        let [shift_name, sides_name] =
            ["shift", "sides"].map(|what| builder.unique(&format!("{}_{what}", job.name)));
        let kind = windows.kinds.first();
        let positions = kind.map_or(0, |kind| job.problem.axes[2].reach(kind.steps));
        let (shared, sides) = match rolling.along {
            Along::Columns => (rolling.shared(), None),
            Along::Rows => (positions, kind.filter(|kind| kind.elements < positions)),
        };
        let shift = match rolling.shared() {
            0 => None,
            _ => {
                let spec = PackSpec {
                    window: layout,
                    cin,
                    source_channel: layout.channel_bytes,
                    source_row: layout.row_bytes,
                    source_step: 1,
                    row_step: 1,
                    positions: shared,
                    first: 0,
                    elements: shared,
                    step: 1,
                };
                Some(packing::copy_rows(builder, &shift_name, &spec)?)
            }
        };
        let sides = match sides {
            Some(kind) => {
                let beside = [0..kind.first, kind.first + kind.elements..positions];
                Some(packing::zero_rows(builder, &sides_name, &layout, cin, &beside)?)
            }
            None => None,
        };
        // Evenly spaced, if that takes few more.
        let least = cin.div_ceil(tiles);
        let channels =
            (least..=least * 3 / 2).find(|&channels| cin.is_multiple_of(channels)).unwrap_or(least);
        // Far enough ahead for the last cache, or memory. A short tile asks for what is copied in the next turn.
        let products = cin * products;
        let ahead = if products < SHORT { channels } else { COPIES_AHEAD * channels / products };
        let ahead = ahead.clamp(1, channels.min(MOST_AHEAD));
        Ok(Self { rolling, channels, ahead, turns: tiles, shift, sides })
    }

    /// What a tile of so many rows copies, of the window after one of this kind, at its step `first` and of `width` steps.
    pub fn copies(
        &self,
        problem: &Problem,
        layout: &Window,
        kind: &Kind,
        (height, first, width): (usize, usize, usize),
    ) -> Option<Copies> {
        let [_, y, _] = &problem.axes;
        let (rows, elements) = match self.rolling.along {
            Along::Rows => (height * y.in_stride, kind.elements),
            Along::Columns if kind.last => return None,
            Along::Columns => (1, self.rolling.new),
        };
        let left = elements.checked_sub(first).filter(|&left| left > 0)?;
        let elements = if first + width >= kind.steps { left } else { left.min(width) };
        Some(Copies {
            channels: self.channels,
            ahead: self.ahead,
            rows,
            elements,
            source: [4 * problem.input.plane as i32, 4 * problem.input.row as i32],
            target: [layout.channel_bytes, layout.row_bytes],
        })
    }

    /// Bytes between rows or positions that follow each other, in what is packed and in the tensor.
    fn unit_bytes(&self, problem: &Problem, layout: &Window) -> [i64; 2] {
        match self.rolling.along {
            Along::Rows => [i64::from(layout.row_bytes), 4 * problem.input.row as i64],
            Along::Columns => [4, 4],
        }
    }
}

/// The window in scratch memory that is good, from unit to unit of work.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// Number of the unit that has it.
    pub unit: Variable,
    /// Bytes to it.
    pub offset: Variable,
}

impl Held {
    /// None yet.
    pub fn new(glue: &mut Glue<'_>) -> Self {
        let held = Self { unit: glue.builder.declare_var(I64), offset: glue.builder.declare_var(I64) };
        let (none, start) = (glue.constant(-1), glue.constant(0));
        glue.builder.def_var(held.unit, none);
        glue.builder.def_var(held.offset, start);
        held
    }
}

/// The window after the one at hand.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// Whether tiles are to copy it.
    pub follows: Value,
    /// First row and element that it adds: in the tensor, and in scratch memory.
    pub from: Value,
    pub to: Value,
}

/// A tile of the window at hand, by what it copies of the next one.
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    /// Row of the unit.
    pub row: Value,
    /// Bytes along the row to the tile, and from it to the next one.
    pub along: Value,
    pub step: i64,
    /// Whether it is the last of its row, if it can be.
    pub last: Option<Value>,
    /// Its number among the tiles that work on the same steps.
    pub turn: Value,
}

impl Emit<'_, '_> {
    /// Prepares scratch memory, once.
    pub fn begin_rolling(&self, glue: &mut Glue<'_>, bases: &Bases) {
        if let Some(rolls) = &self.nest.rolls
            && let Some(sides) = rolls.sides
        {
            let rows = glue.constant(rolls.rolling.room as i64);
            glue.call(sides, &[bases.scratch, rows]);
        }
    }

    /// The window after that of unit `index`, with room for it; nothing where windows do not roll. From here on it is the one held.
    pub fn next(
        &self,
        glue: &mut Glue<'_>,
        bases: &Bases,
        unit: &Unit,
        (index, end): (Value, Value),
        kind: usize,
        held: Held,
    ) -> Option<Next> {
        let rolls = self.nest.rolls.as_ref()?;
        let (rolling, kind) = (rolls.rolling, &self.nest.windows.kinds[kind]);
        let (problem, layout) = (&self.job.problem, &self.nest.windows.layout);
        let [z, y, x] = &problem.axes;
        let (axis, step, steps) = match rolling.along {
            Along::Rows => (y, unit.y, self.nest.schedule.rows),
            Along::Columns => (x, unit.x, self.nest.schedule.columns),
        };
        let [bytes, source_bytes] = rolls.unit_bytes(problem, layout);
        // It is that of the next unit, along the axis, and all that it adds lies inside the tensor.
        let first = glue.builder.ins().imul_imm_s(step, axis.in_stride as i64);
        let first = glue.add_constant(first, axis.shifts().0 + rolling.whole as i64);
        let next_step = glue.add_constant(step, steps as i64);
        let next_index = glue.add_constant(index, 1);
        let last = axis.input as i64 - rolling.new as i64;
        let mut follows = glue.builder.ins().icmp(IntCC::UnsignedLessThan, next_index, end);
        for (value, condition, bound) in [
            (next_step, IntCC::SignedLessThan, axis.steps() as i64),
            (first, IntCC::SignedGreaterThanOrEqual, 0),
            (first, IntCC::SignedLessThanOrEqual, last),
        ] {
            let holds = glue.builder.ins().icmp_imm_s(condition, value, bound);
            follows = glue.builder.ins().band(follows, holds);
        }

        let offset = glue.builder.use_var(held.offset);
        let start = glue.constant(0);
        let next = glue.add_constant(offset, rolling.new as i64 * bytes);
        let most = (rolling.room - rolling.whole) as i64 * bytes;
        let beyond = glue.builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, next, most);
        if let Some(shift) = rolls.shift {
            let full = glue.builder.ins().band(follows, beyond);
            when(glue, full, |glue| {
                let shared = glue.builder.ins().iadd(bases.scratch, next);
                let rows = if rolling.along == Along::Rows { rolling.shared() } else { 1 };
                let rows = glue.constant(rows as i64);
                glue.call(shift, &[shared, bases.scratch, rows]);
            });
        }
        let next = glue.builder.ins().select(beyond, start, next);
        let held_index = glue.builder.ins().select(follows, next_index, index);
        glue.builder.def_var(held.unit, held_index);
        glue.builder.def_var(held.offset, next);

        let mut from = self.input(glue, bases, unit);
        from = glue.element(from, first, source_bytes);
        let plane = 4 * (y.input * problem.input.row) as i64;
        from = glue.element(from, unit.z, plane);
        let mut to = glue.builder.ins().iadd(bases.scratch, next);
        to = glue.add_constant(to, rolling.shared() as i64 * bytes);
        let (source, target) = match rolling.along {
            Along::Rows => (kind.copy_from, 4 * kind.first as i64),
            Along::Columns => (y.shifts().0 * 4 * problem.input.row as i64, 0),
        };
        from = glue.add_constant(from, z.shifts().0 * plane + source);
        to = glue.add_constant(to, target);
        Some(Next { follows, from, to })
    }

    /// Calls a tile that copies its part of the next window, or one that does not where none follows. Of so many tiles that work on
    /// the same steps, each copies some channels.
    pub fn call_copying(
        &self,
        glue: &mut Glue<'_>,
        next: &Next,
        [plain, copying]: [FunctionId; 2],
        args: &[Value],
        slice: &Slice,
    ) {
        let &Slice { row, along, step, last, turn } = slice;
        let Some(rolls) = &self.nest.rolls else { return };
        let (problem, layout) = (&self.job.problem, &self.nest.windows.layout);
        let rows = problem.axes[1].in_stride as i64;
        glue.branch(next.follows, &mut |glue, copies| {
            if !copies {
                return glue.call(plain, args);
            }
            let mut args = args.to_vec();
            let first = glue.builder.ins().imul_imm_s(turn, rolls.channels as i64);
            let first = at_most(glue, first, (problem.cin - rolls.channels) as i64);
            let source = [4 * problem.input.plane as i64, 4 * problem.input.row as i64];
            let target = [i64::from(layout.channel_bytes), i64::from(layout.row_bytes)];
            let of_row = |glue: &mut Glue<'_>, place: Value, [channel_bytes, row_bytes]: [i64; 2]| {
                let place = glue.element(place, first, channel_bytes);
                glue.element(place, row, rows * row_bytes)
            };
            let from = of_row(glue, next.from, source);
            let to = of_row(glue, next.to, target);
            // The next turn takes other channels; behind the last one comes the first of the next window.
            let [_, unit_bytes] = rolls.unit_bytes(problem, layout);
            let back = glue.builder.ins().imul_imm_s(first, -source[0]);
            let next_window = glue.add_constant(back, rolls.rolling.new as i64 * unit_bytes);
            let next_turn = glue.constant(rolls.channels as i64 * source[0]);
            let is_last = glue.builder.ins().icmp_imm_u(IntCC::Equal, turn, rolls.turns as i64 - 1);
            let later = glue.builder.ins().select(is_last, next_window, next_turn);
            let at = glue.builder.ins().iadd(from, along);
            let ask = if rolls.ahead == rolls.channels {
                glue.builder.ins().iadd(at, later)
            } else {
                let beside = glue.add_constant(at, step);
                match last {
                    Some(last) => {
                        let next_row = glue.builder.ins().iadd(from, later);
                        glue.builder.ins().select(last, next_row, beside)
                    }
                    None => beside,
                }
            };
            args.push(at);
            args.push(glue.builder.ins().iadd(to, along));
            args.push(ask);
            glue.call(copying, &args);
        });
    }
}
