//! The scatter form: each input value times all weights of its channel is a patch, and patches are added up.
//!
//! A unit of work owns a few output channels of a band of the output. Their full, uncropped output lies in scratch memory;
//! tiles of pixels by columns (output channel and tap) add their patches to it at once, so columns are never stored. At the
//! end the crop is copied out, with bias and epilogue. Inputs whose patches reach into two bands are computed for both.
//!
//! - [`super::super::schedule::scatter`] has the sizes that everything follows from.
//! - [`super::super::microkernel::scatter`] writes the micro-kernel, and the copy of a row of the output.
//! - [`super::super::weights::scatter`] puts the weights in the order of tiles.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::layer::{self, Bases, operands};
use crate::kernels::conv::microkernel::scatter::{Row, finish_row, patch_tile, zero_tile};
use crate::kernels::conv::schedule::scatter::{Axis, Band, Shape};
use crate::kernels::conv::weights::scatter::Columns;
use crate::module::Glue;
use crate::packing::Pack;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use std::ops::Range;
use tconvc_ir::geometry::DeconvGeometry;
use tconvc_passes::cost::Pixels;
use tconvc_runtime::code::FunctionId;
use tconvc_runtime::program::Kernel;

/// A transposed convolution in scatter form.
pub(crate) type Job<'a> = layer::Job<'a, DeconvGeometry>;

/// Taps that patches may have: each is written out.
pub(crate) const MOST_TAPS: usize = 4096;

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
pub(crate) fn build<'a>(builder: &mut Builder<'a>, job: &Job<'a>) -> Result<(), CompileError> {
    let shape = Shape::new(&job.problem, &builder.target, builder.threads);
    // Pixels by vectors of a tile, channels of a block, bands.
    let Pixels { rows, columns } = shape.pixels;
    let pixels = if rows > 1 { format!("{rows}x{columns}") } else { columns.to_string() };
    builder.set_schedule(&format_args!("{pixels}x{} {} {}", shape.vectors, shape.block, shape.bands.len()));
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
                let name = builder.unique(&format!("{}_c{channels}v{group}p{}", job.name, pixels.count()));
                let tile = patch_tile(builder.tile(&name), &shape, part, pixels, row);
                by_pixels.push(builder.add_tile(tile)?);
            }
            tiles.push((first, by_pixels));
        }
        codes.push(BlockCode { channels, tiles });
    }
    let zero = builder.unique(&format!("{}_zero", job.name));
    let zero = zero_tile(builder.tile(&zero));
    let zero = builder.add_tile(zero)?;
    let mut rows: Vec<(Row, RowCode)> = vec![];
    for band in &shape.bands {
        let row = Row::new(&shape, band);
        if rows.iter().all(|(known, _)| *known != row) {
            let mut code = |part: &str, inside| {
                let name = builder.unique(&format!("{}_{part}", job.name));
                let tile = finish_row(builder.tile(&name), &row, &job.finish, inside);
                builder.add_tile(tile)
            };
            let code = RowCode { inside: code("row", true)?, outside: code("border", false)? };
            rows.push((row, code));
        }
    }

    let columns = Columns {
        weights: job.weights,
        block: shape.block,
        lanes,
        tile: shape.vectors * lanes,
        taps: shape.columns(1).iter().map(|column| job.weights.tap(column.tap)).collect(),
    };
    let block_bytes: Vec<usize> = columns.stretches().iter().map(|(floats, _)| 4 * floats).collect();
    let full_block = block_bytes.first().copied().unwrap_or(0) as i64;
    let group_bytes = block_bytes.iter().take(shape.blocks()).sum::<usize>() as i64;

    let (packed, bias) = (builder.pack_later(columns), builder.pack(&job.bias));
    let operands = operands([job.input, job.output, packed, bias], &job.finish_operands);
    let name = builder.unique(&job.name);
    let emit = Emit {
        shape: &shape,
        job,
        codes: &codes,
        pixels: &pixels,
        zero,
        rows: &rows,
        full_block,
        group_bytes,
        lanes,
    };
    let function = builder.add_step(&name, |glue| emit.step(glue))?;
    let units = (shape.batch * shape.groups * shape.blocks() * shape.bands.len()) as u64;
    let nanoseconds = job.problem.scatter_macs() as f64 / (lanes as f64 * 4.0);
    let splits = builder.even_splits(units, nanoseconds);
    let scratch_bytes = 4 * (shape.block * shape.full_plane() + lanes);
    builder.push_kernel(Kernel { name, function, operands, splits, scratch_bytes, rounds: 1 });
    Ok(())
}

struct Emit<'a, 'b> {
    shape: &'a Shape,
    job: &'a Job<'b>,
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
    fn step(&self, glue: &mut Glue<'_>) {
        let (begin, end) = (glue.params[1], glue.params[2]);
        let bases = Bases::load(glue, &self.job.finish_operands);
        let shape = self.shape;
        glue.for_each(begin, end, |glue, unit| {
            let (unit, band) = glue.split(unit, shape.bands.len() as u64);
            let (image_group, block) = glue.split(unit, shape.blocks() as u64);
            let (_, group) = glue.split(image_group, shape.groups as u64);
            let source = glue.element(bases.input, image_group, 4 * (shape.cin * shape.input_plane()) as i64);
            let weights = glue.element(bases.weights, group, self.group_bytes);
            let weights = glue.element(weights, block, self.full_block);
            let first = glue.builder.ins().imul_imm_s(block, shape.block as i64);
            let in_group = glue.builder.ins().imul_imm_s(group, shape.cout as i64);
            let channel = glue.builder.ins().iadd(in_group, first);
            let in_image = glue.builder.ins().imul_imm_s(image_group, shape.cout as i64);
            let channel_of_image = glue.builder.ins().iadd(in_image, first);
            let last = shape.blocks() as i64 - 1;
            self.each_size(glue, (block, last), &mut |glue, code| {
                each_band(glue, band, &shape.bands, &mut |glue, band| {
                    self.block(glue, code, band, source, weights, bases.scratch);
                    self.copy_out(glue, code, band, &bases, channel, channel_of_image);
                });
            });
        });
    }

    /// Runs `body` with the code for the block, which is a smaller one where it is the last.
    fn each_size(
        &self,
        glue: &mut Glue<'_>,
        (block, last): (Value, i64),
        body: &mut dyn FnMut(&mut Glue<'_>, &BlockCode),
    ) {
        match self.codes {
            [only] => body(glue, only),
            [full, rest, ..] => {
                let is_last = glue.builder.ins().icmp_imm_u(IntCC::Equal, block, last);
                glue.branch(is_last, &mut |glue, last| body(glue, if last { rest } else { full }));
            }
            [] => {}
        }
    }

    /// All patches of a block of channels that reach into a band.
    fn block(
        &self,
        glue: &mut Glue<'_>,
        code: &BlockCode,
        band: &Band,
        source: Value,
        weights: Value,
        scratch: Value,
    ) {
        let shape = self.shape;
        let ([z, y, x], [_, room_y, room_x]) = (&shape.axes, shape.room);
        let vectors = glue.constant((code.channels * shape.full_plane()).div_ceil(self.lanes) as i64);
        glue.call(self.zero, &[scratch, vectors]);
        let [in_z, in_y, in_x] = [0, 1, 2].map(|axis| shape.along(axis, band).0);
        let first = (in_z.start * y.input + in_y.start) * x.input + in_x.start;
        let source = glue.add_constant(source, 4 * first as i64);
        // Columns outermost: their weights stay near while all pixels pass.
        for (first, tiles) in &code.tiles {
            let weights = glue.add_constant(weights, 4 * *first as i64);
            glue.for_count(in_z.len() as u64, |glue, iz| {
                let source = glue.element(source, iz, 4 * (y.input * x.input) as i64);
                let patch = glue.element(scratch, iz, 4 * (z.stride * room_y * room_x) as i64);
                let (row, patch_row) = (4 * x.input as i64, 4 * (y.stride * room_x) as i64);
                let tiles = self.pixels.iter().zip(tiles);
                if shape.pixels.rows > 1 {
                    let mut at = 0;
                    for (&Pixels { rows, .. }, &tile) in tiles {
                        let count = (in_y.len() - at) / rows;
                        each_tile(glue, tile, [source, weights, patch], (at, rows, count), [row, patch_row]);
                        at += count * rows;
                    }
                    return;
                }
                glue.for_count(in_y.len() as u64, |glue, iy| {
                    let (source, patch) = (glue.element(source, iy, row), glue.element(patch, iy, patch_row));
                    let mut at = 0;
                    for (&Pixels { columns, .. }, &tile) in tiles {
                        let count = (in_x.len() - at) / columns;
                        let step = [4, 4 * x.stride as i64];
                        each_tile(glue, tile, [source, weights, patch], (at, columns, count), step);
                        at += count * columns;
                    }
                });
            });
        }
    }

    /// The cropped output of a band, row by row.
    fn copy_out(
        &self,
        glue: &mut Glue<'_>,
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
        glue.for_count(code.channels as u64, |glue, c| {
            let full = glue.element(bases.scratch, c, 4 * shape.full_plane() as i64);
            let channel = glue.builder.ins().iadd(channel, c);
            let channel_of_image = glue.builder.ins().iadd(channel_of_image, c);
            let bias = glue.element(bases.bias, channel, 4);
            let zero = glue.constant(4 * first as i64);
            let place = glue.element(zero, channel_of_image, 4 * shape.output_plane() as i64);
            glue.for_count(planes.map_or(1, |(count, ..)| count), |glue, oz| {
                glue.for_count(lines.map_or(1, |(count, ..)| count), |glue, oy| {
                    let rows = glue.builder.ins().imul_imm_s(oz, y.output as i64);
                    let rows = glue.builder.ins().iadd(rows, oy);
                    let place = glue.element(place, rows, 4 * x.output as i64);
                    let (mut from, mut inside) = (full, None);
                    for (index, along, bytes) in
                        [(oz, planes, 4 * (room_y * room_x) as i64), (oy, lines, 4 * room_x as i64)]
                    {
                        let Some((_, start, end)) = along else { continue };
                        // Negative places are large unsigned ones.
                        let at = glue.add_constant(index, start);
                        let lies = glue.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, at, end);
                        inside = Some(inside.map_or(lies, |other| glue.builder.ins().band(lies, other)));
                        from = glue.element(from, at, bytes);
                    }
                    let target = glue.builder.ins().iadd(bases.output, place);
                    let mut args = vec![from, bias, target];
                    args.extend(bases.finish_at(glue, channel, place));
                    match inside {
                        None => glue.call(row.inside, &args),
                        Some(inside) => glue.branch(inside, &mut |glue, inside| {
                            glue.call(if inside { row.inside } else { row.outside }, &args);
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
    glue: &mut Glue<'_>,
    tile: FunctionId,
    [source, weights, patch]: [Value; 3],
    (first, inputs, count): (usize, usize, usize),
    [of_source, of_patch]: [i64; 2],
) {
    let source = glue.add_constant(source, first as i64 * of_source);
    let patch = glue.add_constant(patch, first as i64 * of_patch);
    glue.for_count(count as u64, |glue, i| {
        let source = glue.element(source, i, inputs as i64 * of_source);
        let patch = glue.element(patch, i, inputs as i64 * of_patch);
        glue.call(tile, &[source, weights, patch]);
    });
}

/// Runs `body` with the band of that number.
fn each_band(glue: &mut Glue<'_>, number: Value, bands: &[Band], body: &mut dyn FnMut(&mut Glue<'_>, &Band)) {
    let Some((last, others)) = bands.split_last() else { return };
    if others.is_empty() {
        body(glue, last);
        return;
    }
    let is_last = glue.builder.ins().icmp_imm_u(IntCC::Equal, number, others.len() as i64);
    glue.branch(is_last, &mut |glue, is_last| {
        if is_last { body(glue, last) } else { each_band(glue, number, others, body) }
    });
}
