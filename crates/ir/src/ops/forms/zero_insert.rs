//! Zero-insertion form: zeros between the inputs, then a plain convolution with the flipped kernel.

use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::Element;
use crate::error::Result;
use crate::geometry::{DeconvAxis, DeconvGeometry, deconv_extent, three};
use crate::ops::conv_transpose::steps;
use crate::ops::support::inputs::{at_most, required};
use crate::ops::support::window::{self, Padding};
use crate::ops::{Conv, Epilogue, InputInfo, Operator};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// Zeros between neighbours: `X [N, C, ..] -> Y [N, C, ..]` with `(in - 1) * stride + 1 + begin + end` an axis.
///
/// `y[j] = x[i]` where `j = i * stride + begin` for an `i`, else 0; negative pads crop.
///
/// In front of a stride-1 [`Conv`] of the same dilation with flipped weights, `W'[co, ci, k] = W[ci, co, K - 1 - k]`
/// (within each group), it is a transposed convolution: the zero-insertion form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroInsert {
    /// Distance between neighbours in the output; empty is all 1.
    pub strides: Vec<usize>,
    /// Zeros before the first input of each axis, negative to crop; empty is all 0.
    pub begin: Vec<i64>,
    /// Zeros behind the last input of each axis, negative to crop; empty is all 0.
    pub end: Vec<i64>,
}

impl ZeroInsert {
    pub(crate) fn read(mut attributes: Attributes) -> Result<Self> {
        let strides = window::read_sizes(&mut attributes, "strides")?;
        let (begin, end) = window::read_pads(&mut attributes)?;
        attributes.finish("pads, strides")?;
        Ok(Self { strides, begin, end })
    }

    /// The two nodes of the zero-insertion form. The convolution takes the pads that are not negative.
    ///
    /// # Errors
    /// When the sequence with zeros is too long.
    pub fn from_geometry(geometry: &DeconvGeometry, epilogue: Epilogue) -> Result<(Self, Conv)> {
        let pads: Vec<_> = geometry.axes().iter().map(DeconvAxis::insertion_pads).collect();
        let column = |which: fn(&([i64; 2], [i64; 2])) -> i64| pads.iter().map(which).collect();
        let (begin, end) = window::short_pads(column(|pads| pads.0[0]), column(|pads| pads.0[1]));
        let insert = Self { strides: steps(geometry, DeconvAxis::stride), begin, end };
        insert.axes(&geometry.input_shape())?;
        let conv = Conv {
            kernel_shape: vec![],
            strides: vec![],
            dilations: steps(geometry, DeconvAxis::dilation),
            group: geometry.channels().groups(),
            padding: Padding::explicit(column(|pads| pads.1[0]), column(|pads| pads.1[1])),
            epilogue,
            exact: false,
        };
        Ok((insert, conv))
    }

    /// Spatial axes for data of this shape, as those of a transposed convolution with the one-tap kernel 1.
    ///
    /// # Errors
    /// When shape and attributes do not fit together.
    pub fn axes(&self, x: &[usize]) -> Result<Vec<DeconvAxis>> {
        let axes = window::spatial_axes(x.len())?;
        let axis = |i: usize| {
            let (stride, pads) = self.step(i, axes)?;
            DeconvAxis::new(x[i + 2], 1, stride, 1, pads)
        };
        (0..axes).map(axis).collect()
    }

    /// Stride and pads of axis `i` of `axes`, the pads as those of a transposed convolution.
    fn step(&self, i: usize, axes: usize) -> Result<(usize, [i64; 2])> {
        let strides = window::per_axis("strides", &self.strides, axes, 1)?;
        let pads = window::zip_pads(&self.begin, &self.end, axes)?;
        Ok((strides[i], pads[i].map(i64::saturating_neg)))
    }
}

impl Operator for ZeroInsert {
    fn name(&self) -> &str {
        "ZeroInsert"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        window::write_sizes(&mut attributes, "strides", &self.strides);
        window::write_pads(&mut attributes, &self.begin, &self.end);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let x = required(inputs, 0, "X")?;
        at_most(inputs, 1)?;
        let dtype = x.ty.dtype;
        let Some(shape) = &x.ty.shape else { return Ok(vec![ValueType { dtype, shape: None }]) };
        let axes = window::spatial_axes(shape.len())?;
        let one = Dim::constant(1);
        let extent = |i: usize| {
            let (stride, pads) = self.step(i, axes)?;
            deconv_extent(&shape[i + 2], &one, stride, 1, pads)
        };
        let spatial = (0..axes).map(extent).collect::<Result<Vec<_>>>()?;
        Ok(vec![ValueType { dtype, shape: Some([&shape[..2], &spatial].concat()) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        fn insert<T: Element + Default>(
            x: &Tensor,
            axes: &[DeconvAxis],
            shape: Vec<usize>,
        ) -> Result<Tensor> {
            let [d, h, w] = three(axes);
            let mut y = vec![T::default(); element_count(&shape)?];
            let (source, target) = (d.input() * h.input() * w.input(), d.output() * h.output() * w.output());
            let planes = x.shape()[0] * x.shape()[1];
            let x = x.elements::<T>()?;
            for plane in 0..planes {
                for (i, &value) in x[plane * source..][..source].iter().enumerate() {
                    let (iz, iy, ix) =
                        (i / (w.input() * h.input()), i / w.input() % h.input(), i % w.input());
                    if let (Some(z), Some(y_), Some(x_)) = (d.target(iz, 0), h.target(iy, 0), w.target(ix, 0))
                    {
                        y[plane * target + (z * h.output() + y_) * w.output() + x_] = value;
                    }
                }
            }
            Tensor::from_vec(shape, y)
        }
        let x = required(inputs, 0, "X")?;
        let axes = self.axes(x.shape())?;
        let spatial = axes.iter().map(DeconvAxis::output);
        let shape: Vec<usize> = x.shape()[..2].iter().copied().chain(spatial).collect();
        Ok(vec![dispatch_numeric!(x.dtype(), T => insert::<T>(x, &axes, shape))?])
    }
}
