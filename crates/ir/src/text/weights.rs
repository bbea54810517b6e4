//! What a text refers to by hash: tensors and encoded attributes. And tensors that are made rather than stored.

use super::cursor::Cursor;
use crate::attributes::AttributeValue;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::graph::{Definition, Graph};
use crate::tensor::{Tensor, element_count};
use std::collections::HashMap;

/// Most bytes that a generator makes.
const MAX_GENERATED: usize = 1 << 26;

/// The tensors and encoded attributes that a text form refers to by hash.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    tensors: HashMap<u64, Vec<(String, Tensor)>>,
    encoded: HashMap<u64, Vec<u8>>,
}

impl Weights {
    /// None: for texts that spell all of their constants out.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a graph. Bytes are shared.
    pub fn of(graph: &Graph) -> Self {
        let mut weights = Self::default();
        weights.add(graph);
        weights
    }

    /// Adds those of another graph.
    pub fn add(&mut self, graph: &Graph) {
        for (id, value) in graph.values() {
            if let Definition::Constant(tensor) = value.definition() {
                self.add_tensor(&value.name, tensor.clone());
            }
            if let Some(tensor) = graph.default_of(id) {
                self.add_tensor(&value.name, tensor.clone());
            }
        }
        for node in graph.nodes() {
            for (name, value) in node.op.attributes().iter() {
                match value {
                    AttributeValue::Tensor(tensor) => self.add_tensor(name, tensor.clone()),
                    AttributeValue::Opaque(bytes) => {
                        self.encoded.insert(hash_bytes(bytes), bytes.clone());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Adds a tensor under a name.
    pub fn add_tensor(&mut self, name: &str, tensor: Tensor) {
        if super::print::is_stored(&tensor) {
            let same_hash = self.tensors.entry(tensor.content_hash()).or_default();
            if !same_hash.iter().any(|(other, _)| other == name) {
                same_hash.push((name.to_owned(), tensor));
            }
        }
    }

    /// The tensor of that hash, type and shape; the one of that name where several have them.
    pub(super) fn tensor(&self, hash: u64, name: &str, dtype: DType, shape: &[usize]) -> Option<&Tensor> {
        let fits = |tensor: &Tensor| tensor.dtype() == dtype && tensor.shape() == shape;
        let same_hash = self.tensors.get(&hash)?;
        let named = same_hash.iter().find(|(other, tensor)| other == name && fits(tensor));
        named.or_else(|| same_hash.iter().find(|(_, tensor)| fits(tensor))).map(|(_, tensor)| tensor)
    }

    pub(super) fn encoded(&self, hash: u64) -> Option<&[u8]> {
        self.encoded.get(&hash).map(Vec::as_slice)
    }
}

/// Hash of an encoded attribute.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let tensor = Tensor::from_vec([bytes.len()], bytes.to_vec());
    tensor.map_or(0, |tensor| tensor.content_hash())
}

/// A tensor that depends on type, shape and seed alone: multiples of 1/64 from -1 to below 1 for floats (so that sums of a
/// few thousand products are exact in f32), integers from -8 to 7 (unsigned ones from 0 to 15), booleans.
///
/// # Errors
/// When the elements are no numbers or booleans, or the tensor is too large.
///
/// ```
/// use tconvc_ir::{DType, text::seeded};
/// let x = seeded(DType::F32, &[2, 3], 7)?;
/// assert_eq!(x, seeded(DType::F32, &[2, 3], 7)?);
/// assert!(x.to_f64s()?.iter().all(|x| (-1.0..1.0).contains(x)));
/// # Ok::<(), tconvc_ir::Error>(())
/// ```
pub fn seeded(dtype: DType, shape: &[usize], seed: u64) -> Result<Tensor> {
    let count = element_count(shape)?;
    // SplitMix64 (Steele, Lea, Flood 2014), by its state as a function of the index.
    let random = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    if dtype == DType::Bool {
        return Tensor::from_bools(shape, (0..count as u64).map(|i| random(i) & 1 == 1));
    }
    let signed = dtype.is_float() || matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
    let value = |i: u64| match (random(i) >> 32, dtype.is_float(), signed) {
        (bits, true, _) => (bits % 128) as f64 / 64.0 - 1.0,
        (bits, false, true) => (bits % 16) as f64 - 8.0,
        (bits, false, false) => (bits % 16) as f64,
    };
    dispatch_numeric!(dtype, T => Tensor::from_vec(shape, (0..count as u64).map(|i| T::from_f64(value(i))).collect()))
}

/// Reads `seeded(7)`, `iota` or `fill(0.5)`; `None` when none of them comes next.
pub(super) fn read_generator(
    cursor: &mut Cursor<'_>,
    dtype: DType,
    shape: &[usize],
) -> Result<Option<Tensor>> {
    let position = cursor.position();
    let check = |cursor: &Cursor<'_>| {
        let bytes = element_count(shape).ok().and_then(|count| dtype.bytes_for(count));
        if bytes.is_some_and(|bytes| bytes <= MAX_GENERATED) {
            return Ok(());
        }
        Err(cursor.error_at(position, format!("a generator makes at most {MAX_GENERATED} bytes")))
    };
    let made = if cursor.accept_word("seeded")? {
        check(cursor)?;
        cursor.expect("(")?;
        let seed = cursor.integer("a seed")?;
        cursor.expect(")")?;
        seeded(dtype, shape, seed)
    } else if cursor.accept_word("iota")? {
        check(cursor)?;
        let count = element_count(shape)?;
        dispatch_numeric!(dtype, T => Tensor::from_vec(shape, (0..count).map(|i| T::from_f64(i as f64)).collect()))
    } else if cursor.accept_word("fill")? {
        check(cursor)?;
        cursor.expect("(")?;
        let one = super::elements::read_elements(cursor, dtype, &[])?;
        cursor.expect(")")?;
        let bytes = one.bytes().repeat(element_count(shape)?);
        super::elements::tensor_of_bytes(dtype, shape, bytes)
    } else {
        return Ok(None);
    };
    made.map(Some).map_err(|error: Error| cursor.error_at(position, error.to_string()))
}
