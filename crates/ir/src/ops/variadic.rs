//! Elementwise operators of any number of inputs that broadcast: Sum, Mean, Max, Min.

use super::support::broadcast::{broadcast_inputs, broadcast_shapes, broadcast_walk};
use super::support::inputs::{check_dtype, check_size, extents, required};
use super::support::number::Number;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// An elementwise operator of one or more inputs of one type, which broadcast as NumPy's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variadic {
    /// ONNX `Sum`.
    Sum,
    /// ONNX `Mean`.
    Mean,
    /// ONNX `Max`; NaN where any input has it.
    Max,
    /// ONNX `Min`; NaN where any input has it.
    Min,
}

impl Variadic {
    /// Every variadic operator.
    pub const ALL: &[Self] = &[Self::Sum, Self::Mean, Self::Max, Self::Min];

    /// ONNX's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "Sum",
            Self::Mean => "Mean",
            Self::Max => "Max",
            Self::Min => "Min",
        }
    }

    /// Reads the operator of that name; `Ok(None)` when the name is no variadic operator's.
    ///
    /// # Errors
    /// When there are attributes: none is accepted.
    pub fn read(name: &str, attributes: Attributes) -> Result<Option<Self>> {
        let Some(&op) = Self::ALL.iter().find(|op| op.name() == name) else { return Ok(None) };
        attributes.finish("none")?;
        Ok(Some(op))
    }

    fn accepts(self, dtype: DType) -> bool {
        match self {
            Self::Max | Self::Min => dtype.is_numeric(),
            Self::Sum | Self::Mean => dtype.is_float(),
        }
    }

    fn check<T: Copy>(
        self,
        inputs: &[Option<T>],
        dtype: impl Fn(T) -> Option<DType>,
    ) -> Result<(Vec<T>, Option<DType>)> {
        required(inputs, 0, "data_0")?;
        let present: Vec<T> =
            inputs.iter().enumerate().map(|(i, _)| required(inputs, i, "data")).collect::<Result<_>>()?;
        let mut common = None;
        let words = if self.accepts(DType::I32) { "numbers" } else { "floats" };
        for (i, &input) in present.iter().enumerate() {
            check_dtype(i, "data", dtype(input), |dtype| self.accepts(dtype), words)?;
            match (common, dtype(input)) {
                (Some(a), Some(b)) if a != b => {
                    return Err(Error::input(
                        i,
                        "data",
                        format!("expected {a} as the inputs before, found {b}"),
                    ));
                }
                (None, dtype) => common = dtype,
                _ => {}
            }
        }
        Ok((present, common))
    }
}

impl Operator for Variadic {
    fn name(&self) -> &str {
        Self::name(*self)
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let (inputs, dtype) = self.check(inputs, |input| input.ty.dtype)?;
        Ok(vec![ValueType { dtype, shape: broadcast_inputs(&inputs)? }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let inputs: Vec<Vec<Dim>> =
            inputs.iter().map(|input| extents(input.as_ref()?)).collect::<Option<_>>()?;
        let count = inputs.iter().map(Vec::len).max()?;
        let element = |i: usize| {
            let mut result: Option<Dim> = None;
            for dims in &inputs {
                let dim = dims.get(if dims.len() == 1 { 0 } else { i })?;
                result = Some(match result {
                    None => dim.clone(),
                    Some(before) if before.equals(dim) == Some(true) => before,
                    Some(before) => {
                        let (a, b) = (before.known_i64()?, dim.known_i64()?);
                        match self {
                            Self::Max => Dim::constant(a.max(b)),
                            Self::Min => Dim::constant(a.min(b)),
                            Self::Sum | Self::Mean => return None,
                        }
                    }
                });
            }
            result
        };
        (0..count).map(element).collect()
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (inputs, _) = self.check(inputs, |input| Some(input.dtype()))?;
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let shape = broadcast_shapes(&shapes)?;
        let dtype = inputs[0].dtype();
        check_size(dtype, &shape)?;
        dispatch_numeric!(dtype, T => {
            // Sums are rounded once, so they are taken in f64 over all inputs.
            let mut sums = vec![0f64; if self.accepts(DType::I32) { 0 } else { shape.iter().product() }];
            let mut result: Vec<T> = vec![];
            for (i, input) in inputs.iter().enumerate() {
                let data = input.elements::<T>()?;
                let walk = broadcast_walk(input.shape(), &shape);
                match self {
                    Self::Sum | Self::Mean => sums.iter_mut().zip(walk).for_each(|(sum, at)| *sum += data[at].to_f64()),
                    Self::Max | Self::Min if i == 0 => result = walk.map(|at| data[at]).collect(),
                    Self::Max => result.iter_mut().zip(walk).for_each(|(max, at)| *max = max.max_nan(data[at])),
                    Self::Min => result.iter_mut().zip(walk).for_each(|(min, at)| *min = min.min_nan(data[at])),
                }
            }
            let divisor = if *self == Self::Mean { inputs.len() as f64 } else { 1.0 };
            if matches!(self, Self::Sum | Self::Mean) {
                result = sums.iter().map(|sum| T::from_f64(sum / divisor)).collect();
            }
            Ok(vec![Tensor::from_vec(shape.clone(), result)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval<T: Element>(op: Variadic, inputs: &[&[T]]) -> Result<Tensor> {
        let tensors: Vec<Tensor> =
            inputs.iter().map(|data| Tensor::from_vec([data.len()], data.to_vec()).unwrap()).collect();
        let inputs: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
        op.eval(&inputs, 1).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn each_operator_over_three_inputs() {
        let inputs: [&[f32]; 3] = [&[1.0, 5.0, f32::NAN], &[4.0], &[1.0, 0.0, 2.0]];
        for (op, expected) in [
            (Variadic::Sum, [6.0, 9.0]),
            (Variadic::Mean, [2.0, 3.0]),
            (Variadic::Max, [4.0, 5.0]),
            (Variadic::Min, [1.0, 0.0]),
        ] {
            let result = eval(op, &inputs).unwrap().to_f64s().unwrap();
            assert_eq!(result[..2], expected, "{op:?}");
            assert!(result[2].is_nan(), "{op:?}");
        }
    }

    #[test]
    fn wide_integers_keep_all_bits() {
        let max = eval(Variadic::Max, &[&[u64::MAX - 1], &[u64::MAX]]).unwrap();
        assert_eq!(max, Tensor::from_vec([1], vec![u64::MAX]).unwrap());
        assert!(eval(Variadic::Sum, &[&[1i32]]).is_err());
        assert!(Variadic::Max.eval(&[], 1).is_err());
    }
}
