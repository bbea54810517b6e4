//! The input tile of input rows that tiles read: its place in memory, the copies that fill it, and their calls.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::bounds::{at_least, at_most, ceil_div, ceil_div_signed, rest_of};
use crate::kernels::conv::microkernel::packing::{self, PackSpec};
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::input_tile::InputTileLayout;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;
use tconvc_ir::geometry::Phase;
use tconvc_runtime::code::FunctionId;

/// What an input tile is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputTileShape {
    /// Steps along z, y and x that share it.
    pub planes: usize,
    pub rows: usize,
    pub columns: usize,
    /// Elements that may be read behind the last position of a row.
    pub spare: usize,
    /// Whether rows are copied, or read where they lie.
    pub packed: bool,
    /// Rows and positions that there is room for, where that is more than one input tile.
    pub room: [usize; 2],
}

/// An x-block, or several neighbouring ones that run the same code.
pub(crate) struct Kind {
    /// One past the last block of this kind.
    pub end: usize,
    /// Steps of a block.
    pub steps: usize,
    /// Whether the row ends with it.
    pub last: bool,
    /// Steps before the last block of this kind.
    pub before: usize,
    /// Position of the first element of a row that is copied, and elements.
    pub first: usize,
    pub elements: usize,
    pack: Option<FunctionId>,
    /// Bytes from the block's first step to the first element copied.
    pub copy_from: i64,
}

impl Kind {
    /// Steps of a block that a phase has.
    pub fn steps_of(&self, phase: &Phase) -> usize {
        if self.last { self.steps.min(phase.count.saturating_sub(self.before)) } else { self.steps }
    }
}

/// Kinds of x-blocks: each has code of its own. Taps that lie far apart, and far outside, make more of them.
const MOST_KINDS: usize = 1024;

/// InputTiles of a convolution.
pub(crate) struct InputTiles {
    pub layout: InputTileLayout,
    /// Rows of a plane, and planes.
    pub rows: usize,
    pub planes: usize,
    pub kinds: Vec<Kind>,
    zero: Option<FunctionId>,
}

impl InputTiles {
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        problem: &Problem,
        shape: &InputTileShape,
    ) -> Result<Self, CompileError> {
        let [z, y, x] = &problem.axes;
        let (shift_z, shift_y, shift_x) = (z.shifts(), y.shifts(), x.shifts());
        let planes = (shape.planes - 1) * z.in_stride + (shift_z.1 - shift_z.0) as usize + 1;
        let rows = (shape.rows - 1) * y.in_stride + (shift_y.1 - shift_y.0) as usize + 1;
        let positions = (shape.columns - 1) * x.in_stride + (shift_x.1 - shift_x.0) as usize + 1;
        let bytes = |elements: usize| i32::try_from(4 * elements);
        let too_large = |_| builder.unsupported("its rows are too long for 32-bit displacements".into());
        let layout = if shape.packed {
            let mut plane = positions.max(shape.room[1]).div_ceil(x.in_stride) + shape.spare;
            if shape.spare > 0 {
                plane = plane.next_multiple_of(16);
            }
            let row = plane * x.in_stride;
            let mut channel = row * rows.max(shape.room[0]) * planes;
            if channel.is_multiple_of(1024) {
                channel += 16;
            }
            InputTileLayout {
                plane_bytes: bytes(plane).map_err(too_large)?,
                row_bytes: bytes(row).map_err(too_large)?,
                channel_bytes: bytes(channel).map_err(too_large)?,
                in_stride: x.in_stride,
            }
        } else {
            InputTileLayout {
                plane_bytes: 0,
                row_bytes: bytes(problem.input.row).map_err(too_large)?,
                channel_bytes: bytes(problem.input.plane).map_err(too_large)?,
                in_stride: 1,
            }
        };
        let mut input_tiles = Self { layout, rows, planes, kinds: vec![], zero: None };
        input_tiles.add_kinds(builder, name, problem, shape, positions)?;
        Ok(input_tiles)
    }

    /// Bytes of an input tile of so many channels.
    pub fn bytes(&self, channels: usize) -> usize {
        self.layout.channel_bytes as usize * channels
    }

    /// Finds the kinds of x-blocks, and makes their copies.
    fn add_kinds(
        &mut self,
        builder: &mut Builder<'_>,
        name: &str,
        problem: &Problem,
        shape: &InputTileShape,
        positions: usize,
    ) -> Result<(), CompileError> {
        let x = &problem.axes[2];
        let steps = x.output_positions();
        let count = steps.div_ceil(shape.columns);
        // First position copied, elements copied, first element, steps, whether it is the last: by kind.
        let mut kinds: Vec<(usize, usize, usize, usize, bool)> = vec![];
        let mut ends: Vec<usize> = vec![];
        for block in 0..count {
            let start = block * shape.columns;
            let low = (start * x.in_stride) as i64 + x.shifts().0;
            let high = low + positions as i64;
            // Elements i with low <= i * insert < high.
            let insert = x.input_dilation as i64;
            let from = (low.max(0) + insert - 1) / insert;
            let to = if high <= 0 { 0 } else { ((high - 1) / insert + 1).min(x.input as i64) };
            let elements = (to - from).max(0) as usize;
            let first = if elements == 0 { 0 } else { (from * insert - low) as usize };
            let kind = (
                first,
                elements,
                from.max(0) as usize,
                steps.min(start + shape.columns) - start,
                block + 1 == count,
            );
            // Where copying starts moves with the block, so only its distance to the block's start must agree.
            let relative = |kind: &(usize, usize, usize, usize, bool), block: usize| {
                kind.2 as i64 - (block * shape.columns * x.in_stride) as i64
            };
            let same = kinds.last().is_some_and(|last| {
                (last.0, last.1, last.3, last.4) == (kind.0, kind.1, kind.3, kind.4)
                    && x.input_dilation == 1
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
                builder.within("kinds of input tiles along the width", kinds.len(), MOST_KINDS)?;
            }
        }
        if shape.packed {
            let zero = builder.unique(&format!("{name}_zero"));
            let row = 0..self.layout.row_bytes as usize / 4;
            self.zero = Some(packing::zero_rows(builder, &zero, &self.layout, problem.cin, &[row])?);
        }
        for (kind, &end) in kinds.iter().zip(&ends) {
            let &(first, elements, from, steps, last) = kind;
            let spec = PackSpec {
                input_tile: self.layout,
                cin: problem.cin,
                source_channel: 4 * problem.input.plane as i32,
                source_row: 4 * problem.input.row as i32,
                source_step: problem.input.column,
                row_step: problem.axes[1].input_dilation,
                positions,
                first,
                elements,
                step: x.input_dilation,
            };
            let copy = builder.unique(&format!("{name}_pack"));
            let pack = if shape.packed { Some(packing::copy_rows(builder, &copy, &spec)?) } else { None };
            let before = (end - 1) * shape.columns;
            let copy_from = 4 * problem.input.column as i64 * (from as i64 - (before * x.in_stride) as i64);
            self.kinds.push(Kind { end, steps, last, before, first, elements, pack, copy_from });
        }
        Ok(())
    }

    /// Runs `body` with the kind of the x-block.
    pub fn by_kind(
        &self,
        f: &mut FunctionBuilder<'_>,
        block: Value,
        body: &mut dyn FnMut(&mut FunctionBuilder<'_>, usize),
    ) {
        self.by_kind_of(f, block, 0..self.kinds.len(), body);
    }

    /// As [`InputTiles::by_kind`], where it is one of these kinds: half of them at a time are left out.
    fn by_kind_of(
        &self,
        f: &mut FunctionBuilder<'_>,
        block: Value,
        kinds: Range<usize>,
        body: &mut dyn FnMut(&mut FunctionBuilder<'_>, usize),
    ) {
        if kinds.len() < 2 {
            return kinds.for_each(|kind| body(f, kind));
        }
        let middle = kinds.start + kinds.len() / 2;
        let end = self.kinds[middle - 1].end as i64;
        let before = f.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, block, end);
        f.branch(before, &mut |f, before| {
            let half = if before { kinds.start..middle } else { middle..kinds.end };
            self.by_kind_of(f, block, half, body);
        });
    }

    /// Copies the input tile of an x-block into `target`, all channels; `source` is the first channel of the image and
    /// group in the tensor, `steps` the first step along z, y and x.
    pub fn pack(
        &self,
        f: &mut FunctionBuilder<'_>,
        problem: &Problem,
        source: Value,
        target: Value,
        steps: [Value; 3],
        kind: usize,
    ) {
        let (Some(copy), Some(zero)) = (self.kinds[kind].pack, self.zero) else { return };
        let [z, y, x] = &problem.axes;
        let [z_step, y_step, x_step] = steps;
        let input_tile = &self.layout;
        let scratch = target;
        let along_x = f.builder.ins().imul_imm_s(x_step, (4 * x.in_stride * problem.input.column) as i64);
        let source = f.builder.ins().iadd(source, along_x);
        let source = f.add_constant(source, self.kinds[kind].copy_from);
        // Rows low .. low + total of the zero-inserted input; the tensor has those from 0 on that `insert` divides.
        let total = self.rows as i64;
        let low = f.builder.ins().imul_imm_s(y_step, y.in_stride as i64);
        let low = f.add_constant(low, y.shifts().0);
        let from = at_least(f, low, 0);
        let from = ceil_div(f, from, y.input_dilation as i64);
        let high = f.add_constant(low, total);
        let high = ceil_div_signed(f, high, y.input_dilation as i64);
        let to = at_most(f, high, y.input as i64);
        let count = f.builder.ins().isub(to, from);
        let count = at_least(f, count, 0);
        let above = f.builder.ins().imul_imm_s(from, y.input_dilation as i64);
        let above = f.builder.ins().isub(above, low);
        let above = at_most(f, above, total);
        let plane_bytes = i64::from(input_tile.row_bytes) * total;
        for plane in 0..self.planes {
            let target = f.add_constant(scratch, plane as i64 * plane_bytes);
            let zeros = |f: &mut FunctionBuilder<'_>| {
                let all = f.constant(total);
                f.call(zero, &[target, all]);
            };
            let position = f.builder.ins().imul_imm_s(z_step, z.in_stride as i64);
            let position = f.add_constant(position, z.shifts().0 + plane as i64);
            let copies = |f: &mut FunctionBuilder<'_>, index: Value| {
                if y.input_dilation > 1 {
                    zeros(f);
                }
                let from_z = f.element(source, index, 4 * (y.input * problem.input.row) as i64);
                let from_row = f.element(from_z, from, 4 * problem.input.row as i64);
                let to_row = f.element(target, above, i64::from(input_tile.row_bytes));
                f.call(copy, &[from_row, to_row, count]);
                if y.input_dilation == 1 {
                    f.call(zero, &[target, above]);
                    let done = f.builder.ins().iadd(above, count);
                    let below = rest_of(f, total, done);
                    let at = f.element(target, done, i64::from(input_tile.row_bytes));
                    f.call(zero, &[at, below]);
                }
            };
            if z.is_inside() && z.in_stride == 1 && z.input_dilation == 1 {
                copies(f, position);
                continue;
            }
            // Negative positions are large unsigned ones.
            let inside = f.builder.ins().icmp_imm_u(
                IntCC::UnsignedLessThan,
                position,
                ((z.input - 1) * z.input_dilation + 1) as i64,
            );
            let (index, inside) = if z.input_dilation == 1 {
                (position, inside)
            } else {
                let index = f.builder.ins().udiv_imm_u(position, z.input_dilation as i64);
                let back = f.builder.ins().imul_imm_s(index, z.input_dilation as i64);
                let whole = f.builder.ins().icmp(IntCC::Equal, back, position);
                (index, f.builder.ins().band(whole, inside))
            };
            f.branch(inside, &mut |f, inside| if inside { copies(f, index) } else { zeros(f) });
        }
    }
}
