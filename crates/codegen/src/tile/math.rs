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
const ROUNDER: f32 = 12_582_912.0;

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

/// tanh x = x * P(x^2) / Q(x^2) for |x| below [`TANH_LIMIT`], highest power first (Eigen).
const TANH_P: [f32; 7] = [
    -2.760_768_4e-16,
    2.000_188e-13,
    -8.604_672e-11,
    5.122_297e-8,
    1.485_722_4e-5,
    6.372_619e-4,
    4.893_524_6e-3,
];
const TANH_Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
/// Above this tanh is 1 in f32.
const TANH_LIMIT: f32 = 9.0;
/// Below this tanh x is x in f32.
const TANH_LINEAR: f32 = 4e-4;

/// erf x = x * P(x^2) / Q(x^2) for |x| below [`ERF_LIMIT`], highest power first (XLA).
const ERF_P: [f32; 7] = [
    -2.726_142_3e-10,
    2.770_681_5e-8,
    -2.101_024e-6,
    -5.692_506_5e-5,
    -7.349_906_4e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
const ERF_Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];

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

    /// 1 / (1 + e^-x). Error below 1e-7, and 2.1 ulp where x is above -87; never below 1.6e-38.
    pub fn sigmoid(&mut self, x: Vector) -> Vector {
        let magnitude = self.unary(UnaryOp::Abs, x);
        let negative = self.unary(UnaryOp::Neg, magnitude);
        let e = self.exp_of_negative(negative);
        let one = self.splat(1.0);
        let sum = self.add(e, one);
        let numerator = self.select(Cmp::Lt, x, 0.0, e, one);
        self.div(numerator, sum)
    }

    /// Hyperbolic tangent. Error below 3e-7 and 5.1 ulp; never beyond 1.
    pub fn tanh(&mut self, x: Vector) -> Vector {
        let square = self.mul(x, x);
        let p = self.polynomial(square, &TANH_P);
        let p = self.mul(p, x);
        let q = self.polynomial(square, &TANH_Q);
        let quotient = self.div(p, q);
        let magnitude = self.unary(UnaryOp::Abs, x);
        let bounded = self.saturate(magnitude, TANH_LIMIT, x, quotient);
        self.select(Cmp::Lt, magnitude, TANH_LINEAR, x, bounded)
    }

    /// Error function. Error below 5e-7; never beyond 1.
    pub fn erf(&mut self, x: Vector) -> Vector {
        let square = self.mul(x, x);
        let p = self.polynomial(square, &ERF_P);
        let p = self.mul(p, x);
        let q = self.polynomial(square, &ERF_Q);
        let quotient = self.div(p, q);
        let magnitude = self.unary(UnaryOp::Abs, x);
        self.saturate(magnitude, ERF_LIMIT, x, quotient)
    }

    /// One with the sign of `x` where its magnitude is above `limit`, else `y`, but not beyond one.
    fn saturate(&mut self, magnitude: Vector, limit: f32, x: Vector, y: Vector) -> Vector {
        let sign = self.binary(BinaryOp::And, x, Operand::Bits(1 << 31));
        let one = self.binary(BinaryOp::Or, sign, Operand::Bits(ONE));
        let y = self.select(Cmp::Gt, magnitude, limit, one, y);
        let (low, high) = (self.splat(-1.0), self.splat(1.0));
        let y = self.max(low, y);
        self.min(high, y)
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
