//! Trilu, which clears a triangle of each matrix, and ReverseSequence, which turns a part of each sequence round.

use super::movement::pick;
use super::support::inputs::{at_most, optional, required};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Trilu`: `input, k? -> output`, zero on one side of diagonal `k` of each matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trilu {
    /// Keeps the diagonal and what is right of it, else what is left of it.
    pub upper: bool,
}

/// ONNX `ReverseSequence`: `input, sequence_lens -> output`, the first elements of each sequence reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReverseSequence {
    /// Sequences run along axis 0 and are counted along axis 1; else the other way round.
    pub time_first: bool,
}

impl Trilu {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let upper = attributes.flag("upper", true)?;
        attributes.finish("upper")?;
        Ok(Self { upper })
    }
}

impl Operator for Trilu {
    fn name(&self) -> &str {
        "Trilu"
    }

    fn attributes(&self) -> Attributes {
        if self.upper { Attributes::new() } else { Attributes::new().with("upper", 0) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let ty = required(inputs, 0, "input")?.ty;
        if ty.rank().is_some_and(|rank| rank < 2) {
            return Err(Error::input(0, "input", format!("expected matrices, found {ty}")));
        }
        Ok(vec![ty.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        let [.., rows, columns] = *x.shape() else {
            return Err(Error::input(0, "input", format!("expected matrices, found shape {:?}", x.shape())));
        };
        let k = match optional(inputs, 1).map(Tensor::to_i64s).transpose()?.as_deref() {
            None => 0,
            Some(&[k]) => k,
            Some(k) => return Err(Error::input(1, "k", format!("expected one number, found {}", k.len()))),
        };
        let kept = |i: usize| {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let diagonal = row.saturating_add(k);
            if self.upper { column >= diagonal } else { column <= diagonal }
        };
        Ok(vec![pick(x, x.shape(), None, |emit| (0..x.len()).for_each(|i| emit(kept(i).then_some(i))))?])
    }
}

impl ReverseSequence {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let batch = attributes.int("batch_axis")?.unwrap_or(1);
        let time = attributes.int("time_axis")?.unwrap_or(0);
        attributes.finish("batch_axis, time_axis")?;
        match (batch, time) {
            (1, 0) => Ok(Self { time_first: true }),
            (0, 1) => Ok(Self { time_first: false }),
            _ => Err(Error::attribute(
                "time_axis",
                format!("is {time} with batch_axis {batch}; accepted are 0 and 1, and 1 and 0"),
            )),
        }
    }
}

impl Operator for ReverseSequence {
    fn name(&self) -> &str {
        "ReverseSequence"
    }

    fn attributes(&self) -> Attributes {
        let attributes = Attributes::new();
        if self.time_first { attributes } else { attributes.with("batch_axis", 0).with("time_axis", 1) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let ty = required(inputs, 0, "input")?.ty;
        required(inputs, 1, "sequence_lens")?;
        if ty.rank().is_some_and(|rank| rank < 2) {
            return Err(Error::input(0, "input", format!("expected two axes or more, found {ty}")));
        }
        Ok(vec![ty.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, lengths) = (required(inputs, 0, "input")?, required(inputs, 1, "sequence_lens")?);
        let [first, second, inner @ ..] = x.shape() else {
            return Err(Error::input(
                0,
                "input",
                format!("expected two axes or more, found shape {:?}", x.shape()),
            ));
        };
        let (time, batch) = if self.time_first { (*first, *second) } else { (*second, *first) };
        let lengths = lengths.to_i64s()?;
        if lengths.len() != batch || lengths.iter().any(|length| !(0..=time as i64).contains(length)) {
            let problem = format!("expected {batch} lengths from 0 to {time}, found {lengths:?}");
            return Err(Error::input(1, "sequence_lens", problem));
        }
        let inner: usize = inner.iter().product();
        let source = |i: usize| {
            let (row, rest) = (i / inner, i % inner);
            let (a, b) = (row / second, row % second);
            let (at, sequence) = if self.time_first { (a, b) } else { (b, a) };
            let length = lengths[sequence] as usize;
            let at = if at < length { length - 1 - at } else { at };
            let (a, b) = if self.time_first { (at, sequence) } else { (sequence, at) };
            (a * second + b) * inner + rest
        };
        Ok(vec![pick(x, x.shape(), None, |emit| (0..x.len()).for_each(|i| emit(Some(source(i)))))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triangles() {
        let x = Tensor::from_vec([2, 3], (1..=6).collect::<Vec<i64>>()).unwrap();
        let run = |upper, k| {
            let output = Trilu { upper }.eval(&[Some(&x), Some(&Tensor::scalar(k))], 1).unwrap();
            output[0].to_i64s().unwrap()
        };
        assert_eq!(run(true, 0i64), [1, 2, 3, 0, 5, 6]);
        assert_eq!(run(false, 0), [1, 0, 0, 4, 5, 0]);
        assert_eq!(run(true, 2), [0, 0, 3, 0, 0, 0]);
        assert_eq!(run(false, i64::MAX), [1, 2, 3, 4, 5, 6]);
        assert_eq!(run(false, i64::MIN), [0; 6]);
    }

    #[test]
    fn only_the_beginning_is_reversed() {
        let x = Tensor::from_vec([3, 2], (0..6).collect::<Vec<i64>>()).unwrap();
        let run = |time_first, lengths: &[i64]| {
            let output =
                ReverseSequence { time_first }.eval(&[Some(&x), Some(&Tensor::from_i64s(lengths))], 1)?;
            output[0].to_i64s()
        };
        assert_eq!(run(true, &[2, 3]), Ok(vec![2, 5, 0, 3, 4, 1]));
        assert_eq!(run(false, &[1, 2, 0]), Ok(vec![0, 1, 3, 2, 4, 5]));
        assert!(run(true, &[4, 1]).is_err());
        assert!(run(true, &[1]).is_err());
    }
}
