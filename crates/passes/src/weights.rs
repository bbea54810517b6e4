//! Constant weights of convolutions, made into those of equivalent ones.

use crate::error::Result;
use crate::patch;
use tconvc_ir::Tensor;
use tconvc_ir::ops::{ConvTranspose, Epilogue, Padding, Slice, Transpose};

/// Weights of a convolution `[Cout, Cin/group, ..]` as those of a transposed one, `[Cin, Cout/group, ..]`, with the kernel
/// turned around.
pub(crate) fn turned(weights: &Tensor, group: usize) -> Result<Tensor> {
    let (outputs, inputs, kernel) =
        (weights.shape()[0] / group.max(1), weights.shape()[1], &weights.shape()[2..]);
    let grouped = weights.reshaped([&[group, outputs, inputs], kernel].concat())?;
    let mut perm: Vec<usize> = (0..grouped.rank()).collect();
    perm.swap(1, 2);
    let swapped = patch::eval(Transpose { perm }, &[&grouped])?;
    let swapped = swapped.reshaped([&[group * inputs, outputs], kernel].concat())?;
    let list = |value: i64| Tensor::from_i64s(&vec![value; kernel.len()]);
    let axes = Tensor::from_i64s(&(2..2 + kernel.len() as i64).collect::<Vec<_>>());
    patch::eval(Slice, &[&swapped, &list(-1), &list(i64::MIN), &axes, &list(-1)])
}

/// Weights of a transposed convolution without strides, each spread over as many neighbours as there are copies.
pub(crate) fn summed(weights: &Tensor, strides: &[usize]) -> Result<Tensor> {
    let (channels, kernel) = weights.shape().split_at(2);
    // One image a pair of channels, under a kernel of ones.
    let images = weights.reshaped([&[channels[0] * channels[1], 1], kernel].concat())?;
    let ones = Tensor::from_vec([&[1, 1], strides].concat(), vec![1.0f32; strides.iter().product()])?;
    let full = ConvTranspose {
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        group: 1,
        padding: Padding::none(),
        output_padding: vec![],
        output_shape: vec![],
        epilogue: Epilogue::default(),
    };
    let spread = patch::eval(full, &[&images, &ones])?;
    let extents: Vec<usize> = kernel.iter().zip(strides).map(|(k, s)| k + s - 1).collect();
    Ok(spread.reshaped([channels, &extents].concat())?)
}
