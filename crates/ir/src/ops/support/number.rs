//! Arithmetic on elements, the same for every number type: floats round once from f64, integers wrap as NumPy's do.

use crate::dtype::Element;
use half::{bf16, f16};

/// An element of any number type, without loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::ops) enum Scalar {
    Int(i128),
    Float(f64),
}

impl Scalar {
    /// Nearest `f64`.
    pub(in crate::ops) fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// A number type that operators compute in.
pub(in crate::ops) trait Number: Element {
    /// Least value: negative infinity for floats.
    const LOWEST: Self;
    /// Greatest value: infinity for floats.
    const HIGHEST: Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Integers round toward zero; by zero, they give 0.
    fn div(self, other: Self) -> Self;
    /// Remainder with the sign of the divisor, as Python's `%`; integers by zero give 0.
    fn modulo(self, other: Self) -> Self;
    /// Remainder with the sign of the dividend, as C's `fmod`; integers by zero give 0.
    fn fmod(self, other: Self) -> Self;
    /// The greater one; NaN when either is.
    fn max_nan(self, other: Self) -> Self;
    /// The lesser one; NaN when either is.
    fn min_nan(self, other: Self) -> Self;
    /// Power, computed in integers when both are.
    fn power(self, exponent: Scalar) -> Self;
    /// Itself without loss.
    fn to_scalar(self) -> Scalar;
    /// Integers wrap; floats become integers by truncation, saturated, NaN as 0.
    fn from_scalar(value: Scalar) -> Self;
    /// Sum, in f64 or wrapping.
    fn sum(values: impl Iterator<Item = Self>) -> Self;
    /// Sum of products, in f64 or wrapping.
    fn dot(pairs: impl Iterator<Item = (Self, Self)>) -> Self;
}

macro_rules! float {
    ($($ty:ty: $from_int:expr),*) => {$(
        impl Number for $ty {
            const LOWEST: Self = <$ty>::NEG_INFINITY;
            const HIGHEST: Self = <$ty>::INFINITY;

            fn add(self, other: Self) -> Self { <Self as Element>::from_f64(self.to_f64() + other.to_f64()) }
            fn sub(self, other: Self) -> Self { <Self as Element>::from_f64(self.to_f64() - other.to_f64()) }
            fn mul(self, other: Self) -> Self { <Self as Element>::from_f64(self.to_f64() * other.to_f64()) }
            fn div(self, other: Self) -> Self { <Self as Element>::from_f64(self.to_f64() / other.to_f64()) }
            fn modulo(self, other: Self) -> Self {
                let (x, y) = (self.to_f64(), other.to_f64());
                let rest = x % y;
                // A remainder of nothing has the sign of the divisor, too.
                <Self as Element>::from_f64(if rest == 0.0 {
                    rest.copysign(y)
                } else if (rest < 0.0) != (y < 0.0) {
                    rest + y
                } else {
                    rest
                })
            }
            fn fmod(self, other: Self) -> Self { <Self as Element>::from_f64(self.to_f64() % other.to_f64()) }
            fn max_nan(self, other: Self) -> Self {
                if self.is_nan() || self >= other { self } else { other }
            }
            fn min_nan(self, other: Self) -> Self {
                if self.is_nan() || self <= other { self } else { other }
            }
            fn power(self, exponent: Scalar) -> Self { <Self as Element>::from_f64(self.to_f64().powf(exponent.to_f64())) }
            fn to_scalar(self) -> Scalar { Scalar::Float(self.to_f64()) }
            fn from_scalar(value: Scalar) -> Self {
                match value {
                    Scalar::Int(value) => $from_int(value),
                    Scalar::Float(value) => <Self as Element>::from_f64(value),
                }
            }
            fn sum(values: impl Iterator<Item = Self>) -> Self {
                <Self as Element>::from_f64(values.map(Self::to_f64).sum())
            }
            fn dot(pairs: impl Iterator<Item = (Self, Self)>) -> Self {
                <Self as Element>::from_f64(pairs.map(|(a, b)| a.to_f64() * b.to_f64()).sum())
            }
        }
    )*};
}

macro_rules! integer {
    ($($ty:ty),*) => {$(
        impl Number for $ty {
            const LOWEST: Self = <$ty>::MIN;
            const HIGHEST: Self = <$ty>::MAX;

            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            fn modulo(self, other: Self) -> Self {
                if other == 0 {
                    return 0;
                }
                let rest = self.wrapping_rem(other);
                #[allow(unused_comparisons, reason = "one macro for signed and unsigned types")]
                if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
            }
            fn fmod(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            fn max_nan(self, other: Self) -> Self { self.max(other) }
            fn min_nan(self, other: Self) -> Self { self.min(other) }
            fn power(self, exponent: Scalar) -> Self {
                let mut exponent = match exponent {
                    Scalar::Float(exponent) => return Self::from_f64(self.to_f64().powf(exponent)),
                    Scalar::Int(exponent) if exponent < 0 => {
                        // 1 over a power, rounded toward zero.
                        return match i128::from(self) {
                            1 => 1,
                            -1 if exponent % 2 == 0 => 1,
                            -1 => self,
                            _ => 0,
                        };
                    }
                    Scalar::Int(exponent) => exponent,
                };
                let (mut square, mut product) = (self, 1 as Self);
                while exponent > 0 {
                    if exponent & 1 == 1 {
                        product = product.wrapping_mul(square);
                    }
                    square = square.wrapping_mul(square);
                    exponent >>= 1;
                }
                product
            }
            fn to_scalar(self) -> Scalar { Scalar::Int(i128::from(self)) }
            fn from_scalar(value: Scalar) -> Self {
                match value {
                    Scalar::Int(value) => value as Self,
                    Scalar::Float(value) => value as Self,
                }
            }
            fn sum(values: impl Iterator<Item = Self>) -> Self { values.fold(0, Self::wrapping_add) }
            fn dot(pairs: impl Iterator<Item = (Self, Self)>) -> Self {
                pairs.fold(0, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(b)))
            }
        }
    )*};
}

float!(
    f32: |value| value as f32, f64: |value| value as f64,
    f16: |value| <f16 as Element>::from_f64(value as f64), bf16: |value| <bf16 as Element>::from_f64(value as f64)
);
integer!(u8, i8, u16, i16, u32, i32, u64, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_divide_as_numpy() {
        assert_eq!(Number::add(200u8, 100), 44);
        assert_eq!(Number::div(-7i32, 2), -3);
        assert_eq!(Number::div(7i32, 0), 0);
        assert_eq!(Number::div(i64::MIN, -1), i64::MIN);
        assert_eq!([(-7i32).modulo(3), 7i32.modulo(-3), (-7i32).fmod(3)], [2, -2, -1]);
        assert_eq!(u8::from_scalar(Scalar::Int(-1)), 255);
        assert_eq!(i8::from_scalar(Scalar::Float(300.7)), 127);
    }

    #[test]
    fn powers_stay_exact() {
        assert_eq!(3i64.power(Scalar::Int(39)), 3i64.pow(39));
        assert_eq!((-1i32).power(Scalar::Int(-3)), -1);
        assert_eq!(2i32.power(Scalar::Int(-1)), 0);
        assert_eq!(2f32.power(Scalar::Int(-1)), 0.5);
        assert_eq!(4i32.power(Scalar::Float(0.5)), 2);
    }

    #[test]
    fn nan_wins_comparisons() {
        assert!(f32::NAN.max_nan(1.0).is_nan() && 1f32.max_nan(f32::NAN).is_nan());
        assert!(f32::NAN.min_nan(1.0).is_nan() && 1f32.min_nan(f32::NAN).is_nan());
        assert_eq!(5.0f64.modulo(-3.0), -1.0);
    }
}
