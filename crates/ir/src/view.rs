//! Borrowed tensors: what goes into and comes out of a compiled network without a copy.

use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

/// A borrowed tensor, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a [usize],
    bytes: &'a [u8],
}

/// A mutably borrowed tensor, row-major.
#[derive(Debug, PartialEq)]
pub struct TensorViewMut<'a> {
    dtype: DType,
    shape: &'a [usize],
    bytes: &'a mut [u8],
}

fn fits(dtype: DType, shape: &[usize], bytes: usize) -> Result<()> {
    let expected = dtype.bytes_for(element_count(shape)?);
    // Strings take what they take.
    if expected == Some(bytes) || dtype == DType::String {
        return Ok(());
    }
    Err(Error::Size(format!("{bytes} bytes do not fill a {dtype} tensor of shape {shape:?}")))
}

impl<'a> TensorView<'a> {
    /// A view of elements in row-major order.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn new<T: Element>(shape: &'a [usize], data: &'a [T]) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(data))
    }

    /// A view of little-endian elements as bytes.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn from_bytes(dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self> {
        fits(dtype, shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A tensor with elements of its own.
    ///
    /// # Errors
    /// When it is larger than tensors may be.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Tensor::from_bytes(self.dtype, self.shape.to_vec(), self.bytes.to_vec())
    }
}

impl<'a> TensorViewMut<'a> {
    /// A view of elements in row-major order.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn new<T: Element>(shape: &'a [usize], data: &'a mut [T]) -> Result<Self> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice_mut(data))
    }

    /// A view of little-endian elements as bytes.
    ///
    /// # Errors
    /// When their number is not the product of `shape`.
    pub fn from_bytes(dtype: DType, shape: &'a [usize], bytes: &'a mut [u8]) -> Result<Self> {
        fits(dtype, shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The elements as little-endian bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl Tensor {
    /// The tensor, borrowed.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype(), shape: self.shape(), bytes: self.bytes() }
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let mut data = [0f32; 6];
        assert!(TensorView::new(&[2, 3], &data).is_ok());
        assert!(TensorView::new(&[2, 4], &data).is_err());
        assert!(TensorViewMut::new(&[7], &mut data).is_err());
        let tensor = Tensor::from_vec([2], vec![1i64, 2]).unwrap();
        assert_eq!(tensor.view(), TensorView::new(&[2], &[1i64, 2]).unwrap());
    }
}
