//! Sine and cosine, written in the tile IR, and the reduction of their arguments to an eighth of a turn: right up to the largest
//! f32. Numbers up to [`FAR`] take multiply-adds; a vector that holds larger ones runs through a block that no other runs
//! through.

use super::builder::TileBuilder;
use super::ir::{BinaryOp, Cmp, Inst, Operand, Trips, UnaryOp, Vector};
use super::math::ROUNDER;

/// A quarter turn in four parts: three of eight bits, so that products with numbers of 16 bits are exact, and the rest.
const QUARTER: [f32; 4] = [201.0 / 128.0, 253.0 / 524_288.0, 170.0 / 134_217_728.0, 9.920_935e-10];
/// A little more than half a quarter turn.
const EIGHTH: f32 = 0.7855;

/// (sin r - r) / r^3 for |r| up to [`EIGHTH`], as a polynomial in r^2, highest power first (Cephes).
const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
/// (cos r - 1 + r^2 / 2) / r^4, likewise.
const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];

/// From here on numbers are a quarter of a turn of 256 and more apart, so to say: products of [`QUARTER`] round.
const FAR: f32 = 4_194_304.0;
/// The biased exponent of [`FAR`].
const FAR_EXPONENT: u32 = 127 + 22;
/// For row a the fraction of `2^(4a - 1)` radians in turns: its first 32 bits, and the part of the last of these that is left.
const TURNS: [(u32, f32); 27] = [
    (0x145f_306d, 0.788_215_8),
    (0x45f3_06dc, 0.611_452_7),
    (0x5f30_6dc9, 0.783_243_5),
    (0xf306_dc9c, 0.531_895_9),
    (0x306d_c9c8, 0.510_334),
    (0x06dc_9c88, 0.165_343_78),
    (0x6dc9_c882, 0.645_500_5),
    (0xdc9c_882a, 0.328_007_6),
    (0xc9c8_82a5, 0.248_121_92),
    (0x9c88_2a53, 0.969_950_7),
    (0xc882_a53f, 0.519_210_46),
    (0x882a_53f8, 0.307_367_56),
    (0x82a5_3f84, 0.917_880_95),
    (0x2a53_f84e, 0.686_094_9),
    (0xa53f_84ea, 0.977_518_5),
    (0x53f8_4eaf, 0.640_295_6),
    (0x3f84_eafa, 0.244_729_74),
    (0xf84e_afa3, 0.915_675_9),
    (0x84ea_fa3e, 0.650_813_6),
    (0x4eaf_a3ea, 0.413_017_36),
    (0xeafa_3ea6, 0.608_278),
    (0xafa3_ea69, 0.732_448_04),
    (0xfa3e_a69b, 0.719_168_4),
    (0xa3ea_69bb, 0.506_695_1),
    (0x3ea6_9bb8, 0.107_121_63),
    (0xea69_bb81, 0.713_946_04),
    (0xa69b_b81b, 0.423_136_9),
];
/// Radians of one of 2^32 parts of a turn.
const PART: f32 = std::f32::consts::TAU / 4_294_967_296.0;

impl TileBuilder {
    /// Sine. Error below 1.2e-7; NaN of infinities.
    pub fn sin(&mut self, x: Vector) -> Vector {
        let (r, turns) = self.quarter_turns(x);
        self.sin_of_turns(r, turns)
    }

    /// Cosine, with the errors of the sine.
    pub fn cos(&mut self, x: Vector) -> Vector {
        let (r, turns) = self.quarter_turns(x);
        let turns = self.binary(BinaryOp::IntAdd, turns, Operand::Bits(1));
        self.sin_of_turns(r, turns)
    }

    /// r and an integer n with x = r + n quarter turns, but for whole turns.
    fn quarter_turns(&mut self, x: Vector) -> (Vector, Vector) {
        let rounder = self.splat(ROUNDER);
        // A multiple of 256, and the rest: no more than 16 bits each. The rest is found from what the multiple leaves.
        let shifted = self.splat(ROUNDER);
        self.fma(shifted, x, std::f32::consts::FRAC_2_PI / 256.0);
        let high = self.sub(shifted, rounder);
        let high = self.mul(high, 256.0);
        let r = self.unary(UnaryOp::Copy, x);
        self.fma_sub(r, high, QUARTER[0]);
        let left = self.unary(UnaryOp::Copy, r);
        for part in &QUARTER[1..] {
            self.fma_sub(left, high, *part);
        }
        let shifted = self.splat(ROUNDER);
        self.fma(shifted, left, std::f32::consts::FRAC_2_PI);
        let low = self.sub(shifted, rounder);
        self.fma_sub(r, low, QUARTER[0]);
        for part in &QUARTER[1..3] {
            self.fma_sub(r, high, *part);
            self.fma_sub(r, low, *part);
        }
        let n = self.add(high, low);
        self.fma_sub(r, n, QUARTER[3]);
        // Where n has more bits than that, r is anything; see below.
        let (least, most) = (self.splat(-EIGHTH), self.splat(EIGHTH));
        let r = self.max(least, r);
        let r = self.min(most, r);
        let n = self.binary(BinaryOp::IntSub, shifted, rounder);
        self.far_quarter_turns(x, r, n);
        (r, n)
    }

    /// Puts r and n in the place of those that numbers beyond [`FAR`] have, where there are any (Payne and Hanek, 1983).
    ///
    /// A number m * 2^e is m times the fraction that 2^e has in turns, as whole turns say nothing: 32 bits of it are
    /// multiplied as integers, which drops the turns, those behind as floats. Error below 2^-28 turns.
    fn far_quarter_turns(&mut self, x: Vector, r: Vector, n: Vector) {
        let size = self.unary(UnaryOp::Abs, x);
        let limit = self.splat(FAR);
        let beyond = self.sub(limit, size);
        self.repeat(Trips::Any(beyond), &[], |b| {
            // The number is m * 2^(4 * row - 1), m of 24 to 27 bits.
            let exponent = b.shr(size, 23);
            let place = b.binary(BinaryOp::IntSub, exponent, Operand::Bits(FAR_EXPONENT));
            let row = b.shr(place, 2);
            let scale = b.shl(row, 25);
            let m = b.binary(BinaryOp::IntSub, size, scale);
            let m = b.binary(BinaryOp::IntAdd, m, Operand::Bits(1 << 23));
            let row = b.unary(UnaryOp::ToFloat, row);
            let (first, behind) = (b.splat_bits(TURNS[0].0), b.splat(TURNS[0].1));
            for (number, &(bits, rest)) in TURNS.iter().enumerate().skip(1) {
                for (dst, bits) in [(first, bits), (behind, rest.to_bits())] {
                    let yes = b.splat_bits(bits);
                    let from = Operand::from(number as f32);
                    b.push(Inst::Select { cmp: Cmp::Ge, dst, a: row, b: from, yes, no: dst });
                }
            }
            let behind = b.mul(behind, m);
            let behind = b.unary(UnaryOp::ToInt, behind);
            let m = b.unary(UnaryOp::ToInt, m);
            let turns = b.binary(BinaryOp::IntMul, m, first);
            let turns = b.binary(BinaryOp::IntAdd, turns, behind);
            let sign = b.sar(x, 31);
            let turns = b.binary(BinaryOp::Xor, turns, sign);
            let turns = b.binary(BinaryOp::IntSub, turns, sign);
            // The nearest quarter, and what is left.
            let quarters = b.binary(BinaryOp::IntAdd, turns, Operand::Bits(1 << 29));
            let quarters = b.sar(quarters, 30);
            let whole = b.shl(quarters, 30);
            let left = b.binary(BinaryOp::IntSub, turns, whole);
            let left = b.unary(UnaryOp::ToFloat, left);
            let left = b.mul(left, PART);
            // Zero, or NaN of infinities.
            let nothing = b.sub(x, x);
            let left = b.add(left, nothing);
            for (dst, yes) in [(r, left), (n, quarters)] {
                b.push(Inst::Select { cmp: Cmp::Gt, dst, a: size, b: FAR.into(), yes, no: dst });
            }
        });
    }

    /// sin(r + n quarter turns).
    fn sin_of_turns(&mut self, r: Vector, n: Vector) -> Vector {
        let square = self.mul(r, r);
        let p = self.polynomial(square, &SIN);
        let cube = self.mul(square, r);
        let sine = self.unary(UnaryOp::Copy, r);
        self.fma(sine, p, cube);
        let cosine = self.polynomial(square, &COS);
        self.horner(cosine, square, -0.5);
        self.horner(cosine, square, 1.0);
        let odd = self.binary(BinaryOp::And, n, Operand::Bits(1));
        let odd = self.unary(UnaryOp::ToFloat, odd);
        let result = self.select(Cmp::Gt, odd, 0.5, cosine, sine);
        let half_turn = self.binary(BinaryOp::And, n, Operand::Bits(2));
        let sign = self.shl(half_turn, 30);
        self.binary(BinaryOp::Xor, result, sign)
    }
}
