//! Pooling over windows and over all of space: largest, average, Lp norm. The windows are [`crate::geometry::PoolAxis`].

use super::support::inputs::{at_most, check_dtype, required};
use super::support::number::Number;
use super::support::window::{Padding, per_axis, read_sizes, write_sizes};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::dispatch_numeric;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::geometry::{PoolAxis, pool_extent, same_pads};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// What a window becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// ONNX `MaxPool`: the largest; NaN is passed over. A second output is the index of it in the input.
    Max {
        /// Indices count columns before rows: ONNX's `storage_order`.
        column_major: bool,
    },
    /// ONNX `AveragePool`: the mean.
    Average {
        /// Padding counts as zeros: ONNX's `count_include_pad`. What a window reads past the padding does not.
        include_pad: bool,
    },
    /// ONNX `LpPool`: `(sum of |x|^p)^(1/p)`.
    Lp {
        /// The exponent.
        p: u32,
    },
}

/// ONNX `MaxPool`, `AveragePool` and `LpPool`: `X [N, C, ..] -> Y [N, C, ..]`, for `MaxPool` also the indices, i64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What a window becomes.
    pub kind: PoolKind,
    /// Extents of a window.
    pub kernel_shape: Vec<usize>,
    /// Strides; empty is all 1.
    pub strides: Vec<usize>,
    /// Dilations; empty is all 1.
    pub dilations: Vec<usize>,
    /// Pads; never negative.
    pub padding: Padding,
    /// A last window that is not full counts as well.
    pub ceil_mode: bool,
}

/// What all of space becomes: ONNX `GlobalMaxPool`, `GlobalAveragePool`, `GlobalLpPool`: `[N, C, ..] -> [N, C, 1..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GlobalPool {
    /// The largest; NaN is passed over.
    Max,
    /// The mean.
    Average,
    /// `(sum of |x|^p)^(1/p)`.
    Lp {
        /// The exponent.
        p: u32,
    },
}

fn read_exponent(attributes: &mut Attributes) -> Result<u32> {
    let p = attributes.int("p")?.unwrap_or(2);
    let exponent = u32::try_from(p).ok().filter(|&p| p > 0);
    exponent.ok_or_else(|| Error::attribute("p", format!("expected 1 to {}, found {p}", u32::MAX)))
}

impl Pool {
    /// Reads the operator of that name; `Ok(None)` when the name is no pooling's.
    pub(super) fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let kind = match name {
            "MaxPool" => PoolKind::Max { column_major: attributes.flag("storage_order", false)? },
            "AveragePool" => PoolKind::Average { include_pad: attributes.flag("count_include_pad", false)? },
            "LpPool" => PoolKind::Lp { p: read_exponent(&mut attributes)? },
            _ => return Ok(None),
        };
        let kernel_shape = attributes
            .sizes("kernel_shape")?
            .ok_or_else(|| Error::attribute("kernel_shape", "is required"))?;
        let op = Self {
            kind,
            kernel_shape,
            strides: read_sizes(&mut attributes, "strides")?,
            dilations: read_sizes(&mut attributes, "dilations")?,
            padding: Padding::read(&mut attributes)?,
            ceil_mode: attributes.flag("ceil_mode", false)?,
        };
        attributes.finish(match kind {
            PoolKind::Max { .. } => {
                "auto_pad, ceil_mode, dilations, kernel_shape, pads, storage_order, strides"
            }
            PoolKind::Average { .. } => {
                "auto_pad, ceil_mode, count_include_pad, dilations, kernel_shape, pads, strides"
            }
            PoolKind::Lp { .. } => "auto_pad, ceil_mode, dilations, kernel_shape, p, pads, strides",
        })?;
        Ok(Some(op))
    }

    /// Stride, dilation and pads of each spatial axis; pads of `SAME_*` follow from the extent.
    fn axis<T>(
        &self,
        rank: usize,
        mut make: impl FnMut(usize, usize, usize, usize, Option<[i64; 2]>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let axes = self.kernel_shape.len();
        if rank != axes + 2 || !(1..=3).contains(&axes) {
            let problem = format!(
                "expected [N, C, ..] with {axes} spatial axes as kernel_shape has, 1 to 3, found {rank} axes"
            );
            return Err(Error::input(0, "X", problem));
        }
        let strides = per_axis("strides", &self.strides, axes, 1)?;
        let dilations = per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = self.padding.per_axis(axes)?;
        (0..axes)
            .map(|i| {
                make(i, self.kernel_shape[i], strides[i], dilations[i], pads.as_ref().map(|pads| pads[i]))
            })
            .collect()
    }

    /// The spatial axes for an input of that shape.
    ///
    /// # Errors
    /// When the shape and the attributes do not fit together.
    pub fn geometry(&self, input: &[usize]) -> Result<Vec<PoolAxis>> {
        self.axis(input.len(), |i, kernel, stride, dilation, pads| {
            let extent = input[i + 2];
            let lower = self.padding == Padding::SameLower;
            let same = pads.is_none();
            let pads = pads.map_or_else(|| same_pads(extent, kernel, stride, dilation, lower), Ok)?;
            PoolAxis::new(extent, kernel, stride, dilation, pads, self.ceil_mode && !same)
        })
    }
}

impl Operator for Pool {
    fn name(&self) -> &str {
        match self.kind {
            PoolKind::Max { .. } => "MaxPool",
            PoolKind::Average { .. } => "AveragePool",
            PoolKind::Lp { .. } => "LpPool",
        }
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new().with("kernel_shape", self.kernel_shape.as_slice());
        write_sizes(&mut attributes, "strides", &self.strides);
        write_sizes(&mut attributes, "dilations", &self.dilations);
        self.padding.write(&mut attributes);
        if self.ceil_mode {
            attributes.set("ceil_mode", 1);
        }
        match self.kind {
            PoolKind::Max { column_major: true } => attributes.set("storage_order", 1),
            PoolKind::Average { include_pad: true } => attributes.set("count_include_pad", 1),
            PoolKind::Lp { p } if p != 2 => attributes.set("p", i64::from(p)),
            _ => {}
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "X")?.ty;
        check_input(ty.dtype, matches!(self.kind, PoolKind::Max { .. }))?;
        let shape = match &ty.shape {
            None => None,
            Some(shape) => {
                let spatial = self.axis(shape.len(), |i, kernel, stride, dilation, pads| match pads {
                    Some(pads) => pool_extent(&shape[i + 2], kernel, stride, dilation, pads, self.ceil_mode),
                    None if shape[i + 2].is_unknown() => Ok(Dim::unknown()),
                    None => shape[i + 2].ceil_div(stride as i64),
                })?;
                Some(shape[..2].iter().cloned().chain(spatial).collect())
            }
        };
        let indices = ValueType { dtype: Some(DType::I64), shape: Option::clone(&shape) };
        let mut types = vec![ValueType { dtype: ty.dtype, shape }];
        match (outputs, self.kind) {
            (0 | 1, _) => {}
            (2, PoolKind::Max { .. }) => types.push(indices),
            _ => return Err(Error::Unsupported(format!("{} with {outputs} outputs", self.name()))),
        }
        Ok(types)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "X")?;
        check_input(Some(x.dtype()), matches!(self.kind, PoolKind::Max { .. }))?;
        let axes = self.geometry(x.shape())?;
        let shape: Vec<usize> =
            x.shape()[..2].iter().copied().chain(axes.iter().map(PoolAxis::output)).collect();
        let windows = Windows::new(x.shape(), &axes);
        match self.kind {
            PoolKind::Max { column_major } => dispatch_numeric!(x.dtype(), T => {
                let data = x.elements::<T>()?;
                let (mut values, mut indices) = (vec![], vec![]);
                windows.visit(&data, |elements, _| {
                    let (value, index) = largest::<T>(elements);
                    values.push(value);
                    indices.push(if column_major { windows.column_major(index) } else { index } as i64);
                });
                let mut results = vec![Tensor::from_vec(shape.clone(), values)?];
                if outputs > 1 {
                    results.push(Tensor::from_vec(shape, indices)?);
                }
                Ok(results)
            }),
            PoolKind::Average { include_pad } => dispatch_numeric!(x.dtype(), T => {
                let mut means = vec![];
                windows.visit(&x.elements::<T>()?, |elements, padded| {
                    let count = if include_pad { padded } else { elements.len() };
                    let sum: f64 = elements.iter().map(|(value, _)| value.to_f64()).sum();
                    means.push(T::from_f64(sum / count.max(1) as f64));
                });
                Ok(vec![Tensor::from_vec(shape, means)?])
            }),
            PoolKind::Lp { p } => dispatch_numeric!(x.dtype(), T => {
                let mut norms = vec![];
                windows.visit(&x.elements::<T>()?, |elements, _| {
                    norms.push(T::from_f64(norm(elements.iter().map(|(value, _)| value.to_f64()), p)));
                });
                Ok(vec![Tensor::from_vec(shape, norms)?])
            }),
        }
    }
}

/// `MaxPool` takes any numbers, the others floats.
fn check_input(dtype: Option<DType>, any_number: bool) -> Result<()> {
    if any_number {
        check_dtype(0, "X", dtype, DType::is_numeric, "numbers")
    } else {
        check_dtype(0, "X", dtype, DType::is_float, "floats")
    }
}

fn norm(values: impl Iterator<Item = f64>, p: u32) -> f64 {
    let p = f64::from(p);
    values.map(|value| value.abs().powf(p)).sum::<f64>().powf(p.recip())
}

/// The largest element and its index, the first of equals; the lowest value when there is none but NaN.
fn largest<T: Number>(elements: &[(T, usize)]) -> (T, usize) {
    let first = elements.first().map_or(0, |&(_, index)| index);
    elements.iter().fold(
        (T::LOWEST, first),
        |best, &(value, index)| {
            if value > best.0 { (value, index) } else { best }
        },
    )
}

/// The windows of a pooling, in the order of the outputs.
struct Windows<'a> {
    planes: usize,
    axes: &'a [PoolAxis],
}

impl<'a> Windows<'a> {
    fn new(shape: &[usize], axes: &'a [PoolAxis]) -> Self {
        Self { planes: shape[0] * shape[1], axes }
    }

    /// Hands over, for each output, the elements of its window with their indices, and the number of taps in input and
    /// padding.
    fn visit<T: Copy>(&self, data: &[T], mut emit: impl FnMut(&[(T, usize)], usize)) {
        let mut elements = vec![];
        let plane: usize = self.axes.iter().map(PoolAxis::input).product();
        for start in (0..self.planes).map(|i| i * plane) {
            visit_outputs(self.axes, &mut vec![], &mut |outputs| {
                elements.clear();
                let windows: Vec<(PoolAxis, usize)> =
                    self.axes.iter().copied().zip(outputs.iter().copied()).collect();
                collect_window(&windows, 0, &mut |i| elements.push((data[start + i], start + i)));
                emit(&elements, windows.iter().map(|(axis, o)| axis.padded_taps(*o)).product());
            });
        }
    }

    /// An index into the input, with columns counted before rows within each plane.
    fn column_major(&self, index: usize) -> usize {
        let plane: usize = self.axes.iter().map(PoolAxis::input).product();
        let (mut rest, mut position) = (index % plane, 0);
        for axis in self.axes.iter().rev() {
            position = position * axis.input() + rest % axis.input();
            rest /= axis.input();
        }
        index - index % plane + position
    }
}

fn visit_outputs(axes: &[PoolAxis], outputs: &mut Vec<usize>, emit: &mut impl FnMut(&[usize])) {
    let Some((axis, inner)) = axes.split_first() else { return emit(outputs) };
    for o in 0..axis.output() {
        outputs.push(o);
        visit_outputs(inner, outputs, emit);
        outputs.pop();
    }
}

/// Indices within a plane that the outputs' windows read.
fn collect_window(windows: &[(PoolAxis, usize)], base: usize, emit: &mut impl FnMut(usize)) {
    let Some(((axis, o), inner)) = windows.split_first() else { return emit(base) };
    for source in axis.taps(*o).filter_map(|k| axis.source(*o, k)) {
        collect_window(inner, base * axis.input() + source, emit);
    }
}

impl GlobalPool {
    /// Reads the operator of that name; `Ok(None)` when the name is no global pooling's.
    pub(super) fn read(name: &str, mut attributes: Attributes) -> Result<Option<Self>> {
        let op = match name {
            "GlobalMaxPool" => Self::Max,
            "GlobalAveragePool" => Self::Average,
            "GlobalLpPool" => Self::Lp { p: read_exponent(&mut attributes)? },
            _ => return Ok(None),
        };
        attributes.finish(if matches!(op, Self::Lp { .. }) { "p" } else { "none" })?;
        Ok(Some(op))
    }
}

impl Operator for GlobalPool {
    fn name(&self) -> &str {
        match self {
            Self::Max => "GlobalMaxPool",
            Self::Average => "GlobalAveragePool",
            Self::Lp { .. } => "GlobalLpPool",
        }
    }

    fn attributes(&self) -> Attributes {
        match *self {
            Self::Lp { p } if p != 2 => Attributes::new().with("p", i64::from(p)),
            _ => Attributes::new(),
        }
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 1)?;
        let ty = required(inputs, 0, "X")?.ty;
        check_input(ty.dtype, *self == Self::Max)?;
        let pooled = |shape: &Vec<Dim>| match shape.len() {
            0..=2 => Err(Error::input(0, "X", format!("expected [N, C, ..], found shape {shape:?}"))),
            rank => Ok(shape[..2].iter().cloned().chain(vec![Dim::constant(1); rank - 2]).collect()),
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape: ty.shape.as_ref().map(pooled).transpose()? }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        let (x, shape) = (required(inputs, 0, "X")?, super::support::lists::output_shape(self, inputs)?);
        let space: usize = x.shape()[2..].iter().product();
        if space == 0 && !shape.contains(&0) {
            return Err(Error::input(
                0,
                "X",
                format!("has no elements to pool, its shape is {:?}", x.shape()),
            ));
        }
        dispatch_numeric!(x.dtype(), T => {
            let data = x.elements::<T>()?;
            let pooled = data.chunks(space.max(1)).map(|plane| {
                let values = plane.iter().map(|value| value.to_f64());
                match *self {
                    Self::Max => plane.iter().fold(T::LOWEST, |best, &value| if value > best { value } else { best }),
                    Self::Average => T::from_f64(values.sum::<f64>() / space as f64),
                    Self::Lp { p } => T::from_f64(norm(values, p)),
                }
            });
            Ok(vec![Tensor::from_vec(shape, pooled.collect())?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(kind: PoolKind, kernel: usize, stride: usize, pads: [i64; 2], ceil_mode: bool) -> Pool {
        let padding = Padding::Explicit { begin: vec![pads[0]], end: vec![pads[1]] };
        Pool {
            kind,
            kernel_shape: vec![kernel],
            strides: vec![stride],
            dilations: vec![],
            padding,
            ceil_mode,
        }
    }

    fn run(op: &Pool, x: &[f32]) -> Vec<f64> {
        let x = Tensor::from_vec([1, 1, x.len()], x.to_vec()).unwrap();
        op.eval(&[Some(&x)], 1).unwrap()[0].to_f64s().unwrap()
    }

    #[test]
    fn averages_count_what_they_say() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let average = |include_pad, ceil| pool(PoolKind::Average { include_pad }, 3, 2, [1, 0], ceil);
        assert_eq!(run(&average(false, false), &x), [1.5, 3.0]);
        assert_eq!(run(&average(true, false), &x), [1.0, 3.0]);
        // The last window holds one element, and what is past the input counts in neither case.
        let partial = |include_pad| pool(PoolKind::Average { include_pad }, 3, 3, [0, 0], true);
        assert_eq!(run(&partial(false), &x), [2.0, 4.0]);
        assert_eq!(run(&partial(true), &x), [2.0, 4.0]);
    }

    #[test]
    fn indices_follow_the_storage_order() {
        let x =
            Tensor::from_vec([1, 2, 2, 3], vec![0f32, 9.0, 1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0])
                .unwrap();
        let indices = |column_major| {
            let op = Pool {
                kernel_shape: vec![2, 3],
                strides: vec![],
                ..pool(PoolKind::Max { column_major }, 1, 1, [0, 0], false)
            };
            let op = Pool { padding: Padding::none(), ..op };
            op.eval(&[Some(&x)], 2).unwrap()[1].to_i64s().unwrap()
        };
        assert_eq!(indices(false), [1, 6]);
        assert_eq!(indices(true), [2, 6]);
    }

    #[test]
    fn padding_is_never_the_largest() {
        let op = pool(PoolKind::Max { column_major: false }, 2, 1, [1, 1], false);
        assert_eq!(run(&op, &[-3.0, f32::NAN, -1.0]), [-3.0, -3.0, -1.0, -1.0]);
        assert_eq!(Pool::read("MaxPool", op.attributes()), Ok(Some(op)));
    }

    #[test]
    fn norms_of_all_space() {
        let x = Tensor::from_vec([1, 2, 2], vec![3f32, -4.0, 1.0, -2.0]).unwrap();
        let run = |op: GlobalPool| op.eval(&[Some(&x)], 1).unwrap()[0].to_f64s().unwrap();
        assert_eq!(run(GlobalPool::Lp { p: 2 })[0], 5.0);
        assert_eq!(run(GlobalPool::Lp { p: 1 }), [7.0, 3.0]);
        assert_eq!(run(GlobalPool::Max), [3.0, 1.0]);
        assert_eq!(run(GlobalPool::Average), [-0.5, -0.5]);
    }
}
