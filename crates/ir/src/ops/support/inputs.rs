//! What the operators share when they look at their inputs: presence, element types, axes, known extents.

use crate::dim::Dim;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::InputInfo;
use crate::tensor::{MAX_TENSOR_BYTES, element_count};

/// Integer tensors up to this many elements count as extents when shapes are computed.
const MAX_EXTENTS: usize = 64;

/// Input `index`, which must be there.
pub(in crate::ops) fn required<T: Copy>(inputs: &[Option<T>], index: usize, name: &'static str) -> Result<T> {
    optional(inputs, index).ok_or_else(|| Error::input(index, name, "is required"))
}

/// Input `index`, when it is there.
pub(in crate::ops) fn optional<T: Copy>(inputs: &[Option<T>], index: usize) -> Option<T> {
    inputs.get(index).copied().flatten()
}

/// An error when there are more than `count` inputs.
pub(in crate::ops) fn at_most<T>(inputs: &[Option<T>], count: usize) -> Result<()> {
    if inputs.len() > count {
        return Err(Error::input(count, "", format!("at most {count} inputs are expected")));
    }
    Ok(())
}

/// An error when the element type is known and not one that `accepts`; `what` says which are.
pub(in crate::ops) fn check_dtype(
    index: usize,
    name: &'static str,
    dtype: Option<DType>,
    accepts: impl Fn(DType) -> bool,
    what: &str,
) -> Result<()> {
    match dtype {
        Some(dtype) if !accepts(dtype) => {
            Err(Error::input(index, name, format!("expected {what}, found {dtype}")))
        }
        _ => Ok(()),
    }
}

/// The element type that these inputs share, as far as known.
pub(in crate::ops) fn common_dtype(inputs: &[(usize, &'static str, Option<DType>)]) -> Result<Option<DType>> {
    let mut common = None;
    for &(index, name, dtype) in inputs {
        match (common, dtype) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(Error::input(
                    index,
                    name,
                    format!("expected {expected} as its fellow input has, found {found}"),
                ));
            }
            (None, dtype) => common = dtype,
            _ => {}
        }
    }
    Ok(common)
}

/// An axis that may count from the end, as an index below `rank`.
pub(in crate::ops) fn resolve_axis(name: &str, axis: i64, rank: usize) -> Result<usize> {
    let signed = rank as i64;
    if axis < -signed || axis >= signed {
        return Err(Error::attribute(
            name,
            format!("{axis} is no axis of {rank}; expected {} to {}", -signed, signed - 1),
        ));
    }
    Ok(axis.rem_euclid(signed) as usize)
}

/// Axes that may count from the end, each at most once, in the order given.
pub(in crate::ops) fn resolve_axes(name: &str, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut resolved = Vec::with_capacity(axes.len());
    for &axis in axes {
        let index = resolve_axis(name, axis, rank)?;
        if resolved.contains(&index) {
            return Err(Error::attribute(name, format!("axis {axis} is named twice")));
        }
        resolved.push(index);
    }
    Ok(resolved)
}

/// The elements of an integer input as extents: symbolic ones, or those of a short constant.
pub(in crate::ops) fn extents(input: &InputInfo<'_>) -> Option<Vec<Dim>> {
    if let Some(extents) = input.extents {
        return Some(extents.to_vec());
    }
    let constant = input.constant.filter(|constant| constant.len() <= MAX_EXTENTS && constant.rank() <= 1)?;
    Some(constant.to_i64s().ok()?.into_iter().map(Dim::constant).collect())
}

/// Computed extents, unless one is known to wrap in the integer type that holds them.
pub(in crate::ops) fn unwrapped(dims: Vec<Dim>, dtype: Option<DType>) -> Option<Vec<Dim>> {
    let short = dtype == Some(DType::I32);
    let wraps = |dim: &Dim| short && dim.known_i64().is_some_and(|extent| i32::try_from(extent).is_err());
    (!dims.iter().any(wraps)).then_some(dims)
}

/// An error when a tensor of this type and shape would be too large; ask before making one from attributes or broadcasting.
pub(in crate::ops) fn check_size(dtype: DType, shape: &[usize]) -> Result<()> {
    match dtype.bytes_for(element_count(shape)?) {
        Some(bytes) if bytes <= MAX_TENSOR_BYTES => Ok(()),
        _ => Err(Error::Size(format!(
            "a {dtype} tensor of shape {shape:?} is too large (at most {MAX_TENSOR_BYTES} bytes)"
        ))),
    }
}
