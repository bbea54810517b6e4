//! What step functions around rows share: an item's number taken apart, choices, and vectors along a row.

use crate::module::FunctionBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use tconvc_tile::{Lanes, Pointer, TileBuilder, Vector};

/// Indices along axes of these extents, outermost first, from a row-major number.
pub(super) fn indices(f: &mut FunctionBuilder<'_>, number: Value, extents: &[usize]) -> Vec<Value> {
    let (mut left, mut found) = (number, vec![]);
    for (axis, &extent) in extents.iter().enumerate().rev() {
        if axis == 0 {
            found.push(left);
        } else if extent == 1 {
            found.push(f.constant(0));
        } else {
            let quotient = f.builder.ins().udiv_imm_u(left, extent as i64);
            let whole = f.builder.ins().imul_imm_s(quotient, extent as i64);
            found.push(f.builder.ins().isub(left, whole));
            left = quotient;
        }
    }
    found.reverse();
    found
}

/// Runs one of two bodies.
pub(super) fn choose<'a>(
    f: &mut FunctionBuilder<'a>,
    condition: Value,
    yes: impl FnOnce(&mut FunctionBuilder<'a>),
    no: impl FnOnce(&mut FunctionBuilder<'a>),
) {
    let builder = &mut f.builder;
    let (first, second, join) = (builder.create_block(), builder.create_block(), builder.create_block());
    builder.ins().brif(condition, first, &[], second, &[]);
    builder.switch_to_block(first);
    builder.seal_block(first);
    yes(f);
    f.builder.ins().jump(join, &[]);
    f.builder.switch_to_block(second);
    f.builder.seal_block(second);
    no(f);
    f.builder.ins().jump(join, &[]);
    f.builder.switch_to_block(join);
    f.builder.seal_block(join);
}

/// Whether `value < bound`, unsigned.
pub(super) fn below(f: &mut FunctionBuilder<'_>, value: Value, bound: usize) -> Value {
    f.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, value, bound as i64)
}

/// The 64-bit entry of a table of constants.
pub(super) fn entry(f: &mut FunctionBuilder<'_>, table: Value, index: Value) -> Value {
    let at = f.element(table, index, 8);
    f.builder.ins().load(I64, MemFlagsData::trusted().with_readonly(), at, 0)
}

/// Vectors beyond which a row is a loop.
const UNROLLED: usize = 8;
/// Vectors of one trip of that loop.
const TRIP: usize = 4;

/// Calls `body` for each vector of `count` elements, with the bytes from the row's start and its lanes. Long rows become
/// a loop that moves `pointers` and moves them back.
pub(super) fn each_vector(
    b: &mut TileBuilder,
    count: usize,
    pointers: &[Pointer],
    mut body: impl FnMut(&mut TileBuilder, i32, Lanes),
) {
    let (lanes, bytes) = (b.lanes(), b.vector_bytes());
    let (full, rest) = (count / lanes, count % lanes);
    let mut done = 0;
    if full > UNROLLED {
        let trips = full / TRIP;
        let advances: Vec<_> = pointers.iter().map(|&pointer| (pointer, TRIP as i32 * bytes)).collect();
        b.repeat(trips as u32, &advances, |b| {
            (0..TRIP).for_each(|i| body(b, i as i32 * bytes, Lanes::All));
        });
        done = trips * TRIP;
        for &pointer in pointers {
            b.advance(pointer, -(done as i32) * bytes);
        }
    }
    (done..full).for_each(|i| body(b, i as i32 * bytes, Lanes::All));
    if rest > 0 {
        body(b, full as i32 * bytes, Lanes::First(rest as u8));
    }
}

/// The first `count` lanes.
pub(super) fn first_lanes(b: &TileBuilder, count: usize) -> Lanes {
    if count >= b.lanes() { Lanes::All } else { Lanes::First(count as u8) }
}

/// Stores vector number `i` of a row of `count` words, as far as it reaches.
pub(super) fn store_up_to(b: &mut TileBuilder, vector: Vector, target: Pointer, i: usize, count: usize) {
    let (lanes, at) = (b.lanes(), target.at(i as i32 * b.vector_bytes()));
    match count.saturating_sub(i * lanes) {
        0 => {}
        left if left >= lanes => b.store_lanes(vector, at, Lanes::All),
        left => b.store_lanes(vector, at, Lanes::First(left as u8)),
    }
}
