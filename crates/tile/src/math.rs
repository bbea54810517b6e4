//! Transcendental functions, written in the tile IR: range reduction and polynomials, the same on every target.
//!
//! Errors are the largest found in a scan of f32, with fused and with separate multiply-adds; `tests/math.rs` repeats
//! it and fails where they are exceeded. NaN gives NaN everywhere, infinities give the limits.

use super::builder::TileBuilder;
use super::ir::{BinaryOp, Cmp, Operand, UnaryOp, Vector};

/// ln 2 in two parts: nine bits, so that products with an exponent are exact, and the rest.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// The bits of 1.0: an exponent of zero.
const ONE: u32 = 0x3f80_0000;

/// (e^r - 1 - r - r^2 / 2) / r^3 for |r| below ln 2 / 2, highest power first.
const EXP: [f32; 4] = [1.386_320_3e-3, 8.368_148e-3, 4.166_726e-2, 1.666_652_9e-1];

/// (ln(1 + f) - f + f^2 / 2) / f^3 for f between sqrt(1/2) - 1 and sqrt(2) - 1, highest power first (Cephes).
const LOG: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_9e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_7e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// (tanh x - x) / x^3 for |x| below [`TANH_NEAR`], as a polynomial in x^2, highest power first.
const TANH: [f32; 5] = [-5.704_984e-3, 2.063_908_4e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1];
/// Where tanh goes over from a polynomial to the exponential function.
const TANH_NEAR: f32 = 0.625;

/// erf x / x - 1 for |x| below [`ERF_NEAR`], as a polynomial in x^2, highest power first.
const ERF: [f32; 6] =
    [-6.203_252e-4, 5.032_181e-3, -2.679_146_3e-2, 1.128_245_5e-1, -3.761_255e-1, 1.283_791_5e-1];
/// ln(1 - erf x) for x from [`ERF_NEAR`] to [`ERF_LIMIT`], highest power first.
const ERF_FAR: [f32; 7] = [
    1.999_014_3e-4,
    -3.081_996_7e-3,
    2.238_103_2e-2,
    -1.042_502_1e-1,
    -6.368_207e-1,
    -1.127_889_4,
    -1.442_102_2e-4,
];
/// Where erf goes over from one polynomial to the other.
const ERF_NEAR: f32 = 0.875;
/// Above this erf is 1 in f32.
const ERF_LIMIT: f32 = 4.0;

impl TileBuilder {
    /// e^x. Error below 1.2 ulp, denormal results included; overflows to infinity.
    pub fn exp(&mut self, x: Vector) -> Vector {
        let (low, high) = (self.splat(-104.0), self.splat(88.8));
        let x = self.max(low, x);
        let x = self.min(high, x);
        let (p, n) = self.exp_reduced(x);
        // Two factors, because 2^n alone can be out of range where the result is not.
        let half = self.sar(n, 1);
        let rest = self.binary(BinaryOp::IntSub, n, half);
        let scale = self.power_of_two(half);
        let p = self.mul(p, scale);
        let scale = self.power_of_two(rest);
        self.mul(p, scale)
    }

    /// e^x for x up to 0. Below -87 it stays at 1.6e-38.
    fn exp_of_negative(&mut self, x: Vector) -> Vector {
        let low = self.splat(-87.0);
        let x = self.max(low, x);
        let (p, n) = self.exp_reduced(x);
        let scale = self.power_of_two(n);
        self.mul(p, scale)
    }

    /// p and an integer n with e^x = p * 2^n.
    fn exp_reduced(&mut self, x: Vector) -> (Vector, Vector) {
        let rounder = self.splat(ROUNDER);
        let shifted = self.splat(ROUNDER);
        self.fma(shifted, x, std::f32::consts::LOG2_E);
        let n = self.sub(shifted, rounder);
        let r = self.unary(UnaryOp::Copy, x);
        self.fma_sub(r, n, LN2_HIGH);
        self.fma_sub(r, n, LN2_LOW);
        let p = self.polynomial(r, &EXP);
        self.horner(p, r, 0.5);
        self.horner(p, r, 1.0);
        self.horner(p, r, 1.0);
        (p, self.binary(BinaryOp::IntSub, shifted, rounder))
    }

    /// 2^n for an integer vector n between -126 and 127.
    fn power_of_two(&mut self, n: Vector) -> Vector {
        let exponent = self.shl(n, 23);
        self.binary(BinaryOp::IntAdd, exponent, Operand::Bits(ONE))
    }

    /// Natural logarithm. Error below 0.9 ulp, denormal arguments included; -inf of 0, NaN of what is below.
    pub fn log(&mut self, x: Vector) -> Vector {
        // Denormals are brought into range.
        let scaled = self.mul(x, 8_388_608.0);
        let (none, down) = (self.zero(), self.splat(-23.0));
        let normal = self.select(Cmp::Lt, x, f32::MIN_POSITIVE, scaled, x);
        let correction = self.select(Cmp::Lt, x, f32::MIN_POSITIVE, down, none);
        // m * 2^e with m between sqrt(1/2) and sqrt(2).
        let above = self.binary(BinaryOp::IntSub, normal, Operand::Bits(0.5_f32.sqrt().to_bits()));
        let e = self.sar(above, 23);
        let exponent = self.shl(e, 23);
        let m = self.binary(BinaryOp::IntSub, normal, exponent);
        let e = self.unary(UnaryOp::ToFloat, e);
        let e = self.add(e, correction);
        let f = self.sub(m, 1.0);
        let square = self.mul(f, f);
        let cube = self.mul(square, f);
        let p = self.polynomial(f, &LOG);
        let y = self.mul(p, cube);
        self.fma(y, e, LN2_LOW);
        self.fma(y, square, -0.5);
        let result = self.add(f, y);
        self.fma(result, e, LN2_HIGH);

        let (nan, minus) = (self.splat(f32::NAN), self.splat(f32::NEG_INFINITY));
        let result = self.select(Cmp::Lt, x, f32::INFINITY, result, x);
        let not_positive = self.select(Cmp::Eq, x, 0.0, minus, nan);
        self.select(Cmp::Gt, x, 0.0, result, not_positive)
    }

    /// 1 / (1 + e^-x). Error below 1e-7, and 2.1 ulp where x is above -87; 0 below, so that products with x go to zero, too.
    pub fn sigmoid(&mut self, x: Vector) -> Vector {
        let magnitude = self.unary(UnaryOp::Abs, x);
        let negative = self.unary(UnaryOp::Neg, magnitude);
        let e = self.exp_of_negative(negative);
        let one = self.splat(1.0);
        let sum = self.add(e, one);
        // Of the magnitude this is what is missing to one. It keeps its digits near one, where 1 + e has lost e.
        let rest = self.div(e, sum);
        let zero = self.zero();
        let rest = self.select(Cmp::Lt, negative, -87.0, zero, rest);
        let above = self.sub(one, rest);
        self.select(Cmp::Lt, x, 0.0, rest, above)
    }

    /// Hyperbolic tangent. Error below 1e-7 and 1.8 ulp; never beyond 1.
    pub fn tanh(&mut self, x: Vector) -> Vector {
        let near = self.tanh_near(x);
        // 1 - 2e / (1 + e) with e = e^-2|x|: rounded once where it is almost 1.
        let magnitude = self.unary(UnaryOp::Abs, x);
        let twice = self.mul(magnitude, -2.0);
        let e = self.exp_of_negative(twice);
        let one = self.splat(1.0);
        let sum = self.add(e, one);
        let double = self.add(e, e);
        let rest = self.div(double, sum);
        let far = self.sub(one, rest);
        let result = self.select(Cmp::Lt, magnitude, TANH_NEAR, near, far);
        // The polynomial loses that of zero.
        self.with_sign_of(result, x)
    }

    /// tanh x for |x| below [`TANH_NEAR`].
    fn tanh_near(&mut self, x: Vector) -> Vector {
        let square = self.mul(x, x);
        let p = self.polynomial(square, &TANH);
        let cube = self.mul(square, x);
        let y = self.unary(UnaryOp::Copy, x);
        self.fma(y, p, cube);
        y
    }

    /// e^x - 1 for x up to 0. Error below 1.5e-7 and 4 ulp.
    pub fn exp_minus_one(&mut self, x: Vector) -> Vector {
        // Near zero the difference would cancel: with t = tanh(x/2), e^x - 1 = 2t / (1 - t).
        let half = self.mul(x, 0.5);
        let t = self.tanh_near(half);
        let twice = self.add(t, t);
        let one = self.splat(1.0);
        let rest = self.sub(one, t);
        let near = self.div(twice, rest);
        let e = self.exp(x);
        let far = self.sub(e, one);
        self.select(Cmp::Gt, x, -0.5, near, far)
    }

    /// Error function. Error below 1e-7 and 1.8 ulp; never beyond 1.
    pub fn erf(&mut self, x: Vector) -> Vector {
        let square = self.mul(x, x);
        let p = self.polynomial(square, &ERF);
        let near = self.unary(UnaryOp::Copy, x);
        self.fma(near, p, x);
        let magnitude = self.unary(UnaryOp::Abs, x);
        let limit = self.splat(ERF_LIMIT);
        let bounded = self.min(limit, magnitude);
        let log = self.polynomial(bounded, &ERF_FAR);
        let rest = self.exp_of_negative(log);
        let one = self.splat(1.0);
        let far = self.sub(one, rest);
        let far = self.with_sign_of(far, x);
        self.select(Cmp::Lt, magnitude, ERF_NEAR, near, far)
    }

    /// `y`, which is not negative where `x` is not, with the sign of `x`.
    fn with_sign_of(&mut self, y: Vector, x: Vector) -> Vector {
        let sign = self.binary(BinaryOp::And, x, Operand::Bits(1 << 31));
        self.binary(BinaryOp::Or, sign, y)
    }

    /// A polynomial in x by Horner's rule, coefficients from the highest power down; 0 where there are none.
    pub fn polynomial(&mut self, x: Vector, coefficients: &[f32]) -> Vector {
        let p = self.splat(coefficients.first().copied().unwrap_or_default());
        for &c in coefficients.iter().skip(1) {
            self.horner(p, x, c);
        }
        p
    }
}
