//! Convolution as ONNX spells it. Its axes are [`crate::geometry::ConvAxis`].

use super::epilogue::{Epilogue, PostOps};
use super::support::inputs::required;
use super::support::sums::Sums;
use super::support::taps::{Line, add_line};
use super::support::window::{self, Padding, may_equal, per_axis};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dispatch_numeric;
use crate::error::{Error, Result};
use crate::geometry::{Channels, ConvAxis, ConvGeometry, conv_extent, same_pads, three};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Conv`: `X [N, Cin, ..], W [Cout, Cin/group, ..], B [Cout]?, epilogue operands.. -> Y [N, Cout, ..]`.
///
/// `y[n, c, o] = epilogue(b[c] + sum of x[n, ci, i] * w[c, ci, k])` over all `ci` of the group of `c` and all `k` for which
/// `i = o * stride + k * dilation - pad` (for each axis) is an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Kernel extents; empty is those of the weights.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub group: usize,
    /// Pads.
    pub padding: Padding,
    /// Applied to each sum before it is stored.
    pub epilogue: Epilogue,
    /// Whether weights and data are integers whose sums are to stay exact, in f32: none of them may be rounded on the way, as Winograd's
    /// transforms would. Filled by a pass, never by an import.
    pub exact: bool,
}

impl Conv {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let op = Self {
            kernel_shape: window::read_sizes(&mut attributes, "kernel_shape")?,
            strides: window::read_sizes(&mut attributes, "strides")?,
            dilations: window::read_sizes(&mut attributes, "dilations")?,
            group: window::read_group(&mut attributes)?,
            padding: Padding::read(&mut attributes)?,
            epilogue: Epilogue::read(&mut attributes)?,
            exact: attributes.flag("exact", false)?,
        };
        attributes.finish("auto_pad, dilations, group, kernel_shape, pads, strides")?;
        Ok(op)
    }

    /// In canonical form: explicit pads, those at the end no larger than the last output needs.
    pub fn from_geometry(geometry: &ConvGeometry, epilogue: Epilogue) -> Self {
        let axes = geometry.axes();
        let steps = |step: fn(&ConvAxis) -> usize| window::short_steps(axes.iter().map(step).collect());
        let (begin, end) = window::short_pads(
            axes.iter().map(ConvAxis::pad).collect(),
            axes.iter().map(ConvAxis::pad_end).collect(),
        );
        Self {
            kernel_shape: vec![],
            strides: steps(ConvAxis::stride),
            dilations: steps(ConvAxis::dilation),
            group: geometry.channels().groups(),
            padding: Padding::Explicit { begin, end },
            epilogue,
            exact: false,
        }
    }

    /// Geometry for data and weights of these shapes: `auto_pad` becomes pads.
    ///
    /// `SAME_*` gives an output extent of `input / stride`, rounded up, with the pads that the last output needs (none
    /// where it needs none), the odd one at the end for `SAME_UPPER` and at the beginning for `SAME_LOWER`. The kernel
    /// counts with its dilation, as in ONNX's reference implementation; ONNX Runtime refuses that combination.
    ///
    /// # Errors
    /// When the shapes and attributes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<ConvGeometry> {
        let kernel = window::kernel(&self.kernel_shape, x, w)?;
        let axes = kernel.len();
        let axis = |i: usize| {
            let Steps { stride, dilation, pads } = self.steps(i, axes)?;
            let lower = self.padding == Padding::SameLower;
            let pads = match pads {
                Some(pads) => pads,
                None => same_pads(x[i + 2], kernel[i], stride, dilation, lower)?,
            };
            ConvAxis::new(x[i + 2], kernel[i], stride, dilation, pads)
        };
        let channels = Channels::new(x[0], x[1], w[0], self.group)?;
        if channels.input_per_group() != w[1] {
            let expected = channels.input_per_group();
            return Err(Error::input(1, "W", format!("expected [Cout, {expected}, ..], found {w:?}")));
        }
        ConvGeometry::new(channels, (0..axes).map(axis).collect::<Result<_>>()?)
    }

    /// What the attributes say of axis `i` of `axes`.
    fn steps(&self, i: usize, axes: usize) -> Result<Steps> {
        Ok(Steps {
            stride: per_axis("strides", &self.strides, axes, 1)?[i],
            dilation: per_axis("dilations", &self.dilations, axes, 1)?[i],
            pads: self.padding.per_axis(axes)?.map(|pads| pads[i]),
        })
    }

    /// Type of the output where not all extents of data and weights are known.
    fn infer_partly(&self, inputs: &[Option<InputInfo<'_>>]) -> Result<ValueType> {
        let (dtype, shapes) = window::slid(inputs, &self.kernel_shape)?;
        let Some((x, w)) = shapes else { return Ok(ValueType { dtype, shape: None }) };
        if !may_equal(&x[1], &w[1].mul(&self.group.into())?) {
            let problem =
                format!("expected weights for {} channels in {} groups, found {w:?}", x[1], self.group);
            return Err(Error::input(1, "W", problem));
        }
        if w[0].known().is_some_and(|channels| !channels.is_multiple_of(self.group)) {
            return Err(Error::attribute(
                "group",
                format!("{} does not divide {} output channels", self.group, w[0]),
            ));
        }
        let axes = x.len() - 2;
        let mut shape = vec![x[0].clone(), w[0].clone()];
        for i in 0..axes {
            let Steps { stride, dilation, pads } = self.steps(i, axes)?;
            shape.push(match pads {
                Some(pads) => conv_extent(&x[i + 2], &w[i + 2], stride, dilation, pads)?,
                None => x[i + 2].ceil_div(stride as i64)?,
            });
        }
        Ok(ValueType { dtype, shape: Some(shape) })
    }
}

struct Steps {
    stride: usize,
    dilation: usize,
    /// `None` for `SAME_*`.
    pads: Option<[i64; 2]>,
}

impl Operator for Conv {
    fn name(&self) -> &str {
        "Conv"
    }

    fn attributes(&self) -> Attributes {
        let Self { kernel_shape, strides, dilations, padding, .. } = self;
        let mut attributes = window::write_slid(kernel_shape, strides, dilations, self.group, padding);
        self.epilogue.write(&mut attributes);
        if self.exact {
            attributes.set("exact", true);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let ty = self.infer_partly(inputs)?;
        self.epilogue.infer_behind(inputs, ty, |x, w| Ok(self.geometry(x, w)?.output_shape()))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let shape = window::output_shape(self, inputs)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let geometry = self.geometry(x.shape(), w.shape())?;
        let output = dispatch_numeric!(x.dtype(), T => {
            let post_ops = PostOps::<T>::new(&self.epilogue, inputs, Some(2), 3, &shape)?;
            convolve(&geometry, &x.elements::<T>()?, &w.elements::<T>()?, &post_ops, shape)
        })?;
        Ok(vec![output])
    }
}

/// Output channels that are summed side by side, so that a row of data is read from the cache for all but the first.
const BLOCK: usize = 8;

/// Row by row: the sums of a row stay in the cache while all taps of all input channels are added to it.
fn convolve<T: Sums>(
    geometry: &ConvGeometry,
    x: &[T],
    w: &[T],
    post_ops: &PostOps<'_, T>,
    shape: Vec<usize>,
) -> Result<Tensor> {
    let channels = geometry.channels();
    let (inputs, outputs) = (channels.input_per_group(), channels.output_per_group());
    let [depth, height, width] = three(geometry.axes());
    let (plane, rows) = (depth.input() * height.input() * width.input(), depth.output() * height.output());
    let kernel = depth.kernel() * height.kernel() * width.kernel();
    let lines: Vec<Line> = (0..width.kernel()).map(|k| Line::conv(&width, k)).collect();
    let mut output = vec![T::default(); shape.iter().product()];
    let mut sums = vec![T::ZERO; BLOCK * width.output()];
    for image in 0..channels.batch() * channels.groups() {
        let data: Vec<T::Sum> =
            x[image * inputs * plane..][..inputs * plane].iter().map(|x| x.widen()).collect();
        let first_filter = image % channels.groups() * outputs;
        for block in (0..outputs).step_by(BLOCK) {
            let members = block..outputs.min(block + BLOCK);
            let filters = &w[(first_filter + block) * inputs * kernel..][..members.len() * inputs * kernel];
            for row in 0..rows {
                sums.fill(T::ZERO);
                let met = rows_met(&depth, &height, row);
                for ci in 0..inputs {
                    for &(z, y, tap) in &met {
                        let data =
                            &data[ci * plane + (z * height.input() + y) * width.input()..][..width.input()];
                        let filters = filters.chunks_exact(inputs * kernel);
                        for (sums, filter) in sums.chunks_exact_mut(width.output()).zip(filters) {
                            let weights = &filter[ci * kernel + tap * width.kernel()..][..width.kernel()];
                            for (&line, weight) in lines.iter().zip(weights) {
                                add_line::<T>(sums, weight.widen(), data, line);
                            }
                        }
                    }
                }
                for (c, sums) in members.clone().zip(sums.chunks_exact_mut(width.output())) {
                    let start = ((image * outputs + c) * rows + row) * width.output();
                    post_ops.store(start, sums, &mut output)?;
                }
            }
        }
    }
    Tensor::from_vec(shape, output)
}

/// What meets in a row of the output: depth and row of the data, and row of the kernel.
fn rows_met(depth: &ConvAxis, height: &ConvAxis, row: usize) -> Vec<(usize, usize, usize)> {
    let (oz, oy) = (row / height.output(), row % height.output());
    let mut met = vec![];
    for kz in 0..depth.kernel() {
        for ky in 0..height.kernel() {
            if let (Some(z), Some(y)) = (depth.source(oz, kz), height.source(oy, ky)) {
                met.push((z, y, kz * height.kernel() + ky));
            }
        }
    }
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ONNX Runtime 1.32 computes; with dilation, which it refuses, what ONNX's reference implementation computes.
    #[test]
    fn same_pads_are_split_as_runtimes_do() {
        let run = |kernel: usize, stride: i64, dilation: i64, auto_pad: &str| {
            let x = Tensor::from_vec([1, 1, 3], vec![1i64, 10, 100])?;
            let w = Tensor::from_vec([1, 1, kernel], (1..=kernel as i64).collect::<Vec<_>>())?;
            let attributes = Attributes::new()
                .with("strides", vec![stride])
                .with("dilations", vec![dilation])
                .with("auto_pad", auto_pad);
            Conv::read(attributes)?.eval(&[Some(&x), Some(&w)], 1)?[0].to_i64s()
        };
        assert_eq!(run(2, 1, 1, "SAME_UPPER"), Ok(vec![21, 210, 100]));
        assert_eq!(run(2, 1, 1, "SAME_LOWER"), Ok(vec![2, 21, 210]));
        assert_eq!(run(4, 2, 1, "SAME_UPPER"), Ok(vec![432, 210]));
        assert_eq!(run(4, 2, 1, "SAME_LOWER"), Ok(vec![43, 321]));
        assert_eq!(run(1, 2, 1, "SAME_UPPER"), Ok(vec![1, 100]));
        for auto_pad in ["SAME_UPPER", "SAME_LOWER"] {
            assert_eq!(run(2, 1, 2, auto_pad), Ok(vec![20, 201, 10]));
            assert_eq!(run(3, 2, 2, auto_pad), Ok(vec![302, 201]));
        }
    }
}
