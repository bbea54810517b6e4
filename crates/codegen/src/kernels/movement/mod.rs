//! Operators that only move data: each output element is an element of an input, or a fill value. Which one is told by
//! the operators' own maps; here they become copies. Words of four bytes are moved; 8-byte elements are two of them.

mod copy;
mod ops;
mod rows;
mod squares;

pub(super) use rows::store_up_to;

use crate::builder::Builder;
use crate::error::CompileError;
use tconvc_ir::{DType, Node, ValueId};

/// Makes the kernels of a node; `false` when they have to be something else.
pub(super) fn build(builder: &mut Builder<'_>, node: &Node) -> Result<bool, CompileError> {
    let Some(copies) = ops::copies(builder, node)? else { return Ok(false) };
    let mut made = vec![];
    for copy in copies {
        let Some(kernel) = copy::kernel(builder, copy)? else { return Ok(false) };
        made.extend(kernel);
    }
    for kernel in made {
        builder.push_kernel(kernel);
    }
    Ok(true)
}

/// Words of an element; `None` for types that are no whole number of words.
fn words(builder: &Builder<'_>, value: ValueId) -> Option<usize> {
    let dtype = builder.graph.ty(value).dtype.filter(|&dtype| dtype != DType::String)?;
    let bits = dtype.bits();
    (bits > 0 && bits.is_multiple_of(32)).then_some(bits / 32)
}
