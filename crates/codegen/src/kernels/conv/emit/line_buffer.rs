//! The code of line buffers: what is zeroed and moved, and the tiles that copy.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::bounds::{at_most, when};
use crate::kernels::conv::emit::direct_loops::{Emit, WorkItem};
use crate::kernels::conv::emit::input_tile::{InputTiles, Kind};
use crate::kernels::conv::layer::{Bases, Layer};
use crate::kernels::conv::microkernel::packing::{self, PackSpec};
use crate::kernels::conv::microkernel::width::Copies;
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::input_tile::InputTileLayout;
use crate::kernels::conv::schedule::line_buffer::{Along, LineBuffer};
use crate::module::FunctionBuilder;
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

/// The code that a line buffer takes, beside that of its tiles.
pub(crate) struct LineBufferCode {
    pub line_buffer: LineBuffer,
    /// Channels that a tile copies its part of.
    pub channels: usize,
    /// Channels between those that are copied and those asked for.
    ahead: usize,
    /// Tiles that share these.
    turns: usize,
    /// Moves what input tiles share.
    shift: Option<FunctionId>,
    /// Zeroes the positions beside the input in all rows.
    sides: Option<FunctionId>,
}

impl LineBufferCode {
    /// For input tiles on whose steps so many tiles work each.
    pub fn new(
        builder: &mut Builder<'_>,
        layer: &Layer<'_>,
        input_tiles: &InputTiles,
        line_buffer: LineBuffer,
        (tiles, products): (usize, usize),
    ) -> Result<Self, CompileError> {
        let (layout, cin) = (input_tiles.layout, layer.problem.cin);
        let [shift_name, sides_name] =
            ["shift", "sides"].map(|what| builder.unique(&format!("{}_{what}", layer.name)));
        let kind = input_tiles.kinds.first();
        let positions = kind.map_or(0, |kind| layer.problem.axes[2].reach(kind.steps));
        let (shared, sides) = match line_buffer.along {
            Along::Columns => (line_buffer.shared(), None),
            Along::Rows => (positions, kind.filter(|kind| kind.elements < positions)),
        };
        let shift = match line_buffer.shared() {
            0 => None,
            _ => {
                let spec = PackSpec {
                    input_tile: layout,
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
        Ok(Self { line_buffer, channels, ahead, turns: tiles, shift, sides })
    }

    /// What a tile of so many rows copies, of the input tile after one of this kind, at its step `first` and of `width` steps.
    pub fn copies(
        &self,
        problem: &Problem,
        layout: &InputTileLayout,
        kind: &Kind,
        (height, first, width): (usize, usize, usize),
    ) -> Option<Copies> {
        let [_, y, _] = &problem.axes;
        let (rows, elements) = match self.line_buffer.along {
            Along::Rows => (height * y.in_stride, kind.elements),
            Along::Columns if kind.last => return None,
            Along::Columns => (1, self.line_buffer.new),
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
    fn unit_bytes(&self, problem: &Problem, layout: &InputTileLayout) -> [i64; 2] {
        match self.line_buffer.along {
            Along::Rows => [i64::from(layout.row_bytes), 4 * problem.input.row as i64],
            Along::Columns => [4, 4],
        }
    }
}

/// The input tile in scratch memory that is good, from work item to work item.
#[derive(Clone, Copy)]
pub(crate) struct Buffered {
    /// Number of the work item that has it.
    pub item: Variable,
    /// Bytes to it.
    pub offset: Variable,
}

impl Buffered {
    /// None yet.
    pub fn new(f: &mut FunctionBuilder<'_>) -> Self {
        let buffered = Self { item: f.builder.declare_var(I64), offset: f.builder.declare_var(I64) };
        let (none, start) = (f.constant(-1), f.constant(0));
        f.builder.def_var(buffered.item, none);
        f.builder.def_var(buffered.offset, start);
        buffered
    }
}

/// The input tile after the one at hand.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// Whether tiles are to copy it.
    pub broadcast: Value,
    /// First row and element that it adds: in the tensor, and in scratch memory.
    pub from: Value,
    pub to: Value,
}

/// A tile of the input tile at hand, by what it copies of the next one.
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    /// Row of the work item.
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
    pub fn begin_rolling(&self, f: &mut FunctionBuilder<'_>, bases: &Bases) {
        if let Some(line_buffer_code) = &self.plan.line_buffer_code
            && let Some(sides) = line_buffer_code.sides
        {
            let rows = f.constant(line_buffer_code.line_buffer.room as i64);
            f.call(sides, &[bases.scratch, rows]);
        }
    }

    /// The input tile after that of work item `index`, with room for it; nothing where input tiles do not roll. From here on it is the one buffered.
    pub fn next(
        &self,
        f: &mut FunctionBuilder<'_>,
        bases: &Bases,
        item: &WorkItem,
        (index, end): (Value, Value),
        kind: usize,
        buffered: Buffered,
    ) -> Option<Next> {
        let line_buffer_code = self.plan.line_buffer_code.as_ref()?;
        let (line_buffer, kind) = (line_buffer_code.line_buffer, &self.plan.input_tiles.kinds[kind]);
        let (problem, layout) = (&self.layer.problem, &self.plan.input_tiles.layout);
        let [z, y, x] = &problem.axes;
        let (axis, step, steps) = match line_buffer.along {
            Along::Rows => (y, item.y, self.plan.schedule.rows),
            Along::Columns => (x, item.x, self.plan.schedule.columns),
        };
        let [bytes, source_bytes] = line_buffer_code.unit_bytes(problem, layout);
        // It is that of the next work item, along the axis, and all that it adds lies inside the tensor.
        let first = f.builder.ins().imul_imm_s(step, axis.in_stride as i64);
        let first = f.add_constant(first, axis.shifts().0 + line_buffer.whole as i64);
        let next_step = f.add_constant(step, steps as i64);
        let next_index = f.add_constant(index, 1);
        let last = axis.input as i64 - line_buffer.new as i64;
        let mut broadcast = f.builder.ins().icmp(IntCC::UnsignedLessThan, next_index, end);
        for (value, condition, bound) in [
            (next_step, IntCC::SignedLessThan, axis.output_positions() as i64),
            (first, IntCC::SignedGreaterThanOrEqual, 0),
            (first, IntCC::SignedLessThanOrEqual, last),
        ] {
            let holds = f.builder.ins().icmp_imm_s(condition, value, bound);
            broadcast = f.builder.ins().band(broadcast, holds);
        }

        let offset = f.builder.use_var(buffered.offset);
        let start = f.constant(0);
        let next = f.add_constant(offset, line_buffer.new as i64 * bytes);
        let most = (line_buffer.room - line_buffer.whole) as i64 * bytes;
        let beyond = f.builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, next, most);
        if let Some(shift) = line_buffer_code.shift {
            let full = f.builder.ins().band(broadcast, beyond);
            when(f, full, |f| {
                let shared = f.builder.ins().iadd(bases.scratch, next);
                let rows = if line_buffer.along == Along::Rows { line_buffer.shared() } else { 1 };
                let rows = f.constant(rows as i64);
                f.call(shift, &[shared, bases.scratch, rows]);
            });
        }
        let next = f.builder.ins().select(beyond, start, next);
        let buffered_index = f.builder.ins().select(broadcast, next_index, index);
        f.builder.def_var(buffered.item, buffered_index);
        f.builder.def_var(buffered.offset, next);

        let mut from = self.input(f, bases, item);
        from = f.element(from, first, source_bytes);
        let plane = 4 * (y.input * problem.input.row) as i64;
        from = f.element(from, item.z, plane);
        let mut to = f.builder.ins().iadd(bases.scratch, next);
        to = f.add_constant(to, line_buffer.shared() as i64 * bytes);
        let (source, target) = match line_buffer.along {
            Along::Rows => (kind.copy_from, 4 * kind.first as i64),
            Along::Columns => (y.shifts().0 * 4 * problem.input.row as i64, 0),
        };
        from = f.add_constant(from, z.shifts().0 * plane + source);
        to = f.add_constant(to, target);
        Some(Next { broadcast, from, to })
    }

    /// Calls a tile that copies its part of the next input tile, or one that does not where none broadcast. Of so many tiles that work on
    /// the same steps, each copies some channels.
    pub fn call_copying(
        &self,
        f: &mut FunctionBuilder<'_>,
        next: &Next,
        [plain, copying]: [FunctionId; 2],
        args: &[Value],
        slice: &Slice,
    ) {
        let &Slice { row, along, step, last, turn } = slice;
        let Some(line_buffer_code) = &self.plan.line_buffer_code else { return };
        let (problem, layout) = (&self.layer.problem, &self.plan.input_tiles.layout);
        let rows = problem.axes[1].in_stride as i64;
        f.branch(next.broadcast, &mut |f, copies| {
            if !copies {
                return f.call(plain, args);
            }
            let mut args = args.to_vec();
            let first = f.builder.ins().imul_imm_s(turn, line_buffer_code.channels as i64);
            let first = at_most(f, first, (problem.cin - line_buffer_code.channels) as i64);
            let source = [4 * problem.input.plane as i64, 4 * problem.input.row as i64];
            let target = [i64::from(layout.channel_bytes), i64::from(layout.row_bytes)];
            let of_row = |f: &mut FunctionBuilder<'_>, place: Value, [channel_bytes, row_bytes]: [i64; 2]| {
                let place = f.element(place, first, channel_bytes);
                f.element(place, row, rows * row_bytes)
            };
            let from = of_row(f, next.from, source);
            let to = of_row(f, next.to, target);
            // The next turn takes other channels; behind the last one comes the first of the next input tile.
            let [_, unit_bytes] = line_buffer_code.unit_bytes(problem, layout);
            let back = f.builder.ins().imul_imm_s(first, -source[0]);
            let next_window = f.add_constant(back, line_buffer_code.line_buffer.new as i64 * unit_bytes);
            let next_turn = f.constant(line_buffer_code.channels as i64 * source[0]);
            let is_last = f.builder.ins().icmp_imm_u(IntCC::Equal, turn, line_buffer_code.turns as i64 - 1);
            let later = f.builder.ins().select(is_last, next_window, next_turn);
            let at = f.builder.ins().iadd(from, along);
            let ask = if line_buffer_code.ahead == line_buffer_code.channels {
                f.builder.ins().iadd(at, later)
            } else {
                let beside = f.add_constant(at, step);
                match last {
                    Some(last) => {
                        let next_row = f.builder.ins().iadd(from, later);
                        f.builder.ins().select(last, next_row, beside)
                    }
                    None => beside,
                }
            };
            args.push(at);
            args.push(f.builder.ins().iadd(to, along));
            args.push(ask);
            f.call(copying, &args);
        });
    }
}
