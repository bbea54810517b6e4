//! Normalisation along chosen axes or over neighbouring channels, without parameters: MeanVarianceNormalization,
//! LpNormalization and LRN.

use super::reduce::groups;
use super::support::broadcast::Walk;
use super::support::inputs::{at_most, check_dtype, required, resolve_axes};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `MeanVarianceNormalization`: `X -> Y`: mean 0 and variance 1 over the axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeanVarianceNormalization {
    /// Axes; negative ones count from the end.
    pub axes: Vec<i64>,
}

/// ONNX `LpNormalization`: `input -> output`: rows along an axis over their norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LpNormalization {
    /// Axis; negative counts from the end.
    pub axis: i64,
    /// Order of the norm, 1 or 2.
    pub p: i64,
}

/// ONNX `LRN`, local response normalisation: `X [N, C, ..] -> Y`: each element over a power of the sum of squares of its
/// neighbours in `size` channels around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lrn {
    /// Number of channels.
    pub size: usize,
    /// Factor of the mean square.
    pub alpha: f32,
    /// Power.
    pub beta: f32,
    /// Added to the mean square.
    pub bias: f32,
}

/// The type of the output is that of the input, floats.
fn same_floats(inputs: &[Option<InputInfo<'_>>]) -> Result<Vec<ValueType>> {
    at_most(inputs, 1)?;
    let input = required(inputs, 0, "X")?.ty;
    check_dtype(0, "X", input.dtype, DType::is_float, "floats")?;
    Ok(vec![input.clone()])
}

/// Changes the groups of elements that the axes make, each by itself.
fn map_groups(x: &Tensor, reduced: &[bool], change: impl Fn(&mut [f64])) -> Result<Vec<Tensor>> {
    check_dtype(0, "X", Some(x.dtype()), DType::is_float, "floats")?;
    let mut data = x.to_f64s()?;
    let (starts, offsets): (Walk, Vec<usize>) = groups(x.shape(), reduced);
    let mut group = vec![0.0; offsets.len()];
    for start in starts {
        for (value, at) in group.iter_mut().zip(&offsets) {
            *value = data[start + at];
        }
        change(&mut group);
        for (value, at) in group.iter().zip(&offsets) {
            data[start + at] = *value;
        }
    }
    Ok(vec![from_f64s(x.dtype(), x.shape(), &data)?])
}

impl MeanVarianceNormalization {
    /// ONNX's epsilon, added to the standard deviation.
    const EPSILON: f64 = 1e-9;

    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axes = attributes.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
        attributes.finish("axes")?;
        Ok(Self { axes })
    }
}

impl Operator for MeanVarianceNormalization {
    fn name(&self) -> &str {
        "MeanVarianceNormalization"
    }

    fn attributes(&self) -> Attributes {
        let default = self.axes == [0, 2, 3];
        if default { Attributes::new() } else { Attributes::new().with("axes", self.axes.as_slice()) }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let types = same_floats(inputs)?;
        if let Some(rank) = types[0].rank() {
            resolve_axes("axes", &self.axes, rank)?;
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "X")?;
        let axes = resolve_axes("axes", &self.axes, x.rank())?;
        let reduced: Vec<bool> = (0..x.rank()).map(|axis| axes.contains(&axis)).collect();
        map_groups(x, &reduced, |group| {
            let count = group.len() as f64;
            let mean = group.iter().sum::<f64>() / count;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            for x in group {
                *x = (*x - mean) / (variance.sqrt() + Self::EPSILON);
            }
        })
    }
}

impl LpNormalization {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self { axis: attributes.int("axis")?.unwrap_or(-1), p: attributes.int("p")?.unwrap_or(2) };
        if !matches!(op.p, 1 | 2) {
            return Err(Error::attribute("p", format!("expected 1 or 2, found {}", op.p)));
        }
        attributes.finish("axis, p")?;
        Ok(op)
    }
}

impl Operator for LpNormalization {
    fn name(&self) -> &str {
        "LpNormalization"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != -1 {
            attributes.set("axis", self.axis);
        }
        if self.p != 2 {
            attributes.set("p", self.p);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let types = same_floats(inputs)?;
        if let Some(rank) = types[0].rank() {
            resolve_axes("axis", &[self.axis], rank)?;
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "input")?;
        let axes = resolve_axes("axis", &[self.axis], x.rank())?;
        let reduced: Vec<bool> = (0..x.rank()).map(|axis| axes.contains(&axis)).collect();
        map_groups(x, &reduced, |group| {
            let norm = match self.p {
                1 => group.iter().map(|x| x.abs()).sum::<f64>(),
                _ => group.iter().map(|x| x * x).sum::<f64>().sqrt(),
            };
            // Since opset 22 ONNX says that nothing over nothing is nothing.
            let divisor = if norm == 0.0 { 1.0 } else { norm };
            for x in group {
                *x /= divisor;
            }
        })
    }
}

impl Lrn {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let size = attributes.int("size")?.ok_or_else(|| Error::attribute("size", "is required"))?;
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        let op = Self {
            size: size.ok_or_else(|| Error::attribute("size", "expected at least 1"))?,
            alpha: attributes.float("alpha")?.unwrap_or(1e-4),
            beta: attributes.float("beta")?.unwrap_or(0.75),
            bias: attributes.float("bias")?.unwrap_or(1.0),
        };
        attributes.finish("alpha, beta, bias, size")?;
        Ok(op)
    }
}

impl Operator for Lrn {
    fn name(&self) -> &str {
        "LRN"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("size", self.size as i64);
        for (name, value, default) in
            [("alpha", self.alpha, 1e-4), ("beta", self.beta, 0.75), ("bias", self.bias, 1.0)]
        {
            if value != default {
                attributes.set(name, value);
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let types = same_floats(inputs)?;
        if types[0].rank().is_some_and(|rank| rank < 2) {
            return Err(Error::input(0, "X", format!("expected [N, C, ..], found {}", types[0])));
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "X")?;
        if x.rank() < 2 {
            return Err(Error::input(0, "X", format!("expected [N, C, ..], found {:?}", x.shape())));
        }
        let mut reduced = vec![false; x.rank()];
        reduced[1] = true;
        let [alpha, beta, bias] = [self.alpha, self.beta, self.bias].map(f64::from);
        map_groups(x, &reduced, |channels| {
            let before = channels.to_vec();
            for (c, x) in channels.iter_mut().enumerate() {
                let first = c.saturating_sub((self.size - 1) / 2);
                let last = c.saturating_add(self.size / 2).min(before.len() - 1);
                let squares: f64 = before[first..=last].iter().map(|x| x * x).sum();
                *x /= (bias + alpha / self.size as f64 * squares).powf(beta);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_become_those_wanted() {
        let x = Tensor::from_vec([2, 3, 2], (0..12).map(|i| f64::from(i * i % 7)).collect()).unwrap();
        let op = MeanVarianceNormalization { axes: vec![0, -1] };
        assert_eq!(MeanVarianceNormalization::read(op.attributes()), Ok(op.clone()));
        let y = op.eval(&[Some(&x)], 1).unwrap()[0].to_f64s().unwrap();
        for c in 0..3 {
            let channel = [y[2 * c], y[2 * c + 1], y[6 + 2 * c], y[7 + 2 * c]];
            assert!(channel.iter().sum::<f64>().abs() < 1e-8);
            assert!((channel.iter().map(|y| y * y).sum::<f64>() - 4.0).abs() < 1e-6);
        }
        for p in [1, 2] {
            let op = LpNormalization { axis: 1, p };
            assert_eq!(LpNormalization::read(op.attributes()), Ok(op));
            let y = op.eval(&[Some(&x)], 1).unwrap()[0].to_f64s().unwrap();
            let norm: f64 = [y[0], y[2], y[4]].iter().map(|y| y.abs().powi(p as i32)).sum();
            assert!((norm - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn neighbours_of_an_even_size_reach_further_up() {
        let x = Tensor::from_vec([1, 4], vec![1f64, 2.0, 3.0, 4.0]).unwrap();
        let op = Lrn { size: 2, alpha: 2.0, beta: 1.0, bias: 1.0 };
        assert_eq!(Lrn::read(op.attributes()), Ok(op));
        let y = op.eval(&[Some(&x)], 1).unwrap()[0].to_f64s().unwrap();
        let expected = [1.0 / (1.0 + 5.0), 2.0 / (1.0 + 13.0), 3.0 / (1.0 + 25.0), 4.0 / (1.0 + 16.0)];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-12), "{y:?}");
    }
}
