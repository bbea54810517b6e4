//! One spatial axis of a transposed convolution, and its phases.

use super::{Axis, axis_getters, check, check_output, check_pad, reach, span, times, total};
use crate::dim::Dim;
use crate::error::{Error, Result};
use std::ops::Range;

/// One spatial axis of a transposed convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeconvAxis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: i64,
    output: usize,
}

/// The outputs `o = phase + q * stride` for `q` in `0..count`: a stride-1 convolution with the taps listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Phase {
    /// First output of the phase, below the stride.
    pub first: usize,
    /// Number of outputs.
    pub count: usize,
    /// Taps by falling `shift`; empty when no tap reaches this phase (its output is the bias).
    pub taps: Vec<PhaseTap>,
}

/// A tap of a [`Phase`]: output `q` reads input `q + shift` under kernel element `kernel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhaseTap {
    /// Index into the kernel.
    pub kernel: usize,
    /// Input position less `q`.
    pub shift: i64,
}

impl Phase {
    /// The ranges of neighbouring phases that have as many outputs and read the same positions: under each of their taps, their
    /// outputs lie side by side, and so do their kernel elements where the dilation is 1.
    pub fn aligned(phases: &[Self]) -> Vec<Range<usize>> {
        let mut start = 0;
        let runs = phases.chunk_by(|a, b| {
            let [a_shifts, b_shifts] = [a, b].map(|phase| phase.taps.iter().map(|tap| tap.shift));
            a.first + 1 == b.first && a.count == b.count && a_shifts.eq(b_shifts)
        });
        let ranges = runs.map(|run| {
            start += run.len();
            start - run.len()..start
        });
        ranges.collect()
    }
}

axis_getters!(DeconvAxis, i64);

/// Largest stride: each of that many phases is computed with its own taps.
pub const MAX_DECONV_STRIDE: usize = 1 << 16;

fn check_stride(stride: usize) -> Result<i64> {
    if (1..=MAX_DECONV_STRIDE).contains(&stride) {
        Ok(stride as i64)
    } else {
        let accepted = format!("accepted is 1 to {MAX_DECONV_STRIDE}");
        Err(Error::Geometry(format!("stride of a transposed convolution is {stride}, {accepted}")))
    }
}

impl DeconvAxis {
    /// An axis with `pads` cropped from the beginning and end of the full output; negative pads extend it.
    /// `output_padding` is a negative pad at the end.
    ///
    /// # Errors
    /// When a number is out of range, or nothing is left of the output.
    pub fn new(input: usize, kernel: usize, stride: usize, dilation: usize, pads: [i64; 2]) -> Result<Self> {
        let (i, k) = (check("input extent", input, 1)?, check("kernel extent", kernel, 1)?);
        let (s, d) = (check_stride(stride)?, check("dilation", dilation, 1)?);
        let [begin, end] = [check_pad(pads[0])?, check_pad(pads[1])?];
        let reach = check("reach of the kernel", (times(k - 1, d) + 1) as usize, 1)?;
        let full = check("full output extent", (times(i - 1, s) + reach) as usize, 1)?;
        let output = check_output(full - begin - end)?;
        Ok(Self { input, kernel, stride, dilation, pad: begin, output })
    }

    /// Extent of the output before anything is cropped: from the first tap of the first input to the last of the last.
    pub fn full_output(&self) -> usize {
        (self.input - 1) * self.stride + self.reach()
    }

    /// Pad (crop) at the end; negative where the output reaches past every tap.
    pub fn pad_end(&self) -> i64 {
        self.full_output() as i64 - self.pad - self.output as i64
    }

    /// Output that input `i` reaches through tap `k`, when it is not cropped.
    pub fn target(&self, i: usize, k: usize) -> Option<usize> {
        let o = (i * self.stride + k * self.dilation) as i64 - self.pad;
        usize::try_from(o).ok().filter(|&o| o < self.output)
    }

    /// The phases, in the order of their first output: one for each residue of the output modulo the stride that occurs.
    pub fn phases(&self) -> Vec<Phase> {
        let empty = |first| Phase { first, count: self.phase_count(first), taps: vec![] };
        let mut phases: Vec<Phase> = (0..self.stride.min(self.output)).map(empty).collect();
        for kernel in 0..self.kernel {
            let (first, shift) = self.phase_of(kernel);
            if let Some(phase) = phases.get_mut(first).filter(|phase| self.reads(phase.count, shift)) {
                phase.taps.push(PhaseTap { kernel, shift });
            }
        }
        phases
    }

    /// Residue of the outputs that tap `kernel` reaches, and how far behind such an output's number in its phase the input
    /// lies that reaches it.
    fn phase_of(&self, kernel: usize) -> (usize, i64) {
        // o = i * stride + target = (i - shift) * stride + first.
        let target = (kernel * self.dilation) as i64 - self.pad;
        let stride = self.stride as i64;
        (target.rem_euclid(stride) as usize, -target.div_euclid(stride))
    }

    /// Number of outputs of the phase of output `first`; none behind the end.
    fn phase_count(&self, first: usize) -> usize {
        self.output.saturating_sub(first).div_ceil(self.stride)
    }

    /// False for a tap that reads outside the input for every output of a phase: that is no tap.
    fn reads(&self, count: usize, shift: i64) -> bool {
        shift < self.input as i64 && shift + count as i64 > 0
    }

    /// Multiply-adds of the sub-pixel form along this axis: every output under every tap of its phase.
    pub fn phase_macs(&self) -> u64 {
        let outputs = |kernel| {
            let (first, shift) = self.phase_of(kernel);
            let count = self.phase_count(first);
            if self.reads(count, shift) { count as u64 } else { 0 }
        };
        (0..self.kernel).map(outputs).sum()
    }

    /// Number of outputs of the largest phase: `ceil(output / stride)`.
    pub fn phase_extent(&self) -> usize {
        self.output.div_ceil(self.stride)
    }

    /// The same axis extended at the end to whole strides, so that all phases have [`DeconvAxis::phase_extent`] outputs.
    ///
    /// # Errors
    /// When the extent is out of range.
    pub fn whole_phases(&self) -> Result<Self> {
        self.cropped(0, self.output as i64 - times(self.phase_extent() as i64, self.stride as i64))
    }

    /// Pads of the zero-insertion form: those of the sequence with zeros between the inputs, then those of the stride-1
    /// convolution over it. The convolution's are not negative; the sequence is cropped where the convolution's would be.
    pub fn insertion_pads(&self) -> ([i64; 2], [i64; 2]) {
        let halo = self.reach() as i64 - 1;
        let mut conv = [halo - self.pad, halo - self.pad_end()];
        let mut insert = conv.map(|pad| pad.min(0));
        conv = conv.map(|pad| pad.max(0));
        // Where every input is cropped, zeros on the other side keep the sequence from becoming empty.
        let missing = 1 - ((self.input - 1) * self.stride + 1) as i64 - insert[0] - insert[1];
        if missing > 0 {
            let side = usize::from(conv[1] > conv[0]);
            insert[side] += missing;
            conv[side] -= missing;
        }
        (insert, conv)
    }

    /// Inputs whose tap `k` is not cropped.
    pub fn inputs_under(&self, k: usize) -> Range<usize> {
        span(self.input, self.stride, self.pad - (k * self.dilation) as i64, self.output)
    }

    /// The same axis with `begin` and `end` more cropped.
    ///
    /// # Errors
    /// When nothing would be left.
    pub fn cropped(&self, begin: i64, end: i64) -> Result<Self> {
        let pad = check_pad(self.pad + check_pad(begin)?)?;
        let output = check_output(self.output as i64 - begin - check_pad(end)?)?;
        Ok(Self { pad, output, ..*self })
    }
}

impl Axis for DeconvAxis {
    const UNIT: Self = Self { input: 1, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 1 };
}

/// Output extent of a transposed convolution's axis: that of [`DeconvAxis::new`] when all is known, else its formula.
///
/// # Errors
/// As [`DeconvAxis::new`], and on overflow.
pub fn deconv_extent(
    input: &Dim,
    kernel: &Dim,
    stride: usize,
    dilation: usize,
    pads: [i64; 2],
) -> Result<Dim> {
    if let (Some(input), Some(kernel)) = (input.known(), kernel.known()) {
        return Ok(DeconvAxis::new(input, kernel, stride, dilation, pads)?.output().into());
    }
    let steps = Dim::constant(check_stride(stride)?);
    let full = input.sub(&Dim::constant(1))?.mul(&steps)?.add(&reach(kernel, dilation)?)?;
    full.sub(&total(pads)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Bindings;
    use crate::geometry::ConvAxis;

    /// Every axis in a small box, with its pad at the end.
    fn small_box() -> Vec<(DeconvAxis, i64)> {
        let mut axes = vec![];
        for n in 0..4 * 5 * 4 * 3 * 7 * 8 {
            let digit = |below: i64, base: i64| n / below % base;
            let [input, kernel] = [digit(1, 4) + 1, digit(4, 5) + 1];
            let [stride, dilation] = [digit(20, 4) + 1, digit(80, 3) + 1];
            let [begin, end] = [digit(240, 7) - 2, digit(1680, 8) - 3];
            let [input, kernel, stride, dilation] = [input, kernel, stride, dilation].map(|n| n as usize);
            let axis = DeconvAxis::new(input, kernel, stride, dilation, [begin, end]);
            axes.extend(axis.map(|axis| (axis, end)));
        }
        assert!(axes.len() > 5000);
        axes
    }

    /// Ranges cover all phases in order, their taps differ in the kernel element alone, and no two of them could be one.
    #[test]
    fn aligned_phases_differ_in_the_kernel_element_alone() {
        for (axis, _) in small_box() {
            let phases = axis.phases();
            let ranges = Phase::aligned(&phases);
            let numbers: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(numbers, (0..phases.len()).collect::<Vec<_>>());
            let reads = |phase: usize| {
                let of_step = |q: usize| phases[phase].taps.iter().map(move |tap| q as i64 + tap.shift);
                (0..phases[phase].count).map(|q| of_step(q).collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            let is_beside =
                |a: usize, b: usize| phases[b].first == phases[a].first + 1 && reads(a) == reads(b);
            for range in &ranges {
                for phase in range.clone().skip(1) {
                    assert!(is_beside(phase - 1, phase), "{axis:?}");
                    let moved = phases[phase].taps.iter().zip(&phases[phase - 1].taps);
                    let moved: Vec<usize> = moved.map(|(b, a)| b.kernel.abs_diff(a.kernel)).collect();
                    assert!(axis.dilation() > 1 || moved.iter().all(|&moved| moved == 1), "{axis:?}");
                }
                let next = range.end;
                assert!(next == phases.len() || !is_beside(next - 1, next), "{axis:?}");
            }
        }
    }

    /// Every phase tap is an (input, tap) pair that reaches the output, and each such pair is a phase tap, once.
    #[test]
    fn phases_are_the_definition_regrouped() {
        for (axis, end) in small_box() {
            let mut pairs: Vec<(usize, usize, usize)> = vec![];
            let mut covered = vec![0; axis.output()];
            for phase in axis.phases() {
                for q in 0..phase.count {
                    let o = phase.first + q * axis.stride();
                    covered[o] += 1;
                    for tap in &phase.taps {
                        let i = q as i64 + tap.shift;
                        if (0..axis.input() as i64).contains(&i) {
                            pairs.push((o, i as usize, tap.kernel));
                        }
                    }
                }
                assert!(phase.taps.is_sorted_by(|a, b| a.shift > b.shift), "{axis:?}");
            }
            let targets = |i| (0..axis.kernel()).filter_map(move |k| axis.target(i, k).map(|o| (o, i, k)));
            let mut expected: Vec<_> = (0..axis.input()).flat_map(targets).collect();
            pairs.sort_unstable();
            expected.sort_unstable();
            assert_eq!(pairs, expected, "{axis:?}");
            assert!(covered.iter().all(|&count| count == 1), "{axis:?}");
            assert_eq!(axis.pad_end(), end, "{axis:?}");
        }
    }

    #[test]
    fn phase_macs_count_the_phases() {
        for (axis, _) in small_box() {
            let counted: usize = axis.phases().iter().map(|phase| phase.count * phase.taps.len()).sum();
            assert_eq!(axis.phase_macs(), counted as u64, "{axis:?}");
        }
    }

    #[test]
    fn whole_phases_extend_the_end() {
        for (axis, _) in small_box() {
            let whole = axis.whole_phases().unwrap();
            assert_eq!(whole.output(), axis.phase_extent() * axis.stride());
            assert_eq!(whole.phases().len(), axis.stride());
            assert!(whole.phases().iter().all(|phase| phase.count == axis.phase_extent()));
            assert_eq!(whole.target(0, 0).filter(|&o| o < axis.output()), axis.target(0, 0));
        }
    }

    #[test]
    fn inputs_under_a_tap_are_those_with_a_target() {
        for (axis, _) in small_box() {
            for k in 0..axis.kernel() {
                let expected: Vec<usize> =
                    (0..axis.input()).filter(|&i| axis.target(i, k).is_some()).collect();
                assert_eq!(axis.inputs_under(k).collect::<Vec<_>>(), expected, "{axis:?}, tap {k}");
            }
        }
    }

    /// The stride-1 convolution over the inserted sequence has our output, and reads under its tap `K - 1 - k` what we
    /// write under `k`.
    #[test]
    fn insertion_pads_make_a_convolution() {
        for (axis, _) in small_box() {
            let (insert, conv) = axis.insertion_pads();
            assert!(conv.iter().all(|&pad| pad >= 0), "{axis:?}");
            let sequence =
                DeconvAxis::new(axis.input(), 1, axis.stride(), 1, insert.map(|pad| -pad)).unwrap();
            let conv = ConvAxis::new(sequence.output(), axis.kernel(), 1, axis.dilation(), conv).unwrap();
            assert_eq!(conv.output(), axis.output(), "{axis:?}");
            for k in 0..axis.kernel() {
                for i in 0..axis.input() {
                    let read = |o: &usize| {
                        let j = conv.source(*o, axis.kernel() - 1 - k);
                        j.is_some() && j == sequence.target(i, 0)
                    };
                    assert_eq!((0..axis.output()).find(read), axis.target(i, k), "{axis:?}");
                }
            }
        }
    }

    #[test]
    fn symbolic_extent_is_the_formula() {
        for (axis, end) in small_box() {
            let pads = [axis.pad(), end];
            let (i, k) = (Dim::symbol("I"), Dim::symbol("K"));
            let extent = deconv_extent(&i, &k, axis.stride(), axis.dilation(), pads).unwrap();
            let bindings = Bindings::from([("I".into(), axis.input()), ("K".into(), axis.kernel())]);
            assert_eq!(extent.bind(&bindings).unwrap(), Dim::from(axis.output()), "{axis:?}");
        }
        let unknown = deconv_extent(&Dim::unknown(), &Dim::constant(3), 2, 1, [1, 1]).unwrap();
        assert!(unknown.is_unknown());
    }
}
