//! The transforms of data as tiles: a row of input tiles into factors, and products into rows of the output.
//! Lanes run along the tiles of a row.

use crate::kernels::conv::microkernel::post_ops::{Broadcast, Place, PostOps};
use crate::kernels::conv::problem::winograd::Matrices;
use crate::kernels::conv::schedule::input_tile::InputTileLayout;
use tconvc_tile::{Pointer, Tile, TileBuilder, TileError, Vector};

/// The input transform of one phase, over all input channels and the tiles of a row.
pub(crate) struct InputSpec<'a> {
    pub y: &'a Matrices,
    pub x: &'a Matrices,
    pub cin: usize,
    /// Vectors of tiles.
    pub vectors: usize,
    pub input_tile: InputTileLayout,
    /// Row and position of the input tile that the first input of the first tile has.
    pub row: usize,
    pub position: usize,
    /// Bytes between channels, and between product terms, of what is written.
    pub target_channel: i32,
    pub target_term: i32,
}

/// Parameters `input tile, factors, temporary`; the last has room for a vector for each product term.
pub(crate) fn input(mut b: TileBuilder, spec: &InputSpec<'_>) -> Result<Tile, TileError> {
    let [source, target, temporary] = b.pointers(["input_tile", "factors", "temporary"]);
    let bytes = b.vector_bytes();
    let (rows, columns) = (spec.y.n(), spec.x.n());
    let whole = spec.vectors as i32 * bytes;
    let advances = [(source, spec.input_tile.channel_bytes - whole), (target, spec.target_channel - whole)];
    b.repeat(spec.cin as u32, &advances, |b| {
        b.repeat(spec.vectors as u32, &[(source, bytes), (target, bytes)], |b| {
            let read = |b: &mut TileBuilder, i: usize, j: usize| {
                let row = (spec.row + i) as i32 * spec.input_tile.row_bytes;
                b.load(source.at(row + spec.input_tile.position(spec.position + j)))
            };
            let at = |i: usize, j: usize| (i * columns + j) as i32;
            let write = |b: &mut TileBuilder, i: usize, j: usize, vector: Vector| {
                b.store(vector, target.at(at(i, j) * spec.target_term));
            };
            // Along y, unless nothing is to be done there.
            if !spec.y.keeps_input() {
                for j in 0..columns {
                    let inputs: Vec<Vector> = (0..rows).map(|i| read(b, i, j)).collect();
                    factors(b, &spec.y.input, &inputs, |b, i, vector| {
                        if spec.x.keeps_input() {
                            write(b, i, j, vector);
                        } else {
                            b.store(vector, temporary.at(at(i, j) * bytes));
                        }
                    });
                }
                if spec.x.keeps_input() {
                    return;
                }
            }
            for i in 0..rows {
                let inputs: Vec<Vector> = (0..columns)
                    .map(|j| {
                        if spec.y.keeps_input() {
                            read(b, i, j)
                        } else {
                            b.load(temporary.at(at(i, j) * bytes))
                        }
                    })
                    .collect();
                factors(b, &spec.x.input, &inputs, |b, j, vector| write(b, i, j, vector));
            }
        });
    });
    b.finish()
}

/// The output transform of one y-phase, over some output channels and the tiles of a row.
pub(crate) struct OutputSpec<'a> {
    pub y: &'a Matrices,
    /// The x-phases, which interleave.
    pub xs: Vec<&'a Matrices>,
    /// Vectors of tiles.
    pub vectors: usize,
    /// Output rows of the phase that exist, at most `m`.
    pub rows: usize,
    /// Elements of the output row from the first tile to the end of what may be stored.
    pub outputs: usize,
    /// Bytes between channels, and between product terms, of what is read.
    pub source_channel: i32,
    pub source_term: i32,
    /// Bytes between neighbours in a row of the output, between output rows of the phase, and between channels.
    pub target_step: i32,
    pub target_row: i32,
    pub target_channel: i32,
    pub post_ops: &'a PostOps,
}

/// Parameters `products, bias, y, temporary` (with room for a vector for each product term, and for each result of a row), a pointer for each operand of the epilogue, and the number of channels.
pub(crate) fn output(mut b: TileBuilder, spec: &OutputSpec<'_>) -> Result<Tile, TileError> {
    let [source, bias, target, temporary] = b.pointers(["products", "bias", "y", "temporary"]);
    let operands: Vec<Pointer> =
        (0..spec.post_ops.operands()).map(|i| b.pointer(&format!("operand{i}"))).collect();
    let channels = b.count("channels");
    let lanes = b.lanes();
    let bytes = b.vector_bytes();
    let streams: usize = spec.xs.iter().map(|x| x.m).sum();
    let step = (streams * lanes) as i32 * spec.target_step;
    let full = (spec.outputs / (streams * lanes)).min(spec.vectors);
    // Those that follow the output move along the row with it.
    let along: Vec<Pointer> = std::iter::once(target)
        .chain(
            operands
                .iter()
                .zip(spec.post_ops.broadcasts())
                .filter_map(|(&operand, broadcast)| (broadcast == Broadcast::Output).then_some(operand)),
        )
        .collect();
    let moved = full as i32;
    let mut per_channel = vec![(source, spec.source_channel - moved * bytes), (bias, 4)];
    per_channel.extend(along.iter().map(|&pointer| (pointer, spec.target_channel - moved * step)));
    for (&operand, broadcast) in operands.iter().zip(spec.post_ops.broadcasts()) {
        if broadcast == Broadcast::Channels {
            per_channel.push((operand, 4));
        }
    }
    b.repeat(channels, &per_channel, |b| {
        if full > 0 {
            let mut advances = vec![(source, bytes)];
            advances.extend(along.iter().map(|&pointer| (pointer, step)));
            b.repeat(full as u32, &advances, |b| {
                row_of_tiles(b, spec, [source, bias, target, temporary], &operands, streams * lanes, 0);
            });
        }
        for vector in full..spec.vectors {
            let exist = spec.outputs.saturating_sub(vector * streams * lanes);
            let beyond = (vector - full) as i32;
            row_of_tiles(b, spec, [source, bias, target, temporary], &operands, exist, beyond);
        }
    });
    b.finish()
}

/// A vector of tiles: `exist` elements of the output row, `beyond` vectors behind where the pointers are.
fn row_of_tiles(
    b: &mut TileBuilder,
    spec: &OutputSpec<'_>,
    [source, bias, target, temporary]: [Pointer; 4],
    operands: &[Pointer],
    exist: usize,
    beyond: i32,
) {
    if exist == 0 {
        return;
    }
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let streams: usize = spec.xs.iter().map(|x| x.m).sum();
    let mut term = 0;
    let firsts: Vec<i32> = spec
        .xs
        .iter()
        .map(|x| {
            let first = term;
            term += (spec.y.n() * x.n()) as i32;
            first
        })
        .collect();
    let read = |b: &mut TileBuilder, term: i32| b.load(source.at(term * spec.source_term + beyond * bytes));
    if !spec.y.keeps_output() {
        for (x, first) in spec.xs.iter().zip(&firsts) {
            for j in 0..x.n() {
                let at = |i: usize| first + (i * x.n() + j) as i32;
                let products: Vec<Vector> = (0..spec.y.n()).map(|i| read(b, at(i))).collect();
                outputs(b, &spec.y.output, spec.rows, &products, |b, i, vector| {
                    b.store(vector, temporary.at(at(i) * bytes));
                });
            }
        }
    }
    let places = |row: usize| {
        let offset = row as i32 * spec.target_row + beyond * (streams * lanes) as i32 * spec.target_step;
        (0..streams).map(|j| j * lanes).take_while(|&start| start < exist).map(move |start| Place {
            offset: offset + spec.target_step * start as i32,
            stride: spec.target_step,
            count: (exist - start).min(lanes),
            channel: 0,
            across: false,
        })
    };
    let heavy = spec.post_ops.is_heavy();
    for row in 0..spec.rows {
        // Output `q * phases + f` of a tile is output `q` of phase `f`.
        let phases = spec.xs.len();
        let mut results: Vec<Option<Vector>> = vec![None; streams];
        for (f, (x, first)) in spec.xs.iter().zip(&firsts).enumerate() {
            let at = |j: usize| first + (row * x.n() + j) as i32;
            let products: Vec<Vector> =
                (0..if spec.y.n() == 0 { 0 } else { x.n() })
                    .map(|j| {
                        if spec.y.keeps_output() {
                            read(b, at(j))
                        } else {
                            b.load(temporary.at(at(j) * bytes))
                        }
                    })
                    .collect();
            outputs(b, &x.output, x.m, &products, |_, q, vector| results[q * phases + f] = Some(vector));
        }
        let results: Vec<Vector> = results.into_iter().flatten().collect();
        let results = b.interleave(&results);
        // Post-ops that need registers work on what was stored: in place, or beside it where elements are no neighbours.
        let beside = heavy && spec.target_step > 4;
        for (index, (vector, place)) in results.into_iter().zip(places(row)).enumerate() {
            let constant = b.load_splat(bias.at(0));
            let sum = b.add(constant, vector);
            if beside {
                b.store(sum, temporary.at((term + index as i32) * bytes));
                continue;
            }
            let done = if heavy { sum } else { spec.post_ops.write(b, operands, sum, &place) };
            place.store(b, target, done);
        }
        if heavy {
            for (index, place) in places(row).enumerate() {
                let vector = if beside {
                    b.load(temporary.at((term + index as i32) * bytes))
                } else {
                    place.load(b, target)
                };
                let done = spec.post_ops.write(b, operands, vector, &place);
                place.store(b, target, done);
            }
        }
    }
}

/// `matrix * inputs`, each result as soon as it is there. Neighbouring rows that differ only in the signs of some terms
/// share the sums of both kinds of terms.
fn factors(
    b: &mut TileBuilder,
    matrix: &[Vec<f64>],
    inputs: &[Vector],
    mut write: impl FnMut(&mut TileBuilder, usize, Vector),
) {
    let terms = |row: &[f64], keep: &dyn Fn(usize) -> bool| -> Vec<(f64, Vector)> {
        let all = row.iter().zip(inputs).enumerate();
        all.filter(|&(j, (&factor, _))| factor != 0.0 && keep(j)).map(|(_, (&f, &v))| (f, v)).collect()
    };
    let mut i = 0;
    while i < matrix.len() {
        let row = &matrix[i];
        if let Some(next) = matrix.get(i + 1)
            && row.iter().zip(next).all(|(a, b)| a.abs() == b.abs())
            && row != next
        {
            let same = terms(row, &|j| row[j] == next[j]);
            let opposite = terms(row, &|j| row[j] != next[j]);
            let (same, opposite) = (sum(b, &same), sum(b, &opposite));
            let (plus, minus) = (b.add(same, opposite), b.sub(same, opposite));
            write(b, i, plus);
            write(b, i + 1, minus);
            i += 2;
        } else {
            let result = sum(b, &terms(row, &|_| true));
            write(b, i, result);
            i += 1;
        }
    }
}

/// The first `rows` of `matrix * inputs`. Neighbouring inputs that every row takes with the same factor, up to sign, are added and subtracted first.
fn outputs(
    b: &mut TileBuilder,
    matrix: &[Vec<f64>],
    rows: usize,
    inputs: &[Vector],
    mut write: impl FnMut(&mut TileBuilder, usize, Vector),
) {
    // For each column: the input that stands for it where the sign of its neighbour is the same, and where it is not.
    let mut columns: Vec<(usize, Vector, Vector)> = vec![];
    let mut j = 0;
    while j < inputs.len() {
        let paired = j + 1 < inputs.len() && matrix.iter().all(|row| row[j].abs() == row[j + 1].abs());
        if paired {
            let (plus, minus) = (b.add(inputs[j], inputs[j + 1]), b.sub(inputs[j], inputs[j + 1]));
            columns.push((j, plus, minus));
            j += 2;
        } else {
            columns.push((j, inputs[j], inputs[j]));
            j += 1;
        }
    }
    for (i, row) in matrix.iter().enumerate().take(rows) {
        let terms: Vec<(f64, Vector)> = columns
            .iter()
            .filter(|&&(j, _, _)| row[j] != 0.0)
            .map(|&(j, plus, minus)| {
                let same = row.get(j + 1).is_none_or(|next| *next == row[j]);
                (row[j], if same { plus } else { minus })
            })
            .collect();
        let result = sum(b, &terms);
        write(b, i, result);
    }
}

/// The sum of `factor * vector`. May be one of the vectors.
fn sum(b: &mut TileBuilder, terms: &[(f64, Vector)]) -> Vector {
    let (ones, others): (Vec<_>, Vec<_>) = terms.iter().partition(|(factor, _)| factor.abs() == 1.0);
    let mut others = others.into_iter();
    let mut rest = ones.into_iter();
    let total = match (others.next(), rest.next()) {
        (Some((factor, vector)), first) => {
            let total = b.mul(vector, factor as f32);
            if let Some((sign, vector)) = first {
                b.binary_into(total, signed(sign), total, vector);
            }
            total
        }
        (None, Some((sign, first))) => match rest.next() {
            None if sign > 0.0 => return first,
            None => {
                let zero = b.zero();
                b.sub(zero, first)
            }
            // At least one of a row's ones is positive, or the first is taken from zero.
            Some((next, second)) => match (sign > 0.0, next > 0.0) {
                (true, _) => b.binary(signed(next), first, second),
                (false, true) => b.sub(second, first),
                (false, false) => {
                    let zero = b.zero();
                    let total = b.sub(zero, first);
                    b.binary_into(total, signed(next), total, second);
                    total
                }
            },
        },
        (None, None) => b.zero(),
    };
    for (factor, vector) in others {
        b.fma(total, vector, factor as f32);
    }
    for (sign, vector) in rest {
        b.binary_into(total, signed(sign), total, vector);
    }
    total
}

fn signed(sign: f64) -> tconvc_tile::BinaryOp {
    if sign > 0.0 { tconvc_tile::BinaryOp::Add } else { tconvc_tile::BinaryOp::Sub }
}
