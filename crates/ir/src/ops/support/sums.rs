//! How the reference interpreter adds up: floats in f64, rounded once when stored; integers exactly, wrapping in their type.

use crate::dtype::Element;
use crate::error::Result;
use crate::ops::{Operator, Unary};
use crate::tensor::Tensor;
use half::{bf16, f16};

/// An element type with the type its sums are taken in.
pub(crate) trait Sums: Element + Default {
    /// Type of a sum.
    type Sum: Copy + Send + Sync + 'static;

    /// The sum of nothing.
    const ZERO: Self::Sum;

    /// 1.
    const ONE: Self::Sum;

    /// An element as a sum of one.
    fn widen(self) -> Self::Sum;

    /// `a + b`.
    fn add(a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// `a * b`.
    fn mul(a: Self::Sum, b: Self::Sum) -> Self::Sum;

    /// True below zero.
    fn is_negative(sum: Self::Sum) -> bool;

    /// Applies a function to each sum.
    ///
    /// # Errors
    /// When the function does not take this type.
    fn apply(function: Unary, sums: &mut [Self::Sum]) -> Result<()>;

    /// Rounds to the element type.
    fn store(sum: Self::Sum) -> Self;
}

macro_rules! float_sums {
    ($($ty:ty),*) => {$(
        impl Sums for $ty {
            type Sum = f64;
            const ZERO: f64 = 0.0;
            const ONE: f64 = 1.0;
            #[inline(always)]
            fn widen(self) -> f64 { self.to_f64() }
            #[inline(always)]
            fn add(a: f64, b: f64) -> f64 { a + b }
            #[inline(always)]
            fn mul(a: f64, b: f64) -> f64 { a * b }
            #[inline]
            fn is_negative(sum: f64) -> bool { sum < 0.0 }
            fn apply(function: Unary, sums: &mut [f64]) -> Result<()> {
                function.output_dtype(Self::DTYPE)?;
                for sum in sums {
                    *sum = function.apply(*sum);
                }
                Ok(())
            }
            #[inline]
            fn store(sum: f64) -> Self { <Self as Element>::from_f64(sum) }
        }
    )*};
}
float_sums!(f32, f64, f16, bf16);

macro_rules! integer_sums {
    ($($ty:ty),*) => {$(
        impl Sums for $ty {
            type Sum = $ty;
            const ZERO: $ty = 0;
            const ONE: $ty = 1;
            #[inline(always)]
            fn widen(self) -> $ty { self }
            #[inline(always)]
            fn add(a: $ty, b: $ty) -> $ty { a.wrapping_add(b) }
            #[inline(always)]
            fn mul(a: $ty, b: $ty) -> $ty { a.wrapping_mul(b) }
            #[inline]
            #[allow(unused_comparisons, reason = "one macro for signed and unsigned types")]
            fn is_negative(sum: $ty) -> bool { sum < 0 }
            fn apply(function: Unary, sums: &mut [$ty]) -> Result<()> {
                let tensor = Tensor::from_vec([sums.len()], sums.to_vec())?;
                for result in function.eval(&[Some(&tensor)], 1)? {
                    sums.copy_from_slice(&result.elements::<$ty>()?);
                }
                Ok(())
            }
            #[inline]
            fn store(sum: $ty) -> Self { sum }
        }
    )*};
}
integer_sums!(u8, i8, u16, i16, u32, i32, u64, i64);
