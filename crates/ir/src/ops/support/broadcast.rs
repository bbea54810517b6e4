//! NumPy broadcasting: of symbolic shapes, of known shapes, and the walk over a tensor's elements that it asks for.

use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::ops::InputInfo;

/// The shape that `shapes` broadcast to. An axis of two different symbols is unknown: either may be 1.
pub(in crate::ops) fn broadcast_dims(shapes: &[&[Dim]]) -> Result<Vec<Dim>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![Dim::constant(1); rank];
    for shape in shapes {
        for (axis, dim) in result[rank - shape.len()..].iter_mut().zip(shape.iter()) {
            *axis = join(axis, dim)
                .ok_or_else(|| Error::Geometry(format!("shapes {shapes:?} do not broadcast together")))?;
        }
    }
    Ok(result)
}

/// One axis of two shapes; `None` when they cannot fit whatever the symbols are.
fn join(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.known(), b.known()) {
        (Some(1), _) => Some(b.clone()),
        (_, Some(1)) => Some(a.clone()),
        (Some(x), Some(y)) => (x == y).then(|| a.clone()),
        (Some(_), None) => Some(a.clone()),
        (None, Some(_)) => Some(b.clone()),
        (None, None) if a.equals(b) == Some(true) => Some(a.clone()),
        (None, None) => Some(Dim::unknown()),
    }
}

/// The shape that the inputs broadcast to; `None` when the rank of one is not known.
pub(in crate::ops) fn broadcast_inputs(inputs: &[InputInfo<'_>]) -> Result<Option<Vec<Dim>>> {
    let shapes: Option<Vec<&[Dim]>> = inputs.iter().map(|input| input.ty.shape.as_deref()).collect();
    shapes.map(|shapes| broadcast_dims(&shapes)).transpose()
}

/// The shape that known `shapes` broadcast to.
pub(in crate::ops) fn broadcast_shapes(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (axis, &extent) in result[rank - shape.len()..].iter_mut().zip(shape.iter()) {
            match (*axis, extent) {
                (_, 1) => {}
                (1, _) => *axis = extent,
                (a, b) if a == b => {}
                _ => return Err(Error::Geometry(format!("shapes {shapes:?} do not broadcast together"))),
            }
        }
    }
    Ok(result)
}

/// True when `from` broadcasts to exactly `to`.
pub(in crate::ops) fn broadcasts_to(from: &[usize], to: &[usize]) -> bool {
    broadcast_shapes(&[from, to]).is_ok_and(|shape| shape == to)
}

/// Distances in elements between neighbours along each axis of a row-major tensor.
pub(in crate::ops) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

/// Strides of a tensor of shape `from` seen as one of shape `to`, which it broadcasts to: 0 along stretched axes.
pub(in crate::ops) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut result = vec![0; to.len() - from.len()];
    result.extend(
        strides(from).iter().zip(from).map(|(&stride, &extent)| if extent == 1 { 0 } else { stride }),
    );
    result
}

/// Positions of a tensor's elements for each index of `to`, in row-major order of `to`.
pub(in crate::ops) fn broadcast_walk(from: &[usize], to: &[usize]) -> Walk {
    Walk::new(to, &broadcast_strides(from, to))
}

/// Positions, in elements, of a strided view in row-major order of its shape.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Walk {
    shape: Vec<usize>,
    strides: Vec<usize>,
    index: Vec<usize>,
    position: usize,
    left: usize,
}

impl Walk {
    /// A view of `shape` whose neighbours along each axis are `strides` apart.
    pub(in crate::ops) fn new(shape: &[usize], strides: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            index: vec![0; shape.len()],
            position: 0,
            left: shape.iter().product(),
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let position = self.position;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.position += self.strides[axis];
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.position -= self.strides[axis] * self.shape[axis];
            self.index[axis] = 0;
        }
        Some(position)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Walk {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_right() {
        assert_eq!(broadcast_shapes(&[&[3, 1], &[2, 1, 4], &[]]), Ok(vec![2, 3, 4]));
        assert_eq!(broadcast_shapes(&[&[0, 2], &[1, 1]]), Ok(vec![0, 2]));
        assert!(broadcast_shapes(&[&[3], &[2]]).is_err());
        assert!(broadcasts_to(&[3, 1], &[2, 3, 4]));
        assert!(!broadcasts_to(&[2, 3], &[1, 3]));
    }

    #[test]
    fn symbols_broadcast_as_far_as_known() {
        let (n, h) = (Dim::symbol("N"), Dim::symbol("H"));
        let three = Dim::constant(3);
        let one = Dim::constant(1);
        let shape =
            broadcast_dims(&[&[n.clone(), three.clone(), h.clone()], &[n.clone(), one, three.clone()]]);
        assert_eq!(shape, Ok(vec![n.clone(), three.clone(), three.clone()]));
        let different = broadcast_dims(&[&[n], &[h]]).unwrap();
        assert!(different[0].is_unknown());
        assert!(broadcast_dims(&[&[three], &[Dim::constant(2)]]).is_err());
    }

    #[test]
    fn walk_agrees_with_naive_index_arithmetic() {
        for (from, to) in [
            (vec![3, 1], vec![2, 3, 4]),
            (vec![], vec![2, 2]),
            (vec![2, 3, 4], vec![2, 3, 4]),
            (vec![1, 4], vec![0, 4]),
            (vec![5], vec![5]),
        ] {
            let mut expected = vec![];
            for linear in 0..to.iter().product::<usize>() {
                let (mut rest, mut position, mut weight) = (linear, 0, 1);
                for axis in (0..to.len()).rev() {
                    let i = rest % to[axis];
                    rest /= to[axis];
                    if let Some(own) = (axis + from.len()).checked_sub(to.len()) {
                        position += if from[own] == 1 { 0 } else { i * weight };
                        weight *= from[own];
                    }
                }
                expected.push(position);
            }
            assert_eq!(broadcast_walk(&from, &to).collect::<Vec<_>>(), expected, "{from:?} to {to:?}");
        }
    }
}
