//! `ColumnGemm` is a `MatMul` with transposed weights, `OverlapAdd` a `Col2Im` of the full output, then the crop.

use super::super::chain::{Chain, attribute};
use super::super::convolution;
use super::weights::rearranged;
use super::zero_insert::dilate_columns;
use super::{per_axis, signed};
use crate::attributes::Attributes;
use crate::error::{Error, Result};
use crate::geometry::DeconvAxis;
use crate::ops::{ColumnGemm, OverlapAdd};

pub(in super::super) fn column_gemm(mut chain: Chain<'_, '_>, op: &ColumnGemm) -> Result<()> {
    let Some(w) = chain.ty(1).known_shape().filter(|w| w.len() > 2) else {
        return Err(Error::input(1, "W", "its shape has to be known to write the product"));
    };
    let group = op.group;
    let (cin, rows) = (w[0] / group, w[1..].iter().product::<usize>());
    let places = (0..group).flat_map(|g| {
        (0..rows).flat_map(move |row| (0..cin).map(move |ci| Some((g * cin + ci) * rows + row)))
    });
    let shape = if group == 1 { vec![rows, cin] } else { vec![group, rows, cin] };
    let weights = match rearranged(&mut chain, 1, "weights", shape, places)? {
        Some(weights) => weights,
        None => {
            let shape = if group == 1 { vec![cin, rows] } else { vec![group, cin, rows] };
            let order = if group == 1 { vec![1, 0] } else { vec![0, 2, 1] };
            let shape = chain.ints("shape", &signed(&shape));
            let value = chain.aside("Reshape", Attributes::new(), &[chain.input(1), shape]);
            chain.aside("Transpose", attribute("perm", order), &[value])
        }
    };
    if group > 1 {
        chain.reshape(&[0, group as i64, cin as i64, -1])?;
    } else if w.len() > 3 {
        chain.reshape(&[0, 0, -1])?;
    }
    chain.main_after("MatMul", Attributes::new(), weights);
    if group > 1 {
        chain.reshape(&[0, (group * rows) as i64, -1])?;
    }
    chain.end();
    Ok(())
}

pub(in super::super) fn overlap_add(mut chain: Chain<'_, '_>, op: &OverlapAdd) -> Result<()> {
    let axes = op.input.len();
    let geometry = op.axes()?;
    let mut image: Vec<i64> = geometry.iter().map(|axis| axis.full_output() as i64).collect();
    let (mut kernel, strides) = (op.kernel.clone(), per_axis(&op.strides, axes, 1));
    let mut dilations = per_axis(&op.dilations, axes, 1);
    // ONNX Runtime 1.32 takes no heed of dilations in three dimensions.
    if axes > 2 && dilations.iter().any(|&dilation| dilation > 1) {
        dilate_columns(&mut chain, &kernel, &dilations, op.input.iter().product())?;
        kernel = geometry.iter().map(DeconvAxis::reach).collect();
        dilations = vec![1; axes];
    }
    let (mut kernel, mut strides, mut dilations) = (signed(&kernel), signed(&strides), signed(&dilations));
    // An image has at least two axes.
    let line = axes == 1;
    if line {
        for sizes in [&mut image, &mut kernel, &mut strides, &mut dilations] {
            sizes.insert(0, 1);
        }
    }
    let inputs = [chain.ints("image", &image), chain.ints("kernel", &kernel)];
    let mut attributes = Attributes::new();
    for (name, sizes) in [("strides", strides), ("dilations", dilations)] {
        if sizes.iter().any(|&size| size > 1) {
            attributes.set(name, sizes);
        }
    }
    chain.main("Col2Im", attributes, &inputs);
    if line {
        let axes = chain.ints("axes", &[2]);
        chain.then("Squeeze", Attributes::new(), &[axes]);
    }
    let pads = |pads: &[i64]| per_axis(pads, axes, 0).iter().map(|&pad| -pad).collect::<Vec<_>>();
    chain.pad(&pads(&op.begin), &pads(&op.end));
    chain.bias(1, axes)?;
    convolution::finish(chain, &op.epilogue, 2)
}
