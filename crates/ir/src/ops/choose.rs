//! Choosing elements by what they are: NonZero, TopK, Compress, Unique.

use super::movement::{Raw, pick};
use super::support::broadcast::strides;
use super::support::inputs::{at_most, check_dtype, required, resolve_axis};
use super::support::lists::known_i64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::cmp::Ordering;

/// ONNX `NonZero`: the coordinates of elements that are not zero, `[rank, count]` of i64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NonZero;

/// ONNX `TopK`: `X, K -> values, indices` of the `K` largest along an axis, the first of equals first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopK {
    /// The axis; counts from the end when negative.
    pub axis: i64,
    /// The largest, else the least.
    pub largest: bool,
    /// In order; they are here in any case.
    pub sorted: bool,
}

/// ONNX `Compress`: `input, condition -> output`, the slices of an axis for which the condition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compress {
    /// The axis; counts from the end when negative; `None` is all of the data as a list.
    pub axis: Option<i64>,
}

/// ONNX `Unique`: `X -> Y, indices, inverse_indices, counts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unique {
    /// The axis whose slices are compared; counts from the end when negative; `None` compares elements.
    pub axis: Option<i64>,
    /// Sorted, else in the order of their first appearance.
    pub sorted: bool,
}

/// Constants up to this many elements are looked at when types are inferred.
const SMALL: usize = 1024;

impl NonZero {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for NonZero {
    fn name(&self) -> &str {
        "NonZero"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "X")?;
        let rank = x.ty.rank().map_or(Dim::unknown(), Dim::from);
        let count = match x.constant {
            Some(x) if x.len() <= SMALL => x.to_f64s()?.iter().filter(|&&value| value != 0.0).count().into(),
            _ => Dim::unknown(),
        };
        Ok(vec![ValueType::new(DType::I64, [rank, count])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "X")?;
        let set: Vec<usize> =
            x.to_f64s()?.into_iter().enumerate().filter(|(_, value)| *value != 0.0).map(|(i, _)| i).collect();
        let coordinates = strides(x.shape())
            .into_iter()
            .zip(x.shape())
            .flat_map(|(stride, extent)| set.iter().map(move |i| (i / stride % extent.max(&1)) as i64));
        Ok(vec![Tensor::from_vec([x.rank(), set.len()], coordinates.collect())?])
    }
}

impl TopK {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            axis: attributes.int("axis")?.unwrap_or(-1),
            largest: attributes.flag("largest", true)?,
            sorted: attributes.flag("sorted", true)?,
        };
        attributes.finish("axis, largest, sorted")?;
        Ok(op)
    }
}

/// NaN is the greatest, as NumPy sorts.
fn compare<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| {
        let is_nan = |x: &T| x.partial_cmp(x).is_none();
        is_nan(a).cmp(&is_nan(b))
    })
}

/// The wanted number of elements, which is one number.
fn wanted(k: &[i64]) -> Result<i64> {
    match k {
        &[k] if k >= 0 => Ok(k),
        found => Err(Error::input(1, "K", format!("expected one number, 0 and up, found {found:?}"))),
    }
}

impl Operator for TopK {
    fn name(&self) -> &str {
        "TopK"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != -1 {
            attributes.set("axis", self.axis);
        }
        for (name, value) in [("largest", self.largest), ("sorted", self.sorted)] {
            if !value {
                attributes.set(name, 0);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (x, k) = (required(inputs, 0, "X")?, required(inputs, 1, "K")?);
        check_dtype(0, "X", x.ty.dtype, DType::is_numeric, "numbers")?;
        let shape = match &x.ty.shape {
            None => None,
            Some(shape) => {
                let axis = resolve_axis("axis", self.axis, shape.len())?;
                let k = match known_i64s(&k)? {
                    Some(k) => Dim::constant(wanted(&k)?),
                    None => super::support::inputs::extents(&k)
                        .and_then(|mut k| k.pop())
                        .unwrap_or_else(Dim::unknown),
                };
                if let (Some(k), Some(extent)) = (k.known(), shape[axis].known())
                    && k > extent
                {
                    return Err(Error::input(1, "K", format!("{k} of an axis of extent {extent}")));
                }
                let mut shape = shape.clone();
                shape[axis] = k;
                Some(shape)
            }
        };
        let mut types = vec![ValueType { dtype: x.ty.dtype, shape: shape.clone() }];
        if outputs > 1 {
            types.push(ValueType { dtype: Some(DType::I64), shape });
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let (x, k) = (required(inputs, 0, "X")?, required(inputs, 1, "K")?);
        let shape = super::support::lists::output_shape(self, inputs)?;
        let axis = resolve_axis("axis", self.axis, x.rank())?;
        let (k, extent, step) = (wanted(&k.to_i64s()?)? as usize, x.shape()[axis], strides(x.shape())[axis]);
        let mut chosen = vec![0; shape.iter().product()];
        dispatch_numeric!(x.dtype(), T => {
            let data = x.elements::<T>()?;
            for line in 0..chosen.len().checked_div(k).unwrap_or(0) {
                let (outer, inner) = (line / step, line % step);
                let at = |i: usize| (outer * extent + i) * step + inner;
                let mut order: Vec<usize> = (0..extent).collect();
                order.sort_by(|&a, &b| {
                    let rising = compare(&data[at(a)], &data[at(b)]);
                    if self.largest { rising.reverse() } else { rising }
                });
                for (i, &index) in order[..k].iter().enumerate() {
                    chosen[(outer * k + i) * step + inner] = index;
                }
            }
            Ok(())
        })?;
        let place = |(position, &index): (usize, &usize)| {
            (position / (k * step) * extent + index) * step + position % step
        };
        let values =
            pick(x, &shape, None, |emit| chosen.iter().enumerate().map(place).for_each(|at| emit(Some(at))))?;
        let mut results = vec![values];
        if outputs > 1 {
            results.push(Tensor::from_vec(shape, chosen.into_iter().map(|index| index as i64).collect())?);
        }
        Ok(results)
    }
}

impl Compress {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?;
        attributes.finish("axis")?;
        Ok(Self { axis })
    }
}

impl Operator for Compress {
    fn name(&self) -> &str {
        "Compress"
    }

    fn attributes(&self) -> Attributes {
        self.axis.map_or(Attributes::new(), |axis| Attributes::new().with("axis", axis))
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (ty, condition) = (required(inputs, 0, "input")?.ty, required(inputs, 1, "condition")?);
        check_dtype(1, "condition", condition.ty.dtype, |dtype| dtype == DType::Bool, "bool")?;
        let count = match condition.constant.filter(|condition| condition.len() <= SMALL) {
            Some(condition) => condition.bools()?.filter(|&holds| holds).count().into(),
            None => Dim::unknown(),
        };
        let shape = match (self.axis, &ty.shape) {
            (None, _) => Some(vec![count]),
            (Some(_), None) => None,
            (Some(axis), Some(shape)) => {
                let mut shape = shape.clone();
                let axis = resolve_axis("axis", axis, shape.len())?;
                shape[axis] = count;
                Some(shape)
            }
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, condition) = (required(inputs, 0, "input")?, required(inputs, 1, "condition")?);
        let (x, axis) = slices(x, self.axis)?;
        let chosen: Vec<usize> =
            condition.bools()?.enumerate().filter(|(_, holds)| *holds).map(|(i, _)| i).collect();
        if chosen.last().is_some_and(|&last| last >= x.shape()[axis]) {
            let problem = format!("holds past the end of axis {axis} of {:?}", x.shape());
            return Err(Error::input(1, "condition", problem));
        }
        Ok(vec![take_slices(&x, axis, &chosen)?])
    }
}

/// The data and the axis of its slices: without an axis, a list and its elements.
fn slices(x: &Tensor, axis: Option<i64>) -> Result<(Tensor, usize)> {
    match axis {
        Some(axis) => Ok((x.clone(), resolve_axis("axis", axis, x.rank())?)),
        None => Ok((x.reshaped([x.len()])?, 0)),
    }
}

/// The slices of an axis with those indices.
fn take_slices(x: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor> {
    let (extent, step) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let mut shape = x.shape().to_vec();
    shape[axis] = indices.len();
    let outer: usize = shape[..axis].iter().product();
    pick(x, &shape, None, |emit| {
        for outer in 0..outer {
            for index in indices {
                (0..step).for_each(|inner| emit(Some((outer * extent + index) * step + inner)));
            }
        }
    })
}

impl Unique {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { axis: attributes.int("axis")?, sorted: attributes.flag("sorted", true)? };
        attributes.finish("axis, sorted")?;
        Ok(op)
    }
}

impl Operator for Unique {
    fn name(&self) -> &str {
        "Unique"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = self.axis.map_or(Attributes::new(), |axis| Attributes::new().with("axis", axis));
        if !self.sorted {
            attributes.set("sorted", 0);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "X")?.ty;
        let shape = match (self.axis, &ty.shape) {
            (None, _) => Some(vec![Dim::unknown()]),
            (Some(_), None) => None,
            (Some(axis), Some(shape)) => {
                let mut shape = shape.clone();
                let axis = resolve_axis("axis", axis, shape.len())?;
                shape[axis] = Dim::unknown();
                Some(shape)
            }
        };
        let mut types = vec![ValueType { dtype: ty.dtype, shape }];
        types.resize(outputs.max(1), ValueType::new(DType::I64, [Dim::unknown()]));
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "X")?;
        let (x, axis) = slices(x, self.axis)?;
        let (extent, step) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
        // Slices compare by their elements in order, as numbers; equal bytes decide what is the same.
        let values = x.to_f64s()?;
        let raw = Raw::of(&x)?;
        let outer: usize = x.shape()[..axis].iter().product();
        let places =
            |slice: usize| (0..outer * step).map(move |i| (i / step * extent + slice) * step + i % step);
        let order = |&a: &usize, &b: &usize| {
            let elements = places(a).zip(places(b));
            elements
                .map(|(a, b)| compare(&values[a], &values[b]).then_with(|| raw.get(a).cmp(raw.get(b))))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        let mut sorted: Vec<usize> = (0..extent).collect();
        sorted.sort_by(order);
        let mut groups: Vec<Vec<usize>> = vec![];
        for slice in sorted {
            match groups.last_mut() {
                Some(group) if order(&group[0], &slice).is_eq() => group.push(slice),
                _ => groups.push(vec![slice]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }
        let firsts: Vec<usize> = groups.iter().map(|group| group[0]).collect();
        let mut inverse = vec![0; extent];
        for (i, group) in groups.iter().enumerate() {
            for &slice in group {
                inverse[slice] = i as i64;
            }
        }
        let indices: Vec<i64> = firsts.iter().map(|&first| first as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|group| group.len() as i64).collect();
        let mut results = vec![take_slices(&x, axis, &firsts)?];
        results.extend([indices, inverse, counts].iter().map(|list| Tensor::from_i64s(list)));
        results.truncate(outputs.max(1));
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_come_by_axis() {
        let x = Tensor::from_vec([2, 2], vec![1i32, 0, 1, 1]).unwrap();
        let output = NonZero.eval(&[Some(&x)], 1).unwrap();
        assert_eq!(
            (output[0].shape(), output[0].to_i64s().unwrap()),
            ([2, 3].as_slice(), vec![0, 1, 1, 0, 0, 1])
        );
    }

    #[test]
    fn the_first_of_equals_comes_first() {
        let x = Tensor::from_vec([2, 2, 2], vec![1f32, 5.0, 1.0, f32::NAN, 3.0, 2.0, 4.0, 2.0]).unwrap();
        let run = |axis, largest, k| {
            let op = TopK { axis, largest, sorted: true };
            assert_eq!(TopK::read(op.attributes()), Ok(op));
            let output = op.eval(&[Some(&x), Some(&Tensor::from_i64s(&[k]))], 2)?;
            Ok::<_, Error>((output[0].to_f64s()?, output[1].to_i64s()?))
        };
        assert_eq!(run(1, false, 1), Ok((vec![1.0, 5.0, 3.0, 2.0], vec![0, 0, 0, 0])));
        assert_eq!(run(0, true, 2).unwrap().1, [1, 0, 1, 0, 0, 1, 0, 1]);
        assert_eq!(run(0, true, 0), Ok((vec![], vec![])));
        assert!(run(1, true, 3).is_err());
    }

    #[test]
    fn compress_keeps_what_holds() {
        let x = Tensor::from_vec([3, 2], (1..=6).collect::<Vec<i64>>()).unwrap();
        let run = |axis, holds: &[bool]| {
            let condition = Tensor::from_bools([holds.len()], holds.iter().copied()).unwrap();
            Compress { axis }.eval(&[Some(&x), Some(&condition)], 1)?[0].to_i64s()
        };
        assert_eq!(run(Some(0), &[false, true, true]), Ok(vec![3, 4, 5, 6]));
        assert_eq!(run(Some(1), &[false, true]), Ok(vec![2, 4, 6]));
        assert_eq!(run(None, &[false, true, false, false, true]), Ok(vec![2, 5]));
        assert!(run(Some(1), &[false, false, true]).is_err());
    }

    #[test]
    fn unique_as_in_the_specification() {
        let x = Tensor::from_vec([6], vec![2f32, 1.0, 1.0, 3.0, 4.0, 3.0]).unwrap();
        let run = |sorted| {
            let output = Unique { axis: None, sorted }.eval(&[Some(&x)], 4).unwrap();
            (
                output[0].to_f64s().unwrap(),
                output[1..].iter().map(|list| list.to_i64s().unwrap()).collect::<Vec<_>>(),
            )
        };
        let expected = vec![vec![0, 1, 3, 4], vec![0, 1, 1, 2, 3, 2], vec![1, 2, 2, 1]];
        assert_eq!(run(false), (vec![2.0, 1.0, 3.0, 4.0], expected));
        let expected = vec![vec![1, 0, 3, 4], vec![1, 0, 0, 2, 3, 2], vec![2, 1, 2, 1]];
        assert_eq!(run(true), (vec![1.0, 2.0, 3.0, 4.0], expected));

        let x = Tensor::from_vec([3, 3], vec![1f32, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 3.0, 4.0]).unwrap();
        let output = Unique { axis: Some(0), sorted: true }.eval(&[Some(&x)], 4).unwrap();
        assert_eq!(output[0].to_f64s().unwrap(), [1.0, 0.0, 0.0, 2.0, 3.0, 4.0]);
        assert_eq!(output[2].to_i64s().unwrap(), [0, 0, 1]);
    }
}
