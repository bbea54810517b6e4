//! CumSum: running sums along an axis.

use super::reduce::groups;
use super::support::inputs::{at_most, check_dtype, required, resolve_axis};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
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

impl CumSum {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            exclusive: attributes.flag("exclusive", false)?,
            reverse: attributes.flag("reverse", false)?,
        };
        attributes.finish("exclusive, reverse; the axis is an input")?;
        Ok(op)
    }
}

impl Operator for CumSum {
    fn name(&self) -> &str {
        "CumSum"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        for (name, value) in [("exclusive", self.exclusive), ("reverse", self.reverse)] {
            if value {
                attributes.set(name, true);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (x, axis) = (required(inputs, 0, "x")?.ty, required(inputs, 1, "axis")?.ty);
        check_dtype(0, "x", x.dtype, DType::is_numeric, "numbers")?;
        check_dtype(1, "axis", axis.dtype, |dtype| matches!(dtype, DType::I32 | DType::I64), "i32 or i64")?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let (x, axis) = (required(inputs, 0, "x")?, required(inputs, 1, "axis")?.to_i64s()?);
        let &[axis] = axis.as_slice() else {
            return Err(Error::input(1, "axis", format!("expected one number, found {}", axis.len())));
        };
        let axis = resolve_axis("axis", axis, x.rank())?;
        let along: Vec<bool> = (0..x.rank()).map(|i| i == axis).collect();
        let (starts, mut offsets) = groups(x.shape(), &along);
        if self.reverse {
            offsets.reverse();
        }
        dispatch_numeric!(x.dtype(), T => {
            let elements = x.elements::<T>()?;
            let mut sums = elements.to_vec();
            for start in starts {
                let (mut exact, mut wrapping) = (0.0, T::from_f64(0.0));
                for at in offsets.iter().map(|at| start + at) {
                    let before = if T::DTYPE.is_float() { T::from_f64(exact) } else { wrapping };
                    exact += elements[at].to_f64();
                    wrapping = wrapping.add(elements[at]);
                    let after = if T::DTYPE.is_float() { T::from_f64(exact) } else { wrapping };
                    sums[at] = if self.exclusive { before } else { after };
                }
            }
            Ok(vec![Tensor::from_vec(x.shape(), sums)?])
        })
    }
}

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
}
