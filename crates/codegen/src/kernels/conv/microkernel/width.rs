//! The micro-kernel: `M` output channels by `N` vectors along x, for the x-phases at hand, over all input channels and taps.

use crate::builder::Builder;
use crate::error::CompileError;
use crate::kernels::conv::microkernel::post_ops::{Place, PostOps};
use crate::kernels::conv::schedule::phases::{Position, Row};
use crate::kernels::conv::schedule::tiling::LINE_BYTES;
use crate::kernels::walk::first_lanes;
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Address, Lanes, Operand, Pattern, Pointer, TileBuilder, TileError, Vector};

/// What a tile copies beside its sums, of some channels: part of the input tile that comes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Copies {
    pub channels: usize,
    /// Channels between those that are copied and those asked for, at most all of them.
    pub ahead: usize,
    pub rows: usize,
    pub elements: usize,
    /// Bytes between channels and between rows.
    pub source: [i32; 2],
    pub target: [i32; 2],
}

/// A vector of neighbouring steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    /// Bytes from the tile's place in what it reads.
    pub offset: i32,
    /// Steps that exist; loads beyond are masked.
    pub steps: usize,
}

/// Lanes of a tile whose results lie in one row of the output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    /// The first of its steps, counted by the lanes of the vectors.
    pub first: usize,
    /// Where what may be stored ends: a step, or an element where phases interleave, in the same count.
    pub end: usize,
    /// Bytes from the tile's place in the output to that of the first step.
    pub offset: i32,
}

/// Everything the code of a tile depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TileSpec {
    pub m: usize,
    pub vectors: Vec<Span>,
    /// Number of x-phases.
    pub phases: usize,
    pub cin: usize,
    /// Bytes between input channels.
    pub channel_stride: i32,
    /// Bytes to the output of each row phase (along z and y) from the tile's place.
    pub row_phases: Vec<i32>,
    /// Rows of taps.
    pub rows: Vec<Row>,
    pub positions: Vec<Position>,
    pub segments: Vec<Segment>,
    /// Elements between neighbouring steps of a phase in the output row; the number of phases where they interleave.
    pub step_stride: usize,
    /// Bytes between output channels.
    pub output_stride: i32,
    /// Bytes between weights in use and those asked for.
    pub ahead: i32,
    /// Whether loads must not read past the last step.
    pub mask_loads: bool,
    pub copies: Option<Copies>,
    pub post_ops: PostOps,
}

impl TileSpec {
    /// The number of the sum of a phase, a channel and a vector.
    fn sum(&self, phase: usize, channel: usize, vector: usize) -> usize {
        (phase * self.m + channel) * self.vectors.len() + vector
    }

    /// The most phases that a position of a row feeds.
    fn most_fed(&self) -> usize {
        let rows = self.rows.iter().map(|row| row.phases.len()).max();
        let positions = self.positions.iter().map(|position| position.phases.len()).max();
        rows.unwrap_or(0) * positions.unwrap_or(0)
    }
}

/// Multiply-adds that are written out per input channel; beyond that, rows and positions of taps become loops.
const UNROLLED: usize = 400;

/// The distance between neighbours when it is the same everywhere.
pub(crate) fn uniform(values: impl Iterator<Item = i32> + Clone) -> Option<i32> {
    let mut gaps = values.clone().zip(values.skip(1)).map(|(a, b)| b - a);
    let first = gaps.next()?;
    gaps.all(|gap| gap == first).then_some(first)
}

/// Parameters of the tile's function: `x, w, bias, y`, then a pointer for each operand of the epilogue, then `from, to, ask` where it
/// copies: what it copies, to where, and what a later tile copies, to ask for it.
pub(crate) fn build(
    builder: &mut Builder<'_>,
    name: &str,
    spec: &TileSpec,
) -> Result<FunctionId, CompileError> {
    let tile = write(builder.tile(name), spec);
    builder.add_tile(tile)
}

fn write(mut b: TileBuilder, spec: &TileSpec) -> Result<tconvc_tile::Tile, TileError> {
    let [x, w, bias, y] = b.pointers(["x", "w", "bias", "y"]);
    let operands: Vec<Pointer> =
        (0..spec.post_ops.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let copies = spec.copies.as_ref().map(|copies| (copies, b.pointers(["from", "to", "ask"])));
    // Accumulator of phase f, channel m, vector n; x-phases of each row phase follow each other.
    let mut accumulators = vec![];
    for _ in 0..spec.row_phases.len() * spec.phases {
        for m in 0..spec.m {
            for _ in &spec.vectors {
                accumulators.push(b.load_splat(bias.float(m as i32)));
            }
        }
    }
    add_up(&mut b, spec, [x, w], copies, &accumulators);
    let lanes = b.lanes();
    // What needs registers works on what was stored, once the sums are done with.
    let (light, heavy) = spec.post_ops.split();
    let places = |row: usize, m: usize, n: usize| places(spec, lanes, (row, m, n));
    let all = (0..spec.row_phases.len())
        .flat_map(|row| (0..spec.m).flat_map(move |m| (0..spec.vectors.len()).map(move |n| (row, m, n))));
    for (row, m, n) in all.clone() {
        let phases = row * spec.phases..(row + 1) * spec.phases;
        let vectors: Vec<Vector> = phases.map(|f| accumulators[spec.sum(f, m, n)]).collect();
        let results = if spec.phases == spec.step_stride { b.interleave(&vectors) } else { vectors };
        for (index, first, place) in places(row, m, n) {
            let Some(&vector) = results.get(index) else { continue };
            let vector = match first {
                0 => vector,
                _ => b.shuffle(vector, vector, Pattern::new(lanes, |i| (i + first) % lanes)),
            };
            let done = light.write(&mut b, &operands, vector, &place);
            place.store(&mut b, y, done);
        }
    }
    if heavy.is_heavy() {
        let operands = &operands[light.operands()..];
        for (.., place) in all.flat_map(|(row, m, n)| places(row, m, n)) {
            let vector = place.load(&mut b, y);
            let done = heavy.write(&mut b, operands, vector, &place);
            place.store(&mut b, y, done);
        }
    }
    b.finish()
}

/// Sums over all input channels, and the copies beside them.
fn add_up(
    b: &mut TileBuilder,
    spec: &TileSpec,
    [x, w]: [Pointer; 2],
    copies: Option<(&Copies, [Pointer; 3])>,
    accumulators: &[Vector],
) {
    let per_row: usize = spec.positions.iter().map(|position| position.phases.len()).sum();
    let has_taps = per_row > 0 && !spec.rows.is_empty();
    if !has_taps && spec.copies.is_none() {
        return;
    }
    let fma = per_row * spec.m * spec.vectors.len();
    let joint = spec.row_phases.len() > 1;
    let all: usize = spec.rows.iter().map(|row| fma * row.phases.len()).sum();
    let row_step = uniform(spec.rows.iter().map(|row| row.offset));
    let position_step = uniform(spec.positions.iter().map(|position| position.offset))
        .filter(|_| spec.positions.iter().all(|position| position.phases == spec.positions[0].phases));
    let taps = |b: &mut TileBuilder, row: &Row, positions: &[Position], weight: &mut i32| {
        for position in positions {
            step(b, spec, [x, w], (row, position), weight, accumulators);
        }
    };
    let here = Row::at(0);
    let channel = |b: &mut TileBuilder| match (row_step, position_step) {
        _ if !has_taps => {}
        // Everything written out.
        _ if joint || all <= UNROLLED => {
            let mut weight = 0;
            for row in &spec.rows {
                taps(b, row, &spec.positions, &mut weight);
            }
            b.advance(w, 4 * weight);
        }
        // A loop over the positions, rows written out.
        (_, Some(position_step)) if fma > UNROLLED => {
            let count = spec.positions.len();
            for &Row { offset: row, .. } in &spec.rows {
                b.advance(x, row);
                let bytes = 4 * (spec.m * spec.positions[0].phases.len()) as i32;
                b.repeat(count as u32, &[(x, position_step), (w, bytes)], |b| {
                    taps(b, &here, &spec.positions[..1], &mut 0);
                });
                b.advance(x, -row - count as i32 * position_step);
            }
        }
        // A loop over the rows, positions written out.
        (Some(row_step), _) => {
            let count = spec.rows.len() as i32;
            b.advance(x, spec.rows[0].offset);
            b.repeat(count as u32, &[(x, row_step), (w, 4 * (per_row * spec.m) as i32)], |b| {
                taps(b, &here, &spec.positions, &mut 0);
            });
            b.advance(x, -spec.rows[0].offset - count * row_step);
        }
        _ => {
            for row in &spec.rows {
                let mut weight = 0;
                taps(b, row, &spec.positions, &mut weight);
                b.advance(w, 4 * weight);
            }
        }
    };
    let next = [(x, spec.channel_stride)];
    let mut left = spec.cin;
    if let Some((copies, [from, to, ask])) = copies {
        let each = spec.cin / copies.channels;
        left -= each * copies.channels;
        // The last channels ask for what another tile copies.
        let ahead = copies.ahead;
        let of_later = from.at(ahead as i32 * copies.source[0]);
        for (channels, asked, moves) in
            [(copies.channels - ahead, of_later, None), (ahead, ask.at(0), Some((ask, copies.source[0])))]
        {
            let moving = [(from, copies.source[0]), (to, copies.target[0])];
            let moving: Vec<_> = moving.into_iter().chain(moves).collect();
            if channels > 0 {
                b.repeat(channels as u32, &moving, |b| {
                    copy(b, copies, [from.at(0), to.at(0), asked]);
                    b.repeat(each as u32, &next, channel);
                });
            }
        }
    }
    if left > 0 {
        b.repeat(left as u32, &next, channel);
    }
}

/// Where the results of a row phase, a channel and a vector of steps go: for each part of a vector that lies in one row, the number of the
/// vector among those of the phases, its first lane, and its place. What is past the end of the row has no place.
fn places(spec: &TileSpec, lanes: usize, (row, m, n): (usize, usize, usize)) -> Vec<(usize, usize, Place)> {
    let interleaved = spec.phases == spec.step_stride;
    // Vectors of neighbouring elements; those of a lone phase are a stride apart.
    let (vectors, unit, stride) =
        if interleaved { (spec.phases, spec.phases, 1) } else { (1, 1, spec.step_stride) };
    let stride = 4 * stride as i32;
    let mut places = vec![];
    for index in 0..vectors {
        let start = (n * vectors + index) * lanes;
        for &Segment { first, end, offset } in &spec.segments {
            let (from, to) = ((first * unit).max(start), end.min(start + lanes));
            if from < to {
                let channel = spec.row_phases[row] + m as i32 * spec.output_stride;
                let offset = channel + offset + (from - first * unit) as i32 * stride;
                let place = Place { offset, stride, count: to - from, channel: m, across: false };
                places.push((index, from - start, place));
            }
        }
    }
    places
}

/// Copies of a channel.
fn copy(b: &mut TileBuilder, copies: &Copies, [from, to, ask]: [Address; 3]) {
    let lanes = b.lanes();
    for row in 0..copies.rows as i32 {
        for first in (0..copies.elements).step_by(lanes) {
            let count = (copies.elements - first).min(lanes);
            let which = first_lanes(b, count);
            let bytes = 4 * first as i32;
            let source = row * copies.source[1] + bytes;
            if bytes % LINE_BYTES == 0 {
                b.prefetch(ask.plus(source));
            }
            let vector = b.load_lanes(from.plus(source), which);
            b.store_lanes(vector, to.plus(row * copies.target[1] + bytes), which);
        }
    }
}

/// One position of one row: the input vectors, and a weight for each phase and channel.
fn step(
    b: &mut TileBuilder,
    spec: &TileSpec,
    [x, w]: [Pointer; 2],
    (row, position): (&Row, &Position),
    weight: &mut i32,
    accumulators: &[Vector],
) {
    let lanes = b.lanes();
    let load = |b: &mut TileBuilder, span: &Span| {
        let from = x.at(row.offset + position.offset + span.offset);
        if spec.mask_loads && span.steps < lanes {
            b.load_lanes(from, Lanes::First(span.steps as u8))
        } else {
            b.load(from)
        }
    };
    let phases = row.phases.iter().flat_map(|row| position.phases.iter().map(move |f| row * spec.phases + f));
    let sums: Vec<(usize, usize)> = phases.flat_map(|f| (0..spec.m).map(move |m| (f, m))).collect();
    // A splat as an operand is a load each time: used more than once, it takes a register.
    let embedded = spec.vectors.len() == 1 && b.target().vectors().memory.broadcast;
    let mut factor = |b: &mut TileBuilder| {
        if 4 * *weight % LINE_BYTES == 0 {
            b.prefetch(w.float(*weight).plus(spec.ahead));
        }
        let at = w.float(*weight);
        *weight += 1;
        if embedded { at.splat() } else { Operand::Vector(b.load_splat(at)) }
    };
    // What there is less of stays in registers.
    if spec.most_fed() * spec.m < spec.vectors.len() {
        let factors: Vec<Operand> = sums.iter().map(|_| factor(b)).collect();
        for (n, span) in spec.vectors.iter().enumerate() {
            let vector = load(b, span);
            for (&(f, m), &factor) in sums.iter().zip(&factors) {
                b.fma(accumulators[spec.sum(f, m, n)], vector, factor);
            }
        }
        return;
    }
    let vectors: Vec<Vector> = spec.vectors.iter().map(|span| load(b, span)).collect();
    for (f, m) in sums {
        let factor = factor(b);
        for (n, &vector) in vectors.iter().enumerate() {
            b.fma(accumulators[spec.sum(f, m, n)], vector, factor);
        }
    }
}
