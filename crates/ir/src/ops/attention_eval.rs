//! Evaluation of Attention by its definition.

use super::InputInfo;
use super::attention::Attention;
use super::support::broadcast::{broadcast_walk, broadcasts_to};
use super::support::inputs::{check_size, optional, required};
use super::support::values::from_f64s;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// Extents of the problem.
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    past: usize,
    /// Keys, those of the past included.
    keys: usize,
    /// Of a query and a key.
    size: usize,
    /// Of a value.
    value: usize,
}

impl Attention {
    /// See [`Operator::eval`](super::Operator::eval).
    pub(super) fn evaluate(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let (q, k, v) = (required(inputs, 0, "Q")?, required(inputs, 1, "K")?, required(inputs, 2, "V")?);
        let dtype = q.dtype();
        let sizes = self.sizes(inputs)?;
        let Sizes { batch, heads, kv_heads, queries, past, keys, size, value } = sizes;
        check_size(DType::F64, &[batch, heads, queries, keys])?;
        check_size(DType::F64, &[batch, heads, queries, value])?;
        let split = |tensor: &Tensor, heads: usize, length: usize, size: usize| {
            let data = tensor.to_f64s()?;
            Ok::<_, Error>(if tensor.rank() == 4 {
                data
            } else {
                swapped(&data, [batch, length, heads, size])
            })
        };
        let mut q = split(q, heads, queries, size)?;
        let present = |now: Vec<f64>, past_input: Option<&Tensor>, size: usize| -> Result<Vec<f64>> {
            let Some(tensor) = past_input else { return Ok(now) };
            let (before, rows) = (tensor.to_f64s()?, keys - past);
            let mut all = Vec::with_capacity(batch * kv_heads * keys * size);
            for head in 0..batch * kv_heads {
                all.extend_from_slice(&before[head * past * size..][..past * size]);
                all.extend_from_slice(&now[head * rows * size..][..rows * size]);
            }
            Ok(all)
        };
        let key = present(split(k, kv_heads, keys - past, size)?, optional(inputs, 4), size)?;
        let values = present(split(v, kv_heads, keys - past, value)?, optional(inputs, 5), value)?;
        let mut results = vec![
            None,
            Some(from_f64s(dtype, &[batch, kv_heads, keys, size], &key)?),
            Some(from_f64s(v.dtype(), &[batch, kv_heads, keys, value], &values)?),
        ];

        // Both sides take the square root of the factor, so that 16-bit products stay in range.
        let scale = self.scale.map_or_else(|| (size as f64).sqrt().recip(), f64::from);
        let root = rounded(dtype, scale.sqrt())?;
        let mut key = key;
        q.iter_mut().chain(&mut key).for_each(|x| *x *= root);
        round(dtype, &mut q)?;
        round(dtype, &mut key)?;
        let mut scores = Vec::with_capacity(batch * heads * queries * keys);
        let shared = (heads / kv_heads.max(1)).max(1);
        for row in 0..batch * heads * queries {
            let head = row / queries / heads * kv_heads + row / queries % heads / shared;
            let query = &q[row * size..][..size];
            let against = |i: usize| {
                key[(head * keys + i) * size..][..size].iter().zip(query).map(|(a, b)| a * b).sum::<f64>()
            };
            scores.extend((0..keys).map(against));
        }
        round(dtype, &mut scores)?;
        let shape = [batch, heads, queries, keys];
        let mut shown = (self.qk_matmul_output_mode == 0).then(|| scores.clone());
        if self.softcap > 0.0 {
            let cap = f64::from(self.softcap);
            for x in &mut scores {
                *x = (*x / cap).tanh() * cap;
            }
            round(dtype, &mut scores)?;
        }
        if self.qk_matmul_output_mode == 1 {
            shown = Some(scores.clone());
        }
        self.add_masks(inputs, &sizes, dtype, &mut scores)?;
        round(dtype, &mut scores)?;
        if self.qk_matmul_output_mode == 2 {
            shown = Some(scores.clone());
        }
        let precision = self.softmax_precision.unwrap_or(dtype);
        round(precision, &mut scores)?;
        for row in scores.chunks_mut(keys.max(1)) {
            softmax(row, precision)?;
        }
        round(dtype, &mut scores)?;
        if outputs > 3 {
            results.push(Some(from_f64s(dtype, &shape, shown.as_ref().unwrap_or(&scores))?));
        }
        let mut y = Vec::with_capacity(batch * heads * queries * value);
        for (row, weights) in (0..batch * heads * queries).map(|row| (row, &scores[row * keys..][..keys])) {
            let head = row / queries / heads * kv_heads + row / queries % heads / shared;
            let column =
                |j: usize| (0..keys).map(|i| weights[i] * values[(head * keys + i) * value + j]).sum::<f64>();
            y.extend((0..value).map(column));
        }
        let four = [batch, heads, queries, value];
        results[0] = Some(if required(inputs, 0, "Q")?.rank() == 4 {
            from_f64s(dtype, &four, &y)?
        } else {
            let y = swapped(&y, [batch, heads, queries, value]);
            from_f64s(dtype, &[batch, queries, heads * value], &y)?
        });
        Ok(results.into_iter().flatten().take(outputs.max(1)).collect())
    }

    fn sizes(&self, inputs: &[Option<&Tensor>]) -> Result<Sizes> {
        let types: Vec<_> = inputs.iter().map(|input| input.map(ValueType::of)).collect();
        let infos: Vec<_> = types
            .iter()
            .map(|ty| Some(InputInfo { ty: ty.as_ref()?, constant: None, extents: None }))
            .collect();
        let known = |shape: Option<[Dim; 4]>| {
            let shape = shape.map(|shape| shape.map(|dim| dim.known().unwrap_or(0)));
            shape.ok_or_else(|| Error::Graph("an input without a shape".into()))
        };
        let [q, k, v] = self.shapes(&infos)?.map(known);
        let (q, k, v) = (q?, k?, v?);
        let past = optional(inputs, 4).map_or(0, |past| past.shape()[2]);
        Ok(Sizes {
            batch: q[0],
            heads: q[1],
            kv_heads: k[1],
            queries: q[2],
            past,
            keys: past + k[2],
            size: q[3],
            value: v[3],
        })
    }

    /// Adds the mask, and negative infinity where a query does not see a key.
    fn add_masks(
        &self,
        inputs: &[Option<&Tensor>],
        sizes: &Sizes,
        dtype: DType,
        scores: &mut [f64],
    ) -> Result<()> {
        let &Sizes { batch, heads, queries, past, keys, .. } = sizes;
        let shape = [batch, heads, queries, keys];
        if let Some(mask) = optional(inputs, 3) {
            let given = mask.shape();
            let Some((&last, leading)) = given.split_last().filter(|(last, _)| **last <= keys) else {
                return Err(Error::input(
                    3,
                    "attn_mask",
                    format!("{given:?} does not broadcast to {shape:?}"),
                ));
            };
            // A mask of fewer keys hides the others.
            let full = [leading, &[keys]].concat();
            if !broadcasts_to(&full, &shape) {
                return Err(Error::input(
                    3,
                    "attn_mask",
                    format!("{given:?} does not broadcast to {shape:?}"),
                ));
            }
            let numbers: Vec<f64> = if mask.dtype() == DType::Bool {
                mask.bools()?.map(|seen| if seen { 0.0 } else { f64::NEG_INFINITY }).collect()
            } else {
                mask.to_f64s()?
            };
            for (score, at) in scores.iter_mut().zip(broadcast_walk(&full, &shape)) {
                let (row, column) = (at / keys, at % keys);
                *score += if column < last { numbers[row * last + column] } else { f64::NEG_INFINITY };
            }
            round(dtype, scores)?;
        }
        let lengths = optional(inputs, 6).map(Tensor::to_i64s).transpose()?;
        if let Some(lengths) = &lengths
            && lengths.len() != batch
        {
            let problem = format!("expected {batch} numbers as there are batches, found {}", lengths.len());
            return Err(Error::input(6, "nonpad_kv_seqlen", problem));
        }
        for (row, scores) in scores.chunks_mut(keys.max(1)).enumerate() {
            let image = row / queries / heads;
            let length = lengths.as_ref().map(|lengths| lengths[image]);
            let place = length.map_or(past as i64, |length| length.saturating_sub(queries as i64))
                + (row % queries) as i64;
            for (j, score) in (0i64..).zip(scores) {
                let hidden = self.is_causal && j > place
                    || self.window[0].is_some_and(|left| j < place.saturating_sub(left))
                    || self.window[1].is_some_and(|right| j > place.saturating_add(right))
                    || length.is_some_and(|length| j >= length);
                if hidden {
                    *score = f64::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }
}

/// The two axes in the middle exchanged.
pub(super) fn swapped(data: &[f64], [a, b, c, d]: [usize; 4]) -> Vec<f64> {
    let mut result = Vec::with_capacity(data.len());
    for (i, k, j) in (0..a).flat_map(|i| (0..c).flat_map(move |k| (0..b).map(move |j| (i, k, j)))) {
        result.extend_from_slice(&data[((i * b + j) * c + k) * d..][..d]);
    }
    result
}

/// A number as the type holds it; those of 32 bits and more stay as they are.
fn rounded(dtype: DType, value: f64) -> Result<f64> {
    let mut one = [value];
    round(dtype, &mut one)?;
    Ok(one[0])
}

fn round(dtype: DType, values: &mut [f64]) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F64) {
        return Ok(());
    }
    dispatch_numeric!(dtype, T => {
        for x in values.iter_mut() {
            *x = T::from_f64(*x).to_f64();
        }
        Ok(())
    })
}

/// A softmax that is zero where a query sees no key at all.
fn softmax(row: &mut [f64], precision: DType) -> Result<()> {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if greatest == f64::NEG_INFINITY {
        row.fill(0.0);
        return Ok(());
    }
    for x in row.iter_mut() {
        *x -= greatest;
    }
    round(precision, row)?;
    for x in row.iter_mut() {
        *x = x.exp();
    }
    round(precision, row)?;
    let sum = rounded(precision, row.iter().sum())?;
    for x in row.iter_mut() {
        *x /= sum;
    }
    round(precision, row)
}
