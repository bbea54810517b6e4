//! Operators that pass elements on: Where, Identity and Dropout.

use super::random::Mersenne;
use super::support::broadcast::{broadcast_inputs, broadcast_shapes, broadcast_walk};
use super::support::inputs::{at_most, check_dtype, check_size, common_dtype, extents, optional, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Where`: `condition (bool), X, Y -> output`, broadcast; X where the condition is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where;

/// ONNX `Identity`: `input -> output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity;

/// ONNX `Dropout`: `data, ratio []?, training_mode []? (bool) -> output, mask? (bool)`. Passes the data on, unless in training
/// mode, where it drops elements at random and scales the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropout {
    /// Seed of the random numbers; without one, a fixed seed of our own.
    pub seed: Option<i64>,
}

/// Element `i` of a list that broadcasts.
fn at<T: Clone>(values: &[T], i: usize) -> Option<T> {
    values.get(if values.len() == 1 { 0 } else { i }).cloned()
}

impl Where {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for Where {
    fn name(&self) -> &str {
        "Where"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let condition = required(inputs, 0, "condition")?;
        check_dtype(0, "condition", condition.ty.dtype, |dtype| dtype == DType::Bool, "bool")?;
        let (x, y) = (required(inputs, 1, "X")?, required(inputs, 2, "Y")?);
        let dtype = common_dtype(&[(1, "X", x.ty.dtype), (2, "Y", y.ty.dtype)])?;
        Ok(vec![ValueType { dtype, shape: broadcast_inputs(&[condition, x, y])? }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let condition: Vec<bool> = optional(inputs, 0)?.constant?.bools().ok()?.collect();
        let (x, y) = (extents(&optional(inputs, 1)?)?, extents(&optional(inputs, 2)?)?);
        let count = [condition.len(), x.len(), y.len()].into_iter().find(|&count| count != 1).unwrap_or(1);
        (0..count).map(|i| at(if at(&condition, i)? { &x } else { &y }, i)).collect()
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let condition = required(inputs, 0, "condition")?;
        check_dtype(0, "condition", Some(condition.dtype()), |dtype| dtype == DType::Bool, "bool")?;
        let (x, y) = (required(inputs, 1, "X")?, required(inputs, 2, "Y")?);
        common_dtype(&[(1, "X", Some(x.dtype())), (2, "Y", Some(y.dtype()))])?;
        let size = x.dtype().bits() / 8;
        if size == 0 {
            return Err(Error::Unsupported(format!("Where on {}", x.dtype())));
        }
        let shape = broadcast_shapes(&[condition.shape(), x.shape(), y.shape()])?;
        check_size(x.dtype(), &shape)?;
        if let Some(chosen) = choose_words(condition, [x, y], &shape) {
            return Ok(vec![chosen?]);
        }
        let walk = |tensor: &Tensor| broadcast_walk(tensor.shape(), &shape);
        let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size);
        for ((at, i), j) in walk(condition).zip(walk(x)).zip(walk(y)) {
            let (from, k) = if condition.bytes()[at] != 0 { (x, i) } else { (y, j) };
            bytes.extend_from_slice(&from.bytes()[k * size..][..size]);
        }
        Ok(vec![Tensor::from_bytes(x.dtype(), shape, bytes)?])
    }
}

/// Where of elements of four bytes, each side of the whole shape or of one element; `None` for others.
fn choose_words(condition: &Tensor, sides: [&Tensor; 2], shape: &[usize]) -> Option<Result<Tensor>> {
    let fits = |tensor: &Tensor| tensor.len() == 1 || tensor.shape() == shape;
    if condition.shape() != shape || !sides.into_iter().all(fits) || sides[0].dtype().bits() != 32 {
        return None;
    }
    let [x, y]: [&[[u8; 4]]; 2] = sides.map(|side| bytemuck::cast_slice(side.bytes()));
    // One element stands still.
    let (dx, dy) = (usize::from(x.len() > 1), usize::from(y.len() > 1));
    let mut words: Vec<[u8; 4]> = Vec::with_capacity(condition.len());
    let questions = condition.bytes().iter().enumerate();
    words.extend(questions.map(|(i, &holds)| if holds != 0 { x[i * dx] } else { y[i * dy] }));
    let bytes = bytemuck::allocation::cast_vec(words);
    Some(Tensor::from_bytes(sides[0].dtype(), shape.to_vec(), bytes))
}

impl Identity {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for Identity {
    fn name(&self) -> &str {
        "Identity"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        Ok(vec![required(inputs, 0, "input")?.ty.clone()])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        extents(inputs.first()?.as_ref()?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        Ok(vec![required(inputs, 0, "input")?.clone()])
    }
}

impl Dropout {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let seed = attributes.int("seed")?;
        attributes.finish("seed; ratio and training_mode are inputs")?;
        Ok(Self { seed })
    }
}

impl Operator for Dropout {
    fn name(&self) -> &str {
        "Dropout"
    }

    fn attributes(&self) -> Attributes {
        self.seed.map_or_else(Attributes::new, |seed| Attributes::new().with("seed", seed))
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let data = required(inputs, 0, "data")?.ty;
        check_dtype(0, "data", data.dtype, DType::is_float, "floats")?;
        for (index, name, accepts, what) in [
            (1, "ratio", DType::is_float as fn(DType) -> bool, "a float"),
            (2, "training_mode", |dtype| dtype == DType::Bool, "bool"),
        ] {
            if let Some(input) = optional(inputs, index) {
                check_dtype(index, name, input.ty.dtype, accepts, what)?;
            }
        }
        let mask = ValueType { dtype: Some(DType::Bool), shape: data.shape.clone() };
        Ok([data.clone(), mask].into_iter().take(outputs.max(1)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let data = required(inputs, 0, "data")?;
        check_dtype(0, "data", Some(data.dtype()), DType::is_float, "floats")?;
        let first = |index: usize| -> Result<Option<f64>> {
            Ok(optional(inputs, index)
                .map(Tensor::to_f64s)
                .transpose()?
                .and_then(|values| values.first().copied()))
        };
        let ratio = first(1)?.unwrap_or(0.5);
        if !(0.0..1.0).contains(&ratio) {
            return Err(Error::input(1, "ratio", format!("expected 0 or more and below 1, found {ratio}")));
        }
        let mut keep = vec![true; data.len()];
        let mut output = data.clone();
        if first(2)?.is_some_and(|training| training != 0.0) && ratio > 0.0 {
            let mut random = Mersenne::new(self.seed.unwrap_or(0));
            keep.fill_with(|| random.uniform() >= ratio);
            let scaled = |(x, keep): (&f64, &bool)| if *keep { x / (1.0 - ratio) } else { 0.0 };
            let scaled: Vec<f64> = data.to_f64s()?.iter().zip(&keep).map(scaled).collect();
            output = from_f64s(data.dtype(), data.shape(), &scaled)?;
        }
        let mask = Tensor::from_bools(data.shape(), keep)?;
        Ok([output, mask].into_iter().take(outputs.max(1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_broadcasts_any_type() {
        let condition = Tensor::from_bools([2, 1], [true, false]).unwrap();
        let x = Tensor::from_vec([2], vec![1u16, 2]).unwrap();
        let y = Tensor::scalar(9u16);
        let z = Where.eval(&[Some(&condition), Some(&x), Some(&y)], 1).unwrap();
        assert_eq!(z[0], Tensor::from_vec([2, 2], vec![1u16, 2, 9, 9]).unwrap());
        assert!(Where.eval(&[Some(&x), Some(&x), Some(&y)], 1).is_err());
        // Words of the whole shape or of one element take another way.
        let condition = Tensor::from_bools([2, 2], [true, false, false, true]).unwrap();
        let x = Tensor::from_vec([2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let y = Tensor::from_vec([1], vec![9f32]).unwrap();
        let z = Where.eval(&[Some(&condition), Some(&x), Some(&y)], 1).unwrap();
        assert_eq!(z[0], Tensor::from_vec([2, 2], vec![1f32, 9.0, 9.0, 4.0]).unwrap());
        let z = Where.eval(&[Some(&condition), Some(&y), Some(&x)], 1).unwrap();
        assert_eq!(z[0], Tensor::from_vec([2, 2], vec![9f32, 2.0, 3.0, 9.0]).unwrap());
    }

    #[test]
    fn where_picks_extents() {
        let condition = Tensor::from_bools([2], [true, false]).unwrap();
        let (bools, ints) = (ValueType::of(&condition), ValueType::new(DType::I64, [2usize]));
        let (h, w) = ([Dim::symbol("H"), Dim::symbol("W")], [Dim::constant(1)]);
        let inputs = [
            Some(InputInfo { ty: &bools, constant: Some(&condition), extents: None }),
            Some(InputInfo { ty: &ints, constant: None, extents: Some(&h) }),
            Some(InputInfo { ty: &ints, constant: None, extents: Some(&w) }),
        ];
        assert_eq!(Where.infer_extents(&inputs), Some(vec![Dim::symbol("H"), Dim::constant(1)]));
    }

    #[test]
    fn dropout_passes_unless_training() {
        let x = Tensor::from_vec([1000], vec![3f32; 1000]).unwrap();
        let (ratio, training) = (Tensor::scalar(0.25f32), Tensor::from_bools([], [true]).unwrap());
        let op = Dropout { seed: Some(3) };
        assert_eq!(Dropout::read(op.attributes()), Ok(op));
        let passed = op.eval(&[Some(&x), Some(&ratio)], 2).unwrap();
        assert_eq!(passed[0], x);
        assert!(passed[1].bools().unwrap().all(|keep| keep));
        let dropped = op.eval(&[Some(&x), Some(&ratio), Some(&training)], 2).unwrap();
        let kept = dropped[1].bools().unwrap().filter(|keep| *keep).count();
        assert!((700..800).contains(&kept), "{kept}");
        let values = dropped[0].to_f64s().unwrap();
        assert!(
            values
                .iter()
                .zip(dropped[1].bools().unwrap())
                .all(|(x, keep)| *x == if keep { 4.0 } else { 0.0 })
        );
        let all = Tensor::scalar(1f32);
        assert!(op.eval(&[Some(&x), Some(&all), Some(&training)], 1).is_err());
    }
}
