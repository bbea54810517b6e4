//! Operators that keep the elements in their order: Reshape, Flatten, Squeeze, Unsqueeze; and those that read a shape off:
//! Shape, Size. Shapes that are computed from shapes are followed symbolically.

use super::support::inputs::{at_most, extents, required, resolve_axes, resolve_axis};
use super::support::lists::{known_i64s, list_i64, output_shape, product};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Shape`: the extents of axes `start..end` as an i64 list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// First axis; counts from the end when negative; clamped.
    pub start: i64,
    /// Axis behind the last; counts from the end when negative; clamped; `None` is all.
    pub end: Option<i64>,
}

/// ONNX `Size`: the number of elements, an i64 scalar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size;

/// ONNX `Reshape`: `data, shape -> reshaped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reshape {
    /// A 0 in the shape is an extent of 0; otherwise it stands for the extent of the data's axis.
    pub allow_zero: bool,
}

/// ONNX `Flatten`: to a matrix, the axes before `axis` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flatten {
    /// First axis of the inner extent; counts from the end when negative.
    pub axis: i64,
}

/// ONNX `Squeeze`: `data, axes? -> squeezed`; without axes, every axis of extent 1 goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Squeeze;

/// ONNX `Unsqueeze`: `data, axes -> expanded`; axes count in the result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsqueeze;

impl Shape {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { start: attributes.int("start")?.unwrap_or(0), end: attributes.int("end")? };
        attributes.finish("start, end")?;
        Ok(op)
    }

    /// The axes it reads of a value of that rank.
    fn axes(self, rank: usize) -> std::ops::Range<usize> {
        let clamped = |axis: i64| {
            let from_start = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
            from_start.clamp(0, rank as i64) as usize
        };
        let (start, end) = (clamped(self.start), self.end.map_or(rank, clamped));
        start..end.max(start)
    }
}

impl Operator for Shape {
    fn name(&self) -> &str {
        "Shape"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.start != 0 {
            attributes.set("start", self.start);
        }
        if let Some(end) = self.end {
            attributes.set("end", end);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let rank = required(inputs, 0, "data")?.ty.rank();
        let length = rank.map_or(Dim::unknown(), |rank| self.axes(rank).len().into());
        Ok(vec![ValueType::new(DType::I64, [length])])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let shape = required(inputs, 0, "data").ok()?.ty.shape.as_ref()?;
        Some(shape[self.axes(shape.len())].to_vec())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let shape = required(inputs, 0, "data")?.shape();
        let extents: Vec<i64> = shape[self.axes(shape.len())].iter().map(|&extent| extent as i64).collect();
        Ok(vec![Tensor::from_i64s(&extents)])
    }
}

impl Size {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for Size {
    fn name(&self) -> &str {
        "Size"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        required(inputs, 0, "data")?;
        Ok(vec![ValueType::new(DType::I64, [0usize; 0])])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let shape = required(inputs, 0, "data").ok()?.ty.shape.as_ref()?;
        Some(vec![product(shape).ok()?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::scalar(required(inputs, 0, "data")?.len() as i64)])
    }
}

impl Reshape {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { allow_zero: attributes.flag("allowzero", false)? };
        attributes.finish("allowzero")?;
        Ok(op)
    }

    /// The result's extents for a wanted shape in which 0 and -1 mean what ONNX says.
    fn extents(self, data: Option<&[Dim]>, wanted: &[Dim]) -> Result<Vec<Dim>> {
        let refused = |problem: String| Error::input(1, "shape", problem);
        let mut inferred = None;
        let mut shape = Vec::with_capacity(wanted.len());
        for (axis, extent) in wanted.iter().enumerate() {
            shape.push(match extent.known_i64() {
                Some(0) if !self.allow_zero => match data {
                    None => Dim::unknown(),
                    Some(data) => data.get(axis).cloned().ok_or_else(|| {
                        refused(format!(
                            "a 0 at {axis} copies an axis that the data, of {} axes, lacks",
                            data.len()
                        ))
                    })?,
                },
                Some(-1) if inferred.is_some() => {
                    return Err(refused(format!("{wanted:?} has more than one -1")));
                }
                Some(-1) => {
                    inferred = Some(axis);
                    Dim::constant(1)
                }
                Some(value) if value < -1 => {
                    return Err(refused(format!("{value} is no extent; accepted are -1 and up")));
                }
                _ => extent.clone(),
            });
        }
        let Some(data) = data else {
            if let Some(axis) = inferred {
                shape[axis] = Dim::unknown();
            }
            return Ok(shape);
        };
        let mismatch = || refused(format!("{wanted:?} does not hold the elements of {data:?}"));
        match inferred {
            None if product(&shape)?.equals(&product(data)?) == Some(false) => Err(mismatch()),
            None => Ok(shape),
            Some(axis) => {
                let others: Vec<Dim> = shape
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != axis)
                    .map(|(_, dim)| dim.clone())
                    .collect();
                shape[axis] = quotient(data, &others)?.ok_or_else(mismatch)?;
                Ok(shape)
            }
        }
    }
}

/// Product of `all` divided by that of `divisors`; unknown when the symbols do not cancel, `None` when it is no whole number.
fn quotient(all: &[Dim], divisors: &[Dim]) -> Result<Option<Dim>> {
    let (mut all, mut divisors) = (all.to_vec(), divisors.to_vec());
    divisors.retain(|divisor| match all.iter().position(|dim| dim.equals(divisor) == Some(true)) {
        Some(same) if divisor.known_i64() != Some(0) => {
            all.swap_remove(same);
            false
        }
        _ => true,
    });
    let (all, divisor) = (product(&all)?, product(&divisors)?);
    Ok(match (all.known_i64(), divisor.known_i64()) {
        (_, Some(0)) => None,
        (Some(all), Some(divisor)) => (all % divisor == 0).then(|| Dim::constant(all / divisor)),
        _ => Some(all.exact_div(&divisor).unwrap_or_else(Dim::unknown)),
    })
}

impl Operator for Reshape {
    fn name(&self) -> &str {
        "Reshape"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.allow_zero { attributes.with("allowzero", 1) } else { attributes }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, shape) = (required(inputs, 0, "data")?, required(inputs, 1, "shape")?);
        if let Some(tensor) = shape.constant {
            list_i64(tensor, 1, "shape")?;
        }
        let extents = match (extents(&shape), shape.ty.known_shape().as_deref()) {
            (Some(wanted), _) => Some(self.extents(data.ty.shape.as_deref(), &wanted)?),
            (None, Some(&[rank])) if rank <= MAX_RANK => Some(vec![Dim::unknown(); rank]),
            (None, _) => None,
        };
        Ok(vec![ValueType { dtype: data.ty.dtype, shape: extents }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        extents(&required(inputs, 0, "data").ok()?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![required(inputs, 0, "data")?.reshaped(output_shape(self, inputs)?)?])
    }
}

/// Largest rank that is made from the length of an unknown shape.
const MAX_RANK: usize = 64;

impl Flatten {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { axis: attributes.int("axis")?.unwrap_or(1) };
        attributes.finish("axis")?;
        Ok(op)
    }
}

impl Operator for Flatten {
    fn name(&self) -> &str {
        "Flatten"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.axis == 1 { attributes } else { attributes.with("axis", self.axis) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "input")?.ty;
        let extents = match &ty.shape {
            None => vec![Dim::unknown(), Dim::unknown()],
            Some(shape) => {
                let rank = shape.len();
                // The rank itself is allowed: all axes are outer ones.
                let axis = if self.axis == rank as i64 {
                    rank
                } else {
                    resolve_axis("axis", self.axis, rank.max(1))?
                };
                vec![product(&shape[..axis])?, product(&shape[axis..])?]
            }
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape: Some(extents) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![required(inputs, 0, "input")?.reshaped(output_shape(self, inputs)?)?])
    }
}

impl Squeeze {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none; the axes are an input")?;
        Ok(Self)
    }
}

/// Extents without those of the axes named, or without all that are 1.
fn squeezed(shape: &[Dim], axes: Option<&[i64]>) -> Result<Option<Vec<Dim>>> {
    let Some(axes) = axes else {
        let known = shape.iter().all(|dim| dim.known().is_some());
        return Ok(known.then(|| shape.iter().filter(|dim| dim.known() != Some(1)).cloned().collect()));
    };
    let axes = resolve_axes("axes", axes, shape.len())?;
    for &axis in &axes {
        if shape[axis].known_i64().is_some_and(|extent| extent != 1) {
            return Err(Error::input(
                1,
                "axes",
                format!("axis {axis} of {shape:?} is {}, accepted are axes of extent 1", shape[axis]),
            ));
        }
    }
    let kept = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    Ok(Some(kept.map(|(_, dim)| dim.clone()).collect()))
}

impl Operator for Squeeze {
    fn name(&self) -> &str {
        "Squeeze"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let ty = required(inputs, 0, "data")?.ty;
        let shape = match (&ty.shape, inputs.get(1).copied().flatten()) {
            (None, _) => None,
            (Some(shape), None) => squeezed(shape, None)?,
            (Some(shape), Some(axes)) => match known_i64s(&axes)? {
                Some(axes) => squeezed(shape, Some(&axes))?,
                None => None,
            },
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        extents(&required(inputs, 0, "data").ok()?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![required(inputs, 0, "data")?.reshaped(output_shape(self, inputs)?)?])
    }
}

impl Unsqueeze {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none; the axes are an input")?;
        Ok(Self)
    }
}

impl Operator for Unsqueeze {
    fn name(&self) -> &str {
        "Unsqueeze"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (ty, axes) = (required(inputs, 0, "data")?.ty, required(inputs, 1, "axes")?);
        let shape = match (&ty.shape, known_i64s(&axes)?) {
            (Some(shape), Some(axes)) => {
                let axes = resolve_axes("axes", &axes, shape.len() + axes.len())?;
                let mut kept = shape.iter();
                let extent = |axis| {
                    if axes.contains(&axis) { Some(Dim::constant(1)) } else { kept.next().cloned() }
                };
                (0..shape.len() + axes.len()).map(extent).collect()
            }
            _ => None,
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        extents(&required(inputs, 0, "data").ok()?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        Ok(vec![required(inputs, 0, "data")?.reshaped(output_shape(self, inputs)?)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_cancel_symbols() {
        let [n, h, w] = ["N", "H", "W"].map(Dim::symbol);
        let c = Dim::constant;
        let data = [n.clone(), c(64), h.clone(), w.clone()];
        let reshaped = |wanted: &[Dim]| Reshape::default().extents(Some(&data), wanted);
        let area = h.mul(&w).unwrap();
        assert_eq!(reshaped(&[c(0), c(-1)]), Ok(vec![n.clone(), area.mul(&c(64)).unwrap()]));
        assert_eq!(
            reshaped(&[n.clone(), c(-1), c(2), area.clone()]),
            Ok(vec![n.clone(), c(32), c(2), area.clone()])
        );
        let doubled = h.mul(&c(2)).unwrap();
        assert_eq!(
            reshaped(&[c(-1), c(32), doubled.clone(), w.clone()]),
            Ok(vec![n.clone(), c(32), doubled, w.clone()])
        );
        // Nothing tells whether W divides into 7 parts.
        assert_eq!(reshaped(&[n.clone(), c(64), h.clone(), c(7), c(-1)]).unwrap()[4], Dim::unknown());
        assert!(reshaped(&[c(0), c(0), c(0), c(0), c(0)]).is_err());
        assert!(reshaped(&[c(-1), c(-1)]).is_err());
        assert!(reshaped(&[c(-2)]).is_err());
    }

    #[test]
    fn reshapes_of_known_extents_are_checked() {
        let c = Dim::constant;
        let reshaped =
            |allow_zero, wanted: &[Dim]| Reshape { allow_zero }.extents(Some(&[c(4), c(0), c(3)]), wanted);
        assert_eq!(reshaped(true, &[c(0), c(7)]), Ok(vec![c(0), c(7)]));
        assert_eq!(reshaped(false, &[c(3), c(0)]), Ok(vec![c(3), c(0)]));
        assert!(reshaped(false, &[c(0), c(3)]).is_err());
        assert!(reshaped(true, &[c(0), c(-1)]).is_err());
    }

    #[test]
    fn shapes_are_clamped_and_counted_from_the_end() {
        let axes = |start, end| Shape { start, end }.axes(4);
        assert_eq!(axes(0, None), 0..4);
        assert_eq!(axes(-2, None), 2..4);
        assert_eq!(axes(-9, Some(9)), 0..4);
        assert_eq!(axes(3, Some(1)), 3..3);
        assert_eq!(axes(i64::MIN, Some(i64::MAX)), 0..4);
    }
}
