//! Taking parts of a tensor: Slice and Split.

use super::index_map::{AxisMap, IndexMap};
use super::support::inputs::{at_most, extents, optional, required, resolve_axes, resolve_axis};
use super::support::lists::{known_i64s, list_i64};
use super::{InputInfo, Operator};
use crate::attributes::Attributes;
use crate::dim::Dim;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::value_type::ValueType;

/// ONNX `Slice`: `data, starts, ends, axes?, steps? -> output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slice;

/// ONNX `Split`: `input, split? -> outputs..` along one axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// The axis; counts from the end when negative.
    pub axis: i64,
    /// Into how many parts, when the sizes are not an input: all of the same size, the last one smaller if need be.
    /// `None` goes by the number of outputs.
    pub num_outputs: Option<usize>,
}

/// One axis of a slice whose extent is known: indices `start, start + step, ..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceAxis {
    /// First index.
    pub start: usize,
    /// Distance of the indices; not zero.
    pub step: i64,
    /// Number of indices.
    pub count: usize,
}

impl SliceAxis {
    /// From ONNX's numbers, clamped as it says.
    ///
    /// # Errors
    /// When the step is zero.
    pub fn new(extent: usize, start: i64, end: i64, step: i64) -> Result<Self> {
        if step == 0 {
            return Err(Error::input(4, "steps", "a step is 0, accepted is any other number"));
        }
        let extent = extent as i64;
        let from_start = |index: i64| if index < 0 { index.saturating_add(extent) } else { index };
        let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
        let start = from_start(start).clamp(low.max(0), high.max(0));
        let end = from_start(end).clamp(low, high);
        let distance = if step > 0 { end - start } else { start - end };
        let count = if distance <= 0 || extent == 0 {
            0
        } else {
            (distance as u64).div_ceil(step.unsigned_abs()) as usize
        };
        Ok(Self { start: start as usize, step, count })
    }
}

/// Starts and ends beyond this stand for the end of the axis, whatever its extent.
const FAR: i64 = i32::MAX as i64;

/// The slice of one axis as the inputs state it; `None` where it is not known.
#[derive(Clone, Default)]
struct Bounds {
    start: Option<Dim>,
    end: Option<Dim>,
    step: Option<i64>,
}

impl Slice {
    pub(super) fn read(attributes: Attributes) -> Result<Self> {
        attributes.finish("none; starts, ends, axes and steps are inputs")?;
        Ok(Self)
    }

    /// The slice of each axis of data of that shape.
    ///
    /// # Errors
    /// When the lists do not fit together or to the shape.
    pub fn axes(
        shape: &[usize],
        starts: &[i64],
        ends: &[i64],
        axes: Option<&[i64]>,
        steps: Option<&[i64]>,
    ) -> Result<Vec<SliceAxis>> {
        let mut slices: Vec<SliceAxis> =
            shape.iter().map(|&count| SliceAxis { start: 0, step: 1, count }).collect();
        for (i, axis) in sliced_axes(shape.len(), starts.len(), axes)?.into_iter().enumerate() {
            let step = steps.map_or(Ok(1), |steps| at(steps, i, starts.len(), 4, "steps"))?;
            let end = at(ends, i, starts.len(), 2, "ends")?;
            slices[axis] = SliceAxis::new(shape[axis], starts[i], end, step)?;
        }
        Ok(slices)
    }

    /// Where the elements come from.
    ///
    /// # Errors
    /// When the slice is not of that shape.
    pub fn map(shape: &[usize], axes: &[SliceAxis]) -> Result<IndexMap> {
        let axis =
            |axis: &SliceAxis| (axis.count, AxisMap::Step { start: axis.start as i64, step: axis.step });
        IndexMap::by_axis(shape, axes.iter().map(axis))
    }

    /// What is known of each axis; `None` when not even which axes are sliced is.
    fn bounds(inputs: &[Option<InputInfo<'_>>], rank: usize) -> Result<Option<Vec<Option<Bounds>>>> {
        let (starts, ends) = (required(inputs, 1, "starts")?, required(inputs, 2, "ends")?);
        let (axes, steps) = (optional(inputs, 3), optional(inputs, 4));
        let (starts, ends) = (extents(&starts), extents(&ends));
        let steps = match steps {
            None => None,
            Some(steps) => Some(known_i64s(&steps)?),
        };
        let listed = match axes {
            None => None,
            Some(axes) => match known_i64s(&axes)? {
                None => return Ok(None),
                Some(axes) => Some(axes),
            },
        };
        let Some(count) =
            starts.as_ref().map(Vec::len).or(ends.as_ref().map(Vec::len)).or(listed.as_ref().map(Vec::len))
        else {
            return Ok(None);
        };
        let mut bounds: Vec<Option<Bounds>> = vec![None; rank];
        for (i, axis) in sliced_axes(rank, count, listed.as_deref())?.into_iter().enumerate() {
            let dim = |list: &Option<Vec<Dim>>, index, name| {
                list.as_ref().map(|list| at(list, i, count, index, name)).transpose()
            };
            bounds[axis] = Some(Bounds {
                start: dim(&starts, 1, "starts")?,
                end: dim(&ends, 2, "ends")?,
                step: match &steps {
                    None => Some(1),
                    Some(steps) => steps.as_ref().map(|steps| at(steps, i, count, 4, "steps")).transpose()?,
                },
            });
        }
        Ok(Some(bounds))
    }
}

/// Element `i` of a list that must have `count`.
fn at<T: Clone>(list: &[T], i: usize, count: usize, index: usize, name: &'static str) -> Result<T> {
    match list.get(i) {
        Some(value) if list.len() == count => Ok(value.clone()),
        _ => Err(Error::input(
            index,
            name,
            format!("expected {count} numbers as starts has, found {}", list.len()),
        )),
    }
}

/// The axes that a slice names; by default the first ones.
fn sliced_axes(rank: usize, count: usize, axes: Option<&[i64]>) -> Result<Vec<usize>> {
    match axes {
        Some(axes) if axes.len() != count => {
            Err(Error::input(3, "axes", format!("expected {count} axes as starts has, found {}", axes.len())))
        }
        Some(axes) => resolve_axes("axes", axes, rank),
        None if count > rank => {
            Err(Error::input(1, "starts", format!("{count} numbers for data of {rank} axes")))
        }
        None => Ok((0..count).collect()),
    }
}

impl Bounds {
    /// Extent of the slice of an axis of that extent.
    ///
    /// Where symbols are left, the axis is taken to reach to the start of the slice; where it does not, that shows when the
    /// symbols get values, as a negative extent.
    fn extent(&self, dim: &Dim) -> Result<Dim> {
        let (Some(start), Some(end), Some(step)) = (&self.start, &self.end, self.step) else {
            return Ok(Dim::unknown());
        };
        if let (Some(extent), Some(start), Some(end)) = (dim.known(), start.known_i64(), end.known_i64()) {
            return Ok(SliceAxis::new(extent, start, end, step)?.count.into());
        }
        if step <= 0 || dim.is_unknown() {
            return Ok(Dim::unknown());
        }
        let first = match start.known_i64() {
            Some(start) if start >= FAR => return Ok(Dim::constant(0)),
            Some(start) if start <= -FAR => Dim::constant(0),
            Some(start) if start >= 0 => Dim::constant(start),
            Some(-1) => dim.sub(&Dim::constant(1))?,
            // The beginning, should the axis be shorter.
            Some(_) => return Ok(Dim::unknown()),
            None => start.clone(),
        };
        let last = match end.known_i64() {
            Some(end) if end >= FAR => dim.clone(),
            Some(end) if end <= -FAR => return Ok(Dim::constant(0)),
            Some(end) if end < 0 => dim.add(&Dim::constant(end))?,
            // The smaller of two that cannot be compared yet.
            _ => match dim.sub(end)?.known_i64() {
                Some(surplus) if surplus >= 0 => end.clone(),
                Some(_) => dim.clone(),
                None => return Ok(Dim::unknown()),
            },
        };
        let length = last.sub(&first)?;
        if length.known_i64().is_some_and(|length| length <= 0) {
            return Ok(Dim::constant(0));
        }
        Ok(if length.is_unknown() { Dim::unknown() } else { length.ceil_div(step)? })
    }
}

impl Operator for Slice {
    fn name(&self) -> &str {
        "Slice"
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], _outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 5)?;
        let ty = required(inputs, 0, "data")?.ty;
        let Some(shape) = &ty.shape else { return Ok(vec![ty.clone()]) };
        let extents = match Self::bounds(inputs, shape.len())? {
            None => vec![Dim::unknown(); shape.len()],
            Some(bounds) => shape
                .iter()
                .zip(bounds)
                .map(|(dim, bounds)| bounds.map_or(Ok(dim.clone()), |bounds| bounds.extent(dim)))
                .collect::<Result<_>>()?,
        };
        Ok(vec![ValueType { dtype: ty.dtype, shape: Some(extents) }])
    }

    fn infer_extents(&self, inputs: &[Option<InputInfo<'_>>]) -> Option<Vec<Dim>> {
        let data = required(inputs, 0, "data").ok()?;
        let list = |index| match optional(inputs, index) {
            None => Some(None),
            Some(input) => known_i64s(&input).ok()?.map(Some),
        };
        let shape = data.ty.known_shape()?;
        let axes =
            Self::axes(&shape, &list(1)??, &list(2)??, list(3)?.as_deref(), list(4)?.as_deref()).ok()?;
        Self::map(&shape, &axes).ok()?.apply_to(&extents(&data)?)
    }

    fn eval(&self, inputs: &[Option<&Tensor>], _outputs: usize) -> Result<Vec<Tensor>> {
        at_most(inputs, 5)?;
        let x = required(inputs, 0, "data")?;
        let list =
            |index, name| optional(inputs, index).map(|tensor| list_i64(tensor, index, name)).transpose();
        let (starts, ends) = (required(inputs, 1, "starts")?, required(inputs, 2, "ends")?);
        let axes = Self::axes(
            x.shape(),
            &list_i64(starts, 1, "starts")?,
            &list_i64(ends, 2, "ends")?,
            list(3, "axes")?.as_deref(),
            list(4, "steps")?.as_deref(),
        )?;
        Ok(vec![Self::map(x.shape(), &axes)?.apply(x, None)?])
    }
}

impl Split {
    pub(super) fn read(mut attributes: Attributes) -> Result<Self> {
        let axis = attributes.int("axis")?.unwrap_or(0);
        let num_outputs = attributes.int("num_outputs")?.map(|count| {
            usize::try_from(count)
                .ok()
                .filter(|&count| count > 0)
                .ok_or_else(|| Error::attribute("num_outputs", format!("expected at least 1, found {count}")))
        });
        attributes.finish("axis, num_outputs")?;
        Ok(Self { axis, num_outputs: num_outputs.transpose()? })
    }

    /// Extents of the parts of an axis of that extent, when they are not an input.
    fn equal_parts(self, extent: &Dim, outputs: usize) -> Result<Vec<Dim>> {
        let parts = self.num_outputs.unwrap_or(outputs).max(1);
        if parts != outputs {
            return Err(Error::attribute(
                "num_outputs",
                format!("is {parts}, the node has {outputs} outputs"),
            ));
        }
        let Some(known) = extent.known() else {
            let exact = extent.floor_div(parts as i64)?;
            if exact.mul(&Dim::constant(parts as i64))? == *extent {
                return Ok(vec![exact; parts]);
            }
            // Of the others it depends on the extent how many are full.
            let mut parts = vec![Dim::unknown(); parts];
            parts[0] = extent.ceil_div(parts.len() as i64)?;
            return Ok(parts);
        };
        let size = known.div_ceil(parts);
        Ok((0..parts).map(|i| known.saturating_sub(i * size).min(size).into()).collect())
    }
}

impl Operator for Split {
    fn name(&self) -> &str {
        "Split"
    }

    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if self.axis != 0 {
            attributes.set("axis", self.axis);
        }
        if let Some(count) = self.num_outputs {
            attributes.set("num_outputs", count as i64);
        }
        attributes
    }

    fn infer(&self, inputs: &[Option<InputInfo<'_>>], outputs: usize) -> Result<Vec<ValueType>> {
        at_most(inputs, 2)?;
        let (ty, sizes) = (required(inputs, 0, "input")?.ty, optional(inputs, 1));
        let Some(shape) = &ty.shape else { return Ok(vec![ty.clone(); outputs]) };
        let axis = resolve_axis("axis", self.axis, shape.len())?;
        let parts = match sizes {
            None => self.equal_parts(&shape[axis], outputs)?,
            Some(sizes) => match extents(&sizes) {
                None => vec![Dim::unknown(); outputs],
                Some(parts) => {
                    let sum = parts.iter().try_fold(Dim::constant(0), |sum, part| sum.add(part))?;
                    let negative = parts.iter().any(|part| part.known_i64().is_some_and(|part| part < 0));
                    if negative || parts.len() != outputs || sum.equals(&shape[axis]) == Some(false) {
                        return Err(Error::input(
                            1,
                            "split",
                            format!(
                                "expected {outputs} extents with the sum {}, found {parts:?}",
                                shape[axis]
                            ),
                        ));
                    }
                    parts
                }
            },
        };
        let part = |part: Dim| {
            let mut shape = shape.clone();
            shape[axis] = part;
            ValueType { dtype: ty.dtype, shape: Some(shape) }
        };
        Ok(parts.into_iter().map(part).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0, "input")?;
        let axis = resolve_axis("axis", self.axis, x.rank())?;
        let mut start = 0;
        let part = |shape: Vec<usize>| {
            let mut axes: Vec<SliceAxis> =
                x.shape().iter().map(|&count| SliceAxis { start: 0, step: 1, count }).collect();
            axes[axis] = SliceAxis { start, step: 1, count: shape[axis] };
            start += shape[axis];
            Slice::map(x.shape(), &axes)?.apply(x, None)
        };
        super::support::lists::output_shapes(self, inputs, outputs)?.into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONNX clamps a start before the beginning to 0 when it walks backwards, where NumPy finds nothing to take.
    #[test]
    fn slices_are_those_of_onnx() {
        for extent in 0..6i64 {
            for start in -7..=7 {
                for end in -7..=7 {
                    for step in [-3, -2, -1, 1, 2, 3] {
                        let wrap = |index: i64| if index < 0 { index + extent } else { index };
                        let (mut index, end_index) = if step > 0 {
                            (wrap(start).max(0), wrap(end).min(extent))
                        } else {
                            (wrap(start).max(0).min(extent - 1), wrap(end).max(-1))
                        };
                        let mut expected = vec![];
                        while if step > 0 { index < end_index } else { index > end_index } {
                            expected.push(index);
                            index += step;
                        }
                        let axis = SliceAxis::new(extent as usize, start, end, step).unwrap();
                        let found: Vec<i64> =
                            (0..axis.count as i64).map(|i| axis.start as i64 + i * step).collect();
                        assert_eq!(found, expected, "{start}:{end}:{step} of {extent}");
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_bounds_do_not_overflow() {
        let (min, max) = (i64::MIN, i64::MAX);
        assert_eq!(SliceAxis::new(5, min, max, max).unwrap(), SliceAxis { start: 0, step: max, count: 1 });
        assert_eq!(SliceAxis::new(5, max, min, min).unwrap(), SliceAxis { start: 4, step: min, count: 1 });
        assert_eq!(SliceAxis::new(5, max, min, -1).unwrap().count, 5);
        assert!(SliceAxis::new(5, 0, 1, 0).is_err());
    }

    #[test]
    fn symbolic_slices_say_what_is_certain() {
        let (h, c) = (Dim::symbol("H"), Dim::constant);
        let extent = |start: i64, end: i64, step: i64| {
            let bounds = Bounds { start: Some(c(start)), end: Some(c(end)), step: Some(step) };
            bounds.extent(&h).unwrap()
        };
        let less = |by: i64| h.sub(&c(by)).unwrap();
        assert_eq!(extent(0, i64::MAX, 1), h);
        assert_eq!(extent(2, -2, 1), less(4));
        assert_eq!(extent(1, i64::MAX, 2), less(1).ceil_div(2).unwrap());
        assert_eq!(extent(-1, i64::MAX, 1), c(1));
        assert_eq!(extent(i64::MIN, -1, 1), less(1));
        for (start, end, step) in [(0, 5, 1), (-3, i64::MAX, 1), (0, i64::MAX, -1)] {
            assert_eq!(extent(start, end, step), Dim::unknown(), "{start}:{end}:{step}");
        }
        assert_eq!(extent(i64::MAX, i64::MAX, 1), c(0));
        let to_h = |dim: &Dim| {
            let bounds = Bounds { start: Some(c(0)), end: Some(h.clone()), step: Some(1) };
            bounds.extent(dim).unwrap()
        };
        assert_eq!([to_h(&h), to_h(&h.add(&c(3)).unwrap()), to_h(&less(1))], [h.clone(), h.clone(), less(1)]);
        assert_eq!(to_h(&Dim::symbol("W")), Dim::unknown());
    }

    #[test]
    fn symbolic_extents_split_evenly_or_not() {
        let (h, split) = (Dim::symbol("H"), Split { axis: 0, num_outputs: None });
        assert_eq!(split.equal_parts(&h.mul(&Dim::constant(2)).unwrap(), 2), Ok(vec![h.clone(), h.clone()]));
        assert_eq!(split.equal_parts(&h, 2).unwrap(), [h.ceil_div(2).unwrap(), Dim::unknown()]);
        assert_eq!(split.equal_parts(&Dim::constant(7), 3).unwrap(), [3, 3, 1].map(Dim::constant));
    }
}
