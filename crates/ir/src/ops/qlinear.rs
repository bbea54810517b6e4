//! Convolutions and matrix products of quantised tensors: ConvInteger, QLinearConv, MatMulInteger, QLinearMatMul.
//!
//! Zero points are subtracted first; the sums are those of the plain operator in i32.

use super::quantize::{from_integers, integers, range, saturate};
use super::support::broadcast::{broadcast_walk, broadcasts_to};
use super::support::inputs::{at_most, check_dtype, optional, required};
use super::{Conv, InputInfo, MatMul, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `ConvInteger`: `x, w, x_zero_point []?, w_zero_point ([] or [M])? -> y (i32)`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvInteger {
    /// The convolution; its epilogue is empty.
    pub conv: Conv,
}

/// ONNX `QLinearConv`: `x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B (i32)? -> y`.
#[derive(Debug, Clone, PartialEq)]
pub struct QLinearConv {
    /// The convolution; its epilogue is empty.
    pub conv: Conv,
}

/// ONNX `MatMulInteger`: `A, B, a_zero_point?, b_zero_point? -> Y (i32)`; zero points are scalars, or one a row of A or column
/// of B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMulInteger;

/// ONNX `QLinearMatMul`: `a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point -> y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QLinearMatMul;

/// Which axis a list of parameters runs along.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Along {
    /// The first axis, as of the weights of a convolution.
    First,
    /// The last but one: rows of a matrix.
    Rows,
    /// The last: columns of a matrix.
    Columns,
}

/// A parameter in a shape that broadcasts to the tensor it belongs to.
fn spread(
    parameter: &Tensor,
    along: Along,
    shape: &[usize],
    index: usize,
    name: &'static str,
) -> Result<Tensor> {
    let after = match along {
        Along::First => shape.len().saturating_sub(1),
        Along::Rows => 1,
        Along::Columns => 0,
    };
    let spread = match parameter.shape() {
        [] | [1] => parameter.reshaped([])?,
        &[extent] => {
            let mut to = vec![1; after + 1];
            to[0] = extent;
            parameter.reshaped(to)?
        }
        _ => parameter.clone(),
    };
    if !broadcasts_to(spread.shape(), shape) {
        let found = parameter.shape();
        return Err(Error::input(index, name, format!("{found:?} does not fit a tensor of {shape:?}")));
    }
    Ok(spread)
}

/// The elements less their zero point, in i32.
fn centred(
    tensor: &Tensor,
    zero_point: Option<&Tensor>,
    along: Along,
    index: usize,
    name: &'static str,
) -> Result<Tensor> {
    let mut values = integers(tensor)?;
    if let Some(zero_point) = zero_point {
        let zero_point = spread(zero_point, along, tensor.shape(), index, name)?;
        let zeros = integers(&zero_point)?;
        for (value, at) in values.iter_mut().zip(broadcast_walk(zero_point.shape(), tensor.shape())) {
            *value -= zeros[at];
        }
    }
    from_integers(DType::I32, tensor.shape(), &values)
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8)
}

/// The type that a plain operator has on i32 tensors of the operands' shapes.
fn infer_as_i32(
    op: &dyn Operator,
    operands: &[Option<InputInfo<'_>>],
    dtype: Option<DType>,
) -> Result<Vec<ValueType>> {
    let types: Vec<Option<ValueType>> = operands
        .iter()
        .map(|operand| {
            operand.map(|operand| ValueType { dtype: Some(DType::I32), shape: operand.ty.shape.clone() })
        })
        .collect();
    let infos: Vec<_> = types
        .iter()
        .map(|ty| ty.as_ref().map(|ty| InputInfo { ty, constant: None, extents: None }))
        .collect();
    let types = op.infer(&infos, 1)?;
    Ok(types.into_iter().map(|ty| ValueType { dtype, ..ty }).collect())
}

/// Sums times the product of the scales over that of the output, with each scale that of the element.
fn requantise(
    sums: &Tensor,
    scales: [(&Tensor, Along, usize, &'static str); 3],
    zero_point: &Tensor,
) -> Result<Tensor> {
    let dtype = zero_point.dtype();
    let range = range(dtype).ok_or_else(|| Error::Unsupported(format!("quantisation to {dtype}")))?;
    let zeros = integers(zero_point)?;
    let &[zero] = zeros.as_slice() else {
        return Err(Error::input(
            7,
            "y_zero_point",
            format!("expected a scalar, found {:?}", zero_point.shape()),
        ));
    };
    let mut factors = vec![1f32; sums.len()];
    for (i, (scale, along, index, name)) in scales.into_iter().enumerate() {
        let scale = spread(scale, along, sums.shape(), index, name)?;
        let values = scale.to_f64s()?;
        for (factor, at) in factors.iter_mut().zip(broadcast_walk(scale.shape(), sums.shape())) {
            let value = values[at] as f32;
            *factor = if i < 2 { *factor * value } else { *factor / value };
        }
    }
    let elements = sums.elements::<i32>()?;
    let values: Vec<i64> = elements
        .iter()
        .zip(factors)
        .map(|(&sum, factor)| saturate(sum as f32 * factor, zero, range))
        .collect();
    from_integers(dtype, sums.shape(), &values)
}

/// The greatest sum of magnitudes, over what is summed, of weights less their zero points: over the last axis but one of matrices
/// (`columns`), whose zero points run along the last, or over all axes but the first, along which zero points run, of a convolution.
///
/// # Errors
/// When the weights are not of 8 bits, or the zero points do not fit.
pub fn greatest_sum(weights: &Tensor, zero_point: Option<&Tensor>, columns: bool) -> Result<i64> {
    let shape = weights.shape();
    let (rows, inner) = match (columns, shape) {
        (true, &[.., rows, inner]) => (rows, inner),
        (false, &[_, ref rest @ ..]) => (rest.iter().product(), 1),
        _ => return Err(Error::input(1, "w", format!("expected weights, found shape {shape:?}"))),
    };
    let zeros = zero_point.map(integers).transpose()?.unwrap_or_else(|| vec![0]);
    let lists = if columns { inner } else { shape[0] };
    if zeros.len() != 1 && zeros.len() != lists {
        return Err(Error::input(
            3,
            "zero_point",
            format!("expected 1 or {lists} numbers, found {}", zeros.len()),
        ));
    }
    let mut sums = vec![0i64; weights.len() / rows.max(1)];
    let mut add = |i: usize, value: i64| {
        let at = i / (rows * inner) * inner + i % inner;
        let list = if columns { i % inner } else { at };
        sums[at] += (value - zeros[if zeros.len() == 1 { 0 } else { list }]).abs();
    };
    match weights.dtype() {
        DType::U8 => {
            weights.elements::<u8>()?.iter().enumerate().for_each(|(i, &value)| add(i, i64::from(value)));
        }
        DType::I8 => {
            weights.elements::<i8>()?.iter().enumerate().for_each(|(i, &value)| add(i, i64::from(value)));
        }
        other => return Err(Error::input(1, "w", format!("expected u8 or i8, found {other}"))),
    }
    Ok(sums.into_iter().max().unwrap_or(0))
}

impl ConvInteger {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        Ok(Self { conv: read_conv(attributes)? })
    }
}

impl QLinearConv {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        Ok(Self { conv: read_conv(attributes)? })
    }
}

fn read_conv(attributes: Attributes) -> Result<Conv> {
    if let Some(name) = ["epilogue", "exact"].into_iter().find(|name| attributes.contains(name)) {
        return Err(Error::attribute(name, "is not known here"));
    }
    Conv::read(attributes)
}

impl Operator for ConvInteger {
    fn name(&self) -> &str {
        "ConvInteger"
    }

    fn attributes(&self) -> Attributes {
        self.conv.attributes()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let operands = [required(inputs, 0, "x")?, required(inputs, 1, "w")?];
        for (index, name) in [(0, "x"), (1, "w")] {
            check_dtype(index, name, operands[index].ty.dtype, is_byte, "u8 or i8")?;
        }
        infer_as_i32(&self.conv, &operands.map(Some), Some(DType::I32))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 4)?;
        let (x, w) = (required(inputs, 0, "x")?, required(inputs, 1, "w")?);
        let x = centred(x, optional(inputs, 2), Along::First, 2, "x_zero_point")?;
        let w = centred(w, optional(inputs, 3), Along::First, 3, "w_zero_point")?;
        self.conv.eval(&[Some(&x), Some(&w)], 1)
    }
}

const PRODUCT: [&str; 8] =
    ["a", "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point", "y_scale", "y_zero_point"];

/// Checks the eight inputs that the QLinear operators share.
fn infer_qlinear<'a>(inputs: &[Option<InputInfo<'a>>]) -> Result<[InputInfo<'a>; 2]> {
    for (index, name) in PRODUCT.into_iter().enumerate() {
        let dtype = required(inputs, index, name)?.ty.dtype;
        match index {
            1 | 4 | 6 => check_dtype(index, name, dtype, DType::is_float, "floats")?,
            _ => check_dtype(index, name, dtype, is_byte, "u8 or i8")?,
        }
    }
    Ok([required(inputs, 0, "a")?, required(inputs, 3, "b")?])
}

impl Operator for QLinearConv {
    fn name(&self) -> &str {
        "QLinearConv"
    }

    fn attributes(&self) -> Attributes {
        self.conv.attributes()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 9)?;
        let [x, w] = infer_qlinear(inputs)?;
        let bias = optional(inputs, 8);
        check_dtype(8, "B", bias.and_then(|bias| bias.ty.dtype), |dtype| dtype == DType::I32, "i32")?;
        let dtype = required(inputs, 7, "y_zero_point")?.ty.dtype;
        infer_as_i32(&self.conv, &[Some(x), Some(w), bias], dtype)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 9)?;
        let input = |index: usize| required(inputs, index, PRODUCT[index]);
        let x = centred(input(0)?, Some(input(2)?), Along::First, 2, "x_zero_point")?;
        let w = centred(input(3)?, Some(input(5)?), Along::First, 5, "w_zero_point")?;
        let sums = self.conv.eval(&[Some(&x), Some(&w), optional(inputs, 8)], 1)?.remove(0);
        // A scale a channel runs along axis 1 of the output: spread it over the axes behind.
        let w_scale = input(4)?;
        let w_scale = match w_scale.shape() {
            &[channels] if channels > 1 => {
                let mut shape = vec![1; sums.rank().saturating_sub(1).max(1)];
                shape[0] = channels;
                w_scale.reshaped(shape)?
            }
            _ => w_scale.clone(),
        };
        let scales = [
            (input(1)?, Along::Columns, 1, "x_scale"),
            (&w_scale, Along::Columns, 4, "w_scale"),
            (input(6)?, Along::Columns, 6, "y_scale"),
        ];
        Ok(vec![requantise(&sums, scales, input(7)?)?])
    }
}

impl MatMulInteger {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for MatMulInteger {
    fn name(&self) -> &str {
        "MatMulInteger"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let operands = [required(inputs, 0, "A")?, required(inputs, 1, "B")?];
        for (index, name) in [(0, "A"), (1, "B")] {
            check_dtype(index, name, operands[index].ty.dtype, is_byte, "u8 or i8")?;
        }
        infer_as_i32(&MatMul, &operands.map(Some), Some(DType::I32))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 4)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        let a = centred(a, optional(inputs, 2), Along::Rows, 2, "a_zero_point")?;
        let b = centred(b, optional(inputs, 3), Along::Columns, 3, "b_zero_point")?;
        MatMul.eval(&[Some(&a), Some(&b)], 1)
    }
}

impl QLinearMatMul {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for QLinearMatMul {
    fn name(&self) -> &str {
        "QLinearMatMul"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 8)?;
        let operands = infer_qlinear(inputs)?;
        let dtype = required(inputs, 7, "y_zero_point")?.ty.dtype;
        infer_as_i32(&MatMul, &operands.map(Some), dtype)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 8)?;
        let input = |index: usize| required(inputs, index, PRODUCT[index]);
        let a = centred(input(0)?, Some(input(2)?), Along::Rows, 2, "a_zero_point")?;
        let b = centred(input(3)?, Some(input(5)?), Along::Columns, 5, "b_zero_point")?;
        let sums = MatMul.eval(&[Some(&a), Some(&b)], 1)?.remove(0);
        let scales = [
            (input(1)?, Along::Rows, 1, "a_scale"),
            (input(4)?, Along::Columns, 4, "b_scale"),
            (input(6)?, Along::Rows, 6, "y_scale"),
        ];
        Ok(vec![requantise(&sums, scales, input(7)?)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv() -> Conv {
        Conv::read(Attributes::new()).unwrap()
    }

    #[test]
    fn integer_convolution_subtracts_zero_points() {
        let x = Tensor::from_vec([1, 1, 3], vec![2u8, 3, 4]).unwrap();
        let w = Tensor::from_vec([2, 1, 2], vec![1u8, 2, 3, 4]).unwrap();
        let (x_zero, w_zero) = (Tensor::scalar(1u8), Tensor::from_vec([2], vec![1u8, 3]).unwrap());
        let op = ConvInteger { conv: conv() };
        assert_eq!(ConvInteger::read(op.attributes()), Ok(op.clone()));
        let y = op.eval(&[Some(&x), Some(&w), Some(&x_zero), Some(&w_zero)], 1).unwrap();
        // x - 1 = [1, 2, 3]; rows of w less theirs are [0, 1] and [0, 1].
        assert_eq!(y[0], Tensor::from_vec([1, 2, 2], vec![2, 3, 2, 3]).unwrap());
    }

    #[test]
    fn sums_of_magnitudes_are_those_of_columns_or_channels() {
        let b = Tensor::from_vec([2, 2, 3], vec![1i8, -2, 3, 4, 5, -6, 0, 0, -128, 0, 0, 127]).unwrap();
        assert_eq!(greatest_sum(&b, None, true), Ok(255));
        let zeros = Tensor::from_vec([3], vec![0i8, -100, 100]).unwrap();
        assert_eq!(greatest_sum(&b, Some(&zeros), true), Ok(255));
        assert_eq!(greatest_sum(&b, None, false), Ok(255));
        let zeros = Tensor::from_vec([2], vec![-1i8, 0]).unwrap();
        assert_eq!(greatest_sum(&b, Some(&zeros), false), Ok(255));
        let w = Tensor::from_vec([2, 1, 2], vec![1u8, 2, 9, 4]).unwrap();
        let zeros = Tensor::from_vec([2], vec![101u8, 0]).unwrap();
        assert_eq!(greatest_sum(&w, Some(&zeros), false), Ok(199));
        assert!(greatest_sum(&w, Some(&Tensor::from_vec([3], vec![0u8; 3]).unwrap()), false).is_err());
    }

    #[test]
    fn quantised_convolution_rescales_each_channel() {
        let x = Tensor::from_vec([1, 1, 2], vec![12u8, 14]).unwrap();
        let w = Tensor::from_vec([2, 1, 1], vec![3i8, -5]).unwrap();
        let (x_scale, x_zero) = (Tensor::scalar(0.5f32), Tensor::scalar(10u8));
        let (w_scale, w_zero) =
            (Tensor::from_vec([2], vec![1f32, 0.25]).unwrap(), Tensor::from_vec([2], vec![0i8, 0]).unwrap());
        let (y_scale, y_zero) = (Tensor::scalar(0.25f32), Tensor::scalar(100u8));
        let bias = Tensor::from_vec([2], vec![0i32, 4]).unwrap();
        let inputs = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero, &bias].map(Some);
        let y = QLinearConv { conv: conv() }.eval(&inputs, 1).unwrap();
        // (x - 10) * w + b = [6, 12], [-6, -16]; times 2 and 0.5.
        assert_eq!(y[0], Tensor::from_vec([1, 2, 2], vec![112u8, 124, 97, 92]).unwrap());
    }

    #[test]
    fn matrix_products_take_zero_points_by_row_and_column() {
        let a = Tensor::from_vec([2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let b = Tensor::from_vec([2, 2], vec![5i8, 6, 7, 8]).unwrap();
        let (rows, columns) =
            (Tensor::from_vec([2], vec![1u8, 3]).unwrap(), Tensor::from_vec([2], vec![5i8, 6]).unwrap());
        let y = MatMulInteger.eval(&[Some(&a), Some(&b), Some(&rows), Some(&columns)], 1).unwrap();
        // a less rows is [[0, 1], [0, 1]], b less columns [[0, 0], [2, 2]].
        assert_eq!(y[0], Tensor::from_vec([2, 2], vec![2i32; 4]).unwrap());
        let (one, y_zero) = (Tensor::scalar(1f32), Tensor::scalar(-3i8));
        let b_scale = Tensor::from_vec([2], vec![1f32, 10.0]).unwrap();
        let inputs = [&a, &one, &rows, &b, &b_scale, &columns, &one, &y_zero].map(Some);
        let y = QLinearMatMul.eval(&inputs, 1).unwrap();
        assert_eq!(y[0], Tensor::from_vec([2, 2], vec![-1i8, 17, -1, 17]).unwrap());
        let types: Vec<ValueType> = inputs.iter().flatten().map(|input| ValueType::of(input)).collect();
        let infos: Vec<_> =
            types.iter().map(|ty| Some(InputInfo { ty, constant: None, extents: None })).collect();
        assert_eq!(QLinearMatMul.infer(&infos, 1).unwrap(), [ValueType::of(&y[0])]);
    }
}
