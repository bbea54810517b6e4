//! The scatter form: each input value times all weights of its channel is a patch, and patches are added up.
//!
//! A unit of work owns a few output channels. Their full, uncropped output lies in scratch memory; tiles of pixels by
//! columns (output channel and tap) add their patches to it at once, so columns are never stored. At the end the crop is
//! copied out, with bias and epilogue.

use super::epilogue::{Finish, FinishOperands, Follows, Place};
use super::job::{Bases, operands};
use super::weights::{Weights, float};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::{FunctionId, Glue};
use crate::packing::Pack;
use crate::program::{Kernel, Operand};
use crate::target::{Isa, Target};
use crate::tile::{Lanes, Pattern, Tile, TileBuilder, TileError};
use cranelift_codegen::ir::{InstBuilder, Value};
use tconvc_ir::geometry::{DeconvAxis, DeconvGeometry};

/// What is computed, and where its operands are.
pub(super) struct Job<'a> {
    pub name: String,
    pub geometry: DeconvGeometry,
    pub weights: Weights<'a>,
    pub bias: Vec<f32>,
    pub finish: Finish,
    pub finish_operands: FinishOperands,
    pub input: Operand,
    pub output: Operand,
}

/// Taps that patches may have: each is written out.
pub(super) const MOST_TAPS: usize = 4096;

/// Extents and strides of one axis; those that the network does not have are of extent 1.
#[derive(Clone)]
struct Axis {
    input: usize,
    output: usize,
    full: usize,
    stride: usize,
    pad: i64,
    /// Taps that are not cropped for every input, as kernel index and place in the patch.
    taps: Vec<(usize, usize)>,
}

impl Axis {
    fn new(axis: &DeconvAxis) -> Self {
        let taps = (0..axis.kernel()).filter(|&k| (0..axis.input()).any(|i| axis.target(i, k).is_some()));
        Self {
            input: axis.input(),
            output: axis.output(),
            full: axis.full_output(),
            stride: axis.stride(),
            pad: axis.pad(),
            taps: taps.map(|k| (k, k * axis.dilation())).collect(),
        }
    }

    fn none() -> Self {
        Self { input: 1, output: 1, full: 1, stride: 1, pad: 0, taps: vec![(0, 0)] }
    }
}

/// A column, of an output channel of the block and a tap: the tap, and the float of the patch that it adds to.
struct Column {
    tap: [usize; 3],
    place: usize,
}

/// The sizes that everything follows from.
struct Shape {
    axes: [Axis; 3],
    batch: usize,
    groups: usize,
    cin: usize,
    cout: usize,
    /// Output channels of a unit.
    block: usize,
    /// Pixels and vectors of a tile.
    m: usize,
    n: usize,
}

/// Bytes of scratch memory that the channels of a unit should not exceed by choice.
const SCRATCH: usize = 128 << 10;

impl Shape {
    fn new(geometry: &DeconvGeometry, target: &Target) -> Self {
        let channels = geometry.channels();
        let mut axes: Vec<Axis> = geometry.axes().iter().map(Axis::new).collect();
        while axes.len() < 3 {
            axes.insert(0, Axis::none());
        }
        let axes: [Axis; 3] = axes.try_into().unwrap_or_else(|_| [Axis::none(), Axis::none(), Axis::none()]);
        let full: usize = axes.iter().map(|axis| axis.full).product();
        let taps: usize = axes.iter().map(|axis| axis.taps.len()).product();
        let cout = channels.output_per_group();
        // Enough columns for a tile of several vectors, and units for a few threads. How many there are must not matter:
        // patches are added up in another order when tiles have other columns.
        let wanted = (8 * target.lanes()).div_ceil(taps.max(1)).max(1);
        let fits = (SCRATCH / (4 * full)).max(1);
        let shared = cout.div_ceil(4).max(1);
        let block = wanted.min(fits).min(shared).min(cout);
        let vectors = (block * taps).div_ceil(target.lanes()).max(1);
        let m = axes[2].input.min(if vectors == 1 { 8 } else { 4 });
        // Sums, and beside them a register for each weight vector and one for the pixel; a lone pixel reads weights from
        // memory. Cranelift spills long before that.
        let room = match target.isa() {
            Isa::Portable => 8 / m,
            Isa::X86V3 | Isa::X86V4 if m == 1 => target.vector_registers().min(18) - 2,
            Isa::X86V3 | Isa::X86V4 => (target.vector_registers() - 1) / (m + 1),
        };
        let n = room.min(vectors).max(1);
        Self {
            axes,
            batch: channels.batch(),
            groups: channels.groups(),
            cin: channels.input_per_group(),
            cout,
            block,
            m,
            n,
        }
    }

    fn full_plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.full).product()
    }

    fn input_plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    fn output_plane(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    fn blocks(&self) -> usize {
        self.cout.div_ceil(self.block)
    }

    /// The columns of a block of so many channels.
    fn columns(&self, channels: usize) -> Vec<Column> {
        let [z, y, x] = &self.axes;
        let mut columns = vec![];
        for channel in 0..channels {
            for &(kz, dz) in &z.taps {
                for &(ky, dy) in &y.taps {
                    for &(kx, dx) in &x.taps {
                        let place = ((channel * z.full + dz) * y.full + dy) * x.full + dx;
                        columns.push(Column { tap: [kz, ky, kx], place });
                    }
                }
            }
        }
        columns
    }
}

/// Weights by group, block of output channels, input channel, column; columns are padded to whole vectors.
struct Columns<'a> {
    weights: Weights<'a>,
    /// Output channels of a block.
    block: usize,
    lanes: usize,
    /// Numbers of the taps that a channel has columns for.
    taps: Vec<usize>,
}

impl Columns<'_> {
    /// First channel and number of channels of each block of a group.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let (cout, block) = (self.weights.cout(), self.block);
        (0..cout).step_by(block).map(move |first| (first, block.min(cout - first)))
    }

    fn row(&self, channels: usize) -> usize {
        (channels * self.taps.len()).next_multiple_of(self.lanes)
    }
}

impl Pack for Columns<'_> {
    fn stretches(&self) -> Vec<(usize, usize)> {
        let blocks = (0..self.weights.groups()).flat_map(|_| self.blocks());
        blocks.map(|(_, channels)| self.row(channels) * self.weights.cin()).zip(0..).collect()
    }

    fn write(&self, task: usize, stretches: &mut [&mut [f32]]) {
        let blocks = self.blocks().count().max(1);
        let (Some((first, channels)), [stretch]) = (self.blocks().nth(task % blocks), stretches) else {
            return;
        };
        let rows = stretch.chunks_exact_mut(self.row(channels).max(1));
        for (ci, row) in rows.enumerate() {
            let Some(patches) = self.weights.patches(task / blocks, first, channels, ci) else { return };
            let all = patches.len() / channels;
            if self.taps.len() == all {
                for (value, weight) in row.iter_mut().zip(patches) {
                    *value = float(*weight);
                }
                continue;
            }
            for (row, patch) in row.chunks_exact_mut(self.taps.len().max(1)).zip(patches.chunks_exact(all)) {
                for (value, &tap) in row.iter_mut().zip(&self.taps) {
                    *value = float(patch[tap]);
                }
            }
        }
    }
}

/// The code for blocks of one size: tiles of pixels by columns, and the last copy.
struct BlockCode {
    channels: usize,
    /// For each group of vectors: floats of weights before it in an input channel's row, and code for full and last tiles.
    tiles: Vec<(usize, Vec<FunctionId>)>,
    /// Floats of weights of an input channel.
    row: usize,
}

/// Makes the kernel of a transposed convolution in scatter form.
pub(super) fn build<'a>(builder: &mut Builder<'a>, job: &Job<'a>) -> Result<(), CompileError> {
    let shape = Shape::new(&job.geometry, &builder.target);
    builder.set_schedule(&format_args!("{}x{} block {}", shape.m, shape.n, shape.block));
    let lanes = builder.target.lanes();
    let rest = shape.cout % shape.block;
    let sizes: Vec<usize> = [shape.block, rest].into_iter().filter(|&size| size > 0).collect();
    let x = &shape.axes[2];
    let pixel_runs = [(shape.m, x.input / shape.m), (x.input % shape.m, 1)];
    let pixel_runs: Vec<(usize, usize)> =
        pixel_runs.into_iter().filter(|&(m, count)| m * count > 0).collect();
    let mut codes = vec![];
    for &channels in &sizes {
        let columns = shape.columns(channels);
        let row = columns.len().next_multiple_of(lanes);
        let mut tiles = vec![];
        for (group, part) in columns.chunks((shape.n * lanes).max(1)).enumerate() {
            let first = group * shape.n * lanes;
            let mut by_pixels = vec![];
            for &(m, _) in &pixel_runs {
                let name = builder.unique(&format!("{}_c{channels}v{group}p{m}", job.name));
                let tile = patch_tile(builder.tile(&name), &shape, part, m, row);
                by_pixels.push(builder.add_tile(tile)?);
            }
            tiles.push((first, by_pixels));
        }
        codes.push(BlockCode { channels, tiles, row });
    }
    let zero = builder.unique(&format!("{}_zero", job.name));
    let zero = zero_tile(builder.tile(&zero), lanes);
    let zero = builder.add_tile(zero)?;
    let inside = row_tile_name(builder, job, "row");
    let inside = finish_row(builder.tile(&inside), x, &job.finish, true);
    let inside = builder.add_tile(inside)?;
    let outside = row_tile_name(builder, job, "border");
    let outside = finish_row(builder.tile(&outside), x, &job.finish, false);
    let outside = builder.add_tile(outside)?;

    let columns = Columns {
        weights: job.weights,
        block: shape.block,
        lanes,
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
        pixel_runs: &pixel_runs,
        zero,
        inside,
        outside,
        full_block,
        group_bytes,
        lanes,
    };
    let function = builder.add_step(&name, |glue| emit.step(glue))?;
    let units = (shape.batch * shape.groups * shape.blocks()) as u64;
    let nanoseconds = job.geometry.scatter_macs() as f64 / (lanes as f64 * 4.0);
    let splits = builder.even_splits(units, nanoseconds);
    let scratch_bytes = 4 * (shape.block * shape.full_plane() + lanes);
    builder.push_kernel(Kernel { name, function, operands, splits, scratch_bytes, rounds: 1 });
    Ok(())
}

fn row_tile_name(builder: &mut Builder<'_>, job: &Job<'_>, part: &str) -> String {
    builder.unique(&format!("{}_{part}", job.name))
}

/// Patches of `m` neighbouring pixels under some columns, added to scratch memory. Parameters: `x, w, patch`.
fn patch_tile(
    mut b: TileBuilder,
    shape: &Shape,
    columns: &[Column],
    m: usize,
    row: usize,
) -> Result<Tile, TileError> {
    let [x, w, patch] = b.pointers(["x", "w", "patch"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let vectors = columns.len().div_ceil(lanes);
    let mut sums = vec![];
    for _ in 0..m * vectors {
        sums.push(b.zero());
    }
    b.repeat(shape.cin as u32, &[(x, 4 * shape.input_plane() as i32), (w, 4 * row as i32)], |b| {
        if m == 1 {
            // A matrix times a vector: each weight is used once, so it needs no register.
            let value = b.load_splat(x.at(0));
            for (v, &sum) in sums.iter().enumerate() {
                b.fma(sum, value, w.at(v as i32 * bytes));
            }
            return;
        }
        let weights: Vec<_> = (0..vectors).map(|v| b.load(w.at(v as i32 * bytes))).collect();
        for pixel in 0..m {
            let value = b.load_splat(x.float(pixel as i32));
            for (v, &weights) in weights.iter().enumerate() {
                b.fma(sums[pixel * vectors + v], weights, value);
            }
        }
    });
    let step = shape.axes[2].stride;
    for pixel in 0..m {
        for (v, columns) in columns.chunks(lanes).enumerate() {
            let sum = sums[pixel * vectors + v];
            // Lanes whose places follow each other are added together.
            let mut first = 0;
            while first < columns.len() {
                let mut count = 1;
                while first + count < columns.len()
                    && columns[first + count].place == columns[first].place + count
                {
                    count += 1;
                }
                let at = patch.float((columns[first].place + pixel * step) as i32);
                let moved = if first == 0 {
                    sum
                } else {
                    b.shuffle(sum, sum, Pattern::new(lanes, |i| (i + first) % lanes))
                };
                let which = if count == lanes { Lanes::All } else { Lanes::First(count as u8) };
                let old = b.load_lanes(at, which);
                let new = b.add(old, moved);
                b.store_lanes(new, at, which);
                first += count;
            }
        }
    }
    b.finish()
}

/// Zeroes vectors. Parameters: `target`, whole vectors.
fn zero_tile(mut b: TileBuilder, _lanes: usize) -> Result<Tile, TileError> {
    let target = b.pointer("target");
    let count = b.count("vectors");
    let zero = b.zero();
    let bytes = b.vector_bytes();
    b.repeat(count, &[(target, bytes)], |b| b.store(zero, target.at(0)));
    b.finish()
}

/// A row of the output: what lies in scratch memory, cropped, plus bias, finished. Parameters: `row, bias, y, operands..`.
/// Outside the full output there is only the bias.
fn finish_row(mut b: TileBuilder, x: &Axis, finish: &Finish, inside: bool) -> Result<Tile, TileError> {
    let [row, bias, y] = b.pointers(["row", "bias", "y"]);
    let operands: Vec<_> = (0..finish.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let lanes = b.lanes();
    let bias = b.load_splat(bias.at(0));
    // Outputs from..to lie in the full output.
    let (from, to) = if inside {
        (
            (-x.pad).clamp(0, x.output as i64) as usize,
            (x.full as i64 - x.pad).clamp(0, x.output as i64) as usize,
        )
    } else {
        (0, 0)
    };
    let mut parts = vec![];
    for (begin, end, read) in [(0, from.min(to), false), (from.min(to), to, true), (to, x.output, false)] {
        if end > begin {
            parts.push((begin, end, read));
        }
    }
    for (begin, end, read) in parts {
        let count = end - begin;
        let body = |b: &mut TileBuilder, offset: i32, count: usize| {
            let which = if count == lanes { Lanes::All } else { Lanes::First(count as u8) };
            let sum = if read {
                let sum = b.load_lanes(row.at(offset + 4 * x.pad as i32), which);
                b.add(sum, bias)
            } else {
                let none = b.zero();
                b.add(none, bias)
            };
            let place = Place { offset, stride: 4, count, channel: 0, across: false };
            let done = finish.write(b, &operands, sum, &place);
            place.store(b, y, done);
        };
        let (full, rest) = (count / lanes, count % lanes);
        if full > 4 {
            let bytes = b.vector_bytes();
            let following =
                finish.following().zip(&operands).filter(|(follows, _)| *follows == Follows::Output);
            let mut advances = vec![(row, bytes), (y, bytes)];
            advances.extend(following.map(|(_, &operand)| (operand, bytes)));
            b.repeat(full as u32, &advances, |b| body(b, 4 * begin as i32, lanes));
            for (pointer, bytes) in advances {
                b.advance(pointer, -(full as i32) * bytes);
            }
        } else {
            for i in 0..full {
                body(&mut b, 4 * (begin + i * lanes) as i32, lanes);
            }
        }
        if rest > 0 {
            body(&mut b, 4 * (begin + full * lanes) as i32, rest);
        }
    }
    b.finish()
}

struct Emit<'a, 'b> {
    shape: &'a Shape,
    job: &'a Job<'b>,
    codes: &'a [BlockCode],
    pixel_runs: &'a [(usize, usize)],
    zero: FunctionId,
    inside: FunctionId,
    outside: FunctionId,
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
            let body = |glue: &mut Glue<'_>, code: &BlockCode| {
                self.block(glue, code, source, weights, bases.scratch);
                self.copy_out(glue, code, &bases, channel, channel_of_image);
            };
            match self.codes {
                [only] => body(glue, only),
                [full, rest, ..] => {
                    let last = glue.constant(shape.blocks() as i64 - 1);
                    let is_last =
                        glue.builder.ins().icmp(cranelift_codegen::ir::condcodes::IntCC::Equal, block, last);
                    glue.branch(is_last, &mut |glue, last| body(glue, if last { rest } else { full }));
                }
                [] => {}
            }
        });
    }

    /// All patches of a block of channels.
    fn block(&self, glue: &mut Glue<'_>, code: &BlockCode, source: Value, weights: Value, scratch: Value) {
        let shape = self.shape;
        let [z, y, x] = &shape.axes;
        let vectors = glue.constant((code.channels * shape.full_plane()).div_ceil(self.lanes) as i64);
        glue.call(self.zero, &[scratch, vectors]);
        // Columns outermost: their weights stay near while all pixels pass.
        for (first, tiles) in &code.tiles {
            let weights = glue.add_constant(weights, 4 * *first as i64);
            glue.for_count(z.input as u64, |glue, iz| {
                glue.for_count(y.input as u64, |glue, iy| {
                    let row = glue.builder.ins().imul_imm_s(iz, y.input as i64);
                    let row = glue.builder.ins().iadd(row, iy);
                    let source = glue.element(source, row, 4 * x.input as i64);
                    let patch = glue.element(scratch, iz, 4 * (z.stride * y.full * x.full) as i64);
                    let patch = glue.element(patch, iy, 4 * (y.stride * x.full) as i64);
                    let mut done = 0;
                    for (&(m, count), &tile) in self.pixel_runs.iter().zip(tiles) {
                        let source = glue.add_constant(source, 4 * done as i64);
                        let patch = glue.add_constant(patch, 4 * (done * x.stride) as i64);
                        glue.for_count(count as u64, |glue, i| {
                            let source = glue.element(source, i, 4 * m as i64);
                            let patch = glue.element(patch, i, 4 * (m * x.stride) as i64);
                            glue.call(tile, &[source, weights, patch]);
                        });
                        done += m * count;
                    }
                });
            });
        }
        debug_assert!(code.row >= code.tiles.last().map_or(0, |(first, _)| *first));
    }

    /// The cropped output, row by row.
    fn copy_out(
        &self,
        glue: &mut Glue<'_>,
        code: &BlockCode,
        bases: &Bases,
        channel: Value,
        channel_of_image: Value,
    ) {
        let shape = self.shape;
        let [z, y, x] = &shape.axes;
        glue.for_count(code.channels as u64, |glue, c| {
            let full = glue.element(bases.scratch, c, 4 * shape.full_plane() as i64);
            let channel = glue.builder.ins().iadd(channel, c);
            let channel_of_image = glue.builder.ins().iadd(channel_of_image, c);
            let bias = glue.element(bases.bias, channel, 4);
            let zero = glue.constant(0);
            let place = glue.element(zero, channel_of_image, 4 * shape.output_plane() as i64);
            glue.for_count(z.output as u64, |glue, oz| {
                glue.for_count(y.output as u64, |glue, oy| {
                    let row = glue.builder.ins().imul_imm_s(oz, y.output as i64);
                    let row = glue.builder.ins().iadd(row, oy);
                    let place = glue.element(place, row, 4 * x.output as i64);
                    let (fz, fy) = (glue.add_constant(oz, z.pad), glue.add_constant(oy, y.pad));
                    // Negative places are large unsigned ones.
                    let below = cranelift_codegen::ir::condcodes::IntCC::UnsignedLessThan;
                    let in_z = glue.builder.ins().icmp_imm_u(below, fz, z.full as i64);
                    let in_y = glue.builder.ins().icmp_imm_u(below, fy, y.full as i64);
                    let inside = glue.builder.ins().band(in_z, in_y);
                    let at = glue.builder.ins().imul_imm_s(fz, y.full as i64);
                    let at = glue.builder.ins().iadd(at, fy);
                    let from = glue.element(full, at, 4 * x.full as i64);
                    let target = glue.builder.ins().iadd(bases.output, place);
                    let mut args = vec![from, bias, target];
                    args.extend(bases.finish_at(glue, channel, place));
                    glue.branch(inside, &mut |glue, inside| {
                        glue.call(if inside { self.inside } else { self.outside }, &args);
                    });
                });
            });
        });
    }
}
