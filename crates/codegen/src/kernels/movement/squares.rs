//! Copies whose source lies in order along another axis than the target: transposes in registers.

use super::super::walk::{first_lanes, store_up_to};
use super::axes::{Axis, Code, Source};
use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_tile::{Lanes, Tile, TileBuilder, TileError};

/// Extents up to which a whole axis is interleaved, or taken apart, in registers.
const FEW: usize = 4;

/// The two axes of a transpose: `row` lies in order in the target, `column` in the source.
struct Square {
    row: usize,
    column: usize,
    /// Words between neighbours of the row in the source, and of the column in the target.
    source: i32,
    target: i32,
}

/// The code of a transpose of `row` and one of the outer axes, which is taken out; `None` where it is none.
pub(super) fn code(
    builder: &mut Builder<'_>,
    name: &str,
    outer: &mut Vec<Axis>,
    row: &Axis,
) -> Result<Option<Code>, CompileError> {
    let even = |axis: &Axis| matches!(axis.source, Source::Even { .. });
    let Source::Even { step, .. } = row.source else { return Ok(None) };
    if row.target != 1 || step < 2 || !outer.iter().all(even) {
        return Ok(None);
    }
    let in_order = |axis: &Axis| axis.source == Source::Even { start: 0, step: 1 };
    let Some(at) = outer.iter().position(in_order) else { return Ok(None) };
    let column = &outer[at];
    let (Ok(source), Ok(target)) = (i32::try_from(step), i32::try_from(column.target)) else {
        return Ok(None);
    };
    let square = Square { row: row.extent, column: column.extent, source, target };
    let lanes = builder.target.lanes();
    let mut code = Code::default();
    let tile = builder.tile(&format!("{name}_square"));
    let full = if square.row <= FEW && column.target == square.row {
        code.kind = format!("interleave{}", square.row);
        interleave(tile, &square)
    } else if square.column <= FEW && step == square.column as i64 {
        code.kind = format!("split{}", square.column);
        deinterleave(tile, &square)
    } else {
        code.kind = "transpose".into();
        let rest = code.cut(square.column, lanes, [1, i64::from(target)]);
        if rest > 0 {
            let rest = transpose(builder.tile(&format!("{name}_edge")), &square, rest);
            let Some(rest) = builder.try_tile(rest)? else { return Ok(None) };
            code.rest = Some(rest);
        }
        transpose(tile, &square, lanes)
    };
    if code.whole > 0 {
        let Some(full) = builder.try_tile(full)? else { return Ok(None) };
        code.full = Some(full);
    }
    outer.remove(at);
    Ok(Some(code))
}

/// `columns` of the column, along the whole row.
fn transpose(mut b: TileBuilder, square: &Square, columns: usize) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let lanes = b.lanes();
    let which = first_lanes(&b, columns);
    let block = |b: &mut TileBuilder, rows: usize| {
        let zero = (rows < lanes).then(|| b.zero());
        let vectors: Vec<_> = (0..lanes)
            .map(|i| match zero {
                Some(zero) if i >= rows => zero,
                _ => b.load_lanes(source.float(i as i32 * square.source), which),
            })
            .collect();
        let turned = b.transpose(&vectors);
        let stored = first_lanes(b, rows);
        for (k, vector) in turned.into_iter().enumerate().take(columns) {
            b.store_lanes(vector, target.float(k as i32 * square.target), stored);
        }
    };
    let (full, rest) = (square.row / lanes, square.row % lanes);
    if full > 0 {
        let moving = [(source, 4 * lanes as i32 * square.source), (target, 4 * lanes as i32)];
        b.repeat(full as u32, &moving, |b| block(b, lanes));
    }
    if rest > 0 {
        block(&mut b, rest);
    }
    b.finish()
}

/// A short row, one behind the other in the target: the vectors of a few source rows in turns.
fn interleave(mut b: TileBuilder, square: &Square) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let block = |b: &mut TileBuilder, count: usize| {
        let which = first_lanes(b, count);
        let vectors: Vec<_> =
            (0..square.row).map(|i| b.load_lanes(source.float(i as i32 * square.source), which)).collect();
        for (i, vector) in b.interleave(&vectors).into_iter().enumerate() {
            store_up_to(b, vector, target, i, count * square.row);
        }
    };
    let (full, rest) = (square.column / lanes, square.column % lanes);
    if full > 0 {
        let moving = [(source, bytes), (target, bytes * square.row as i32)];
        b.repeat(full as u32, &moving, |b| block(b, lanes));
    }
    if rest > 0 {
        block(&mut b, rest);
    }
    b.finish()
}

/// A short column, one behind the other in the source: its elements go to a few target rows.
fn deinterleave(mut b: TileBuilder, square: &Square) -> Result<Tile, TileError> {
    let [source, target] = b.pointers(["source", "target"]);
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let block = |b: &mut TileBuilder, count: usize| {
        let zero = (count < lanes).then(|| b.zero());
        let vectors: Vec<_> = (0..square.column)
            .map(|i| {
                let at = source.at(i as i32 * bytes);
                match ((count * square.column).saturating_sub(i * lanes), zero) {
                    (0, Some(zero)) => zero,
                    (left, _) if left >= lanes => b.load(at),
                    (left, _) => b.load_lanes(at, Lanes::First(left as u8)),
                }
            })
            .collect();
        let stored = first_lanes(b, count);
        for (k, vector) in b.deinterleave(&vectors).into_iter().enumerate() {
            b.store_lanes(vector, target.float(k as i32 * square.target), stored);
        }
    };
    let (full, rest) = (square.row / lanes, square.row % lanes);
    if full > 0 {
        let moving = [(source, bytes * square.column as i32), (target, bytes)];
        b.repeat(full as u32, &moving, |b| block(b, lanes));
    }
    if rest > 0 {
        block(&mut b, rest);
    }
    b.finish()
}
