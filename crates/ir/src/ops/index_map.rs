//! Where the elements of an output come from, for operators that only move data and treat each axis for itself: Slice,
//! Pad, Transpose, Expand, Tile, Split. Evaluation, shape computations and code generation read the same map.

use super::movement::pick;
use super::support::broadcast::strides;
use super::support::steps::Steps;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};

/// What stands outside the data of an axis that is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Border {
    /// The fill value.
    Constant,
    /// The element at the border, repeated.
    Edge,
    /// The data mirrored, without repeating the element at the border.
    Reflect,
    /// The data from the other end.
    Wrap,
}

/// Which index of an input axis an index of an output axis reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AxisMap {
    /// `start + i * step`.
    Step {
        /// Read by output 0.
        start: i64,
        /// From one output to the next; 0 repeats, negative goes backwards.
        step: i64,
    },
    /// The `extent` elements from `first`, behind `begin` elements of border and with border after them.
    Padded {
        /// What the border is.
        border: Border,
        /// Elements of border before the data.
        begin: usize,
        /// First element of the data that is read: those before it are cropped.
        first: usize,
        /// Number of elements of the data.
        extent: usize,
    },
}

/// One axis of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MappedAxis {
    /// Extent of the output.
    pub output: usize,
    /// Elements between neighbours of the input axis it reads.
    pub stride: usize,
    /// Which of them it reads.
    pub map: AxisMap,
}

/// Where the elements of an output come from: the sum over its axes of what each maps to, or the fill value when one maps
/// to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexMap {
    /// Axes of the output, outermost first.
    pub axes: Vec<MappedAxis>,
}

impl AxisMap {
    /// The whole axis as it is.
    pub const IDENTITY: Self = Self::Step { start: 0, step: 1 };

    /// Index of the input that output `i` reads; `None` for the fill value.
    pub fn source(self, i: usize) -> Option<usize> {
        match self {
            Self::Step { start, step } => usize::try_from(start + i as i64 * step).ok(),
            Self::Padded { border, begin, first, extent } => {
                let (inside, extent) = (i as i64 - begin as i64, extent as i64);
                let index = match border {
                    _ if (0..extent).contains(&inside) => inside,
                    Border::Constant => return None,
                    _ if extent == 0 => return None,
                    Border::Edge => inside.clamp(0, extent - 1),
                    Border::Wrap => inside.rem_euclid(extent),
                    Border::Reflect if extent == 1 => 0,
                    Border::Reflect => {
                        let period = 2 * (extent - 1);
                        let folded = inside.rem_euclid(period);
                        folded.min(period - folded)
                    }
                };
                Some(first + index as usize)
            }
        }
    }

    /// Largest index that the first `output` outputs read, when there is one and none is negative.
    fn largest(self, output: usize) -> Option<usize> {
        match self {
            Self::Step { start, step } => {
                let last =
                    i64::try_from(output.checked_sub(1)?).ok()?.checked_mul(step)?.checked_add(start)?;
                usize::try_from(start.min(last)).ok()?;
                usize::try_from(start.max(last)).ok()
            }
            Self::Padded { first, extent, .. } => first.checked_add(extent.checked_sub(1)?),
        }
    }
}

impl IndexMap {
    /// Each output axis reads the input axis at the same place.
    ///
    /// # Errors
    /// When the map would read outside an input of that shape, or the output is too large.
    pub fn by_axis(input: &[usize], axes: impl IntoIterator<Item = (usize, AxisMap)>) -> Result<Self> {
        let axis = |(stride, (output, map))| MappedAxis { output, stride, map };
        let axes = strides(input).into_iter().zip(axes).map(axis).collect();
        Self::new(axes, element_count(input)?)
    }

    /// Any axes over an input of `count` elements.
    ///
    /// # Errors
    /// When the map would read outside the input, or the output is too large.
    pub fn new(axes: Vec<MappedAxis>, count: usize) -> Result<Self> {
        let map = Self { axes };
        element_count(&map.output_shape())?;
        let reach = if map.reads_nothing() {
            Some(0)
        } else {
            map.axes.iter().try_fold(1usize, |reach, axis| {
                reach.checked_add(axis.map.largest(axis.output)?.checked_mul(axis.stride)?)
            })
        };
        if reach.is_some_and(|reach| reach <= count) {
            return Ok(map);
        }
        Err(Error::Size(format!("a map reaches outside its input of {count} elements: {:?}", map.axes)))
    }

    /// True when the output is empty, or all border.
    fn reads_nothing(&self) -> bool {
        self.axes.iter().any(|axis| {
            axis.output == 0
                || matches!(axis.map, AxisMap::Padded { border: Border::Constant, extent: 0, .. })
        })
    }

    /// Extents of the output.
    pub fn output_shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.output).collect()
    }

    /// Hands over the source of each element of the output, in row-major order; `None` is the fill value.
    pub fn visit(&self, mut emit: impl FnMut(Option<usize>)) {
        if self.axes.iter().all(|axis| axis.output > 0) {
            visit(&self.axes, Some(0), &mut emit);
        }
    }

    /// The output for that input. The fill value is zero when absent.
    ///
    /// # Errors
    /// When the fill value is no single element of the input's type, or elements of this type cannot be moved.
    pub fn apply(&self, x: &Tensor, fill: Option<&Tensor>) -> Result<Tensor> {
        let shape = self.output_shape();
        let by_steps = Steps::of(self).and_then(|steps| steps.apply(x, &shape));
        by_steps.unwrap_or_else(|| pick(x, &shape, fill, |emit| self.visit(emit)))
    }

    /// The output for an input that is given as a list of its elements; `None` when it is long or has border in it.
    pub(super) fn apply_to<T: Clone>(&self, elements: &[T]) -> Option<Vec<T>> {
        element_count(&self.output_shape()).ok().filter(|&count| count <= 1 << 16)?;
        let mut output = Some(vec![]);
        self.visit(|source| match source.and_then(|source| elements.get(source)) {
            Some(element) => output.iter_mut().for_each(|output| output.push(element.clone())),
            None => output = None,
        });
        output
    }
}

fn visit(axes: &[MappedAxis], base: Option<usize>, emit: &mut impl FnMut(Option<usize>)) {
    let Some((axis, inner)) = axes.split_first() else { return emit(base) };
    for i in 0..axis.output {
        let source = axis.map.source(i);
        visit(inner, base.zip(source).map(|(base, source)| base + source * axis.stride), emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(output: usize, map: AxisMap) -> Vec<Option<usize>> {
        (0..output).map(|i| map.source(i)).collect()
    }

    #[test]
    fn borders() {
        let padded = |border| AxisMap::Padded { border, begin: 3, first: 1, extent: 3 };
        let all = |values: [usize; 8]| values.map(Some).to_vec();
        assert_eq!(sources(8, padded(Border::Edge)), all([1, 1, 1, 1, 2, 3, 3, 3]));
        assert_eq!(sources(8, padded(Border::Reflect)), all([2, 3, 2, 1, 2, 3, 2, 1]));
        assert_eq!(sources(8, padded(Border::Wrap)), all([1, 2, 3, 1, 2, 3, 1, 2]));
        let constant = [None, None, None, Some(1), Some(2), Some(3), None, None];
        assert_eq!(sources(8, padded(Border::Constant)), constant);
        let single = AxisMap::Padded { border: Border::Reflect, begin: 2, first: 0, extent: 1 };
        assert_eq!(sources(4, single), vec![Some(0); 4]);
    }

    #[test]
    fn maps_that_reach_outside_are_refused() {
        let map = |output, start, step| {
            IndexMap::by_axis(&[2, 4], [(2, AxisMap::IDENTITY), (output, AxisMap::Step { start, step })])
        };
        assert!(map(5, 3, -1).is_err());
        assert!(map(5, 0, 1).is_err());
        assert!(map(2, i64::MAX, 1).is_err());
        assert!(map(0, 9, 1).is_ok());
        assert_eq!(map(2, 3, -2).unwrap().apply_to(&[0, 1, 2, 3, 4, 5, 6, 7]), Some(vec![3, 1, 7, 5]));
    }
}
