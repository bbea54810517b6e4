//! The loops of a Winograd convolution: a work item is a block of tiles of an image and a part of the output channels.

use super::winograd::{Group, KernelPlan};
use crate::kernels::conv::emit::bounds::{
    at_least, at_most, ceil_div, ceil_div_signed, each_channel_tile, repeat, rest_of, smaller,
};
use crate::kernels::conv::layer::Bases;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

impl KernelPlan<'_> {
    /// Writes the body of the step function.
    pub(super) fn step(&self, f: &mut FunctionBuilder<'_>) {
        let (begin, end) = (f.params[1], f.params[2]);
        let bases = Bases::load(f, &self.layer.post_op_operands);
        let [z_blocks, y_blocks, x_blocks] = self.blocks();
        let problem = &self.layer.problem;
        // All parts of a block that are asked for are done at once: its inputs are transformed for all of them.
        let parts = self.schedule.channel_parts as i64;
        let (first, _) = f.split(begin, parts as u64);
        let last = ceil_div(f, end, parts);
        f.for_each(first, last, |f, index| {
            let before = f.builder.ins().imul_imm_s(index, parts);
            let bound = |f: &mut FunctionBuilder<'_>, bound| {
                let part = f.builder.ins().isub(bound, before);
                at_most(f, part, parts)
            };
            let from = bound(f, begin);
            let parts = [at_least(f, from, 0), bound(f, end)];
            let (rest, block) = f.split(index, x_blocks);
            let (rest, y) = f.split(rest, y_blocks);
            let (image, z) = f.split(rest, z_blocks);
            let (_, group) = f.split(image, problem.groups as u64);
            let z = f.builder.ins().imul_imm_s(z, self.schedule.planes as i64);
            let y = f.builder.ins().imul_imm_s(y, self.schedule.rows as i64);
            let x = f.builder.ins().imul_imm_s(block, self.schedule.columns as i64);
            let item = WorkItem { image, group, z, y, x, parts };
            self.input_tiles.by_kind(f, block, &mut |f, kind| {
                let plane = 4 * problem.input.group as i64;
                let source = f.element(bases.input, image, plane);
                if !self.is_deep() {
                    self.input_tiles.pack(f, &self.tiles, source, bases.scratch, [z, y, x], kind);
                }
                for group in &self.groups {
                    self.group(f, &bases, &item, source, kind, group);
                }
            });
        });
    }

    /// Whether a block takes the input tiles of several planes, one after the other, instead of one for all phases.
    fn is_deep(&self) -> bool {
        self.schedule.planes > 1 || self.depth() > 1 || self.layer.problem.axes[0].phases.len() > 1
    }

    fn group(
        &self,
        f: &mut FunctionBuilder<'_>,
        bases: &Bases,
        item: &WorkItem,
        source: Value,
        kind: usize,
        group: &Group,
    ) {
        let (problem, schedule, layout) = (&self.layer.problem, self.schedule, &self.layout);
        let [m_y, m_x] = schedule.m;
        let [z, y, x] = &problem.axes;
        let pitch = self.pitch(self.input_tiles.kinds[kind].steps) as i64;
        // Rows of tiles of this phase in the block.
        let all = group.rows.div_ceil(m_y) as i64;
        let most = f.constant(schedule.rows as i64);
        let left = rest_of(f, all, item.y);
        let left = at_least(f, left, 0);
        let rows = smaller(f, most, left);

        let factors = f.add_constant(bases.scratch, layout.factors);
        let products = f.add_constant(bases.scratch, layout.products);
        let temporary = f.add_constant(bases.scratch, layout.temporary);
        let row_of_tiles = m_y as i64 * i64::from(self.input_tiles.layout.row_bytes);
        // Planes of this phase in the block.
        let most = f.constant(schedule.planes as i64);
        let left = rest_of(f, group.planes as i64, item.z);
        let left = at_least(f, left, 0);
        let planes = smaller(f, most, left);
        let transform = |f: &mut FunctionBuilder<'_>, factors: Value| {
            repeat(f, rows, |f, row| {
                let source = f.element(bases.scratch, row, row_of_tiles);
                let target = f.element(factors, row, 4 * pitch);
                for &(code, first) in &group.inputs[kind] {
                    let target = f.add_constant(target, first);
                    f.call(code, &[source, target, temporary]);
                }
            });
        };
        if self.is_deep() {
            let inputs = f.add_constant(planes, self.depth() as i64 - 1);
            repeat(f, inputs, |f, plane| {
                let at = f.builder.ins().iadd(item.z, plane);
                let at = f.add_constant(at, group.skipped);
                self.input_tiles.pack(f, &self.tiles, source, bases.scratch, [at, item.y, item.x], kind);
                let factors = f.element(factors, plane, 4 * layout.plane as i64);
                transform(f, factors);
            });
        } else {
            transform(f, factors);
        }

        let run = schedule.vectors * self.lanes;
        let tiles = f.builder.ins().imul_imm_s(rows, pitch);
        // Nothing is asked of the tiles behind the last row.
        let tiles = f.add_constant(tiles, 1 - schedule.pieces as i64);
        let before = f.add_constant(planes, -1);
        let tiles = f.element(tiles, before, layout.plane as i64);
        let runs = ceil_div_signed(f, tiles, run as i64);

        // Place of the block's first output of the phase.
        let plane = 4 * problem.output.plane as i64;
        let row_bytes = 4 * problem.output.row as i64;
        let channel = f.builder.ins().imul_imm_s(item.image, problem.cout as i64);
        let place = f.builder.ins().imul_imm_s(channel, plane);
        let plane_bytes = y.output as i64 * row_bytes;
        let place = f.element(place, item.z, z.out_stride as i64 * plane_bytes);
        let place = f.element(place, item.y, (m_y * y.out_stride) as i64 * row_bytes);
        let place = f.element(place, item.x, (4 * m_x * x.out_stride * problem.output.column) as i64);
        let first = group.first_plane as i64 * plane_bytes + group.first as i64 * row_bytes;
        let place = f.add_constant(place, first);

        let pieces = self.pieces().count();
        let per_channel = 4 * (group.terms * problem.cin * pieces) as i64;
        let weights = f.add_constant(bases.weights, 4 * group.weights as i64);
        let weights = f.element(weights, item.group, per_channel * problem.cout as i64);
        let zeros = f.add_constant(bases.weights, 4 * self.zeros as i64);
        let group_channel = f.builder.ins().imul_imm_s(item.group, problem.cout as i64);
        let [begin, end] = item.parts;
        let parts = (begin, end, schedule.channel_parts);
        each_channel_tile(f, problem.cout, schedule.channels, parts, &mut |f, tile| {
            let product = self.products[tile.size];
            let weights = f.element(weights, tile.first, per_channel);
            f.for_count(group.terms as u64, |f, term| {
                let of_term = 4 * (problem.cin * pieces * tile.count) as i64;
                let weights = f.element(weights, term, of_term);
                let factors = f.element(factors, term, i64::from(layout.factor_term));
                let products = f.element(products, term, i64::from(layout.product_term));
                repeat(f, runs, |f, i| {
                    let factors = f.element(factors, i, 4 * run as i64);
                    let products = f.element(products, i, 4 * run as i64);
                    f.call(product, &[factors, weights, zeros, products]);
                });
            });
            let place = f.element(place, tile.first, plane);
            let in_all = f.builder.ins().iadd(group_channel, tile.first);
            let bias = f.element(bases.bias, in_all, 4);
            let number = f.constant(tile.count as i64);
            let post_ops = |f: &mut FunctionBuilder<'_>, products: Value, place: Value| {
                repeat(f, rows, |f, row| {
                    let place = f.element(place, row, (m_y * y.out_stride) as i64 * row_bytes);
                    let source = f.element(products, row, 4 * pitch);
                    let target = f.builder.ins().iadd(bases.output, place);
                    let mut args = vec![source, bias, target, temporary];
                    args.extend(bases.post_ops_at(f, in_all, place));
                    args.push(number);
                    let code = &group.outputs[kind];
                    let Some(rest) = code.rest else {
                        f.call(code.whole, &args);
                        return;
                    };
                    let row = f.builder.ins().iadd(item.y, row);
                    let last = f.builder.ins().icmp_imm_u(IntCC::Equal, row, all - 1);
                    f.branch(last, &mut |f, last| {
                        f.call(if last { rest } else { code.whole }, &args);
                    });
                });
            };
            if self.is_deep() {
                repeat(f, planes, |f, plane| {
                    let products = f.element(products, plane, 4 * layout.plane as i64);
                    let place = f.element(place, plane, z.out_stride as i64 * plane_bytes);
                    post_ops(f, products, place);
                });
            } else {
                post_ops(f, products, place);
            }
        });
    }
}

/// A work item: its place in each dimension.
struct WorkItem {
    /// Image and group as one number, and the group.
    image: Value,
    group: Value,
    /// First output of a phase along z, and first tile along y and x.
    z: Value,
    y: Value,
    x: Value,
    /// From one part of the channels up to another.
    parts: [Value; 2],
}
