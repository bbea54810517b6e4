//! Batch normalisation, for inference and in training mode.

use super::support::inputs::{at_most, check_dtype, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `BatchNormalization`: `X [N, C, ..], scale [C], B [C], input_mean [C], input_var [C] -> Y`, in training mode
/// also `running_mean [C], running_var [C]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Share of the old running mean and variance in the new ones.
    pub momentum: f32,
    /// Normalise with the batch's own mean and variance.
    pub training_mode: bool,
}

/// Parameters with their names, behind X.
const PARAMETERS: [&str; 4] = ["scale", "B", "input_mean", "input_var"];

impl BatchNormalization {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            epsilon: attributes.float("epsilon")?.unwrap_or(1e-5),
            momentum: attributes.float("momentum")?.unwrap_or(0.9),
            training_mode: attributes.flag("training_mode", false)?,
        };
        attributes.finish("epsilon, momentum, training_mode")?;
        Ok(op)
    }

    fn check_outputs(self, outputs: usize) -> Result<()> {
        if outputs > 1 && !self.training_mode {
            return Err(Error::attribute(
                "training_mode",
                format!("{outputs} outputs are there only in training mode"),
            ));
        }
        if outputs > 3 {
            return Err(Error::Graph(format!("at most 3 outputs are expected, found {outputs}")));
        }
        Ok(())
    }
}

impl Operator for BatchNormalization {
    fn name(&self) -> &str {
        "BatchNormalization"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.epsilon != 1e-5 {
            attributes.set("epsilon", self.epsilon);
        }
        if self.momentum != 0.9 {
            attributes.set("momentum", self.momentum);
        }
        if self.training_mode {
            attributes.set("training_mode", true);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 5)?;
        self.check_outputs(outputs)?;
        let x = required(inputs, 0, "X")?;
        check_dtype(0, "X", x.ty.dtype, DType::is_float, "floats")?;
        if x.ty.rank().is_some_and(|rank| rank < 2) {
            return Err(Error::input(0, "X", format!("expected [N, C, ..], found {}", x.ty)));
        }
        let mut channels = x.ty.shape.as_ref().map(|shape| shape[1].clone());
        for (i, name) in PARAMETERS.into_iter().enumerate() {
            let ty = required(inputs, i + 1, name)?.ty;
            check_dtype(i + 1, name, ty.dtype, DType::is_float, "floats")?;
            let Some(shape) = &ty.shape else { continue };
            let fits = shape.len() == 1
                && channels.as_ref().is_none_or(|channels| shape[0].equals(channels) != Some(false));
            if !fits {
                let expected = channels.as_ref().map_or("C".into(), Dim::to_string);
                return Err(Error::input(i + 1, name, format!("expected [{expected}], found {ty}")));
            }
            if channels.as_ref().is_none_or(|channels| channels.known().is_none()) {
                channels = Some(shape[0].clone());
            }
        }
        // The parameters know how many channels there are where the data leave it open.
        let mut y = x.ty.clone();
        if let (Some(shape), Some(channels)) = (&mut y.shape, &channels) {
            shape[1] = channels.clone();
        }
        let mut types = vec![y];
        for i in 1..outputs {
            let dtype = required(inputs, 2 + i, PARAMETERS[1 + i])?.ty.dtype;
            types.push(ValueType { dtype, shape: channels.clone().map(|channels| vec![channels]) });
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 5)?;
        self.check_outputs(outputs)?;
        let x = required(inputs, 0, "X")?;
        if x.rank() < 2 || !x.dtype().is_float() {
            return Err(Error::input(
                0,
                "X",
                format!("expected floats [N, C, ..], found {} {:?}", x.dtype(), x.shape()),
            ));
        }
        let channels = x.shape()[1];
        let mut parameters = vec![];
        for (i, name) in PARAMETERS.into_iter().enumerate() {
            let tensor = required(inputs, i + 1, name)?;
            if tensor.shape() != [channels] {
                return Err(Error::input(
                    i + 1,
                    name,
                    format!("expected [{channels}], found {:?}", tensor.shape()),
                ));
            }
            parameters.push(tensor.to_f64s()?);
        }
        let [scale, bias, running_mean, running_var] = &parameters[..] else {
            return Err(Error::Graph("four parameters are expected".into()));
        };
        let data = x.to_f64s()?;
        let inner: usize = x.shape()[2..].iter().product();
        let channel = |at: usize| at / inner.max(1) % channels.max(1);
        let (mean, var) = if self.training_mode {
            batch_statistics(&data, channels, channel)
        } else {
            (running_mean.clone(), running_var.clone())
        };
        let normalise = |(at, x): (usize, &f64)| {
            let c = channel(at);
            (x - mean[c]) / (var[c] + f64::from(self.epsilon)).sqrt() * scale[c] + bias[c]
        };
        let y: Vec<f64> = data.iter().enumerate().map(normalise).collect();
        let mut results = vec![from_f64s(x.dtype(), x.shape(), &y)?];
        let momentum = f64::from(self.momentum);
        for (i, (old, new)) in [(running_mean, &mean), (running_var, &var)].into_iter().enumerate() {
            if i + 1 < outputs {
                let mix = |(old, new): (&f64, &f64)| old * momentum + new * (1.0 - momentum);
                let updated: Vec<f64> = old.iter().zip(new).map(mix).collect();
                let dtype = required(inputs, 3 + i, PARAMETERS[2 + i])?.dtype();
                results.push(from_f64s(dtype, &[channels], &updated)?);
            }
        }
        Ok(results)
    }
}

/// Mean and (population) variance of each channel.
fn batch_statistics(data: &[f64], channels: usize, channel: impl Fn(usize) -> usize) -> (Vec<f64>, Vec<f64>) {
    let count = (data.len() / channels.max(1)) as f64;
    let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
    for (at, x) in data.iter().enumerate() {
        mean[channel(at)] += x / count;
    }
    for (at, x) in data.iter().enumerate() {
        let c = channel(at);
        var[c] += (x - mean[c]).powi(2) / count;
    }
    (mean, var)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(training_mode: bool) -> BatchNormalization {
        BatchNormalization { epsilon: 0.0, momentum: 0.75, training_mode }
    }

    fn eval(op: BatchNormalization, parameters: [&[f32]; 4], outputs: usize) -> Result<Vec<Vec<f64>>> {
        let x = Tensor::from_vec([2, 2, 1], vec![1f32, 10.0, 3.0, 14.0]).unwrap();
        let parameters = parameters.map(|data| Tensor::from_vec([data.len()], data.to_vec()).unwrap());
        let mut inputs = vec![Some(&x)];
        inputs.extend(parameters.iter().map(Some));
        op.eval(&inputs, outputs)?.iter().map(Tensor::to_f64s).collect()
    }

    #[test]
    fn inference_uses_the_running_statistics() {
        let y = eval(op(false), [&[2.0, 1.0], &[0.5, 0.0], &[1.0, 12.0], &[4.0, 1.0]], 1).unwrap();
        assert_eq!(y[0], [0.5, -2.0, 2.5, 2.0]);
        assert!(eval(op(false), [&[2.0], &[0.5], &[1.0], &[4.0]], 1).is_err());
        assert!(eval(op(false), [&[2.0, 1.0], &[0.5, 0.0], &[1.0, 12.0], &[4.0, 1.0]], 3).is_err());
    }

    #[test]
    fn parameters_say_how_many_channels_there_are() {
        let x: ValueType = ValueType::new(DType::F32, [Dim::symbol("N"), Dim::symbol("C"), Dim::symbol("W")]);
        let parameter = ValueType::new(DType::F32, [2usize]);
        let info = |ty| Some(InputInfo { ty, constant: None, extents: None });
        let inputs = [info(&x), info(&parameter), info(&parameter), info(&parameter), info(&parameter)];
        assert_eq!(op(false).infer(&inputs, 1).unwrap()[0].to_string(), "f32[N, 2, W]");
    }

    #[test]
    fn training_uses_the_batch_and_updates() {
        let y = eval(op(true), [&[1.0, 1.0], &[0.0, 0.0], &[4.0, 0.0], &[8.0, 0.0]], 3).unwrap();
        assert_eq!(y[0], [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(y[1], [0.75 * 4.0 + 0.25 * 2.0, 0.25 * 12.0]);
        assert_eq!(y[2], [0.75 * 8.0 + 0.25, 0.25 * 4.0]);
    }

    #[test]
    fn attributes_read_back() {
        let op = BatchNormalization { epsilon: 1e-3, momentum: 0.9, training_mode: true };
        assert_eq!(BatchNormalization::read(op.attributes()), Ok(op));
    }
}
