//! A dilated convolution along one axis as dense ones: positions of one remainder modulo the dilation only meet their like.
//!
//! A row of remainders is as long as the dilation, and neighbouring taps are neighbouring rows. So the axis, cut into such
//! rows, is an image, and the convolution runs along its columns. Where extents are no multiples of the dilation, columns on
//! the left have a row more than those on the right: each such range of columns is a convolution of its own. Columns too few
//! to fill a vector become rows, whose elements are copied together.

use crate::kernels::conv::problem::{Axis, Pitch, Problem};
use tconvc_ir::geometry::{Phase, PhaseTap};

/// A range of columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Columns {
    pub problem: Problem,
    /// The first of them, in elements from the start of the tensors.
    pub first: usize,
    /// Taps along z, y and x.
    pub kernel: [usize; 3],
}

impl Columns {
    /// The same with columns as rows, whose elements are the dilation apart.
    pub fn into_rows(self) -> Self {
        let Self { mut problem, first, kernel: [z, y, x] } = self;
        problem.axes.swap(1, 2);
        for pitch in [&mut problem.input, &mut problem.output] {
            std::mem::swap(&mut pitch.row, &mut pitch.column);
        }
        Self { problem, first, kernel: [z, x, y] }
    }
}

/// The ranges of columns of a dilated convolution along x alone, whose pads are multiples of the dilation.
pub(crate) fn split(problem: &Problem) -> Option<Vec<Columns>> {
    let [z, y, x] = &problem.axes;
    let alone = |axis: &Axis| axis.input == 1 && axis.output == 1 && axis.kernel == 1;
    if !alone(z) || !alone(y) || x.in_stride != 1 || x.out_stride != 1 || x.input_dilation != 1 {
        return None;
    }
    let taps = &x.phases.first()?.taps;
    let first = taps.first()?.shift;
    let dilation = taps.iter().fold(0, |common, tap| gcd(common, tap.shift.abs_diff(first) as usize));
    if dilation < 2 || !(first.unsigned_abs() as usize).is_multiple_of(dilation) || x.input < dilation {
        return None;
    }
    let mut bounds = vec![0, x.input % dilation, x.output % dilation, dilation.min(x.output)];
    bounds.sort_unstable();
    bounds.dedup();
    let columns = bounds.windows(2).map(|pair| {
        let (first, width) = (pair[0], pair[1] - pair[0]);
        let rows = |extent: usize| (extent - first).div_ceil(dilation);
        let (input, output) = (rows(x.input), rows(x.output));
        let taps: Vec<PhaseTap> = taps
            .iter()
            .map(|tap| PhaseTap { kernel: tap.kernel, shift: tap.shift / dilation as i64 })
            // A tap that only ever reads zeros is no tap.
            .filter(|tap| tap.shift < input as i64 && tap.shift + output as i64 > 0)
            .collect();
        let along = Axis {
            input,
            output,
            kernel: x.kernel,
            in_stride: 1,
            out_stride: 1,
            input_dilation: 1,
            phases: vec![Phase { first: 0, count: output, taps }],
        };
        let across = Axis {
            input: width,
            output: width,
            kernel: 1,
            phases: vec![Phase { first: 0, count: width, taps: vec![PhaseTap { kernel: 0, shift: 0 }] }],
            ..along.clone()
        };
        let pitch = |pitch: Pitch| Pitch { row: dilation, ..pitch };
        let problem = Problem {
            axes: [z.clone(), along, across],
            input: pitch(problem.input),
            output: pitch(problem.output),
            ..problem.clone()
        };
        Columns { problem, first, kernel: [1, x.kernel, 1] }
    });
    Some(columns.collect())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tconvc_ir::geometry::{Channels, ConvAxis, ConvGeometry};

    /// Every pair of output and tap of the convolution is one of a range of columns, reading the same input, and no other is.
    #[test]
    fn columns_are_the_convolution_regrouped() {
        let mut found = 0;
        let channels = Channels::new(1, 1, 1, 1).unwrap();
        for input in 1..20 {
            for (kernel, dilation) in [(2, 2), (3, 2), (3, 3), (2, 5), (4, 3)] {
                for pads in [[0, 0], [dilation, dilation], [2 * dilation, 0], [dilation, 3]] {
                    let Ok(axis) = ConvAxis::new(input, kernel, 1, dilation, pads.map(|pad| pad as i64))
                    else {
                        continue;
                    };
                    let Ok(geometry) = ConvGeometry::new(channels, vec![axis]) else { continue };
                    let problem = Problem::of_conv(&geometry);
                    let Some(columns) = split(&problem) else { continue };
                    found += 1;
                    let mut pairs = vec![];
                    for columns in &columns {
                        let [_, y, x] = &columns.problem.axes;
                        for (row, column) in
                            (0..y.output).flat_map(|row| (0..x.output).map(move |c| (row, c)))
                        {
                            for tap in &y.phases[0].taps {
                                let from = row as i64 + tap.shift;
                                if (0..y.input as i64).contains(&from) {
                                    let place =
                                        |row: i64| row * dilation as i64 + (columns.first + column) as i64;
                                    pairs.push((place(row as i64), place(from), tap.kernel));
                                }
                            }
                        }
                    }
                    let x = &problem.axes[2];
                    let mut expected = vec![];
                    for o in 0..x.output as i64 {
                        for tap in &x.phases[0].taps {
                            if (0..x.input as i64).contains(&(o + tap.shift)) {
                                expected.push((o, o + tap.shift, tap.kernel));
                            }
                        }
                    }
                    pairs.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(pairs, expected, "{problem:?}");
                }
            }
        }
        assert!(found > 100);
    }
}
