//! CenterCropPad: axes brought to wanted extents by cropping or padding on both sides.

use super::index_map::{AxisMap, Border, IndexMap};
use super::support::inputs::{at_most, extents, required, resolve_axes};
use super::support::lists::{list_i64, output_shape};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `CenterCropPad`: `input_data, shape -> output_data`; what is odd is cropped or padded at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CenterCropPad {
    /// The axes that the shape speaks of; count from the end when negative; empty is all.
    pub axes: Vec<i64>,
}

impl CenterCropPad {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axes = attributes.ints("axes")?.unwrap_or_default();
        attributes.finish("axes")?;
        Ok(Self { axes })
    }
}

impl Operator for CenterCropPad {
    fn name(&self) -> &str {
        "CenterCropPad"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.axes.is_empty() { attributes } else { attributes.with("axes", self.axes.as_slice()) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, wanted) = (required(inputs, 0, "input_data")?.ty, required(inputs, 1, "shape")?);
        let Some(shape) = &data.shape else { return Ok(vec![data.clone()]) };
        let axes = match self.axes.as_slice() {
            [] => (0..shape.len()).collect(),
            axes => resolve_axes("axes", axes, shape.len())?,
        };
        let wanted = extents(&wanted).unwrap_or_else(|| vec![Dim::unknown(); axes.len()]);
        if wanted.len() != axes.len() || wanted.iter().any(|dim| dim.known_i64().is_some_and(|dim| dim < 0)) {
            let problem = format!("expected extents of {} axes, found {wanted:?}", axes.len());
            return Err(Error::input(1, "shape", problem));
        }
        let mut shape = shape.clone();
        for (axis, extent) in axes.into_iter().zip(wanted) {
            shape[axis] = extent;
        }
        Ok(vec![ValueType { dtype: data.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input_data")?;
        list_i64(required(inputs, 1, "shape")?, 1, "shape")?;
        let axis = |(&input, output): (&usize, usize)| {
            let begin = output.saturating_sub(input) / 2;
            let first = input.saturating_sub(output) / 2;
            (output, AxisMap::Padded { border: Border::Constant, begin, first, extent: input.min(output) })
        };
        let axes = x.shape().iter().zip(output_shape(self, inputs)?).map(axis);
        Ok(vec![IndexMap::by_axis(x.shape(), axes)?.apply(x, None)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_is_at_the_end() {
        let run = |x: &[i64], extent: i64| {
            let op = CenterCropPad { axes: vec![-1] };
            assert_eq!(CenterCropPad::read(op.attributes()), Ok(op.clone()));
            op.eval(&[Some(&Tensor::from_i64s(x)), Some(&Tensor::from_i64s(&[extent]))], 1)?[0].to_i64s()
        };
        assert_eq!(run(&[1, 2, 3, 4], 1), Ok(vec![2]));
        assert_eq!(run(&[1, 2, 3, 4], 2), Ok(vec![2, 3]));
        assert_eq!(run(&[1, 2], 5), Ok(vec![0, 1, 2, 0, 0]));
        assert_eq!(run(&[1, 2], 0), Ok(vec![]));
        assert!(run(&[1, 2], -1).is_err());
    }
}
