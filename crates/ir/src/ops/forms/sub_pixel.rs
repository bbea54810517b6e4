//! Sub-pixel form: a small dense convolution for each residue of the output modulo the stride, then interleaving.

use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::error::{Error, Result};
use crate::geometry::{DeconvAxis, DeconvGeometry, Phase, PhaseTap, deconv_extent, three};
use crate::ops::conv_transpose::{deconv_geometry, deconv_planes, infer_deconv, pads_of, steps};
use crate::ops::epilogue::PostOps;
use crate::ops::support::inputs::required;
use crate::ops::support::sums::Sums;
use crate::ops::support::taps::{Extents, Line, PlaneTaps};
use crate::ops::support::window;
use crate::ops::{Epilogue, InputInfo, Operator};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// The phases of a transposed convolution, one a channel:
/// `X [N, Cin, ..], W [Cin, Cout/group, ..], B [Cout]? -> P [N, Cout * S, Q..]` with `S` the product of the strides and
/// `Q = ceil(out / stride)` an axis.
///
/// `p[n, c * S + f, q] = b[c] + sum of x[n, ci, q + shift] * w[ci, c, k]` over the taps `(k, shift)` of phase `f` (for each
/// axis; phases are counted row-major over the axes). That is output `q * stride + f` of the transposed convolution, by the
/// same sum also where this lies past its end. [`Interleave`] puts the outputs in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseConv {
    /// Strides of the transposed convolution; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub group: usize,
    /// Cropped from the beginning of each axis of the full output, negative to extend; empty is all 0.
    pub begin: Vec<i64>,
    /// Cropped from the end of each axis of the full output, negative to extend; empty is all 0.
    pub end: Vec<i64>,
}

/// Phases put in order: `P [N, C * S, Q..], epilogue operands.. -> Y [N, C, ..]` with `S` the product of the strides.
///
/// `y[n, c, o] = epilogue(p[n, c * S + o mod stride, floor(o / stride)])` (for each axis; remainders are counted row-major
/// over the axes). This is `DepthToSpace` in its CRD mode for any number of axes and any stride, with what lies past
/// `output` left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Interleave {
    /// Number of phases of each axis; empty is all 1.
    pub strides: Vec<usize>,
    /// Spatial extents of the output: `ceil(output / stride)` is that of the input.
    pub output: Vec<usize>,
    /// Applied to each element.
    pub epilogue: Epilogue,
}

impl PhaseConv {
    pub(crate) fn read(mut attributes: Attributes) -> Result<Self> {
        let strides = window::read_sizes(&mut attributes, "strides")?;
        let dilations = window::read_sizes(&mut attributes, "dilations")?;
        let group = window::read_group(&mut attributes)?;
        let (begin, end) = window::read_pads(&mut attributes)?;
        attributes.finish("dilations, group, pads, strides")?;
        Ok(Self { strides, dilations, group, begin, end })
    }

    /// The phases of that transposed convolution.
    pub fn from_geometry(geometry: &DeconvGeometry) -> Self {
        let (begin, end) = pads_of(geometry);
        Self {
            strides: steps(geometry, DeconvAxis::stride),
            dilations: steps(geometry, DeconvAxis::dilation),
            group: geometry.channels().groups(),
            begin,
            end,
        }
    }

    /// The transposed convolution whose phases these are, for data and weights of these shapes.
    /// [`DeconvAxis::whole_phases`] gives the axes with what lies past its end.
    ///
    /// # Errors
    /// When the shapes and attributes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<DeconvGeometry> {
        let axes = window::common_axes(x.len(), w.len())?;
        let axis = |i: usize| {
            let (stride, dilation, pads) = self.step(i, axes)?;
            DeconvAxis::new(x[i + 2], w[i + 2], stride, dilation, pads)
        };
        deconv_geometry(x, w, self.group, (0..axes).map(axis).collect::<Result<_>>()?)
    }

    fn step(&self, i: usize, axes: usize) -> Result<(usize, usize, [i64; 2])> {
        let strides = window::per_axis("strides", &self.strides, axes, 1)?;
        let dilations = window::per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = window::zip_pads(&self.begin, &self.end, axes)?;
        Ok((strides[i], dilations[i], pads[i]))
    }
}

impl Operator for PhaseConv {
    fn name(&self) -> &str {
        "PhaseConv"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        window::write_sizes(&mut attributes, "strides", &self.strides);
        window::write_sizes(&mut attributes, "dilations", &self.dilations);
        window::write_group(&mut attributes, self.group);
        window::write_pads(&mut attributes, &self.begin, &self.end);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let extent = |i: usize, axes: usize, input: &Dim, kernel: &Dim| {
            let (stride, dilation, pads) = self.step(i, axes)?;
            deconv_extent(input, kernel, stride, dilation, pads)
        };
        let mut ty = infer_deconv(inputs, self.group, &[], extent)?;
        Epilogue::default().check(inputs, Some(2), 3, ty.dtype, ty.shape.as_deref())?;
        if let Some(shape) = &mut ty.shape {
            for i in 0..shape.len() - 2 {
                let (stride, ..) = self.step(i, shape.len() - 2)?;
                shape[1] = shape[1].mul(&stride.into())?;
                shape[i + 2] = shape[i + 2].ceil_div(stride as i64)?;
            }
        }
        Ok(vec![ty])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let shape = window::output_shape(self, inputs)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let geometry = self.geometry(x.shape(), w.shape())?;
        let whole: Vec<_> = geometry.axes().iter().map(DeconvAxis::whole_phases).collect::<Result<_>>()?;
        let axes = three(&whole);
        let planes: Vec<_> =
            combinations(&axes.map(|axis| axis.phases())).map(|phases| phase_taps(&axes, phases)).collect();
        let extents = Extents(axes.map(|axis| axis.phase_extent()));
        let output = dispatch_numeric!(x.dtype(), T => {
            let post_ops = PostOps::<T>::new(&Epilogue::default(), inputs, Some(2), 3, &shape)?;
            deconv_planes(&geometry, &planes, extents, [x, w], &post_ops, shape)
        })?;
        Ok(vec![output])
    }
}

/// Every combination of the elements of three lists, the last list running fastest.
fn combinations<T>([a, b, c]: &[Vec<T>; 3]) -> impl Iterator<Item = [&T; 3]> {
    a.iter().flat_map(move |a| b.iter().flat_map(move |b| c.iter().map(move |c| [a, b, c])))
}

/// Taps of one phase, with their index into the kernel.
fn phase_taps(axes: &[DeconvAxis; 3], phases: [&Phase; 3]) -> PlaneTaps {
    let lists = [0, 1, 2].map(|i| phases[i].taps.clone());
    let index = |taps: [&PhaseTap; 3]| {
        (taps[0].kernel * axes[1].kernel() + taps[1].kernel) * axes[2].kernel() + taps[2].kernel
    };
    let line = |taps: [&PhaseTap; 3], i: usize| Line::phase(*taps[i], phases[i].count, axes[i].input());
    combinations(&lists).map(|taps| (index(taps), [0, 1, 2].map(|i| line(taps, i)))).collect()
}

impl Interleave {
    pub(crate) fn read(mut attributes: Attributes) -> Result<Self> {
        let strides = window::read_sizes(&mut attributes, "strides")?;
        let output = window::read_sizes(&mut attributes, "output")?;
        let epilogue = Epilogue::read(&mut attributes)?;
        attributes.finish("epilogue, output, strides")?;
        Ok(Self { strides, output, epilogue })
    }

    /// What follows the [`PhaseConv`] of that transposed convolution.
    pub fn from_geometry(geometry: &DeconvGeometry, epilogue: Epilogue) -> Self {
        let output = geometry.axes().iter().map(DeconvAxis::output).collect();
        Self { strides: steps(geometry, DeconvAxis::stride), output, epilogue }
    }

    /// Number of phases of each axis.
    ///
    /// # Errors
    /// When the numbers of strides and extents differ.
    pub fn phases(&self) -> Result<Vec<usize>> {
        window::per_axis("strides", &self.strides, self.output.len(), 1)
    }
}

impl Operator for Interleave {
    fn name(&self) -> &str {
        "Interleave"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        window::write_sizes(&mut attributes, "strides", &self.strides);
        window::write_sizes(&mut attributes, "output", &self.output);
        self.epilogue.write(&mut attributes);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let p = required(inputs, 0, "P")?;
        let strides = self.phases()?;
        let count = strides.iter().try_fold(1usize, |product, &stride| product.checked_mul(stride));
        let count =
            count.ok_or_else(|| Error::attribute("strides", format!("{strides:?} are too many phases")))?;
        let spatial = || self.output.iter().map(|&extent| Dim::from(extent));
        let (batch, channels) = match p.ty.shape.as_deref() {
            None => (Dim::unknown(), Dim::unknown()),
            Some(shape) => {
                let expected =
                    || spatial().zip(&strides).map(|(extent, &stride)| extent.ceil_div(stride as i64));
                let expected: Vec<Dim> = expected().collect::<Result<_>>()?;
                if shape.len() != expected.len() + 2
                    || !shape[2..]
                        .iter()
                        .zip(&expected)
                        .all(|(found, expected)| window::may_equal(found, expected))
                {
                    return Err(Error::input(
                        0,
                        "P",
                        format!("expected shape [N, C, {expected:?}], found {shape:?}"),
                    ));
                }
                if shape[1].known().is_some_and(|channels| !channels.is_multiple_of(count)) {
                    return Err(Error::input(
                        0,
                        "P",
                        format!("expected a multiple of {count} channels, found {shape:?}"),
                    ));
                }
                (shape[0].clone(), shape[1].floor_div(count as i64)?)
            }
        };
        let shape: Vec<Dim> = [batch, channels].into_iter().chain(spatial()).collect();
        self.epilogue.check(inputs, None, 1, p.ty.dtype, Some(&shape))?;
        Ok(vec![ValueType { dtype: p.ty.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        fn interleave<T: Sums>(
            p: &[T],
            strides: [usize; 3],
            extents: [usize; 3],
            post_ops: &PostOps<'_, T>,
            shape: Vec<usize>,
        ) -> Result<Tensor> {
            let [_, height, width] = extents;
            let input = [0, 1, 2].map(|i| extents[i].div_ceil(strides[i]));
            let position = |axis: usize, o: [usize; 3]| (o[axis] % strides[axis], o[axis] / strides[axis]);
            let index = |o: [usize; 3]| {
                let [(fz, qz), (fy, qy), (fx, qx)] = [0, 1, 2].map(|axis| position(axis, o));
                let phase = (fz * strides[1] + fy) * strides[2] + fx;
                ((phase * input[0] + qz) * input[1] + qy) * input[2] + qx
            };
            let size: usize = extents.iter().product();
            let channel: usize = strides.iter().product::<usize>() * input.iter().product::<usize>();
            let mut output = vec![T::default(); shape.iter().product()];
            for plane in 0..shape[0] * shape[1] {
                let p = &p[plane * channel..][..channel];
                let at = |i: usize| p[index([i / width / height, i / width % height, i % width])].widen();
                post_ops.store(plane * size, &mut (0..size).map(at).collect::<Vec<_>>(), &mut output)?;
            }
            Tensor::from_vec(shape, output)
        }
        let shape = window::output_shape(self, inputs)?;
        let p = required(inputs, 0, "P")?;
        let (strides, extents) = (last_three(&self.phases()?), last_three(&self.output));
        let output = dispatch_numeric!(p.dtype(), T => {
            let post_ops = PostOps::<T>::new(&self.epilogue, inputs, None, 1, &shape)?;
            interleave(&p.elements::<T>()?, strides, extents, &post_ops, shape)
        })?;
        Ok(vec![output])
    }
}

/// The last three of `sizes`, with 1 before them where there are fewer.
fn last_three(sizes: &[usize]) -> [usize; 3] {
    [3, 2, 1].map(|from_end| sizes.len().checked_sub(from_end).map_or(1, |i| sizes[i]))
}
