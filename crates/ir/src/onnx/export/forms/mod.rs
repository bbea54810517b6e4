//! The three forms of a transposed convolution in ONNX's words, one form a file.

pub(super) mod scatter;
pub(super) mod sub_pixel;
pub(super) mod zero_insert;

use crate::error::{Error, Result};
use crate::tensor::{MAX_TENSOR_BYTES, Tensor, element_count};

/// A tensor of that shape whose elements stand at these places of another one, or are zero.
fn arranged(
    tensor: &Tensor,
    shape: Vec<usize>,
    places: impl Iterator<Item = Option<usize>>,
) -> Result<Tensor> {
    if !tensor.dtype().is_numeric() {
        return Err(Error::Type(format!("weights of {}, accepted are numbers", tensor.dtype())));
    }
    let size = tensor.dtype().bits() / 8;
    let total = element_count(&shape)?.checked_mul(size).filter(|&total| total <= MAX_TENSOR_BYTES);
    let total =
        total.ok_or_else(|| Error::Size(format!("weights of shape {shape:?} are too large to write out")))?;
    let mut bytes = vec![0u8; total];
    for (to, place) in bytes.chunks_exact_mut(size).zip(places) {
        if let Some(from) = place.and_then(|place| tensor.bytes().get(place * size..(place + 1) * size)) {
            to.copy_from_slice(from);
        }
    }
    Tensor::from_bytes(tensor.dtype(), shape, bytes)
}

/// A value for each spatial axis; empty stands for `default` on each.
fn per_axis<T: Copy>(values: &[T], axes: usize, default: T) -> Vec<T> {
    if values.len() == axes { values.to_vec() } else { vec![default; axes] }
}

/// Sizes as ONNX has them.
fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&value| value as i64).collect()
}
