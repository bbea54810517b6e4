//! Elementwise operators of one input: activations and functions.

use super::{InputInfo, Operator};
use crate::attributes::{AttributeValue, Attributes};
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

macro_rules! unary {
    ($($variant:ident $({ $($field:ident = $default:expr),* })?),* $(,)?) => {
        /// An elementwise operator of one input. Parameters are ONNX's, with ONNX's defaults.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[non_exhaustive]
        pub enum Unary {
            $(
                #[doc = concat!("ONNX `", stringify!($variant), "`; `Clamp` is `Clip` with constant bounds, `GeluTanh` is `Gelu` by tanh, `FakeQuantize` is `QuantizeLinear` and `DequantizeLinear` in one: `scale * clamp(round(x / scale), low, high)`, the quotient in f32, NaN to 0.")]
                $variant $({ $(
                    #[doc = concat!("ONNX attribute `", stringify!($field), "`.")]
                    $field: f32
                ),* })?,
            )*
        }

        impl Unary {
            /// Every unary operator, with ONNX's default parameters.
            pub const ALL: &[Self] = &[$(Self::$variant $({ $($field: $default),* })?),*];

            /// ONNX's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant { .. } => stringify!($variant),)* }
            }

            /// Parameters by name, those at their default as well.
            pub fn parameters(self) -> Vec<(&'static str, f32)> {
                match self { $(Self::$variant $({ $($field),* })? => vec![$($((stringify!($field), $field)),*)?],)* }
            }

            fn with_parameters(name: &str, mut get: impl FnMut(&'static str, f32) -> Result<f32>) -> Result<Option<Self>> {
                let _ = &mut get;
                Ok(Some(match name {
                    $(stringify!($variant) => Self::$variant $({ $($field: get(stringify!($field), $default)?),* })?,)*
                    _ => return Ok(None),
                }))
            }
        }
    };
}

unary! {
    Relu, LeakyRelu { alpha = 0.01 }, ThresholdedRelu { alpha = 1.0 }, Elu { alpha = 1.0 },
    Selu { alpha = 1.673_263_2, gamma = 1.050_701 }, Celu { alpha = 1.0 },
    Clamp { min = f32::NEG_INFINITY, max = f32::INFINITY },
    Sigmoid, Tanh, HardSigmoid { alpha = 0.2, beta = 0.5 }, HardSwish, Softplus, Softsign, Mish, Swish { alpha = 1.0 },
    Gelu, GeluTanh, Erf, Exp, Log, Sqrt, Reciprocal, Neg, Abs, Sign, Floor, Ceil, Round,
    Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh,
    Shrink { bias = 0.0, lambd = 0.5 },
    FakeQuantize { scale = 1.0, low = -128.0, high = 127.0 },
    Not, BitwiseNot, IsNaN, IsInf { detect_negative = 1.0, detect_positive = 1.0 },
}

impl Unary {
    /// Reads the operator of that name; `Ok(None)` when the name is no unary operator's.
    ///
    /// # Errors
    /// When an attribute is unknown or no float.
    pub fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let name = match name {
            "Gelu" => match attributes.string("approximate")?.as_deref() {
                None | Some("none") => "Gelu",
                Some("tanh") => "GeluTanh",
                Some(other) => {
                    return Err(Error::attribute(
                        "approximate",
                        format!("expected none or tanh, found {other}"),
                    ));
                }
            },
            name => name,
        };
        let read = Self::with_parameters(name, |parameter, default| {
            if is_flag(parameter) {
                return Ok(f32::from(u8::from(attributes.flag(parameter, default != 0.0)?)));
            }
            Ok(attributes.float(parameter)?.unwrap_or(default))
        })?;
        if let Some(op) = read {
            let names: Vec<&str> = op.parameters().into_iter().map(|(name, _)| name).collect();
            attributes.finish(if names.is_empty() {
                "none"
            } else {
                "alpha, beta, gamma, bias, lambd, min, max, scale, low, high, detect_negative, detect_positive where the operator has them"
            })?;
        }
        Ok(read)
    }

    /// On one line, `LeakyRelu(0.1)`: the name, then the parameters by position unless all are at their default.
    pub fn spell(self) -> String {
        let parameters = self.parameters();
        if parameters.is_empty() || Self::ALL.contains(&self) {
            return self.name().to_owned();
        }
        let values: Vec<String> = parameters.iter().map(|(_, value)| format!("{value:?}")).collect();
        format!("{}({})", self.name(), values.join(", "))
    }

    /// From the form of [`Unary::spell`].
    pub fn parse(text: &str) -> Option<Self> {
        let (name, values) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => {
                let values: Vec<f32> = rest
                    .strip_suffix(')')?
                    .split(',')
                    .map(|value| value.trim().parse().ok())
                    .collect::<Option<_>>()?;
                (name, Some(values))
            }
        };
        let mut next = 0;
        let parsed = Self::with_parameters(name, |_, default| {
            next += 1;
            Ok(values
                .as_ref()
                .map_or(Some(default), |values| values.get(next - 1).copied())
                .unwrap_or(f32::NAN))
        });
        let op = parsed.ok()??;
        let complete = values.is_none_or(|values| values.len() == next);
        complete.then_some(op)
    }

    /// The function, in f64.
    pub fn apply(self, x: f64) -> f64 {
        let f = f64::from;
        match self {
            // Comparisons are written so that NaN passes through.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::LeakyRelu { alpha } => {
                if x < 0.0 {
                    f(alpha) * x
                } else {
                    x
                }
            }
            Self::ThresholdedRelu { alpha } => {
                if x > f(alpha) {
                    x
                } else {
                    0.0
                }
            }
            Self::Elu { alpha } => {
                if x < 0.0 {
                    f(alpha) * x.exp_m1()
                } else {
                    x
                }
            }
            Self::Selu { alpha, gamma } => f(gamma) * if x <= 0.0 { f(alpha) * x.exp_m1() } else { x },
            Self::Celu { alpha } => {
                if x < 0.0 {
                    f(alpha) * (x / f(alpha)).exp_m1()
                } else {
                    x
                }
            }
            Self::Clamp { min, max } => {
                let low = if x < f(min) { f(min) } else { x };
                if low > f(max) { f(max) } else { low }
            }
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::HardSigmoid { alpha, beta } => {
                Self::Clamp { min: 0.0, max: 1.0 }.apply(f(alpha) * x + f(beta))
            }
            Self::HardSwish => x * Self::Clamp { min: 0.0, max: 1.0 }.apply(x / 6.0 + 0.5),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Mish => x * softplus(x).tanh(),
            Self::Swish { alpha } => x * sigmoid(f(alpha) * x),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::Erf => erf(x),
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Reciprocal => x.recip(),
            Self::Neg => -x,
            Self::Abs => x.abs(),
            Self::Sign => {
                if x == 0.0 {
                    0.0
                } else if x.is_nan() {
                    x
                } else {
                    x.signum()
                }
            }
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
            Self::Round => x.round_ties_even(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Tan => x.tan(),
            Self::Asin => x.asin(),
            Self::Acos => x.acos(),
            Self::Atan => x.atan(),
            Self::Sinh => x.sinh(),
            Self::Cosh => x.cosh(),
            Self::Asinh => x.asinh(),
            Self::Acosh => x.acosh(),
            Self::Atanh => x.atanh(),
            Self::Shrink { bias, lambd } => {
                let (bias, lambd) = (f(bias), f(lambd));
                if x < -lambd {
                    x + bias
                } else if x > lambd {
                    x - bias
                } else {
                    0.0
                }
            }
            Self::FakeQuantize { scale, low, high } => {
                let quotient = x as f32 / scale;
                // No zero has a sign: integers lie between the two operators.
                let steps = if quotient.is_nan() { 0.0 } else { quotient.round_ties_even() + 0.0 };
                let low = if steps < low { low } else { steps };
                f(if low > high { high } else { low }) * f(scale)
            }
            Self::Not => f64::from(u8::from(x == 0.0)),
            Self::BitwiseNot => -x - 1.0,
            Self::IsNaN => f64::from(u8::from(x.is_nan())),
            Self::IsInf { detect_negative, detect_positive } => {
                let wanted = if x > 0.0 { detect_positive } else { detect_negative };
                f64::from(u8::from(x.is_infinite() && wanted != 0.0))
            }
        }
    }

    /// Element type of the output for an input of that type.
    ///
    /// # Errors
    /// When the operator does not take that type.
    pub fn output_dtype(self, input: DType) -> Result<DType> {
        let wrong =
            |accepted: &str| Err(Error::Type(format!("{} takes {accepted}, not {input}", self.name())));
        match self {
            Self::Not if input != DType::Bool => wrong("bool"),
            Self::Not => Ok(DType::Bool),
            Self::IsNaN | Self::IsInf { .. } if !input.is_float() => wrong("floats"),
            Self::IsNaN | Self::IsInf { .. } => Ok(DType::Bool),
            Self::BitwiseNot if !input.is_integer() => wrong("integers"),
            Self::BitwiseNot => Ok(input),
            Self::Relu | Self::Neg | Self::Abs | Self::Sign | Self::Shrink { .. } | Self::Clamp { .. }
                if !input.is_numeric() =>
            {
                wrong("numbers")
            }
            Self::Relu | Self::Neg | Self::Abs | Self::Sign | Self::Shrink { .. } | Self::Clamp { .. } => {
                Ok(input)
            }
            _ if !input.is_float() => wrong("floats"),
            _ => Ok(input),
        }
    }
}

/// Parameters that ONNX has as integers 0 and 1.
fn is_flag(parameter: &str) -> bool {
    parameter.starts_with("detect_")
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function by its series near zero and its continued fraction beyond; to about 1e-15.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a.is_nan() {
        x
    } else if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        // erfc(a) = exp(-a^2)/sqrt(pi) * 1/(a + (1/2)/(a + 1/(a + (3/2)/(a + ..))))
        let mut tail = a;
        for n in (1..=60).rev() {
            tail = a + f64::from(n) / 2.0 / tail;
        }
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

impl Operator for Unary {
    fn name(&self) -> &str {
        Self::name(*self)
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let default = Self::ALL
            .iter()
            .find(|op| op.name() == self.name())
            .map(|op| op.parameters())
            .unwrap_or_default();
        for ((name, value), (_, default)) in self.parameters().into_iter().zip(default) {
            if value != default {
                let flag = AttributeValue::Int(value as i64);
                attributes.set(name, if is_flag(name) { flag } else { AttributeValue::Float(value) });
            }
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let [Some(input)] = inputs else {
            return Err(Error::input(0, "X", format!("one input is expected, {} are there", inputs.len())));
        };
        let dtype = input.ty.dtype.map(|dtype| self.output_dtype(dtype)).transpose()?;
        Ok(vec![ValueType { dtype, shape: input.ty.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let [Some(input)] = inputs else {
            return Err(Error::input(0, "X", format!("one input is expected, {} are there", inputs.len())));
        };
        let output = self.output_dtype(input.dtype())?;
        let shape = input.shape().to_vec();
        if output == DType::Bool {
            let truth = input.to_f64s()?.into_iter().map(|x| self.apply(x) != 0.0);
            return Ok(vec![Tensor::from_bools(shape, truth)?]);
        }
        if input.dtype().is_integer() {
            return Ok(vec![self.eval_integer(input)?]);
        }
        dispatch_numeric!(input.dtype(), T => {
            let data = input.elements::<T>()?.iter().map(|&x| T::from_f64(self.apply(x.to_f64()))).collect();
            Ok(vec![Tensor::from_vec(shape, data)?])
        })
    }
}

impl Unary {
    /// Integers stay integers: a detour over f64 would lose bits of 64-bit ones.
    fn eval_integer(self, input: &Tensor) -> Result<Tensor> {
        macro_rules! integers {
            ($($ty:ident),*) => {
                match input.dtype() {
                    $(dtype if dtype == <$ty as Element>::DTYPE => {
                        let f = |x: $ty| -> $ty {
                            #[allow(unused_comparisons, reason = "one macro for signed and unsigned types")]
                            match self {
                                Self::Relu => x.max(0),
                                Self::Neg => x.wrapping_neg(),
                                Self::Abs => if x < 0 { x.wrapping_neg() } else { x },
                                Self::Sign => if x > 0 { 1 } else if x == 0 { 0 } else { (0 as $ty).wrapping_sub(1) },
                                Self::BitwiseNot => !x,
                                other => <$ty as Element>::from_f64(other.apply(x.to_f64())),
                            }
                        };
                        Tensor::from_vec(input.shape(), input.elements::<$ty>()?.iter().map(|&x| f(x)).collect())
                    })*
                    other => Err(Error::Type(format!("{} does not take {other}", self.name()))),
                }
            };
        }
        integers!(u8, i8, u16, i16, u32, i32, u64, i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_parses_back() {
        for &op in Unary::ALL {
            assert_eq!(Unary::parse(&op.spell()), Some(op));
            assert_eq!(Unary::read(op.name(), Operator::attributes(&op)), Ok(Some(op)));
        }
        let op = Unary::Clamp { min: -0.1, max: f32::INFINITY };
        assert_eq!(op.spell(), "Clamp(-0.1, inf)");
        assert_eq!(Unary::parse(&op.spell()), Some(op));
        let op = Unary::IsInf { detect_negative: 0.0, detect_positive: 1.0 };
        assert_eq!(Unary::read("IsInf", Operator::attributes(&op)), Ok(Some(op)));
        assert_eq!(op.apply(f64::NEG_INFINITY), 0.0);
        let tanh = Attributes::new().with("approximate", "tanh");
        assert_eq!(Unary::read("Gelu", tanh), Ok(Some(Unary::GeluTanh)));
        assert_eq!(Unary::parse("LeakyRelu(1, 2)"), None);
        assert_eq!(Unary::parse("Relu(1)"), None);
    }

    #[test]
    fn erf_matches_known_values() {
        for (x, y) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.4, 0.999_311_486_103_354_9),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - y).abs() < 1e-14, "{x}");
            assert_eq!(erf(-x), -erf(x));
        }
    }

    #[test]
    fn nan_passes_through() {
        for op in [
            Unary::Relu,
            Unary::Clamp { min: 0.0, max: 6.0 },
            Unary::LeakyRelu { alpha: 0.1 },
            Unary::HardSwish,
            Unary::Sign,
        ] {
            assert!(op.apply(f64::NAN).is_nan(), "{op:?}");
        }
    }

    #[test]
    fn integers_keep_all_bits() {
        let x = Tensor::from_vec([2], vec![i64::MIN + 1, -3]).unwrap();
        let y = Unary::Abs.eval(&[Some(&x)], 1).unwrap();
        assert_eq!(y[0].to_i64s().unwrap(), vec![i64::MAX, 3]);
    }
}
