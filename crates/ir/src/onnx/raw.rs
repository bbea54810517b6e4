//! Bytes of a file as the elements of a tensor.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{MAX_TENSOR_BYTES, Tensor, element_count};
use prost::bytes::Bytes;
use std::sync::Arc;

/// Shares the bytes, or copies them once where they are not aligned for the elements.
pub(super) fn from_raw(dtype: DType, shape: Vec<usize>, raw: Bytes) -> Result<Tensor> {
    let count = element_count(&shape)?;
    let expected = dtype.bytes_for(count).filter(|&bytes| bytes <= MAX_TENSOR_BYTES);
    if expected != Some(raw.len()) {
        return Err(Error::Size(format!(
            "{} bytes of raw_data for a {dtype} tensor of shape {shape:?}, which takes {}",
            raw.len(),
            expected.map_or("too many".into(), |bytes| bytes.to_string())
        )));
    }
    Tensor::from_shared(dtype, shape, Arc::new(raw), 0)
}
