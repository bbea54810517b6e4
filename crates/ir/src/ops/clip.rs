//! Clip with bounds that are inputs. With constant bounds it becomes `Unary::Clamp` in a pass.

use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Clip`: `input, min []?, max []? -> output`. NaN passes; where `min > max`, the result is `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip;

impl Clip {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none; the bounds are inputs")?;
        Ok(Self)
    }
}

impl Operator for Clip {
    fn name(&self) -> &str {
        "Clip"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let input = required(inputs, 0, "input")?;
        check_dtype(0, "input", input.ty.dtype, DType::is_numeric, "numbers")?;
        let mut dtypes = vec![(0, "input", input.ty.dtype)];
        for (index, name) in [(1, "min"), (2, "max")] {
            if let Some(bound) = optional(inputs, index) {
                dtypes.push((index, name, bound.ty.dtype));
                if bound.ty.known_shape().is_some_and(|shape| shape.iter().product::<usize>() != 1) {
                    return Err(Error::input(index, name, format!("expected a scalar, found {}", bound.ty)));
                }
            }
        }
        Ok(vec![ValueType { dtype: common_dtype(&dtypes)?, shape: input.ty.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let input = required(inputs, 0, "input")?;
        dispatch_numeric!(input.dtype(), T => {
            let bound = |index: usize, name: &'static str| match optional(inputs, index) {
                None => Ok(None),
                Some(bound) if bound.dtype() != input.dtype() || bound.len() != 1 => Err(Error::input(
                    index,
                    name,
                    format!("expected a scalar of {}, found {} {:?}", input.dtype(), bound.dtype(), bound.shape()),
                )),
                Some(bound) => Ok(bound.elements::<T>()?.first().copied()),
            };
            let (min, max) = (bound(1, "min")?, bound(2, "max")?);
            let clip = |&x: &T| {
                let x = min.map_or(x, |min| x.max_nan(min));
                max.map_or(x, |max| x.min_nan(max))
            };
            let data = input.elements::<T>()?.iter().map(clip).collect();
            Ok(vec![Tensor::from_vec(input.shape(), data)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_optional_and_max_wins() {
        let x = Tensor::from_vec([4], vec![-2f32, 0.5, 2.0, f32::NAN]).unwrap();
        let (low, high) = (Tensor::scalar(0f32), Tensor::scalar(1f32));
        let clip = |min, max| Clip.eval(&[Some(&x), min, max], 1).unwrap()[0].to_f64s().unwrap();
        assert_eq!(clip(Some(&low), Some(&high))[..3], [0.0, 0.5, 1.0]);
        assert_eq!(clip(None, Some(&high))[..3], [-2.0, 0.5, 1.0]);
        assert_eq!(clip(Some(&high), Some(&low))[..3], [0.0, 0.0, 0.0]);
        assert!(clip(Some(&low), None)[3].is_nan());
        let wrong = Tensor::scalar(0f64);
        assert!(Clip.eval(&[Some(&x), Some(&wrong)], 1).is_err());
    }
}
