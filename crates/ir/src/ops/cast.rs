//! Changes of element type: Cast and CastLike.

use super::support::inputs::{at_most, extents, required, unwrapped};
use super::support::number::Scalar;
use super::support::values::{from_scalars, scalars, short_from_scalars};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::packed::{self, PowerRounding};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use half::{bf16, f16};

/// ONNX `Cast`: `input -> output` of type `to`.
///
/// Integers wrap into shorter ones. Floats become integers by truncation; what lies outside saturates and NaN is 0, where
/// ONNX leaves both open. Anything but 0 is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// Element type of the output.
    pub to: DType,
    /// What happens outside the range of short floats.
    pub rounding: ShortRounding,
}

/// How numbers become floats of at most 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortRounding {
    /// What lies outside the range becomes the largest number, not infinity or NaN.
    pub saturate: bool,
    /// Between powers of two (f8e8m0).
    pub power: PowerRounding,
}

impl Default for ShortRounding {
    fn default() -> Self {
        Self { saturate: true, power: PowerRounding::Up }
    }
}

/// ONNX `CastLike`: `input, target_type -> output` of the second input's element type. As [`Cast`] otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CastLike {
    /// What happens outside the range of short floats.
    pub rounding: ShortRounding,
}

/// The tensor with its elements in another type.
///
/// # Errors
/// For element types that are not numbers or truth values.
pub(super) fn cast(input: &Tensor, to: DType) -> Result<Tensor> {
    cast_rounded(input, to, ShortRounding::default())
}

fn cast_rounded(input: &Tensor, to: DType, rounding: ShortRounding) -> Result<Tensor> {
    if input.dtype() == to {
        return Ok(input.clone());
    }
    if let Some(wide) = widened(input, to)? {
        return Ok(wide);
    }
    let unsupported = |_| Error::Unsupported(format!("a cast from {} to {to}", input.dtype()));
    let values = scalars(input).map_err(unsupported)?;
    if to == DType::Bool {
        let truth = |value| value != Scalar::Int(0) && value != Scalar::Float(0.0);
        return Tensor::from_bools(input.shape(), values.into_iter().map(truth));
    }
    if packed::is_short(to) {
        return short_from_scalars(to, input.shape(), &values, rounding.saturate, rounding.power);
    }
    from_scalars(to, input.shape(), &values)
        .map_err(|error| if to.is_numeric() { error } else { unsupported(error) })
}

/// Numbers of few bits in f32, which holds all of them: the weights of whole networks, element by element without detours.
fn widened(input: &Tensor, to: DType) -> Result<Option<Tensor>> {
    macro_rules! widen {
        ($($ty:ty),*) => {
            match input.dtype() {
                $(<$ty as Element>::DTYPE => {
                    let elements = input.elements::<$ty>()?;
                    let wide = elements.iter().map(|&element| f32::from(element)).collect::<Vec<f32>>();
                    Ok(Some(Tensor::from_vec(input.shape(), wide)?))
                })*
                _ => Ok(None),
            }
        };
    }
    if to != DType::F32 {
        return Ok(None);
    }
    widen!(f16, bf16, i8, u8, i16, u16)
}

const POWERS: [(&str, PowerRounding); 3] =
    [("up", PowerRounding::Up), ("down", PowerRounding::Down), ("nearest", PowerRounding::Nearest)];

impl ShortRounding {
    fn read(attributes: &mut Attributes) -> Result<Self> {
        let saturate = attributes.flag("saturate", true)?;
        let power = match attributes.string("round_mode")? {
            None => PowerRounding::Up,
            Some(mode) => match POWERS.iter().find(|(name, _)| *name == mode) {
                Some((_, power)) => *power,
                None => {
                    let problem = format!("`{mode}` is not one of up, down, nearest");
                    return Err(Error::attribute("round_mode", problem));
                }
            },
        };
        Ok(Self { saturate, power })
    }

    fn write(self) -> Attributes {
        let mut attributes = Attributes::new();
        if !self.saturate {
            attributes.set("saturate", false);
        }
        if let Some((name, _)) = POWERS[1..].iter().find(|(_, power)| *power == self.power) {
            attributes.set("round_mode", *name);
        }
        attributes
    }
}

/// Extents survive a cast to an integer type.
fn cast_extents(inputs: &[Option<InputInfo<'_>>], to: Option<DType>) -> Option<Vec<Dim>> {
    to.filter(|to| matches!(to, DType::I64 | DType::I32))?;
    unwrapped(extents(inputs.first()?.as_ref()?)?, to)
}

impl Cast {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let to = attributes.dtype("to")?.ok_or_else(|| Error::attribute("to", "is required"))?;
        let rounding = ShortRounding::read(&mut attributes)?;
        attributes.finish("round_mode, saturate, to")?;
        Ok(Self { to, rounding })
    }
}

impl Operator for Cast {
    fn name(&self) -> &str {
        "Cast"
    }

    fn attributes(&self) -> Attributes {
        self.rounding.write().with("to", self.to)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?;
        Ok(vec![ValueType { dtype: Some(self.to), shape: input.ty.shape.clone() }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        cast_extents(inputs, Some(self.to))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 1)?;
        Ok(vec![cast_rounded(required(inputs, 0, "input")?, self.to, self.rounding)?])
    }
}

impl CastLike {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let rounding = ShortRounding::read(&mut attributes)?;
        attributes.finish("round_mode, saturate")?;
        Ok(Self { rounding })
    }
}

impl Operator for CastLike {
    fn name(&self) -> &str {
        "CastLike"
    }

    fn attributes(&self) -> Attributes {
        self.rounding.write()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (input, target) = (required(inputs, 0, "input")?, required(inputs, 1, "target_type")?);
        Ok(vec![ValueType { dtype: target.ty.dtype, shape: input.ty.shape.clone() }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        cast_extents(inputs, inputs.get(1)?.as_ref()?.ty.dtype)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 2)?;
        let target = required(inputs, 1, "target_type")?;
        Ok(vec![cast_rounded(required(inputs, 0, "input")?, target.dtype(), self.rounding)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_convert_without_detours() {
        let wide = Tensor::from_vec([2], vec![i64::MAX, -1]).unwrap();
        assert_eq!(
            cast(&wide, DType::U64).unwrap(),
            Tensor::from_vec([2], vec![i64::MAX as u64, u64::MAX]).unwrap()
        );
        assert_eq!(cast(&wide, DType::I8).unwrap(), Tensor::from_vec([2], vec![-1i8, -1]).unwrap());
        // Between two f32 and just above the middle: by way of f64 it would round to even, down.
        let odd = Tensor::from_vec([1], vec![(1i64 << 60) + (1 << 36) + 1]).unwrap();
        let up = Tensor::from_vec([1], vec![((1i64 << 60) + (1 << 37)) as f32]).unwrap();
        assert_eq!(cast(&odd, DType::F32).unwrap(), up);
        let reals = Tensor::from_vec([4], vec![-1.9f32, 300.0, f32::NAN, -0.0]).unwrap();
        assert_eq!(cast(&reals, DType::U8).unwrap(), Tensor::from_vec([4], vec![0u8, 255, 0, 0]).unwrap());
        assert_eq!(cast(&reals, DType::I32).unwrap(), Tensor::from_vec([4], vec![-1, 300, 0, 0]).unwrap());
        assert_eq!(
            cast(&reals, DType::Bool).unwrap(),
            Tensor::from_bools([4], [true, true, true, false]).unwrap()
        );
        let truth = Tensor::from_bools([2], [true, false]).unwrap();
        let halves = Tensor::from_vec([2], vec![f16::ONE, f16::ZERO]).unwrap();
        assert_eq!(cast(&truth, DType::F16).unwrap(), halves);
    }

    /// The half crate's own conversion of f64 drops what lies behind 20 bits of the fraction.
    #[test]
    fn short_floats_see_all_bits_of_what_they_round() {
        let above = f32::from_bits(0x0020_8001);
        let x = Tensor::from_vec([2], vec![above, f32::from_bits(0x3f80_8001)]).unwrap();
        assert_eq!(cast(&x, DType::BF16).unwrap().bytes(), [0x21, 0, 0x81, 0x3f]);
        let x = Tensor::from_vec([1], vec![1.0 + 2f64.powi(-11) + 2f64.powi(-40)]).unwrap();
        assert_eq!(cast(&x, DType::F16).unwrap().to_f64s().unwrap(), [1.0 + 2f64.powi(-10)]);
    }

    #[test]
    fn attributes_read_back_and_other_types_are_refused() {
        let rounding = ShortRounding { saturate: false, power: PowerRounding::Nearest };
        let op = Cast { to: DType::BF16, rounding };
        assert_eq!(Cast::read(op.attributes()), Ok(op));
        assert!(Cast::read(Attributes::new()).is_err());
        let x = Tensor::scalar(1f32);
        let error = cast(&x, DType::C64).unwrap_err();
        assert_eq!(error, Error::Unsupported("a cast from f32 to c64".into()));
        let attributes = Attributes::new().with("to", DType::F32).with("round_mode", "sideways");
        let error = Cast::read(attributes).unwrap_err().to_string();
        assert_eq!(error, "attribute `round_mode`: `sideways` is not one of up, down, nearest");
    }

    #[test]
    fn short_types_convert_both_ways() {
        let x = Tensor::from_vec([5], vec![0.3f32, -1.0, 500.0, -0.0, f32::NAN]).unwrap();
        let short = cast(&x, DType::F8E4M3FN).unwrap();
        assert_eq!(short.bytes(), [0x2a, 0xb8, 0x7e, 0x80, 0x7f]);
        let back = cast(&short, DType::F32).unwrap().to_f64s().unwrap();
        assert_eq!(back[..4], [0.3125, -1.0, 448.0, 0.0]);
        assert!(back[4].is_nan());
        let strict = ShortRounding { saturate: false, power: PowerRounding::Up };
        assert_eq!(cast_rounded(&x, DType::F8E5M2, strict).unwrap().bytes()[2], 0x60);
        let wide = Tensor::from_vec([3], vec![9i64, -3, 16]).unwrap();
        assert_eq!(cast(&wide, DType::I4).unwrap().bytes(), [0xd9, 0x00]);
        assert_eq!(cast(&cast(&wide, DType::I4).unwrap(), DType::I8).unwrap().bytes(), [0xf9, 0xfd, 0]);
        assert_eq!(cast(&wide, DType::U2).unwrap().bytes(), [0b01_01]);
        assert!(cast(&Tensor::zeros(DType::F32, [0]).unwrap(), DType::F6E2M3).unwrap().is_empty());
    }
}
