//! Attributes of operators with windows: pads by axis, lists of strides and dilations in their shortest spelling.

use tconvc_ir::ops::{ConvTranspose, Padding};

/// Pads in their shortest spelling: none when all are zero.
pub fn join(pads: impl IntoIterator<Item = [i64; 2]>) -> Padding {
    let (begin, end): (Vec<i64>, Vec<i64>) = pads.into_iter().map(|[begin, end]| (begin, end)).unzip();
    if begin.iter().chain(&end).all(|&pad| pad == 0) {
        return Padding::none();
    }
    Padding::Explicit { begin, end }
}

/// Pads at the beginning and end of each of `axes` spatial axes; `None` when they depend on extents or do not fit.
pub fn split(padding: &Padding, axes: usize) -> Option<Vec<[i64; 2]>> {
    let side = |pads: &[i64]| match pads.len() {
        0 => Some(vec![0; axes]),
        n => (n == axes).then(|| pads.to_vec()),
    };
    match padding {
        Padding::Explicit { begin, end } => {
            Some(side(begin)?.into_iter().zip(side(end)?).map(|(begin, end)| [begin, end]).collect())
        }
        Padding::Valid => Some(vec![[0, 0]; axes]),
        Padding::SameUpper | Padding::SameLower => None,
    }
}

/// Pads of each spatial axis of a transposed convolution, when they are explicit and nothing else speaks for the output's extent.
pub fn explicit(op: &ConvTranspose, axes: usize) -> Option<Vec<[i64; 2]>> {
    let plain = op.output_shape.is_empty() && op.output_padding.iter().all(|&pad| pad == 0);
    if plain { split(&op.padding, axes) } else { None }
}

/// A list of strides or dilations in its shortest spelling: none when all are 1.
pub fn ones(values: &[usize]) -> Vec<usize> {
    if values.iter().all(|&value| value == 1) { vec![] } else { values.to_vec() }
}

/// In words, for the journal.
pub fn describe(padding: &Padding) -> String {
    match padding {
        Padding::Explicit { begin, end } if !begin.is_empty() => format!("pads {begin:?} and {end:?}"),
        _ => "no pads".into(),
    }
}
