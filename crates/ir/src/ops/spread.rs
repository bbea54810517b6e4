//! Operators that read their input in another order or several times over: Transpose, Expand, Tile.

use super::index_map::{AxisMap, IndexMap, MappedAxis};
use super::support::broadcast::{broadcast_dims, strides};
use super::support::inputs::{at_most, extents, required};
use super::support::lists::{known_i64s, list_i64, output_shape, product};
use super::{Border, InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Transpose`: output axis `i` is input axis `perm[i]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transpose {
    /// The permutation; empty reverses the axes.
    pub perm: Vec<usize>,
}

/// ONNX `Expand`: `input, shape -> output`, broadcast both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expand;

/// ONNX `Tile`: `input, repeats -> output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tile;

impl Transpose {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let perm = attributes.ints("perm")?.unwrap_or_default();
        attributes.finish("perm")?;
        let mut seen = vec![false; perm.len()];
        let axis = |&axis: &i64| {
            let axis = usize::try_from(axis).ok().filter(|&axis| axis < perm.len() && !seen[axis])?;
            seen[axis] = true;
            Some(axis)
        };
        let axes: Option<Vec<usize>> = perm.iter().map(axis).collect();
        let axes = axes.ok_or_else(|| {
            Error::attribute("perm", format!("expected each of 0 to {} once, found {perm:?}", perm.len() - 1))
        })?;
        Ok(Self { perm: axes })
    }

    /// The permutation for a value of that rank.
    ///
    /// # Errors
    /// When it is one of another rank.
    pub fn axes(&self, rank: usize) -> Result<Vec<usize>> {
        match self.perm.len() {
            0 => Ok((0..rank).rev().collect()),
            length if length == rank => Ok(self.perm.clone()),
            _ => Err(Error::attribute(
                "perm",
                format!("{:?} permutes {} axes, the input has {rank}", self.perm, self.perm.len()),
            )),
        }
    }

    /// Where the elements come from.
    ///
    /// # Errors
    /// When the permutation is of another rank.
    pub fn map(&self, input: &[usize]) -> Result<IndexMap> {
        let strides = strides(input);
        let axis =
            |axis: usize| MappedAxis { output: input[axis], stride: strides[axis], map: AxisMap::IDENTITY };
        IndexMap::new(self.axes(input.len())?.into_iter().map(axis).collect(), input.iter().product())
    }
}

impl Operator for Transpose {
    fn name(&self) -> &str {
        "Transpose"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.perm.is_empty() { attributes } else { attributes.with("perm", self.perm.as_slice()) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "data")?.ty;
        let permuted = |shape: &Vec<Dim>| -> Result<Vec<Dim>> {
            Ok(self.axes(shape.len())?.into_iter().map(|axis| shape[axis].clone()).collect())
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape: ty.shape.as_ref().map(permuted).transpose()? }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let data = required(inputs, 0, "data").ok()?;
        self.map(&data.ty.known_shape()?).ok()?.apply_to(&extents(&data)?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "data")?;
        Ok(vec![self.map(x.shape())?.apply(x, None)?])
    }
}

impl Expand {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }

    /// Where the elements of an output of that shape, which the input broadcasts to, come from.
    ///
    /// # Errors
    /// When the input does not broadcast to it.
    pub fn map(input: &[usize], output: &[usize]) -> Result<IndexMap> {
        let behind = output.len().checked_sub(input.len());
        let strides = strides(input);
        let axis = |(axis, &extent): (usize, &usize)| {
            let inner = axis.checked_sub(behind?);
            let (stride, step) = match inner {
                None => (1, 0),
                Some(inner) if input[inner] == extent => (strides[inner], 1),
                Some(inner) if input[inner] == 1 => (1, 0),
                Some(_) => return None,
            };
            Some(MappedAxis { output: extent, stride, map: AxisMap::Step { start: 0, step } })
        };
        let axes: Option<Vec<MappedAxis>> = output.iter().enumerate().map(axis).collect();
        let axes = axes
            .filter(|_| behind.is_some())
            .ok_or_else(|| Error::Size(format!("shape {input:?} does not broadcast to {output:?}")))?;
        IndexMap::new(axes, input.iter().product())
    }
}

impl Operator for Expand {
    fn name(&self) -> &str {
        "Expand"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, shape) = (required(inputs, 0, "input")?, required(inputs, 1, "shape")?);
        if let Some(tensor) = shape.constant {
            list_i64(tensor, 1, "shape")?;
        }
        let extents = match (&data.ty.shape, extents(&shape)) {
            (Some(data), Some(wanted)) => {
                if let Some(negative) =
                    wanted.iter().find(|dim| dim.known_i64().is_some_and(|value| value < 0))
                {
                    return Err(Error::input(
                        1,
                        "shape",
                        format!("{negative} is no extent; accepted are 0 and up"),
                    ));
                }
                Some(broadcast_dims(&[data, &wanted])?)
            }
            _ => None,
        };
        Ok(vec![ValueType { dtype: data.ty.dtype, shape: extents }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let data = required(inputs, 0, "input").ok()?;
        let output = self.infer(inputs, 1).ok()?.pop()?.known_shape()?;
        Self::map(&data.ty.known_shape()?, &output).ok()?.apply_to(&extents(&data)?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![Self::map(x.shape(), &output_shape(self, inputs)?)?.apply(x, None)?])
    }
}

impl Tile {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }

    /// Where the elements of an output of that shape, a multiple of the input's, come from.
    ///
    /// # Errors
    /// When the output is too large.
    pub fn map(input: &[usize], output: &[usize]) -> Result<IndexMap> {
        let axis = |(&extent, &output): (&usize, &usize)| {
            (output, AxisMap::Padded { border: Border::Wrap, begin: 0, first: 0, extent })
        };
        IndexMap::by_axis(input, input.iter().zip(output).map(axis))
    }
}

impl Operator for Tile {
    fn name(&self) -> &str {
        "Tile"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, repeats) = (required(inputs, 0, "input")?, required(inputs, 1, "repeats")?);
        if let Some(repeats) = known_i64s(&repeats)?
            && let Some(&negative) = repeats.iter().find(|&&count| count < 0)
        {
            return Err(Error::input(1, "repeats", format!("{negative} is no count; accepted are 0 and up")));
        }
        let extents = match (&data.ty.shape, extents(&repeats)) {
            (Some(shape), Some(repeats)) if shape.len() == repeats.len() => {
                let tiled = shape.iter().zip(repeats).map(|(dim, count)| product(&[dim.clone(), count]));
                Some(tiled.collect::<Result<_>>()?)
            }
            (Some(shape), Some(repeats)) => {
                return Err(Error::input(
                    1,
                    "repeats",
                    format!("expected a count for each of {} axes, found {}", shape.len(), repeats.len()),
                ));
            }
            (Some(shape), None) => Some(vec![Dim::unknown(); shape.len()]),
            _ => None,
        };
        Ok(vec![ValueType { dtype: data.ty.dtype, shape: extents }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        Ok(vec![Self::map(x.shape(), &output_shape(self, inputs)?)?.apply(x, None)?])
    }
}
