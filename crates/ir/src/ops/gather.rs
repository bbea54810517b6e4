//! Reading elements and slices at indices that are data: Gather, GatherElements, GatherND.

use super::movement::pick;
use super::support::broadcast::strides;
use super::support::inputs::{at_most, check_dtype, extents, required, resolve_axis};
use super::support::lists::{known_i64s, output_shape};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Gather`: `data, indices -> output`, the slices of one axis at the indices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gather {
    /// The axis; counts from the end when negative.
    pub axis: i64,
}

/// ONNX `GatherElements`: `data, indices -> output`, each element at its own place but for one axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis; counts from the end when negative.
    pub axis: i64,
}

/// ONNX `GatherND`: `data, indices -> output`, the last axis of the indices being places in the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading axes that data and indices share.
    pub batch_dims: usize,
}

/// An index that counts from the end when negative, as one below `extent`.
pub(super) fn index_of(index: i64, extent: usize) -> Result<usize> {
    let from_start = if index < 0 { index.checked_add(extent as i64) } else { Some(index) };
    from_start.and_then(|index| usize::try_from(index).ok()).filter(|&index| index < extent).ok_or_else(
        || Error::input(1, "indices", format!("{index} is out of range for an axis of extent {extent}")),
    )
}

/// Indices are i32 or i64.
pub(super) fn check_indices(dtype: Option<DType>) -> Result<()> {
    check_dtype(1, "indices", dtype, |dtype| matches!(dtype, DType::I32 | DType::I64), "i32 or i64")
}

/// The attribute `axis` as an attribute list, left out when 0.
pub(super) fn axis_attribute(axis: i64) -> Attributes {
    if axis == 0 { Attributes::new() } else { Attributes::new().with("axis", axis) }
}

/// The attribute `axis`, 0 when absent, from a list that has no other.
fn read_axis(mut attributes: Attributes) -> Result<i64> {
    let axis = attributes.int("axis")?.unwrap_or(0);
    attributes.finish("axis")?;
    Ok(axis)
}

impl Gather {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        Ok(Self { axis: read_axis(attributes)? })
    }
}

impl Operator for Gather {
    fn name(&self) -> &str {
        "Gather"
    }

    fn attributes(&self) -> Attributes {
        axis_attribute(self.axis)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?.ty, required(inputs, 1, "indices")?.ty);
        check_indices(indices.dtype)?;
        let shape = match (&data.shape, &indices.shape) {
            (Some(data), Some(indices)) => {
                let axis = resolve_axis("axis", self.axis, data.len())?;
                Some([&data[..axis], indices, &data[axis + 1..]].concat())
            }
            _ => None,
        };
        Ok(vec![ValueType { dtype: data.dtype, shape }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let (data, indices) = (required(inputs, 0, "data").ok()?, required(inputs, 1, "indices").ok()?);
        if data.ty.rank()? != 1 {
            return None;
        }
        let elements = extents(&data)?;
        let indices = known_i64s(&indices).ok()??;
        indices
            .into_iter()
            .map(|index| Some(elements[index_of(index, elements.len()).ok()?].clone()))
            .collect()
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let shape = output_shape(self, inputs)?;
        let axis = resolve_axis("axis", self.axis, data.rank())?;
        let (extent, inner) = (data.shape()[axis], data.shape()[axis + 1..].iter().product::<usize>());
        let outer: usize = data.shape()[..axis].iter().product();
        let indices: Vec<usize> =
            indices.to_i64s()?.into_iter().map(|index| index_of(index, extent)).collect::<Result<_>>()?;
        let output = pick(data, &shape, None, |emit| {
            for outer in 0..outer {
                for index in &indices {
                    (0..inner)
                        .for_each(|inner_index| emit(Some((outer * extent + index) * inner + inner_index)));
                }
            }
        });
        Ok(vec![output?])
    }
}

/// Rank and element types of an operator whose indices lie beside the data; gives the axis when the rank is known.
pub(super) fn check_beside(axis: i64, data: &ValueType, indices: &ValueType) -> Result<Option<usize>> {
    check_indices(indices.dtype)?;
    if let (Some(data), Some(indices)) = (data.rank(), indices.rank())
        && data != indices
    {
        return Err(Error::input(
            1,
            "indices",
            format!("expected {data} axes as the data has, found {indices}"),
        ));
    }
    data.rank().or(indices.rank()).map(|rank| resolve_axis("axis", axis, rank)).transpose()
}

/// For each element of `indices`, the place in data of shape `data` that has its coordinates but for `axis`, where the
/// index itself is the coordinate.
pub(super) fn places_beside(data: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>> {
    let steps = strides(data);
    let shape = indices.shape();
    let fits = shape.iter().zip(data).enumerate().all(|(i, (a, b))| i == axis || a <= b);
    if !fits {
        return Err(Error::input(
            1,
            "indices",
            format!("shape {shape:?} does not fit into the data's {data:?} but for axis {axis}"),
        ));
    }
    let own = strides(shape);
    let place = |(linear, index): (usize, i64)| {
        let coordinate = |i: usize| linear / own[i] % shape[i].max(1);
        let beside: usize = (0..shape.len()).filter(|&i| i != axis).map(|i| coordinate(i) * steps[i]).sum();
        Ok(beside + index_of(index, data[axis])? * steps[axis])
    };
    indices.to_i64s()?.into_iter().enumerate().map(place).collect()
}

impl GatherElements {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        Ok(Self { axis: read_axis(attributes)? })
    }
}

impl Operator for GatherElements {
    fn name(&self) -> &str {
        "GatherElements"
    }

    fn attributes(&self) -> Attributes {
        axis_attribute(self.axis)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?.ty, required(inputs, 1, "indices")?.ty);
        check_beside(self.axis, data, indices)?;
        Ok(vec![ValueType { dtype: data.dtype, shape: indices.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let shape = output_shape(self, inputs)?;
        let axis = resolve_axis("axis", self.axis, data.rank())?;
        let places = places_beside(data.shape(), indices, axis)?;
        Ok(vec![pick(data, &shape, None, |emit| places.into_iter().for_each(|place| emit(Some(place))))?])
    }
}

/// For each row of the last axis of `indices`, the first element in data of shape `data` of the slice that it names behind
/// `batch` shared axes.
pub(super) fn places_of_rows(data: &[usize], indices: &Tensor, batch: usize) -> Result<Vec<usize>> {
    let Some((&depth, rows)) = indices.shape().split_last() else {
        return Err(Error::input(1, "indices", "expected at least one axis, found a scalar"));
    };
    if batch > rows.len() || batch + depth > data.len() || rows[..batch] != data[..batch] {
        return Err(Error::input(
            1,
            "indices",
            format!(
                "shape {:?} does not fit to data of shape {data:?} with {batch} shared axes",
                indices.shape()
            ),
        ));
    }
    let (steps, indices) = (strides(data), indices.to_i64s()?);
    // A shared axis of the data is the same of the indices, so its part of the place follows from the row number.
    let rows_per_batch: usize = rows[batch..].iter().product();
    let batch_step: usize = data[batch..].iter().product();
    let place = |row: usize| {
        let start = row / rows_per_batch.max(1) * batch_step;
        let named = indices[row * depth..][..depth].iter().enumerate();
        named
            .map(|(i, &index)| Ok(index_of(index, data[batch + i])? * steps[batch + i]))
            .sum::<Result<usize>>()
            .map(|place| start + place)
    };
    (0..rows.iter().product()).map(place).collect()
}

impl GatherNd {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let batch = attributes.int("batch_dims")?.unwrap_or(0);
        attributes.finish("batch_dims")?;
        let batch_dims = usize::try_from(batch)
            .map_err(|_| Error::attribute("batch_dims", format!("expected 0 and up, found {batch}")))?;
        Ok(Self { batch_dims })
    }
}

impl Operator for GatherNd {
    fn name(&self) -> &str {
        "GatherND"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.batch_dims == 0 { attributes } else { attributes.with("batch_dims", self.batch_dims as i64) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (data, indices) = (required(inputs, 0, "data")?.ty, required(inputs, 1, "indices")?.ty);
        check_indices(indices.dtype)?;
        let shape = match (&data.shape, indices.shape.as_ref().map(|shape| shape.split_last())) {
            (_, Some(None)) => {
                return Err(Error::input(1, "indices", "expected at least one axis, found a scalar"));
            }
            (Some(data), Some(Some((depth, rows)))) => match depth.known() {
                Some(depth) => {
                    let first = self.batch_dims.checked_add(depth).filter(|&first| first <= data.len());
                    let first = first.ok_or_else(|| {
                        let problem =
                            format!("name {depth} axes behind {} of data {data:?}", self.batch_dims);
                        Error::input(1, "indices", problem)
                    })?;
                    Some([rows, &data[first..]].concat())
                }
                None => None,
            },
            _ => None,
        };
        Ok(vec![ValueType { dtype: data.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (data, indices) = (required(inputs, 0, "data")?, required(inputs, 1, "indices")?);
        let shape = output_shape(self, inputs)?;
        let places = places_of_rows(data.shape(), indices, self.batch_dims)?;
        let length: usize = shape[indices.rank() - 1..].iter().product();
        let output = pick(data, &shape, None, |emit| {
            places.iter().flat_map(|&place| place..place + length).for_each(|place| emit(Some(place)));
        });
        Ok(vec![output?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(shape: &[usize]) -> Tensor {
        Tensor::from_vec(shape, (0..shape.iter().product::<usize>() as i64).collect()).unwrap()
    }

    fn run(op: &impl Operator, data: &Tensor, indices: &Tensor) -> Result<(Vec<usize>, Vec<i64>)> {
        let output = op.eval(&[Some(data), Some(indices)], 1)?;
        Ok((output[0].shape().to_vec(), output[0].to_i64s()?))
    }

    #[test]
    fn gather_takes_slices() {
        let data = iota(&[2, 3, 2]);
        let indices = Tensor::from_i64s(&[2, -3]);
        let expected = (vec![2, 2, 2], vec![4, 5, 0, 1, 10, 11, 6, 7]);
        assert_eq!(run(&Gather { axis: 1 }, &data, &indices), Ok(expected));
        assert_eq!(
            run(&Gather { axis: -1 }, &data, &Tensor::scalar(1i64)),
            Ok((vec![2, 3], vec![1, 3, 5, 7, 9, 11]))
        );
        assert!(run(&Gather { axis: 1 }, &data, &Tensor::from_i64s(&[3])).is_err());
        assert!(run(&Gather { axis: 1 }, &data, &Tensor::from_i64s(&[i64::MIN])).is_err());
    }

    #[test]
    fn gather_elements_keeps_other_coordinates() {
        let indices = Tensor::from_vec([2, 2], vec![0i64, 0, -1, 0]).unwrap();
        assert_eq!(
            run(&GatherElements { axis: 1 }, &iota(&[2, 2]), &indices),
            Ok((vec![2, 2], vec![0, 0, 3, 2]))
        );
        assert_eq!(
            run(&GatherElements { axis: 0 }, &iota(&[3, 2]), &indices),
            Ok((vec![2, 2], vec![0, 1, 4, 1]))
        );
        assert!(run(&GatherElements { axis: 0 }, &iota(&[3, 1]), &indices).is_err());
    }

    #[test]
    fn gather_nd_names_slices() {
        let data = iota(&[2, 2, 2]);
        let rows = Tensor::from_vec([2, 1], vec![1i64, 0]).unwrap();
        assert_eq!(
            run(&GatherNd { batch_dims: 0 }, &data, &rows),
            Ok((vec![2, 2, 2], vec![4, 5, 6, 7, 0, 1, 2, 3]))
        );
        assert_eq!(run(&GatherNd { batch_dims: 1 }, &data, &rows), Ok((vec![2, 2], vec![2, 3, 4, 5])));
        assert!(run(&GatherNd { batch_dims: 3 }, &data, &rows).is_err());
    }

    #[test]
    fn extents_are_gathered() {
        let shape = [Dim::symbol("N"), Dim::constant(3), Dim::symbol("H")];
        let ty = ValueType::new(DType::I64, [3usize]);
        let index = Tensor::scalar(-1i64);
        let index_ty = ValueType::of(&index);
        let inputs = [
            Some(InputInfo { ty: &ty, constant: None, extents: Some(&shape) }),
            Some(InputInfo { ty: &index_ty, constant: Some(&index), extents: None }),
        ];
        assert_eq!(Gather::default().infer_extents(&inputs), Some(vec![Dim::symbol("H")]));
    }
}
