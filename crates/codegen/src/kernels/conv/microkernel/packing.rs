//! Copies of input rows into scratch memory, with zeros where the input ends, and strided positions taken apart.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::schedule::input_tile::InputTileLayout;
use crate::kernels::conv::schedule::tiling::LINE_BYTES;
use crate::kernels::walk::first_lanes;
use std::ops::Range;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Address, Lanes, Pointer, Tile, TileBuilder, TileError, Vector};

/// What the copy of a row depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PackSpec {
    pub input_tile: InputTileLayout,
    pub cin: usize,
    /// Bytes between channels and between rows of the tensor, and elements between neighbours in these.
    pub source_channel: i32,
    pub source_row: i32,
    pub source_step: usize,
    /// Rows of the input tile between neighbouring rows of the tensor: the zero insertion along y.
    pub row_step: usize,
    /// Positions of the input tile.
    pub positions: usize,
    /// Position of the first element that is copied, elements, and positions between them: the zero insertion along x.
    pub first: usize,
    pub elements: usize,
    pub step: usize,
}

/// Copies rows of all channels: parameters `source, target, rows`. Every position of these rows is written.
pub(crate) fn copy_rows(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &PackSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write_copy(builder.tile(name), spec);
    builder.add_tile(tile)
}

/// Zeroes these elements in rows of all channels: parameters `target, rows`.
pub(crate) fn zero_rows(
    builder: &mut Builder<'_>,
    name: &str,
    input_tile: &InputTileLayout,
    cin: usize,
    elements: &[Range<usize>],
) -> Result<FunctionId, CompileError> {
    let tile = write_zeros(builder.tile(name), input_tile, cin, elements);
    builder.add_tile(tile)
}

fn write_copy(mut b: TileBuilder, spec: &PackSpec) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let rows = b.count("rows");
    let zero = b.zero();
    let target_row = spec.input_tile.row_bytes * spec.row_step as i32;
    b.repeat(
        spec.cin as u32,
        &[(source, spec.source_channel), (target, spec.input_tile.channel_bytes)],
        |b| {
            b.repeat(rows, &[(source, spec.source_row), (target, target_row)], |b| {
                let end = spec.first + spec.elements;
                if spec.step > 1 {
                    fill(b, target, zero, 0, spec.positions);
                    scatter(b, source, target, spec);
                } else if spec.input_tile.in_stride * spec.source_step > 1 {
                    if spec.first > 0 || end < spec.positions {
                        fill(b, target, zero, 0, spec.input_tile.row_bytes as usize / 4);
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
        },
    );
    b.finish()
}

fn write_zeros(
    mut b: TileBuilder,
    input_tile: &InputTileLayout,
    cin: usize,
    elements: &[Range<usize>],
) -> Result<Tile, TileError> {
    let target = b.pointer("target");
    let rows = b.count("rows");
    let zero = b.zero();
    b.repeat(cin as u32, &[(target, input_tile.channel_bytes)], |b| {
        b.repeat(rows, &[(target, input_tile.row_bytes)], |b| {
            for range in elements {
                fill(b, target, zero, range.start, range.end);
            }
        });
        b.advance_by(target, rows, -input_tile.row_bytes);
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
        prefetch_next(b, source.at(at), spec);
        let vector = b.load_lanes(source.at(at), lanes);
        b.store_lanes(vector, target.at(4 * spec.first as i32 + at), lanes);
    });
}

/// Strides up to which positions are taken apart by shuffles.
const SHUFFLED: usize = 4;

/// Elements of the source to the planes of the input tile: neighbours by shuffles, others one by one.
fn deinterleave(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let (s, lanes) = (spec.input_tile.in_stride, b.lanes());
    let is_shuffled = s <= SHUFFLED && spec.source_step == 1;
    for first in (0..spec.elements).step_by(s * lanes) {
        let rest = spec.elements - first;
        // Of each vector in memory, and of each plane, the elements that there are.
        let in_memory = |k: usize| rest.saturating_sub(k * lanes).min(lanes);
        let in_plane = |k: usize| (rest.saturating_sub(k)).div_ceil(s).min(lanes);
        let planes: Vec<Vector> = if is_shuffled {
            let load = |k: usize| match in_memory(k) {
                0 => b.zero(),
                count => {
                    let at = source.float((first + k * lanes) as i32);
                    prefetch_next(b, at, spec);
                    b.load_lanes(at, first_lanes(b, count))
                }
            };
            let vectors: Vec<Vector> = (0..s).map(load).collect();
            b.deinterleave(&vectors)
        } else {
            let gather = |k: usize| {
                let from = source.float(((first + k) * spec.source_step) as i32);
                b.gather(from, 4 * (s * spec.source_step) as i32, in_plane(k))
            };
            (0..s).filter(|&k| in_plane(k) > 0).map(gather).collect()
        };
        for (k, plane) in planes.into_iter().enumerate().filter(|&(k, _)| in_plane(k) > 0) {
            let place = target.at(spec.input_tile.position(spec.first + first + k));
            let which = first_lanes(b, in_plane(k));
            b.store_lanes(plane, place, which);
        }
    }
}

/// The processor does not see the next channel coming: it is a plane away.
fn prefetch_next(b: &mut TileBuilder, at: Address, spec: &PackSpec) {
    if at.bytes % LINE_BYTES == 0
        && let Some(ahead) = at.bytes.checked_add(spec.source_channel)
    {
        b.prefetch(Address { bytes: ahead, ..at });
    }
}

/// Elements of the source to positions `step` apart.
fn scatter(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let lanes = b.lanes();
    for first in (0..spec.elements).step_by(lanes) {
        let count = (spec.elements - first).min(lanes);
        let which = first_lanes(b, count);
        let vector = b.load_lanes(source.float(first as i32), which);
        for lane in 0..count {
            b.store_lane(
                vector,
                lane,
                target.at(spec.input_tile.position(spec.first + (first + lane) * spec.step)),
            );
        }
    }
}
