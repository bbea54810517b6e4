//! Transposed convolution as ONNX spells it. Its axes are [`crate::geometry::DeconvAxis`]; the forms it is rewritten into
//! are in [`super::forms`].

use super::epilogue::{Epilogue, PostOps};
use super::support::inputs::required;
use super::support::sums::Sums;
use super::support::taps::{Extents, Line, PlaneTaps, add_tap};
use super::support::window::{self, Padding, may_equal, per_axis};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::error::{Error, Result};
use crate::geometry::{Channels, DeconvAxis, DeconvGeometry, deconv_extent, three};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `ConvTranspose`: `X [N, Cin, ..], W [Cin, Cout/group, ..], B [Cout]?, epilogue operands.. -> Y [N, Cout, ..]`.
///
/// `y[n, c, o] = epilogue(b[c] + sum of x[n, ci, i] * w[ci, c, k])` over all `i` and `k` with
/// `i * stride + k * dilation - pad = o` (for each axis) and all `ci` of the group of `c`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvTranspose {
    /// Kernel extents; empty is those of the weights.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub group: usize,
    /// Pads, cropped from the full output.
    pub padding: Padding,
    /// Added to the end of each axis; empty is all 0. Canonicalisation turns it into negative pads.
    pub output_padding: Vec<usize>,
    /// Wanted output extents; empty is to follow from the pads. Canonicalisation turns it into pads.
    pub output_shape: Vec<usize>,
    /// Applied to each sum before it is stored.
    pub epilogue: Epilogue,
}

impl ConvTranspose {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let output_padding = attributes.ints("output_padding")?.unwrap_or_default();
        let non_negative = |value| {
            let problem = || Error::attribute("output_padding", format!("expected 0 or more, found {value}"));
            usize::try_from(value).map_err(|_| problem())
        };
        let op = Self {
            kernel_shape: window::read_sizes(&mut attributes, "kernel_shape")?,
            strides: window::read_sizes(&mut attributes, "strides")?,
            dilations: window::read_sizes(&mut attributes, "dilations")?,
            group: window::read_group(&mut attributes)?,
            padding: Padding::read(&mut attributes)?,
            output_padding: output_padding.into_iter().map(non_negative).collect::<Result<_>>()?,
            output_shape: window::read_sizes(&mut attributes, "output_shape")?,
            epilogue: Epilogue::read(&mut attributes)?,
        };
        attributes.finish(
            "auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides",
        )?;
        Ok(op)
    }

    /// In canonical form: explicit signed pads, no `output_padding` and no `output_shape`.
    pub fn from_geometry(geometry: &DeconvGeometry, epilogue: Epilogue) -> Self {
        let (begin, end) = pads_of(geometry);
        Self {
            kernel_shape: vec![],
            strides: steps(geometry, DeconvAxis::stride),
            dilations: steps(geometry, DeconvAxis::dilation),
            group: geometry.channels().groups(),
            padding: Padding::Explicit { begin, end },
            output_padding: vec![],
            output_shape: vec![],
            epilogue,
        }
    }

    /// Geometry for data and weights of these shapes: `auto_pad`, `output_shape` and `output_padding` become signed pads.
    ///
    /// ONNX's texts and runtimes disagree in places; docs/geometry.md has the evidence. The reading used here, for every
    /// opset:
    /// - With explicit pads or `VALID`, the output extent is `full + output_padding - pads`.
    /// - With `SAME_*`, it is `input * stride`, whatever `output_padding` is; with `output_shape`, it is that, and `pads`
    ///   are ignored. What `full + output_padding` has too much is cropped: half at each side, the odd one at the end
    ///   for `SAME_UPPER` and at the beginning otherwise (opset 11's text, not opset 1's, which contradicts itself).
    /// - What it has too little is added at the end; pads that follow from an extent are not negative. So `SAME_*` is the
    ///   transpose of `Conv`'s.
    /// - `output_shape` may have all axes; batch and channels must then be right.
    ///
    /// # Errors
    /// When the shapes and attributes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<DeconvGeometry> {
        let kernel = window::kernel(&self.kernel_shape, x, w)?;
        let axes = kernel.len();
        let axis = |i: usize| {
            let Steps { stride, dilation, pads, extra, wanted } = self.steps(i, axes)?;
            let free = DeconvAxis::new(x[i + 2], kernel[i], stride, dilation, [0, 0])?;
            let full = free.full_output() as i64;
            let target = match (wanted, pads) {
                (Some(wanted), _) => wanted as i64,
                (None, None) => (x[i + 2] as i64).saturating_mul(stride as i64),
                (None, Some([begin, end])) => {
                    return free.cropped(begin, end.saturating_sub(extra));
                }
            };
            let total = full.saturating_add(extra).saturating_sub(target).max(0);
            let half = total / 2;
            let begin = if self.padding == Padding::SameUpper { half } else { total - half };
            free.cropped(begin, full.saturating_sub(target).saturating_sub(begin))
        };
        let geometry = deconv_geometry(x, w, self.group, (0..axes).map(axis).collect::<Result<_>>()?)?;
        if self.output_shape.len() == axes + 2 && self.output_shape != geometry.output_shape() {
            let problem = format!("{:?} is not {:?}", self.output_shape, geometry.output_shape());
            return Err(Error::attribute("output_shape", problem));
        }
        Ok(geometry)
    }

    /// What the attributes say of axis `i` of `axes`.
    fn steps(&self, i: usize, axes: usize) -> Result<Steps> {
        let wanted = match self.output_shape.len() {
            0 => None,
            n if n == axes + 2 => Some(self.output_shape[i + 2]),
            _ => Some(per_axis("output_shape", &self.output_shape, axes, 0)?[i]),
        };
        Ok(Steps {
            stride: per_axis("strides", &self.strides, axes, 1)?[i],
            dilation: per_axis("dilations", &self.dilations, axes, 1)?[i],
            pads: self.padding.per_axis(axes)?.map(|pads| pads[i]),
            extra: i64::try_from(per_axis("output_padding", &self.output_padding, axes, 0)?[i])
                .unwrap_or(i64::MAX),
            wanted,
        })
    }

    /// Extent of axis `i` of `axes`, for an input extent or a kernel that need not be known.
    fn extent(&self, i: usize, axes: usize, input: &Dim, kernel: &Dim) -> Result<Dim> {
        let Steps { stride, dilation, pads, extra, wanted } = self.steps(i, axes)?;
        match (wanted, pads) {
            (Some(wanted), _) => Ok(wanted.into()),
            (None, None) => Ok(input.mul(&stride.into())?),
            (None, Some([begin, end])) => {
                deconv_extent(input, kernel, stride, dilation, [begin, end.saturating_sub(extra)])
            }
        }
    }
}

struct Steps {
    stride: usize,
    dilation: usize,
    /// `None` for `SAME_*`.
    pads: Option<[i64; 2]>,
    /// Output padding.
    extra: i64,
    /// Extent in `output_shape`.
    wanted: Option<usize>,
}

impl Operator for ConvTranspose {
    fn name(&self) -> &str {
        "ConvTranspose"
    }

    fn attributes(&self) -> Attributes {
        let Self { kernel_shape, strides, dilations, padding, .. } = self;
        let mut attributes = window::write_slid(kernel_shape, strides, dilations, self.group, padding);
        window::write_sizes(&mut attributes, "output_padding", &self.output_padding);
        window::write_sizes(&mut attributes, "output_shape", &self.output_shape);
        self.epilogue.write(&mut attributes);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let extent = |i: usize, axes, input: &Dim, kernel: &Dim| self.extent(i, axes, input, kernel);
        let ty = infer_deconv(inputs, self.group, &self.kernel_shape, extent)?;
        self.epilogue.infer_behind(inputs, ty, |x, w| Ok(self.geometry(x, w)?.output_shape()))
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let shape = window::output_shape(self, inputs)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let geometry = self.geometry(x.shape(), w.shape())?;
        let axes = three(geometry.axes());
        let (plane, extents) = (deconv_taps(&axes), Extents(axes.map(|axis| axis.output())));
        let output = dispatch_numeric!(x.dtype(), T => {
            let post_ops = PostOps::<T>::new(&self.epilogue, inputs, Some(2), 3, &shape)?;
            deconv_planes(&geometry, &[plane], extents, [x, w], &post_ops, shape)
        })?;
        Ok(vec![output])
    }
}

/// Strides or dilations of a geometry in their shortest spelling.
pub(super) fn steps(geometry: &DeconvGeometry, step: fn(&DeconvAxis) -> usize) -> Vec<usize> {
    window::short_steps(geometry.axes().iter().map(step).collect())
}

/// Pads of a geometry, at the beginning and at the end of each axis, in their shortest spelling.
pub(super) fn pads_of(geometry: &DeconvGeometry) -> (Vec<i64>, Vec<i64>) {
    let axes = geometry.axes();
    window::short_pads(
        axes.iter().map(DeconvAxis::pad).collect(),
        axes.iter().map(DeconvAxis::pad_end).collect(),
    )
}

/// Geometry of these axes, with the channels of data and weights of these shapes.
pub(super) fn deconv_geometry(
    x: &[usize],
    w: &[usize],
    group: usize,
    axes: Vec<DeconvAxis>,
) -> Result<DeconvGeometry> {
    let channels = Channels::new(x[0], x[1], w[1].saturating_mul(group), group)?;
    if channels.input() != w[0] {
        return Err(Error::input(1, "W", format!("expected [{}, Cout/group, ..], found {w:?}", x[1])));
    }
    DeconvGeometry::new(channels, axes)
}

/// Type of `[N, Cout, ..]` for data and transposed-convolution weights, with `extent` of an axis' number, the number of
/// axes, and its input and kernel extents.
pub(super) fn infer_deconv(
    inputs: &[Option<InputInfo<'_>>],
    group: usize,
    kernel_shape: &[usize],
    mut extent: impl FnMut(usize, usize, &Dim, &Dim) -> Result<Dim>,
) -> Result<ValueType> {
    let (dtype, shapes) = window::slid(inputs, kernel_shape)?;
    let Some((x, w)) = shapes else { return Ok(ValueType { dtype, shape: None }) };
    if !may_equal(&x[1], &w[0]) {
        return Err(Error::input(1, "W", format!("expected [{}, Cout/group, ..], found {w:?}", x[1])));
    }
    if [&x[1], &w[0]].into_iter().any(|channels| channels.known().is_some_and(|n| !n.is_multiple_of(group))) {
        return Err(Error::attribute("group", format!("{group} does not divide {} input channels", x[1])));
    }
    let axes = x.len() - 2;
    let spatial = (0..axes).map(|i| extent(i, axes, &x[i + 2], &w[i + 2])).collect::<Result<Vec<_>>>()?;
    let channels = w[1].mul(&group.into())?;
    Ok(ValueType { dtype, shape: Some([&[x[0].clone(), channels], spatial.as_slice()].concat()) })
}

/// All taps of a transposed convolution, with their index into the kernel.
pub(super) fn deconv_taps(axes: &[DeconvAxis; 3]) -> PlaneTaps {
    let [depth, height, width] = axes;
    let mut taps = vec![];
    for z in 0..depth.kernel() {
        for y in 0..height.kernel() {
            for x in 0..width.kernel() {
                let lines = [Line::deconv(depth, z), Line::deconv(height, y), Line::deconv(width, x)];
                taps.push((taps.len(), lines));
            }
        }
    }
    taps
}

/// Sums the taps of each plane that an output channel has, over the input channels of its group, and finishes them.
/// The weights lie as `ConvTranspose` has them.
pub(super) fn deconv_planes<T: Sums>(
    geometry: &DeconvGeometry,
    planes: &[PlaneTaps],
    into: Extents,
    [x, w]: [&Tensor; 2],
    post_ops: &PostOps<'_, T>,
    shape: Vec<usize>,
) -> Result<Tensor> {
    let channels = geometry.channels();
    let (inputs, outputs) = (channels.input_per_group(), channels.output_per_group());
    let axes = three(geometry.axes());
    let from = Extents(axes.map(|axis| axis.input()));
    let kernel: usize = axes.map(|axis| axis.kernel()).iter().product();
    let (x, w) = (x.elements::<T>()?, w.elements::<T>()?);
    let mut output = vec![T::default(); shape.iter().product()];
    let mut sums = vec![T::ZERO; into.len()];
    for image in 0..channels.batch() * channels.groups() {
        let group = image % channels.groups();
        let data: Vec<T::Sum> =
            x[image * inputs * from.len()..][..inputs * from.len()].iter().map(|x| x.widen()).collect();
        for c in 0..outputs {
            for (number, plane) in planes.iter().enumerate() {
                sums.fill(T::ZERO);
                for ci in 0..inputs {
                    let weights = &w[((group * inputs + ci) * outputs + c) * kernel..][..kernel];
                    let data = &data[ci * from.len()..][..from.len()];
                    for &(tap, lines) in plane {
                        add_tap::<T>((&mut sums, into), weights[tap].widen(), (data, from), lines);
                    }
                }
                let start = ((image * outputs + c) * planes.len() + number) * into.len();
                post_ops.store(start, &mut sums, &mut output)?;
            }
        }
    }
    Tensor::from_vec(shape, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs of `1, 10, 100` under a kernel counting from 1, read with `attributes`.
    fn run(kernel: usize, attributes: Attributes) -> Result<Vec<i64>> {
        let x = Tensor::from_vec([1, 1, 3], vec![1i64, 10, 100])?;
        let w = Tensor::from_vec([1, 1, kernel], (1..=kernel as i64).collect::<Vec<_>>())?;
        ConvTranspose::read(attributes)?.eval(&[Some(&x), Some(&w)], 1)?[0].to_i64s()
    }

    fn strided(stride: i64) -> Attributes {
        Attributes::new().with("strides", vec![stride])
    }

    /// What ONNX Runtime 1.32 computes, in opsets 7, 11, 21 and 22 alike.
    #[test]
    fn odd_pads_are_split_as_onnx_runtime_does() {
        let shaped = |auto_pad: &str, extent: i64| {
            strided(2).with("auto_pad", auto_pad).with("output_shape", vec![extent])
        };
        for auto_pad in ["NOTSET", "SAME_LOWER", "VALID"] {
            assert_eq!(run(3, shaped(auto_pad, 6)), Ok(vec![2, 13, 20, 130, 200, 300]), "{auto_pad}");
        }
        assert_eq!(run(3, shaped("SAME_UPPER", 6)), Ok(vec![1, 2, 13, 20, 130, 200]));
        assert_eq!(run(4, shaped("NOTSET", 5)), Ok(vec![13, 24, 130, 240, 300]));
        assert_eq!(run(3, shaped("NOTSET", 6).with("pads", vec![0i64, 1])), run(3, shaped("NOTSET", 6)));
        // Output padding does not add to the extent, but to what is cropped.
        let padded = shaped("NOTSET", 7).with("output_padding", vec![1i64]);
        assert_eq!(run(3, padded), Ok(vec![2, 13, 20, 130, 200, 300, 0]));

        let same = |auto_pad: &str| strided(2).with("auto_pad", auto_pad);
        assert_eq!(run(3, same("SAME_UPPER")), Ok(vec![1, 2, 13, 20, 130, 200]));
        assert_eq!(run(3, same("SAME_LOWER")), Ok(vec![2, 13, 20, 130, 200, 300]));
        assert_eq!(run(4, same("SAME_LOWER")), Ok(vec![2, 13, 24, 130, 240, 300]));
        for auto_pad in ["SAME_UPPER", "SAME_LOWER"] {
            let padded = same(auto_pad).with("output_padding", vec![1i64]);
            assert_eq!(run(3, padded), Ok(vec![2, 13, 20, 130, 200, 300]), "{auto_pad}");
            let dilated = strided(1).with("auto_pad", auto_pad).with("dilations", vec![2i64]);
            assert_eq!(run(3, dilated), Ok(vec![102, 20, 203]), "{auto_pad}");
        }
        let valid = strided(2).with("auto_pad", "VALID").with("output_padding", vec![1i64]);
        assert_eq!(run(3, valid), Ok(vec![1, 2, 13, 20, 130, 200, 300, 0]));
    }

    /// ONNX Runtime agrees where it takes the extent from `output_shape`; with `SAME_*` it comes out short.
    #[test]
    fn what_is_missing_is_added_at_the_end() {
        let expected = || Ok(vec![1, 0, 0, 0, 10, 0, 0, 0, 100, 0, 0, 0]);
        for auto_pad in ["NOTSET", "SAME_UPPER", "SAME_LOWER"] {
            let shaped = strided(4).with("auto_pad", auto_pad).with("output_shape", vec![12i64]);
            assert_eq!(run(1, shaped), expected(), "{auto_pad}");
        }
        for auto_pad in ["SAME_UPPER", "SAME_LOWER"] {
            assert_eq!(run(1, strided(4).with("auto_pad", auto_pad)), expected(), "{auto_pad}");
        }
    }

    #[test]
    fn output_shape_may_have_all_axes() {
        let shaped = |shape: Vec<i64>| run(3, strided(2).with("output_shape", shape));
        assert_eq!(shaped(vec![1, 1, 6]), shaped(vec![6]));
        assert!(shaped(vec![1, 2, 6]).is_err_and(|error| error.to_string().contains("`output_shape`")));
        assert!(shaped(vec![1, 6]).is_err());
    }

    #[test]
    fn pads_beside_auto_pad_are_refused_unless_zero() {
        let both = |pads: Vec<i64>| run(3, strided(2).with("auto_pad", "SAME_UPPER").with("pads", pads));
        assert_eq!(both(vec![0, 0]), Ok(vec![1, 2, 13, 20, 130, 200]));
        assert!(both(vec![1, 1]).is_err_and(|error| error.to_string().contains("`pads`")));
    }

    /// `SAME_*` of a transposed convolution undoes the extents of the convolution's, with the same pads.
    #[test]
    fn same_is_the_transpose_of_conv() {
        for (kernel, stride, dilation, outputs) in (1..=5).flat_map(|k| {
            (1..=4).flat_map(move |s| (1..=3).flat_map(move |d| (1..=4).map(move |o| (k, s, d, o))))
        }) {
            for auto_pad in ["SAME_UPPER", "SAME_LOWER"] {
                let attributes =
                    || strided(stride).with("dilations", vec![dilation]).with("auto_pad", auto_pad);
                let conv = super::super::Conv::read(attributes()).unwrap();
                let deconv = ConvTranspose::read(attributes()).unwrap();
                let (large, small) = ([1, 1, outputs * stride as usize], [1, 1, outputs]);
                let conv = conv.geometry(&large, &[1, 1, kernel]).unwrap();
                let deconv = deconv.geometry(&small, &[1, 1, kernel]).unwrap();
                assert_eq!((conv.output_shape(), deconv.output_shape()), (small.to_vec(), large.to_vec()));
                assert_eq!(
                    conv.axes()[0].pad(),
                    deconv.axes()[0].pad(),
                    "k{kernel} s{stride} d{dilation} {auto_pad}"
                );
            }
        }
    }

    #[test]
    fn canonical_form_has_the_same_geometry() {
        let op = ConvTranspose::read(
            strided(3).with("output_padding", vec![2i64]).with("pads", vec![1i64, 0]).with("group", 2),
        );
        let (x, w) = ([2, 4, 5], [4, 3, 2]);
        let geometry = op.and_then(|op| op.geometry(&x, &w)).unwrap();
        let canonical = ConvTranspose::from_geometry(&geometry, Epilogue::default());
        assert_eq!(canonical.geometry(&x, &w), Ok(geometry));
        assert_eq!(canonical.padding, Padding::Explicit { begin: vec![1], end: vec![-2] });
        assert!(canonical.output_padding.is_empty());
    }
}
