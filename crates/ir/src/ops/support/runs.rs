//! Arithmetic of f32 tensors run by run: the elements between which neither side changes its stride go through one loop that
//! the compiler can vectorise. What folding spends its time on are weights times a factor a channel.

use super::broadcast::{Walk, broadcast_strides};
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::tensor::{LargeVec, Tensor};

/// Elements along which both sides lie in order or stand still, and the axes in front of these.
struct Runs {
    /// Elements of a run.
    len: usize,
    /// Whether each side moves along a run.
    moves: [bool; 2],
    /// Axes before the run's.
    axes: usize,
}

impl Runs {
    fn new(shape: &[usize], strides: &[Vec<usize>; 2]) -> Self {
        let mut runs = Self { len: 1, moves: [false; 2], axes: shape.len() };
        for axis in (0..shape.len()).rev() {
            if shape[axis] != 1 {
                let moves = [strides[0][axis] != 0, strides[1][axis] != 0];
                let regular = (0..2).all(|side| !moves[side] || strides[side][axis] == runs.len);
                if !regular || (runs.len > 1 && moves != runs.moves) {
                    break;
                }
                runs.moves = moves;
            }
            runs.len *= shape[axis];
            runs.axes = axis;
        }
        runs
    }
}

/// `f` on two f32 tensors that broadcast to `shape`; `None` for other types.
pub(in crate::ops) fn zip_f32(
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    f: impl Fn(f32, f32) -> f32 + Copy,
) -> Result<Option<Tensor>> {
    zip(a, b, shape, f)?.map(|results| results.into_tensor(shape)).transpose()
}

/// As [`zip_f32`], for questions.
pub(in crate::ops) fn compare_f32(
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    f: impl Fn(&f32, &f32) -> bool + Copy,
) -> Result<Option<Tensor>> {
    let results = zip(a, b, shape, |x, y| u8::from(f(&x, &y)))?;
    results.map(|results| results.into_tensor_of(DType::Bool, shape)).transpose()
}

fn zip<R: Element>(
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    f: impl Fn(f32, f32) -> R + Copy,
) -> Result<Option<LargeVec<R>>> {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return Ok(None);
    }
    let count = shape.iter().product();
    let mut results = LargeVec::<R>::zeroed(count)?;
    // Read by bytes, because the weights of a file need not be aligned.
    let (x, y): (&[[u8; 4]], &[[u8; 4]]) = (bytemuck::cast_slice(a.bytes()), bytemuck::cast_slice(b.bytes()));
    let strides = [broadcast_strides(a.shape(), shape), broadcast_strides(b.shape(), shape)];
    let runs = Runs::new(shape, &strides);
    // The axis before the runs' in a loop of its own: the walk over the others is slow.
    let (outer, inner) = (runs.axes.saturating_sub(1), runs.axes.checked_sub(1));
    let inner_count = inner.map_or(1, |axis| shape[axis]);
    let inner_steps = [0, 1].map(|side| inner.map_or(0, |axis| strides[side][axis]));
    let walk = |side: usize| Walk::new(&shape[..outer], &strides[side][..outer]);
    let block = runs.len * inner_count;
    if block == 0 {
        return Ok(Some(results));
    }
    let blocks = results.as_mut_slice()[..count].chunks_exact_mut(block);
    for (block, (i, j)) in blocks.zip(walk(0).zip(walk(1))) {
        for (k, run) in block.chunks_exact_mut(runs.len).enumerate() {
            let (i, j) = (i + k * inner_steps[0], j + k * inner_steps[1]);
            one_run(run, &x[i..], &y[j..], runs.moves, f);
        }
    }
    Ok(Some(results))
}

fn one_run<R: Element>(
    run: &mut [R],
    x: &[[u8; 4]],
    y: &[[u8; 4]],
    moves: [bool; 2],
    f: impl Fn(f32, f32) -> R + Copy,
) {
    let float = |bytes: &[u8; 4]| f32::from_ne_bytes(*bytes);
    match moves {
        [true, true] => {
            for ((result, a), b) in run.iter_mut().zip(x).zip(y) {
                *result = f(float(a), float(b));
            }
        }
        [true, false] => {
            let b = float(&y[0]);
            for (result, a) in run.iter_mut().zip(x) {
                *result = f(float(a), b);
            }
        }
        [false, true] => {
            let a = float(&x[0]);
            for (result, b) in run.iter_mut().zip(y) {
                *result = f(a, float(b));
            }
        }
        [false, false] => run.fill(f(float(&x[0]), float(&y[0]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::support::broadcast::{broadcast_shapes, broadcast_walk};

    #[test]
    fn runs_agree_with_the_walk_over_elements() {
        let shapes: [&[usize]; 10] = [
            &[],
            &[1],
            &[5],
            &[3, 5],
            &[3, 1],
            &[2, 3, 5],
            &[2, 1, 5],
            &[1, 3, 1],
            &[4, 2, 3, 5],
            &[4, 1, 3, 1],
        ];
        for a_shape in shapes {
            for b_shape in shapes {
                let a = Tensor::seeded(DType::F32, a_shape, 1).unwrap();
                let b = Tensor::seeded(DType::F32, b_shape, 2).unwrap();
                let shape = broadcast_shapes(&[a_shape, b_shape]).unwrap();
                let (x, y) = (a.elements::<f32>().unwrap(), b.elements::<f32>().unwrap());
                let pairs = broadcast_walk(a_shape, &shape).zip(broadcast_walk(b_shape, &shape));
                let expected = Tensor::from_vec(shape.clone(), pairs.map(|(i, j)| x[i] - y[j]).collect());
                let result = zip_f32(&a, &b, &shape, |x, y| x - y).unwrap().unwrap();
                assert_eq!(result, expected.unwrap(), "{a_shape:?} and {b_shape:?}");
                let pairs = broadcast_walk(a_shape, &shape).zip(broadcast_walk(b_shape, &shape));
                let expected = Tensor::from_bools(shape.clone(), pairs.map(|(i, j)| x[i] < y[j]));
                let result = compare_f32(&a, &b, &shape, f32::lt).unwrap().unwrap();
                assert_eq!(result, expected.unwrap(), "{a_shape:?} and {b_shape:?}");
            }
        }
    }

    #[test]
    fn empty_tensors_have_no_runs() {
        let empty = Tensor::zeros(DType::F32, [3, 0]).unwrap();
        let column = Tensor::zeros(DType::F32, [3, 1]).unwrap();
        let result = zip_f32(&empty, &column, &[3, 0], |x, y| x + y).unwrap().unwrap();
        assert_eq!(result.shape(), [3, 0]);
    }
}
