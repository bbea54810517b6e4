//! Elementwise functions as vector code, for chains and epilogues alike.

use crate::tile::{BinaryOp, Cmp, TileBuilder, UnaryOp, Vector};
use tconvc_ir::ops::Unary;

/// `op x`. NaN comes out where ONNX has it so.
pub(super) fn apply(b: &mut TileBuilder, op: Unary, x: Vector) -> Vector {
    match op {
        Unary::Relu => {
            let zero = b.zero();
            b.max(zero, x)
        }
        Unary::LeakyRelu { alpha } => {
            let scaled = b.mul(x, alpha);
            b.select(Cmp::Lt, x, 0.0, scaled, x)
        }
        Unary::ThresholdedRelu { alpha } => {
            let zero = b.zero();
            b.select(Cmp::Le, x, alpha, zero, x)
        }
        Unary::Clamp { min, max } => clamp(b, x, min, max),
        Unary::HardSigmoid { alpha, beta } => {
            let line = b.mul(x, alpha);
            let line = b.add(line, beta);
            clamp(b, line, 0.0, 1.0)
        }
        Unary::HardSwish => {
            let line = b.mul(x, 1.0 / 6.0);
            let line = b.add(line, 0.5);
            let gate = clamp(b, line, 0.0, 1.0);
            b.mul(x, gate)
        }
        Unary::Neg => b.unary(UnaryOp::Neg, x),
        Unary::Abs => b.unary(UnaryOp::Abs, x),
        Unary::Sqrt => b.unary(UnaryOp::Sqrt, x),
        Unary::Floor => b.unary(UnaryOp::Floor, x),
        Unary::Ceil => b.unary(UnaryOp::Ceil, x),
        Unary::Round => b.unary(UnaryOp::Round, x),
        Unary::Reciprocal => {
            let one = b.splat(1.0);
            b.div(one, x)
        }
        Unary::Sign => {
            let one = b.splat(1.0);
            let minus = b.splat(-1.0);
            let negative = b.select(Cmp::Lt, x, 0.0, minus, x);
            b.select(Cmp::Gt, x, 0.0, one, negative)
        }
        Unary::Softsign => {
            let size = b.unary(UnaryOp::Abs, x);
            let size = b.add(size, 1.0);
            b.div(x, size)
        }
        other => b.misuse(format!("{} has no vector code", other.name()), x),
    }
}

fn clamp(b: &mut TileBuilder, x: Vector, min: f32, max: f32) -> Vector {
    let low = b.splat(min);
    let x = b.binary(BinaryOp::Max, low, x);
    let high = b.splat(max);
    b.binary(BinaryOp::Min, high, x)
}
