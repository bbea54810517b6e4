//! Resize: resampling of any axes. The weights are in [`crate::resize_axis`].

use super::movement::pick;
use super::support::broadcast::strides;
use super::support::inputs::{at_most, check_size, extents, optional, required, resolve_axes};
use super::support::lists::output_shape;
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::resize_axis::{Coordinates, Filter, ResizeAxis, ResizeTable, Rounding};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// How the wanted extents are met: ONNX's `keep_aspect_ratio_policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum AspectRatio {
    /// As they are.
    #[default]
    Stretch,
    /// All axes by the same scale, none larger than wanted.
    NotLarger,
    /// All axes by the same scale, none smaller than wanted.
    NotSmaller,
}

/// ONNX's `mode` of [`Resize`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ResizeMode {
    /// The nearest element.
    #[default]
    Nearest,
    /// Linear between two, an axis at a time.
    Linear,
    /// Cubic over four, an axis at a time.
    Cubic,
}

/// ONNX `Resize`: `X, roi?, scales?, sizes? -> Y`; an empty tensor counts as absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// How neighbours are weighed.
    pub mode: ResizeMode,
    /// Where outputs lie on the input.
    pub coordinates: Coordinates,
    /// Which neighbour is the nearest.
    pub rounding: Rounding,
    /// Coefficient of the cubic.
    pub cubic_coeff_a: f32,
    /// Linear and cubic: neighbours outside the input weigh nothing.
    pub exclude_outside: bool,
    /// Linear and cubic: average over what an output stands for when there are fewer of them.
    pub antialias: bool,
    /// What stands outside the input for `tf_crop_and_resize`.
    pub extrapolation_value: f32,
    /// The axes that roi, scales and sizes speak of; empty is all.
    pub axes: Vec<i64>,
    /// How the wanted extents are met.
    pub aspect_ratio: AspectRatio,
}

impl Default for Resize {
    fn default() -> Self {
        Self {
            mode: ResizeMode::default(),
            coordinates: Coordinates::default(),
            rounding: Rounding::default(),
            cubic_coeff_a: -0.75,
            exclude_outside: false,
            antialias: false,
            extrapolation_value: 0.0,
            axes: vec![],
            aspect_ratio: AspectRatio::default(),
        }
    }
}

const MODES: &[(&str, ResizeMode)] =
    &[("nearest", ResizeMode::Nearest), ("linear", ResizeMode::Linear), ("cubic", ResizeMode::Cubic)];
const COORDINATES: &[(&str, Coordinates)] = &[
    ("half_pixel", Coordinates::HalfPixel),
    ("half_pixel_symmetric", Coordinates::HalfPixelSymmetric),
    ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
    ("align_corners", Coordinates::AlignCorners),
    ("asymmetric", Coordinates::Asymmetric),
    ("tf_crop_and_resize", Coordinates::TfCropAndResize),
    ("tf_half_pixel_for_nn", Coordinates::TfHalfPixelForNn),
];
const ROUNDINGS: &[(&str, Rounding)] = &[
    ("round_prefer_floor", Rounding::PreferFloor),
    ("round_prefer_ceil", Rounding::PreferCeil),
    ("floor", Rounding::Floor),
    ("ceil", Rounding::Ceil),
];
const RATIOS: &[(&str, AspectRatio)] = &[
    ("stretch", AspectRatio::Stretch),
    ("not_larger", AspectRatio::NotLarger),
    ("not_smaller", AspectRatio::NotSmaller),
];

fn read_name<T: Copy + Default>(attributes: &mut Attributes, name: &str, names: &[(&str, T)]) -> Result<T> {
    let Some(text) = attributes.string(name)? else { return Ok(T::default()) };
    names.iter().find(|(spelling, _)| *spelling == text).map(|(_, value)| *value).ok_or_else(|| {
        let accepted: Vec<&str> = names.iter().map(|(spelling, _)| *spelling).collect();
        Error::attribute(name, format!("`{text}` is not one of {}", accepted.join(", ")))
    })
}

fn write_name<T: Copy + Default + PartialEq>(
    attributes: &mut Attributes,
    name: &str,
    names: &[(&'static str, T)],
    value: T,
) {
    if value != T::default()
        && let Some((spelling, _)) = names.iter().find(|(_, named)| *named == value)
    {
        attributes.set(name, *spelling);
    }
}

/// An extent by a scale, rounded down. In f32, as ONNX's shape inference and ONNX Runtime have it: 0.7 times 10 is 7.
fn scaled_extent(extent: usize, scale: f32) -> f32 {
    (extent as f32 * scale).floor()
}

/// A symbolic extent by a scale, rounded down, when the scale is a whole number of 1024ths.
fn scaled_dim(dim: &Dim, scale: f32) -> Result<Dim> {
    if let Some(extent) = dim.known() {
        let scaled = scaled_extent(extent, scale);
        return if (0.0..=i32::MAX as f32).contains(&scaled) {
            Ok((scaled as usize).into())
        } else {
            Err(Error::input(2, "scales", format!("{extent} by {scale} is no extent")))
        };
    }
    let parts = f64::from(scale) * 1024.0;
    if dim.is_unknown() || parts.fract() != 0.0 || !(0.0..=1e9).contains(&parts) {
        return Ok(Dim::unknown());
    }
    let shift = (parts as i64).trailing_zeros().min(10);
    dim.mul(&Dim::constant(parts as i64 >> shift))?.floor_div(1024 >> shift)
}

impl Resize {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let default = Self::default();
        let op = Self {
            mode: read_name(&mut attributes, "mode", MODES)?,
            coordinates: read_name(&mut attributes, "coordinate_transformation_mode", COORDINATES)?,
            rounding: read_name(&mut attributes, "nearest_mode", ROUNDINGS)?,
            cubic_coeff_a: attributes.float("cubic_coeff_a")?.unwrap_or(default.cubic_coeff_a),
            exclude_outside: attributes.flag("exclude_outside", false)?,
            antialias: attributes.flag("antialias", false)?,
            extrapolation_value: attributes.float("extrapolation_value")?.unwrap_or(0.0),
            axes: attributes.ints("axes")?.unwrap_or_default(),
            aspect_ratio: read_name(&mut attributes, "keep_aspect_ratio_policy", RATIOS)?,
        };
        attributes.finish(
            "antialias, axes, coordinate_transformation_mode, cubic_coeff_a, exclude_outside, extrapolation_value, \
             keep_aspect_ratio_policy, mode, nearest_mode",
        )?;
        Ok(op)
    }

    /// The filter that mode, rounding and coefficient make.
    pub fn filter(&self) -> Filter {
        match self.mode {
            ResizeMode::Nearest => Filter::Nearest(self.rounding),
            ResizeMode::Linear => Filter::Linear,
            ResizeMode::Cubic => Filter::Cubic(self.cubic_coeff_a),
        }
    }

    /// The axes it speaks of, for an input of that rank.
    ///
    /// # Errors
    /// When an axis is out of range.
    pub fn named_axes(&self, rank: usize) -> Result<Vec<usize>> {
        if self.axes.is_empty() { Ok((0..rank).collect()) } else { resolve_axes("axes", &self.axes, rank) }
    }

    /// How each axis of an input of that shape is resampled. Empty lists are absent ones.
    ///
    /// # Errors
    /// When the lists do not fit together or to the shape.
    pub fn geometry(
        &self,
        input: &[usize],
        roi: &[f64],
        scales: &[f32],
        sizes: &[i64],
    ) -> Result<Vec<ResizeAxis>> {
        let named = self.named_axes(input.len())?;
        check_lengths(named.len(), scales.len(), sizes.len())?;
        let crops = self.coordinates == Coordinates::TfCropAndResize;
        if crops && roi.len() != 2 * named.len() {
            let problem =
                format!("expected starts and ends of {} axes, found {} numbers", named.len(), roi.len());
            return Err(Error::input(1, "roi", problem));
        }
        let mut axes: Vec<ResizeAxis> = input
            .iter()
            .map(|&extent| ResizeAxis {
                input: extent,
                output: extent,
                scale: 1.0,
                roi: [0.0, 1.0],
                coordinates: self.coordinates,
                filter: self.filter(),
                antialias: self.antialias,
                exclude_outside: self.exclude_outside,
            })
            .collect();
        let wanted = |i: usize| -> Result<usize> {
            let size = sizes[i];
            usize::try_from(size).ok().filter(|_| i32::try_from(size).is_ok()).ok_or_else(|| {
                Error::input(3, "sizes", format!("{size} is no extent; accepted are 0 to {}", i32::MAX))
            })
        };
        let common = self.common_scale(input, &named, sizes);
        for (i, &axis) in named.iter().enumerate() {
            let resized = &mut axes[axis];
            let extent = resized.input;
            if sizes.is_empty() {
                resized.scale = f64::from(scales[i]);
                let output = scaled_extent(extent, scales[i]);
                if !(0.0..=i32::MAX as f32).contains(&output) {
                    return Err(Error::input(2, "scales", format!("{extent} by {} is no extent", scales[i])));
                }
                resized.output = output as usize;
            } else if let Some(scale) = common {
                wanted(i)?;
                resized.scale = scale;
                resized.output = (scale * extent as f64 + 0.5).floor() as usize;
            } else {
                resized.output = wanted(i)?;
                resized.scale = resized.output as f64 / extent as f64;
            }
            if crops {
                resized.roi = [roi[i], roi[i + named.len()]];
            }
        }
        Ok(axes)
    }

    /// The extrapolation value as an element, where there is something outside.
    fn extrapolation(&self, dtype: DType) -> Result<Option<Tensor>> {
        if self.coordinates != Coordinates::TfCropAndResize || !dtype.is_numeric() {
            return Ok(None);
        }
        let value = f64::from(self.extrapolation_value);
        dispatch_numeric!(dtype, T => Ok(Some(Tensor::scalar(T::from_f64(value)))))
    }

    /// The scale that all axes share, when the aspect ratio is to be kept.
    fn common_scale(&self, input: &[usize], named: &[usize], sizes: &[i64]) -> Option<f64> {
        let scales = sizes.iter().zip(named).map(|(&size, &axis)| size as f64 / input[axis] as f64);
        match self.aspect_ratio {
            AspectRatio::Stretch => None,
            AspectRatio::NotLarger => scales.reduce(f64::min),
            AspectRatio::NotSmaller => scales.reduce(f64::max),
        }
    }
}

/// Exactly one of scales and sizes must be there, for each axis.
fn check_lengths(axes: usize, scales: usize, sizes: usize) -> Result<()> {
    match (scales, sizes) {
        (0, 0) if axes == 0 => Ok(()),
        (0, 0) => Err(Error::input(2, "scales", "either scales or sizes are required")),
        (0, count) if count == axes => Ok(()),
        (count, 0) if count == axes => Ok(()),
        (0, count) => Err(Error::input(3, "sizes", format!("expected {axes} numbers, found {count}"))),
        (count, 0) => Err(Error::input(2, "scales", format!("expected {axes} numbers, found {count}"))),
        _ => Err(Error::input(3, "sizes", "accepted is one of scales and sizes, not both")),
    }
}

fn floats(tensor: Option<&Tensor>, index: usize, name: &'static str) -> Result<Vec<f64>> {
    match tensor {
        Some(tensor) if !tensor.dtype().is_float() => {
            Err(Error::input(index, name, format!("expected floats, found {}", tensor.dtype())))
        }
        Some(tensor) => tensor.to_f64s(),
        None => Ok(vec![]),
    }
}

/// True when the input is there and not known to be empty.
fn is_given(input: Option<InputInfo<'_>>) -> bool {
    input.is_some_and(|input| input.ty.known_shape().is_none_or(|shape| !shape.contains(&0)))
}

impl Operator for Resize {
    fn name(&self) -> &str {
        "Resize"
    }

    fn attributes(&self) -> Attributes {
        let (mut attributes, default) = (Attributes::new(), Self::default());
        write_name(&mut attributes, "mode", MODES, self.mode);
        write_name(&mut attributes, "coordinate_transformation_mode", COORDINATES, self.coordinates);
        write_name(&mut attributes, "nearest_mode", ROUNDINGS, self.rounding);
        write_name(&mut attributes, "keep_aspect_ratio_policy", RATIOS, self.aspect_ratio);
        if self.cubic_coeff_a != default.cubic_coeff_a {
            attributes.set("cubic_coeff_a", self.cubic_coeff_a);
        }
        if self.exclude_outside {
            attributes.set("exclude_outside", 1);
        }
        if self.antialias {
            attributes.set("antialias", 1);
        }
        if self.extrapolation_value != 0.0 {
            attributes.set("extrapolation_value", self.extrapolation_value);
        }
        if !self.axes.is_empty() {
            attributes.set("axes", self.axes.as_slice());
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 4)?;
        let x = required(inputs, 0, "X")?;
        let Some(shape) = &x.ty.shape else { return Ok(vec![x.ty.clone()]) };
        let named = self.named_axes(shape.len())?;
        let (scales, sizes) = (optional(inputs, 2), optional(inputs, 3));
        let mut extents_out = shape.clone();
        for &axis in &named {
            extents_out[axis] = Dim::unknown();
        }
        match (scales.filter(|_| is_given(scales)), sizes.filter(|_| is_given(sizes))) {
            (None, None) => check_lengths(named.len(), 0, 0)?,
            // One whose length is not known may turn out empty, which is absent.
            (Some(a), Some(b)) if a.ty.known_shape().is_none() || b.ty.known_shape().is_none() => {}
            (Some(_), Some(_)) => check_lengths(named.len(), 1, 1)?,
            (Some(scales), None) => {
                if let Some(scales) = scales.constant {
                    let scales = floats(Some(scales), 2, "scales")?;
                    check_lengths(named.len(), scales.len(), 0)?;
                    for (&axis, scale) in named.iter().zip(scales) {
                        extents_out[axis] = scaled_dim(&shape[axis], scale as f32)?;
                    }
                }
            }
            (None, Some(sizes)) => {
                if let Some(sizes) = extents(&sizes) {
                    check_lengths(named.len(), 0, sizes.len())?;
                    let known: Option<Vec<i64>> = sizes.iter().map(Dim::known_i64).collect();
                    let input = x.ty.known_shape();
                    let common = match (known, input) {
                        (Some(sizes), Some(input)) => self.common_scale(&input, &named, &sizes),
                        _ => None,
                    };
                    for (&axis, size) in named.iter().zip(sizes) {
                        extents_out[axis] = match (common, shape[axis].known()) {
                            (Some(scale), Some(extent)) => {
                                ((scale * extent as f64 + 0.5).floor() as usize).into()
                            }
                            _ if self.aspect_ratio != AspectRatio::Stretch => Dim::unknown(),
                            _ if size.known_i64().is_some_and(|size| size < 0) => {
                                return Err(Error::input(3, "sizes", format!("{size} is no extent")));
                            }
                            _ => size,
                        };
                    }
                }
            }
        }
        Ok(vec![ValueType { dtype: x.ty.dtype, shape: Some(extents_out) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, shape) = (required(inputs, 0, "X")?, output_shape(self, inputs)?);
        let roi = floats(optional(inputs, 1), 1, "roi")?;
        let scales: Vec<f32> =
            floats(optional(inputs, 2), 2, "scales")?.into_iter().map(|scale| scale as f32).collect();
        let sizes = optional(inputs, 3).map_or(Ok(vec![]), Tensor::to_i64s)?;
        let axes = self.geometry(x.shape(), &roi, &scales, &sizes)?;
        if self.mode == ResizeMode::Nearest {
            let tables: Vec<ResizeTable> = axes.iter().map(ResizeAxis::table).collect::<Result<_>>()?;
            let strides = strides(x.shape());
            let outside = self.extrapolation(x.dtype())?;
            let walk = |emit: &mut dyn FnMut(Option<usize>)| copy_nearest(&tables, &strides, Some(0), emit);
            return Ok(vec![pick(x, &shape, outside.as_ref(), walk)?]);
        }
        let (mut data, mut extents) = (x.to_f64s()?, x.shape().to_vec());
        for (i, axis) in axes.iter().enumerate().filter(|(_, axis)| !axis.is_identity()) {
            let table = axis.table()?;
            let before = std::mem::replace(&mut extents[i], axis.output);
            check_size(DType::F64, &extents)?;
            data = resample(&data, (&extents, i, before), &table, f64::from(self.extrapolation_value));
        }
        let rounded = |value: f64| if x.dtype().is_float() { value } else { value.round_ties_even() };
        dispatch_numeric!(x.dtype(), T => {
            let data = data.into_iter().map(|value| T::from_f64(rounded(value))).collect();
            Ok(vec![Tensor::from_vec(shape, data)?])
        })
    }
}

/// Sources of the elements of the output, in row-major order.
fn copy_nearest(
    tables: &[ResizeTable],
    strides: &[usize],
    base: Option<usize>,
    emit: &mut dyn FnMut(Option<usize>),
) {
    let ([table, tables @ ..], [stride, strides @ ..]) = (tables, strides) else { return emit(base) };
    for o in 0..table.output() {
        let base = base.zip(table.copied(o)).map(|(base, source)| base + source * stride);
        copy_nearest(tables, strides, base, emit);
    }
}

/// One axis of `shape`, which had the extent `before`, resampled.
fn resample(
    data: &[f64],
    (shape, axis, before): (&[usize], usize, usize),
    table: &ResizeTable,
    outside: f64,
) -> Vec<f64> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut output = Vec::with_capacity(outer * table.output() * inner);
    for block in 0..outer {
        for o in 0..table.output() {
            let taps = table.taps(o);
            for after in 0..inner {
                let read = |source: usize| data[(block * before + source) * inner + after];
                output.push(match taps {
                    [] => outside,
                    taps => taps.iter().map(|tap| tap.weight * read(tap.source)).sum(),
                });
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back() {
        for op in [
            Resize::default(),
            Resize {
                mode: ResizeMode::Cubic,
                coordinates: Coordinates::TfCropAndResize,
                rounding: Rounding::Ceil,
                cubic_coeff_a: -0.5,
                exclude_outside: true,
                antialias: true,
                extrapolation_value: 10.0,
                axes: vec![2, -1],
                aspect_ratio: AspectRatio::NotLarger,
            },
        ] {
            assert_eq!(Resize::read(op.attributes()), Ok(op));
        }
    }

    #[test]
    fn extents_are_scaled_symbolically() {
        let h = Dim::symbol("H");
        assert_eq!(scaled_dim(&h, 2.0), h.mul(&Dim::constant(2)));
        assert_eq!(scaled_dim(&h, 0.5), h.floor_div(2));
        assert_eq!(scaled_dim(&h, 1.5), h.mul(&Dim::constant(3)).unwrap().floor_div(2));
        assert_eq!(scaled_dim(&h, 0.7), Ok(Dim::unknown()));
        assert_eq!(scaled_dim(&Dim::constant(10), 0.7), Ok(Dim::constant(7)));
        assert!(scaled_dim(&Dim::constant(10), -1.0).is_err());
        assert!(scaled_dim(&Dim::constant(10), f32::NAN).is_err());
        assert!(scaled_dim(&Dim::constant(10), 1e30).is_err());
    }

    #[test]
    fn nearest_moves_any_type() {
        let (x, sizes) = (Tensor::from_bools([2], [true, false]).unwrap(), Tensor::from_i64s(&[4]));
        let y = Resize::default().eval(&[Some(&x), None, None, Some(&sizes)], 1).unwrap();
        assert_eq!(y[0].bools().unwrap().collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn linear_doubles_as_known() {
        let (x, scales) =
            (Tensor::from_vec([2], vec![0f32, 1.0]).unwrap(), Tensor::from_vec([1], vec![2f32]).unwrap());
        let run = |coordinates| {
            let op = Resize { mode: ResizeMode::Linear, coordinates, ..Resize::default() };
            op.eval(&[Some(&x), None, Some(&scales)], 1).unwrap()[0].to_f64s().unwrap()
        };
        assert_eq!(run(Coordinates::HalfPixel), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(run(Coordinates::Asymmetric), [0.0, 0.5, 1.0, 1.0]);
        let third = f64::from(1f32 / 3.0);
        assert_eq!(run(Coordinates::AlignCorners), [0.0, third, f64::from(2f32 / 3.0), 1.0]);
    }
}
