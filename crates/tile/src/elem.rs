//! Types of elements in memory. In registers every lane has 32 bits, an f32 or an i32; narrower elements are widened
//! when they are loaded and narrowed when they are stored.

/// Bytes of a lane of a vector register.
pub const LANE_BYTES: i32 = 4;

/// What a load or store finds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elem {
    /// The lane's own 32 bits, as a float.
    F32,
    /// The lane's own 32 bits, as an integer.
    I32,
    /// IEEE 754 binary16; an f32 in the lane. Loads are exact and quiet NaN. Stores round to nearest, ties to even,
    /// to infinity from 65520 on; a NaN becomes quiet and keeps its sign and the upper bits of its payload.
    F16,
    /// The upper half of an f32; an f32 in the lane. Loads keep all bits. Stores round as those of [`Elem::F16`] do.
    Bf16,
    /// Signed byte; an i32 in the lane. Stores saturate.
    I8,
    /// Unsigned byte; an i32 in the lane. Stores saturate, negative numbers to 0.
    U8,
    /// Signed 16 bits; an i32 in the lane. Stores saturate.
    I16,
}

impl Elem {
    /// All of them.
    pub const ALL: [Elem; 7] = [Elem::F32, Elem::I32, Elem::F16, Elem::Bf16, Elem::I8, Elem::U8, Elem::I16];

    /// Bytes in memory.
    pub const fn bytes(self) -> i32 {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::F16 | Elem::Bf16 | Elem::I16 => 2,
            Elem::I8 | Elem::U8 => 1,
        }
    }

    /// Its name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::I32 => "i32",
            Elem::F16 => "f16",
            Elem::Bf16 => "bf16",
            Elem::I8 => "i8",
            Elem::U8 => "u8",
            Elem::I16 => "i16",
        }
    }

    /// Whether memory holds the lane as it is.
    pub const fn is_lane(self) -> bool {
        matches!(self, Elem::F32 | Elem::I32)
    }

    /// The lane of an element, which stands in the low bits.
    pub(crate) fn widen(self, element: u32) -> u32 {
        match self {
            Elem::F32 | Elem::I32 => element,
            Elem::F16 => widen_f16(element),
            Elem::Bf16 => element << 16,
            Elem::I8 => i32::from(element as i8) as u32,
            Elem::U8 => element,
            Elem::I16 => i32::from(element as i16) as u32,
        }
    }

    /// The element of a lane, in the low bits.
    pub(crate) fn narrow(self, lane: u32) -> u32 {
        let clamped = |low: i32, high: i32| (lane as i32).clamp(low, high) as u32;
        match self {
            Elem::F32 | Elem::I32 => lane,
            Elem::F16 => narrow_f16(f32::from_bits(lane)),
            Elem::Bf16 if f32::from_bits(lane).is_nan() => lane >> 16 | 0x40,
            Elem::Bf16 => (lane + 0x7fff + (lane >> 16 & 1)) >> 16,
            Elem::I8 => clamped(-128, 127) & 0xff,
            Elem::U8 => clamped(0, 255),
            Elem::I16 => clamped(-32_768, 32_767) & 0xffff,
        }
    }
}

/// By the definition of the format: a sign, five bits of exponent, ten of a fraction.
fn widen_f16(half: u32) -> u32 {
    let (sign, exponent, fraction) = (half >> 15 << 31, half >> 10 & 31, half & 0x3ff);
    let magnitude = match exponent {
        0 => fraction as f32 * 2_f32.powi(-24),
        31 if fraction == 0 => f32::INFINITY,
        31 => f32::from_bits(0x7fc0_0000 | fraction << 13),
        _ => (1024 + fraction) as f32 * 2_f32.powi(exponent as i32 - 25),
    };
    sign | magnitude.to_bits()
}

/// The multiple of the format's spacing that is nearest.
fn narrow_f16(x: f32) -> u32 {
    let (sign, magnitude) = (x.to_bits() >> 31 << 15, x.abs());
    if x.is_nan() {
        return sign | 0x7e00 | x.to_bits() >> 13 & 0x3ff;
    }
    // Powers of two scale exactly, in f64 even the smallest numbers.
    let exponent = (magnitude.to_bits() >> 23) as i32 - 127;
    let spacing = 2_f64.powi(exponent.max(-14) - 10);
    let rounded = (f64::from(magnitude) / spacing).round_ties_even() * spacing;
    if rounded >= 65_536.0 {
        return sign | 0x7c00;
    }
    if rounded < 2_f64.powi(-14) {
        return sign | (rounded * 2_f64.powi(24)) as u32;
    }
    let bits = (rounded as f32).to_bits();
    sign | ((bits >> 13) - (112 << 10))
}
