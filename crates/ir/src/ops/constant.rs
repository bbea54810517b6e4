//! Tensors made from a few numbers: ConstantOfShape, Range, OneHot, EyeLike.

use super::movement::{Raw, pick};
use super::support::inputs::{
    at_most, check_dtype, check_size, common_dtype, extents, required, resolve_axis,
};
use super::support::lists::{known_i64s, list_i64, output_shape, product};
use super::support::number::{Number, Scalar};
use super::support::values::scalars;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `ConstantOfShape`: `shape -> output`, one value everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstantOfShape {
    /// The value: a tensor of one element.
    pub value: Tensor,
}

/// ONNX `Range`: `start, limit, delta -> output`, all scalars of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range;

/// ONNX `OneHot`: `indices, depth, values [off, on] -> output`, a new axis of `depth` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneHot {
    /// Where the new axis stands; counts from the end of the output when negative.
    pub axis: i64,
}

/// ONNX `EyeLike`: a matrix of the input's shape with ones on a diagonal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EyeLike {
    /// Element type; `None` is that of the input.
    pub dtype: Option<DType>,
    /// Column of the diagonal in row 0.
    pub k: i64,
}

impl Default for ConstantOfShape {
    fn default() -> Self {
        Self { value: Tensor::scalar(0f32) }
    }
}

impl ConstantOfShape {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let value = attributes.tensor("value")?;
        attributes.finish("value")?;
        match value {
            None => Ok(Self::default()),
            Some(value) if value.len() == 1 => Ok(Self { value }),
            Some(value) => {
                let problem = format!("expected one element, found shape {:?}", value.shape());
                Err(Error::attribute("value", problem))
            }
        }
    }
}

impl Operator for ConstantOfShape {
    fn name(&self) -> &str {
        "ConstantOfShape"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if *self == Self::default() { attributes } else { attributes.with("value", self.value.clone()) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let shape = extents(&required(inputs, 0, "input")?);
        if let Some(negative) =
            shape.iter().flatten().find(|dim| dim.known_i64().is_some_and(|extent| extent < 0))
        {
            return Err(Error::input(0, "input", format!("{negative} is no extent; accepted are 0 and up")));
        }
        Ok(vec![ValueType { dtype: Some(self.value.dtype()), shape }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let count = product(&extents(&required(inputs, 0, "input").ok()?)?).ok()?.known()?;
        let value = Dim::constant(*self.value.to_i64s().ok()?.first()?);
        (count <= 64).then(|| vec![value; count])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        list_i64(required(inputs, 0, "input")?, 0, "input")?;
        let shape = output_shape(self, inputs)?;
        Ok(vec![Raw::repeat(&self.value, shape.iter().product())?.into_tensor(shape)?])
    }
}

impl Range {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

/// Start, delta and number of elements of a range.
fn range(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<(Scalar, Scalar, usize)> {
    let number = |(index, name): (usize, &'static str), tensor: &Tensor| match scalars(tensor)?.as_slice() {
        &[value] => Ok(value),
        values => Err(Error::input(index, name, format!("expected one number, found {}", values.len()))),
    };
    let (start, limit) = (number((0, "start"), start)?, number((1, "limit"), limit)?);
    let delta = number((2, "delta"), delta)?;
    let refused = || Error::input(2, "delta", "expected a number that leads to the limit, other than 0");
    let count = match (start, limit, delta) {
        (_, _, Scalar::Int(0)) => return Err(refused()),
        (Scalar::Int(start), Scalar::Int(limit), Scalar::Int(delta)) => {
            let (distance, step) = if delta > 0 { (limit - start, delta) } else { (start - limit, -delta) };
            (distance.max(0) + step - 1).div_euclid(step)
        }
        _ => {
            let count = ((limit.to_f64() - start.to_f64()) / delta.to_f64()).ceil();
            if count.is_nan() || delta.to_f64() == 0.0 {
                return Err(refused());
            }
            count.max(0.0) as i128
        }
    };
    let count = usize::try_from(count).map_err(|_| Error::Size(format!("a range of {count} elements")))?;
    Ok((start, delta, count))
}

impl Operator for Range {
    fn name(&self) -> &str {
        "Range"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let [start, limit, delta] = operands(|index, name| required(inputs, index, name))?;
        let dtype = common_dtype(&[
            (0, "start", start.ty.dtype),
            (1, "limit", limit.ty.dtype),
            (2, "delta", delta.ty.dtype),
        ])?;
        check_dtype(0, "start", dtype, DType::is_numeric, "numbers")?;
        let one = |input: &InputInfo<'_>| extents(input).filter(|extents| extents.len() == 1)?.pop();
        let count = if let (Some(start), Some(limit), Some(delta)) =
            (start.constant, limit.constant, delta.constant)
        {
            range(start, limit, delta)?.2.into()
        } else if let (Some(start), Some(limit), Some(1)) =
            (one(&start), one(&limit), one(&delta).and_then(|delta| delta.known_i64()))
        {
            let count = limit.sub(&start)?;
            if count.is_unknown() { Dim::unknown() } else { count }
        } else {
            Dim::unknown()
        };
        Ok(vec![ValueType { dtype, shape: Some(vec![count]) }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let [start, limit, delta] = operands(|index, name| required(inputs, index, name)).ok()?;
        let known = |input: &InputInfo<'_>| Some(*known_i64s(input).ok()??.first()?);
        let (start, limit, delta) = (known(&start)?, known(&limit)?, known(&delta)?);
        let (_, _, count) =
            range(&Tensor::scalar(start), &Tensor::scalar(limit), &Tensor::scalar(delta)).ok()?;
        (count <= 64).then(|| {
            (0..count as i64).map(|i| Dim::constant(start.wrapping_add(i.wrapping_mul(delta)))).collect()
        })
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [start, limit, delta] = operands(|index, name| required(inputs, index, name))?;
        let dtypes = [(0, "start", start), (1, "limit", limit), (2, "delta", delta)];
        common_dtype(&dtypes.map(|(index, name, tensor)| (index, name, Some(tensor.dtype()))))?;
        let (first, step, count) = range(start, limit, delta)?;
        check_size(start.dtype(), &[count])?;
        dispatch_numeric!(start.dtype(), T => {
            let element = |i: usize| match (first, step) {
                (Scalar::Int(first), Scalar::Int(step)) => T::from_scalar(Scalar::Int(first + i as i128 * step)),
                _ => T::from_f64(first.to_f64() + i as f64 * step.to_f64()),
            };
            Ok(vec![Tensor::from_vec([count], (0..count).map(element).collect())?])
        })
    }
}

/// The three inputs of a range.
fn operands<T>(get: impl Fn(usize, &'static str) -> Result<T>) -> Result<[T; 3]> {
    Ok([get(0, "start")?, get(1, "limit")?, get(2, "delta")?])
}

impl OneHot {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?.unwrap_or(-1);
        attributes.finish("axis")?;
        Ok(Self { axis })
    }
}

/// The depth, given as a number of any type.
fn depth_of(tensor: &Tensor) -> Result<usize> {
    let refused =
        |found: String| Error::input(1, "depth", format!("expected one positive number, found {found}"));
    match scalars(tensor)?.as_slice() {
        [value] => {
            let depth = value.to_f64();
            if (1.0..=f64::from(i32::MAX)).contains(&depth) {
                Ok(depth as usize)
            } else {
                Err(refused(depth.to_string()))
            }
        }
        values => Err(refused(format!("{} numbers", values.len()))),
    }
}

impl Operator for OneHot {
    fn name(&self) -> &str {
        "OneHot"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.axis == -1 { attributes } else { attributes.with("axis", self.axis) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (indices, depth) = (required(inputs, 0, "indices")?, required(inputs, 1, "depth")?);
        let values = required(inputs, 2, "values")?;
        check_dtype(0, "indices", indices.ty.dtype, DType::is_numeric, "numbers")?;
        let depth = match (depth.constant, extents(&depth).as_deref()) {
            (Some(depth), _) => depth_of(depth)?.into(),
            (None, Some([depth])) => depth.clone(),
            (None, _) => Dim::unknown(),
        };
        let shape = match &indices.ty.shape {
            None => None,
            Some(shape) => {
                let mut shape = shape.clone();
                let axis = resolve_axis("axis", self.axis, shape.len() + 1)?;
                shape.insert(axis, depth);
                Some(shape)
            }
        };
        Ok(vec![ValueType { dtype: values.ty.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (indices, values) = (required(inputs, 0, "indices")?, required(inputs, 2, "values")?);
        let (shape, depth) = (output_shape(self, inputs)?, depth_of(required(inputs, 1, "depth")?)?);
        if values.len() != 2 {
            let problem = format!("expected off and on, found shape {:?}", values.shape());
            return Err(Error::input(2, "values", problem));
        }
        let axis = resolve_axis("axis", self.axis, shape.len())?;
        let inner: usize = shape[axis + 1..].iter().product();
        // An index that counts from the end is that of an element; one out of range is no element's.
        let hot: Vec<Option<usize>> = scalars(indices)?
            .into_iter()
            .map(|index| {
                let index = index.to_f64();
                let index = if index < 0.0 { index + depth as f64 } else { index };
                (0.0..depth as f64).contains(&index).then_some(index as usize)
            })
            .collect();
        let output = pick(values, &shape, None, |emit| {
            for block in hot.chunks(inner.max(1)) {
                for level in 0..depth {
                    for &hot in block {
                        emit(Some(usize::from(hot == Some(level))));
                    }
                }
            }
        });
        Ok(vec![output?])
    }
}

impl EyeLike {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { dtype: attributes.dtype("dtype")?, k: attributes.int("k")?.unwrap_or(0) };
        attributes.finish("dtype, k")?;
        Ok(op)
    }
}

impl Operator for EyeLike {
    fn name(&self) -> &str {
        "EyeLike"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some(dtype) = self.dtype {
            attributes.set("dtype", dtype);
        }
        if self.k != 0 {
            attributes.set("k", self.k);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "input")?.ty;
        if ty.rank().is_some_and(|rank| rank != 2) {
            return Err(Error::input(0, "input", format!("expected a matrix, found {ty}")));
        }
        Ok(vec![ValueType { dtype: self.dtype.or(ty.dtype), shape: ty.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, shape) = (required(inputs, 0, "input")?, output_shape(self, inputs)?);
        let dtype = self.dtype.unwrap_or(x.dtype());
        let one = match dtype {
            DType::Bool => Tensor::from_bools([1], [true])?,
            dtype => dispatch_numeric!(dtype, T => Tensor::from_vec([1], vec![T::from_f64(1.0)]))?,
        };
        let (rows, columns) = (shape[0] as i64, shape[1] as i64);
        let output = pick(&one, &shape, None, |emit| {
            for row in 0..rows {
                (0..columns).for_each(|column| emit((column == row.saturating_add(self.k)).then_some(0)));
            }
        });
        Ok(vec![output?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged<T: Element>(start: T, limit: T, delta: T) -> Result<Vec<f64>> {
        let inputs = [start, limit, delta].map(Tensor::scalar);
        Range.eval(&inputs.each_ref().map(Some), 1)?[0].to_f64s()
    }

    #[test]
    fn ranges_end_before_their_limit() {
        assert_eq!(ranged(1i64, 8, 3), Ok(vec![1.0, 4.0, 7.0]));
        assert_eq!(ranged(10i32, 6, -3), Ok(vec![10.0, 7.0]));
        assert_eq!(ranged(1f32, 2.0, 0.5), Ok(vec![1.0, 1.5]));
        assert_eq!(ranged(3i64, 1, 1), Ok(vec![]));
        assert!(ranged(1i64, 2, 0).is_err());
        assert!(ranged(0f32, f32::INFINITY, 1.0).is_err());
        assert!(ranged(0f32, 1.0, f32::NAN).is_err());
        assert!(ranged(i64::MIN, i64::MAX, 1).is_err());
    }

    #[test]
    fn one_hot_counts_from_both_ends() {
        let (indices, depth) = (Tensor::from_i64s(&[0, -1, 3, 7]), Tensor::scalar(3i64));
        let values = Tensor::from_vec([2], vec![5i32, 9]).unwrap();
        let run = |axis| {
            let output = OneHot { axis }.eval(&[Some(&indices), Some(&depth), Some(&values)], 1).unwrap();
            (output[0].shape().to_vec(), output[0].to_i64s().unwrap())
        };
        assert_eq!(run(-1), (vec![4, 3], vec![9, 5, 5, 5, 5, 9, 5, 5, 5, 5, 5, 5]));
        assert_eq!(run(0), (vec![3, 4], vec![9, 5, 5, 5, 5, 5, 5, 5, 5, 9, 5, 5]));
    }

    #[test]
    fn diagonals_and_constants() {
        let x = Tensor::zeros(DType::F32, [2, 3]).unwrap();
        let op = EyeLike { dtype: Some(DType::I64), k: 1 };
        assert_eq!(EyeLike::read(op.attributes()), Ok(op));
        assert_eq!(op.eval(&[Some(&x)], 1).unwrap()[0].to_i64s().unwrap(), [0, 1, 0, 0, 0, 1]);

        let op = ConstantOfShape { value: Tensor::from_i64s(&[7]) };
        assert_eq!(ConstantOfShape::read(op.attributes()), Ok(op.clone()));
        let shape = Tensor::from_i64s(&[2, 2]);
        assert_eq!(op.eval(&[Some(&shape)], 1).unwrap()[0].to_i64s().unwrap(), [7; 4]);
        assert!(op.eval(&[Some(&Tensor::from_i64s(&[1 << 40]))], 1).is_err());
        assert_eq!(ConstantOfShape::default().attributes(), Attributes::new());
    }
}
