//! Arrays as the Python half hands them down: bytes, shape, name of the element type.

use crate::error::{raise, refuse};
use numpy::{PyReadonlyArray1, PyReadwriteArray1};
use pyo3::prelude::*;
use tconvc::{DType, TensorView, TensorViewMut};

/// An array that is read.
#[derive(FromPyObject)]
pub struct Input<'py>(PyReadonlyArray1<'py, u8>, Vec<usize>, String);

/// An array that is written.
#[derive(FromPyObject)]
pub struct Output<'py>(PyReadwriteArray1<'py, u8>, Vec<usize>, String);

fn dtype(name: &str) -> PyResult<DType> {
    DType::from_name(name).ok_or_else(|| refuse(format!("`{name}` is no element type")))
}

impl Input<'_> {
    /// The array as a tensor.
    pub fn view(&self) -> PyResult<TensorView<'_>> {
        let bytes = self.0.as_slice().map_err(|_| refuse("the bytes of an input are not contiguous"))?;
        TensorView::from_bytes(dtype(&self.2)?, &self.1, bytes).map_err(|error| raise(&error.into()))
    }
}

impl Output<'_> {
    /// The array as memory for a tensor.
    pub fn view(&mut self) -> PyResult<TensorViewMut<'_>> {
        let dtype = dtype(&self.2)?;
        let bytes = self.0.as_slice_mut().map_err(|_| refuse("the bytes of an output are not contiguous"))?;
        TensorViewMut::from_bytes(dtype, &self.1, bytes).map_err(|error| raise(&error.into()))
    }
}
