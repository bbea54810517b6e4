//! ArgMax and ArgMin: where the greatest or least element along an axis is.

use super::reduce::{groups, reduced_shape};
use super::support::inputs::{at_most, check_dtype, required, resolve_axis};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// ONNX `ArgMax` or `ArgMin`: `data -> reduced` (i64). The first NaN counts as the one looked for, as in NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgReduce {
    /// The least instead of the greatest.
    pub min: bool,
    /// Axis; negative counts from the end.
    pub axis: i64,
    /// The axis stays, with extent 1.
    pub keepdims: bool,
    /// Of equals the last instead of the first.
    pub select_last_index: bool,
}

impl ArgReduce {
    /// Reads the operator of that name; `Ok(None)` when the name is neither.
    ///
    /// # Errors
    /// When an attribute is unknown or out of range.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        if !matches!(name, "ArgMax" | "ArgMin") {
            return Ok(None);
        }
        let op = Self {
            min: name == "ArgMin",
            axis: attributes.int("axis")?.unwrap_or(0),
            keepdims: attributes.flag("keepdims", true)?,
            select_last_index: attributes.flag("select_last_index", false)?,
        };
        attributes.finish("axis, keepdims, select_last_index")?;
        Ok(Some(op))
    }

    fn reduced(self, rank: usize) -> Result<Vec<bool>> {
        let axis = resolve_axis("axis", self.axis, rank)?;
        Ok((0..rank).map(|i| i == axis).collect())
    }

    /// The winners along an axis, by rows of the axes behind it: all groups of a row at once.
    fn find_rows(self, elements: &[f32], shape: &[usize], axis: usize) -> Vec<i64> {
        let (count, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let mut found = vec![];
        for group in elements.chunks_exact((count * inner).max(1)) {
            let mut best: Vec<f32> = group[..inner].to_vec();
            let mut places = vec![0i64; inner];
            for (i, row) in (0..).zip(group.chunks_exact(inner)).skip(1) {
                for ((best, place), &x) in best.iter_mut().zip(&mut places).zip(row) {
                    let better = if self.min { x < *best } else { x > *best };
                    let wins =
                        !best.is_nan() && (better || x.is_nan() || self.select_last_index && x == *best);
                    *best = if wins { x } else { *best };
                    *place = if wins { i } else { *place };
                }
            }
            found.extend(places);
        }
        found
    }

    /// Position of the winner in a group that is not empty.
    fn find<T: PartialOrd + Copy>(self, group: impl Iterator<Item = T>) -> i64 {
        let mut best: Option<(i64, T)> = None;
        for (i, x) in group.enumerate() {
            let wins = best.is_none_or(|(_, best)| {
                let nan = |x: T| x.partial_cmp(&x).is_none();
                let better = if self.min { x < best } else { x > best };
                !nan(best) && (better || nan(x) || (self.select_last_index && x == best))
            });
            if wins {
                best = Some((i as i64, x));
            }
        }
        best.map_or(0, |(i, _)| i)
    }
}

impl Operator for ArgReduce {
    fn name(&self) -> &str {
        if self.min { "ArgMin" } else { "ArgMax" }
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != 0 {
            attributes.set("axis", self.axis);
        }
        if !self.keepdims {
            attributes.set("keepdims", false);
        }
        if self.select_last_index {
            attributes.set("select_last_index", true);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let data = required(inputs, 0, "data")?.ty;
        check_dtype(0, "data", data.dtype, DType::is_numeric, "numbers")?;
        let shape = data.shape.as_ref().map(|shape| {
            Ok::<_, Error>(reduced_shape(
                shape,
                &self.reduced(shape.len())?,
                self.keepdims,
                &Dim::constant(1),
            ))
        });
        Ok(vec![ValueType { dtype: Some(DType::I64), shape: shape.transpose()? }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let data = required(inputs, 0, "data")?;
        let reduced = self.reduced(data.rank())?;
        let shape = reduced_shape(data.shape(), &reduced, self.keepdims, &1);
        let (starts, offsets) = groups(data.shape(), &reduced);
        if offsets.is_empty() && element_count(&shape)? > 0 {
            return Err(Error::input(0, "data", format!("nothing along the axis, shape {:?}", data.shape())));
        }
        if data.dtype() == DType::F32 {
            let axis = reduced.iter().position(|&reduced| reduced).unwrap_or(0);
            let found = self.find_rows(&data.elements::<f32>()?, data.shape(), axis);
            return Ok(vec![Tensor::from_vec(shape, found)?]);
        }
        dispatch_numeric!(data.dtype(), T => {
            let elements = data.elements::<T>()?;
            let found = starts.map(|start| self.find(offsets.iter().map(|at| elements[start + at])));
            Ok(vec![Tensor::from_vec(shape.clone(), found.collect::<Vec<i64>>())?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(min: bool, select_last_index: bool, data: &[f32]) -> i64 {
        let op = ArgReduce { min, axis: -1, keepdims: false, select_last_index };
        assert_eq!(ArgReduce::read(op.name(), op.attributes()), Ok(Some(op)));
        let x = Tensor::from_vec([data.len()], data.to_vec()).unwrap();
        op.eval(&[Some(&x)], 1).unwrap()[0].to_i64s().unwrap()[0]
    }

    #[test]
    fn first_last_and_nan() {
        assert_eq!(find(false, false, &[1.0, 3.0, 3.0, 0.0]), 1);
        assert_eq!(find(false, true, &[1.0, 3.0, 3.0, 0.0]), 2);
        assert_eq!(find(true, false, &[1.0, 0.0, 3.0, 0.0]), 1);
        assert_eq!(find(true, true, &[1.0, 0.0, 3.0, 0.0]), 3);
        assert_eq!(find(false, false, &[1.0, f32::NAN, 3.0, f32::NAN]), 1);
    }

    #[test]
    fn axis_keeps_or_goes() {
        let x = Tensor::from_vec([2, 3], vec![1, 5, 2, 4, 0, 9]).unwrap();
        let op = ArgReduce { min: false, axis: 0, keepdims: true, select_last_index: false };
        assert_eq!(op.eval(&[Some(&x)], 1).unwrap()[0], Tensor::from_vec([1, 3], vec![1i64, 0, 1]).unwrap());
        let empty = Tensor::zeros(DType::F32, [0, 3]).unwrap();
        assert!(op.eval(&[Some(&empty)], 1).is_err());
        let op = ArgReduce { axis: 2, ..op };
        assert!(op.eval(&[Some(&x)], 1).is_err());
    }
}
