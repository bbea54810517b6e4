//! Moving elements of any type: bytes are copied, never read as numbers. Which element goes where is the caller's.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::packed;
use crate::tensor::{Tensor, element_count};
use std::borrow::Cow;

/// Elements of one type as bytes, the same number for each; elements of less than a byte take one each.
#[derive(Debug, Clone)]
pub(super) struct Raw<'a> {
    dtype: DType,
    size: usize,
    bytes: Cow<'a, [u8]>,
}

fn size_of_element(dtype: DType) -> Result<usize> {
    match dtype.bits() {
        0 => Err(Error::Unsupported(format!("moving the elements of a {dtype} tensor"))),
        bits => Ok(bits.div_ceil(8)),
    }
}

impl<'a> Raw<'a> {
    /// The elements of a tensor.
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (dtype, size) = (tensor.dtype(), size_of_element(tensor.dtype())?);
        let bytes =
            if dtype.bits() < 8 { Cow::Owned(packed::codes(tensor)) } else { Cow::Borrowed(tensor.bytes()) };
        Ok(Self { dtype, size, bytes })
    }

    /// `count` elements that are all zero.
    pub(super) fn zeros(dtype: DType, count: usize) -> Result<Raw<'static>> {
        let size = size_of_element(dtype)?;
        element_count(&[count, size])?;
        Ok(Raw { dtype, size, bytes: Cow::Owned(vec![0; count * size]) })
    }

    /// `count` copies of the only element of a tensor.
    pub(super) fn repeat(element: &Tensor, count: usize) -> Result<Raw<'static>> {
        let one = Raw::of(element)?;
        element_count(&[count, one.size])?;
        Ok(Raw { dtype: one.dtype, size: one.size, bytes: Cow::Owned(one.get(0).repeat(count)) })
    }

    /// Element number `index` in row-major order.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.size..][..self.size]
    }

    /// Replaces element number `index` by one of the same type.
    pub(super) fn set(&mut self, index: usize, element: &[u8]) {
        let size = self.size;
        self.bytes.to_mut()[index * size..][..size].copy_from_slice(element);
    }

    /// The elements as a tensor.
    pub(super) fn into_tensor(self, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let shape = shape.into();
        if element_count(&shape)? != self.bytes.len() / self.size {
            return Err(Error::Size(format!(
                "{} elements do not fill shape {shape:?}",
                self.bytes.len() / self.size
            )));
        }
        let bytes = if self.dtype.bits() < 8 {
            packed::pack(&self.bytes, self.dtype.bits())
        } else {
            self.bytes.into_owned()
        };
        Tensor::from_bytes(self.dtype, shape, bytes)
    }
}

/// A tensor of `shape` from elements of `x`: `visit` hands over, in row-major order of the output, the row-major index of
/// the source of each element, or `None` for `fill` (zero when absent).
pub(super) fn pick(
    x: &Tensor,
    shape: &[usize],
    fill: Option<&Tensor>,
    visit: impl FnOnce(&mut dyn FnMut(Option<usize>)),
) -> Result<Tensor> {
    let source = Raw::of(x)?;
    let count = element_count(shape)?;
    element_count(&[count, source.size])?;
    let fill = match fill {
        Some(fill) if fill.dtype() != x.dtype() || fill.len() != 1 => {
            return Err(Error::Type(format!(
                "expected one {} element to fill with, found {} of shape {:?}",
                x.dtype(),
                fill.dtype(),
                fill.shape()
            )));
        }
        Some(fill) => Raw::of(fill)?,
        None => Raw::zeros(x.dtype(), 1)?,
    };
    let mut bytes = Vec::with_capacity(count * source.size);
    match source.size {
        1 => copy_each::<1>(&source, &fill, &mut bytes, visit),
        2 => copy_each::<2>(&source, &fill, &mut bytes, visit),
        4 => copy_each::<4>(&source, &fill, &mut bytes, visit),
        8 => copy_each::<8>(&source, &fill, &mut bytes, visit),
        _ => copy_each::<16>(&source, &fill, &mut bytes, visit),
    }
    Raw { dtype: x.dtype(), size: source.size, bytes: Cow::Owned(bytes) }.into_tensor(shape)
}

/// The size is a constant so that a copy is one move and no call.
fn copy_each<const SIZE: usize>(
    source: &Raw<'_>,
    fill: &Raw<'_>,
    into: &mut Vec<u8>,
    visit: impl FnOnce(&mut dyn FnMut(Option<usize>)),
) {
    let (elements, _) = source.bytes.as_chunks::<SIZE>();
    let (fill, _) = fill.bytes.as_chunks::<SIZE>();
    visit(&mut |index| into.extend_from_slice(index.map_or(&fill[0], |index| &elements[index])));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_type_moves() {
        for &dtype in DType::ALL {
            if dtype == DType::String {
                assert!(Raw::zeros(dtype, 2).is_err());
                continue;
            }
            let bytes: Vec<u8> = (0..dtype.bytes_for(3).unwrap() as u8).map(|byte| byte.min(1)).collect();
            let x = Tensor::from_shared(dtype, vec![3], Arc::new(bytes), 0).unwrap();
            let y =
                pick(&x, &[2, 2], None, |emit| [Some(2), None, Some(1), Some(0)].map(emit).fill(())).unwrap();
            assert_eq!((y.dtype(), y.shape()), (dtype, [2, 2].as_slice()));
            let (x, y) = (Raw::of(&x).unwrap(), Raw::of(&y).unwrap());
            assert_eq!([y.get(0), y.get(2), y.get(3)], [x.get(2), x.get(1), x.get(0)], "{dtype}");
            assert!(y.get(1).iter().all(|&byte| byte == 0), "{dtype}");
        }
    }

    #[test]
    fn nibbles_stay_packed() {
        let x = Tensor::from_shared(DType::U4, vec![3], Arc::new(vec![0x21u8, 0x03]), 0).unwrap();
        let y = pick(&x, &[3], None, |emit| (0..3).rev().for_each(|i| emit(Some(i)))).unwrap();
        assert_eq!(y.bytes(), [0x23, 0x01]);
    }
}
