//! Scatter form: a matrix product makes every input's patch of the output, an overlap-add puts the patches down.

use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::error::{Error, Result};
use crate::geometry::{DeconvAxis, DeconvGeometry, three};
use crate::ops::conv_transpose::{deconv_geometry, deconv_taps, infer_deconv, pads_of, steps};
use crate::ops::epilogue::PostOps;
use crate::ops::support::inputs::{at_most, required};
use crate::ops::support::sums::Sums;
use crate::ops::support::taps::{Extents, PlaneTaps, add_tap};
use crate::ops::support::window;
use crate::ops::{Epilogue, InputInfo, Operator};
use crate::tensor::{Tensor, element_count};
use crate::value_type::ValueType;

/// Every input's contribution to every output channel under every tap:
/// `X [N, Cin, in..], W [Cin, Cout/group, k..] -> columns [N, Cout * K, I]` with `K` the product of the kernel's extents
/// and `I` that of the input's.
///
/// `columns[n, c * K + k, i] = sum over ci of w[ci, c, k] * x[n, ci, i]`: one matrix product a group, `W^T X`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnGemm {
    /// Number of groups.
    pub group: usize,
}

/// Patches put down and added up where they overlap:
/// `columns [N, Cout * K, I], B [Cout]?, epilogue operands.. -> Y [N, Cout, out..]`.
///
/// `y[n, c, o] = epilogue(b[c] + sum of columns[n, c * K + k, i])` over all inputs `i` and taps `k` with
/// `i * stride + k * dilation - begin = o` (for each axis). This is `Col2Im` with signed pads that need not be symmetric.
#[derive(Debug, Clone, PartialEq)]
pub struct OverlapAdd {
    /// Spatial extents of the transposed convolution's input.
    pub input: Vec<usize>,
    /// Kernel extents.
    pub kernel: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Cropped from the beginning of each axis of the full output, negative to extend; empty is all 0.
    pub begin: Vec<i64>,
    /// Cropped from the end of each axis of the full output, negative to extend; empty is all 0.
    pub end: Vec<i64>,
    /// Applied to each sum.
    pub epilogue: Epilogue,
}

impl ColumnGemm {
    pub(crate) fn read(mut attributes: Attributes) -> Result<Self> {
        let group = window::read_group(&mut attributes)?;
        attributes.finish("group")?;
        Ok(Self { group })
    }

    /// The columns of that transposed convolution.
    pub fn from_geometry(geometry: &DeconvGeometry) -> Self {
        Self { group: geometry.channels().groups() }
    }

    /// A transposed convolution with these columns: stride 1, nothing cropped.
    /// [`OverlapAdd::geometry`] gives the one that they are made for.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<DeconvGeometry> {
        let axes = window::common_axes(x.len(), w.len())?;
        let axis = |i: usize| DeconvAxis::new(x[i + 2], w[i + 2], 1, 1, [0, 0]);
        deconv_geometry(x, w, self.group, (0..axes).map(axis).collect::<Result<_>>()?)
    }
}

impl Operator for ColumnGemm {
    fn name(&self) -> &str {
        "ColumnGemm"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        window::write_group(&mut attributes, self.group);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (mut taps, mut positions) = (Dim::constant(1), Dim::constant(1));
        let ty = infer_deconv(inputs, self.group, &[], |_, _, input, kernel| {
            taps = taps.mul(kernel)?;
            positions = positions.mul(input)?;
            Ok(Dim::unknown())
        })?;
        let columns = |shape: Vec<Dim>| -> Result<Vec<Dim>> {
            Ok(vec![shape[0].clone(), shape[1].mul(&taps)?, positions.clone()])
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape: ty.shape.map(columns).transpose()? }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        fn columns<T: Sums>(
            geometry: &DeconvGeometry,
            x: &[T],
            w: &[T],
            shape: Vec<usize>,
        ) -> Result<Tensor> {
            let channels = geometry.channels();
            let (rows, positions) = (shape[1] / channels.groups(), shape[2]);
            let mut output = Vec::with_capacity(shape.iter().product());
            let mut sums = vec![T::ZERO; positions];
            for image in 0..channels.batch() * channels.groups() {
                let first = image % channels.groups() * channels.input_per_group();
                for row in 0..rows {
                    sums.fill(T::ZERO);
                    for ci in 0..channels.input_per_group() {
                        let weight = w[(first + ci) * rows + row].widen();
                        let x = &x[(image * channels.input_per_group() + ci) * positions..][..positions];
                        for (sum, value) in sums.iter_mut().zip(x) {
                            *sum = T::add(*sum, T::mul(weight, value.widen()));
                        }
                    }
                    output.extend(sums.iter().map(|&sum| T::store(sum)));
                }
            }
            Tensor::from_vec(shape, output)
        }
        let shape = window::output_shape(self, inputs)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let geometry = self.geometry(x.shape(), w.shape())?;
        let output = dispatch_numeric!(x.dtype(), T => {
            columns(&geometry, &x.elements::<T>()?, &w.elements::<T>()?, shape)
        })?;
        Ok(vec![output])
    }
}

impl OverlapAdd {
    pub(crate) fn read(mut attributes: Attributes) -> Result<Self> {
        let input = window::read_sizes(&mut attributes, "input")?;
        let kernel = window::read_sizes(&mut attributes, "kernel")?;
        let strides = window::read_sizes(&mut attributes, "strides")?;
        let dilations = window::read_sizes(&mut attributes, "dilations")?;
        let (begin, end) = window::read_pads(&mut attributes)?;
        let epilogue = Epilogue::read(&mut attributes)?;
        attributes.finish("dilations, epilogue, input, kernel, pads, strides")?;
        Ok(Self { input, kernel, strides, dilations, begin, end, epilogue })
    }

    /// What follows the [`ColumnGemm`] of that transposed convolution.
    pub fn from_geometry(geometry: &DeconvGeometry, epilogue: Epilogue) -> Self {
        let (begin, end) = pads_of(geometry);
        Self {
            input: geometry.axes().iter().map(DeconvAxis::input).collect(),
            kernel: geometry.axes().iter().map(DeconvAxis::kernel).collect(),
            strides: steps(geometry, DeconvAxis::stride),
            dilations: steps(geometry, DeconvAxis::dilation),
            begin,
            end,
            epilogue,
        }
    }

    /// Spatial axes of the transposed convolution.
    ///
    /// # Errors
    /// When the attributes do not fit together.
    pub fn axes(&self) -> Result<Vec<DeconvAxis>> {
        let axes = self.input.len();
        let kernel = window::per_axis("kernel", &self.kernel, axes, 1)?;
        let strides = window::per_axis("strides", &self.strides, axes, 1)?;
        let dilations = window::per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = window::zip_pads(&self.begin, &self.end, axes)?;
        (0..axes)
            .map(|i| DeconvAxis::new(self.input[i], kernel[i], strides[i], dilations[i], pads[i]))
            .collect()
    }

    /// The transposed convolution that `columns` and this make up together, for data and weights of these shapes.
    ///
    /// # Errors
    /// When shapes and attributes do not fit together.
    pub fn geometry(&self, columns: &ColumnGemm, x: &[usize], w: &[usize]) -> Result<DeconvGeometry> {
        window::common_axes(x.len(), w.len())?;
        for (found, index, name, expected) in [(x, 0, "X", &self.input), (w, 1, "W", &self.kernel)] {
            if found[2..] != **expected {
                return Err(Error::input(
                    index,
                    name,
                    format!("expected extents {expected:?}, found {found:?}"),
                ));
            }
        }
        deconv_geometry(x, w, columns.group, self.axes()?)
    }
}

impl Operator for OverlapAdd {
    fn name(&self) -> &str {
        "OverlapAdd"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        window::write_sizes(&mut attributes, "input", &self.input);
        window::write_sizes(&mut attributes, "kernel", &self.kernel);
        window::write_sizes(&mut attributes, "strides", &self.strides);
        window::write_sizes(&mut attributes, "dilations", &self.dilations);
        window::write_pads(&mut attributes, &self.begin, &self.end);
        self.epilogue.write(&mut attributes);
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        let columns = required(inputs, 0, "columns")?;
        let axes = self.axes()?;
        let taps = element_count(&self.kernel)?;
        let positions = element_count(&self.input)?;
        let (batch, channels) = match columns.ty.shape.as_deref() {
            None => (Dim::unknown(), Dim::unknown()),
            Some([batch, rows, found])
                if window::may_equal(found, &positions.into())
                    && rows.known().is_none_or(|rows| rows.is_multiple_of(taps)) =>
            {
                (batch.clone(), rows.floor_div(taps as i64)?)
            }
            Some(shape) => {
                return Err(Error::input(
                    0,
                    "columns",
                    format!("expected shape [N, C * {taps}, {positions}], found {shape:?}"),
                ));
            }
        };
        let spatial = axes.iter().map(|axis| Dim::from(axis.output()));
        let shape: Vec<Dim> = [batch, channels].into_iter().chain(spatial).collect();
        self.epilogue.check(inputs, Some(1), 2, columns.ty.dtype, Some(&shape))?;
        Ok(vec![ValueType { dtype: columns.ty.dtype, shape: Some(shape) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        fn overlap<T: Sums>(
            columns: &[T],
            axes: [DeconvAxis; 3],
            post_ops: &PostOps<'_, T>,
            shape: Vec<usize>,
        ) -> Result<Tensor> {
            let (from, into) =
                (Extents(axes.map(|axis| axis.input())), Extents(axes.map(|axis| axis.output())));
            let taps: PlaneTaps = deconv_taps(&axes);
            let mut output = vec![T::default(); shape.iter().product()];
            let mut sums = vec![T::ZERO; into.len()];
            for (plane, columns) in columns.chunks_exact(taps.len() * from.len()).enumerate() {
                sums.fill(T::ZERO);
                for (tap, lines) in &taps {
                    let column: Vec<T::Sum> =
                        columns[tap * from.len()..][..from.len()].iter().map(|x| x.widen()).collect();
                    add_tap::<T>((&mut sums, into), T::ONE, (&column, from), *lines);
                }
                post_ops.store(plane * into.len(), &mut sums, &mut output)?;
            }
            Tensor::from_vec(shape, output)
        }
        let shape = window::output_shape(self, inputs)?;
        let columns = required(inputs, 0, "columns")?;
        let axes = three(&self.axes()?);
        let output = dispatch_numeric!(columns.dtype(), T => {
            let post_ops = PostOps::<T>::new(&self.epilogue, inputs, Some(1), 2, &shape)?;
            overlap(&columns.elements::<T>()?, axes, &post_ops, shape)
        })?;
        Ok(vec![output])
    }
}
