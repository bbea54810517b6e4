//! Elements of any number type as f64, as wrapping 64-bit integers, or without loss, and tensors from them: for operators
//! whose arithmetic need not be written for each type.

use super::number::{Number, Scalar};
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::packed::{self, PowerRounding};
use crate::tensor::Tensor;

/// The elements of a number or boolean tensor without loss, whatever their type.
pub(in crate::ops) fn scalars(tensor: &Tensor) -> Result<Vec<Scalar>> {
    if tensor.dtype() == DType::Bool {
        return Ok(tensor.bools()?.map(|truth| Scalar::Int(i128::from(truth))).collect());
    }
    let dtype = tensor.dtype();
    if packed::is_short(dtype) {
        return Ok(packed::codes(tensor).into_iter().map(|code| short_scalar(dtype, code)).collect());
    }
    dispatch_numeric!(dtype, T => {
        Ok(tensor.elements::<T>()?.iter().map(|value| value.to_scalar()).collect())
    })
}

/// What the code of an element of at most a byte stands for.
fn short_scalar(dtype: DType, code: u8) -> Scalar {
    match dtype {
        DType::I4 => Scalar::Int(i128::from((code << 4) as i8 >> 4)),
        DType::I2 => Scalar::Int(i128::from((code << 6) as i8 >> 6)),
        DType::U4 | DType::U2 => Scalar::Int(i128::from(code)),
        _ => Scalar::Float(packed::decode(dtype, code)),
    }
}

/// A tensor of these values, each converted as a cast does; short floats saturate.
pub(in crate::ops) fn from_scalars(dtype: DType, shape: &[usize], values: &[Scalar]) -> Result<Tensor> {
    if packed::is_short(dtype) {
        return short_from_scalars(dtype, shape, values, true, PowerRounding::Up);
    }
    dispatch_numeric!(dtype, T => {
        Tensor::from_vec(shape, values.iter().map(|&value| T::from_scalar(value)).collect())
    })
}

/// As [`from_scalars`], to a type of at most a byte. Integers wrap.
pub(in crate::ops) fn short_from_scalars(
    dtype: DType,
    shape: &[usize],
    values: &[Scalar],
    saturate: bool,
    rounding: PowerRounding,
) -> Result<Tensor> {
    let code = |&value: &Scalar| match value {
        _ if packed::is_short_float(dtype) => packed::encode(dtype, value.to_f64(), saturate, rounding),
        value => u8::from_scalar(Scalar::Int(i128::from(i64::from_scalar(value)))),
    };
    packed::from_codes(dtype, shape, &values.iter().map(code).collect::<Vec<_>>())
}

/// The elements of any number or boolean tensor as `f64`, those of at most a byte as well.
pub(in crate::ops) fn to_f64s(tensor: &Tensor) -> Result<Vec<f64>> {
    if packed::is_short(tensor.dtype()) {
        return Ok(scalars(tensor)?.into_iter().map(Scalar::to_f64).collect());
    }
    tensor.to_f64s()
}

/// A tensor of these values, rounded to its type.
pub(in crate::ops) fn from_f64s(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor> {
    dispatch_numeric!(dtype, T => {
        Tensor::from_vec(shape, values.iter().map(|&value| T::from_f64(value)).collect())
    })
}

/// The elements of an integer tensor modulo 2^64: sums and products of them, cut to the type, are those of the type.
pub(in crate::ops) fn to_wrapping(tensor: &Tensor) -> Result<Vec<i64>> {
    Ok(scalars(tensor)?.into_iter().map(i64::from_scalar).collect())
}

/// A tensor of integers cut to its type.
pub(in crate::ops) fn from_wrapping(dtype: DType, shape: &[usize], values: &[i64]) -> Result<Tensor> {
    let scalars: Vec<Scalar> = values.iter().map(|&value| Scalar::Int(i128::from(value))).collect();
    from_scalars(dtype, shape, &scalars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_short_integers_wrap_alike() {
        for dtype in [DType::U64, DType::I64, DType::I8, DType::U16] {
            let values = [Scalar::Int(-3), Scalar::Int(i128::from(u64::MAX)), Scalar::Int(7)];
            let tensor = from_scalars(dtype, &[3], &values).unwrap();
            let wrapped = to_wrapping(&tensor).unwrap();
            assert_eq!(from_wrapping(dtype, &[3], &wrapped).unwrap(), tensor);
            let product: Vec<i64> = wrapped.iter().map(|x| x.wrapping_mul(*x)).collect();
            let exact = values.map(|value| match value {
                Scalar::Int(value) => Scalar::Int(value.wrapping_mul(value)),
                real @ Scalar::Float(_) => real,
            });
            let expected = from_scalars(dtype, &[3], &exact).unwrap();
            assert_eq!(from_wrapping(dtype, &[3], &product).unwrap(), expected, "{dtype}");
        }
    }
}
