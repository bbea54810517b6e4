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
    if spec.input_tile.in_stride <= SHUFFLED && spec.source_step == 1 {
        shuffle_apart(b, source, target, spec);
    } else {
        gather_planes(b, source, target, spec);
    }
}

/// As many vectors as there are planes become one vector of each plane.
fn shuffle_apart(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let (s, lanes) = (spec.input_tile.in_stride, b.lanes());
    let block = s * lanes;
    let of_block = |b: &mut TileBuilder, first: usize, rest: usize| {
        // Of each vector in memory, and of each plane, the elements that there are.
        let in_memory = |k: usize| rest.saturating_sub(k * lanes).min(lanes);
        let in_plane = |k: usize| (rest.saturating_sub(k)).div_ceil(s).min(lanes);
        let load = |k: usize| match in_memory(k) {
            0 => b.zero(),
            count => {
                let at = source.float((first + k * lanes) as i32);
                prefetch_next(b, at, spec);
                b.load_lanes(at, first_lanes(b, count))
            }
        };
        let vectors: Vec<Vector> = (0..s).map(load).collect();
        let planes = b.deinterleave(&vectors);
        for (k, plane) in planes.into_iter().enumerate().filter(|&(k, _)| in_plane(k) > 0) {
            let place = target.at(spec.input_tile.position(spec.first + first + k));
            let which = first_lanes(b, in_plane(k));
            b.store_lanes(plane, place, which);
        }
    };
    let full = spec.elements / block;
    let mut done = 0;
    if full > UNROLLED {
        let bytes = b.vector_bytes();
        b.repeat(full as u32, &[(source, s as i32 * bytes), (target, bytes)], |b| of_block(b, 0, block));
        b.advance(source, -((full * s) as i32) * bytes);
        b.advance(target, -(full as i32) * bytes);
        done = full * block;
    }
    for first in (done..spec.elements).step_by(block) {
        of_block(b, first, spec.elements - first);
    }
}

/// Plane by plane, each vector stored before the next one is gathered: whatever the stride, one register is enough.
fn gather_planes(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let (tile, lanes) = (&spec.input_tile, b.lanes());
    let apart = tile.in_stride * spec.source_step;
    for run in plane_runs(spec.first, spec.elements, tile.in_stride) {
        let from = source.float((run.planes.start * spec.source_step) as i32).bytes;
        let to = tile.position(spec.first + run.planes.start);
        let vectors = run.elements.div_ceil(lanes);
        // A vector of a plane, so many bytes behind the first plane of the run.
        let vector = |b: &mut TileBuilder, from: i32, to: i32, count: usize| {
            // The bytes between elements may not fit where there is only one.
            let stride = if count > 1 { (4 * apart) as i32 } else { 0 };
            let gathered = b.gather(source.at(from), stride, count);
            let which = first_lanes(b, count);
            b.store_lanes(gathered, target.at(to), which);
        };
        let plane = |b: &mut TileBuilder, from: i32, to: i32| {
            let full = run.elements / lanes;
            let mut done = 0;
            if full > UNROLLED {
                let (source_bytes, target_bytes) = ((4 * lanes * apart) as i32, b.vector_bytes());
                let advances = [(source, source_bytes), (target, target_bytes)];
                b.repeat(full as u32, &advances, |b| vector(b, from, to, lanes));
                b.advance(source, -(full as i32) * source_bytes);
                b.advance(target, -(full as i32) * target_bytes);
                done = full;
            }
            for i in done..vectors {
                let count = (run.elements - i * lanes).min(lanes);
                vector(b, from + (4 * i * lanes * apart) as i32, to + (4 * i * lanes) as i32, count);
            }
        };
        let planes = run.planes.len();
        if planes * vectors > 2 * UNROLLED {
            let advances = [(source, 4 * spec.source_step as i32), (target, tile.plane_bytes)];
            b.repeat(planes as u32, &advances, |b| plane(b, from, to));
            b.advance(source, -((4 * planes * spec.source_step) as i32));
            b.advance(target, -(planes as i32) * tile.plane_bytes);
        } else {
            for k in 0..planes {
                plane(b, from + (4 * k * spec.source_step) as i32, to + k as i32 * tile.plane_bytes);
            }
        }
    }
}

/// Planes of an input tile that follow each other and take as many elements each.
#[derive(Debug, PartialEq, Eq)]
struct PlaneRun {
    /// Of the first so many elements, one in each plane, those that these planes begin with.
    planes: Range<usize>,
    /// Elements of each plane.
    elements: usize,
}

/// The planes that so many elements from position `first` on lie in, `stride` planes in all: they begin again with the first plane
/// at the position of a multiple of the stride, and some may hold one element more than others.
fn plane_runs(first: usize, elements: usize, stride: usize) -> impl Iterator<Item = PlaneRun> {
    let end = stride.min(elements);
    let mut cuts = [0, (stride - first % stride).min(end), (elements % stride).min(end), end];
    cuts.sort_unstable();
    let run =
        move |planes: Range<usize>| PlaneRun { elements: (elements - planes.start).div_ceil(stride), planes };
    (0..3).map(move |i| cuts[i]..cuts[i + 1]).filter(|planes| !planes.is_empty()).map(run)
}

/// The processor does not see the next channel coming: it is a plane away.
fn prefetch_next(b: &mut TileBuilder, at: Address, spec: &PackSpec) {
    if at.bytes % LINE_BYTES == 0
        && let Some(ahead) = at.bytes.checked_add(spec.source_channel)
    {
        b.prefetch(Address { bytes: ahead, ..at });
    }
}

/// Vectors of elements that are put apart beyond which a row is a loop.
const PUT_APART: usize = 4;

/// Elements of the source to positions `step` apart.
fn scatter(b: &mut TileBuilder, source: Pointer, target: Pointer, spec: &PackSpec) {
    let (lanes, tile) = (b.lanes(), &spec.input_tile);
    let of_vector = |b: &mut TileBuilder, first: usize, count: usize| {
        let which = first_lanes(b, count);
        let vector = b.load_lanes(source.float(first as i32), which);
        for lane in 0..count {
            let position = spec.first + (first + lane) * spec.step;
            b.store_lane(vector, lane, target.at(tile.position(position)));
        }
    };
    // Vectors after which elements go to the same planes again.
    let period = (1..=tile.in_stride).find(|n| (n * lanes * spec.step).is_multiple_of(tile.in_stride));
    let period = period.unwrap_or(tile.in_stride);
    let turns = spec.elements / (period * lanes);
    let mut done = 0;
    if turns > 1 && turns * period > PUT_APART {
        let from = (4 * period * lanes) as i32;
        let to = (4 * period * lanes * spec.step / tile.in_stride) as i32;
        b.repeat(turns as u32, &[(source, from), (target, to)], |b| {
            (0..period).for_each(|i| of_vector(b, i * lanes, lanes));
        });
        b.advance(source, -(turns as i32) * from);
        b.advance(target, -(turns as i32) * to);
        done = turns * period * lanes;
    }
    for first in (done..spec.elements).step_by(lanes) {
        of_vector(b, first, (spec.elements - first).min(lanes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_machine::Target;
    use tconvc_tile::backend;

    /// Every element lies in one plane, at the place of its position.
    #[test]
    fn runs_of_planes_hold_every_element() {
        for stride in 1..9usize {
            for (first, elements) in (0..20).flat_map(|first| (0..30).map(move |n| (first, n))) {
                let mut found = vec![0; elements];
                let mut runs = 0;
                for run in plane_runs(first, elements, stride) {
                    runs += 1;
                    let plane = (first + run.planes.start) % stride;
                    assert!(plane + run.planes.len() <= stride, "{stride} {first} {elements}");
                    for k in run.planes.clone() {
                        (0..run.elements).for_each(|i| found[k + i * stride] += 1);
                    }
                }
                assert!(runs <= 3 && found.iter().all(|&n| n == 1), "{stride} {first} {elements}: {found:?}");
            }
        }
    }

    /// Rows of any stride are copied within the registers of each target, by code that stays small.
    #[test]
    fn copies_of_any_stride_fit_every_target() {
        for name in ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "x86_64-pc-windows-msvc"] {
            let target = Target::parse(name).unwrap();
            for stride in [1usize, 2, 3, 4, 5, 8, 15, 16, 17, 31, 32, 33, 64, 160, 1000, 4096] {
                for (source_step, step, steps) in
                    [(1usize, 1usize, 1usize), (1, 1, 40), (7, 1, 40), (1, 2, 40), (1, 3, 1000), (1, 1, 3000)]
                {
                    let elements = (stride * steps).min(100_000);
                    let positions = (elements - 1) * step + 3;
                    let plane = positions.div_ceil(stride).next_multiple_of(16);
                    let bytes = |floats: usize| 4 * floats as i32;
                    let spec = PackSpec {
                        input_tile: InputTileLayout {
                            plane_bytes: bytes(plane),
                            row_bytes: bytes(plane * stride),
                            channel_bytes: bytes(plane * stride),
                            in_stride: stride,
                        },
                        cin: 2,
                        source_channel: bytes(elements * source_step),
                        source_row: bytes(elements * source_step),
                        source_step,
                        row_step: 1,
                        positions,
                        first: 1,
                        elements,
                        step,
                    };
                    let tile = write_copy(TileBuilder::new("copy", &target), &spec).unwrap();
                    let lines = tile.to_string().lines().count();
                    let allocated = backend::of(&target, backend::Settings::default()).allocate(tile);
                    allocated.unwrap_or_else(|error| panic!("{name}, {stride}: {error}"));
                    let period = if step > 1 { stride } else { 1 };
                    assert!(lines < 300 + 20 * period * target.lanes(), "{name}, {spec:?}: {lines} lines");
                }
            }
        }
    }
}
