//! Between real numbers and integers with a scale: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

use super::support::inputs::{at_most, check_dtype, optional, required, resolve_axis};
use super::support::number::Scalar;
use super::support::values::{from_f64s, from_wrapping, short_from_scalars, to_f64s};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::packed::{self, PowerRounding};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `QuantizeLinear`: `x, y_scale, y_zero_point? -> y = saturate(round(x / y_scale) + y_zero_point)`.
///
/// The quotient is taken in f32, as runtimes do, and rounds half to even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizeLinear {
    /// Axis of scales that are a list, or of the blocks.
    pub axis: i64,
    /// Length of a block of elements that share a scale; 0 is none.
    pub block_size: usize,
    /// Element type of the output; `None` is that of the zero point, or u8.
    pub output_dtype: Option<DType>,
    /// Type of the quotient (opset 23), passed through.
    pub precision: Option<DType>,
    /// What happens outside the range of 8-bit floats.
    pub saturate: bool,
}

/// ONNX `DequantizeLinear`: `x, x_scale, x_zero_point? -> y = (x - x_zero_point) * x_scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DequantizeLinear {
    /// Axis of scales that are a list, or of the blocks.
    pub axis: i64,
    /// Length of a block of elements that share a scale; 0 is none.
    pub block_size: usize,
    /// Element type of the output; `None` is that of the scale.
    pub output_dtype: Option<DType>,
}

/// ONNX `DynamicQuantizeLinear`: `x (f32) -> y (u8), y_scale [], y_zero_point []`, which cover the range of `x` and 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DynamicQuantizeLinear;

/// Least and greatest value of an integer type that tensors are quantised to.
pub(super) fn range(dtype: DType) -> Option<[i64; 2]> {
    Some(match dtype {
        DType::U8 => [0, 255],
        DType::I8 => [-128, 127],
        DType::U16 => [0, 65_535],
        DType::I16 => [-32_768, 32_767],
        DType::U4 => [0, 15],
        DType::I4 => [-8, 7],
        DType::U2 => [0, 3],
        DType::I2 => [-2, 1],
        _ => return None,
    })
}

/// The elements of an integer tensor, those of less than a byte as well.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    if range(tensor.dtype()).is_none() && tensor.dtype() != DType::I32 {
        return Err(Error::Unsupported(format!("quantisation with {}", tensor.dtype())));
    }
    Ok(to_f64s(tensor)?.into_iter().map(|x| x as i64).collect())
}

/// A tensor of integers that fit their type.
pub(super) fn from_integers(dtype: DType, shape: &[usize], values: &[i64]) -> Result<Tensor> {
    from_wrapping(dtype, shape, values)
}

/// The elements of a quantised tensor: integers, or floats of at most 8 bits.
fn quantised(tensor: &Tensor) -> Result<Vec<f64>> {
    let dtype = tensor.dtype();
    if packed::is_short_float(dtype) || range(dtype).is_some() || dtype == DType::I32 {
        return to_f64s(tensor);
    }
    Err(Error::Unsupported(format!(
        "quantisation with {dtype}; accepted are integers of 2 to 16 bits, i32, and floats of at most 8 bits"
    )))
}

/// `round(x) + zero_point` within the range of the type; half rounds to even.
pub(super) fn saturate(x: f32, zero_point: i64, [low, high]: [i64; 2]) -> i64 {
    (x.round_ties_even() as i64).saturating_add(zero_point).clamp(low, high)
}

/// Which scale an element has.
#[derive(Debug, Clone, Copy)]
enum Granularity {
    Tensor,
    /// Elements along the axis, `inner` apart.
    Axis {
        extent: usize,
        inner: usize,
    },
    /// As `Axis`, in `blocks` blocks.
    Block {
        extent: usize,
        inner: usize,
        block: usize,
        blocks: usize,
    },
}

impl Granularity {
    fn new(x: &[usize], scale: &[usize], axis: i64, block: usize) -> Result<Self> {
        let wrong =
            |expected: String| Err(Error::input(1, "scale", format!("expected {expected}, found {scale:?}")));
        if block == 0 && scale.len() <= 1 && scale.iter().product::<usize>() == 1 {
            return Ok(Self::Tensor);
        }
        let axis = resolve_axis("axis", axis, x.len())?;
        let (extent, inner) = (x[axis], x[axis + 1..].iter().product());
        if block == 0 {
            return if scale == [extent] {
                Ok(Self::Axis { extent, inner })
            } else {
                wrong(format!("[{extent}]"))
            };
        }
        let blocks = extent.div_ceil(block);
        let mut expected = x.to_vec();
        expected[axis] = blocks;
        if scale == expected {
            Ok(Self::Block { extent, inner, block, blocks })
        } else {
            wrong(format!("{expected:?}"))
        }
    }

    fn of(self, at: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Axis { extent, inner } => at / inner % extent,
            Self::Block { extent, inner, block, blocks } => {
                let (outer, along) = (at / inner / extent, at / inner % extent);
                (outer * blocks + along / block) * inner + at % inner
            }
        }
    }
}

/// Scales and zero points, with the one of each element.
struct Grid {
    granularity: Granularity,
    scales: Vec<f64>,
    zero_points: Vec<f64>,
}

impl Grid {
    fn new(x: &Tensor, scale: &Tensor, zero_point: Option<&Tensor>, axis: i64, block: usize) -> Result<Self> {
        let granularity = Granularity::new(x.shape(), scale.shape(), axis, block)?;
        let scales = to_f64s(scale)?;
        let zero_points = match zero_point {
            None => vec![0.0; scales.len()],
            Some(zero_point) if zero_point.len() != scale.len() => {
                return Err(Error::input(
                    2,
                    "zero_point",
                    format!("expected {:?} as the scale, found {:?}", scale.shape(), zero_point.shape()),
                ));
            }
            Some(zero_point) => quantised(zero_point)?,
        };
        Ok(Self { granularity, scales, zero_points })
    }

    /// Scale and zero point of element `at`.
    fn of(&self, at: usize) -> (f64, f64) {
        let i = self.granularity.of(at);
        (self.scales[i], self.zero_points[i])
    }
}

impl Grid {
    /// Bytes as f32: the weights of whole networks, element by element without detours. Nothing for other types.
    fn dequantised(&self, x: &Tensor) -> Result<Option<Tensor>> {
        // The difference of integers is exact in f64, and so is its product with a scale of f32: it is rounded once.
        let real = |at: usize, value: f64| {
            let (scale, zero_point) = self.of(at);
            ((value - zero_point) * scale) as f32
        };
        let data: Vec<f32> = match x.dtype() {
            DType::I8 => {
                x.elements::<i8>()?.iter().enumerate().map(|(i, &v)| real(i, f64::from(v))).collect()
            }
            DType::U8 => {
                x.elements::<u8>()?.iter().enumerate().map(|(i, &v)| real(i, f64::from(v))).collect()
            }
            _ => return Ok(None),
        };
        Ok(Some(Tensor::from_vec(x.shape(), data)?))
    }
}

fn read_common(attributes: &mut Attributes) -> Result<(i64, usize, Option<DType>)> {
    let block_size = attributes.int("block_size")?.unwrap_or(0);
    let block_size = usize::try_from(block_size)
        .map_err(|_| Error::attribute("block_size", format!("expected 0 or more, found {block_size}")))?;
    Ok((attributes.int("axis")?.unwrap_or(1), block_size, read_dtype(attributes, "output_dtype")?))
}

/// An element type where 0 is none.
fn read_dtype(attributes: &mut Attributes, name: &str) -> Result<Option<DType>> {
    if attributes.get(name) == Some(&crate::AttributeValue::Int(0)) {
        attributes.take(name);
    }
    attributes.dtype(name)
}

fn write_common(axis: i64, block_size: usize, output_dtype: Option<DType>) -> Attributes {
    let mut attributes = Attributes::new();
    if axis != 1 {
        attributes.set("axis", axis);
    }
    if block_size != 0 {
        attributes.set("block_size", block_size as i64);
    }
    if let Some(dtype) = output_dtype {
        attributes.set("output_dtype", dtype);
    }
    attributes
}

impl QuantizeLinear {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let (axis, block_size, output_dtype) = read_common(&mut attributes)?;
        let precision = read_dtype(&mut attributes, "precision")?;
        let saturate = attributes.flag("saturate", true)?;
        attributes.finish("axis, block_size, output_dtype, precision, saturate")?;
        Ok(Self { axis, block_size, output_dtype, precision, saturate })
    }

    fn output_dtype(&self, zero_point: Option<&ValueType>) -> Result<Option<DType>> {
        match (self.output_dtype, zero_point.map(|zero_point| zero_point.dtype)) {
            (Some(wanted), Some(Some(found))) if wanted != found => Err(Error::input(
                2,
                "y_zero_point",
                format!("expected {wanted} as output_dtype says, found {found}"),
            )),
            (Some(wanted), _) => Ok(Some(wanted)),
            (None, Some(found)) => Ok(found),
            (None, None) => Ok(Some(DType::U8)),
        }
    }
}

impl Operator for QuantizeLinear {
    fn name(&self) -> &str {
        "QuantizeLinear"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = write_common(self.axis, self.block_size, self.output_dtype);
        if let Some(precision) = self.precision {
            attributes.set("precision", precision);
        }
        if !self.saturate {
            attributes.set("saturate", false);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?.ty, required(inputs, 1, "y_scale")?.ty);
        let real = |dtype: DType| dtype.is_float() || dtype == DType::I32;
        check_dtype(0, "x", x.dtype, real, "floats or i32")?;
        let scales = |dtype: DType| real(dtype) || dtype == DType::F8E8M0;
        check_dtype(1, "y_scale", scale.dtype, scales, "floats or i32")?;
        if let (Some(x), Some(scale)) = (x.known_shape(), scale.known_shape()) {
            Granularity::new(&x, &scale, self.axis, self.block_size)?;
        }
        let dtype = self.output_dtype(optional(inputs, 2).map(|zero_point| zero_point.ty))?;
        Ok(vec![ValueType { dtype, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "y_scale")?);
        let zero_point = optional(inputs, 2);
        let dtype = self.output_dtype(zero_point.map(ValueType::of).as_ref())?;
        let dtype = dtype.unwrap_or(DType::U8);
        let grid = Grid::new(x, scale, zero_point, self.axis, self.block_size)?;
        if packed::is_short_float(dtype) {
            let quantise = |(at, x): (usize, f64)| {
                let (scale, zero_point) = grid.of(at);
                Scalar::Float(f64::from(x as f32 / scale as f32 + zero_point as f32))
            };
            let values: Vec<Scalar> = to_f64s(x)?.into_iter().enumerate().map(quantise).collect();
            let result = short_from_scalars(dtype, x.shape(), &values, self.saturate, PowerRounding::Up)?;
            return Ok(vec![result]);
        }
        let range = range(dtype).ok_or_else(|| Error::Unsupported(format!("quantisation to {dtype}")))?;
        let quantise = |(at, x): (usize, f64)| {
            let (scale, zero_point) = grid.of(at);
            saturate(x as f32 / scale as f32, zero_point as i64, range)
        };
        let values: Vec<i64> = x.to_f64s()?.into_iter().enumerate().map(quantise).collect();
        Ok(vec![from_integers(dtype, x.shape(), &values)?])
    }
}

impl DequantizeLinear {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let (axis, block_size, output_dtype) = read_common(&mut attributes)?;
        attributes.finish("axis, block_size, output_dtype")?;
        Ok(Self { axis, block_size, output_dtype })
    }
}

impl Operator for DequantizeLinear {
    fn name(&self) -> &str {
        "DequantizeLinear"
    }

    fn attributes(&self) -> Attributes {
        write_common(self.axis, self.block_size, self.output_dtype)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?.ty, required(inputs, 1, "x_scale")?.ty);
        let scales = |dtype: DType| dtype.is_float() || dtype == DType::F8E8M0;
        check_dtype(1, "x_scale", scale.dtype, scales, "floats")?;
        if let Some(zero_point) = optional(inputs, 2).and_then(|zero_point| zero_point.ty.dtype) {
            let same = |dtype| dtype == zero_point;
            check_dtype(0, "x", x.dtype, same, &format!("{zero_point} as the zero point has"))?;
        }
        if let (Some(x), Some(scale)) = (x.known_shape(), scale.known_shape()) {
            Granularity::new(&x, &scale, self.axis, self.block_size)?;
        }
        Ok(vec![ValueType { dtype: self.output_dtype.or(scale.dtype), shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let (x, scale) = (required(inputs, 0, "x")?, required(inputs, 1, "x_scale")?);
        let grid = Grid::new(x, scale, optional(inputs, 2), self.axis, self.block_size)?;
        if self.output_dtype.unwrap_or(scale.dtype()) == DType::F32
            && let Some(real) = grid.dequantised(x)?
        {
            return Ok(vec![real]);
        }
        let values = quantised(x)?;
        let real = |(at, x): (usize, &f64)| {
            let (scale, zero_point) = grid.of(at);
            (x - zero_point) * scale
        };
        let data: Vec<f64> = values.iter().enumerate().map(real).collect();
        Ok(vec![from_f64s(self.output_dtype.unwrap_or(scale.dtype()), x.shape(), &data)?])
    }
}

impl DynamicQuantizeLinear {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none")?;
        Ok(Self)
    }
}

impl Operator for DynamicQuantizeLinear {
    fn name(&self) -> &str {
        "DynamicQuantizeLinear"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "x")?.ty;
        check_dtype(0, "x", x.dtype, |dtype| dtype == DType::F32, "f32")?;
        let y = ValueType { dtype: Some(DType::U8), shape: x.shape.clone() };
        let scalar = |dtype| ValueType::new(dtype, [0usize; 0]);
        Ok([y, scalar(DType::F32), scalar(DType::U8)].into_iter().take(outputs.max(1)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        let x = required(inputs, 0, "x")?;
        let data = x.elements::<f32>()?;
        let low = data.iter().fold(0f32, |low, &x| low.min(x));
        let high = data.iter().fold(0f32, |high, &x| high.max(x));
        let scale = if low < high { (high - low) / 255.0 } else { 1.0 };
        let zero_point = saturate(-low / scale, 0, [0, 255]);
        let values: Vec<u8> = data.iter().map(|x| saturate(x / scale, zero_point, [0, 255]) as u8).collect();
        let y = Tensor::from_vec(x.shape(), values)?;
        let results = [y, Tensor::scalar(scale), Tensor::scalar(zero_point as u8)];
        Ok(results.into_iter().take(outputs.max(1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> QuantizeLinear {
        QuantizeLinear { axis: 1, block_size: 0, output_dtype: None, precision: None, saturate: true }
    }

    #[test]
    fn rounds_half_to_even_and_saturates() {
        let x = Tensor::from_vec([6], vec![1f32, 3.0, -1.0, 1000.0, -1000.0, 4.0]).unwrap();
        let (scale, zero_point) = (Tensor::scalar(2f32), Tensor::scalar(128u8));
        let y = plain().eval(&[Some(&x), Some(&scale), Some(&zero_point)], 1).unwrap();
        assert_eq!(y[0], Tensor::from_vec([6], vec![128u8, 130, 128, 255, 0, 130]).unwrap());
        let back = DequantizeLinear { axis: 1, block_size: 0, output_dtype: None };
        let z = back.eval(&[Some(&y[0]), Some(&scale), Some(&zero_point)], 1).unwrap();
        assert_eq!(z[0], Tensor::from_vec([6], vec![0f32, 4.0, 0.0, 254.0, -256.0, 4.0]).unwrap());
    }

    #[test]
    fn scales_along_an_axis_and_in_blocks() {
        let x = Tensor::from_vec([2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let scale = Tensor::from_vec([3], vec![1f32, 2.0, 3.0]).unwrap();
        let y = plain().eval(&[Some(&x), Some(&scale)], 1).unwrap();
        assert_eq!(y[0], Tensor::from_vec([2, 3], vec![1u8, 1, 1, 4, 2, 2]).unwrap());
        let op = QuantizeLinear { block_size: 2, output_dtype: Some(DType::I4), ..plain() };
        assert_eq!(QuantizeLinear::read(op.attributes()), Ok(op));
        let scale = Tensor::from_vec([2, 2], vec![0.5f32, 1.0, -1.0, 2.0]).unwrap();
        let y = op.eval(&[Some(&x), Some(&scale)], 1).unwrap();
        assert_eq!(integers(&y[0]).unwrap(), [2, 4, 3, -4, -5, 3]);
        assert_eq!(y[0].bytes().len(), 3);
        let wrong = Tensor::from_vec([2], vec![1f32, 2.0]).unwrap();
        assert!(plain().eval(&[Some(&x), Some(&wrong)], 1).is_err());
        assert!(op.eval(&[Some(&x), Some(&wrong)], 1).is_err());
    }

    #[test]
    fn dynamic_range_holds_zero() {
        let x = Tensor::from_vec([3], vec![0.5f32, -1.0, 1.55]).unwrap();
        let y = DynamicQuantizeLinear.eval(&[Some(&x)], 3).unwrap();
        assert_eq!(y[0], Tensor::from_vec([3], vec![150u8, 0, 255]).unwrap());
        assert_eq!(y[1], Tensor::scalar(0.01f32));
        assert_eq!(y[2], Tensor::scalar(100u8));
        let zeros = Tensor::zeros(DType::F32, [2]).unwrap();
        let y = DynamicQuantizeLinear.eval(&[Some(&zeros)], 3).unwrap();
        assert_eq!(y[1], Tensor::scalar(1f32));
    }
}
