//! The micro-kernel of `M` pixels by `N` vectors, with lanes along the output channels or along neighbouring x-phases. Pixels are
//! broadcast, weights are loaded. Lanes of channels are stored one by one, which pays on narrow maps where sums are long; those
//! of phases lie side by side in the output.

use super::super::epilogue::{Finish, Place};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::target::Isa;
use crate::tile::{Operand, Pointer, Tile, TileBuilder, TileError, Vector};

/// Everything the code of a tile depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PixelSpec {
    /// The vectors of results of a pixel at place 0.
    pub vectors: Vec<Place>,
    pub cin: usize,
    /// Bytes between input channels.
    pub channel_stride: i32,
    /// Bytes from the base of each tap.
    pub taps: Vec<i32>,
    /// For each pixel, bytes from the tile's place in the source and in the output.
    pub pixels: Vec<(i32, i32)>,
    pub finish: Finish,
}

/// Parameters of the tile's function: `x, w, bias, y`, then a pointer for each operand of the epilogue.
pub(super) fn build(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &PixelSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write(builder.tile(name), spec);
    builder.add_tile(tile)
}

/// Bytes between weights in use and those asked for.
const AHEAD: i32 = 2048;

/// Taps that are written out; beyond that they are a loop over a table of neighbours, or written out in parts.
const UNROLLED: usize = 600;

fn write(mut b: TileBuilder, spec: &PixelSpec) -> Result<Tile, TileError> {
    let [x, w, bias, y] = b.pointers(["x", "w", "bias", "y"]);
    let operands: Vec<Pointer> =
        (0..spec.finish.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let (bytes, vectors) = (b.vector_bytes(), spec.vectors.len());
    let mut accumulators = vec![];
    for _ in &spec.pixels {
        for place in &spec.vectors {
            let bias = bias.float(place.channel as i32);
            accumulators.push(if place.across { b.load(bias) } else { b.load_splat(bias) });
        }
    }
    let embedded = b.target().isa() == Isa::X86V4;
    let tap = |b: &mut TileBuilder, offset: i32, weight: i32| {
        // Weights are read once, in order: far enough ahead to arrive from memory in time.
        for line in 0..(vectors as i32 * bytes + 63) / 64 {
            b.prefetch(w.at(weight + AHEAD + 64 * line));
        }
        let weights: Vec<Vector> = (0..vectors).map(|n| b.load(w.at(weight + n as i32 * bytes))).collect();
        for (m, &(source, _)) in spec.pixels.iter().enumerate() {
            let pixel = x.at(offset + source);
            let factor =
                if embedded && vectors == 1 { pixel.splat() } else { Operand::Vector(b.load_splat(pixel)) };
            for (n, &weights) in weights.iter().enumerate() {
                b.fma(accumulators[m * vectors + n], weights, factor);
            }
        }
    };
    let step = vectors as i32 * bytes;
    let gap = spec.taps.windows(2).map(|pair| pair[1] - pair[0]).next();
    let even = gap.filter(|gap| spec.taps.windows(2).all(|pair| pair[1] - pair[0] == *gap));
    if !spec.taps.is_empty() {
        b.repeat(spec.cin as u32, &[(x, spec.channel_stride)], |b| match even {
            Some(gap) if spec.taps.len() * spec.pixels.len() * vectors > UNROLLED => {
                let count = spec.taps.len() as i32;
                b.advance(x, spec.taps[0]);
                b.repeat(count as u32, &[(x, gap), (w, step)], |b| tap(b, 0, 0));
                b.advance(x, -spec.taps[0] - count * gap);
            }
            _ => {
                for (i, &offset) in spec.taps.iter().enumerate() {
                    tap(b, offset, i as i32 * step);
                }
                b.advance(w, spec.taps.len() as i32 * step);
            }
        });
    }
    for (m, &(_, target)) in spec.pixels.iter().enumerate() {
        for (n, place) in spec.vectors.iter().enumerate() {
            let place = Place { offset: target + place.offset, ..place.clone() };
            let done = spec.finish.write(&mut b, &operands, accumulators[m * vectors + n], &place);
            place.store(&mut b, y, done);
        }
    }
    b.finish()
}
