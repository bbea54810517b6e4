//! The scatter form: each input value times all weights of its channel is a patch, and patches are added up.
//!
//! A work item owns a few output channels of a band of the output. Their full, uncropped output lies in scratch memory;
//! tiles of pixels by columns (output channel and tap) add their patches to it at once, so columns are never stored. At the
//! end the crop is copied out, with bias and epilogue. Inputs whose patches reach into two bands are computed for both.
//!
//! - [`super::super::schedule::scatter`] has the sizes that everything follows from.
//! - [`super::super::microkernel::scatter`] writes the micro-kernel, and the copy of a row of the output.
//! - [`super::super::weights::scatter`] puts the weights in the order of tiles.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::layer::{self, Bases, operands};
use crate::kernels::conv::microkernel::scatter::{Row, copy_row, patch_tile, zero_tile};
use crate::kernels::conv::schedule::scatter::{Axis, Band, Shape};
use crate::kernels::conv::schedule::scatter_tiles::Pixels;
use crate::kernels::conv::weights::scatter::Columns;
use crate::module::FunctionBuilder;
use crate::packing::Pack;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::Kernel;

/// A transposed convolution in scatter form.
pub(crate) type Layer<'a> = layer::Layer<'a, DeconvGeometry>;

/// The code for blocks of one size: tiles of pixels by columns, and the last copy.
struct BlockCode {
    channels: usize,
    /// For each group of vectors: floats of weights before its own, and code for full and last tiles.
    tiles: Vec<(usize, Vec<FunctionId>)>,
}

/// Code for a row that lies in the full output along the other axes, and for one that does not.
struct RowCode {
    inside: FunctionId,
    outside: FunctionId,
}

/// Makes the kernel of a transposed convolution in scatter form.
pub(crate) fn build<'a>(builder: &mut Builder<'a>, layer: &Layer<'a>) -> Result<(), CompileError> {
    let shape = Shape::new(&layer.problem, builder.target, builder.threads);
    builder.set_schedule(&shape);
    let lanes = builder.target.lanes();
    let rest = shape.cout % shape.block;
    let sizes: Vec<usize> = [shape.block, rest].into_iter().filter(|&size| size > 0).collect();
    let [_, rows, columns] = [0, 1, 2].map(|axis: usize| shape.axes[axis].input);
    let pixels: Vec<Pixels> =
        shape.pixels.of_tiles([rows, columns]).into_iter().map(|(pixels, _)| pixels).collect();
    let mut codes = vec![];
    for &channels in &sizes {
        let columns = shape.columns(channels);
        let mut tiles = vec![];
        for (group, part) in columns.chunks((shape.vectors * lanes).max(1)).enumerate() {
            let first = group * shape.vectors * lanes * shape.cin;
            let row = part.len().next_multiple_of(lanes);
            let mut by_pixels = vec![];
            for &pixels in &pixels {
                let name = builder.unique(&format!("{}_c{channels}v{group}p{}", layer.name, pixels.count()));
                let tile = patch_tile(builder.tile(&name), &shape, part, pixels, row);
                by_pixels.push(builder.add_tile(tile)?);
            }
            tiles.push((first, by_pixels));
        }
        codes.push(BlockCode { channels, tiles });
    }
    let zero = builder.unique(&format!("{}_zero", layer.name));
    let zero = zero_tile(builder.tile(&zero));
    let zero = builder.add_tile(zero)?;
    let mut rows: Vec<(Row, RowCode)> = vec![];
    for band in &shape.bands {
        let row = Row::new(&shape, band);
        if rows.iter().all(|(known, _)| *known != row) {
            let mut code = |part: &str, inside| {
                let name = builder.unique(&format!("{}_{part}", layer.name));
                let tile = copy_row(builder.tile(&name), &row, &layer.post_ops, inside);
                builder.add_tile(tile)
            };
            let code = RowCode { inside: code("row", true)?, outside: code("border", false)? };
            rows.push((row, code));
        }
    }

    let columns = Columns {
        weights: layer.weights,
        block: shape.block,
        lanes,
        tile: shape.vectors * lanes,
        taps: shape.columns(1).iter().map(|column| layer.weights.tap(column.tap)).collect(),
    };
    let block_bytes: Vec<usize> = columns.segments().iter().map(|(floats, _)| 4 * floats).collect();
    let full_block = block_bytes.first().copied().unwrap_or(0) as i64;
    let group_bytes = block_bytes.iter().take(shape.blocks()).sum::<usize>() as i64;

    let (packed, bias) = (builder.pack_weights(columns)?, builder.pack_bias(&layer.bias)?);
    let operands = operands([layer.input, layer.output, packed, bias], &layer.post_op_operands);
    let name = builder.unique(&layer.name);
    let emit = Emit {
        shape: &shape,
        layer,
        codes: &codes,
        pixels: &pixels,
        zero,
        rows: &rows,
        full_block,
        group_bytes,
        lanes,
    };
    let function = builder.add_step(&name, |f| emit.step(f))?;
    let items = shape.work_items() as u64;
    let nanoseconds =
        layer.problem.scatter_macs() as f64 / (lanes as f64 * builder.target.rates().threads.macs_per_lane);
    let partition = builder.even_partition(items, nanoseconds);
    let scratch_bytes = 4 * (shape.block * shape.full_plane() + lanes);
    builder.push_kernel(Kernel { name, function, operands, partition, scratch_bytes, time_steps: 1 });
    Ok(())
}

struct Emit<'a, 'b> {
    shape: &'a Shape,
    layer: &'a Layer<'b>,
    codes: &'a [BlockCode],
    /// Pixels of full and last tiles.
    pixels: &'a [Pixels],
    zero: FunctionId,
    rows: &'a [(Row, RowCode)],
    full_block: i64,
    group_bytes: i64,
    lanes: usize,
}

impl Emit<'_, '_> {
    fn step(&self, f: &mut FunctionBuilder<'_>) {
        let (begin, end) = (f.params[1], f.params[2]);
        let bases = Bases::load(f, &self.layer.post_op_operands);
        let shape = self.shape;
        f.for_each(begin, end, |f, item| {
            let (item, band) = f.split(item, shape.bands.len() as u64);
            let (image_group, block) = f.split(item, shape.blocks() as u64);
            let (_, group) = f.split(image_group, shape.groups as u64);
            let source = f.element(bases.input, image_group, 4 * (shape.cin * shape.input_plane()) as i64);
            let weights = f.element(bases.weights, group, self.group_bytes);
            let weights = f.element(weights, block, self.full_block);
            let first = f.builder.ins().imul_imm_s(block, shape.block as i64);
            let in_group = f.builder.ins().imul_imm_s(group, shape.cout as i64);
            let channel = f.builder.ins().iadd(in_group, first);
            let in_image = f.builder.ins().imul_imm_s(image_group, shape.cout as i64);
            let channel_of_image = f.builder.ins().iadd(in_image, first);
            let last = shape.blocks() as i64 - 1;
            self.each_size(f, (block, last), &mut |f, code| {
                each_band(f, band, &shape.bands, &mut |f, band| {
                    self.block(f, code, band, source, weights, bases.scratch);
                    self.copy_out(f, code, band, &bases, channel, channel_of_image);
                });
            });
        });
    }

    /// Runs `body` with the code for the block, which is a smaller one where it is the last.
    fn each_size(
        &self,
        f: &mut FunctionBuilder<'_>,
        (block, last): (Value, i64),
        body: &mut dyn FnMut(&mut FunctionBuilder<'_>, &BlockCode),
    ) {
        match self.codes {
            [only] => body(f, only),
            [full, rest, ..] => {
                let is_last = f.builder.ins().icmp_imm_u(IntCC::Equal, block, last);
                f.branch(is_last, &mut |f, last| body(f, if last { rest } else { full }));
            }
            [] => {}
        }
    }

    /// All patches of a block of channels that reach into a band.
    fn block(
        &self,
        f: &mut FunctionBuilder<'_>,
        code: &BlockCode,
        band: &Band,
        source: Value,
        weights: Value,
        scratch: Value,
    ) {
        let shape = self.shape;
        let ([z, y, x], [_, room_y, room_x]) = (&shape.axes, shape.room);
        let vectors = f.constant((code.channels * shape.full_plane()).div_ceil(self.lanes) as i64);
        f.call(self.zero, &[scratch, vectors]);
        let [in_z, in_y, in_x] = [0, 1, 2].map(|axis| shape.along(axis, band).0);
        let first = (in_z.start * y.input + in_y.start) * x.input + in_x.start;
        let source = f.add_constant(source, 4 * first as i64);
        // Columns outermost: their weights stay near while all pixels pass.
        for (first, tiles) in &code.tiles {
            let weights = f.add_constant(weights, 4 * *first as i64);
            f.for_count(in_z.len() as u64, |f, iz| {
                let source = f.element(source, iz, 4 * (y.input * x.input) as i64);
                let patch = f.element(scratch, iz, 4 * (z.stride * room_y * room_x) as i64);
                let (row, patch_row) = (4 * x.input as i64, 4 * (y.stride * room_x) as i64);
                let tiles = self.pixels.iter().zip(tiles);
                if shape.pixels.rows > 1 {
                    let mut at = 0;
                    for (&Pixels { rows, .. }, &tile) in tiles {
                        let count = (in_y.len() - at) / rows;
                        each_tile(f, tile, [source, weights, patch], (at, rows, count), [row, patch_row]);
                        at += count * rows;
                    }
                    return;
                }
                f.for_count(in_y.len() as u64, |f, iy| {
                    let (source, patch) = (f.element(source, iy, row), f.element(patch, iy, patch_row));
                    let mut at = 0;
                    for (&Pixels { columns, .. }, &tile) in tiles {
                        let count = (in_x.len() - at) / columns;
                        let step = [4, 4 * x.stride as i64];
                        each_tile(f, tile, [source, weights, patch], (at, columns, count), step);
                        at += count * columns;
                    }
                });
            });
        }
    }

    /// The cropped output of a band, row by row.
    fn copy_out(
        &self,
        f: &mut FunctionBuilder<'_>,
        code: &BlockCode,
        band: &Band,
        bases: &Bases,
        channel: Value,
        channel_of_image: Value,
    ) {
        let shape = self.shape;
        let ([z, y, x], [room_z, room_y, room_x]) = (&shape.axes, shape.room);
        let row = Row::new(shape, band);
        let Some((_, row)) = self.rows.iter().find(|(known, _)| *known == row) else { return };
        let [(out_z, origin_z), (out_y, origin_y), (out_x, _)] = [0, 1, 2].map(|axis| {
            let (_, outputs, origin) = shape.along(axis, band);
            (outputs, origin)
        });
        let first = (out_z.start * y.output + out_y.start) * x.output + out_x.start;
        // Planes and lines that are not part of a row: their number, the place of the first in scratch memory, and the end of those
        // that lie there.
        let beyond_row = |number: usize, axis: &Axis, outputs: &Range<usize>, origin: usize, room: usize| {
            let lies = room.min(axis.full - origin) as i64;
            (number < shape.row_axis())
                .then(|| (outputs.len() as u64, outputs.start as i64 + axis.pad - origin as i64, lies))
        };
        let planes = beyond_row(0, z, &out_z, origin_z, room_z);
        let lines = beyond_row(1, y, &out_y, origin_y, room_y);
        f.for_count(code.channels as u64, |f, c| {
            let full = f.element(bases.scratch, c, 4 * shape.full_plane() as i64);
            let channel = f.builder.ins().iadd(channel, c);
            let channel_of_image = f.builder.ins().iadd(channel_of_image, c);
            let bias = f.element(bases.bias, channel, 4);
            let zero = f.constant(4 * first as i64);
            let place = f.element(zero, channel_of_image, 4 * shape.output_plane() as i64);
            f.for_count(planes.map_or(1, |(count, ..)| count), |f, oz| {
                f.for_count(lines.map_or(1, |(count, ..)| count), |f, oy| {
                    let rows = f.builder.ins().imul_imm_s(oz, y.output as i64);
                    let rows = f.builder.ins().iadd(rows, oy);
                    let place = f.element(place, rows, 4 * x.output as i64);
                    let (mut from, mut inside) = (full, None);
                    for (index, along, bytes) in
                        [(oz, planes, 4 * (room_y * room_x) as i64), (oy, lines, 4 * room_x as i64)]
                    {
                        let Some((_, start, end)) = along else { continue };
                        // Negative places are large unsigned ones.
                        let at = f.add_constant(index, start);
                        let lies = f.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, at, end);
                        inside = Some(inside.map_or(lies, |other| f.builder.ins().band(lies, other)));
                        from = f.element(from, at, bytes);
                    }
                    let target = f.builder.ins().iadd(bases.output, place);
                    let mut args = vec![from, bias, target];
                    args.extend(bases.post_ops_at(f, channel, place));
                    match inside {
                        None => f.call(row.inside, &args),
                        Some(inside) => f.branch(inside, &mut |f, inside| {
                            f.call(if inside { row.inside } else { row.outside }, &args);
                        }),
                    }
                });
            });
        });
    }
}

/// Calls a tile so many times for so many inputs along an axis, from one on; these are so many bytes apart in what is read and in
/// the patches.
fn each_tile(
    f: &mut FunctionBuilder<'_>,
    tile: FunctionId,
    [source, weights, patch]: [Value; 3],
    (first, inputs, count): (usize, usize, usize),
    [of_source, of_patch]: [i64; 2],
) {
    let source = f.add_constant(source, first as i64 * of_source);
    let patch = f.add_constant(patch, first as i64 * of_patch);
    f.for_count(count as u64, |f, i| {
        let source = f.element(source, i, inputs as i64 * of_source);
        let patch = f.element(patch, i, inputs as i64 * of_patch);
        f.call(tile, &[source, weights, patch]);
    });
}

/// Runs `body` with the band of that number.
fn each_band(
    f: &mut FunctionBuilder<'_>,
    number: Value,
    bands: &[Band],
    body: &mut dyn FnMut(&mut FunctionBuilder<'_>, &Band),
) {
    let Some((last, others)) = bands.split_last() else { return };
    if others.is_empty() {
        body(f, last);
        return;
    }
    let is_last = f.builder.ins().icmp_imm_u(IntCC::Equal, number, others.len() as i64);
    f.branch(is_last, &mut |f, is_last| {
        if is_last { body(f, last) } else { each_band(f, number, others, body) }
    });
}
