//! Products of matrices: transposed, scaled, with weights of few bits, with an activation.

use super::Lowering;
use super::convolution::{finish_activation, take};
use crate::attributes::Attributes;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::packed::{from_codes, unpack};
use crate::tensor::Tensor;

/// A matrix, or a stack of them, with its last two axes exchanged; `batch` moves the first axis in front of the last one, before
/// that.
fn turned(lower: &mut Lowering<'_, '_>, value: ValueId, matrix: bool, batch: bool) -> Result<ValueId> {
    if !matrix && !batch {
        return Ok(value);
    }
    let rank = lower.rank(value)? as i64;
    if rank < 2 {
        return Ok(value);
    }
    let mut axes: Vec<i64> = (0..rank).collect();
    if batch && rank > 2 {
        let first = axes.remove(0);
        axes.insert(rank as usize - 2, first);
    }
    if matrix {
        axes.swap(rank as usize - 1, rank as usize - 2);
    }
    lower.transpose(value, axes)
}

/// `alpha * op(A) * op(B)`.
pub(super) fn fused_matmul(lower: &mut Lowering<'_, '_>) -> Result<()> {
    lower.at_most(2)?;
    let (a, b) = (lower.required(0, "A")?, lower.required(1, "B")?);
    let [a_turned, b_turned] = [lower.flag("transA")?, lower.flag("transB")?];
    let [a_batch, b_batch] = [lower.flag("transBatchA")?, lower.flag("transBatchB")?];
    let alpha = lower.float("alpha", 1.0)?;
    let a = turned(lower, a, a_turned, a_batch)?;
    let b = turned(lower, b, b_turned, b_batch)?;
    if alpha == 1.0 {
        return lower.finish("MatMul", Attributes::new(), &[Some(a), Some(b)]);
    }
    let factor = lower.number("alpha", f64::from(alpha), a)?;
    let product = lower.emit("MatMul", Attributes::new(), &[Some(a), Some(b)])?;
    lower.finish("Mul", Attributes::new(), &[Some(product), Some(factor)])
}

/// `Gemm`, then an activation.
pub(super) fn fused_gemm(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let attributes = take(lower, &["alpha", "beta", "transA", "transB"]);
    let mut parameters = vec![];
    for name in ["activation_alpha", "activation_beta"] {
        parameters.extend(lower.lift.node.attributes.float(name)?);
    }
    lower
        .only("activation_gamma", 0)
        .or_else(|_| lower.lift.node.attributes.float("activation_gamma").map(|_| ()))?;
    if !parameters.is_empty() {
        lower.lift.node.attributes.set("activation_params", parameters);
    }
    let (a, b) = (lower.required(0, "A")?, lower.required(1, "B")?);
    let product = lower.emit("Gemm", attributes, &[Some(a), Some(b), lower.input(2)])?;
    finish_activation(lower, product)
}

/// Weights `[N, blocks, bytes]` of 2, 4 or 8 bits in blocks along K that share a scale: `DequantizeLinear` with blocks, then
/// `MatMul`.
pub(super) fn matmul_n_bits(lower: &mut Lowering<'_, '_>) -> Result<()> {
    let mut size = |name: &str| match lower.lift.node.attributes.int(name)? {
        Some(value @ 1..=0x7fff_ffff) => Ok(value as usize),
        Some(value) => Err(Error::attribute(name, format!("expected at least 1, found {value}"))),
        None => Err(Error::attribute(name, "is required")),
    };
    let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
    let bits = lower.int("bits", 4)?;
    lower.int("accuracy_level", 0)?;
    lower.int("weight_prepacked", 0)?;
    let dtype = match bits {
        2 => DType::U2,
        4 => DType::U4,
        8 => DType::U8,
        other => return Err(Error::attribute("bits", format!("expected 2, 4 or 8, found {other}"))),
    };
    let a = lower.required(0, "A")?;
    if lower.input(4).is_some() {
        return Err(Error::Unsupported("input 4 (g_idx): groups in another order".into()));
    }
    let (weights, scales) = (lower.constant_input(1, "B")?, lower.constant_input(2, "scales")?);
    let blocks = k.div_ceil(block);
    let wrong = |index: usize, name: &'static str, expected: String, found: &Tensor| {
        Error::input(index, name, format!("expected {expected}, found {}{:?}", found.dtype(), found.shape()))
    };
    let bits = bits as usize;
    let row_codes = blocks.checked_mul(block).ok_or_else(|| Error::Size("K is too large".into()))?;
    let bytes = n.checked_mul(blocks).and_then(|all| all.checked_mul((block * bits).div_ceil(8)));
    if weights.dtype() != DType::U8 || Some(weights.len()) != bytes || !(block * bits).is_multiple_of(8) {
        let expected = format!("u8[{n}, {blocks}, {}]", (block * bits).div_ceil(8));
        return Err(wrong(1, "B", expected, &weights));
    }
    if scales.len() != n * blocks {
        return Err(wrong(2, "scales", format!("{} numbers", n * blocks), &scales));
    }
    let codes = unpack(weights.bytes(), bits, n * row_codes);
    let table = if bits == 8 {
        Tensor::from_vec([n, row_codes], codes)?
    } else {
        from_codes(dtype, &[n, row_codes], &codes)?
    };
    let zeros = zero_points(lower, dtype, bits, n, blocks)?;
    let scales = scales.reshaped([n, blocks])?;
    let inputs = [("weights", table), ("scales", scales), ("zero_points", zeros)]
        .map(|(what, tensor)| Some(lower.constant(what, tensor)));
    let attributes = Attributes::new().with("axis", 1).with("block_size", block as i64);
    let mut table = lower.emit("DequantizeLinear", attributes, &inputs)?;
    if row_codes != k {
        let [zero, end, axis] = [("zero", 0), ("end", k as i64), ("axis", 1)]
            .map(|(what, value)| Some(lower.ints(what, &[value])));
        table = lower.emit("Slice", Attributes::new(), &[Some(table), zero, end, axis])?;
    }
    let table = lower.transpose(table, vec![1, 0])?;
    match lower.input(5) {
        None => lower.finish("MatMul", Attributes::new(), &[Some(a), Some(table)]),
        Some(bias) => {
            let product = lower.emit("MatMul", Attributes::new(), &[Some(a), Some(table)])?;
            lower.finish("Add", Attributes::new(), &[Some(product), Some(bias)])
        }
    }
}

/// A zero point a block: given as codes, each row packed by itself, or the middle of the range.
fn zero_points(
    lower: &mut Lowering<'_, '_>,
    dtype: DType,
    bits: usize,
    n: usize,
    blocks: usize,
) -> Result<Tensor> {
    let codes = match lower.input(3) {
        None => vec![1u8 << (bits - 1); n * blocks],
        Some(_) => {
            let given = lower.constant_input(3, "zero_points")?;
            let row = (blocks * bits).div_ceil(8);
            if given.dtype() != DType::U8 || given.len() != n * row {
                let found = format!("{}{:?}", given.dtype(), given.shape());
                return Err(Error::Unsupported(format!(
                    "input 3 (zero_points): {found}; accepted are packed codes, u8[{n}, {row}]"
                )));
            }
            given.bytes().chunks_exact(row.max(1)).flat_map(|row| unpack(row, bits, blocks)).collect()
        }
    };
    if bits == 8 { Tensor::from_vec([n, blocks], codes) } else { from_codes(dtype, &[n, blocks], &codes) }
}
