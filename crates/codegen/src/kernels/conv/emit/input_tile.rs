//! The window of input rows that tiles read: its place in memory, the copies that fill it, and their calls.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::emit::bounds::{at_least, at_most, ceil_div, ceil_div_signed, rest_of};
use crate::kernels::conv::microkernel::packing::{self, PackSpec};
use crate::kernels::conv::problem::Problem;
use crate::kernels::conv::schedule::input_tile::Window;
use crate::module::Glue;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_ir::geometry::Phase;
use tconvc_runtime::code::FunctionId;

/// What a window is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowShape {
    /// Steps along z, y and x that share it.
    pub planes: usize,
    pub rows: usize,
    pub columns: usize,
    /// Elements that may be read behind the last position of a row.
    pub spare: usize,
    /// Whether rows are copied, or read where they lie.
    pub packed: bool,
    /// Rows and positions that there is room for, where that is more than one window.
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

/// Windows of a convolution.
pub(crate) struct Windows {
    pub layout: Window,
    /// Rows of a plane, and planes.
    pub rows: usize,
    pub planes: usize,
    pub kinds: Vec<Kind>,
    zero: Option<FunctionId>,
}

impl Windows {
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        problem: &Problem,
        shape: &WindowShape,
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
            Window {
                plane_bytes: bytes(plane).map_err(too_large)?,
                row_bytes: bytes(row).map_err(too_large)?,
                channel_bytes: bytes(channel).map_err(too_large)?,
                in_stride: x.in_stride,
            }
        } else {
            Window {
                plane_bytes: 0,
                row_bytes: bytes(problem.input.row).map_err(too_large)?,
                channel_bytes: bytes(problem.input.plane).map_err(too_large)?,
                in_stride: 1,
            }
        };
        let mut windows = Self { layout, rows, planes, kinds: vec![], zero: None };
        windows.add_kinds(builder, name, problem, shape, positions)?;
        Ok(windows)
    }

    /// Bytes of a window of so many channels.
    pub fn bytes(&self, channels: usize) -> usize {
        self.layout.channel_bytes as usize * channels
    }

    /// Finds the kinds of x-blocks, and makes their copies.
    fn add_kinds(
        &mut self,
        builder: &mut Builder<'_>,
        name: &str,
        problem: &Problem,
        shape: &WindowShape,
        positions: usize,
    ) -> Result<(), CompileError> {
        let x = &problem.axes[2];
        let steps = x.steps();
        let count = steps.div_ceil(shape.columns);
        // First position copied, elements copied, first element, steps, whether it is the last: by kind.
        let mut kinds: Vec<(usize, usize, usize, usize, bool)> = vec![];
        let mut ends: Vec<usize> = vec![];
        for block in 0..count {
            let start = block * shape.columns;
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
                steps.min(start + shape.columns) - start,
                block + 1 == count,
            );
            // Where copying starts moves with the block, so only its distance to the block's start must agree.
            let relative = |kind: &(usize, usize, usize, usize, bool), block: usize| {
                kind.2 as i64 - (block * shape.columns * x.in_stride) as i64
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
        if shape.packed {
            let zero = builder.unique(&format!("{name}_zero"));
            let row = 0..self.layout.row_bytes as usize / 4;
            self.zero = Some(packing::zero_rows(builder, &zero, &self.layout, problem.cin, &[row])?);
        }
        for (kind, &end) in kinds.iter().zip(&ends) {
            let &(first, elements, from, steps, last) = kind;
            let spec = PackSpec {
                window: self.layout,
                cin: problem.cin,
                source_channel: 4 * problem.input.plane as i32,
                source_row: 4 * problem.input.row as i32,
                source_step: problem.input.column,
                row_step: problem.axes[1].insert,
                positions,
                first,
                elements,
                step: x.insert,
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
    pub fn by_kind(&self, glue: &mut Glue<'_>, block: Value, body: &mut dyn FnMut(&mut Glue<'_>, usize)) {
        self.by_kind_from(glue, block, 0, body);
    }

    fn by_kind_from(
        &self,
        glue: &mut Glue<'_>,
        block: Value,
        kind: usize,
        body: &mut dyn FnMut(&mut Glue<'_>, usize),
    ) {
        if kind + 1 == self.kinds.len() {
            body(glue, kind);
            return;
        }
        let end = self.kinds[kind].end as i64;
        let inside = glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, block, end);
        glue.branch(inside, &mut |glue, inside| {
            if inside { body(glue, kind) } else { self.by_kind_from(glue, block, kind + 1, body) }
        });
    }

    /// Copies the window of an x-block into `target`, all channels; `source` is the first channel of the image and
    /// group in the tensor, `steps` the first step along z, y and x.
    pub fn pack(
        &self,
        glue: &mut Glue<'_>,
        problem: &Problem,
        source: Value,
        target: Value,
        steps: [Value; 3],
        kind: usize,
    ) {
        let (Some(copy), Some(zero)) = (self.kinds[kind].pack, self.zero) else { return };
        let [z, y, x] = &problem.axes;
        let [z_step, y_step, x_step] = steps;
        let window = &self.layout;
        let scratch = target;
        let along_x = glue.builder.ins().imul_imm_s(x_step, (4 * x.in_stride * problem.input.column) as i64);
        let source = glue.builder.ins().iadd(source, along_x);
        let source = glue.add_constant(source, self.kinds[kind].copy_from);
        // Rows low .. low + total of the zero-inserted input; the tensor has those from 0 on that `insert` divides.
        let total = self.rows as i64;
        let low = glue.builder.ins().imul_imm_s(y_step, y.in_stride as i64);
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
        for plane in 0..self.planes {
            let target = glue.add_constant(scratch, plane as i64 * plane_bytes);
            let zeros = |glue: &mut Glue<'_>| {
                let all = glue.constant(total);
                glue.call(zero, &[target, all]);
            };
            let position = glue.builder.ins().imul_imm_s(z_step, z.in_stride as i64);
            let position = glue.add_constant(position, z.shifts().0 + plane as i64);
            let copies = |glue: &mut Glue<'_>, index: Value| {
                if y.insert > 1 {
                    zeros(glue);
                }
                let from_z = glue.element(source, index, 4 * (y.input * problem.input.row) as i64);
                let from_row = glue.element(from_z, from, 4 * problem.input.row as i64);
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
}
