//! The innermost axis of a copy whose words are shorter than four bytes: runs eight bytes at a time, else word by word.

use super::axes::{Axis, CHUNK, Code, Piece, Source, bytes_of, cut, word_type};
use super::rows::one_by_one;
use crate::builder::Builder;
use crate::error::CompileError;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use tconvc_runtime::code::FunctionId;

/// Eight-byte moves of a run beyond which they become a loop.
const UNROLLED: usize = 8;
/// Rows shorter than this that are no runs give their place to a longer axis.
const SHORT: usize = 32;

/// The code of a row. A short one that is no run changes places with an outer axis, and long ones are cut.
pub(super) fn code(
    builder: &mut Builder<'_>,
    name: &str,
    outer: &mut [Axis],
    row: &Axis,
    word: (usize, u32),
) -> Result<Code, CompileError> {
    let mut row = row.clone();
    let even = |axis: &Axis| matches!(axis.source, Source::Even { .. });
    let run = row.target == 1 && matches!(row.source, Source::Even { step: 1, .. });
    if row.extent < SHORT
        && !run
        && even(&row)
        && let Some(longer) = outer.iter_mut().filter(|axis| even(axis)).max_by_key(|axis| axis.extent)
        && longer.extent > row.extent
    {
        std::mem::swap(longer, &mut row);
    }
    let mut code = Code::default();
    let never_missing = outer.iter().all(even);
    if !never_missing {
        let all = [Piece { first: 0, count: row.extent, source: None }];
        code.missing = Some(filled(builder, &format!("{name}_fill"), &row, &all, word)?);
    }
    let named = format!("{name}_row");
    code.full = Some(match &row.source {
        Source::Even { step, .. } => {
            code.kind = if row.target == 1 && *step == 1 { "run" } else { "strided" }.into();
            let piece = |count| [Piece { first: 0, count, source: Some((0, *step)) }];
            if never_missing && row.extent > 2 * CHUNK {
                let rest = code.cut(row.extent, CHUNK, [*step, row.target as i64]);
                if rest > 0 {
                    let name = format!("{name}_rest");
                    code.rest = Some(pieces(builder, &name, &row, &piece(rest), word)?);
                }
                pieces(builder, &named, &row, &piece(CHUNK), word)?
            } else {
                pieces(builder, &named, &row, &piece(row.extent), word)?
            }
        }
        Source::Listed(places) => match cut(places) {
            Some(all) => {
                code.kind = format!("pieces{}", all.len());
                pieces(builder, &named, &row, &all, word)?
            }
            None => {
                code.kind = "words".into();
                one_by_one(builder, &format!("{name}_each"), &row, word, &mut code)?
            }
        },
    });
    Ok(code)
}

/// A function of `source, target`.
fn pieces(
    builder: &mut Builder<'_>,
    name: &str,
    row: &Axis,
    pieces: &[Piece],
    (unit, fill): (usize, u32),
) -> Result<FunctionId, CompileError> {
    let word = word_type(unit);
    builder.add_function(name, 2, |f| {
        let &[source, target] = f.params.as_slice() else { return };
        for piece in pieces {
            let to = f.add_constant(target, bytes_of(unit, (piece.first * row.target) as i64));
            let Some((start, step)) = piece.source else {
                fill_piece(f, row, piece.count, to, (unit, fill));
                continue;
            };
            let from = f.add_constant(source, bytes_of(unit, start));
            if row.target == 1 && step == 1 {
                run(f, piece.count * unit, |f, ty, at| {
                    let from = f.builder.ins().iadd(from, at);
                    let value = f.builder.ins().load(ty, unaligned(), from, 0);
                    let to = f.builder.ins().iadd(to, at);
                    f.builder.ins().store(unaligned(), value, to, 0);
                });
                continue;
            }
            let (step, stride) = (bytes_of(unit, step), bytes_of(unit, row.target as i64));
            f.for_count(piece.count as u64, |f, i| {
                let from = f.element(from, i, step);
                let value = f.builder.ins().load(word, unaligned(), from, 0);
                let to = f.element(to, i, stride);
                f.builder.ins().store(unaligned(), value, to, 0);
            });
        }
    })
}

/// A function of `target` for a row without source.
fn filled(
    builder: &mut Builder<'_>,
    name: &str,
    row: &Axis,
    pieces: &[Piece],
    word: (usize, u32),
) -> Result<FunctionId, CompileError> {
    builder.add_function(name, 1, |f| {
        let &[target] = f.params.as_slice() else { return };
        for piece in pieces {
            fill_piece(f, row, piece.count, target, word);
        }
    })
}

/// `count` words of the fill from `to` on.
fn fill_piece(f: &mut FunctionBuilder<'_>, row: &Axis, count: usize, to: Value, (unit, fill): (usize, u32)) {
    let fill = i64::from(fill) | i64::from(fill) << 32;
    if row.target == 1 {
        run(f, count * unit, |f, ty, at| {
            let value = constant(f, ty, fill);
            let to = f.builder.ins().iadd(to, at);
            f.builder.ins().store(unaligned(), value, to, 0);
        });
        return;
    }
    let stride = bytes_of(unit, row.target as i64);
    f.for_count(count as u64, |f, i| {
        let value = constant(f, word_type(unit), fill);
        let to = f.element(to, i, stride);
        f.builder.ins().store(unaligned(), value, to, 0);
    });
}

/// The low bits of a value, as a constant.
fn constant(f: &mut FunctionBuilder<'_>, ty: Type, value: i64) -> Value {
    let mask = if ty == I64 { -1 } else { (1 << ty.bits()) - 1 };
    f.builder.ins().iconst(ty, value & mask)
}

/// Calls `body` for pieces of a run with their type and place: eight bytes as often as they fit, then what is left.
fn run(
    f: &mut FunctionBuilder<'_>,
    bytes: usize,
    mut body: impl FnMut(&mut FunctionBuilder<'_>, Type, Value),
) {
    let longs = bytes / 8;
    if longs > UNROLLED {
        f.for_count(longs as u64, |f, i| {
            let at = f.builder.ins().imul_imm_s(i, 8);
            body(f, I64, at);
        });
    } else {
        for i in 0..longs {
            let at = f.constant(8 * i as i64);
            body(f, I64, at);
        }
    }
    let mut done = 8 * longs;
    for (size, ty) in [(4, I32), (2, I16), (1, I8)] {
        if bytes - done >= size {
            let at = f.constant(done as i64);
            body(f, ty, at);
            done += size;
        }
    }
}

/// Loads and stores within the operands, anywhere.
fn unaligned() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}
