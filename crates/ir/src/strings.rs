//! Tensors of strings: each with its length in front, as a protocol buffer has them.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

impl Tensor {
    /// From strings in row-major order; ONNX allows any bytes.
    ///
    /// # Errors
    /// When the number of strings is not the product of `shape`.
    pub fn from_strings<'a>(
        shape: impl Into<Vec<usize>>,
        strings: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self> {
        let (shape, mut packed, mut count) = (shape.into(), vec![], 0);
        for string in strings {
            prost::encoding::encode_varint(string.len() as u64, &mut packed);
            packed.extend_from_slice(string);
            count += 1;
        }
        if element_count(&shape)? != count {
            return Err(Error::Size(format!("{count} strings do not fill a tensor of shape {shape:?}")));
        }
        Self::from_bytes(DType::String, shape, packed)
    }

    /// The elements of a string tensor.
    ///
    /// # Errors
    /// When the element type is another, or the bytes are not those of as many strings as the shape says.
    pub fn strings(&self) -> Result<Vec<&[u8]>> {
        if self.dtype() != DType::String {
            return Err(Error::Type(format!("expected a str tensor, found {}", self.dtype())));
        }
        let (mut rest, mut strings) = (self.bytes(), vec![]);
        while let Ok(length) = prost::encoding::decode_varint(&mut rest) {
            let Some((string, tail)) = usize::try_from(length).ok().and_then(|at| rest.split_at_checked(at))
            else {
                break;
            };
            strings.push(string);
            rest = tail;
        }
        if strings.len() == self.len() && rest.is_empty() {
            return Ok(strings);
        }
        Err(Error::Type(format!("{} strings in a tensor of shape {:?}", strings.len(), self.shape())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn strings_read_back() {
        let texts: [&[u8]; 4] = [b"", b"ab", &[0xff, 0x00], &[b'x'; 300]];
        let tensor = Tensor::from_strings([2, 2], texts).unwrap();
        assert_eq!(tensor.strings().unwrap(), texts);
        assert!(Tensor::from_strings([3], texts).is_err());
        assert!(Tensor::scalar(1f32).strings().is_err());
        let broken = Tensor::from_shared(DType::String, vec![1], Arc::new(vec![9u8, b'a']), 0).unwrap();
        assert!(broken.strings().is_err());
        assert!(Tensor::from_strings([0], []).unwrap().strings().unwrap().is_empty());
    }
}
