//! Checked geometry of convolutions and transposed convolutions: the one place where extents, strides, dilations and pads
//! meet. Every loop bound of the program comes from here; arithmetic is checked once, in the constructors.
//!
//! A convolution reads input `i = o * stride + k * dilation - pad` for output `o` and tap `k`; a transposed convolution
//! writes output `o = i * stride + k * dilation - pad` for input `i` and tap `k`. `pad` is the pad at the beginning and may
//! be negative (a crop of a convolution's input, an extension of a transposed convolution's output); the pad at the end is
//! spoken for by the output extent.

mod pool;

pub use pool::{PoolAxis, pool_extent, same_pads};

use crate::dim::Dim;
use crate::error::{Error, Result};
use std::ops::Range;

/// Largest extent, stride, kernel, dilation or pad that is accepted.
pub const MAX_EXTENT: usize = i32::MAX as usize;

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

fn check(what: &str, value: usize, least: usize) -> Result<i64> {
    if (least..=MAX_EXTENT).contains(&value) {
        Ok(value as i64)
    } else {
        Err(Error::Geometry(format!("{what} is {value}, accepted is {least} to {MAX_EXTENT}")))
    }
}

fn check_pad(pad: i64) -> Result<i64> {
    if pad.unsigned_abs() <= MAX_EXTENT as u64 {
        Ok(pad)
    } else {
        Err(Error::Geometry(format!("pad is {pad}, accepted is -{MAX_EXTENT} to {MAX_EXTENT}")))
    }
}

fn check_output(output: i64) -> Result<usize> {
    match usize::try_from(output) {
        Ok(size) if (1..=MAX_EXTENT).contains(&size) => Ok(size),
        _ => Err(Error::Geometry(format!(
            "the output extent would be {output}, accepted is 1 to {MAX_EXTENT}"
        ))),
    }
}

/// Product of values of at most 31 bits each: fits 63 bits.
fn times(a: i64, b: i64) -> i64 {
    a * b
}

/// The `i` in `0..count` for which `i * stride - offset` is in `0..extent`.
fn span(count: usize, stride: usize, offset: i64, extent: usize) -> Range<usize> {
    let first_above = |bound: i64| (bound.max(0) as usize).div_ceil(stride).min(count);
    let start = first_above(offset);
    start..first_above(offset + extent as i64).max(start)
}

macro_rules! axis_getters {
    ($ty:ident) => {
        impl $ty {
            /// Input extent.
            pub fn input(&self) -> usize {
                self.input
            }
            /// Kernel extent, without dilation.
            pub fn kernel(&self) -> usize {
                self.kernel
            }
            /// Stride.
            pub fn stride(&self) -> usize {
                self.stride
            }
            /// Distance between neighbouring taps.
            pub fn dilation(&self) -> usize {
                self.dilation
            }
            /// Pad at the beginning; may be negative.
            pub fn pad(&self) -> i64 {
                self.pad
            }
            /// Output extent, at least 1.
            pub fn output(&self) -> usize {
                self.output
            }
            /// Extent from the first tap to the last, both counted.
            pub fn reach(&self) -> usize {
                (self.kernel - 1) * self.dilation + 1
            }
        }
    };
}
axis_getters!(ConvAxis);
axis_getters!(DeconvAxis);

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

impl DeconvAxis {
    /// An axis with `pads` cropped from the beginning and end of the full output; negative pads extend it.
    /// `output_padding` is a negative pad at the end.
    ///
    /// # Errors
    /// When a number is out of range, or nothing is left of the output.
    pub fn new(input: usize, kernel: usize, stride: usize, dilation: usize, pads: [i64; 2]) -> Result<Self> {
        let (i, k) = (check("input extent", input, 1)?, check("kernel extent", kernel, 1)?);
        let (s, d) = (check("stride", stride, 1)?, check("dilation", dilation, 1)?);
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
        (0..self.stride.min(self.output)).map(|first| self.phase(first)).collect()
    }

    fn phase(&self, first: usize) -> Phase {
        let stride = self.stride as i64;
        let count = (self.output - first).div_ceil(self.stride);
        let taps = (0..self.kernel).filter_map(|kernel| {
            let distance = first as i64 + self.pad - (kernel * self.dilation) as i64;
            let shift = distance.div_euclid(stride);
            // A tap that reads outside the input for every output of the phase is no tap.
            let reads = shift < self.input as i64 && shift + count as i64 > 0;
            (distance.rem_euclid(stride) == 0 && reads).then_some(PhaseTap { kernel, shift })
        });
        Phase { first, count, taps: taps.collect() }
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
    Ok(collapse(room.floor_div(steps)?.add(&Dim::constant(1))?))
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
    let steps = Dim::constant(check("stride", stride, 1)?);
    let full = input.sub(&Dim::constant(1))?.mul(&steps)?.add(&reach(kernel, dilation)?)?;
    Ok(collapse(full.sub(&total(pads)?)?))
}

fn reach(kernel: &Dim, dilation: usize) -> Result<Dim> {
    let dilation = Dim::constant(check("dilation", dilation, 1)?);
    kernel.sub(&Dim::constant(1))?.mul(&dilation)?.add(&Dim::constant(1))
}

fn total(pads: [i64; 2]) -> Result<Dim> {
    Ok(Dim::constant(check_pad(pads[0])? + check_pad(pads[1])?))
}

/// An extent that depends on an unknown one is unknown.
fn collapse(extent: Dim) -> Dim {
    if extent.is_unknown() { Dim::unknown() } else { extent }
}

/// A convolution whose extents are all known: `[N, Cin, ..] * [Cout, Cin/group, ..] -> [N, Cout, ..]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    channels: Channels,
    axes: Vec<ConvAxis>,
}

/// A transposed convolution whose extents are all known: `[N, Cin, ..] * [Cin, Cout/group, ..] -> [N, Cout, ..]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeconvGeometry {
    channels: Channels,
    axes: Vec<DeconvAxis>,
}

/// Batch and channels of a convolution of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channels {
    batch: usize,
    input: usize,
    output: usize,
    groups: usize,
}

impl Channels {
    /// Batch and channel counts.
    ///
    /// # Errors
    /// When one is out of range or the groups do not divide the channels.
    pub fn new(batch: usize, input: usize, output: usize, groups: usize) -> Result<Self> {
        check("batch", batch, 0)?;
        check("number of input channels", input, 1)?;
        check("number of output channels", output, 1)?;
        check("number of groups", groups, 1)?;
        if !input.is_multiple_of(groups) || !output.is_multiple_of(groups) {
            return Err(Error::Geometry(format!(
                "{groups} groups do not divide {input} input and {output} output channels"
            )));
        }
        Ok(Self { batch, input, output, groups })
    }

    /// Images in the batch.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// Input channels, all groups together.
    pub fn input(&self) -> usize {
        self.input
    }
    /// Output channels, all groups together.
    pub fn output(&self) -> usize {
        self.output
    }
    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }
    /// Input channels of one group.
    pub fn input_per_group(&self) -> usize {
        self.input / self.groups
    }
    /// Output channels of one group.
    pub fn output_per_group(&self) -> usize {
        self.output / self.groups
    }
}

macro_rules! geometry {
    ($ty:ident, $axis:ident) => {
        impl $ty {
            /// From channels and 1 to 3 spatial axes.
            ///
            /// # Errors
            /// When there are more axes or none, or a tensor of it is too large.
            pub fn new(channels: Channels, axes: Vec<$axis>) -> Result<Self> {
                if !(1..=3).contains(&axes.len()) {
                    return Err(Error::Geometry(format!("{} spatial axes, accepted are 1 to 3", axes.len())));
                }
                let geometry = Self { channels, axes };
                crate::tensor::element_count(&geometry.input_shape())?;
                crate::tensor::element_count(&geometry.output_shape())?;
                crate::tensor::element_count(&geometry.weight_shape())?;
                Ok(geometry)
            }

            /// Batch and channels.
            pub fn channels(&self) -> Channels {
                self.channels
            }

            /// Spatial axes, outermost first.
            pub fn axes(&self) -> &[$axis] {
                &self.axes
            }

            /// `[N, Cin, ..]`.
            pub fn input_shape(&self) -> Vec<usize> {
                let head = [self.channels.batch, self.channels.input];
                head.into_iter().chain(self.axes.iter().map($axis::input)).collect()
            }

            /// `[N, Cout, ..]`.
            pub fn output_shape(&self) -> Vec<usize> {
                let head = [self.channels.batch, self.channels.output];
                head.into_iter().chain(self.axes.iter().map($axis::output)).collect()
            }
        }
    };
}
geometry!(ConvGeometry, ConvAxis);
geometry!(DeconvGeometry, DeconvAxis);

impl ConvGeometry {
    /// `[Cout, Cin/group, ..]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let head = [self.channels.output, self.channels.input_per_group()];
        head.into_iter().chain(self.axes.iter().map(ConvAxis::kernel)).collect()
    }

    /// Multiply-adds, taps in the padding counted.
    pub fn macs(&self) -> u64 {
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.output * axis.kernel) as u64).product();
        channel_pairs(self.channels).saturating_mul(per_pair)
    }
}

impl DeconvGeometry {
    /// `[Cin, Cout/group, ..]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let head = [self.channels.input, self.channels.output_per_group()];
        head.into_iter().chain(self.axes.iter().map(DeconvAxis::kernel)).collect()
    }

    /// Multiply-adds of the scatter form: every input under every tap, cropped ones counted.
    pub fn scatter_macs(&self) -> u64 {
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.input * axis.kernel) as u64).product();
        channel_pairs(self.channels).saturating_mul(per_pair)
    }

    /// Multiply-adds of the sub-pixel form: every output under every tap of its phase.
    pub fn phase_macs(&self) -> u64 {
        let per_axis = |axis: &DeconvAxis| {
            axis.phases().iter().map(|phase| (phase.count * phase.taps.len()) as u64).sum::<u64>()
        };
        channel_pairs(self.channels).saturating_mul(self.axes.iter().map(per_axis).product())
    }

    /// Multiply-adds of the zero-insertion form: every output under every tap.
    pub fn zero_insertion_macs(&self) -> u64 {
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.output * axis.kernel) as u64).product();
        channel_pairs(self.channels).saturating_mul(per_pair)
    }
}

/// Axes with axes of extent 1 before them, for loops that are written once for 1 to 3 axes.
pub(crate) trait Axis: Copy {
    /// The axis that leaves everything as it is: one input, one tap, one output.
    const UNIT: Self;
}

impl Axis for ConvAxis {
    const UNIT: Self = Self { input: 1, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 1 };
}

impl Axis for DeconvAxis {
    const UNIT: Self = Self { input: 1, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 1 };
}

/// The last three of `axes`, missing ones in front filled up with [`Axis::UNIT`].
pub(crate) fn three<A: Axis>(axes: &[A]) -> [A; 3] {
    let at = |i: usize| (axes.len() + i).checked_sub(3).map_or(A::UNIT, |i| axes[i]);
    [at(0), at(1), at(2)]
}

fn channel_pairs(channels: Channels) -> u64 {
    (channels.batch * channels.input).saturating_mul(channels.output_per_group()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every phase tap is an (input, tap) pair that reaches the output, and each such pair is a phase tap, once.
    #[test]
    fn phases_are_the_definition_regrouped() {
        let mut seen = 0;
        for input in 1..=4 {
            for kernel in 1..=5 {
                for stride in 1..=4 {
                    for dilation in 1..=3 {
                        for begin in -2..=4 {
                            for end in -3..=4 {
                                let Ok(axis) = DeconvAxis::new(input, kernel, stride, dilation, [begin, end])
                                else {
                                    continue;
                                };
                                let mut pairs: Vec<(usize, usize, usize)> = vec![];
                                let mut covered = vec![0; axis.output()];
                                for phase in axis.phases() {
                                    for q in 0..phase.count {
                                        covered[phase.first + q * stride] += 1;
                                        for tap in &phase.taps {
                                            let i = q as i64 + tap.shift;
                                            if (0..input as i64).contains(&i) {
                                                pairs.push((
                                                    phase.first + q * stride,
                                                    i as usize,
                                                    tap.kernel,
                                                ));
                                            }
                                        }
                                    }
                                }
                                let mut expected: Vec<_> = (0..input)
                                    .flat_map(|i| {
                                        (0..kernel).filter_map(move |k| Some((axis.target(i, k)?, i, k)))
                                    })
                                    .collect();
                                pairs.sort_unstable();
                                expected.sort_unstable();
                                assert_eq!(pairs, expected, "{axis:?}");
                                assert!(covered.iter().all(|&count| count == 1), "{axis:?}");
                                assert_eq!(axis.pad_end(), end, "{axis:?}");
                                seen += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(seen > 5000);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let max = MAX_EXTENT;
        assert!(DeconvAxis::new(max, max, max, max, [0, 0]).is_err());
        assert!(DeconvAxis::new(usize::MAX, 1, 1, 1, [0, 0]).is_err());
        assert!(DeconvAxis::new(4, 2, 2, 1, [i64::MIN, 0]).is_err());
        assert!(DeconvAxis::new(2, 2, 2, 1, [2, 2]).is_err());
        assert!(ConvAxis::new(max, max, 1, max, [i64::MAX, 1]).is_err());
        assert!(ConvAxis::new(3, 5, 1, 1, [0, 1]).is_err());
        assert!(Channels::new(1, 6, 4, 4).is_err());
    }
}
