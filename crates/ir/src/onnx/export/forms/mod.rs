//! The three forms of a transposed convolution in ONNX's words, one form a file.

pub(super) mod scatter;
pub(super) mod sub_pixel;
pub(super) mod weights;
pub(super) mod zero_insert;

/// A value for each spatial axis; empty stands for `default` on each.
fn per_axis<T: Copy>(values: &[T], axes: usize, default: T) -> Vec<T> {
    if values.len() == axes { values.to_vec() } else { vec![default; axes] }
}

/// Sizes as ONNX has them.
fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&value| value as i64).collect()
}
