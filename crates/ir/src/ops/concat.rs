//! Concat: tensors one behind the other along an axis.

use super::movement::Raw;
use super::support::broadcast::strides;
use super::support::inputs::{extents, required, resolve_axis};
use super::support::lists::output_shape;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Concat`: `inputs.. -> output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concat {
    /// The axis; counts from the end when negative.
    pub axis: i64,
}

impl Concat {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?.ok_or_else(|| Error::attribute("axis", "is required"))?;
        attributes.finish("axis")?;
        Ok(Self { axis })
    }
}

/// What two values that are the same say of an extent: the one that is known better.
fn merge(index: usize, axis: usize, known: &mut Dim, other: &Dim) -> Result<()> {
    if known.equals(other) == Some(false) {
        let problem = format!("has {other} at axis {axis}, the inputs before it have {known}");
        return Err(Error::input(index, "inputs", problem));
    }
    if known.is_unknown() || (known.known().is_none() && other.known().is_some()) {
        *known = other.clone();
    }
    Ok(())
}

impl Operator for Concat {
    fn name(&self) -> &str {
        "Concat"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new().with("axis", self.axis)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let mut result = required(inputs, 0, "inputs")?.ty.clone();
        let mut axis = result.rank().map(|rank| resolve_axis("axis", self.axis, rank)).transpose()?;
        for index in 1..inputs.len() {
            let ty = required(inputs, index, "inputs")?.ty;
            match (result.dtype, ty.dtype) {
                (Some(a), Some(b)) if a != b => {
                    return Err(Error::input(
                        index,
                        "inputs",
                        format!("is {b}, the inputs before it are {a}"),
                    ));
                }
                (known, other) => result.dtype = known.or(other),
            }
            axis = axis.or(ty.rank().map(|rank| resolve_axis("axis", self.axis, rank)).transpose()?);
            let (Some(shape), Some(other), Some(axis)) = (&mut result.shape, &ty.shape, axis) else {
                // The rank of one is the rank of all, and so are its other extents.
                if let (None, Some(other), Some(axis)) = (&result.shape, &ty.shape, axis) {
                    let mut shape = other.clone();
                    shape[axis] = Dim::unknown();
                    result.shape = Some(shape);
                } else if let (Some(shape), Some(axis)) = (&mut result.shape, axis) {
                    shape[axis] = Dim::unknown();
                }
                continue;
            };
            if shape.len() != other.len() {
                let problem = format!("has {} axes, the inputs before it have {}", other.len(), shape.len());
                return Err(Error::input(index, "inputs", problem));
            }
            for (i, (known, other)) in shape.iter_mut().zip(other).enumerate() {
                if i == axis {
                    let sum = known.add(other)?;
                    *known = if sum.is_unknown() { Dim::unknown() } else { sum };
                } else {
                    merge(index, i, known, other)?;
                }
            }
        }
        Ok(vec![result])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let lists = inputs.iter().map(|input| {
            let input = (*input)?;
            (input.ty.rank()? == 1).then(|| extents(&input))?
        });
        Some(lists.collect::<Option<Vec<_>>>()?.concat())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let shape = output_shape(self, inputs)?;
        let axis = resolve_axis("axis", self.axis, shape.len())?;
        let mut output = Raw::zeros(required(inputs, 0, "inputs")?.dtype(), shape.iter().product())?;
        let inner = strides(&shape)[axis];
        let mut start = 0;
        for input in inputs.iter().flatten() {
            let (elements, extent) = (Raw::of(input)?, input.shape()[axis]);
            for i in 0..input.len() {
                let (outer, within) = (i / (extent * inner), i % (extent * inner));
                output.set((outer * shape[axis] + start) * inner + within, elements.get(i));
            }
            start += extent;
        }
        Ok(vec![output.into_tensor(shape)?])
    }
}
