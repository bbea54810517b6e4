//! Small arithmetic on bounds in the code around tiles, and loops and branches over them.

use crate::kernels::conv::schedule::tiling::cut_channels;
use crate::module::FunctionBuilder;
use cranelift_codegen::ir::{InstBuilder, Value};

/// `total - done`.
pub(crate) fn rest_of(f: &mut FunctionBuilder<'_>, total: i64, done: Value) -> Value {
    let total = f.constant(total);
    f.builder.ins().isub(total, done)
}

/// Runs `body` for each of `0 .. count`.
pub(crate) fn repeat<'a>(
    f: &mut FunctionBuilder<'a>,
    count: Value,
    body: impl FnOnce(&mut FunctionBuilder<'a>, Value),
) {
    let zero = f.constant(0);
    f.for_each(zero, count, body);
}

pub(crate) fn at_least(f: &mut FunctionBuilder<'_>, value: Value, bound: i64) -> Value {
    let bound = f.constant(bound);
    f.builder.ins().smax(value, bound)
}

pub(crate) fn at_most(f: &mut FunctionBuilder<'_>, value: Value, bound: i64) -> Value {
    let bound = f.constant(bound);
    smaller(f, value, bound)
}

pub(crate) fn smaller(f: &mut FunctionBuilder<'_>, a: Value, b: Value) -> Value {
    f.builder.ins().smin(a, b)
}

/// Quotient of a value that is not negative, rounded up.
pub(crate) fn ceil_div(f: &mut FunctionBuilder<'_>, value: Value, by: i64) -> Value {
    if by == 1 {
        return value;
    }
    let up = f.add_constant(value, by - 1);
    f.builder.ins().udiv_imm_u(up, by)
}

/// Quotient rounded up; anything not above zero gives zero.
pub(crate) fn ceil_div_signed(f: &mut FunctionBuilder<'_>, value: Value, by: i64) -> Value {
    let value = at_least(f, value, 0);
    ceil_div(f, value, by)
}

pub(crate) fn when(f: &mut FunctionBuilder<'_>, condition: Value, body: impl Fn(&mut FunctionBuilder<'_>)) {
    f.branch(condition, &mut |f, holds| {
        if holds {
            body(f);
        }
    });
}

/// A tile of output channels in a loop over them.
pub(crate) struct ChannelTile {
    /// Index of its size: 0 is a full tile, 1 the remainder.
    pub size: usize,
    /// Channels of it.
    pub count: usize,
    /// Tiles before it.
    pub number: Value,
    /// Channels before it.
    pub first: Value,
}

/// Runs `body` for the tiles of `block` channels from one part of them up to another, of so many parts: full tiles first,
/// then what is left of `channels`.
pub(crate) fn each_channel_tile(
    f: &mut FunctionBuilder<'_>,
    channels: usize,
    block: usize,
    (begin, end, parts): (Value, Value, usize),
    body: &mut dyn FnMut(&mut FunctionBuilder<'_>, &ChannelTile),
) {
    let sizes = cut_channels(channels, block);
    let tiles: usize = sizes.iter().map(|&(_, tiles)| tiles).sum();
    let bound = |f: &mut FunctionBuilder<'_>, part: Value| {
        let scaled = f.builder.ins().imul_imm_s(part, tiles as i64);
        if parts == 1 { scaled } else { f.builder.ins().udiv_imm_u(scaled, parts as i64) }
    };
    let (begin, end) = (bound(f, begin), bound(f, end));
    let mut before = 0;
    for (size, (count, tiles)) in sizes.into_iter().enumerate() {
        let (low, high) = (before, before + tiles as i64);
        before = high;
        let from = at_least(f, begin, low);
        let to = at_most(f, end, high);
        f.for_each(from, to, |f, number| {
            let tile = f.add_constant(number, -low);
            let first = f.builder.ins().imul_imm_s(tile, count as i64);
            let first = f.add_constant(first, low * block as i64);
            body(f, &ChannelTile { size, count, number, first });
        });
    }
}
