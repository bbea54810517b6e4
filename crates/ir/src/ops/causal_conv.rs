//! CausalConvWithState: a convolution along time of each channel by itself, which reads what came before.

use super::support::inputs::{at_most, check_dtype, common_dtype, optional, required};
use super::support::values::from_f64s;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// ONNX `CausalConvWithState`: `input [N, C, T], weight [C, 1, k], bias [C]?, past_state [N, C, k-1]? -> output [N, C, T],
/// present_state [N, C, k-1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CausalConvWithState {
    /// What follows, as the attribute spells it: `silu` and `swish` are the same.
    pub activation: CausalActivation,
}

/// What follows the convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CausalActivation {
    /// Nothing.
    None,
    /// `x * sigmoid(x)`, spelled `silu`.
    Silu,
    /// The same, spelled `swish`.
    Swish,
}

const ACTIVATIONS: [(&str, CausalActivation); 3] =
    [("none", CausalActivation::None), ("silu", CausalActivation::Silu), ("swish", CausalActivation::Swish)];

impl CausalConvWithState {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let name = attributes.string("activation")?.unwrap_or_else(|| "none".into());
        let Some((_, activation)) = ACTIVATIONS.iter().find(|(known, _)| *known == name) else {
            let problem = format!("`{name}` is not one of none, silu, swish");
            return Err(Error::attribute("activation", problem));
        };
        attributes.finish("activation")?;
        Ok(Self { activation: *activation })
    }
}

impl Operator for CausalConvWithState {
    fn name(&self) -> &str {
        "CausalConvWithState"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some((name, _)) = ACTIVATIONS[1..].iter().find(|(_, known)| *known == self.activation) {
            attributes.set("activation", *name);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let (x, w) = (required(inputs, 0, "input")?.ty, required(inputs, 1, "weight")?.ty);
        let of = |index: usize| optional(inputs, index).and_then(|input| input.ty.dtype);
        check_dtype(0, "input", x.dtype, DType::is_float, "floats")?;
        let types = [(0, "input", of(0)), (1, "weight", of(1)), (2, "bias", of(2)), (3, "past_state", of(3))];
        let dtype = common_dtype(&types)?;
        let fits = |a: &Dim, b: &Dim| a.equals(b) != Some(false);
        let channels = match x.shape.as_deref() {
            None => Dim::unknown(),
            Some([_, channels, _]) => channels.clone(),
            Some(_) => return Err(Error::input(0, "input", format!("expected [N, C, T], found {x}"))),
        };
        let kernel = match w.shape.as_deref() {
            None => Dim::unknown(),
            Some([c, one, kernel])
                if fits(c, &channels) && fits(one, &1.into()) && kernel.known() != Some(0) =>
            {
                kernel.clone()
            }
            Some(_) => {
                let problem = format!("expected [{channels}, 1, at least 1], found {w}");
                return Err(Error::input(1, "weight", problem));
            }
        };
        if let Some(shape) = optional(inputs, 2).and_then(|bias| bias.ty.shape.as_ref())
            && !matches!(shape.as_slice(), [found] if fits(found, &channels))
        {
            return Err(Error::input(2, "bias", format!("expected [{channels}], found {shape:?}")));
        }
        let before = kernel.sub(&1.into())?;
        let state = x.shape.as_ref().map(|x| vec![x[0].clone(), channels, before]);
        if let (Some(past), Some(state)) =
            (optional(inputs, 3).and_then(|past| past.ty.shape.as_ref()), &state)
            && (past.len() != 3 || !past.iter().zip(state).all(|(a, b)| fits(a, b)))
        {
            return Err(Error::input(3, "past_state", format!("expected {state:?}, found {past:?}")));
        }
        let types = [ValueType { dtype, shape: x.shape.clone() }, ValueType { dtype, shape: state }];
        Ok(types.into_iter().take(outputs.max(1)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let (x, w) = (required(inputs, 0, "input")?, required(inputs, 1, "weight")?);
        let [batch, channels, length] = *x.shape() else {
            return Err(Error::input(0, "input", "expected three axes"));
        };
        let kernel = w.shape()[2];
        let before = kernel.saturating_sub(1);
        element_count(&[batch, channels, length.saturating_add(before)])?;
        let (data, weights) = (x.to_f64s()?, w.to_f64s()?);
        let bias = optional(inputs, 2).map(Tensor::to_f64s).transpose()?;
        let past = optional(inputs, 3).map(Tensor::to_f64s).transpose()?;
        let (mut y, mut state) = (vec![], vec![]);
        for row in 0..batch * channels {
            let channel = row % channels;
            let mut all = match &past {
                Some(past) => past[row * before..][..before].to_vec(),
                None => vec![0.0; before],
            };
            all.extend_from_slice(&data[row * length..][..length]);
            let weights = &weights[channel * kernel..][..kernel];
            for window in all.windows(kernel) {
                let sum: f64 = window.iter().zip(weights).map(|(x, w)| x * w).sum();
                let sum = sum + bias.as_ref().map_or(0.0, |bias| bias[channel]);
                y.push(match self.activation {
                    CausalActivation::None => sum,
                    _ => sum / (1.0 + (-sum).exp()),
                });
            }
            state.extend_from_slice(&all[length..]);
        }
        let results =
            [from_f64s(x.dtype(), x.shape(), &y)?, from_f64s(x.dtype(), &[batch, channels, before], &state)?];
        Ok(results.into_iter().take(outputs.max(1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn run(op: CausalConvWithState, inputs: &[Option<&Tensor>]) -> Result<Vec<Vec<f64>>> {
        assert_eq!(CausalConvWithState::read(op.attributes()), Ok(op));
        Op::from(op).eval(inputs, 2)?.iter().map(Tensor::to_f64s).collect()
    }

    fn tensor(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec()).unwrap()
    }

    const PLAIN: CausalConvWithState = CausalConvWithState { activation: CausalActivation::None };

    #[test]
    fn places_read_what_came_before() {
        let x = tensor(&[1, 2, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let w = tensor(&[2, 1, 2], &[1.0, 10.0, 0.5, 1.0]);
        let b = tensor(&[2], &[0.0, 1.0]);
        let past = tensor(&[1, 2, 1], &[4.0, 2.0]);
        let y = run(PLAIN, &[Some(&x), Some(&w), Some(&b), Some(&past)]).unwrap();
        assert_eq!(y, [vec![14.0, 21.0, 32.0, 12.0, 26.0, 41.0], vec![3.0, 30.0]]);
        let y = run(PLAIN, &[Some(&x), Some(&w)]).unwrap();
        assert_eq!(y[0], [10.0, 21.0, 32.0, 10.0, 25.0, 40.0]);
        // Fewer places than the kernel reaches: what is left of the state moves up.
        let long = tensor(&[2, 1, 5], &[0.0; 10]);
        assert_eq!(run(PLAIN, &[Some(&x), Some(&long)]).unwrap()[1][..4], [0.0, 1.0, 2.0, 3.0]);
        let silu = CausalConvWithState { activation: CausalActivation::Silu };
        let y = run(silu, &[Some(&x), Some(&w)]).unwrap();
        assert!((y[0][0] - 10.0 / (1.0 + (-10f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let x = tensor(&[1, 1, 1], &[1.0]);
        let wide = tensor(&[1, 2, 1], &[1.0; 2]);
        let error = run(PLAIN, &[Some(&x), Some(&wide)]).unwrap_err().to_string();
        assert_eq!(error, "input 1 (weight): expected [1, 1, at least 1], found f64[1, 2, 1]");
        let wrong = Attributes::new().with("activation", "relu");
        assert!(CausalConvWithState::read(wrong).unwrap_err().to_string().contains("none, silu, swish"));
        let none = tensor(&[0, 1, 4], &[]);
        assert_eq!(run(PLAIN, &[Some(&none), Some(&x)]).unwrap(), [vec![], vec![]] as [Vec<f64>; 2]);
    }
}
