//! Elements narrower than a lane: loads that widen, stores that narrow, in instructions that every processor has.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};

use super::emit::Lowering;
use crate::{Address, Elem};

/// Number of lanes.
const LANES: u8 = 4;

impl Lowering<'_> {
    /// The first `n` elements, widened; zero in the other lanes.
    pub(super) fn load_narrow(&mut self, elem: Elem, at: Address, n: u8) -> Value {
        let raw = if n == LANES { self.load_four(elem, at) } else { self.load_by_one(elem, at, n) };
        self.widen(elem, raw)
    }

    /// One element, widened, in every lane.
    pub(super) fn load_splat_narrow(&mut self, elem: Elem, at: Address) -> Value {
        let one = self.load_one(elem, at);
        let raw = self.builder.ins().splat(I32X4, one);
        self.widen(elem, raw)
    }

    /// Narrows the lanes and stores the first `n`.
    pub(super) fn store_narrow(&mut self, elem: Elem, value: Value, at: Address, n: u8) {
        let packed = self.narrow(elem, value);
        if n == LANES {
            let all = self.cast(if elem.bytes() == 1 { I32X4 } else { I64X2 }, packed);
            let all = self.builder.ins().extractlane(all, 0_u8);
            return self.store(all, at);
        }
        for i in 0..n {
            let element = self.builder.ins().extractlane(packed, i);
            self.store(element, at.plus(i32::from(i) * elem.bytes()));
        }
    }

    /// An element in 32 bits, by its sign where it has one of an integer's.
    fn load_one(&mut self, elem: Elem, at: Address) -> Value {
        let ty: Type = if elem.bytes() == 1 { I8 } else { I16 };
        let one = self.load(ty, at);
        if is_signed(elem) {
            self.builder.ins().sextend(I32, one)
        } else {
            self.builder.ins().uextend(I32, one)
        }
    }

    fn load_by_one(&mut self, elem: Elem, at: Address, n: u8) -> Value {
        let zero = self.bits(0);
        let mut all = self.cast(I32X4, zero);
        for i in 0..n {
            let one = self.load_one(elem, at.plus(i32::from(i) * elem.bytes()));
            all = self.builder.ins().insertlane(all, one, i);
        }
        all
    }

    fn load_four(&mut self, elem: Elem, at: Address) -> Value {
        let widened = |lowering: &mut Self, value: Value| {
            if is_signed(elem) {
                lowering.builder.ins().swiden_low(value)
            } else {
                lowering.builder.ins().uwiden_low(value)
            }
        };
        if elem.bytes() == 1 {
            let four = self.load(I32, at);
            let four = self.builder.ins().scalar_to_vector(I32X4, four);
            let bytes = self.cast(I8X16, four);
            let words = widened(self, bytes);
            return widened(self, words);
        }
        let four = self.load(I64, at);
        let four = self.builder.ins().scalar_to_vector(I64X2, four);
        let words = self.cast(I16X8, four);
        widened(self, words)
    }

    /// Elements in the low bits of lanes to what they stand for.
    fn widen(&mut self, elem: Elem, raw: Value) -> Value {
        let lanes = match elem {
            Elem::F16 => self.widen_f16(raw),
            Elem::Bf16 => self.builder.ins().ishl_imm_u(raw, 16),
            _ => raw,
        };
        self.cast(F32X4, lanes)
    }

    /// Lanes to elements, packed at the front of a vector.
    fn narrow(&mut self, elem: Elem, value: Value) -> Value {
        let lanes = self.cast(I32X4, value);
        let words = match elem {
            Elem::F16 => self.narrow_f16(lanes),
            Elem::Bf16 => self.narrow_bf16(lanes),
            _ => lanes,
        };
        let words = self.builder.ins().snarrow(words, words);
        match elem {
            Elem::I8 => self.builder.ins().snarrow(words, words),
            Elem::U8 => self.builder.ins().unarrow(words, words),
            _ => words,
        }
    }

    fn ints(&mut self, bits: u32) -> Value {
        let bits = self.bits(bits);
        self.cast(I32X4, bits)
    }

    /// `if a cc bits { yes } else { no }`, signed.
    fn choose(&mut self, (cc, a, bits): (IntCC, Value, u32), yes: Value, no: Value) -> Value {
        let bits = self.ints(bits);
        let mask = self.builder.ins().icmp(cc, a, bits);
        self.builder.ins().bitselect(mask, yes, no)
    }

    fn widen_f16(&mut self, half: Value) -> Value {
        let [magnitude_bits, fraction_bits, rebias, quiet] =
            [0x7fff, 0x3ff, 112 << 23, 0x0040_0000].map(|bits| self.ints(bits));
        let magnitude = self.builder.ins().band(half, magnitude_bits);
        let sign = self.builder.ins().bxor(half, magnitude);
        let sign = self.builder.ins().ishl_imm_u(sign, 16);
        // Numbers: the exponent moves, and its bias changes.
        let moved = self.builder.ins().ishl_imm_u(magnitude, 13);
        let number = self.builder.ins().iadd(moved, rebias);
        // The largest exponent stays the largest.
        let special = self.builder.ins().iadd(number, rebias);
        let nan = self.builder.ins().bor(special, quiet);
        let special = self.choose((IntCC::SignedGreaterThan, magnitude, 0x7c00), nan, special);
        // Below the smallest exponent the fraction counts units of 2^-24.
        let fraction = self.builder.ins().band(half, fraction_bits);
        let units = self.builder.ins().fcvt_from_sint(F32X4, fraction);
        let unit = self.bits(2_f32.powi(-24).to_bits());
        let small = self.builder.ins().fmul(units, unit);
        let small = self.cast(I32X4, small);
        let result = self.choose((IntCC::SignedLessThan, magnitude, 0x0400), small, number);
        let result = self.choose((IntCC::SignedGreaterThanOrEqual, magnitude, 0x7c00), special, result);
        self.builder.ins().bor(result, sign)
    }

    fn narrow_f16(&mut self, lanes: Value) -> Value {
        let [magnitude_bits, one, half_unit, rebias, infinity, nan_bits, payload_bits, denormal_base] =
            [0x7fff_ffff, 1, 0xfff, 112 << 10, 0x7c00, 0x7e00, 0x3ff, 0.5_f32.to_bits()]
                .map(|bits| self.ints(bits));
        let magnitude = self.builder.ins().band(lanes, magnitude_bits);
        let sign = self.builder.ins().bxor(lanes, magnitude);
        let sign = self.builder.ins().ushr_imm_u(sign, 16);
        // Numbers: half a unit less one, and one more where the last bit that stays is odd, carries as it should.
        let odd = self.builder.ins().ushr_imm_u(magnitude, 13);
        let payload = self.builder.ins().band(odd, payload_bits);
        let odd = self.builder.ins().band(odd, one);
        let number = self.builder.ins().iadd(magnitude, half_unit);
        let number = self.builder.ins().iadd(number, odd);
        let number = self.builder.ins().ushr_imm_u(number, 13);
        let number = self.builder.ins().isub(number, rebias);
        // Below 2^-14 units are 2^-24, which are those of a sum with a half.
        let half = self.bits(0.5_f32.to_bits());
        let magnitude_float = self.cast(F32X4, magnitude);
        let sum = self.builder.ins().fadd(magnitude_float, half);
        let sum = self.cast(I32X4, sum);
        let small = self.builder.ins().isub(sum, denormal_base);
        let result = self.choose((IntCC::SignedLessThan, magnitude, 0x3880_0000), small, number);
        let result =
            self.choose((IntCC::SignedGreaterThanOrEqual, magnitude, 65_520_f32.to_bits()), infinity, result);
        let nan = self.builder.ins().bor(payload, nan_bits);
        let result = self.choose((IntCC::SignedGreaterThan, magnitude, 0x7f80_0000), nan, result);
        let result = self.builder.ins().bor(result, sign);
        self.signed_words(result)
    }

    fn narrow_bf16(&mut self, lanes: Value) -> Value {
        let [magnitude_bits, one, half_unit, quiet] =
            [0x7fff_ffff, 1, 0x7fff, 0x40].map(|bits| self.ints(bits));
        let magnitude = self.builder.ins().band(lanes, magnitude_bits);
        let upper = self.builder.ins().ushr_imm_u(lanes, 16);
        let odd = self.builder.ins().band(upper, one);
        let rounded = self.builder.ins().iadd(lanes, half_unit);
        let rounded = self.builder.ins().iadd(rounded, odd);
        let rounded = self.builder.ins().ushr_imm_u(rounded, 16);
        let nan = self.builder.ins().bor(upper, quiet);
        let result = self.choose((IntCC::SignedGreaterThan, magnitude, 0x7f80_0000), nan, rounded);
        self.signed_words(result)
    }

    /// Words in the low halves of lanes, such that a narrowing that saturates keeps their bits.
    fn signed_words(&mut self, words: Value) -> Value {
        let upper = self.builder.ins().ishl_imm_u(words, 16);
        self.builder.ins().sshr_imm_u(upper, 16)
    }
}

fn is_signed(elem: Elem) -> bool {
    matches!(elem, Elem::I8 | Elem::I16)
}
