//! Element types, with ONNX's numbers and the Rust types that stand for them.

use crate::error::{Error, Result};
use half::{bf16, f16};
use std::fmt;

macro_rules! dtypes {
    ($($variant:ident = $code:literal, $name:literal, $bits:literal, $onnx:literal;)*) => {
        /// Element type of a tensor. Types that this program only passes through keep their bytes as ONNX packs them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $(
                #[doc = concat!("ONNX `", $onnx, "`, written `", $name, "`.")]
                $variant,
            )*
        }

        impl DType {
            /// Every element type.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Number in ONNX's `TensorProto.DataType`.
            pub const fn onnx_code(self) -> i32 { match self { $(Self::$variant => $code,)* } }

            /// From the number in ONNX's `TensorProto.DataType`.
            ///
            /// # Errors
            /// For a number that ONNX does not define.
            pub fn from_onnx_code(code: i32) -> Result<Self> {
                match code {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(Error::Type(format!("{code} is no ONNX element type"))),
                }
            }

            /// Short name, as the text form spells it.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            /// ONNX's name for it.
            pub const fn onnx_name(self) -> &'static str { match self { $(Self::$variant => $onnx,)* } }

            /// From the short name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// Bits an element takes in memory; 0 for strings.
            pub const fn bits(self) -> usize { match self { $(Self::$variant => $bits,)* } }
        }
    };
}

dtypes! {
    F32 = 1, "f32", 32, "FLOAT";
    U8 = 2, "u8", 8, "UINT8";
    I8 = 3, "i8", 8, "INT8";
    U16 = 4, "u16", 16, "UINT16";
    I16 = 5, "i16", 16, "INT16";
    I32 = 6, "i32", 32, "INT32";
    I64 = 7, "i64", 64, "INT64";
    String = 8, "str", 0, "STRING";
    Bool = 9, "bool", 8, "BOOL";
    F16 = 10, "f16", 16, "FLOAT16";
    F64 = 11, "f64", 64, "DOUBLE";
    U32 = 12, "u32", 32, "UINT32";
    U64 = 13, "u64", 64, "UINT64";
    C64 = 14, "c64", 64, "COMPLEX64";
    C128 = 15, "c128", 128, "COMPLEX128";
    BF16 = 16, "bf16", 16, "BFLOAT16";
    F8E4M3FN = 17, "f8e4m3fn", 8, "FLOAT8E4M3FN";
    F8E4M3FNUZ = 18, "f8e4m3fnuz", 8, "FLOAT8E4M3FNUZ";
    F8E5M2 = 19, "f8e5m2", 8, "FLOAT8E5M2";
    F8E5M2FNUZ = 20, "f8e5m2fnuz", 8, "FLOAT8E5M2FNUZ";
    U4 = 21, "u4", 4, "UINT4";
    I4 = 22, "i4", 4, "INT4";
    F4E2M1 = 23, "f4e2m1", 4, "FLOAT4E2M1";
    F8E8M0 = 24, "f8e8m0", 8, "FLOAT8E8M0";
    U2 = 25, "u2", 2, "UINT2";
    I2 = 26, "i2", 2, "INT2";
    F6E2M3 = 27, "f6e2m3", 6, "FLOAT6E2M3";
    F6E3M2 = 28, "f6e3m2", 6, "FLOAT6E3M2";
}

impl DType {
    /// Bytes that `count` elements take (those of less than a byte are packed, the first one lowest); `None` on overflow.
    pub fn bytes_for(self, count: usize) -> Option<usize> {
        Some(count.checked_mul(self.bits())?.div_ceil(8))
    }

    /// True for types whose elements this program computes with.
    pub const fn is_numeric(self) -> bool {
        self.is_float() || self.is_integer()
    }

    /// True for f16, bf16, f32 and f64.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// True for the signed and unsigned integers of 8 to 64 bits.
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            Self::U8 | Self::I8 | Self::U16 | Self::I16 | Self::I32 | Self::I64 | Self::U32 | Self::U64
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the element of a tensor. Booleans are stored as `u8` 0 or 1 and have no impl of their own.
pub trait Element:
    bytemuck::Pod + PartialEq + PartialOrd + fmt::Debug + fmt::Display + Send + Sync + 'static
{
    /// The element type it stands for.
    const DTYPE: DType;
    /// Nearest `f64`.
    fn to_f64(self) -> f64;
    /// From `f64`, rounded to nearest for floats, truncated and saturated for integers.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn to_f64(self) -> f64 { self as f64 }
            fn from_f64(value: f64) -> Self { value as Self }
        }
    )*};
}
#[allow(clippy::cast_lossless, clippy::unnecessary_cast, reason = "one macro for all number types")]
mod elements {
    use super::{DType, Element};
    element!(f32 => F32, f64 => F64, u8 => U8, i8 => I8, u16 => U16, i16 => I16, i32 => I32, i64 => I64, u32 => U32, u64 => U64);
}

/// Rounds to f32 so that rounding once more, to a shorter type, gives what rounding `value` itself would.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if value.is_nan() || f64::from(nearest) == value {
        return nearest;
    }
    let outward = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(outward)) | 1)
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        Self::from_f32(round_to_odd(value))
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(value: f64) -> Self {
        Self::from_f32(round_to_odd(value))
    }
}

/// Runs `$body` with `$t` as the Rust type of a numeric [`DType`]; other types give `Err(Error::Type)`.
///
/// ```
/// use tconvc_ir::{DType, dispatch_numeric, Result};
/// fn size(dtype: DType) -> Result<usize> {
///     dispatch_numeric!(dtype, T => Ok(std::mem::size_of::<T>()))
/// }
/// assert_eq!(size(DType::F16), Ok(2));
/// assert!(size(DType::String).is_err());
/// ```
#[macro_export]
macro_rules! dispatch_numeric {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::DType::F64 => {
                type $t = f64;
                $body
            }
            $crate::DType::F16 => {
                type $t = $crate::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $t = $crate::bf16;
                $body
            }
            $crate::DType::I8 => {
                type $t = i8;
                $body
            }
            $crate::DType::I16 => {
                type $t = i16;
                $body
            }
            $crate::DType::I32 => {
                type $t = i32;
                $body
            }
            $crate::DType::I64 => {
                type $t = i64;
                $body
            }
            $crate::DType::U8 => {
                type $t = u8;
                $body
            }
            $crate::DType::U16 => {
                type $t = u16;
                $body
            }
            $crate::DType::U32 => {
                type $t = u32;
                $body
            }
            $crate::DType::U64 => {
                type $t = u64;
                $body
            }
            other => Err($crate::Error::Type(format!("{other} is not a number type"))),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_floats_round_once() {
        // Just above the middle between 1 and the next f16: f32 would round it down to the middle, then to even.
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(<f16 as Element>::from_f64(x).to_f64(), 1.0 + 2f64.powi(-10));
        assert_eq!(<f16 as Element>::from_f64(-x).to_f64(), -1.0 - 2f64.powi(-10));
        assert_eq!(<f16 as Element>::from_f64(1e300), f16::INFINITY);
        assert_eq!(<f16 as Element>::from_f64(0.0).to_f64(), 0.0);
        assert!(<bf16 as Element>::from_f64(f64::NAN).is_nan());
        let y = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(<bf16 as Element>::from_f64(y).to_f64(), 1.0 + 2f64.powi(-7));
    }
}
