//! The micro-kernel of pixels by `N` vectors, with lanes along the output channels or along neighbouring x-phases. Pixels are
//! broadcast, weights are loaded. Results with lanes along the channels are transposed where there are registers for it, so
//! that neighbouring pixels of a channel are stored together; else their lanes are stored one by one. Those of phases lie
//! side by side in the output.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::microkernel::post_ops::{Place, PostOps};
use crate::kernels::conv::microkernel::width::uniform;
use crate::kernels::conv::schedule::phases::Position;
use crate::kernels::conv::schedule::tiling::{LINE_BYTES, WEIGHTS_AHEAD, held_taps, transposes};
use std::collections::BTreeMap;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Operand, Pattern, Pointer, Tile, TileBuilder, TileError, Vector};

/// Everything the code of a tile depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PixelSpec {
    /// The vectors of results of a pixel at place 0.
    pub vectors: Vec<Place>,
    pub cin: usize,
    /// Bytes between input channels.
    pub channel_stride: i32,
    /// Bytes of each row of taps from the base.
    pub rows: Vec<i32>,
    /// Positions of taps in a row, lowest offset first.
    pub positions: Vec<Position>,
    pub points: Vec<Point>,
    pub post_ops: PostOps,
}

/// A pixel of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Point {
    /// Bytes from the tile's place in the source and in the output.
    pub source: i32,
    pub target: i32,
    /// Phase of the tile, as in [`Position::phases`].
    pub phase: usize,
}

/// Parameters of the tile's function: `x, w, bias, y`, then a pointer for each operand of the epilogue.
pub(crate) fn build(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &PixelSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write(builder.tile(name), spec);
    builder.add_tile(tile)
}

/// Multiply-adds that are written out; beyond that, rows of taps are a loop, or taps.
const UNROLLED: usize = 600;

/// A tap of a row: bytes from the row, and phase.
type Tap = (i32, usize);

/// Writes the sums over a row of taps, which begins so many bytes from `x`, and its weights from `w`.
struct Sums<'a> {
    spec: &'a PixelSpec,
    accumulators: &'a [Vector],
    x: Pointer,
    w: Pointer,
}

impl Sums<'_> {
    /// The taps in parts whose weights are held at once. Each pixel adds up its taps from the lowest offset on, however they
    /// are parted, so that it does not matter which tile it is in.
    fn row(&self, b: &mut TileBuilder, row: i32, taps: &[Tap], weight: i32) {
        let vectors = self.spec.vectors.len();
        let step = vectors as i32 * b.vector_bytes();
        let held = held_taps(b.target(), self.accumulators.len(), vectors);
        for (number, taps) in taps.chunks(held).enumerate() {
            self.part(b, row, taps, weight + (number * held) as i32 * step);
        }
    }

    fn part(&self, b: &mut TileBuilder, row: i32, taps: &[Tap], weight: i32) {
        let vectors = self.spec.vectors.len();
        let bytes = b.vector_bytes();
        let step = vectors as i32 * bytes;
        // Weights are read once, in order: far enough ahead to arrive from memory in time.
        for line in 0..(taps.len() as i32 * step + LINE_BYTES - 1) / LINE_BYTES {
            b.prefetch(self.w.at(weight + WEIGHTS_AHEAD + LINE_BYTES * line));
        }
        let weights: Vec<Vector> =
            (0..(taps.len() * vectors) as i32).map(|n| b.load(self.w.at(weight + n * bytes))).collect();
        // Inputs, each with the pixels and the taps that read it.
        let mut uses: BTreeMap<i32, Vec<(usize, usize)>> = BTreeMap::new();
        for (m, point) in self.spec.points.iter().enumerate() {
            for (tap, &(offset, phase)) in taps.iter().enumerate() {
                if phase == point.phase {
                    uses.entry(point.source + offset).or_default().push((m, tap));
                }
            }
        }
        let embedded = b.target().vectors().memory.broadcast && vectors == 1;
        for (offset, uses) in uses {
            let input = self.x.at(row + offset);
            let factor = if embedded && uses.len() == 1 {
                input.splat()
            } else {
                Operand::Vector(b.load_splat(input))
            };
            for (m, tap) in uses {
                for n in 0..vectors {
                    b.fma(self.accumulators[m * vectors + n], weights[tap * vectors + n], factor);
                }
            }
        }
    }
}

fn write(mut b: TileBuilder, spec: &PixelSpec) -> Result<Tile, TileError> {
    let [x, w, bias, y] = b.pointers(["x", "w", "bias", "y"]);
    let operands: Vec<Pointer> =
        (0..spec.post_ops.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let vectors = spec.vectors.len();
    let step = vectors as i32 * b.vector_bytes();
    let mut accumulators = vec![];
    for _ in &spec.points {
        for place in &spec.vectors {
            let bias = bias.float(place.channel as i32);
            accumulators.push(if place.across { b.load(bias) } else { b.load_splat(bias) });
        }
    }
    let taps: Vec<Tap> = spec
        .positions
        .iter()
        .flat_map(|position| position.phases.iter().map(|&phase| (position.offset, phase)))
        .collect();
    let in_row = taps.len() as i32 * step;
    let sums = Sums { spec, accumulators: &accumulators, x, w };
    if !taps.is_empty() && !spec.rows.is_empty() {
        let all = spec.rows.len() * taps.len() * spec.points.len() * vectors;
        // All taps of a lone phase, where they are as far from each other within rows as between them.
        let lone = taps.iter().all(|&(_, phase)| phase == 0);
        let offsets = spec.rows.iter().flat_map(|row| taps.iter().map(move |(offset, _)| row + offset));
        let tap_gap = uniform(offsets).filter(|_| lone);
        let row_gap = uniform(spec.rows.iter().copied()).filter(|_| all / spec.rows.len() <= UNROLLED);
        b.repeat(spec.cin as u32, &[(x, spec.channel_stride)], |b| {
            let mut repeat = |count: usize, first: i32, gap: i32, weights: i32, taps: &[Tap]| {
                let count = count as i32;
                b.advance(x, first);
                b.repeat(count as u32, &[(x, gap), (w, weights)], |b| sums.row(b, 0, taps, 0));
                b.advance(x, -first - count * gap);
            };
            match (row_gap, tap_gap) {
                (Some(gap), _) if all > UNROLLED => {
                    repeat(spec.rows.len(), spec.rows[0], gap, in_row, &taps);
                }
                (_, Some(gap)) if all > UNROLLED => {
                    let (count, first) = (spec.rows.len() * taps.len(), spec.rows[0] + taps[0].0);
                    repeat(count, first, gap, step, &[(0, 0)]);
                }
                _ => {
                    for (number, &row) in spec.rows.iter().enumerate() {
                        sums.row(b, row, &taps, number as i32 * in_row);
                    }
                    b.advance(w, spec.rows.len() as i32 * in_row);
                }
            }
        });
    }
    if transposes(b.target()) && spec.vectors.iter().all(|place| place.across) && spec.points.len() >= FEW {
        store_transposed(&mut b, spec, &operands, &accumulators, y);
        return b.finish();
    }
    for (m, point) in spec.points.iter().enumerate() {
        for (n, place) in spec.vectors.iter().enumerate() {
            let place = Place { offset: point.target + place.offset, ..place.clone() };
            let done = spec.post_ops.write(&mut b, &operands, accumulators[m * vectors + n], &place);
            place.store(&mut b, y, done);
        }
    }
    b.finish()
}

/// Pixels from which on it pays to transpose.
const FEW: usize = 4;

/// Stores results with lanes along the channels as rows of pixels.
fn store_transposed(
    b: &mut TileBuilder,
    spec: &PixelSpec,
    operands: &[Pointer],
    accumulators: &[Vector],
    y: Pointer,
) {
    let (lanes, vectors) = (b.lanes(), spec.vectors.len());
    let mut order: Vec<usize> = (0..spec.points.len()).collect();
    order.sort_by_key(|&m| spec.points[m].target);
    let (light, heavy) = spec.post_ops.split();
    let mut places = vec![];
    for (n, of_channels) in spec.vectors.iter().enumerate() {
        for square in order.chunks(lanes) {
            let rows: Vec<Vector> = square.iter().map(|&m| accumulators[m * vectors + n]).collect();
            let targets: Vec<i32> = square.iter().map(|&m| spec.points[m].target).collect();
            let runs = even_runs(&targets);
            b.transpose_each(&rows, |b, channel, row| {
                if channel >= of_channels.count {
                    return;
                }
                for &(first, count, stride) in &runs {
                    let place = Place {
                        offset: targets[first] + of_channels.offset + channel as i32 * of_channels.stride,
                        stride,
                        count,
                        channel: of_channels.channel + channel,
                        across: false,
                    };
                    let part = match first {
                        0 => row,
                        _ => b.shuffle(row, row, Pattern::new(lanes, |i| (i + first) % lanes)),
                    };
                    let done = light.write(b, operands, part, &place);
                    place.store(b, y, done);
                    places.push(place);
                }
            });
        }
    }
    if heavy.is_heavy() {
        let operands = &operands[light.operands()..];
        for place in places {
            let vector = place.load(b, y);
            let done = heavy.write(b, operands, vector, &place);
            place.store(b, y, done);
        }
    }
}

/// Runs of numbers that are evenly apart: first index, how many, and the gap.
fn even_runs(numbers: &[i32]) -> Vec<(usize, usize, i32)> {
    let mut runs = vec![];
    let mut first = 0;
    while first < numbers.len() {
        let gap = numbers.get(first + 1).map_or(4, |next| next - numbers[first]);
        let count =
            (first + 1..numbers.len()).take_while(|&i| numbers[i] - numbers[i - 1] == gap).count() + 1;
        // Two that are far apart are no run: the second may begin one.
        let count = if count == 2 && gap > 4 && first + 2 < numbers.len() { 1 } else { count };
        runs.push((first, count, if count == 1 { 4 } else { gap }));
        first += count;
    }
    runs
}

#[cfg(test)]
mod tests {
    use crate::kernels::conv::microkernel::pixels::even_runs;

    #[test]
    fn runs_are_as_long_as_the_gap_stays() {
        assert_eq!(even_runs(&[0, 4, 8, 40, 44, 48]), [(0, 3, 4), (3, 3, 4)]);
        assert_eq!(even_runs(&[0, 8, 16, 17]), [(0, 3, 8), (3, 1, 4)]);
        assert_eq!(even_runs(&[0, 40, 44, 48]), [(0, 1, 4), (1, 3, 4)]);
        assert_eq!(even_runs(&[0, 40]), [(0, 2, 40)]);
        assert_eq!(even_runs(&[12]), [(0, 1, 4)]);
    }
}
