//! One spatial axis of a convolution.

use super::{Axis, axis_getters, check, check_output, check_pad, reach, span, times, total};
use crate::dim::Dim;
use crate::error::{Error, Result};
use std::ops::Range;

/// One spatial axis of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvAxis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: i64,
    output: usize,
}

axis_getters!(ConvAxis, i64);

impl ConvAxis {
    /// An axis with `pads` at the beginning and end.
    ///
    /// # Errors
    /// When a number is out of range, or the kernel does not fit into the padded input.
    pub fn new(input: usize, kernel: usize, stride: usize, dilation: usize, pads: [i64; 2]) -> Result<Self> {
        let (i, k) = (check("input extent", input, 1)?, check("kernel extent", kernel, 1)?);
        let (s, d) = (check("stride", stride, 1)?, check("dilation", dilation, 1)?);
        let [begin, end] = [check_pad(pads[0])?, check_pad(pads[1])?];
        let reach = times(k - 1, d) + 1;
        let room = i + begin + end - reach;
        if room < 0 {
            return Err(Error::Geometry(format!(
                "a kernel that reaches over {reach} does not fit into an input of {input} with pads {begin} and {end}"
            )));
        }
        let output = check_output(room / s + 1)?;
        check("reach of the kernel", reach as usize, 1)?;
        Ok(Self { input, kernel, stride, dilation, pad: begin, output })
    }

    /// Pad at the end that the last output needs: at most the one the axis was made with. May be negative.
    pub fn pad_end(&self) -> i64 {
        ((self.output - 1) * self.stride + self.reach()) as i64 - self.pad - self.input as i64
    }

    /// Outputs whose tap `k` is not in the padding.
    pub fn outputs_under(&self, k: usize) -> Range<usize> {
        span(self.output, self.stride, self.pad - (k * self.dilation) as i64, self.input)
    }

    /// Input that output `o` reads under tap `k`, when it is not in the padding.
    pub fn source(&self, o: usize, k: usize) -> Option<usize> {
        let i = (o * self.stride + k * self.dilation) as i64 - self.pad;
        usize::try_from(i).ok().filter(|&i| i < self.input)
    }
}

impl Axis for ConvAxis {
    const UNIT: Self = Self { input: 1, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 1 };
}

/// Output extent of a convolution axis: that of [`ConvAxis::new`] when all is known, else its formula.
///
/// # Errors
/// As [`ConvAxis::new`], and on overflow.
pub fn conv_extent(input: &Dim, kernel: &Dim, stride: usize, dilation: usize, pads: [i64; 2]) -> Result<Dim> {
    if let (Some(input), Some(kernel)) = (input.known(), kernel.known()) {
        return Ok(ConvAxis::new(input, kernel, stride, dilation, pads)?.output().into());
    }
    let steps = check("stride", stride, 1)?;
    let room = input.add(&total(pads)?)?.sub(&reach(kernel, dilation)?)?;
    room.floor_div(steps)?.add(&Dim::constant(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Bindings;

    #[test]
    fn spans_and_extents_follow_from_the_definition() {
        let mut seen = 0;
        for n in 0..6 * 4 * 4 * 3 * 6 * 6 {
            let digit = |below: i64, base: i64| n / below % base;
            let [input, kernel] = [digit(1, 6) + 1, digit(6, 4) + 1];
            let [stride, dilation] = [digit(24, 4) + 1, digit(96, 3) + 1];
            let pads = [digit(288, 6) - 2, digit(1728, 6) - 2];
            let [input, kernel, stride, dilation] = [input, kernel, stride, dilation].map(|n| n as usize);
            // The outputs whose last tap is not behind the input and its padding.
            let last = |o: usize| (o * stride + (kernel - 1) * dilation) as i64;
            let outputs = (0..20).filter(|&o| last(o) < input as i64 + pads[0] + pads[1]).count();
            let Ok(axis) = ConvAxis::new(input, kernel, stride, dilation, pads) else {
                assert_eq!(outputs, 0);
                continue;
            };
            assert_eq!(axis.output(), outputs, "{axis:?}");
            for k in 0..kernel {
                let expected: Vec<usize> = (0..outputs).filter(|&o| axis.source(o, k).is_some()).collect();
                assert_eq!(axis.outputs_under(k).collect::<Vec<_>>(), expected, "{axis:?}, tap {k}");
            }
            let needed = ConvAxis::new(input, kernel, stride, dilation, [pads[0], axis.pad_end()]);
            assert_eq!(needed, Ok(axis));
            assert!(axis.pad_end() <= pads[1] && pads[1] < axis.pad_end() + stride as i64, "{axis:?}");

            let (i, k) = (Dim::symbol("I"), Dim::symbol("K"));
            let extent = conv_extent(&i, &k, stride, dilation, pads).unwrap();
            let bindings = Bindings::from([("I".into(), input), ("K".into(), kernel)]);
            assert_eq!(extent.bind(&bindings).unwrap(), Dim::from(outputs), "{axis:?}");
            seen += 1;
        }
        assert!(seen > 3000);
    }
}
