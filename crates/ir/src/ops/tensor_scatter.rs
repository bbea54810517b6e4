//! TensorScatter: new rows in a cache that keeps its size.

use super::movement::Raw;
use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required, resolve_axis};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `TensorScatter`: `past_cache [N, .., max, ..], update [N, .., length, ..], write_indices [N]? -> present_cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorScatter {
    /// Axis along which is written; not the first.
    pub axis: i64,
    /// What reaches past the end goes on at the beginning.
    pub circular: bool,
}

impl TensorScatter {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?.unwrap_or(-2);
        let circular = match attributes.string("mode")?.as_deref() {
            None | Some("linear") => false,
            Some("circular") => true,
            Some(other) => {
                let problem = format!("`{other}` is not one of linear, circular");
                return Err(Error::attribute("mode", problem));
            }
        };
        attributes.finish("axis, mode")?;
        Ok(Self { axis, circular })
    }

    fn axis(self, rank: usize) -> Result<usize> {
        match resolve_axis("axis", self.axis, rank)? {
            0 => Err(Error::attribute("axis", "the first axis is that of the batch, expected another")),
            axis => Ok(axis),
        }
    }
}

impl Operator for TensorScatter {
    fn name(&self) -> &str {
        "TensorScatter"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != -2 {
            attributes.set("axis", self.axis);
        }
        if self.circular {
            attributes.set("mode", "circular");
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (cache, update) = (required(inputs, 0, "past_cache")?.ty, required(inputs, 1, "update")?.ty);
        let dtype = common_dtype(&[(0, "past_cache", cache.dtype), (1, "update", update.dtype)])?;
        if let Some(indices) = optional(inputs, 2) {
            check_dtype(2, "write_indices", indices.ty.dtype, |dtype| dtype == DType::I64, "i64")?;
            let batch = cache.shape.as_ref().and_then(|shape| shape.first());
            let fits = match (indices.ty.shape.as_deref(), batch) {
                (Some([found]), Some(batch)) => found.equals(batch) != Some(false),
                (Some(shape), None) => shape.len() == 1,
                (None, _) => true,
                _ => false,
            };
            if !fits {
                return Err(Error::input(2, "write_indices", format!("expected [N], found {}", indices.ty)));
            }
        }
        let Some(shape) = &cache.shape else { return Ok(vec![ValueType { dtype, shape: None }]) };
        let axis = self.axis(shape.len())?;
        if let Some(update) = &update.shape {
            let same = |i: usize| {
                if i == axis {
                    let (Some(room), Some(length)) = (shape[i].known(), update[i].known()) else {
                        return true;
                    };
                    return length <= room;
                }
                shape[i].equals(&update[i]) != Some(false)
            };
            if update.len() != shape.len() || !(0..shape.len()).all(same) {
                let problem = format!("{update:?} does not fit a cache of {shape:?} along axis {axis}");
                return Err(Error::input(1, "update", problem));
            }
        }
        Ok(vec![ValueType { dtype, shape: Some(shape.clone()) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (cache, update) = (required(inputs, 0, "past_cache")?, required(inputs, 1, "update")?);
        let axis = self.axis(cache.rank())?;
        let (room, length) = (cache.shape()[axis], update.shape()[axis]);
        let inner: usize = cache.shape()[axis + 1..].iter().product();
        let outer: usize = cache.shape()[..axis].iter().product();
        let batch = cache.shape()[0];
        let starts = match optional(inputs, 2) {
            Some(indices) => indices.to_i64s()?,
            None => vec![0; batch],
        };
        let place = |start: i64, i: usize| {
            let at = start.checked_add(i as i64);
            let at = if self.circular { at.map(|at| at.rem_euclid(room.max(1) as i64)) } else { at };
            at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < room).ok_or_else(|| {
                let problem = format!("{length} rows from {start} on do not fit {room}; mode circular wraps");
                Error::input(2, "write_indices", problem)
            })
        };
        let (mut result, source) = (Raw::of(cache)?, Raw::of(update)?);
        for part in 0..outer {
            let start = starts[part / (outer / batch.max(1)).max(1)];
            for i in 0..length {
                let at = place(start, i)?;
                for j in 0..inner {
                    result.set((part * room + at) * inner + j, source.get((part * length + i) * inner + j));
                }
            }
        }
        Ok(vec![result.into_tensor(cache.shape())?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ops::Op;

    fn run(op: TensorScatter, inputs: &[Option<&Tensor>]) -> Result<Vec<f64>> {
        assert_eq!(TensorScatter::read(op.attributes()), Ok(op));
        Op::from(op).eval(inputs, 1)?[0].to_f64s()
    }

    #[test]
    fn rows_are_written_where_each_sample_stands() {
        let cache = Tensor::from_vec([2, 3, 1], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let update = Tensor::from_vec([2, 2, 1], vec![10i32, 20, 30, 40]).unwrap();
        let linear = TensorScatter { axis: -2, circular: false };
        let at = |places: &[i64]| Tensor::from_i64s(places);
        assert_eq!(run(linear, &[Some(&cache), Some(&update)]).unwrap(), [10.0, 20.0, 3.0, 30.0, 40.0, 6.0]);
        let places = at(&[1, 0]);
        let y = run(linear, &[Some(&cache), Some(&update), Some(&places)]).unwrap();
        assert_eq!(y, [1.0, 10.0, 20.0, 30.0, 40.0, 6.0]);
        let places = at(&[2, 5]);
        let circular = TensorScatter { axis: 1, circular: true };
        let y = run(circular, &[Some(&cache), Some(&update), Some(&places)]).unwrap();
        assert_eq!(y, [20.0, 2.0, 10.0, 40.0, 5.0, 30.0]);
        let error = run(linear, &[Some(&cache), Some(&update), Some(&places)]).unwrap_err().to_string();
        assert!(error.contains("2 rows from 2 on do not fit 3"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).unwrap();
        let error = |axis: i64, cache: &[usize], update: &[usize]| {
            let op = TensorScatter { axis, circular: false };
            run(op, &[Some(&zeros(cache)), Some(&zeros(update))]).unwrap_err().to_string()
        };
        assert!(
            error(0, &[2, 2], &[2, 2]).contains("axis of the batch")
                || error(0, &[2, 2], &[2, 2]).contains("batch")
        );
        assert!(error(1, &[2, 2], &[2, 3]).contains("does not fit a cache"));
        assert!(error(1, &[2, 2], &[1, 2]).contains("does not fit a cache"));
        assert!(error(5, &[2, 2], &[2, 2]).contains("axis"));
        let op = TensorScatter { axis: 1, circular: true };
        assert!(run(op, &[Some(&zeros(&[2, 0])), Some(&zeros(&[2, 0]))]).unwrap().is_empty());
        assert!(run(op, &[Some(&zeros(&[0, 2])), Some(&zeros(&[0, 1]))]).unwrap().is_empty());
    }

    #[test]
    fn open_extents_pass() {
        let ty = ValueType::new(DType::F32, [Dim::symbol("N"), 4usize.into(), Dim::symbol("D")]);
        let info = Some(InputInfo { ty: &ty, constant: None, extents: None });
        let op = TensorScatter { axis: 1, circular: false };
        assert_eq!(op.infer(&[info, info], 1).unwrap()[0], ty);
    }
}
