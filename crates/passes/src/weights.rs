//! Constant weights of convolutions, made into those of equivalent ones.

use crate::error::Result;
use crate::patch;
use tconvc_ir::Tensor;
use tconvc_ir::ops::{AxisMap, ConvTranspose, Epilogue, IndexMap, MappedAxis, Padding};

/// Weights of a convolution `[Cout, Cin/group, ..]` as those of a transposed one, `[Cin, Cout/group, ..]`, with the kernel
/// turned around; or the other way round.
pub(crate) fn turned(weights: &Tensor, group: usize) -> Result<Tensor> {
    let (group, kernel) = (group.max(1), &weights.shape()[2..]);
    let [outputs, inputs] = [weights.shape()[0] / group, weights.shape()[1]];
    let taps: usize = kernel.iter().product();
    let axis = |output, stride| MappedAxis { output, stride, map: AxisMap::IDENTITY };
    let channels = [axis(group, outputs * inputs * taps), axis(inputs, taps), axis(outputs, inputs * taps)];
    // All axes of the kernel backwards are all its taps backwards.
    let map = AxisMap::Step { start: taps as i64 - 1, step: -1 };
    let axes = channels.into_iter().chain([MappedAxis { output: taps, stride: 1, map }]);
    let turned = IndexMap::new(axes.collect(), weights.len())?.apply(weights, None)?;
    Ok(turned.reshaped([&[group * inputs, outputs], kernel].concat())?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::DType;

    #[test]
    fn turning_twice_gives_the_same_and_once_what_is_said() {
        for (group, outputs, inputs, kernel) in
            [(1, 2, 3, vec![2, 3]), (3, 2, 1, vec![4]), (2, 1, 5, vec![1, 2, 2]), (1, 1, 1, vec![])]
        {
            let shape = [&[group * outputs, inputs], &kernel[..]].concat();
            let weights = Tensor::seeded(DType::F32, shape, 1).unwrap();
            let turned = turned(&weights, group).unwrap();
            assert_eq!(turned.shape(), [&[group * inputs, outputs], &kernel[..]].concat());
            let taps: usize = kernel.iter().product();
            let (from, to) = (weights.elements::<f32>().unwrap(), turned.elements::<f32>().unwrap());
            for (g, o, i, k) in (0..group).flat_map(|g| {
                (0..outputs)
                    .flat_map(move |o| (0..inputs).flat_map(move |i| (0..taps).map(move |k| (g, o, i, k))))
            }) {
                let there = ((g * inputs + i) * outputs + o) * taps + taps - 1 - k;
                assert_eq!(from[((g * outputs + o) * inputs + i) * taps + k], to[there]);
            }
            assert_eq!(super::turned(&turned, group).unwrap(), weights);
        }
    }
}
