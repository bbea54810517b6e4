//! One step of a recurrent cell, and the activations that ONNX allows in it.

use super::Unary;
use super::rnn::Cell;
use crate::error::{Error, Result};

/// An activation of a recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    Unary(Unary),
    /// `alpha * x + beta`.
    Affine {
        alpha: f64,
        beta: f64,
    },
    /// `alpha * tanh(beta * x)`.
    ScaledTanh {
        alpha: f64,
        beta: f64,
    },
}

impl Activation {
    /// By ONNX's name in any case; each takes the parameters that it has from `alpha` and `beta`.
    pub(super) fn parse(
        name: &str,
        mut alpha: impl FnMut() -> Option<f32>,
        mut beta: impl FnMut() -> Option<f32>,
    ) -> Result<Self> {
        let (mut a, mut b) = (|default| alpha().unwrap_or(default), |default| beta().unwrap_or(default));
        let unary = match name.to_ascii_lowercase().as_str() {
            "relu" => Unary::Relu,
            "tanh" => Unary::Tanh,
            "sigmoid" => Unary::Sigmoid,
            "softsign" => Unary::Softsign,
            "softplus" => Unary::Softplus,
            "leakyrelu" => Unary::LeakyRelu { alpha: a(0.01) },
            "thresholdedrelu" => Unary::ThresholdedRelu { alpha: a(1.0) },
            "elu" => Unary::Elu { alpha: a(1.0) },
            "hardsigmoid" => Unary::HardSigmoid { alpha: a(0.2), beta: b(0.5) },
            "affine" => return Ok(Self::Affine { alpha: a(1.0).into(), beta: b(0.0).into() }),
            "scaledtanh" => return Ok(Self::ScaledTanh { alpha: a(1.0).into(), beta: b(1.0).into() }),
            _ => {
                return Err(Error::attribute(
                    "activations",
                    format!(
                        "`{name}` is not one of Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, \
                         Softplus, Softsign, Tanh, ThresholdedRelu"
                    ),
                ));
            }
        };
        Ok(Self::Unary(unary))
    }

    fn apply(self, x: f64) -> f64 {
        match self {
            Self::Unary(unary) => unary.apply(x),
            Self::Affine { alpha, beta } => alpha * x + beta,
            Self::ScaledTanh { alpha, beta } => alpha * (beta * x).tanh(),
        }
    }
}

/// The weights of one direction.
pub(super) struct Direction {
    pub(super) cell: Cell,
    /// `[G*H, I]`.
    pub(super) w: Vec<f64>,
    /// `[G*H, H]`.
    pub(super) r: Vec<f64>,
    /// `[2*G*H]`: that of `w`, then that of `r`.
    pub(super) bias: Vec<f64>,
    /// `[3*H]`, for the gates input, output, forget.
    pub(super) peepholes: Vec<f64>,
    pub(super) functions: Vec<Activation>,
    pub(super) clip: Option<f64>,
}

/// `matrix * vector`, row by row.
fn multiply<'a>(matrix: &'a [f64], vector: &'a [f64], rows: usize) -> impl Iterator<Item = f64> + 'a {
    let length = vector.len();
    let row = move |row: usize| &matrix[row * length..][..length];
    (0..rows).map(move |i| row(i).iter().zip(vector).map(|(a, b)| a * b).sum())
}

impl Direction {
    /// Advances the states by an input.
    pub(super) fn step(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let (hidden, rows) = (h.len(), self.cell.gates() * h.len());
        let (w_bias, r_bias) = self.bias.split_at(rows);
        let from_x: Vec<f64> = multiply(&self.w, x, rows).zip(w_bias).map(|(x, b)| x + b).collect();
        let from_h: Vec<f64> = multiply(&self.r, h, rows).zip(r_bias).map(|(x, b)| x + b).collect();
        let both = |gate: usize, j: usize| from_x[gate * hidden + j] + from_h[gate * hidden + j];
        let function = |which: usize, x: f64| {
            let x = self.clip.map_or(x, |clip| x.clamp(-clip.abs(), clip.abs()));
            self.functions.get(which).map_or(x, |function| function.apply(x))
        };
        match self.cell {
            Cell::Rnn => {
                for (j, h) in h.iter_mut().enumerate() {
                    *h = function(0, both(0, j));
                }
            }
            Cell::Gru { linear_before_reset } => {
                let update: Vec<f64> = (0..hidden).map(|j| function(0, both(0, j))).collect();
                let reset: Vec<f64> = (0..hidden).map(|j| function(0, both(1, j))).collect();
                let candidates: Vec<f64> = if linear_before_reset {
                    (0..hidden).map(|j| reset[j] * from_h[2 * hidden + j]).collect()
                } else {
                    let kept: Vec<f64> = reset.iter().zip(h.iter()).map(|(reset, h)| reset * h).collect();
                    let behind = &self.r[2 * hidden * hidden..];
                    multiply(behind, &kept, hidden).zip(&r_bias[2 * hidden..]).map(|(x, b)| x + b).collect()
                };
                for (j, h) in h.iter_mut().enumerate() {
                    let candidate = function(1, from_x[2 * hidden + j] + candidates[j]);
                    *h = (1.0 - update[j]) * candidate + update[j] * *h;
                }
            }
            Cell::Lstm { input_forget } => {
                for (j, (h, c)) in h.iter_mut().zip(c).enumerate() {
                    let peephole = |gate: usize, c: f64| self.peepholes[gate * hidden + j] * c;
                    let input = function(0, both(0, j) + peephole(0, *c));
                    let forget =
                        if input_forget { 1.0 - input } else { function(0, both(2, j) + peephole(2, *c)) };
                    *c = forget * *c + input * function(1, both(3, j));
                    let output = function(0, both(1, j) + peephole(1, *c));
                    *h = output * function(2, *c);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_to_those_that_have_them() {
        let mut alphas = [3.0, 4.0].into_iter();
        let mut parse = |name: &str| Activation::parse(name, || alphas.next(), || Some(0.25));
        assert_eq!(parse("tanh"), Ok(Activation::Unary(Unary::Tanh)));
        assert_eq!(parse("Elu"), Ok(Activation::Unary(Unary::Elu { alpha: 3.0 })));
        assert_eq!(parse("Affine").map(|affine| affine.apply(2.0)), Ok(8.25));
        assert!(parse("Gelu").is_err());
    }

    #[test]
    fn peepholes_and_clip_take_part() {
        let direction = Direction {
            cell: Cell::Lstm { input_forget: false },
            w: vec![0.0; 4],
            r: vec![0.0; 4],
            bias: vec![0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0],
            peepholes: vec![1.0, 2.0, 3.0],
            functions: [1.0; 3].map(|alpha| Activation::Affine { alpha, beta: 0.0 }).to_vec(),
            clip: Some(4.0),
        };
        let (mut h, mut c) = ([0.0], [0.5]);
        direction.step(&[0.0], &mut h, &mut c);
        // input 0.5, forget 1.5, candidate clipped to 4; then output twice the new state, clipped.
        assert_eq!(c, [1.5 * 0.5 + 0.5 * 4.0]);
        assert_eq!(h, [4.0 * 2.75]);
    }
}
