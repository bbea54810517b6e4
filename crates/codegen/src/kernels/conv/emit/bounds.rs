//! Small arithmetic on bounds in the code around tiles, and loops and branches over them.

use crate::kernels::conv::schedule::tiling::cut_channels;
use crate::module::Glue;
use cranelift_codegen::ir::{InstBuilder, Value};

/// `total - done`.
pub(crate) fn rest_of(glue: &mut Glue<'_>, total: i64, done: Value) -> Value {
    let total = glue.constant(total);
    glue.builder.ins().isub(total, done)
}

/// Runs `body` for each of `0 .. count`.
pub(crate) fn repeat<'a>(glue: &mut Glue<'a>, count: Value, body: impl FnOnce(&mut Glue<'a>, Value)) {
    let zero = glue.constant(0);
    glue.for_each(zero, count, body);
}

pub(crate) fn at_least(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    glue.builder.ins().smax(value, bound)
}

pub(crate) fn at_most(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    smaller(glue, value, bound)
}

pub(crate) fn smaller(glue: &mut Glue<'_>, a: Value, b: Value) -> Value {
    glue.builder.ins().smin(a, b)
}

/// Quotient of a value that is not negative, rounded up.
pub(crate) fn ceil_div(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    if by == 1 {
        return value;
    }
    let up = glue.add_constant(value, by - 1);
    glue.builder.ins().udiv_imm_u(up, by)
}

/// Quotient rounded up; anything not above zero gives zero.
pub(crate) fn ceil_div_signed(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    let value = at_least(glue, value, 0);
    ceil_div(glue, value, by)
}

pub(crate) fn when(glue: &mut Glue<'_>, condition: Value, body: impl Fn(&mut Glue<'_>)) {
    glue.branch(condition, &mut |glue, holds| {
        if holds {
            body(glue);
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
    glue: &mut Glue<'_>,
    channels: usize,
    block: usize,
    (begin, end, parts): (Value, Value, usize),
    body: &mut dyn FnMut(&mut Glue<'_>, &ChannelTile),
) {
    let sizes = cut_channels(channels, block);
    let tiles: usize = sizes.iter().map(|&(_, tiles)| tiles).sum();
    let bound = |glue: &mut Glue<'_>, part: Value| {
        let scaled = glue.builder.ins().imul_imm_s(part, tiles as i64);
        if parts == 1 { scaled } else { glue.builder.ins().udiv_imm_u(scaled, parts as i64) }
    };
    let (begin, end) = (bound(glue, begin), bound(glue, end));
    let mut before = 0;
    for (size, (count, tiles)) in sizes.into_iter().enumerate() {
        let (low, high) = (before, before + tiles as i64);
        before = high;
        let from = at_least(glue, begin, low);
        let to = at_most(glue, end, high);
        glue.for_each(from, to, |glue, number| {
            let tile = glue.add_constant(number, -low);
            let first = glue.builder.ins().imul_imm_s(tile, count as i64);
            let first = glue.add_constant(first, low * block as i64);
            body(glue, &ChannelTile { size, count, number, first });
        });
    }
}
