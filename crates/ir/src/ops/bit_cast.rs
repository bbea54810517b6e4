//! BitCast: the same bits as another type.

use super::support::inputs::{at_most, check_dtype, required};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;
use std::sync::Arc;

/// ONNX `BitCast`: `input -> output` of type `to`, which takes as many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitCast {
    /// Element type of the output.
    pub to: DType,
}

impl BitCast {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let to = attributes.dtype("to")?.ok_or_else(|| Error::attribute("to", "is required"))?;
        attributes.finish("to")?;
        if to == DType::String {
            return Err(Error::attribute("to", "strings have no bits of their own"));
        }
        Ok(Self { to })
    }
}

impl Operator for BitCast {
    fn name(&self) -> &str {
        "BitCast"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new().with("to", self.to)
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let input = required(inputs, 0, "input")?.ty;
        let same = |dtype: DType| dtype.bits() == self.to.bits();
        let what = format!("a type of {} bits as {} has", self.to.bits(), self.to);
        check_dtype(0, "input", input.dtype, same, &what)?;
        Ok(vec![ValueType { dtype: Some(self.to), shape: input.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let input = required(inputs, 0, "input")?;
        let bytes = Arc::new(input.bytes().to_vec());
        Ok(vec![Tensor::from_shared(self.to, input.shape().to_vec(), bytes, 0)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    #[test]
    fn bits_stay() {
        let x = Tensor::from_vec([2], vec![1.0f32, -0.0]).unwrap();
        let y = Op::from(BitCast { to: DType::U32 }).eval(&[Some(&x)], 1).unwrap().remove(0);
        assert_eq!(y, Tensor::from_vec([2], vec![0x3f80_0000u32, 0x8000_0000]).unwrap());
        let back = Op::from(BitCast { to: DType::F32 }).eval(&[Some(&y)], 1).unwrap().remove(0);
        assert_eq!(back, x);
    }

    #[test]
    fn other_widths_are_named() {
        let x = Tensor::scalar(1f32);
        let error = Op::from(BitCast { to: DType::F16 }).eval(&[Some(&x)], 1).unwrap_err().to_string();
        assert_eq!(error, "input 0 (input): expected a type of 16 bits as f16 has, found f32");
        let wrong = Attributes::new().with("to", DType::String);
        assert!(BitCast::read(wrong).is_err());
        assert!(BitCast::read(Attributes::new()).is_err());
    }
}
