//! Pad: borders of zeros or another constant, of the data's own elements, and negative ones that crop.

use super::index_map::{AxisMap, Border, IndexMap};
use super::support::inputs::{at_most, extents, optional, required, resolve_axes};
use super::support::lists::{known_i64s, list_i64};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::geometry::MAX_EXTENT;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Pad`: `data, pads, constant_value?, axes? -> output`. Negative pads crop, before others are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pad {
    /// What stands in the border: ONNX's `mode`.
    pub border: Border,
}

impl Pad {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let mode = attributes.string("mode")?;
        attributes.finish("mode; pads, constant_value and axes are inputs")?;
        let border = match mode.as_deref() {
            None | Some("constant") => Border::Constant,
            Some("edge") => Border::Edge,
            Some("reflect") => Border::Reflect,
            Some("wrap") => Border::Wrap,
            Some(other) => {
                let problem = format!("`{other}` is not one of constant, edge, reflect, wrap");
                return Err(Error::attribute("mode", problem));
            }
        };
        Ok(Self { border })
    }

    /// Where the elements come from, for data of that shape and the pads of each axis.
    ///
    /// # Errors
    /// When more is cropped than there is, or an empty axis would have to be continued.
    pub fn map(self, shape: &[usize], pads: &[[i64; 2]]) -> Result<IndexMap> {
        let axis = |(axis, (&extent, &[begin, end])): (usize, (&usize, &[i64; 2]))| {
            let crop = |pad: i64| usize::try_from(pad.saturating_neg().max(0)).unwrap_or(0);
            let refused = |problem: &str| {
                let problem = format!("{begin} and {end} at axis {axis} of extent {extent} {problem}");
                Error::input(1, "pads", problem)
            };
            let kept = extent.checked_sub(crop(begin)).and_then(|rest| rest.checked_sub(crop(end)));
            let kept = kept.ok_or_else(|| refused("crop more than there is"))?;
            let (begin, end) = (begin.max(0) as usize, end.max(0) as usize);
            if kept == 0 && begin + end > 0 && self.border != Border::Constant {
                return Err(refused("have nothing to repeat; accepted is mode constant"));
            }
            let map =
                AxisMap::Padded { border: self.border, begin, first: crop(pads[axis][0]), extent: kept };
            let output = kept.checked_add(begin).and_then(|sum| sum.checked_add(end));
            let output = output.filter(|&output| output <= MAX_EXTENT);
            Ok((output.ok_or_else(|| refused("make it too long"))?, map))
        };
        let axes: Vec<_> = shape.iter().zip(pads).enumerate().map(axis).collect::<Result<_>>()?;
        IndexMap::by_axis(shape, axes)
    }

    /// Pads of every axis from the lists of begins and ends of some.
    fn by_axis<T: Clone>(rank: usize, pads: &[T], axes: Option<&[i64]>, zero: &T) -> Result<Vec<[T; 2]>> {
        let axes = match axes {
            Some(axes) => resolve_axes("axes", axes, rank)?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            let problem =
                format!("expected begins and ends of {} axes, found {} numbers", axes.len(), pads.len());
            return Err(Error::input(1, "pads", problem));
        }
        let mut result = vec![[zero.clone(), zero.clone()]; rank];
        for (i, &axis) in axes.iter().enumerate() {
            result[axis] = [pads[i].clone(), pads[i + axes.len()].clone()];
        }
        Ok(result)
    }

    /// Begins and ends of every axis, when they are constant.
    ///
    /// # Errors
    /// When the lists do not fit to the rank.
    pub fn pads(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> Result<Vec<[i64; 2]>> {
        Self::by_axis(rank, pads, axes, &0)
    }
}

impl Operator for Pad {
    fn name(&self) -> &str {
        "Pad"
    }

    fn attributes(&self) -> Attributes {
        let mode = match self.border {
            Border::Constant => return Attributes::new(),
            Border::Edge => "edge",
            Border::Reflect => "reflect",
            Border::Wrap => "wrap",
        };
        Attributes::new().with("mode", mode)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let (data, pads) = (required(inputs, 0, "data")?, required(inputs, 1, "pads")?);
        let Some(shape) = &data.ty.shape else { return Ok(vec![data.ty.clone()]) };
        let axes = match optional(inputs, 3) {
            None => Some(None),
            Some(axes) => known_i64s(&axes)?.map(Some),
        };
        let extents = match (extents(&pads), axes) {
            (Some(pads), Some(axes)) => {
                let pads = Self::by_axis(shape.len(), &pads, axes.as_deref(), &Dim::constant(0))?;
                let known =
                    pads.iter().map(|[begin, end]| Some([begin.known_i64()?, end.known_i64()?])).collect();
                if let (Some(shape), Some(known)) = (data.ty.known_shape(), known) {
                    let known: Vec<[i64; 2]> = known;
                    self.map(&shape, &known)?;
                }
                let extent = |(axis, (dim, [begin, end])): (usize, (&Dim, &[Dim; 2]))| {
                    let sum = dim.add(begin)?.add(end)?;
                    if sum.known_i64().is_some_and(|extent| extent < 0) {
                        let problem = format!("{begin} and {end} at axis {axis} crop more than its {dim}");
                        return Err(Error::input(1, "pads", problem));
                    }
                    Ok(if sum.is_unknown() { Dim::unknown() } else { sum })
                };
                shape.iter().zip(&pads).enumerate().map(extent).collect::<Result<_>>()?
            }
            _ => vec![Dim::unknown(); shape.len()],
        };
        Ok(vec![ValueType { dtype: data.ty.dtype, shape: Some(extents) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 4)?;
        let (x, pads) = (required(inputs, 0, "data")?, required(inputs, 1, "pads")?);
        let axes = optional(inputs, 3).map(|axes| list_i64(axes, 3, "axes")).transpose()?;
        let pads = Self::pads(x.rank(), &list_i64(pads, 1, "pads")?, axes.as_deref())?;
        Ok(vec![self.map(x.shape(), &pads)?.apply(x, optional(inputs, 2))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn pad(border: Border, x: &[i64], pads: &[i64]) -> Result<Vec<i64>> {
        let (x, pads) = (Tensor::from_i64s(x), Tensor::from_i64s(pads));
        Pad { border }.eval(&[Some(&x), Some(&pads)], 1)?[0].to_i64s()
    }

    #[test]
    fn inference_refuses_what_evaluation_does() {
        let (data, pads) = (ValueType::new(DType::F32, [1usize]), ValueType::new(DType::I64, [2usize]));
        let constant = Tensor::from_i64s(&[-1, 1]);
        let inputs = [
            Some(InputInfo { ty: &data, constant: None, extents: None }),
            Some(InputInfo { ty: &pads, constant: Some(&constant), extents: None }),
        ];
        assert!(Pad { border: Border::Reflect }.infer(&inputs, 1).is_err());
        assert!(Pad { border: Border::Constant }.infer(&inputs, 1).is_ok());
    }

    #[test]
    fn crops_come_before_borders() {
        let x = [1, 2, 3, 4, 5];
        assert_eq!(pad(Border::Constant, &x, &[2, -1]), Ok(vec![0, 0, 1, 2, 3, 4]));
        assert_eq!(pad(Border::Edge, &x, &[2, -1]), Ok(vec![1, 1, 1, 2, 3, 4]));
        assert_eq!(pad(Border::Reflect, &x, &[-2, 2]), Ok(vec![3, 4, 5, 4, 3]));
        assert_eq!(pad(Border::Wrap, &x, &[-2, 2]), Ok(vec![3, 4, 5, 3, 4]));
        assert_eq!(pad(Border::Constant, &x, &[-3, -2]), Ok(vec![]));
        assert!(pad(Border::Constant, &x, &[-3, -3]).is_err());
        assert!(pad(Border::Edge, &x, &[-5, 1]).is_err());
        assert_eq!(pad(Border::Constant, &x, &[-5, 1]), Ok(vec![0]));
        assert!(pad(Border::Constant, &x, &[i64::MAX, i64::MAX]).is_err());
        assert!(pad(Border::Constant, &x, &[i64::MIN, i64::MAX]).is_err());
    }
}
