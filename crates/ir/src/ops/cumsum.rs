//! CumSum and CumProd: running sums and products along an axis.

use super::reduce::groups;
use super::support::inputs::{at_most, check_dtype, required, resolve_axis};
use super::support::number::Number;
use super::support::scalar_input::one_i64;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `CumSum`: `x, axis [] -> y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CumSum {
    /// Sums what stands before, without the element itself.
    pub exclusive: bool,
    /// Runs from the end to the beginning.
    pub reverse: bool,
}

/// ONNX `CumProd`: `x, axis [] -> y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CumProd {
    /// Multiplies what stands before, without the element itself.
    pub exclusive: bool,
    /// Runs from the end to the beginning.
    pub reverse: bool,
}

fn read(mut attributes: Attributes) -> Result<(bool, bool)> {
    let flags = (attributes.flag("exclusive", false)?, attributes.flag("reverse", false)?);
    attributes.finish("exclusive, reverse; the axis is an input")?;
    Ok(flags)
}

fn write(exclusive: bool, reverse: bool) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in [("exclusive", exclusive), ("reverse", reverse)] {
        if value {
            attributes.set(name, true);
        }
    }
    attributes
}

fn infer(inputs: &[Option<InputInfo<'_>>]) -> Result<Vec<ValueType>> {
    at_most(inputs, 2)?;
    let (x, axis) = (required(inputs, 0, "x")?.ty, required(inputs, 1, "axis")?.ty);
    check_dtype(0, "x", x.dtype, DType::is_numeric, "numbers")?;
    check_dtype(1, "axis", axis.dtype, |dtype| matches!(dtype, DType::I32 | DType::I64), "i32 or i64")?;
    Ok(vec![x.clone()])
}

/// Sums, or products, taken in f64 or wrapping.
fn running(
    inputs: &[Option<&Tensor>],
    exclusive: bool,
    reverse: bool,
    products: bool,
) -> Result<Vec<Tensor>> {
    at_most(inputs, 2)?;
    let x = required(inputs, 0, "x")?;
    let axis = one_i64(required(inputs, 1, "axis")?, 1, "axis")?;
    let axis = resolve_axis("axis", axis, x.rank())?;
    let along: Vec<bool> = (0..x.rank()).map(|i| i == axis).collect();
    let (starts, mut offsets) = groups(x.shape(), &along);
    if reverse {
        offsets.reverse();
    }
    dispatch_numeric!(x.dtype(), T => {
        let elements = x.elements::<T>()?;
        let mut results = elements.to_vec();
        let first = if products { 1.0 } else { 0.0 };
        for start in starts {
            let (mut exact, mut wrapping) = (first, T::from_f64(first));
            for at in offsets.iter().map(|at| start + at) {
                let before = if T::DTYPE.is_float() { T::from_f64(exact) } else { wrapping };
                let element = elements[at];
                if products {
                    exact *= element.to_f64();
                    wrapping = wrapping.mul(element);
                } else {
                    exact += element.to_f64();
                    wrapping = wrapping.add(element);
                }
                let after = if T::DTYPE.is_float() { T::from_f64(exact) } else { wrapping };
                results[at] = if exclusive { before } else { after };
            }
        }
        Ok(vec![Tensor::from_vec(x.shape(), results)?])
    })
}

macro_rules! operator {
    ($ty:ident, $products:literal) => {
        impl $ty {
            pub(super) fn read(attributes: Attributes) -> Result<Self> {
                let (exclusive, reverse) = read(attributes)?;
                Ok(Self { exclusive, reverse })
            }
        }

        impl Operator for $ty {
            fn name(&self) -> &str {
                stringify!($ty)
            }

            fn attributes(&self) -> Attributes {
                write(self.exclusive, self.reverse)
            }

            fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
                infer(inputs)
            }

            fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
                running(inputs, self.exclusive, self.reverse, $products)
            }
        }
    };
}
operator!(CumSum, false);
operator!(CumProd, true);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_and_exclusion() {
        let x = Tensor::from_vec([2, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        for (exclusive, reverse, axis, expected) in [
            (false, false, 1, [1, 3, 6, 4, 9, 15]),
            (true, false, -1, [0, 1, 3, 0, 4, 9]),
            (false, true, 1, [6, 5, 3, 15, 11, 6]),
            (true, true, 1, [5, 3, 0, 11, 6, 0]),
            (false, false, 0, [1, 2, 3, 5, 7, 9]),
        ] {
            let op = CumSum { exclusive, reverse };
            assert_eq!(CumSum::read(op.attributes()), Ok(op));
            let y = op.eval(&[Some(&x), Some(&Tensor::scalar(axis))], 1).unwrap();
            assert_eq!(y[0], Tensor::from_vec([2, 3], expected.to_vec()).unwrap());
        }
        let op = CumSum { exclusive: false, reverse: false };
        assert!(op.eval(&[Some(&x), Some(&Tensor::scalar(2i64))], 1).is_err());
    }

    #[test]
    fn products_run_as_sums_do() {
        let x = Tensor::from_vec([3], vec![2i8, 3, 100]).unwrap();
        for (exclusive, reverse, expected) in [
            (false, false, [2i8, 6, 88]),
            (true, false, [1, 2, 6]),
            (false, true, [88, 44, 100]),
            (true, true, [44, 100, 1]),
        ] {
            let op = CumProd { exclusive, reverse };
            assert_eq!(CumProd::read(op.attributes()), Ok(op));
            let y = op.eval(&[Some(&x), Some(&Tensor::scalar(0i64))], 1).unwrap();
            assert_eq!(y[0], Tensor::from_vec([3], expected.to_vec()).unwrap());
        }
        let none = Tensor::zeros(DType::F32, [0, 2]).unwrap();
        let op = CumProd { exclusive: true, reverse: false };
        assert!(op.eval(&[Some(&none), Some(&Tensor::scalar(0i64))], 1).unwrap()[0].is_empty());
    }
}
