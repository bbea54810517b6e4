//! The short lists of integers that inputs state (shapes, axes, pads), and output shapes that follow from them.

use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::ops::{InputInfo, Operator};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// Longest constant that is taken for a list of extents, axes or the like.
const LONG: usize = 1024;

/// The integers of a short constant, or of extents without symbols; `None` when they are not known.
pub(in crate::ops) fn known_i64s(input: &InputInfo<'_>) -> Result<Option<Vec<i64>>> {
    if let Some(tensor) = input.constant {
        if tensor.len() > LONG {
            return Err(Error::Size(format!("a list of {} numbers, accepted are {LONG}", tensor.len())));
        }
        return tensor.to_i64s().map(Some);
    }
    Ok(input.extents.and_then(|extents| extents.iter().map(Dim::known_i64).collect()))
}

/// The integers of a 1-D integer input.
pub(in crate::ops) fn list_i64(tensor: &Tensor, index: usize, name: &'static str) -> Result<Vec<i64>> {
    if tensor.rank() > 1 {
        return Err(Error::input(index, name, format!("expected a list, found shape {:?}", tensor.shape())));
    }
    tensor.to_i64s().map_err(|error| Error::input(index, name, error.to_string()))
}

/// Output shapes of an evaluation, from the operator's own inference with every input known.
pub(in crate::ops) fn output_shapes(
    op: &impl Operator,
    inputs: &[Option<&Tensor>],
    outputs: usize,
) -> Result<Vec<Vec<usize>>> {
    let types: Vec<Option<ValueType>> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
    let info =
        |i: usize| Some(InputInfo { ty: types[i].as_ref()?, constant: Some(inputs[i]?), extents: None });
    let infos: Vec<Option<InputInfo<'_>>> = (0..inputs.len()).map(info).collect();
    let shape = |ty: ValueType| {
        let shape = ty.known_shape().ok_or_else(|| {
            Error::Unsupported(format!("{}: the output shape depends on the data: {ty}", op.name()))
        })?;
        element_count(&shape)?;
        Ok(shape)
    };
    op.infer(&infos, outputs)?.into_iter().map(shape).collect()
}

/// The shape of the only output of an evaluation; see [`output_shapes`].
pub(in crate::ops) fn output_shape(op: &impl Operator, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>> {
    output_shapes(op, inputs, 1)?
        .pop()
        .ok_or_else(|| Error::Unsupported(format!("{} without an output", op.name())))
}

/// Product of extents.
pub(in crate::ops) fn product(dims: &[Dim]) -> Result<Dim> {
    let product = dims.iter().try_fold(Dim::constant(1), |product, dim| product.mul(dim))?;
    Ok(if product.is_unknown() { Dim::unknown() } else { product })
}
