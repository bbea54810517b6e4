//! The micro-kernel with lanes along the output channels: `M` pixels by `N` vectors of channels, for narrow maps. Pixels are
//! broadcast, weights are loaded, results are stored lane by lane; that pays where sums are long.

use super::super::epilogue::{Finish, Place};
use crate::builder::Builder;
use crate::error::CompileError;
use crate::exec::FunctionId;
use crate::target::Isa;
use crate::tile::{Operand, Pointer, Tile, TileBuilder, TileError, Vector};

/// Everything the code of a tile depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ChannelSpec {
    /// Vectors of channels, and channels that exist.
    pub n: usize,
    pub channels: usize,
    pub cin: usize,
    /// Bytes between input channels.
    pub channel_stride: i32,
    /// Bytes from the base of each tap.
    pub taps: Vec<i32>,
    /// For each pixel, bytes from the tile's place in the source and in the output.
    pub pixels: Vec<(i32, i32)>,
    /// Bytes between output channels.
    pub output_stride: i32,
    pub finish: Finish,
}

/// Parameters of the tile's function: `x, w, bias, y`, then a pointer for each operand of the epilogue.
pub(super) fn build(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &ChannelSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write(builder.tile(name), spec);
    builder.add_tile(tile)
}

/// Bytes between weights in use and those asked for.
const AHEAD: i32 = 2048;

/// Taps that are written out; beyond that they are a loop over a table of neighbours, or written out in parts.
const UNROLLED: usize = 600;

fn write(mut b: TileBuilder, spec: &ChannelSpec) -> Result<Tile, TileError> {
    let [x, w, bias, y] = b.pointers(["x", "w", "bias", "y"]);
    let operands: Vec<Pointer> =
        (0..spec.finish.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let mut accumulators = vec![];
    for _ in &spec.pixels {
        for n in 0..spec.n {
            accumulators.push(b.load(bias.at(n as i32 * bytes)));
        }
    }
    let embedded = b.target().isa() == Isa::X86V4;
    let tap = |b: &mut TileBuilder, offset: i32, weight: i32| {
        // Weights are read once, in order: far enough ahead to arrive from memory in time.
        for line in 0..(spec.n as i32 * bytes + 63) / 64 {
            b.prefetch(w.at(weight + AHEAD + 64 * line));
        }
        let weights: Vec<Vector> = (0..spec.n).map(|n| b.load(w.at(weight + n as i32 * bytes))).collect();
        for (m, &(source, _)) in spec.pixels.iter().enumerate() {
            let pixel = x.at(offset + source);
            let factor =
                if embedded && spec.n == 1 { pixel.splat() } else { Operand::Vector(b.load_splat(pixel)) };
            for (n, &weights) in weights.iter().enumerate() {
                b.fma(accumulators[m * spec.n + n], weights, factor);
            }
        }
    };
    let step = spec.n as i32 * bytes;
    let gap = spec.taps.windows(2).map(|pair| pair[1] - pair[0]).next();
    let even = gap.filter(|gap| spec.taps.windows(2).all(|pair| pair[1] - pair[0] == *gap));
    if !spec.taps.is_empty() {
        b.repeat(spec.cin as u32, &[(x, spec.channel_stride)], |b| match even {
            Some(gap) if spec.taps.len() * spec.pixels.len() * spec.n > UNROLLED => {
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
        for n in 0..spec.n {
            let count = spec.channels.saturating_sub(n * lanes).min(lanes);
            if count == 0 {
                continue;
            }
            let offset = target + (n * lanes) as i32 * spec.output_stride;
            let place = Place { offset, stride: spec.output_stride, count, channel: n * lanes, across: true };
            let done = spec.finish.write(&mut b, &operands, accumulators[m * spec.n + n], &place);
            place.store(&mut b, y, done);
        }
    }
    b.finish()
}
