//! Loops of the reference evaluation: one kernel element, moved over all positions that it reaches.

use super::sums::Sums;
use crate::geometry::{ConvAxis, DeconvAxis, PhaseTap};

/// One tap along one axis: `count` positions, at which elements of the data go to elements of the sums.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Line {
    count: usize,
    /// First element of the data, and the distance to the next.
    from: [usize; 2],
    /// First element of the sums, and the distance to the next.
    into: [usize; 2],
}

impl Line {
    /// Tap `k` of a convolution.
    pub(in crate::ops) fn conv(axis: &ConvAxis, k: usize) -> Self {
        let outputs = axis.outputs_under(k);
        let from = axis.source(outputs.start, k).unwrap_or_default();
        Self { count: outputs.len(), from: [from, axis.stride()], into: [outputs.start, 1] }
    }

    /// Tap `k` of a transposed convolution.
    pub(in crate::ops) fn deconv(axis: &DeconvAxis, k: usize) -> Self {
        let inputs = axis.inputs_under(k);
        let into = axis.target(inputs.start, k).unwrap_or_default();
        Self { count: inputs.len(), from: [inputs.start, 1], into: [into, axis.stride()] }
    }

    /// A tap of a phase with `count` outputs over `input` inputs.
    pub(in crate::ops) fn phase(tap: PhaseTap, count: usize, input: usize) -> Self {
        let start = (-tap.shift).max(0);
        let end = (input as i64 - tap.shift).clamp(start, (count as i64).max(start));
        Self {
            count: (end - start) as usize,
            from: [(start + tap.shift).max(0) as usize, 1],
            into: [start as usize, 1],
        }
    }
}

/// Taps of one plane of sums: index into the kernel, and a line along each axis.
pub(in crate::ops) type PlaneTaps = Vec<(usize, [Line; 3])>;

/// Row-major data or sums over three axes.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Extents(pub(in crate::ops) [usize; 3]);

impl Extents {
    pub(in crate::ops) fn len(self) -> usize {
        self.0.iter().product()
    }

    fn row(self, z: usize, y: usize) -> usize {
        (z * self.0[1] + y) * self.0[2]
    }
}

/// `sums[..] += weight * data[..]` at all positions of a tap, given by its line along each axis.
pub(in crate::ops) fn add_tap<T: Sums>(
    (sums, into): (&mut [T::Sum], Extents),
    weight: T::Sum,
    (data, from): (&[T::Sum], Extents),
    [depth, height, width]: [Line; 3],
) {
    for z in 0..depth.count {
        for y in 0..height.count {
            let at = |line: [usize; 2], i: usize| line[0] + i * line[1];
            let source = from.row(at(depth.from, z), at(height.from, y));
            let target = into.row(at(depth.into, z), at(height.into, y));
            add_line::<T>(&mut sums[target..][..into.0[2]], weight, &data[source..][..from.0[2]], width);
        }
    }
}

/// `sums[..] += weight * data[..]` along one row. Without iterators: builds that are not optimised, which most tests are, spend
/// their time here.
#[inline]
pub(in crate::ops) fn add_line<T: Sums>(sums: &mut [T::Sum], weight: T::Sum, data: &[T::Sum], line: Line) {
    if line.count == 0 {
        return;
    }
    let (sums, data) = (&mut sums[line.into[0]..], &data[line.from[0]..]);
    if line.into[1] == 1 && line.from[1] == 1 {
        let (sums, data) = (&mut sums[..line.count], &data[..line.count]);
        let mut i = 0;
        while i < line.count {
            sums[i] = T::add(sums[i], T::mul(weight, data[i]));
            i += 1;
        }
        return;
    }
    let (mut from, mut into) = (0, 0);
    for _ in 0..line.count {
        sums[into] = T::add(sums[into], T::mul(weight, data[from]));
        (from, into) = (from + line.from[1], into + line.into[1]);
    }
}
