//! Normalisation of rows that are contiguous in memory: LayerNormalization, RMSNormalization, InstanceNormalization and
//! GroupNormalization.

use super::support::broadcast::{broadcast_dims, broadcast_walk, broadcasts_to};
use super::support::inputs::{at_most, check_dtype, optional, required, resolve_axis};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `LayerNormalization`: `X, Scale, B? -> Y, Mean?, InvStdDev?`; a row is all axes from `axis` on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormalization {
    /// First axis of a row; negative counts from the end.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
    /// Type of the statistics: f32 or bf16.
    pub stash_type: DType,
}

/// ONNX `RMSNormalization`: `X, scale -> Y`: each row over its root mean square. Y has the type of the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNormalization {
    /// First axis of a row; negative counts from the end.
    pub axis: i64,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Type of the statistics: f32 or bf16.
    pub stash_type: DType,
}

/// ONNX `InstanceNormalization`: `input [N, C, ..], scale [C], B [C] -> output`; a row is a channel of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InstanceNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

/// ONNX `GroupNormalization` of opset 21: `X [N, C, ..], scale [C], bias [C] -> Y`; a row is a group of channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormalization {
    /// Number of groups, a divisor of C.
    pub num_groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Type of the statistics: f32 or bf16.
    pub stash_type: DType,
}

const DEFAULT_EPSILON: f32 = 1e-5;

fn read_stash_type(attributes: &mut Attributes) -> Result<DType> {
    match attributes.dtype("stash_type")?.unwrap_or(DType::F32) {
        dtype if dtype.is_float() => Ok(dtype),
        other => Err(Error::attribute("stash_type", format!("expected a float type, found {other}"))),
    }
}

fn write(axis: i64, epsilon: f32, stash_type: DType) -> Attributes {
    let mut attributes = Attributes::new();
    if axis != -1 {
        attributes.set("axis", axis);
    }
    if epsilon != DEFAULT_EPSILON {
        attributes.set("epsilon", epsilon);
    }
    if stash_type != DType::F32 {
        attributes.set("stash_type", stash_type);
    }
    attributes
}

/// Subtracts the mean and divides by the standard deviation; gives both back, the latter as its inverse.
fn standardise(row: &mut [f64], epsilon: f32) -> [f64; 2] {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let inverse = (variance + f64::from(epsilon)).sqrt().recip();
    for x in row {
        *x = (*x - mean) * inverse;
    }
    [mean, inverse]
}

/// Multiplies and adds parameters that broadcast to `shape`.
fn affine(data: &mut [f64], shape: &[usize], scale: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    for (index, name, parameter) in [(1, "scale", Some(scale)), (2, "bias", bias)] {
        let Some(parameter) = parameter else { continue };
        if !broadcasts_to(parameter.shape(), shape) {
            let found = parameter.shape();
            return Err(Error::input(index, name, format!("{found:?} does not broadcast to {shape:?}")));
        }
        let values = parameter.to_f64s()?;
        for (x, at) in data.iter_mut().zip(broadcast_walk(parameter.shape(), shape)) {
            *x = if index == 1 { *x * values[at] } else { *x + values[at] };
        }
    }
    Ok(())
}

/// A parameter of an operator over rows must broadcast to the data.
fn check_parameter(index: usize, name: &'static str, parameter: &ValueType, x: &ValueType) -> Result<()> {
    check_dtype(index, name, parameter.dtype, DType::is_float, "floats")?;
    let (Some(parameter), Some(x)) = (&parameter.shape, &x.shape) else { return Ok(()) };
    let fits = parameter.len() <= x.len()
        && broadcast_dims(&[parameter, x])
            .is_ok_and(|both| both.iter().zip(x).all(|(both, x)| both.equals(x) != Some(false)));
    if fits {
        Ok(())
    } else {
        Err(Error::input(index, name, format!("{parameter:?} does not broadcast to {x:?}")))
    }
}

impl LayerNormalization {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            axis: attributes.int("axis")?.unwrap_or(-1),
            epsilon: attributes.float("epsilon")?.unwrap_or(DEFAULT_EPSILON),
            stash_type: read_stash_type(&mut attributes)?,
        };
        attributes.finish("axis, epsilon, stash_type")?;
        Ok(op)
    }
}

impl Operator for LayerNormalization {
    fn name(&self) -> &str {
        "LayerNormalization"
    }

    fn attributes(&self) -> Attributes {
        write(self.axis, self.epsilon, self.stash_type)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 3)?;
        let x = required(inputs, 0, "X")?.ty;
        check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
        check_parameter(1, "Scale", required(inputs, 1, "Scale")?.ty, x)?;
        if let Some(bias) = optional(inputs, 2) {
            check_parameter(2, "B", bias.ty, x)?;
        }
        let mut types = vec![x.clone()];
        if outputs > 1 {
            let shape = match &x.shape {
                None => None,
                Some(shape) => {
                    let axis = resolve_axis("axis", self.axis, shape.len())?;
                    let ones = std::iter::repeat_n(Dim::constant(1), shape.len() - axis);
                    Some(shape[..axis].iter().cloned().chain(ones).collect())
                }
            };
            let statistics = ValueType { dtype: Some(self.stash_type), shape };
            types.extend(std::iter::repeat_n(statistics, outputs - 1));
        } else if let Some(rank) = x.rank() {
            resolve_axis("axis", self.axis, rank)?;
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 3)?;
        let x = required(inputs, 0, "X")?;
        check_dtype(0, "X", Some(x.dtype()), DType::is_float, "floats")?;
        let axis = resolve_axis("axis", self.axis, x.rank())?;
        let mut data = x.to_f64s()?;
        let length: usize = x.shape()[axis..].iter().product();
        let statistics: Vec<[f64; 2]> =
            data.chunks_mut(length.max(1)).map(|row| standardise(row, self.epsilon)).collect();
        affine(&mut data, x.shape(), required(inputs, 1, "Scale")?, optional(inputs, 2))?;
        let mut results = vec![from_f64s(x.dtype(), x.shape(), &data)?];
        let mut shape = x.shape().to_vec();
        shape[axis..].fill(1);
        for i in 0..outputs.saturating_sub(1).min(2) {
            let rows: usize = shape.iter().product();
            let mut values: Vec<f64> = statistics.iter().map(|row| row[i]).collect();
            values.resize(rows, f64::NAN);
            results.push(from_f64s(self.stash_type, &shape, &values)?);
        }
        Ok(results)
    }
}

impl RmsNormalization {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        let LayerNormalization { axis, epsilon, stash_type } = LayerNormalization::read(attributes)?;
        Ok(Self { axis, epsilon, stash_type })
    }
}

impl Operator for RmsNormalization {
    fn name(&self) -> &str {
        "RMSNormalization"
    }

    fn attributes(&self) -> Attributes {
        write(self.axis, self.epsilon, self.stash_type)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (x, scale) = (required(inputs, 0, "X")?.ty, required(inputs, 1, "scale")?.ty);
        check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
        check_parameter(1, "scale", scale, x)?;
        if let Some(rank) = x.rank() {
            resolve_axis("axis", self.axis, rank)?;
        }
        Ok(vec![ValueType { dtype: scale.dtype, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let (x, scale) = (required(inputs, 0, "X")?, required(inputs, 1, "scale")?);
        check_dtype(0, "X", Some(x.dtype()), DType::is_float, "floats")?;
        check_dtype(1, "scale", Some(scale.dtype()), DType::is_float, "floats")?;
        let axis = resolve_axis("axis", self.axis, x.rank())?;
        let mut data = x.to_f64s()?;
        let length: usize = x.shape()[axis..].iter().product();
        for row in data.chunks_mut(length.max(1)) {
            let mean_square = row.iter().map(|x| x * x).sum::<f64>() / length as f64;
            let root = (mean_square + f64::from(self.epsilon)).sqrt();
            for x in row {
                *x /= root;
            }
        }
        affine(&mut data, x.shape(), scale, None)?;
        Ok(vec![from_f64s(scale.dtype(), x.shape(), &data)?])
    }
}

/// Checks of the operators with a scale and a bias a channel.
fn infer_channels(inputs: &[Option<InputInfo<'_>>], groups: Option<usize>) -> Result<Vec<ValueType>> {
    at_most(inputs, 3)?;
    let x = required(inputs, 0, "X")?.ty;
    check_dtype(0, "X", x.dtype, DType::is_float, "floats")?;
    let channels = match x.shape.as_deref() {
        None => None,
        Some([_, channels, ..]) => Some(channels),
        Some(_) => return Err(Error::input(0, "X", format!("expected [N, C, ..], found {x}"))),
    };
    if let (Some(groups), Some(channels)) = (groups, channels.and_then(Dim::known)) {
        check_groups(groups, channels)?;
    }
    for (index, name) in [(1, "scale"), (2, "bias")] {
        let parameter = required(inputs, index, name)?.ty;
        check_dtype(index, name, parameter.dtype, DType::is_float, "floats")?;
        let fits = match (parameter.shape.as_deref(), channels) {
            (Some([extent]), Some(channels)) => extent.equals(channels) != Some(false),
            (Some([_]) | None, _) => true,
            (Some(_), _) => false,
        };
        if !fits {
            let expected = channels.map_or("C".into(), Dim::to_string);
            return Err(Error::input(index, name, format!("expected [{expected}], found {parameter}")));
        }
    }
    Ok(vec![x.clone()])
}

fn check_groups(groups: usize, channels: usize) -> Result<()> {
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::attribute(
            "num_groups",
            format!("expected a divisor of {channels} channels, found {groups}"),
        ));
    }
    Ok(())
}

/// Normalises `groups` rows an image (each channel its own when `None`), then scales and shifts the channels.
fn eval_channels(inputs: &[Option<&Tensor>], groups: Option<usize>, epsilon: f32) -> Result<Vec<Tensor>> {
    at_most(inputs, 3)?;
    let x = required(inputs, 0, "X")?;
    check_dtype(0, "X", Some(x.dtype()), DType::is_float, "floats")?;
    let [_, channels, ..] = *x.shape() else {
        return Err(Error::input(0, "X", format!("expected [N, C, ..], found {:?}", x.shape())));
    };
    if let Some(groups) = groups {
        check_groups(groups, channels)?;
    }
    let inner: usize = x.shape()[2..].iter().product();
    let length = channels / groups.unwrap_or(channels).max(1) * inner;
    let mut data = x.to_f64s()?;
    for row in data.chunks_mut(length.max(1)) {
        standardise(row, epsilon);
    }
    let mut along = vec![1; x.rank() - 1];
    along[0] = channels;
    let parameter = |index: usize, name: &'static str| {
        let parameter = required(inputs, index, name)?;
        if parameter.shape() != [channels] {
            let found = parameter.shape();
            return Err(Error::input(index, name, format!("expected [{channels}], found {found:?}")));
        }
        parameter.reshaped(along.as_slice())
    };
    affine(&mut data, x.shape(), &parameter(1, "scale")?, Some(&parameter(2, "bias")?))?;
    Ok(vec![from_f64s(x.dtype(), x.shape(), &data)?])
}

impl InstanceNormalization {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let epsilon = attributes.float("epsilon")?.unwrap_or(DEFAULT_EPSILON);
        attributes.finish("epsilon")?;
        Ok(Self { epsilon })
    }
}

impl Operator for InstanceNormalization {
    fn name(&self) -> &str {
        "InstanceNormalization"
    }

    fn attributes(&self) -> Attributes {
        write(-1, self.epsilon, DType::F32)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        infer_channels(inputs, None)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        eval_channels(inputs, None, self.epsilon)
    }
}

impl GroupNormalization {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let groups =
            attributes.int("num_groups")?.ok_or_else(|| Error::attribute("num_groups", "is required"))?;
        let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
        let op = Self {
            num_groups: groups.ok_or_else(|| Error::attribute("num_groups", "expected at least 1"))?,
            epsilon: attributes.float("epsilon")?.unwrap_or(DEFAULT_EPSILON),
            stash_type: read_stash_type(&mut attributes)?,
        };
        attributes.finish("epsilon, num_groups, stash_type")?;
        Ok(op)
    }
}

impl Operator for GroupNormalization {
    fn name(&self) -> &str {
        "GroupNormalization"
    }

    fn attributes(&self) -> Attributes {
        write(-1, self.epsilon, self.stash_type).with("num_groups", self.num_groups as i64)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        infer_channels(inputs, Some(self.num_groups))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        eval_channels(inputs, Some(self.num_groups), self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..count).map(|i| (i * 11 % 17) as f64).collect()).unwrap()
    }

    /// Mean and variance of the elements whose index `belongs`.
    fn moments(data: &[f64], belongs: impl Fn(usize) -> bool) -> (f64, f64) {
        let row: Vec<f64> = data.iter().enumerate().filter(|(i, _)| belongs(*i)).map(|(_, x)| *x).collect();
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        (mean, row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64)
    }

    #[test]
    fn layers_follow_the_formula() {
        let op = LayerNormalization { axis: 1, epsilon: 0.5, stash_type: DType::F32 };
        assert_eq!(LayerNormalization::read(op.attributes()), Ok(op));
        let (x, scale, bias) = (tensor(&[2, 3, 4]), tensor(&[3, 4]), tensor(&[4]));
        let y = op.eval(&[Some(&x), Some(&scale), Some(&bias)], 3).unwrap();
        let (data, scale, bias) = (x.to_f64s().unwrap(), scale.to_f64s().unwrap(), bias.to_f64s().unwrap());
        for (at, y) in y[0].to_f64s().unwrap().into_iter().enumerate() {
            let (mean, variance) = moments(&data, |i| i / 12 == at / 12);
            let expected = (data[at] - mean) / (variance + 0.5).sqrt() * scale[at % 12] + bias[at % 4];
            assert!((y - expected).abs() < 1e-12);
        }
        assert_eq!(y[1].shape(), [2, 1, 1]);
        assert!((y[1].to_f64s().unwrap()[1] - moments(&data, |i| i >= 12).0).abs() < 1e-6);
    }

    #[test]
    fn groups_and_instances_follow_the_formula() {
        let (x, scale, bias) = (tensor(&[2, 4, 3]), tensor(&[4]), tensor(&[4]));
        let inputs = [Some(&x), Some(&scale), Some(&bias)];
        let group = GroupNormalization { num_groups: 2, epsilon: 0.25, stash_type: DType::F32 };
        assert_eq!(GroupNormalization::read(group.attributes()), Ok(group));
        let instance = InstanceNormalization { epsilon: 0.25 };
        assert_eq!(InstanceNormalization::read(instance.attributes()), Ok(instance));
        let data = x.to_f64s().unwrap();
        for (op, length) in [(&group as &dyn Operator, 6), (&instance, 3)] {
            let y = op.eval(&inputs, 1).unwrap()[0].to_f64s().unwrap();
            for (at, y) in y.into_iter().enumerate() {
                let (mean, variance) = moments(&data, |i| i / length == at / length);
                let parameter = scale.to_f64s().unwrap()[at / 3 % 4];
                let expected = (data[at] - mean) / (variance + 0.25).sqrt() * parameter + parameter;
                assert!((y - expected).abs() < 1e-12, "{}", op.name());
            }
        }
        assert!(GroupNormalization { num_groups: 3, ..group }.eval(&inputs, 1).is_err());
    }

    #[test]
    fn root_mean_square_becomes_one() {
        let op = RmsNormalization { axis: -1, epsilon: 0.0, stash_type: DType::F32 };
        let (x, scale) = (tensor(&[2, 5]), Tensor::from_vec([5], vec![2f32; 5]).unwrap());
        let y = op.eval(&[Some(&x), Some(&scale)], 1).unwrap();
        assert_eq!(y[0].dtype(), DType::F32);
        for row in y[0].to_f64s().unwrap().chunks(5) {
            assert!((row.iter().map(|y| y * y).sum::<f64>() / 5.0 - 4.0).abs() < 1e-6);
        }
    }
}
