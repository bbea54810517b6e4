//! Small arithmetic on bounds in the code around tiles, and loops and branches over them.

use crate::exec::Glue;
use cranelift_codegen::ir::{InstBuilder, Value};

/// `total - done`.
pub(super) fn rest_of(glue: &mut Glue<'_>, total: i64, done: Value) -> Value {
    let total = glue.constant(total);
    glue.builder.ins().isub(total, done)
}

/// Runs `body` for each of `0 .. count`.
pub(super) fn repeat<'a>(glue: &mut Glue<'a>, count: Value, body: impl FnOnce(&mut Glue<'a>, Value)) {
    let zero = glue.constant(0);
    glue.for_each(zero, count, body);
}

pub(super) fn at_least(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    glue.builder.ins().smax(value, bound)
}

pub(super) fn at_most(glue: &mut Glue<'_>, value: Value, bound: i64) -> Value {
    let bound = glue.constant(bound);
    smaller(glue, value, bound)
}

pub(super) fn smaller(glue: &mut Glue<'_>, a: Value, b: Value) -> Value {
    glue.builder.ins().smin(a, b)
}

/// Quotient of a value that is not negative, rounded up.
pub(super) fn ceil_div(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    if by == 1 {
        return value;
    }
    let up = glue.add_constant(value, by - 1);
    glue.builder.ins().udiv_imm_u(up, by)
}

/// Quotient rounded up; anything not above zero gives zero.
pub(super) fn ceil_div_signed(glue: &mut Glue<'_>, value: Value, by: i64) -> Value {
    let value = at_least(glue, value, 0);
    ceil_div(glue, value, by)
}

pub(super) fn when(glue: &mut Glue<'_>, condition: Value, body: impl Fn(&mut Glue<'_>)) {
    glue.branch(condition, &mut |glue, holds| {
        if holds {
            body(glue);
        }
    });
}
