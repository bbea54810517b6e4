//! Checked geometry of pooling: windows over an input that may reach into padding, and past it when extents are rounded up.

use super::{axis_getters, check, check_output, times};
use crate::dim::Dim;
use crate::error::{Error, Result};
use std::ops::Range;

/// One spatial axis of a pooling: output `o` reads input `i = o * stride + k * dilation - pad` under each tap `k` for which
/// that is an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolAxis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    pad_end: usize,
    output: usize,
}

axis_getters!(PoolAxis, usize);

/// Pads that make the output extent that of the input divided by the stride, rounded up; an odd one goes to the end, or to
/// the beginning when `lower`.
///
/// # Errors
/// When a number is out of range.
pub fn same_pads(
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    lower: bool,
) -> Result<[i64; 2]> {
    let (i, k) = (check("input extent", input, 1)?, check("kernel extent", kernel, 1)?);
    let (s, d) = (check("stride", stride, 1)?, check("dilation", dilation, 1)?);
    let last = times((i - 1) / s, s);
    let total = (last + times(k - 1, d) + 1 - i).max(0);
    Ok(if lower { [total - total / 2, total / 2] } else { [total / 2, total - total / 2] })
}

impl PoolAxis {
    /// An axis with `pads` at the beginning and end. With `ceil`, a last window that is not full counts as well, unless it
    /// would begin behind the input and the padding before it.
    ///
    /// # Errors
    /// When a number is out of range, or there is no window.
    pub fn new(
        input: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
        pads: [i64; 2],
        ceil: bool,
    ) -> Result<Self> {
        let (i, k) = (check("input extent", input, 1)?, check("kernel extent", kernel, 1)?);
        let (s, d) = (check("stride", stride, 1)?, check("dilation", dilation, 1)?);
        let reach = check("reach of the kernel", (times(k - 1, d) + 1) as usize, 1)?;
        // A longer pad would make windows of padding alone.
        let pad = |pad: i64| {
            usize::try_from(pad).ok().filter(|_| pad < reach).ok_or_else(|| {
                let problem = format!("a pad of a pooling is {pad}, accepted is 0 to {}", reach - 1);
                Error::Geometry(problem)
            })
        };
        let [begin, end] = [pad(pads[0])?, pad(pads[1])?];
        let padded = i + begin as i64;
        let output = if ceil {
            // The windows that begin before the end of the input, or those that a last one would complete if fewer.
            let room = padded + (end as i64 - reach + s).min(0);
            (room + s - 1).div_euclid(s)
        } else {
            (padded + end as i64 - reach).div_euclid(s) + 1
        };
        let output = check_output(output)?;
        Ok(Self { input, kernel, stride, dilation, pad: begin, pad_end: end, output })
    }

    /// Pad at the end, as stated; the last window may reach past it or not to its end.
    pub fn pad_end(&self) -> usize {
        self.pad_end
    }

    /// Input that output `o` reads under tap `k`, when it is one.
    pub fn source(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.pad).filter(|&i| i < self.input)
    }

    /// Taps under which output `o` reads an input; may be none with dilation.
    pub fn taps(&self, o: usize) -> Range<usize> {
        let start = o * self.stride;
        let first = self.pad.saturating_sub(start).div_ceil(self.dilation);
        let end = (self.input + self.pad).saturating_sub(start).div_ceil(self.dilation).min(self.kernel);
        first.min(end)..end
    }

    /// Number of taps of output `o` in the input and its stated padding.
    pub fn padded_taps(&self, o: usize) -> usize {
        let rest = (self.input + self.pad + self.pad_end).saturating_sub(o * self.stride);
        rest.div_ceil(self.dilation).min(self.kernel)
    }
}

/// Output extent of a pooling axis: that of [`PoolAxis::new`] when all is known, else its formula.
///
/// # Errors
/// As [`PoolAxis::new`], and on overflow.
pub fn pool_extent(
    input: &Dim,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: [i64; 2],
    ceil: bool,
) -> Result<Dim> {
    if let Some(input) = input.known() {
        return Ok(PoolAxis::new(input, kernel, stride, dilation, pads, ceil)?.output().into());
    }
    if input.is_unknown() {
        return Ok(Dim::unknown());
    }
    // Checks the numbers against an extent that leaves room for a window.
    let (k, s, d) =
        (check("kernel extent", kernel, 1)?, check("stride", stride, 1)?, check("dilation", dilation, 1)?);
    let reach = times(k - 1, d) + 1;
    PoolAxis::new(reach as usize, kernel, stride, dilation, pads, ceil)?;
    if ceil {
        input.add(&Dim::constant(pads[0] + (pads[1] - reach + s).min(0)))?.ceil_div(s)
    } else {
        input.add(&Dim::constant(pads[0] + pads[1] - reach))?.floor_div(s)?.add(&Dim::constant(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Bindings;

    /// Every axis in a small box: arguments of `PoolAxis::new`.
    fn small_box() -> impl Iterator<Item = (usize, usize, usize, usize, [i64; 2], bool)> {
        (1..=6).flat_map(|input| {
            (1..=4).flat_map(move |kernel| {
                (1..=4).flat_map(move |stride| {
                    (1..=2).flat_map(move |dilation| {
                        (0..16).flat_map(move |pads| {
                            [false, true]
                                .map(|ceil| (input, kernel, stride, dilation, [pads / 4, pads % 4], ceil))
                        })
                    })
                })
            })
        })
    }

    /// The extents as the specification words them, with rounding up and the correction after it.
    #[test]
    fn extents_are_those_of_the_specification() {
        for (input, kernel, stride, dilation, pads, ceil) in small_box() {
            let (i, s, reach) = (input as i64, stride as i64, ((kernel - 1) * dilation + 1) as i64);
            let room = i + pads[0] + pads[1] - reach;
            let mut expected = room.div_euclid(s) + 1 + i64::from(ceil && room.rem_euclid(s) != 0);
            if ceil && (expected - 1) * s >= i + pads[0] {
                expected -= 1;
            }
            let axis = PoolAxis::new(input, kernel, stride, dilation, pads, ceil);
            let found = axis.as_ref().map_or(0, |axis| axis.output() as i64);
            let expected = if pads.iter().any(|&pad| pad >= reach) { 0 } else { expected.max(0) };
            assert_eq!(found, expected, "{input} {kernel} {stride} {dilation} {pads:?} {ceil}");
            if axis.is_ok() {
                let symbolic = pool_extent(&Dim::symbol("H"), kernel, stride, dilation, pads, ceil).unwrap();
                let bound = symbolic.bind(&Bindings::from([("H".into(), input)])).unwrap();
                assert_eq!(bound.known_i64(), Some(found), "{axis:?}");
            }
        }
    }

    #[test]
    fn taps_are_those_with_a_source() {
        for (input, kernel, stride, dilation, pads, ceil) in small_box() {
            let Ok(axis) = PoolAxis::new(input, kernel, stride, dilation, pads, ceil) else { continue };
            for o in 0..axis.output() {
                let with_source: Vec<usize> = (0..kernel).filter(|&k| axis.source(o, k).is_some()).collect();
                assert_eq!(axis.taps(o).collect::<Vec<_>>(), with_source, "{axis:?} at {o}");
                let padded = input + pads[0] as usize + pads[1] as usize;
                let counted = (0..kernel).filter(|k| o * stride + k * dilation < padded).count();
                assert_eq!(axis.padded_taps(o), counted, "{axis:?} at {o}");
            }
        }
    }

    #[test]
    fn same_pads_give_the_extent_of_the_stride() {
        for (input, kernel, stride, dilation, _, _) in small_box() {
            for lower in [false, true] {
                let pads = same_pads(input, kernel, stride, dilation, lower).unwrap();
                let axis = PoolAxis::new(input, kernel, stride, dilation, pads, false).unwrap();
                assert_eq!(axis.output(), input.div_ceil(stride), "{axis:?}");
                let odd = pads[0] - pads[1];
                assert!(odd == 0 || odd == if lower { 1 } else { -1 }, "{pads:?}");
            }
        }
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let max = super::super::MAX_EXTENT;
        assert!(PoolAxis::new(max, max, 1, max, [0, 0], false).is_err());
        assert!(PoolAxis::new(4, 2, 1, 1, [-1, 0], false).is_err());
        assert!(PoolAxis::new(4, 2, 1, 1, [i64::MAX, i64::MAX], true).is_err());
        assert!(PoolAxis::new(4, 0, 1, 1, [0, 0], true).is_err());
        assert!(PoolAxis::new(2, 4, 1, 1, [0, 0], false).is_err());
    }
}
