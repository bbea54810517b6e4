//! `ZeroInsert`: each extent gets an axis of one behind it, that is padded to the stride, and both are merged again.

use super::super::chain::Chain;
use super::per_axis;
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::Result;
use crate::ops::ZeroInsert;
use crate::tensor::Tensor;

pub(in super::super) fn zero_insert(mut chain: Chain<'_, '_>, op: &ZeroInsert) {
    let shape = chain.ty(0).shape;
    let stated = op.strides.len().max(op.begin.len()).max(op.end.len());
    let axes = shape.as_ref().map_or(stated, |shape| shape.len().saturating_sub(2));
    let strides = per_axis(&op.strides, axes, 1);
    let (begin, mut end) = (per_axis(&op.begin, axes, 0), per_axis(&op.end, axes, 0));
    if strides.iter().any(|&stride| stride > 1) {
        let spatial = shape.map(|shape| shape[2..].to_vec());
        spread(&mut chain, &strides, spatial.as_deref());
        // The zeros behind the last element come on top.
        for (end, stride) in end.iter_mut().zip(&strides) {
            *end -= *stride as i64 - 1;
        }
    }
    chain.pad(&begin, &end);
    chain.end();
}

/// Multiplies spatial extents: each element is followed by `stride - 1` zeros.
fn spread(chain: &mut Chain<'_, '_>, strides: &[usize], spatial: Option<&[Dim]>) {
    let x = chain.value();
    let (mut ones, mut behind) = (vec![], vec![0, 0]);
    for &stride in strides {
        behind.push(0);
        if stride > 1 {
            ones.push(behind.len() as i64);
            behind.push(stride as i64 - 1);
        }
    }
    let ones = chain.ints("axes", &ones);
    chain.then("Unsqueeze", Attributes::new(), &[ones]);
    let pads = chain.ints("pads", &[vec![0; behind.len()], behind].concat());
    chain.then("Pad", Attributes::new(), &[pads]);

    let merged: Option<Vec<Option<i64>>> = spatial.map(|spatial| {
        let extents = spatial.iter().zip(strides);
        extents.map(|(extent, &stride)| extent.known_i64()?.checked_mul(stride as i64)).collect()
    });
    let shape = match merged {
        // Batch and channels are copied (0), and one extent may follow from the others (-1).
        Some(merged) if merged.iter().filter(|extent| extent.is_none()).count() <= 1 => {
            let extents = merged.into_iter().map(|extent| extent.unwrap_or(-1));
            chain.ints("shape", &[0, 0].into_iter().chain(extents).collect::<Vec<_>>())
        }
        _ => {
            let factors: Vec<i64> =
                [1, 1].into_iter().chain(strides.iter().map(|&stride| stride as i64)).collect();
            let shape = chain.aside("Shape", Attributes::new(), &[x]);
            let factors = chain.ints("factors", &factors);
            chain.aside("Mul", Attributes::new(), &[shape, factors])
        }
    };
    chain.then("Reshape", Attributes::new(), &[shape]);
}

/// Zeros between the taps of three kernel axes that stand at axes 2 to 4 of columns `[N, C * K, L]`: the columns of a
/// kernel without dilation.
pub(super) fn dilate_columns(
    chain: &mut Chain<'_, '_>,
    kernel: &[usize],
    dilations: &[usize],
    positions: usize,
) -> Result<()> {
    let apart: Vec<i64> = kernel.iter().map(|&extent| extent as i64).chain([positions as i64]).collect();
    chain.reshape(&[&[0, -1], &apart[..]].concat())?;
    let spatial: Vec<Dim> = apart.iter().map(|&extent| Dim::constant(extent)).collect();
    let strides: Vec<usize> = dilations.iter().copied().chain([1]).collect();
    spread(chain, &strides, Some(&spatial));
    let cut: Vec<i64> = strides.iter().map(|&stride| 1 - stride as i64).collect();
    chain.pad(&vec![0; cut.len()], &cut);
    chain.reshape(&[0, -1, positions as i64])
}

impl Chain<'_, '_> {
    /// Adds a `Reshape` to that shape, which may hold 0 and -1.
    pub fn reshape(&mut self, shape: &[i64]) -> Result<()> {
        let shape = self.constant("shape", &Tensor::from_vec([shape.len()], shape.to_vec())?);
        self.then("Reshape", Attributes::new(), &[shape]);
        Ok(())
    }
}
