//! Copies of input rows into scratch memory, with zeros where the input ends, and strided positions taken apart.

use super::tiling::LINE_BYTES;
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::tile::{Lanes, Pointer, Tile, TileBuilder, TileError, Vector};
use std::ops::Range;

/// Strides of the window in scratch memory, in bytes.
///
/// A row holds the positions of the window; those `in_stride` apart lie next to each other, in as many planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Window {
    pub plane_bytes: i32,
    pub row_bytes: i32,
    pub channel_bytes: i32,
    pub in_stride: usize,
}

impl Window {
    /// Bytes from the start of a row to position `j` of the window.
    pub fn position(&self, j: usize) -> i32 {
        (j % self.in_stride) as i32 * self.plane_bytes + 4 * (j / self.in_stride) as i32
    }
}

/// What the copy of a row depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PackSpec {
    pub window: Window,
    pub cin: usize,
    /// Bytes between channels and between rows of the tensor, and elements between neighbours in these.
    pub source_channel: i32,
    pub source_row: i32,
    pub source_step: usize,
    /// Rows of the window between neighbouring rows of the tensor: the zero insertion along y.
    pub row_step: usize,
    /// Positions of the window.
    pub positions: usize,
    /// Position of the first element that is copied, elements, and positions between them: the zero insertion along x.
    pub first: usize,
    pub elements: usize,
    pub step: usize,
}

/// Copies rows of all channels: parameters `source, target, rows`. Every position of these rows is written.
pub(super) fn copy_rows(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &PackSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write_copy(builder.tile(name), spec);
    builder.add_tile(tile)
}

/// Zeroes these elements in rows of all channels: parameters `target, rows`.
pub(super) fn zero_rows(
    builder: &mut Builder<'_>,
    name: &str,
    window: &Window,
    cin: usize,
    elements: &[Range<usize>],
) -> Result<FunctionId, CompileError> {
    let tile = write_zeros(builder.tile(name), window, cin, elements);
    builder.add_tile(tile)
}

fn write_copy(mut b: TileBuilder, spec: &PackSpec) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let rows = b.count("rows");
    let zero = b.zero();
    let target_row = spec.window.row_bytes * spec.row_step as i32;
    b.repeat(spec.cin as u32, &[(source, spec.source_channel), (target, spec.window.channel_bytes)], |b| {
        b.repeat(rows, &[(source, spec.source_row), (target, target_row)], |b| {
            let end = spec.first + spec.elements;
            if spec.step > 1 {
                fill(b, target, zero, 0, spec.positions);
                scatter(b, source, target, spec);
            } else if spec.window.in_stride * spec.source_step > 1 {
                if spec.first > 0 || end < spec.positions {
                    fill(b, target, zero, 0, spec.window.row_bytes as usize / 4);
                }
                deinterleave(b, source, target, spec);
            } else {
                fill(b, target, zero, 0, spec.first);
                copy(b, source, target, spec);
                fill(b, target, zero, end, spec.positions);
            }
        });
        b.advance_by(source, rows, -spec.source_row);
        b.advance_by(target, rows, -target_row);
    });
    b.finish()
}

fn write_zeros(
    mut b: TileBuilder,
    window: &Window,
    cin: usize,
    elements: &[Range<usize>],
) -> Result<Tile, TileError> {
    let target = b.pointer("target");
    let rows = b.count("rows");
    let zero = b.zero();
    b.repeat(cin as u32, &[(target, window.channel_bytes)], |b| {
        b.repeat(rows, &[(target, window.row_bytes)], |b| {
            for range in elements {
                fill(b, target, zero, range.start, range.end);
            }
        });
        b.advance_by(target, rows, -window.row_bytes);
    });
    b.finish()
}

/// Vectors beyond which a row is a loop.
const UNROLLED: usize = 8;

/// Calls `body` for each vector of `count` elements, with its place and its lanes; long runs become a loop over pointers.
fn each_vector(
    b: &mut TileBuilder,
    count: usize,
    moving: &[Pointer],
    body: impl Fn(&mut TileBuilder, i32, Lanes),
) {
    let lanes = b.lanes();
    let (full, rest) = (count / lanes, count % lanes);
    let bytes = b.vector_bytes();
    let mut done = 0;
    if full > UNROLLED {
        let advances: Vec<_> = moving.iter().map(|&pointer| (pointer, bytes)).collect();
        b.repeat(full as u32, &advances, |b| body(b, 0, Lanes::All));
        for &pointer in moving {
            b.advance(pointer, -(full as i32) * bytes);
        }
        done = full;
    }
    for i in done..full {
        body(b, i as i32 * bytes, Lanes::All);
    }
    if rest > 0 {
        body(b, full as i32 * bytes, Lanes::First(rest as u8));
    }
}

fn fill(b: &mut TileBuilder, target: Pointer, zero: Vector, from: usize, to: usize) {
    each_vector(b, to.saturating_sub(from), &[target], |b, at, lanes| {
        b.store_lanes(zero, target.at(4 * from as i32 + at), lanes);
    });
}

fn copy(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    each_vector(b, spec.elements, &[source, target], |b, at, lanes| {
        // The processor does not see the next channel coming: it is a plane away.
        if at % LINE_BYTES == 0
            && let Some(ahead) = at.checked_add(spec.source_channel)
        {
            b.prefetch(source.at(ahead));
        }
        let vector = b.load_lanes(source.at(at), lanes);
        b.store_lanes(vector, target.at(4 * spec.first as i32 + at), lanes);
    });
}

/// Elements of the source to the planes of the window: whole vectors by shuffles, the rest one by one.
fn deinterleave(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let (s, lanes) = (spec.window.in_stride, b.lanes());
    let block = s * lanes;
    let shuffled = if s <= 4 && spec.source_step == 1 { spec.elements / block } else { 0 };
    for i in 0..shuffled {
        let vectors: Vec<Vector> =
            (0..s).map(|k| b.load(source.float((i * block + k * lanes) as i32))).collect();
        for (k, vector) in b.deinterleave(&vectors).into_iter().enumerate() {
            b.store(vector, target.at(spec.window.position(spec.first + k + i * block)));
        }
    }
    for k in 0..s {
        // Elements k, k + s, k + 2s .. of what is left.
        let mut element = shuffled * block + k;
        while element < spec.elements {
            let count = (spec.elements - element).div_ceil(s).min(lanes);
            let from = source.float((element * spec.source_step) as i32);
            let vector = b.gather(from, 4 * (s * spec.source_step) as i32, count);
            let place = target.at(spec.window.position(spec.first + element));
            b.store_lanes(vector, place, if count == lanes { Lanes::All } else { Lanes::First(count as u8) });
            element += count * s;
        }
    }
}

/// Elements of the source to positions `step` apart.
fn scatter(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let lanes = b.lanes();
    for first in (0..spec.elements).step_by(lanes) {
        let count = (spec.elements - first).min(lanes);
        let lanes = if count == lanes { Lanes::All } else { Lanes::First(count as u8) };
        let vector = b.load_lanes(source.float(first as i32), lanes);
        for lane in 0..count {
            b.store_lane(
                vector,
                lane,
                target.at(spec.window.position(spec.first + (first + lane) * spec.step)),
            );
        }
    }
}
