//! Elements of at most a byte: how they are packed, and what the codes of the short floats stand for.
//!
//! Elements of fewer than 8 bits follow each other without gaps, the first one in the lowest bits, as ONNX packs them.

use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{Tensor, element_count};

/// The codes of elements of that many bits (at most 8), each in a byte of its own.
pub(crate) fn unpack(bytes: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let code = |i: usize| {
        let (at, shift) = (i * bits / 8, i * bits % 8);
        let pair = u16::from(bytes[at]) | bytes.get(at + 1).map_or(0, |&next| u16::from(next) << 8);
        (pair >> shift) as u8 & (0xff >> (8 - bits))
    };
    (0..count).map(code).collect()
}

/// Codes of that many bits (at most 8), packed.
pub(crate) fn pack(codes: &[u8], bits: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; (codes.len() * bits).div_ceil(8)];
    for (i, &code) in codes.iter().enumerate() {
        let (at, shift) = (i * bits / 8, i * bits % 8);
        let pair = u16::from(code & (0xff >> (8 - bits))) << shift;
        bytes[at] |= pair as u8;
        if let Some(next) = bytes.get_mut(at + 1) {
            *next |= (pair >> 8) as u8;
        }
    }
    bytes
}

/// True for the types of at most a byte that are stored as codes: short floats, and integers of less than a byte.
pub(crate) fn is_short(dtype: DType) -> bool {
    !dtype.is_numeric() && dtype != DType::Bool && (1..=8).contains(&dtype.bits())
}

/// The codes of a tensor of a short type.
pub(crate) fn codes(tensor: &Tensor) -> Vec<u8> {
    unpack(tensor.bytes(), tensor.dtype().bits(), tensor.len())
}

/// A tensor of a short type from its codes.
pub(crate) fn from_codes(dtype: DType, shape: &[usize], codes: &[u8]) -> Result<Tensor> {
    element_count(shape)?;
    Tensor::from_bytes(dtype, shape.to_vec(), pack(codes, dtype.bits()))
}

/// How a power of two is chosen for a number between two, where only these can be held (f8e8m0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PowerRounding {
    /// Away from zero.
    #[default]
    Up,
    /// Towards zero.
    Down,
    /// To the nearest, the middle up.
    Nearest,
}

/// A float of a sign, exponent and mantissa in at most 8 bits.
#[derive(Debug, Clone, Copy)]
struct Layout {
    mantissa: i32,
    bias: i32,
    /// Code of the largest finite number.
    largest: u8,
    /// Codes that are no numbers, without the sign: (infinity, NaN).
    special: Special,
    sign: u8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Special {
    /// Numbers only.
    Nothing,
    /// All exponent bits, as in IEEE 754.
    Infinity(u8),
    /// Only the code of all ones is NaN; there is no infinity.
    AllOnes,
    /// The code of negative zero is NaN; there is neither infinity nor negative zero.
    NegativeZero,
}

fn layout(dtype: DType) -> Option<Layout> {
    let layout = |mantissa, bias, largest, special, sign| Layout { mantissa, bias, largest, special, sign };
    Some(match dtype {
        DType::F8E4M3FN => layout(3, 7, 0x7e, Special::AllOnes, 0x80),
        DType::F8E4M3FNUZ => layout(3, 8, 0x7f, Special::NegativeZero, 0x80),
        DType::F8E5M2 => layout(2, 15, 0x7b, Special::Infinity(0x7c), 0x80),
        DType::F8E5M2FNUZ => layout(2, 16, 0x7f, Special::NegativeZero, 0x80),
        DType::F4E2M1 => layout(1, 1, 0x07, Special::Nothing, 0x08),
        DType::F6E2M3 => layout(3, 1, 0x1f, Special::Nothing, 0x20),
        DType::F6E3M2 => layout(2, 3, 0x1f, Special::Nothing, 0x20),
        _ => return None,
    })
}

/// True for floats of at most 8 bits.
pub(crate) fn is_short_float(dtype: DType) -> bool {
    dtype == DType::F8E8M0 || layout(dtype).is_some()
}

/// The number that a code of a short float stands for.
pub(crate) fn decode(dtype: DType, code: u8) -> f64 {
    let Some(layout) = layout(dtype) else {
        // f8e8m0: a power of two.
        return if code == 0xff { f64::NAN } else { 2f64.powi(i32::from(code) - 127) };
    };
    let (negative, size) = (code & layout.sign != 0, code & (layout.sign - 1));
    let magnitude = match layout.special {
        Special::AllOnes if size == layout.sign - 1 => f64::NAN,
        Special::NegativeZero if code == layout.sign => f64::NAN,
        Special::Infinity(infinity) if size >= infinity => {
            if size == infinity {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        _ => layout.magnitude(size),
    };
    if negative { -magnitude } else { magnitude }
}

impl Layout {
    fn magnitude(self, size: u8) -> f64 {
        let (exponent, fraction) =
            (i32::from(size) >> self.mantissa, f64::from(size & ((1 << self.mantissa) - 1)));
        let step = |exponent: i32| 2f64.powi(exponent.max(1) - self.bias - self.mantissa);
        let hidden = if exponent == 0 { 0.0 } else { f64::from(1 << self.mantissa) };
        (hidden + fraction) * step(exponent)
    }

    /// The code, without the sign, of a number that is not negative; `None` where it lies beyond the largest one.
    fn nearest(self, magnitude: f64) -> Option<u8> {
        let least = 1 - self.bias;
        let exponent = (((magnitude.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(least);
        let steps = (magnitude / 2f64.powi(exponent - self.mantissa)).round_ties_even();
        // In steps of this exponent; a hidden bit more is the next exponent's.
        let code = steps + f64::from((exponent - least) << self.mantissa);
        (code <= f64::from(self.largest)).then_some(code as u8)
    }
}

/// The code of the nearest number, half to even. What lies outside becomes the largest where `saturate` holds, else
/// infinity or NaN, as far as the type has them.
pub(crate) fn encode(dtype: DType, value: f64, saturate: bool, rounding: PowerRounding) -> u8 {
    let Some(layout) = layout(dtype) else { return encode_power(value, saturate, rounding) };
    let sign = if value.is_sign_negative() { layout.sign } else { 0 };
    if value.is_nan() {
        return match layout.special {
            // There is no NaN: ONNX's tables leave it open, its evaluator gives negative zero.
            Special::Nothing | Special::NegativeZero => layout.sign,
            Special::Infinity(infinity) => sign | infinity | 2,
            Special::AllOnes => sign | (layout.sign - 1),
        };
    }
    match (layout.nearest(value.abs()), layout.special) {
        (Some(0), Special::NegativeZero) => 0,
        (Some(code), _) => sign | code,
        (None, Special::Infinity(infinity)) if !saturate => sign | infinity,
        (None, Special::AllOnes) if !saturate => sign | (layout.sign - 1),
        (None, Special::NegativeZero) if !saturate => layout.sign,
        (None, _) => sign | layout.largest,
    }
}

/// The code of a power of two, from 2^-127 to 2^127; 0xff is NaN.
fn encode_power(value: f64, saturate: bool, rounding: PowerRounding) -> u8 {
    let outside = |end: u8| if saturate { end } else { 0xff };
    if value.is_nan() {
        return 0xff;
    }
    if value <= 0.0 {
        return outside(0);
    }
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
    let up = match rounding {
        PowerRounding::Up => fraction != 0,
        PowerRounding::Down => false,
        PowerRounding::Nearest => fraction >= 1 << 51,
    };
    match exponent + i32::from(up) + 127 {
        code @ 0..=254 => code as u8,
        ..0 => outside(0),
        _ => outside(254),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATS: [DType; 7] = [
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F4E2M1,
        DType::F6E2M3,
        DType::F6E3M2,
    ];

    fn nearest(dtype: DType, value: f64) -> f64 {
        decode(dtype, encode(dtype, value, true, PowerRounding::Up))
    }

    #[test]
    fn every_code_reads_back() {
        for dtype in FLOATS {
            for code in 0..1u16 << dtype.bits() {
                let (code, value) = (code as u8, decode(dtype, code as u8));
                for saturate in [false, true] {
                    let back = encode(dtype, value, saturate, PowerRounding::Up);
                    if value.is_nan() {
                        assert!(decode(dtype, back).is_nan(), "{dtype} {code:#x}");
                    } else if value.is_finite() || !saturate {
                        assert_eq!(back, code, "{dtype} {code:#x} is {value}");
                    }
                }
            }
        }
        for code in 0..=255 {
            assert_eq!(encode(DType::F8E8M0, decode(DType::F8E8M0, code), true, PowerRounding::Down), code);
        }
    }

    #[test]
    fn the_middle_goes_to_the_even_code() {
        for dtype in FLOATS {
            let Some(Layout { largest, .. }) = layout(dtype) else { panic!("{dtype}") };
            for code in 0..largest {
                let (low, high) = (decode(dtype, code), decode(dtype, code + 1));
                let middle = f64::midpoint(low, high);
                let even = if code % 2 == 0 { low } else { high };
                assert_eq!(nearest(dtype, middle), even, "{dtype} between {low} and {high}");
                assert_eq!(nearest(dtype, middle * (1.0 + 1e-9)), high);
                assert_eq!(nearest(dtype, -middle * (1.0 - 1e-9)), -low);
            }
        }
    }

    #[test]
    fn what_lies_outside_follows_onnx() {
        let code = |dtype, value, saturate| encode(dtype, value, saturate, PowerRounding::Up);
        // Values, then codes where they saturate and where they do not, as ONNX's tables have them.
        for (dtype, largest, beyond) in [
            (DType::F8E4M3FN, 448.0, [0x7e, 0x7f]),
            (DType::F8E4M3FNUZ, 240.0, [0x7f, 0x80]),
            (DType::F8E5M2, 57344.0, [0x7b, 0x7c]),
            (DType::F8E5M2FNUZ, 57344.0, [0x7f, 0x80]),
            (DType::F4E2M1, 6.0, [0x07, 0x07]),
        ] {
            assert_eq!(decode(dtype, code(dtype, largest, false)), largest);
            for value in [largest * 2.0, f64::INFINITY] {
                assert_eq!([code(dtype, value, true), code(dtype, value, false)], beyond, "{dtype} {value}");
            }
        }
        assert_eq!(code(DType::F8E4M3FNUZ, -0.0, true), 0);
        assert_eq!(code(DType::F8E4M3FN, -0.0, true), 0x80);
        let power = |value, saturate, rounding| encode(DType::F8E8M0, value, saturate, rounding);
        assert_eq!(power(3.0, true, PowerRounding::Up), 129);
        assert_eq!(power(3.0, true, PowerRounding::Down), 128);
        assert_eq!(power(2.9, true, PowerRounding::Nearest), 128);
        assert_eq!(power(3.0, true, PowerRounding::Nearest), 129);
        assert_eq!([power(0.0, true, PowerRounding::Up), power(0.0, false, PowerRounding::Up)], [0, 255]);
        assert_eq!([power(1e99, true, PowerRounding::Up), power(1e99, false, PowerRounding::Up)], [254, 255]);
    }

    #[test]
    fn codes_are_packed_lowest_first() {
        assert_eq!(pack(&[1, 2, 3], 4), [0x21, 0x03]);
        assert_eq!(pack(&[1, 2, 3, 0, 3], 2), [0b0011_1001, 3]);
        assert_eq!(pack(&[0x3f, 0x01, 0x20, 0x15], 6), [0x7f, 0x00, 0x56]);
        for bits in [2, 4, 6, 8] {
            let codes: Vec<u8> = (0..13u8).map(|i| i.wrapping_mul(37) & (0xff >> (8 - bits))).collect();
            assert_eq!(unpack(&pack(&codes, bits), bits, 13), codes, "{bits}");
        }
    }
}
