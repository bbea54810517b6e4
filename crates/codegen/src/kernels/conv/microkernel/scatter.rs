//! The tiles: patches that are added up, and the rows that are copied out.

use crate::kernels::conv::microkernel::post_ops::{Broadcast, Place, PostOps};
use crate::kernels::conv::schedule::scatter::{Band, Column, Shape};
use crate::kernels::conv::schedule::scatter_tiles::Pixels;
use crate::kernels::conv::schedule::tiling::{LINE_BYTES, WEIGHTS_AHEAD};
use crate::kernels::walk::first_lanes;
use std::ops::Range;
use tconvc_tile::{Pattern, Tile, TileBuilder, TileError};

/// A row of a band's output, or several that follow each other in scratch memory as they do in the output.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    outputs: usize,
    /// Those of them that lie in the full output.
    full: Range<usize>,
    /// Floats of scratch memory before the first output; negative where the row begins before the full output.
    before: i64,
}

impl Row {
    pub fn new(shape: &Shape, band: &Band) -> Self {
        let outermost = shape.row_axis();
        let axis = &shape.axes[outermost];
        let inner: usize = shape.room[outermost + 1..].iter().product();
        let (_, outputs, origin) = shape.along(outermost, band);
        let in_row = |full: i64| {
            let output = (full - axis.pad).clamp(outputs.start as i64, outputs.end as i64) as usize;
            (output - outputs.start) * inner
        };
        Self {
            outputs: outputs.len() * inner,
            full: in_row(0)..in_row(axis.full as i64),
            before: (outputs.start as i64 + axis.pad - origin as i64) * inner as i64,
        }
    }
}

/// Tiles of pixels up to which weights are asked for ahead: more find them in the caches, and have no time to ask.
const FEW_PASSES: usize = 2;

/// Bytes of an input from which on it does not stay near.
const FAR_BYTES: usize = 4 << 20;

/// Patches of pixels under some columns, added to scratch memory. Parameters: `x, w, patch`.
pub(crate) fn patch_tile(
    mut b: TileBuilder,
    shape: &Shape,
    columns: &[Column],
    pixels: Pixels,
    row: usize,
) -> Result<Tile, TileError> {
    let [x, w, patch] = b.pointers(["x", "w", "patch"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let vectors = columns.len().div_ceil(lanes);
    let m = pixels.count();
    // Weights that come from memory rather than from a cache.
    let is_fresh = shape.input_plane() <= FEW_PASSES * m;
    let is_far = 4 * shape.batch * shape.groups * shape.cin * shape.input_plane() > FAR_BYTES;
    let mut sums = vec![];
    for _ in 0..m * vectors {
        sums.push(b.zero());
    }
    b.repeat(shape.cin as u32, &[(x, 4 * shape.input_plane() as i32), (w, 4 * row as i32)], |b| {
        if m == 1 {
            // A matrix times a vector: each weight is used once, so it needs no register.
            let value = b.load_splat(x.at(0));
            for (v, &sum) in sums.iter().enumerate() {
                let weights = w.at(v as i32 * bytes);
                if v as i32 * bytes % LINE_BYTES == 0 {
                    b.prefetch(weights.plus(WEIGHTS_AHEAD));
                }
                b.fma(sum, value, weights);
            }
            return;
        }
        if is_far {
            // Pixels of tiles to come: of so many channels the processor does not foresee them.
            b.prefetch(x.at(LINE_BYTES));
        }
        let mut weights = vec![];
        for v in 0..vectors {
            let at = w.at(v as i32 * bytes);
            if is_fresh && v as i32 * bytes % LINE_BYTES == 0 {
                b.prefetch(at.plus(WEIGHTS_AHEAD));
            }
            weights.push(b.load(at));
        }
        for pixel in 0..m {
            let value = b.load_splat(x.float(pixel as i32));
            for (v, &weights) in weights.iter().enumerate() {
                b.fma(sums[pixel * vectors + v], weights, value);
            }
        }
    });
    let [_, y, x] = &shape.axes;
    for pixel in 0..m {
        let (row, column) = (pixel / pixels.columns, pixel % pixels.columns);
        let moved = row * y.stride * shape.room[2] + column * x.stride;
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
                let at = patch.float((columns[first].place + moved) as i32);
                let added = if first == 0 {
                    sum
                } else {
                    b.shuffle(sum, sum, Pattern::new(lanes, |i| (i + first) % lanes))
                };
                let which = first_lanes(&b, count);
                let old = b.load_lanes(at, which);
                let new = b.add(old, added);
                b.store_lanes(new, at, which);
                first += count;
            }
        }
    }
    b.finish()
}

/// Zeroes vectors. Parameters: `target`, whole vectors.
pub(crate) fn zero_tile(mut b: TileBuilder) -> Result<Tile, TileError> {
    let target = b.pointer("target");
    let count = b.count("vectors");
    let zero = b.zero();
    let bytes = b.vector_bytes();
    b.repeat(count, &[(target, bytes)], |b| b.store(zero, target.at(0)));
    b.finish()
}

/// A row of the output: what lies in scratch memory, cropped, plus bias, finished. Parameters: `row, bias, y, operands..`.
/// Outside the full output there is only the bias.
pub(crate) fn copy_row(
    mut b: TileBuilder,
    spec: &Row,
    post_ops: &PostOps,
    inside: bool,
) -> Result<Tile, TileError> {
    let [row, bias, y] = b.pointers(["row", "bias", "y"]);
    let operands: Vec<_> = (0..post_ops.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let lanes = b.lanes();
    let bias = b.load_splat(bias.at(0));
    let (from, to) = if inside { (spec.full.start, spec.full.end) } else { (0, 0) };
    let mut parts = vec![];
    for (begin, end, read) in [(0, from, false), (from, to, true), (to, spec.outputs, false)] {
        if end > begin {
            parts.push((begin, end, read));
        }
    }
    for (begin, end, read) in parts {
        let count = end - begin;
        let body = |b: &mut TileBuilder, offset: i32, count: usize| {
            let which = first_lanes(b, count);
            let sum = if read {
                let sum = b.load_lanes(row.at(offset + 4 * spec.before as i32), which);
                b.add(sum, bias)
            } else {
                let none = b.zero();
                b.add(none, bias)
            };
            let place = Place { offset, stride: 4, count, channel: 0, across: false };
            let done = post_ops.write(b, &operands, sum, &place);
            place.store(b, y, done);
        };
        let (full, rest) = (count / lanes, count % lanes);
        if full > 4 {
            let bytes = b.vector_bytes();
            let following =
                post_ops.broadcasts().zip(&operands).filter(|(broadcast, _)| *broadcast == Broadcast::Output);
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
