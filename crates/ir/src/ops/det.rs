//! Det: the determinant of each matrix in a stack.

use super::support::inputs::{at_most, check_dtype, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Det`: `X [.., M, M] -> Y [..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Det;

impl Det {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for Det {
    fn name(&self) -> &str {
        "Det"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "X")?.ty;
        check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
        let shape = match x.shape.as_deref() {
            None => None,
            Some([stack @ .., rows, columns])
                if rows == columns || rows.known().is_none() || columns.known().is_none() =>
            {
                Some(stack.to_vec())
            }
            Some(_) => return Err(Error::input(0, "X", format!("expected square matrices, found {x}"))),
        };
        Ok(vec![ValueType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "X")?;
        let (stack, size) = match x.shape() {
            [stack @ .., _, size] => (stack, *size),
            _ => return Err(Error::input(0, "X", "expected at least two axes")),
        };
        let numbers = x.to_f64s()?;
        let matrix = |i: usize| numbers[i * size * size..][..size * size].to_vec();
        let data: Vec<f64> = (0..stack.iter().product()).map(|i| determinant(matrix(i), size)).collect();
        Ok(vec![from_f64s(x.dtype(), stack, &data)?])
    }
}

/// By elimination, with the largest of each column as pivot.
fn determinant(mut a: Vec<f64>, size: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..size {
        let larger = |&i: &usize, &j: &usize| a[i * size + k].abs().total_cmp(&a[j * size + k].abs());
        let pivot = (k..size).max_by(larger).unwrap_or(k);
        if pivot != k {
            (0..size).for_each(|j| a.swap(k * size + j, pivot * size + j));
            product = -product;
        }
        let head = a[k * size + k];
        product *= head;
        if head == 0.0 {
            return 0.0;
        }
        for i in k + 1..size {
            let factor = a[i * size + k] / head;
            (k..size).for_each(|j| a[i * size + j] -= factor * a[k * size + j]);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn determinants_of_a_stack() {
        let x = Tensor::from_vec([2, 2, 2], vec![1f32, 2.0, 3.0, 4.0, 0.0, 1.0, 1.0, 0.0]).unwrap();
        let y = Det.eval(&[Some(&x)], 1).unwrap().remove(0);
        assert_eq!((y.shape(), y.to_f64s().unwrap()), ([2].as_slice(), vec![-2.0, -1.0]));
    }
}
