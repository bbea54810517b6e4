//! Elementwise functions as vector code, for fused elementwise nodes and for post-ops.

use tconvc_ir::ops::Unary;
use tconvc_tile::{BinaryOp, Cmp, TileBuilder, UnaryOp, Vector};

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
            b.select(Cmp::Gt, x, alpha, x, zero)
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
            // Zero of either sign gives zero.
            let zero = b.zero();
            let neither = b.add(x, zero);
            let negative = b.select(Cmp::Lt, x, 0.0, minus, neither);
            b.select(Cmp::Gt, x, 0.0, one, negative)
        }
        Unary::Softsign => {
            let size = b.unary(UnaryOp::Abs, x);
            let size = b.add(size, 1.0);
            b.div(x, size)
        }
        Unary::Exp => b.exp(x),
        Unary::Log => b.log(x),
        Unary::Sigmoid => b.sigmoid(x),
        Unary::Tanh => b.tanh(x),
        Unary::Erf => b.erf(x),
        Unary::Sin => b.sin(x),
        Unary::Cos => b.cos(x),
        Unary::Swish { alpha } => {
            let scaled = b.mul(x, alpha);
            let gate = b.sigmoid(scaled);
            b.mul(x, gate)
        }
        Unary::Softplus => softplus(b, x),
        Unary::Mish => {
            let plus = softplus(b, x);
            let gate = b.tanh(plus);
            b.mul(x, gate)
        }
        Unary::Gelu => {
            let scaled = b.mul(x, std::f32::consts::FRAC_1_SQRT_2);
            let erf = b.erf(scaled);
            half_of(b, x, erf)
        }
        Unary::GeluTanh => {
            let square = b.mul(x, x);
            let inner = b.mul(square, 0.044_715);
            let inner = b.add(inner, 1.0);
            let inner = b.mul(x, inner);
            let inner = b.mul(inner, (2.0 / std::f32::consts::PI).sqrt());
            let tanh = b.tanh(inner);
            half_of(b, x, tanh)
        }
        Unary::Elu { alpha } => {
            let negative = b.exp_minus_one(x);
            let negative = b.mul(negative, alpha);
            b.select(Cmp::Lt, x, 0.0, negative, x)
        }
        Unary::Celu { alpha } => {
            let scaled = b.div(x, alpha);
            let negative = b.exp_minus_one(scaled);
            let negative = b.mul(negative, alpha);
            b.select(Cmp::Lt, x, 0.0, negative, x)
        }
        Unary::Selu { alpha, gamma } => {
            let negative = b.exp_minus_one(x);
            let negative = b.mul(negative, alpha);
            let y = b.select(Cmp::Lt, x, 0.0, negative, x);
            b.mul(y, gamma)
        }
        Unary::FakeQuantize { scale, low, high } => {
            let quotient = if scale == 1.0 { x } else { b.div(x, scale) };
            let zero = b.zero();
            let numbers = b.select(Cmp::Eq, quotient, quotient, quotient, zero);
            let steps = b.unary(UnaryOp::Round, numbers);
            // Zeros lose their sign: integers lie between the two operators.
            let steps = b.add(steps, 0.0);
            let steps = clamp(b, steps, low, high);
            if scale == 1.0 { steps } else { b.mul(steps, scale) }
        }
        other => b.misuse(format!("{} has no vector code", other.name()), x),
    }
}

/// True for functions that need several registers of their own: a tile with all its accumulators alive has none left.
pub(super) fn is_heavy(op: Unary) -> bool {
    !matches!(
        op,
        Unary::Relu
            | Unary::LeakyRelu { .. }
            | Unary::ThresholdedRelu { .. }
            | Unary::Clamp { .. }
            | Unary::Neg
            | Unary::Abs
            | Unary::Sqrt
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
    )
}

/// `x / 2 * (1 + y)`.
fn half_of(b: &mut TileBuilder, x: Vector, y: Vector) -> Vector {
    let half = b.mul(x, 0.5);
    let sum = b.add(y, 1.0);
    b.mul(half, sum)
}

/// `log(1 + e^x)` as `max(x, 0) + log(1 + e^-|x|)`.
fn softplus(b: &mut TileBuilder, x: Vector) -> Vector {
    let size = b.unary(UnaryOp::Abs, x);
    let size = b.unary(UnaryOp::Neg, size);
    let e = b.exp(size);
    let sum = b.add(e, 1.0);
    let log = b.log(sum);
    let zero = b.zero();
    let positive = b.max(zero, x);
    b.add(positive, log)
}

fn clamp(b: &mut TileBuilder, x: Vector, min: f32, max: f32) -> Vector {
    let low = b.splat(min);
    let x = b.binary(BinaryOp::Max, low, x);
    let high = b.splat(max);
    b.binary(BinaryOp::Min, high, x)
}
