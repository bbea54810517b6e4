//! Operators that only move data: each output element is an element of an input, or a fill value. Which one is told by
//! the operators' own maps; here they become copies of words. A word has four bytes where elements have as many or more
//! (8-byte elements are two of them), else as many as an element.

mod copy;
mod narrow;
mod ops;
mod rows;
mod scatter;
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

/// An element as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    /// Bytes of a word: 1, 2 or 4.
    unit: usize,
    /// Words of an element.
    count: usize,
}

impl Words {
    /// `None` for types whose elements are no whole number of bytes.
    fn of(builder: &Builder<'_>, value: ValueId) -> Option<Self> {
        let dtype = builder.graph.ty(value).dtype.filter(|&dtype| dtype != DType::String)?;
        match dtype.bits() {
            8 => Some(Self { unit: 1, count: 1 }),
            16 => Some(Self { unit: 2, count: 1 }),
            bits if bits > 0 && bits.is_multiple_of(32) => Some(Self { unit: 4, count: bits / 32 }),
            _ => None,
        }
    }
}
