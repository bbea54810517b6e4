//! Softmax, LogSoftmax and Hardmax along an axis.

use super::support::inputs::{at_most, check_dtype, required, resolve_axis};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Softmax`, `LogSoftmax` or `Hardmax`: `input -> output` of the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Softmax {
    /// Which of the three.
    pub kind: SoftmaxKind,
    /// Normalised along this axis; negative counts from the end.
    pub axis: i64,
    /// The meaning before opset 13: the axes from `axis` on are one. `flatten` is our own attribute; the importer sets it for
    /// older models, and the export spells it `Reshape` to `[.., -1]`, the operator along the last axis, `Reshape` back,
    /// or plainly when `axis` is the last axis.
    pub flatten: bool,
}

/// Which operator a [`Softmax`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SoftmaxKind {
    /// `exp(x) / sum(exp(x))`.
    Softmax,
    /// `x - log(sum(exp(x)))`.
    LogSoftmax,
    /// 1 at the first greatest element, 0 elsewhere.
    Hardmax,
}

impl SoftmaxKind {
    const ALL: [Self; 3] = [Self::Softmax, Self::LogSoftmax, Self::Hardmax];

    /// ONNX's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Softmax => "Softmax",
            Self::LogSoftmax => "LogSoftmax",
            Self::Hardmax => "Hardmax",
        }
    }

    /// The operator on one row.
    fn apply(self, row: &mut [f64]) {
        // NaN wins, so that it spreads over the row.
        let max = row.iter().fold(f64::NEG_INFINITY, |max, &x| if x > max || x.is_nan() { x } else { max });
        match self {
            Self::Softmax => {
                let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
                for x in row {
                    *x = (*x - max).exp() / sum;
                }
            }
            Self::LogSoftmax => {
                let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
                for x in row {
                    *x = *x - max - sum.ln();
                }
            }
            Self::Hardmax => {
                let first = row.iter().position(|x| *x == max || x.is_nan());
                for (i, x) in row.iter_mut().enumerate() {
                    *x = f64::from(u8::from(Some(i) == first));
                }
            }
        }
    }
}

impl Softmax {
    /// Reads the operator of that name; `Ok(None)` when the name is none of the three.
    ///
    /// # Errors
    /// When an attribute is unknown or has the wrong type.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let Some(kind) = SoftmaxKind::ALL.into_iter().find(|kind| kind.name() == name) else {
            return Ok(None);
        };
        let flatten = attributes.flag("flatten", false)?;
        let axis = attributes.int("axis")?.unwrap_or(if flatten { 1 } else { -1 });
        attributes.finish("axis, flatten")?;
        Ok(Some(Self { kind, axis, flatten }))
    }

    /// Extents outside, along and inside of what is normalised.
    ///
    /// # Errors
    /// When `axis` is not one of the shape.
    pub fn split(self, shape: &[usize]) -> Result<[usize; 3]> {
        // A flattened shape may be split before its first and after its last axis.
        let axis = if self.flatten && self.axis == shape.len() as i64 {
            shape.len()
        } else if shape.is_empty() && matches!(self.axis, 0 | -1) {
            0
        } else {
            resolve_axis("axis", self.axis, shape.len())?
        };
        let end = if self.flatten { shape.len() } else { (axis + 1).min(shape.len()) };
        Ok([shape[..axis].iter().product(), shape[axis..end].iter().product(), shape[end..].iter().product()])
    }
}

impl Operator for Softmax {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != if self.flatten { 1 } else { -1 } {
            attributes.set("axis", self.axis);
        }
        if self.flatten {
            attributes.set("flatten", true);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        check_dtype(0, "input", input.ty.dtype, DType::is_float, "floats")?;
        if let Some(rank) = input.ty.rank() {
            self.split(&vec![1; rank])?;
        }
        Ok(vec![input.ty.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        check_dtype(0, "input", Some(input.dtype()), DType::is_float, "floats")?;
        let [outer, length, inner] = self.split(input.shape())?;
        let mut data = input.to_f64s()?;
        let mut row = vec![0.0; length];
        for start in (0..outer).flat_map(|o| (0..inner).map(move |i| o * length * inner + i)) {
            (0..length).for_each(|k| row[k] = data[start + k * inner]);
            self.kind.apply(&mut row);
            (0..length).for_each(|k| data[start + k * inner] = row[k]);
        }
        Ok(vec![from_f64s(input.dtype(), input.shape(), &data)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(kind: SoftmaxKind, axis: i64, flatten: bool, x: &Tensor) -> Vec<f64> {
        Softmax { kind, axis, flatten }.eval(&[Some(x)], 1).unwrap()[0].to_f64s().unwrap()
    }

    fn cube() -> Tensor {
        Tensor::from_vec([2, 3, 2], (0..12).map(|i| f64::from(i * i % 7)).collect()).unwrap()
    }

    #[test]
    fn rows_sum_to_one_along_the_axis() {
        let y = eval(SoftmaxKind::Softmax, 1, false, &cube());
        for (n, c) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let sum: f64 = (0..3).map(|k| y[n * 6 + k * 2 + c]).sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
        let flat = eval(SoftmaxKind::Softmax, 1, true, &cube());
        assert!((flat[6..].iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let log = eval(SoftmaxKind::LogSoftmax, 1, false, &cube());
        assert!(log.iter().zip(&y).all(|(log, y)| (log.exp() - y).abs() < 1e-12));
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let x = Tensor::from_vec([1, 2], vec![1e4f32, 1e4]).unwrap();
        assert_eq!(eval(SoftmaxKind::Softmax, -1, false, &x), [0.5, 0.5]);
        let x = Tensor::from_vec([1, 2], vec![f32::NAN, 1.0]).unwrap();
        assert!(eval(SoftmaxKind::Softmax, -1, false, &x).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn hardmax_takes_the_first() {
        let x = Tensor::from_vec([2, 3], vec![1f32, 3.0, 3.0, 2.0, 2.0, 1.0]).unwrap();
        assert_eq!(eval(SoftmaxKind::Hardmax, -1, false, &x), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn attributes_read_back() {
        for (axis, flatten) in [(-1, false), (1, true), (0, true), (2, false)] {
            let op = Softmax { kind: SoftmaxKind::LogSoftmax, axis, flatten };
            assert_eq!(Softmax::read("LogSoftmax", op.attributes()), Ok(Some(op)));
        }
        let op = Softmax { kind: SoftmaxKind::Softmax, axis: 3, flatten: false };
        assert!(op.eval(&[Some(&cube())], 1).is_err());
    }
}
