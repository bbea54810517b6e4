//! The innermost axis of a copy that lies in order in the target: runs of vectors, repetitions, or one word at a time.

use super::super::walk::{each_vector, entry, first_lanes, store_up_to};
use super::axes::{Axis, CHUNK, Code, Piece, Source, bytes_of, cut, word_type};
use crate::builder::Builder;
use crate::error::CompileError;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData};
use tconvc_runtime::code::FunctionId;
use tconvc_tile::{Tile, TileBuilder, TileError};

/// Most repetitions of each word that are interleaved.
const REPEATED: usize = 4;

/// The code of a row.
pub(super) fn code(
    builder: &mut Builder<'_>,
    name: &str,
    row: &Axis,
    never_missing: bool,
    fill: u32,
) -> Result<Code, CompileError> {
    let missing = if never_missing {
        None
    } else {
        let count = row.extent;
        let tile = filled(builder.tile(&format!("{name}_fill")), row, fill);
        (count > 0).then(|| builder.add_tile(tile)).transpose()?
    };
    let mut code = Code { missing, ..Code::default() };
    let tile = match &row.source {
        _ if row.target != 1 => None,
        Source::Even { step: step @ (0 | 1), .. } if never_missing && row.extent > 2 * CHUNK => {
            let rest = code.cut(row.extent, CHUNK, [*step, 1]);
            code.kind = "run".into();
            let piece = |count| [Piece { first: 0, count, source: Some((0, *step)) }];
            if rest > 0 {
                let tile = pieces(builder.tile(&format!("{name}_rest")), &piece(rest), fill);
                code.rest = Some(builder.add_tile(tile)?);
            }
            Some(pieces(builder.tile(&format!("{name}_row")), &piece(CHUNK), fill))
        }
        Source::Even { step, .. } => {
            code.kind = if *step == 1 { "run" } else { "strided" }.into();
            let all = Piece { first: 0, count: row.extent, source: Some((0, *step)) };
            Some(pieces(builder.tile(&format!("{name}_row")), &[all], fill))
        }
        Source::Listed(places) => match (repetition(places), cut(places)) {
            (Some((first, times)), _) => {
                code.kind = format!("repeat{times}");
                let tile = builder.tile(&format!("{name}_row"));
                Some(repeated(tile, first, row.extent / times, times))
            }
            (None, Some(all)) => {
                code.kind = format!("pieces{}", all.len());
                Some(pieces(builder.tile(&format!("{name}_row")), &all, fill))
            }
            (None, None) => None,
        },
    };
    let tile = tile.map(|tile| builder.try_tile(tile)).transpose()?.flatten();
    code.full = Some(match tile {
        Some(code) => code,
        None => {
            code.kind = "words".into();
            one_by_one(builder, &format!("{name}_each"), row, (4, fill), &mut code)?
        }
    });
    Ok(code)
}

/// First place and number of repetitions, where each place stands so many times and the next one follows.
fn repetition(places: &[Option<i64>]) -> Option<(i64, usize)> {
    let first = places.first().copied()??;
    let times = places.iter().take_while(|&&place| place == Some(first)).count();
    let even = (2..=REPEATED).contains(&times) && places.len().is_multiple_of(times);
    let follows = |(i, place): (usize, &Option<i64>)| *place == Some(first + (i / times) as i64);
    (even && places.iter().enumerate().all(follows)).then_some((first, times))
}

fn pieces(mut b: TileBuilder, pieces: &[Piece], fill: u32) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    for piece in pieces {
        let to = 4 * piece.first as i32;
        let Some((start, step)) = piece.source else {
            let word = b.splat_bits(fill);
            each_vector(&mut b, piece.count, &[target], |b, at, lanes| {
                b.store_lanes(word, target.at(to + at), lanes);
            });
            continue;
        };
        let from = i32::try_from(4 * start).unwrap_or(i32::MAX);
        match step {
            0 => {
                let word = b.load_splat(source.at(from));
                each_vector(&mut b, piece.count, &[target], |b, at, lanes| {
                    b.store_lanes(word, target.at(to + at), lanes);
                });
            }
            1 => each_vector(&mut b, piece.count, &[source, target], |b, at, lanes| {
                let words = b.load_lanes(source.at(from + at), lanes);
                b.store_lanes(words, target.at(to + at), lanes);
            }),
            step => strided(&mut b, [source.at(from), target.at(to)], piece.count, step),
        }
    }
    b.finish()
}

/// Words `step` apart, one behind the other.
fn strided(b: &mut TileBuilder, [from, to]: [tconvc_tile::Address; 2], count: usize, step: i64) {
    let lanes = b.lanes();
    let stride = i32::try_from(4 * step).unwrap_or(i32::MAX);
    let vector = |b: &mut TileBuilder, count: usize| {
        let words = b.gather(from, stride, count);
        let which = first_lanes(b, count);
        b.store_lanes(words, to, which);
    };
    let (full, rest) = (count / lanes, count % lanes);
    let (source_step, target_step) = (stride.saturating_mul(lanes as i32), 4 * lanes as i32);
    if full > 0 {
        let moving = [(from.pointer, source_step), (to.pointer, target_step)];
        b.repeat(full as u32, &moving, |b| vector(b, lanes));
    }
    if rest > 0 {
        vector(b, rest);
    }
    if full > 0 {
        b.advance(from.pointer, source_step.saturating_mul(-(full as i32)));
        b.advance(to.pointer, -target_step * full as i32);
    }
}

/// Each of `count` words from `first` on, `times` times.
fn repeated(mut b: TileBuilder, first: i64, count: usize, times: usize) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let from = source.at(i32::try_from(4 * first).unwrap_or(i32::MAX));
    let block = |b: &mut TileBuilder, count: usize| {
        let which = first_lanes(b, count);
        let words = b.load_lanes(from, which);
        let spread = b.interleave(&vec![words; times]);
        for (i, part) in spread.into_iter().enumerate() {
            store_up_to(b, part, target, i, count * times);
        }
    };
    let (full, rest) = (count / lanes, count % lanes);
    if full > 0 {
        let moving = [(source, bytes), (target, bytes * times as i32)];
        b.repeat(full as u32, &moving, |b| block(b, lanes));
    }
    if rest > 0 {
        block(&mut b, rest);
    }
    b.finish()
}

fn filled(mut b: TileBuilder, row: &Axis, fill: u32) -> Result<Tile, TileError> {
    let target = b.pointer("target");
    let word = b.splat_bits(fill);
    if row.target == 1 {
        each_vector(&mut b, row.extent, &[target], |b, at, lanes| b.store_lanes(word, target.at(at), lanes));
    } else {
        let step = i32::try_from(4 * row.target).unwrap_or(i32::MAX);
        b.repeat(row.extent as u32, &[(target, step)], |b| b.store_lane(word, 0, target.at(0)));
    }
    b.finish()
}

/// A function that copies the words of any row, of `unit` bytes: `source, target, places, fill`.
pub(super) fn one_by_one(
    builder: &mut Builder<'_>,
    name: &str,
    row: &Axis,
    (unit, fill): (usize, u32),
    code: &mut Code,
) -> Result<FunctionId, CompileError> {
    let nowhere = i64::MIN;
    let places: Vec<i64> = match &row.source {
        Source::Even { start, step } => {
            (0..row.extent as i64).map(|i| bytes_of(unit, start + i * step)).collect()
        }
        Source::Listed(places) => {
            places.iter().map(|place| place.map_or(nowhere, |at| bytes_of(unit, at))).collect()
        }
    };
    code.more =
        vec![builder.pack_bytes(bytemuck::cast_slice(&places)), builder.pack_bytes(&fill.to_le_bytes())];
    let (extent, stride) = (row.extent as u64, bytes_of(unit, row.target as i64));
    let word = word_type(unit);
    builder.add_function(name, 4, |f| {
        let &[source, target, places, fill] = f.params.as_slice() else { return };
        f.for_count(extent, |f, i| {
            let place = entry(f, places, i);
            let there = f.builder.ins().iadd(source, place);
            let none = f.builder.ins().icmp_imm_s(IntCC::Equal, place, nowhere);
            let from = f.builder.ins().select(none, fill, there);
            let to = f.element(target, i, stride);
            let word = f.builder.ins().load(word, MemFlagsData::trusted(), from, 0);
            f.builder.ins().store(MemFlagsData::trusted(), word, to, 0);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_seen() {
        assert_eq!(repetition(&[Some(3), Some(3), Some(4), Some(4)]), Some((3, 2)));
        assert_eq!(repetition(&[Some(3), Some(3), Some(4)]), None);
        assert_eq!(repetition(&[Some(0), Some(1), Some(2)]), None);
        assert_eq!(repetition(&[None, None]), None);
    }
}
