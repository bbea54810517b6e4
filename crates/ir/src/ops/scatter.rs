//! Writing elements and slices at indices that are data: ScatterElements and ScatterND.

use super::gather::{check_beside, check_indices, places_beside, places_of_rows};
use super::movement::Raw;
use super::support::inputs::{at_most, common_dtype, required, resolve_axis};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dispatch_numeric;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// What becomes of an element that is written to: ONNX's `reduction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ScatterReduction {
    /// The update; of several, the last.
    #[default]
    None,
    /// The sum with the updates.
    Add,
    /// The product with the updates.
    Mul,
    /// The largest.
    Max,
    /// The least.
    Min,
}

/// ONNX `ScatterElements`: `data, indices, updates -> output`; indices as those of `GatherElements`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScatterElements {
    /// The axis; counts from the end when negative.
    pub axis: i64,
    /// What becomes of what was there.
    pub reduction: ScatterReduction,
}

/// ONNX `ScatterND`: `data, indices, updates -> output`; indices as those of `GatherND`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScatterNd {
    /// What becomes of what was there.
    pub reduction: ScatterReduction,
}

const REDUCTIONS: &[(&str, ScatterReduction)] = &[
    ("none", ScatterReduction::None),
    ("add", ScatterReduction::Add),
    ("mul", ScatterReduction::Mul),
    ("max", ScatterReduction::Max),
    ("min", ScatterReduction::Min),
];

impl ScatterReduction {
    fn read(attributes: &mut Attributes) -> Result<Self> {
        let Some(name) = attributes.string("reduction")? else { return Ok(Self::None) };
        REDUCTIONS.iter().find(|(spelling, _)| *spelling == name).map(|(_, reduction)| *reduction).ok_or_else(
            || Error::attribute("reduction", format!("`{name}` is not one of none, add, mul, max, min")),
        )
    }

    fn write(self, attributes: &mut Attributes) {
        if let Some((name, _)) = REDUCTIONS[1..].iter().find(|(_, reduction)| *reduction == self) {
            attributes.set("reduction", *name);
        }
    }

    /// `data` with each update written to its place.
    fn apply(self, data: &Tensor, places: &[usize], updates: &Tensor) -> Result<Tensor> {
        if self == Self::None {
            let (mut output, updates) = (Raw::of(data)?, Raw::of(updates)?);
            for (i, &place) in places.iter().enumerate() {
                output.set(place, updates.get(i));
            }
            return output.into_tensor(data.shape());
        }
        dispatch_numeric!(data.dtype(), T => {
            let mut output = data.elements::<T>()?.into_owned();
            for (&place, &update) in places.iter().zip(updates.elements::<T>()?.iter()) {
                let old = output[place];
                output[place] = match self {
                    Self::None => update,
                    Self::Add => Number::add(old, update),
                    Self::Mul => Number::mul(old, update),
                    Self::Max => old.max_nan(update),
                    Self::Min => old.min_nan(update),
                };
            }
            Tensor::from_vec(data.shape(), output)
        })
    }
}

/// Types of the three inputs; the output has that of the data.
fn infer<'a>(inputs: &[Option<InputInfo<'a>>]) -> Result<[&'a ValueType; 3]> {
    at_most(inputs, 3)?;
    let data = required(inputs, 0, "data")?.ty;
    let (indices, updates) = (required(inputs, 1, "indices")?.ty, required(inputs, 2, "updates")?.ty);
    check_indices(indices.dtype)?;
    common_dtype(&[(0, "data", data.dtype), (2, "updates", updates.dtype)])?;
    Ok([data, indices, updates])
}

fn check_updates(expected: &[usize], updates: &Tensor) -> Result<()> {
    if updates.shape() == expected {
        return Ok(());
    }
    Err(Error::input(2, "updates", format!("expected shape {expected:?}, found {:?}", updates.shape())))
}

fn operands<'a>(inputs: &[Option<&'a Tensor>]) -> Result<[&'a Tensor; 3]> {
    let (data, updates) = (required(inputs, 0, "data")?, required(inputs, 2, "updates")?);
    common_dtype(&[(0, "data", Some(data.dtype())), (2, "updates", Some(updates.dtype()))])?;
    Ok([data, required(inputs, 1, "indices")?, updates])
}

impl ScatterElements {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?.unwrap_or(0);
        let reduction = ScatterReduction::read(&mut attributes)?;
        attributes.finish("axis, reduction")?;
        Ok(Self { axis, reduction })
    }
}

impl Operator for ScatterElements {
    fn name(&self) -> &str {
        "ScatterElements"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = super::gather::axis_attribute(self.axis);
        self.reduction.write(&mut attributes);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let [data, indices, _] = infer(inputs)?;
        check_beside(self.axis, data, indices)?;
        Ok(vec![data.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [data, indices, updates] = operands(inputs)?;
        check_beside(self.axis, &ValueType::of(data), &ValueType::of(indices))?;
        check_updates(indices.shape(), updates)?;
        let places = places_beside(data.shape(), indices, resolve_axis("axis", self.axis, data.rank())?)?;
        Ok(vec![self.reduction.apply(data, &places, updates)?])
    }
}

impl ScatterNd {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let reduction = ScatterReduction::read(&mut attributes)?;
        attributes.finish("reduction")?;
        Ok(Self { reduction })
    }
}

impl Operator for ScatterNd {
    fn name(&self) -> &str {
        "ScatterND"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        self.reduction.write(&mut attributes);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let [data, ..] = infer(inputs)?;
        Ok(vec![data.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [data, indices, updates] = operands(inputs)?;
        let rows = places_of_rows(data.shape(), indices, 0)?;
        let (depth, rank) = (indices.shape()[indices.rank() - 1], indices.rank());
        let slice = &data.shape()[depth..];
        check_updates(&[&indices.shape()[..rank - 1], slice].concat(), updates)?;
        let length: usize = slice.iter().product();
        let places: Vec<usize> = rows.into_iter().flat_map(|row| row..row + length).collect();
        Ok(vec![self.reduction.apply(data, &places, updates)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_meet_what_was_there() {
        let data = Tensor::from_i64s(&[1, 2, 3, 4]);
        let indices = Tensor::from_i64s(&[1, -1, 1]);
        let updates = Tensor::from_i64s(&[10, 3, 20]);
        for (reduction, expected) in [
            (ScatterReduction::None, [1, 20, 3, 3]),
            (ScatterReduction::Add, [1, 32, 3, 7]),
            (ScatterReduction::Mul, [1, 400, 3, 12]),
            (ScatterReduction::Max, [1, 20, 3, 4]),
            (ScatterReduction::Min, [1, 2, 3, 3]),
        ] {
            let op = ScatterElements { axis: -1, reduction };
            assert_eq!(ScatterElements::read(op.attributes()), Ok(op));
            let output = op.eval(&[Some(&data), Some(&indices), Some(&updates)], 1).unwrap();
            assert_eq!(output[0].to_i64s().unwrap(), expected, "{reduction:?}");
            let rows = indices.reshaped([3, 1]).unwrap();
            let output =
                ScatterNd { reduction }.eval(&[Some(&data), Some(&rows), Some(&updates)], 1).unwrap();
            assert_eq!(output[0].to_i64s().unwrap(), expected, "{reduction:?}");
        }
    }

    #[test]
    fn shapes_and_indices_are_checked() {
        let data = Tensor::from_i64s(&[1, 2]);
        let run = |indices: &[i64], updates: &[i64]| {
            let (indices, updates) = (Tensor::from_i64s(indices), Tensor::from_i64s(updates));
            ScatterElements::default().eval(&[Some(&data), Some(&indices), Some(&updates)], 1).map(|_| ())
        };
        assert_eq!(run(&[1], &[5]), Ok(()));
        assert!(run(&[2], &[5]).is_err());
        assert!(run(&[0, 1], &[5]).is_err());
    }
}
