//! Moving elements that lie at equal steps along each axis: axes that continue each other are one, and the innermost is a
//! plain loop. What folding moves are weights, turned around and with their channels swapped.

use crate::error::Result;
use crate::ops::index_map::{AxisMap, IndexMap};
use crate::tensor::{LargeVec, Tensor};

/// Where elements are found.
#[derive(Debug, PartialEq)]
pub(in crate::ops) struct Steps {
    /// The first one.
    first: usize,
    /// How many there are along each axis and how far apart, outermost first; no axis continues the one before it.
    axes: Vec<(usize, isize)>,
}

impl Steps {
    /// Of a map that has no border; `None` for others, and where nothing is read.
    pub(in crate::ops) fn of(map: &IndexMap) -> Option<Self> {
        let mut steps = Self { first: 0, axes: vec![] };
        for axis in map.axes.iter().filter(|axis| axis.output != 1) {
            let AxisMap::Step { step, .. } = axis.map else { return None };
            let apart = isize::try_from(step).ok()?.checked_mul(isize::try_from(axis.stride).ok()?)?;
            match steps.axes.last_mut() {
                _ if axis.output == 0 => return None,
                Some((count, before)) if apart.checked_mul(axis.output as isize) == Some(*before) => {
                    (*count, *before) = (*count * axis.output, apart);
                }
                _ => steps.axes.push((axis.output, apart)),
            }
        }
        for axis in &map.axes {
            steps.first += axis.map.source(0)?.checked_mul(axis.stride)?;
        }
        Some(steps)
    }

    /// The elements of `x` at these places; `None` where an element is not so many whole bytes.
    pub(in crate::ops) fn apply(&self, x: &Tensor, shape: &[usize]) -> Option<Result<Tensor>> {
        let copied = match x.dtype().bits() {
            8 => self.copied::<1>(x.bytes()),
            16 => self.copied::<2>(x.bytes()),
            32 => self.copied::<4>(x.bytes()),
            64 => self.copied::<8>(x.bytes()),
            128 => self.copied::<16>(x.bytes()),
            _ => return None,
        };
        Some(copied.and_then(|bytes| bytes.into_tensor_of(x.dtype(), shape)))
    }

    /// Elements of so many bytes, which a file need not align.
    fn copied<const SIZE: usize>(&self, from: &[u8]) -> Result<LargeVec<u8>>
    where
        [u8; SIZE]: bytemuck::Pod,
    {
        let bytes = SIZE * self.axes.iter().map(|(count, _)| count).product::<usize>();
        let mut into = LargeVec::<u8>::zeroed(bytes)?;
        let (from, _) = from.as_chunks::<SIZE>();
        let (elements, _) = into.as_mut_slice()[..bytes].as_chunks_mut::<SIZE>();
        copy(from, self.first as isize, &self.axes, elements);
        Ok(into)
    }
}

/// Copies what lies at these steps from element `first` on; there are as many in `into`.
fn copy<T: Copy>(from: &[T], first: isize, axes: &[(usize, isize)], into: &mut [T]) {
    let (run, (count, apart)) = match axes {
        [] => (into, (1, 1)),
        // Kernels of usual sizes.
        &[rows, (4, apart @ (1 | -1))] => return copy_short::<T, 4>(from, first, rows, apart, into),
        &[rows, (9, apart @ (1 | -1))] => return copy_short::<T, 9>(from, first, rows, apart, into),
        &[rows, (16, apart @ (1 | -1))] => return copy_short::<T, 16>(from, first, rows, apart, into),
        &[rows, (25, apart @ (1 | -1))] => return copy_short::<T, 25>(from, first, rows, apart, into),
        &[axis] => (into, axis),
        [(count, apart), inner @ ..] => {
            let parts = into.chunks_exact_mut(into.len() / count);
            return (0..).zip(parts).for_each(|(i, part)| copy(from, first + i * apart, inner, part));
        }
    };
    // The map was checked: it reads nothing outside.
    let last = first + (count as isize - 1) * apart;
    let from = &from[first.min(last) as usize..=first.max(last) as usize];
    match apart {
        1 => run.copy_from_slice(from),
        -1 => run.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from),
        0 => run.fill(from[0]),
        2.. => run.iter_mut().zip(from.iter().step_by(apart as usize)).for_each(|(to, from)| *to = *from),
        _ => {
            let from = from.iter().rev().step_by(apart.unsigned_abs());
            run.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Rows of so many neighbours, forwards or backwards.
fn copy_short<T: Copy, const N: usize>(
    from: &[T],
    first: isize,
    (_, apart): (usize, isize),
    step: isize,
    into: &mut [T],
) {
    let first = first + step.min(0) * (N as isize - 1);
    for (i, to) in (0..).zip(into.as_chunks_mut::<N>().0) {
        if let Some(row) = from[(first + i * apart) as usize..].first_chunk::<N>() {
            *to = *row;
            if step < 0 {
                to.reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::index_map::MappedAxis;

    fn map(axes: &[(usize, usize, i64, i64)]) -> IndexMap {
        let axis = |&(output, stride, start, step)| MappedAxis {
            output,
            stride,
            map: AxisMap::Step { start, step },
        };
        IndexMap { axes: axes.iter().map(axis).collect() }
    }

    #[test]
    fn axes_that_continue_each_other_are_one() {
        let steps = |axes: &[(usize, usize, i64, i64)]| Steps::of(&map(axes)).unwrap();
        // Kernels of 3x5 turned around, of 2x4 channels.
        let turned = steps(&[(2, 60, 0, 1), (4, 15, 0, 1), (3, 5, 2, -1), (5, 1, 4, -1)]);
        assert_eq!(turned, Steps { first: 14, axes: vec![(8, 15), (15, -1)] });
        let swapped = steps(&[(4, 15, 0, 1), (2, 60, 0, 1), (3, 5, 0, 1), (5, 1, 0, 1)]);
        assert_eq!(swapped, Steps { first: 0, axes: vec![(4, 15), (2, 60), (15, 1)] });
        assert_eq!(steps(&[(1, 9, 3, 7)]), Steps { first: 27, axes: vec![] });
        assert_eq!(steps(&[(3, 2, 0, 0), (4, 1, 1, 0)]), Steps { first: 1, axes: vec![(12, 0)] });
    }

    #[test]
    fn maps_with_border_or_nothing_are_left() {
        let mut bordered = map(&[(3, 1, 0, 1)]);
        bordered.axes[0].map =
            AxisMap::Padded { border: crate::ops::Border::Edge, begin: 1, first: 0, extent: 2 };
        assert_eq!(Steps::of(&bordered), None);
        assert_eq!(Steps::of(&map(&[(0, 1, 0, 1)])), None);
    }

    #[test]
    fn steps_agree_with_the_map_for_every_type() {
        let ways: [&[(usize, usize, i64, i64)]; 9] = [
            &[(3, 4, 0, 2), (4, 1, 0, 1)],
            &[(2, 2, 1, -1), (9, 1, 8, -1)],
            &[],
            &[(2, 12, 1, -1), (3, 4, 0, 1), (4, 1, 0, 1)],
            &[(3, 4, 0, 1), (2, 12, 0, 1), (2, 1, 3, -2)],
            &[(4, 1, 0, 1), (2, 12, 0, 1), (3, 4, 2, -1)],
            &[(5, 4, 0, 0), (2, 12, 1, 0), (2, 1, 1, 2)],
            &[(2, 12, 0, 1), (3, 4, 2, -1), (4, 1, 3, -1)],
            &[(1, 12, 1, 5), (2, 4, 0, 2)],
        ];
        for &dtype in DType::ALL.iter().filter(|dtype| dtype.bits() >= 8) {
            let bytes: Vec<u8> = (0..dtype.bytes_for(24).unwrap()).map(|byte| byte as u8).collect();
            let x = Tensor::from_shared(dtype, vec![24], std::sync::Arc::new(bytes), 0).unwrap();
            let size = x.bytes().len() / 24;
            for way in ways {
                let map = map(way);
                let y = Steps::of(&map).unwrap().apply(&x, &map.output_shape()).unwrap().unwrap();
                let mut expected = vec![];
                map.visit(|from| expected.extend_from_slice(&x.bytes()[from.unwrap() * size..][..size]));
                assert_eq!(
                    (y.shape(), y.bytes()),
                    (&map.output_shape()[..], &expected[..]),
                    "{dtype}: {way:?}"
                );
            }
        }
    }
}
