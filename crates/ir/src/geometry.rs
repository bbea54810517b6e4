//! Checked geometry of convolutions and transposed convolutions: the one place where extents, strides, dilations and pads
//! meet. Every loop bound of the program comes from here; arithmetic is checked once, in the constructors.
//!
//! A convolution reads input `i = o * stride + k * dilation - pad` for output `o` and tap `k`; a transposed convolution
//! writes output `o = i * stride + k * dilation - pad` for input `i` and tap `k`. `pad` is the pad at the beginning and may
//! be negative (a crop of a convolution's input, an extension of a transposed convolution's output); the pad at the end is
//! spoken for by the output extent.

mod conv;
mod deconv;
mod pool;

pub use conv::{ConvAxis, conv_extent};
pub use deconv::{DeconvAxis, MAX_DECONV_STRIDE, Phase, PhaseTap, deconv_extent};
pub use pool::{PoolAxis, pool_extent, same_pads};

use crate::dim::Dim;
use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;

/// Largest extent, stride, kernel, dilation or pad that is accepted.
pub const MAX_EXTENT: usize = i32::MAX as usize;

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
    ($ty:ident, $pad:ty) => {
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
            /// Pad at the beginning; may be negative, but of pooling.
            pub fn pad(&self) -> $pad {
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
use axis_getters;

fn reach(kernel: &Dim, dilation: usize) -> Result<Dim> {
    let dilation = Dim::constant(check("dilation", dilation, 1)?);
    kernel.sub(&Dim::constant(1))?.mul(&dilation)?.add(&Dim::constant(1))
}

fn total(pads: [i64; 2]) -> Result<Dim> {
    Ok(Dim::constant(check_pad(pads[0])? + check_pad(pads[1])?))
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
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.output() * axis.kernel()) as u64).product();
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
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.input() * axis.kernel()) as u64).product();
        channel_pairs(self.channels).saturating_mul(per_pair)
    }

    /// Multiply-adds of the sub-pixel form: every output under every tap of its phase.
    pub fn phase_macs(&self) -> u64 {
        channel_pairs(self.channels).saturating_mul(self.axes.iter().map(DeconvAxis::phase_macs).product())
    }

    /// Multiply-adds of the zero-insertion form: every output under every tap.
    pub fn zero_insertion_macs(&self) -> u64 {
        let per_pair: u64 = self.axes.iter().map(|axis| (axis.output() * axis.kernel()) as u64).product();
        channel_pairs(self.channels).saturating_mul(per_pair)
    }
}

/// Axes with axes of extent 1 before them, for loops that are written once for 1 to 3 axes.
pub(crate) trait Axis: Copy {
    /// The axis that leaves everything as it is: one input, one tap, one output.
    const UNIT: Self;
}

/// The last three of `axes`, missing ones in front filled up with [`Axis::UNIT`].
pub(crate) fn three<A: Axis>(axes: &[A]) -> [A; 3] {
    let at = |i: usize| (axes.len() + i).checked_sub(3).map_or(A::UNIT, |i| axes[i]);
    [at(0), at(1), at(2)]
}

fn channel_pairs(channels: Channels) -> u64 {
    (channels.batch * channels.input).saturating_mul(channels.output_per_group()) as u64
}

impl fmt::Display for DeconvGeometry {
    /// `256->128 k4x4 s2x2 p1x1 16x16 -> 32x32`, with batch, groups and dilation where they are not 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spell =
            |of: &dyn Fn(&DeconvAxis) -> String| self.axes.iter().map(of).collect::<Vec<_>>().join("x");
        let Channels { batch, input, output, groups } = self.channels;
        write!(
            f,
            "{input}->{output} k{} s{}",
            spell(&|a| a.kernel().to_string()),
            spell(&|a| a.stride().to_string())
        )?;
        if self.axes.iter().any(|axis| axis.dilation() != 1) {
            write!(f, " d{}", spell(&|a| a.dilation().to_string()))?;
        }
        let pads = spell(&|axis| match (axis.pad(), axis.pad_end()) {
            (begin, end) if begin == end => begin.to_string(),
            (begin, end) => format!("{begin}:{end}"),
        });
        write!(f, " p{pads}")?;
        if groups != 1 {
            write!(f, " g{groups}")?;
        }
        if batch != 1 {
            write!(f, " n{batch}")?;
        }
        write!(f, " {} -> {}", spell(&|a| a.input().to_string()), spell(&|a| a.output().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_numbers_are_refused() {
        let max = MAX_EXTENT;
        assert!(DeconvAxis::new(max, max, max, max, [0, 0]).is_err());
        assert!(DeconvAxis::new(usize::MAX, 1, 1, 1, [0, 0]).is_err());
        assert!(DeconvAxis::new(4, 2, 2, 1, [i64::MIN, 0]).is_err());
        assert!(DeconvAxis::new(2, 2, 2, 1, [2, 2]).is_err());
        assert!(DeconvAxis::new(1, 2, max, max / 2, [0, 0]).is_err());
        assert!(ConvAxis::new(max, max, 1, max, [i64::MAX, 1]).is_err());
        assert!(ConvAxis::new(3, 5, 1, 1, [0, 1]).is_err());
        assert!(Channels::new(1, 6, 4, 4).is_err());
    }
}
